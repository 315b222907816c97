"""The documentation as a website: every page is there and is found, no link is broken, pictures are made."""

from __future__ import annotations

import html
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup, SoupStrainer

from axe import violations
from conftest import REPOSITORY
from fly64_nb.show.docs import GUIDE, PAGES, write_docs
from fly64_nb.show.evidence import package_notebooks


@pytest.fixture(scope="module")
def docs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    assert write_docs(folder, run=[GUIDE]) > 2 * len(package_notebooks()) - 20
    return folder


def broken_links(docs: Path) -> list[str]:
    """Links and pictures of a website that lead nowhere, and whatever it would load from another host."""
    texts = {path: path.read_text(encoding="utf-8") for path in docs.rglob("*.html")}
    leading = SoupStrainer(["a", "img", "script", "link"])  # a tree of nothing else is made in a third of the time
    pages = {path: BeautifulSoup(text, "html.parser", parse_only=leading) for path, text in texts.items()}
    names = {path: set(map(html.unescape, re.findall(r'\sid="([^"]*)"', text))) for path, text in texts.items()}
    broken = []
    for path, page in pages.items():
        for tag, attribute in (("a", "href"), ("img", "src"), ("script", "src"), ("link", "href")):
            for element in page.find_all(tag, **{attribute: True}):
                target = urlsplit(element[attribute])
                if target.scheme in ("http", "https", "mailto") and tag == "a" or target.scheme == "data":
                    continue
                there = (path.parent / unquote(target.path)).resolve() if target.path else path
                known = not target.fragment or there not in names or unquote(target.fragment) in names[there]
                if target.scheme or not there.is_relative_to(docs) or not there.is_file() or not known:
                    broken.append(f"{path.relative_to(docs)}: {element[attribute]}")
    return broken


def test_no_link_of_the_documentation_is_broken(docs):
    broken = broken_links(docs)
    assert not broken, (len(broken), sorted(set(broken))[:40])


@pytest.mark.slow  # four minutes: every notebook is run
def test_with_every_notebook_run_no_link_is_broken_and_each_picture_has_words(tmp_path):
    """Examples make studies that are gone when the page is read."""
    write_docs(tmp_path / "site")
    assert not broken_links(tmp_path / "site")
    pages = [BeautifulSoup(p.read_text(encoding="utf-8"), "html.parser") for p in tmp_path.rglob("notebooks/**/*.html")]
    pictures = [picture for page in pages for picture in page.main.find_all("img")]
    assert len(pictures) > 120 and all(picture.get("alt") for picture in pictures)


def test_the_documentation_has_the_guide_every_notebook_and_what_surrounds_them(docs):
    for name in package_notebooks():
        assert (docs / "notebooks" / name.with_suffix(".html")).is_file(), name
    assert all((docs / f"{name}.html").is_file() for name in PAGES)
    guide = BeautifulSoup((docs / "guide.html").read_text(encoding="utf-8"), "html.parser")
    assert len(guide.main.find_all("a")) == len(list((REPOSITORY / "nbs" / "guide").glob("*.ipynb")))
    shown = BeautifulSoup((docs / "notebooks/guide/metrics.html").read_text(encoding="utf-8"), "html.parser")
    assert shown.main.find("img")["alt"]
    about = {path.stem for path in (docs / "about").glob("*.html")}
    assert about == {"citation", "changelog", "contributing", "security"}


# what a newcomer types, and the page that answers
ANSWERS = {
    "compare two pictures": "show/swipe.html", "own axis": "index.html#your-own-method-axis-or-file-format",
    "exposure": "physics/exposure.html", "dose": "axes/dose.html", "mask": "axes/dead_pixels.html",
    "slurm": "index.html#on-a-cluster", "gpu": "index.html#what-it-needs", "cite": "about/citation.html",
    "uncertainty": "quality/advice.html", "how many photons": "quality/advice.html", "overlap": "axes/overlap.html",
    "own method": "index.html#your-own-method-axis-or-file-format", "units": "data/experiment.html",
    "install": "index.html#getting-started", "own data": "guide/my_scan.html",
}  # fmt: skip


def test_the_search_has_the_page_that_answers_among_the_first_three(docs, browser):
    page, missed = browser.new_page(), {}
    page.goto((docs / "index.html").as_uri())
    for typed, answer in ANSWERS.items():
        page.get_by_label("Search in these pages").fill(typed)
        page.wait_for_selector("form.search li a", state="attached")
        links = page.eval_on_selector_all("form.search li a", "links => links.map(a => a.href)")
        if not any(link.endswith(answer) for link in links[:3]):
            missed[typed] = links[:3]
    page.close()
    assert not missed


def test_every_kind_of_page_can_be_read_aloud_and_reached_by_keyboard(docs, browser):
    names = ("index", "about/citation", "notebooks/guide/metrics", "notebooks/physics/limits", "api/physics.limits")
    found = {name: violations(browser, docs / f"{name}.html") for name in names}
    assert not any(found.values()), found


def test_a_picture_of_a_notebook_leads_to_itself(docs):
    """On a phone a wide figure is small; alone it can be as large as it is."""
    page = docs / "notebooks/guide/metrics.html"
    pictures = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").main.find_all("img")
    assert pictures and all(picture.parent.name == "a" for picture in pictures)
    assert all(picture.parent["href"] == picture["src"] and picture["alt"] for picture in pictures)
