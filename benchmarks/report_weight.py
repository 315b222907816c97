"""What a study's report weighs, and how many links it has: ``python benchmarks/report_weight.py STUDY``."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

from fly64_nb.study.layout import Layout

KB = 1000
EMBEDDED = (("img", "src"), ("script", "src"), ("link", "href"))


def weigh(page: Path) -> tuple[int, int, int, int]:
    """Bytes of a page, and of it with all that it loads; its own links, its pictures."""
    found = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    links = [a["href"] for a in found.find_all("a", href=True) if urlsplit(a["href"]).scheme not in ("http", "https")]
    elements = [(e, name) for tag, name in EMBEDDED for e in found.find_all(tag, **{name: True})]
    urls = [urlsplit(element[name]) for element, name in elements]
    files = {page, *((page.parent / unquote(url.path)).resolve() for url in urls if not url.scheme)}
    everything = sum(f.stat().st_size for f in files if f.is_file())
    return page.stat().st_size, everything, len(links), len(found.find_all("img"))


def main(site: Path) -> None:
    weights = {page: weigh(page) for page in sorted(site.rglob("*.html"))}
    print(f"{'page':<40} {'HTML kB':>8} {'all kB':>8} {'links':>6}")
    for page, (html, everything, links, _) in weights.items():
        if page.parent == site:
            print(f"{page.name:<40} {html / KB:8.0f} {everything / KB:8.0f} {links:6d}")
    others = [weight for page, weight in weights.items() if page.parent != site]
    if others:
        html, everything, *_ = max(others, key=lambda weight: weight[1])
        title = f"{len(others)} other pages, heaviest"
        print(f"{title:<40} {html / KB:8.0f} {everything / KB:8.0f} {sum(weight[2] for weight in others):6d}")
    files = (f for f in site.rglob("*") if f.is_file() and "downloads" not in f.relative_to(site).parts)
    links, pictures = (sum(weight[k] for weight in weights.values()) for k in (2, 3))
    total = sum(f.stat().st_size for f in files) / KB**2
    print(f"{len(weights)} pages, {links} links, {pictures} pictures; {total:.0f} MB without downloads")


if __name__ == "__main__":
    main(Layout(Path(sys.argv[1])).report / "_site")
