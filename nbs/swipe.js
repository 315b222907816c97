// Two pictures of one field, one over the other, and a line between them that can be moved.
(() => {
  const box = document.currentScript.closest(".swipe");
  const form = box.querySelector("form"), told = JSON.parse(box.querySelector("script[type]").textContent);
  const stage = box.querySelector(".stage"), line = box.querySelector(".line");
  const asked = (name) => form.elements[name];
  const pictures = new Map([...box.querySelectorAll("img")].map((image) => [image.dataset.of, image]));

  // the truth is one picture for all conditions
  const picture = (row, column, name, channel) =>
    pictures.get([row, column, name, channel].join("/")) ?? pictures.get([name, channel].join("/"));

  function show() {
    const [row, column] = [asked("row").value, asked("column").value];
    const channel = asked("channel").value;
    for (const name of ["row", "column"]) asked(name).nextElementSibling.value = told[name + "s"][asked(name).value];
    for (const image of pictures.values()) {
      image.hidden = true;
      image.classList.remove("over");
    }
    const words = [];
    for (const side of ["left", "right"]) {
      const name = asked(side).value, image = picture(row, column, name, channel);
      if (image) {
        image.hidden = false;
        image.classList.toggle("over", side === "left");
      }
      const said = told.words[[row, column, name].join("/")] ?? "";
      words.push(`${side}: ${name}${image ? said && `, ${said}` : ": missing"}`);
    }
    const seen = [...pictures.values()].filter((image) => !image.hidden);
    if (seen.length < 2) seen[0]?.classList.remove("over");  // alone it is shown whole
    const page = told.pages[[row, column].join("/")];
    const caption = box.querySelector("figcaption");
    caption.textContent = words.join("; ") + ". ";
    if (page) {
      const link = document.createElement("a");
      link.href = page;
      link.textContent = "the comparison";
      caption.append(link);
    }
    for (const bar of box.querySelectorAll("[data-bar]")) {
      bar.hidden = bar.dataset.bar !== channel && bar.dataset.bar !== `${row}/${channel}`;
    }
  }

  const divide = () => stage.style.setProperty("--at", `${line.value}%`);
  form.hidden = line.hidden = false;
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  line.addEventListener("input", divide);
  divide();
  show();
})();
