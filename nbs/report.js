// Search in a report's pages. Their words lie in pages.js, which is read when somebody begins to type.
(() => {
  const form = document.querySelector("form.search");
  const [input, status, list] = [form.querySelector("input"), form.querySelector("p"), form.querySelector("ul")];
  const up = form.dataset.up, SHOWN = 12;
  form.hidden = false;

  const contents = document.querySelector(".contents details");
  if (contents && matchMedia("(min-width: 85rem)").matches) contents.open = true;

  // on a phone the names of the pages are one line that scrolls
  document.querySelector(".top [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

  const plain = (text) => " " + text.toLowerCase().replace(/[^\p{L}\p{N}.+|-]+/gu, " ");
  const has = (text, words) => words.every((word) => text.includes(" " + word));

  // a page's place, first what counts most: words in its title, text before signatures,
  // words in its headings, how frequent they are in its text
  function rank([title, address, headings, words], typed, phrase) {
    const [name, heads, all] = [plain(title), plain(headings), words.split(" ")];
    const places = typed.map((word) => all.findIndex((other) => other.startsWith(word)));
    const titled = has(name, typed);
    const isText = !address.startsWith("api/");
    return [has(name, [phrase]), titled, titled && -name.length, isText, has(heads, [phrase]), has(heads, typed), -Math.max(...places)];
  }

  function search() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const typed = words.map((word) => (word.length > 3 ? word.replace(/s$/, "") : word));  // "units" finds "unit" as well
    list.replaceChildren();
    status.textContent = "";
    if (!typed.length) return;
    const phrase = [...words.slice(0, -1), typed.at(-1)].join(" ");
    const ranked = window.PAGES.filter(([title, , headings, all]) => has(plain(title) + plain(headings) + " " + all, typed))
      .map((entry) => [entry, rank(entry, typed, phrase)]);
    const better = (a, b) => b[1].map((value, n) => value - a[1][n]).find(Boolean) || 0;
    const found = ranked.sort(better).map(([entry]) => entry);
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
