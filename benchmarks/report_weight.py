"""What a study's report weighs, and how many links it has: ``python benchmarks/report_weight.py STUDY``."""
from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

KB = 1000


def main(site: Path) -> None:
    pages, links, pictures = sorted(site.rglob("*.html")), 0, 0
    weights = {}
    for page in pages:
        found = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        own = [a["href"] for a in found.find_all("a", href=True) if urlsplit(a["href"]).scheme not in ("http", "https")]
        files = {page, *((page.parent / unquote(urlsplit(e[name]).path)).resolve() for tag, name in (("img", "src"), ("script", "src"), ("link", "href"))
                         for e in found.find_all(tag, **{name: True}) if not urlsplit(e[name]).scheme)}
        links, pictures = links + len(own), pictures + len(found.find_all("img"))
        weights[page] = page.stat().st_size, sum(f.stat().st_size for f in files if f.is_file()), len(own)
    print(f"{'page':<40} {'HTML kB':>8} {'all kB':>8} {'links':>6}")
    for page in (p for p in pages if p.parent == site):
        html, everything, own = weights[page]
        print(f"{page.name:<40} {html / KB:8.0f} {everything / KB:8.0f} {own:6d}")
    others = [w for p, w in weights.items() if p.parent != site]
    if others:
        heaviest = max(others, key=lambda w: w[1])
        print(f"{f'{len(others)} other pages, heaviest':<40} {heaviest[0] / KB:8.0f} {heaviest[1] / KB:8.0f} {sum(w[2] for w in others):6d}")
    total = sum(f.stat().st_size for f in site.rglob("*") if f.is_file() and "downloads" not in f.relative_to(site).parts)
    print(f"{len(pages)} pages, {links} links, {pictures} pictures; {total / KB**2:.0f} MB without downloads")


if __name__ == "__main__":
    main(Path(sys.argv[1]) / "report" / "_site")
