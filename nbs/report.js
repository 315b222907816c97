// Search in a report's pages. Their words lie in pages.js, which is read when somebody begins to type.
(() => {
  const form = document.querySelector("form.search");
  const [input, status, list] = [form.querySelector("input"), form.querySelector("p"), form.querySelector("ul")];
  const up = form.dataset.up, SHOWN = 12;
  form.hidden = false;

  const contents = document.querySelector(".contents details");
  if (contents && matchMedia("(min-width: 82rem)").matches) contents.open = true;

  // on a phone the names of the pages are one line that scrolls
  document.querySelector(".top [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

  const has = (words, typed) => typed.every((word) => (" " + words).includes(" " + word));

  function search() {
    const typed = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    list.replaceChildren();
    status.textContent = "";
    if (!typed.length) return;
    const found = window.PAGES.filter(([title, , words]) => has(title.toLowerCase().replace(/[/_]/g, " ") + " " + words, typed));
    const titled = (entry) => has(entry[0].toLowerCase().replace(/[/_]/g, " "), typed);
    found.sort((a, b) => titled(b) - titled(a));
    const more = found.length > SHOWN ? `, the first ${SHOWN} shown` : "";
    status.textContent = found.length ? `${found.length} found${more}` : `No page has ${input.value.trim()}`;
    for (const [title, address] of found.slice(0, SHOWN)) {
      const link = document.createElement("a");
      link.href = up + address;
      link.textContent = title;
      list.append(document.createElement("li"));
      list.lastChild.append(link);
    }
  }

  function load() {
    if (window.PAGES) return search();
    if (document.querySelector("script[data-pages]")) return;
    const script = document.createElement("script");
    script.src = up + "pages.js";
    script.dataset.pages = "";
    script.onload = search;
    document.head.append(script);
  }

  input.addEventListener("input", load);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    list.querySelector("a")?.click();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && form.contains(document.activeElement)) {
      input.value = "";
      search();
      input.focus();
    } else if (event.key === "/" && !event.target.closest("input, textarea, select")) {
      event.preventDefault();
      input.focus();
    }
  });
  document.addEventListener("click", (event) => {
    if (!form.contains(event.target)) list.replaceChildren(), (status.textContent = "");
  });
})();
