"""The published report in a real browser: every page whole, every link alive, every number the one of the table, at the width of a phone and of a desk."""
from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from conftest import fly64
from fly64_nb.comparison import headline
from fly64_nb.core.site import PAGES, choose_renderer, publish_report, quarto_version
from fly64_nb.report import IN_FULL


def render_again(study: Path, root: Path, quarto: str) -> Path:
    """The report of a study rendered anew in a copy of it; returns the site."""
    copied = Path(shutil.copytree(study, root / "study"))
    return publish_report(copied, quarto).page.parent


@pytest.fixture(scope="module", params=["nbconvert", "Quarto"])
def site(request, study, tmp_path_factory) -> Path:
    """The tiny study's site, by either renderer; that of Quarto only where Quarto is."""
    quarto = shutil.which("quarto") if request.param == "Quarto" else ""
    if quarto is None:
        pytest.skip("no quarto on the path: the report as Quarto renders it is not tested here")
    return render_again(study, tmp_path_factory.mktemp(request.param), quarto)


@functools.cache
def parsed(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


@functools.cache
def names_in(page: Path) -> frozenset[str]:
    return frozenset(str(tag.get("id") or tag.get("name")) for tag in parsed(page).find_all(lambda t: t.get("id") or t.get("name")))


def first_page(site: Path, name: str) -> Path:
    """Where a page of the report is: of its own with Quarto, else a section of the only one."""
    return site / f"{name}.html" if (site / f"{name}.html").is_file() else site / "index.html"


def test_no_link_is_broken_and_no_picture_missing_on_any_page(site):
    broken, links, pictures = [], 0, 0
    for page in site.rglob("*.html"):
        for tag, attribute in (("a", "href"), ("img", "src"), ("script", "src"), ("link", "href")):
            for element in parsed(page).find_all(tag, **{attribute: True}):
                target = urlsplit(element[attribute])
                if target.scheme in ("http", "https", "mailto") and tag == "a":
                    continue
                if target.scheme == "data":
                    assert tag == "img" and element[attribute].startswith("data:image/")
                    pictures += 1
                    continue
                assert not target.scheme and not target.netloc, f"{page}: {tag} of another host: {element[attribute]}"
                there = (page.parent / unquote(target.path)).resolve() if target.path else page
                links, pictures = links + (tag == "a"), pictures + (tag == "img")
                if not there.is_relative_to(site.resolve()) or not there.exists() or (
                        tag == "a" and there.suffix == ".html" and target.fragment and unquote(target.fragment) not in names_in(there)):
                    broken.append(f"{page.relative_to(site)}: {element[attribute]}")
    assert not broken, broken[:20]
    assert links > 400 and pictures > 60
    assert not [image for page in site.rglob("*.html") for image in parsed(page).find_all("img") if len(image.get("alt", "")) < 8]


def test_the_numbers_of_the_table_are_those_of_the_csv(site, study):
    table = pd.read_csv(study / "metrics.csv")
    shown = parsed(site / "index.html").find("caption", string="Against the truth, test split").find_parent("table")
    head = [th.get_text() for th in shown.find("thead").find_all("th")]
    rows = {(float(r["dose"]), r["view"], r["method"]): r for r in (dict(zip(head, (c.get_text() for c in tr.find_all(["th", "td"]))))
                                                                 for tr in shown.find("tbody").find_all("tr"))}
    expected = headline(table)
    assert set(rows) == set(expected.index) and len(rows) == 9
    for key, numbers in expected.iterrows():
        for name, value in numbers.items():
            assert rows[key][name] == f"{value:.4g}", (key, name)
    kept = pd.read_csv(site / "downloads" / "metrics.csv")
    pd.testing.assert_frame_equal(kept, table)
    limit = table.query("metric == 'rmse_limit' and split == 'test' and view == 'dense'")["value"].iloc[0]
    error = table.query("metric == 'rmse' and channel == 'phase' and split == 'test' and view == 'dense' and method == 'PtyChi'")["value"].iloc[0]
    assert float(rows[1e4, "dense", "PtyChi"]["times the limit"]) == pytest.approx(error / limit, rel=1e-3)


def test_every_cell_of_a_heatmap_leads_to_the_notebook_whose_metrics_it_shows(site, study):
    table = pd.read_csv(study / "metrics.csv").set_index(["split", "channel", "metric", "method", "dose", "view"])["value"]
    known, cells = {f"{label}, {split} split": (split, channel, metric) for metric, channel, label, _, _ in IN_FULL for split in ("test", "train")}, 0
    page = first_page(site, "metrics")
    for maps in parsed(page).find_all(class_="heatmaps"):
        legend = maps.find_next_sibling(class_="colourbar").find_all("span")[-1].get_text()
        if legend not in known:                                         # multiples of the limit are no row of the table
            continue
        split, channel, metric = known[legend]
        for shown in maps.find_all("table"):
            views = [th.get_text() for th in shown.find("thead").find_all("th")][1:]
            for tr in shown.find("tbody").find_all("tr"):
                dose = float(tr.find("th").get_text())
                for view, td in zip(views, tr.find_all("td")):
                    cell, value = td.find(class_="cell"), table[split, channel, metric, shown.caption.get_text(), dose, view]
                    assert cell.name == "a" and cell.get_text() == f"{value:.3f}"
                    notebook = (page.parent / cell["href"]).resolve()
                    assert notebook.relative_to(site.resolve()).as_posix() == f"notebooks/phase_g/dose_{dose:.0f}/{view}_{split}.html"
                    assert re.search(rf"(?<![\d.]){re.escape(f'{value:.4f}')}", parsed(notebook).get_text()), (legend, dose, view)
                    cells += 1
    assert cells >= 2 * len(IN_FULL) * 9


def test_evidence_holds_every_job_log_and_manifest(site, study):
    page = first_page(site, "evidence")
    links = {a["href"] for a in parsed(page).find_all("a", href=True)}
    for notebook in (study / "notebooks").rglob("*.ipynb"):
        assert notebook.relative_to(study).with_suffix(".html").as_posix() in links
    for log in study.glob("phase_*/**/*.log"):
        assert f"logs/{log.relative_to(study).as_posix()}.txt" in links
    assert {f"manifests/{p.relative_to(study).as_posix()}" for p in study.glob("phase_[a-g]/*.json")} <= links
    downloads = {a["href"] for a in parsed(first_page(site, "downloads")).find_all("a", href=True)}
    assert {f"downloads/{p.relative_to(study).as_posix()}" for p in (*study.glob("phase_g/*/*/*/aligned.npz"), *study.glob("phase_f/*/*/*/product.h5"))} <= downloads
    assert (site / "downloads/phase_g/dose_10000/dense/test/aligned.npz").read_bytes() == (study / "phase_g/dose_10000/dense/test/aligned.npz").read_bytes()


WHOLE = """async () => {
    for (let y = 0; y < document.documentElement.scrollHeight; y += 600) { scrollTo(0, y); await new Promise(r => setTimeout(r, 10)) }
    await Promise.all([...document.images].map(i => i.decode().catch(() => 0)));
    return {missing: [...document.images].filter(i => !i.naturalWidth).map(i => i.src.slice(-80)), width: document.documentElement.scrollWidth,
            background: getComputedStyle(document.body).backgroundColor}
}"""


def look(context, address: str) -> tuple[dict, list[str], list[str]]:
    """A page as a browser sees it: pictures that are missing and its width; what it complained of; what it asked for."""
    page, complaints, asked = context.new_page(), [], []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    seen = page.evaluate(WHOLE)
    page.close()
    return seen, complaints, asked


@pytest.mark.parametrize("width", [390, 1400])
def test_every_page_is_whole_in_a_browser_from_files(site, browser, width):
    context = browser.new_context(viewport={"width": width, "height": 900})
    pages = sorted(site.rglob("*.html"))
    if (site / "docs").is_dir():                                            # eighty pages of one kind: some will do
        pages = [p for p in pages if "docs" not in p.parts] + [site / "docs/index.html", site / "docs/notebooks/core/limits.html", site / "docs/api/core.optics.html"]
    for path in pages:
        seen, complaints, asked = look(context, path.as_uri())
        assert not complaints, (path, complaints)
        assert not seen["missing"], (path, seen["missing"])
        assert seen["width"] <= width, f"{path} is {seen['width']} px wide in a window of {width}"
        assert all(url.startswith(("file:", "data:")) for url in asked), (path, asked)
    context.close()


def test_the_site_works_from_a_static_server_and_in_the_dark(site, browser):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        for scheme, dark in (("light", False), ("dark", True)):
            context = browser.new_context(color_scheme=scheme)
            for name in PAGES if (site / "gallery.html").is_file() else ("index",):
                seen, complaints, asked = look(context, f"{root}/{name}.html")
                assert not seen["missing"] and all(url.startswith((root, "data:")) for url in asked)
                assert not [c for c in complaints if "favicon" not in c and "404" not in c], complaints
                assert (sum(map(int, re.findall(r"\d+", seen["background"])[:3])) < 200) == dark, (name, scheme, seen["background"])
            context.close()
    finally:
        server.shutdown()


@pytest.fixture
def unfinished(study, tmp_path) -> Path:
    """A study in which one comparison was left out with a reason, and another was not made yet."""
    copied = Path(shutil.copytree(study, tmp_path / "s"))
    phase = copied / "phase_g"
    shutil.rmtree(phase / "dose_10000" / "sparse" / "test"), shutil.rmtree(phase / "dose_10000" / "baseline" / "test")
    (phase / "skip_summary.json").write_text(json.dumps([{"name": "phase_g/dose_10000/sparse_test", "dose": 1e4, "view": "sparse", "split": "test",
                                                          "reason": "too few <positions> are left"}]))
    for name in ("sparse_test", "baseline_test"):
        (copied / "notebooks" / "phase_g" / "dose_10000" / f"{name}.ipynb").unlink()
    return copied


def test_what_is_missing_is_shown_as_missing_with_its_reason(unfinished, browser):
    fly64("report", unfinished)
    site = unfinished / "report" / "_site"
    page = parsed(site / "index.html")
    reasons = [cell.get_text() for cell in page.find_all(class_="cell") if "missing" in cell["class"]]
    assert any("too few <positions> are left" in r for r in reasons) and any("not made yet" in r for r in reasons)
    gallery = first_page(site, "gallery").read_text()
    assert "missing: too few" in gallery
    assert not [a["href"] for a in page.find_all("a", href=True) if "phase_g/dose_10000/sparse_test" in a["href"]]
    context = browser.new_context(viewport={"width": 390, "height": 900})
    seen, complaints, _ = look(context, (site / "index.html").as_uri())
    assert not seen["missing"] and not complaints and seen["width"] <= 390
    context.close()


def test_the_version_of_quarto_decides(tmp_path, monkeypatch):
    def program(text: str, status: int = 0) -> str:
        path = tmp_path / f"quarto{abs(hash((text, status)))}"
        path.write_text(f"#!/bin/sh\necho '{text}'\nexit {status}\n")
        path.chmod(0o755)
        return str(path)

    assert quarto_version(program("1.7.31")) == (1, 7, 31)
    chosen, said = choose_renderer(program("1.3.450"))
    assert chosen is None and "1.3.450 is too old" in said
    new = program("1.8.2")
    assert choose_renderer(new) == (new, "Quarto 1.8.2")
    monkeypatch.setenv("FLY64_QUARTO", new)
    assert choose_renderer() == (new, "Quarto 1.8.2")
    chosen, said = choose_renderer("")
    assert chosen is None and "https://quarto.org" in said and "documentation" in said
    with pytest.raises(RuntimeError, match="needed is a version"):
        quarto_version(program("nonsense", 1))


def test_a_failing_quarto_leaves_the_former_site(copy, tmp_path):
    page = copy / "report" / "_site" / "index.html"
    before = page.read_bytes()
    broken = tmp_path / "quarto"
    broken.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 1.7.0 && exit 0\necho 'ERROR: no pandoc' >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(RuntimeError, match="return code 3: ERROR: no pandoc"):
        publish_report(copy, str(broken))
    assert page.read_bytes() == before


def test_the_photons_of_the_report_conserve_energy(study):
    """Light of a view is what its exposures carry, so the picture of the limit rests on as many photons as were counted."""
    from fly64_nb.contract import validate_dataset_contract
    from fly64_nb.design import read_study
    from fly64_nb.overlap import view_path
    from fly64_nb.report import scan_light

    photons, positions = scan_light(study, read_study(study)["design"], 1e4)
    counted = sum(validate_dataset_contract(view_path(study, 1e4, "dense", split)).counts().sum(dtype=np.float64) for split in ("train", "test"))
    exposures = sum(len(y) for y, _ in positions["dense"].values())
    assert photons["dense"].sum() == pytest.approx(counted, abs=5 * np.sqrt(1e4 * exposures))
