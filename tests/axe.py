"""What axe-core, which knows the rules of WCAG and those of good practice, finds wrong with a page in a browser."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

AXE = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
# a frame is drawn, and what watches sizes is told, before the second one
DRAWN = "new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
RULES = "axe.run({resultTypes: ['violations'], rules: {'color-contrast': {enabled: false}}})"
# contrast takes nine tenths of the time, and a page has a thousand words of the same colours: one of each will do
CONTRAST = """(() => {
    const under = (e) => {
        const style = e && getComputedStyle(e);
        return e ? `${under(e.parentElement)} ${style.backgroundColor} ${style.opacity}` : "";
    };
    const kinds = new Map();
    for (const e of document.querySelectorAll("body *")) {
        const words = [...e.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
        const {color, fontSize, fontWeight} = getComputedStyle(e);
        const kind = `${color} ${fontSize} ${fontWeight} ${words && under(e)}`;
        if (words && e.checkVisibility() && !kinds.has(kind)) kinds.set(kind, e);
    }
    const include = [...kinds.values()];
    return axe.run({include}, {resultTypes: ['violations'], runOnly: ['color-contrast']});
})()"""


def violations(browser, page: Path) -> list[str]:
    """What is wrong with a page, all of it unfolded, in a wide and a narrow window, in the light and in the dark."""
    wrong = []
    for scheme in ("light", "dark"):
        shown = browser.new_page(color_scheme=scheme)
        shown.goto(page.as_uri())
        shown.evaluate(AXE)
        shown.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true })")
        for width, runs in ((1400, (RULES, CONTRAST)), (390, (RULES,))):  # colours are the same in both
            shown.set_viewport_size({"width": width, "height": 900})
            shown.evaluate(DRAWN)
            for rule in [rule for run in runs for rule in shown.evaluate(f"{run}.then(found => found.violations)")]:
                places = [node["html"][:100] for node in rule["nodes"][:2]]
                wrong.append(f"{scheme}, {width} px: {rule['id']}, {len(rule['nodes'])} times: {places}")
        shown.close()
    return wrong
