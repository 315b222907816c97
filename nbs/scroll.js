// What scrolls by itself, such as a wide table or a long line of code, can be reached with the keyboard.
(() => {
  const NAMES = { PRE: "Text that scrolls", TABLE: "Table that scrolls" };
  const given = new WeakSet();
  const more = /auto|scroll/;
  const scrolls = (element, style = getComputedStyle(element)) =>
    (element.scrollWidth > element.clientWidth && more.test(style.overflowX)) ||
    (element.scrollHeight > element.clientHeight && more.test(style.overflowY));

  // only while it scrolls: a stop at each short text would be in the way
  function fit(element) {
    if (!scrolls(element)) {
      if (given.delete(element)) for (const name of ["tabindex", "role", "aria-label"]) element.removeAttribute(name);
    } else if (!element.hasAttribute("tabindex")) {
      given.add(element);
      element.tabIndex = 0;
      if (element.tagName !== "TABLE") element.setAttribute("role", "group");  // a table has a role of its own
      element.setAttribute("aria-label", NAMES[element.tagName] ?? "Part that scrolls");
    }
  }

  // told at first, when the window changes, and when a fold is opened
  const watch = new ResizeObserver((entries) => entries.forEach((entry) => fit(entry.target)));
  for (const element of document.querySelectorAll("main :is(pre, table, .scroll, .sourceCode, p, .math.display)")) {
    watch.observe(element);
  }
})();
