"""The published report in a real browser: pages whole, links alive, numbers right, on a phone and at a desk."""

from __future__ import annotations

import functools
import http.server
import io
import json
import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from axe import violations
from conftest import fly64
from halves import write_halves
from fly64_nb import api
from fly64_nb.contract import validate_dataset_contract
from fly64_nb.data.base import read_base
from fly64_nb.design import ChosenAxis, read_study, write_study
from fly64_nb.quality.table import NOTHING, headline
from fly64_nb.report import HEATMAPS, IN_FULL, build_report_job, further_heatmaps, scan_light
from fly64_nb.results.example import example_study, write_example_root
from fly64_nb.results.plan import write_phases
from fly64_nb.results.study import open_study
from fly64_nb.engine.graph import run_job
from fly64_nb.engine.job import JobResult
from fly64_nb.engine.record import record_not_run
from fly64_nb.show.site import PAGES, Published, choose_renderer, is_rendered_with, publish_report, quarto_version


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
    return frozenset(
        str(tag.get("id") or tag.get("name")) for tag in parsed(page).find_all(lambda t: t.get("id") or t.get("name"))
    )


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
                if (
                    not there.is_relative_to(site.resolve())
                    or not there.exists()
                    or (
                        tag == "a"
                        and there.suffix == ".html"
                        and target.fragment
                        and unquote(target.fragment) not in names_in(there)
                    )
                ):
                    broken.append(f"{page.relative_to(site)}: {element[attribute]}")
    assert not broken, broken[:20]
    assert links > 400 and pictures > 60
    assert not [
        image
        for page in site.rglob("*.html")
        for image in parsed(page).find_all("img")
        if len(image.get("alt", "")) < 8
    ]


def headline_rows(page: Path, axes: tuple[str, ...] = ("dose", "view")) -> dict[tuple, dict[str, str]]:
    """Text of the headline table's cells by axes and method; a method's cell leads to its training as well."""
    shown = parsed(page).find("caption", string="Against the truth, test split").find_parent("table")
    head = [th.get_text() for th in shown.find("thead").find_all("th")]
    rows = {}
    for tr in shown.find("tbody").find_all("tr"):
        cells = dict(zip(head, tr.find_all(["th", "td"])))
        method, row = cells.pop("method").get_text(), {name: cell.get_text() for name, cell in cells.items()}
        if method.startswith(NOTHING):
            rows[NOTHING] = row
            continue
        place = tuple(row[axis] if axis == "view" else float(row[axis]) for axis in axes)
        rows[*place, method.split()[0]] = row
    return rows


def test_the_numbers_of_the_table_are_those_of_the_csv(site, study):
    table, rows = pd.read_csv(study / "metrics.csv"), headline_rows(site / "index.html")
    flat, expected = headline(table).xs(NOTHING, level="method"), headline(table).drop(NOTHING, level="method")
    nothing = rows.pop(NOTHING)
    assert {nothing["dose"], nothing["view"]} == {"any"} and float(nothing["phase contrast kept"]) < 0.3
    assert float(nothing["phase RMSE (rad)"]) == pytest.approx(flat["phase RMSE (rad)"].mean(), rel=1e-3)
    assert set(rows) == set(expected.index) and len(rows) == 9
    for key, numbers in expected.iterrows():
        for name, value in numbers.items():
            assert rows[key][name] == f"{value:.4g}", (key, name)
    kept = pd.read_csv(site / "downloads" / "metrics.csv")
    pd.testing.assert_frame_equal(kept, table)
    phase = table.query("channel == 'phase' and split == 'test' and view == 'dense' and method == 'LSQML'")
    error, limit = phase.set_index("metric")["value"][["rmse", "rmse_limit"]]
    assert float(rows[1e4, "dense", "LSQML"]["times the limit"]) == pytest.approx(error / limit, rel=1e-3)


def test_the_card_is_on_top_and_says_what_it_stands_on(site, study):
    page, answer = parsed(site / "index.html"), open_study(study).answer()
    assert page.find(class_="answer").get_text() == f"Answer. {answer.sentence()}"
    assert "only to see that everything works" in page.find(class_="banner").get_text()
    card = page.find("table", class_="card")
    head = [th.get_text() for th in card.find("thead").find_all("th")]
    assert head[-3:] == [r.place for r in answer.views]
    rows = {tr.find("th").get_text(): [td.get_text() for td in tr.find_all("td")] for tr in card.find_all("tr")[1:]}
    assert {"method", "photons per exposure", "phase error", "phase contrast", "caution"} <= set(rows)
    assert all("per µm²" in cell for cell in rows["and by area"]) and all(
        "nm" in c for c in rows["resolution (half period)"]
    )
    text = page.get_text()
    assert all(words in text for words in (*answer.assumed, *answer.unknown))
    assert "Supervised" not in rows["method"] and "shown the truth of half of this object" in text


def test_a_method_leads_to_its_reconstruction_and_to_its_training(site, study):
    caption = parsed(site / "index.html").find("caption", string="Against the truth, test split")
    links = {a["href"] for a in caption.find_parent("table").find_all("a")}
    opened = open_study(study)
    for name in opened.methods:
        assert f"notebooks/phase_f/dose_10000/dense_test_{name}.html" in links
        trained = opened.training(1e4, "dense", name)
        assert trained is None or opened.notebook_page(trained) in links
    assert sum(opened.method(name).learns for name in opened.methods) == 2


def test_every_cell_of_a_heatmap_leads_to_the_notebook_whose_metrics_it_shows(site, study):
    table = pd.read_csv(study / "metrics.csv").set_index(["split", "channel", "metric", "method", "dose", "view"])[
        "value"
    ]
    known, cells = (
        {
            f"{label}, {split} split": (split, channel, metric)
            for metric, channel, label, _, _ in IN_FULL
            for split in ("test", "train")
        },
        0,
    )
    page = site / "metrics.html"
    for maps in parsed(page).find_all(class_="heatmaps"):
        legend = maps.find_next_sibling(class_="colourbar").find_all("span")[-1].get_text()
        if legend not in known:  # multiples of the limit are no row of the table
            continue
        split, channel, metric = known[legend]
        for shown in maps.find_all("table"):
            views = [th.get_text().split(" (")[0] for th in shown.find("thead").find_all("th")][1:]
            method = shown.caption.get_text().split(" (")[0]
            for tr in shown.find("tbody").find_all("tr"):
                dose = float(tr.find("th").get_text())
                for view, td in zip(views, tr.find_all("td")):
                    cell, value = (
                        td.find(class_="cell"),
                        table[split, channel, metric, method, dose, view],
                    )
                    assert (
                        cell.name == "a"
                        and cell.get_text().removesuffix("no better than a flat image") == f"{value:.3f}"
                    )
                    notebook = (page.parent / cell["href"]).resolve()
                    assert (
                        notebook.relative_to(site.resolve()).as_posix()
                        == f"notebooks/phase_g/dose_{dose:.0f}/{view}_{split}.html"
                    )
                    numbers = {td.get_text() for td in parsed(notebook).find_all("td")}
                    assert f"{value:.4g}" in numbers, (legend, dose, view)
                    cells += 1
    assert cells >= 2 * len(IN_FULL) * 9


def test_evidence_holds_every_job_log_and_manifest(site, study):
    page = site / "evidence.html"
    links = {a["href"] for a in parsed(page).find_all("a", href=True)}
    for notebook in (study / "notebooks").rglob("*.ipynb"):
        assert notebook.relative_to(study).with_suffix(".html").as_posix() in links
    for log in study.glob("phase_*/**/*.log"):
        assert f"logs/{log.relative_to(study).as_posix()}.txt" in links
    assert {f"manifests/{p.relative_to(study).as_posix()}" for p in study.glob("phase_[a-g]/*.json")} <= links
    downloads = {a["href"] for a in parsed(site / "downloads.html").find_all("a", href=True)}
    assert {
        f"downloads/{p.relative_to(study).as_posix()}"
        for p in (*study.glob("phase_g/*/*/*/aligned.npz"), *study.glob("phase_f/*/*/*/*/product.h5"))
    } <= downloads
    assert (site / "downloads/phase_g/dose_10000/dense/test/aligned.npz").read_bytes() == (
        study / "phase_g/dose_10000/dense/test/aligned.npz"
    ).read_bytes()


WHOLE = """async () => {
    const whole = document.documentElement;
    for (let y = 0; y < whole.scrollHeight; y += 600) { scrollTo(0, y); await new Promise(r => setTimeout(r, 10)) }
    for (const i of document.images) i.loading = 'eager';  // what was scrolled past in 10 ms is put off for ever
    const late = new Promise(r => setTimeout(r, 20000));  // Chromium forgets a decode now and then
    await Promise.race([late, Promise.all([...document.images].map(i => i.decode().catch(() => 0)))]);
    const missing = [...document.images].filter(i => !i.naturalWidth).map(i => i.src.slice(-80));
    return {missing, width: whole.scrollWidth, background: getComputedStyle(document.body).backgroundColor}
}"""


def look(context, address: str, narrow: int = 0) -> tuple[dict, list[str], list[str]]:
    """A page in a browser: pictures that are missing, its width and that in a narrow window; complaints; requests."""
    page, complaints, asked = context.new_page(), [], []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    seen = page.evaluate(WHOLE)
    if narrow:
        page.set_viewport_size({"width": narrow, "height": 900})
        seen["narrow"] = page.evaluate("document.documentElement.scrollWidth")
    page.close()
    return seen, complaints, asked


def test_every_page_is_whole_in_a_browser_from_files(site, browser):
    wide, narrow = 1400, 390
    context = browser.new_context(viewport={"width": wide, "height": 900})
    pages = sorted(site.rglob("*.html"))
    if (site / "docs").is_dir():  # eighty pages of one kind: some will do
        pages = [p for p in pages if "docs" not in p.parts] + [
            site / "docs/index.html",
            site / "docs/notebooks/physics/limits.html",
            site / "docs/api/physics.optics.html",
        ]
    for path in pages:
        seen, complaints, asked = look(context, path.as_uri(), narrow)
        assert not complaints, (path, complaints)
        assert not seen["missing"], (path, seen["missing"])
        for found, width in ((seen["width"], wide), (seen["narrow"], narrow)):
            assert found <= width, f"{path} is {found} px wide in a window of {width}"
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
            for name in (n for n in PAGES if (site / f"{n}.html").is_file()):
                seen, complaints, asked = look(context, f"{root}/{name}.html")
                assert not seen["missing"] and all(url.startswith((root, "data:")) for url in asked)
                assert not [c for c in complaints if "favicon" not in c and "404" not in c], complaints
                assert (sum(map(int, re.findall(r"\d+", seen["background"])[:3])) < 200) == dark, (
                    name,
                    scheme,
                    seen["background"],
                )
            context.close()
    finally:
        server.shutdown()


def test_every_kind_of_page_can_be_read_aloud_and_reached_by_keyboard(site, browser):
    """The report's own pages, and those of executed notebooks with tables, pictures, printed text and code."""
    names = ["index", "gallery", "evidence", "notebooks/phase_b/contract", "notebooks/phase_g/dose_10000/dense_test"]
    names += ["notebooks/phase_e/dose_10000/dense_PINN"]
    if (site / "docs").is_dir():
        names += ["docs/index", "docs/notebooks/physics/limits", "docs/api/physics.limits"]
    found = {name: violations(browser, site / f"{name}.html") for name in names}
    assert not any(found.values()), found


@pytest.mark.parametrize("name", ["imperfections", "halves"])
def test_a_page_that_only_some_studies_have_can_be_read_aloud(further, browser, name):
    assert not violations(browser, further / f"report/_site/{name}.html")


def test_what_scrolls_is_a_stop_of_the_keyboard_and_what_does_not_is_none(site, browser):
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto((site / "notebooks/phase_a/design.html").as_uri())
    stops = page.locator("main pre[tabindex='0'][role=group][aria-label]")
    stops.first.wait_for()
    folded = stops.count()
    page.locator("main details.code summary").click()
    stops.nth(folded + 3).wait_for()
    stops.last.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.activeElement.scrollLeft > 0")
    page.set_viewport_size({"width": 1400, "height": 900})
    page.wait_for_function("!document.querySelector('main pre[tabindex]')")
    page.close()


@pytest.fixture
def unfinished(study, tmp_path) -> Path:
    """A study in which one comparison was left out with a reason, and another was not made yet."""
    root = Path(shutil.copytree(study, tmp_path / "s"))
    opened = open_study(root)
    left_out, not_made = (opened.job(1e4, view, "test") for view in ("sparse", "baseline"))
    for job in (left_out, not_made):
        shutil.rmtree(job.output_dir)
        job.executed_notebook.unlink()
    record_not_run(JobResult(left_out, "left out", detail="too few <positions> are left"))
    not_made.record_path.unlink()
    write_phases(root, opened.design, [r for _, r in opened.records() if r.job.phase == "phase_g"])
    return root


def test_what_is_missing_is_shown_as_missing_with_its_reason(unfinished, browser):
    fly64("report", unfinished)
    site = unfinished / "report" / "_site"
    page = parsed(site / "index.html")
    reasons = [cell.get_text() for cell in page.find_all(class_="cell") if "missing" in cell["class"]]
    assert any("too few <positions> are left" in r for r in reasons) and any("not made yet" in r for r in reasons)
    gallery = (site / "gallery.html").read_text()
    assert "missing: left out: too few" in gallery and "missing: not made yet" in gallery
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
    broken.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 1.7.0 && exit 0\necho 'ERROR: no pandoc' >&2\nexit 3\n"
    )
    broken.chmod(0o755)
    with pytest.raises(RuntimeError, match="return code 3: ERROR: no pandoc"):
        publish_report(copy, str(broken))
    assert page.read_bytes() == before


@pytest.mark.parametrize(
    "then, now, again",
    [
        ("nbconvert", "nbconvert", False),
        ("nbconvert", "Quarto 1.8.2", True),
        ("Quarto 1.8.2", "nbconvert", True),
        ("Quarto 1.7.31", "Quarto 1.8.2", True),
        (None, "nbconvert", True),  # a site of an earlier version: it has no record
    ],
)
def test_a_report_is_rendered_again_when_its_renderer_changed(tmp_path, monkeypatch, then, now, again):
    page = tmp_path / "report" / "_site" / "index.html"
    page.parent.mkdir(parents=True)
    page.touch()
    if then:
        page.with_name("rendered.json").write_text(json.dumps({"renderer": then}))
    rendered = []
    monkeypatch.setattr(api, "choose_renderer", lambda: (None, now))
    monkeypatch.setattr(api, "publish_report", lambda study, **_: rendered.append(study) or Published(page, now))
    said = api.publish(tmp_path, JobResult(None, "up to date"))
    assert bool(rendered) == again
    assert said == (f"report: {page} (rendered with {now})" if again else f"report: {page}")


def test_a_published_report_tells_what_rendered_it(further):
    assert is_rendered_with(further / "report", choose_renderer("")[1])
    assert not is_rendered_with(further / "report", "Quarto 1.8.2")


def test_the_photons_of_the_report_conserve_energy(study):
    """Light of a view is what its exposures carry: the limit rests on as many photons as were counted."""
    opened = open_study(study)
    photons, positions = scan_light(opened, 1e4)
    paths = [opened.layout().dataset(opened.condition(1e4, "dense", split)) for split in opened.design.splits]
    counted = sum(validate_dataset_contract(path).counts().sum(dtype=np.float64) for path in paths)
    exposures = sum(len(y) for y, _ in positions["dense"].values())
    assert photons["dense"].sum() == pytest.approx(counted, abs=5 * np.sqrt(1e4 * exposures))


def test_another_design_is_another_report(tmp_path):
    root = example_study(tmp_path / "study")
    before, record = build_report_job(root), read_study(root)
    write_study(root, replace(record["design"], doses=(1e3, 1e4, 1e5)), read_base(root / "base.npz"))
    after = build_report_job(root)
    assert before.title == after.title == "phase_h/report" and before.inputs == after.inputs
    assert before.parameters != after.parameters and before.parameters["study"] == "."


@pytest.fixture(scope="module")
def further(tmp_path_factory) -> Path:
    """A made-up study with a further axis, and its report; one of its comparisons has an executed notebook."""
    root = example_study(tmp_path_factory.mktemp("further") / "study", position_errors=(0.5, 1.0))
    executed = open_study(root).job(1e4, "dense", "test", position_error=0.5).executed_notebook
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("as if it had been run")]), executed)
    write_halves(root, 1e4, "dense", "test", "LSQML")
    done = run_job(build_report_job(root))
    assert done.status == "done", done.detail
    publish_report(root, quarto="")
    return root


def test_a_further_axis_has_its_column_and_its_heatmaps(further):
    study, page = open_study(further), further / "report" / "_site" / "index.html"
    rows = headline_rows(page, ("dose", "view", "position error (px)"))
    expected = headline(study.metrics).drop(NOTHING, level="method")
    assert set(rows) - {NOTHING} == set(expected.index) and len(rows) == 5 * 3 * 3 + 1  # conditions, values, methods
    assert all(rows[key]["phase RMSE (rad)"] == f"{value:.4g}" for key, value in expected["phase RMSE (rad)"].items())
    title = parsed(page).find("h3", string=re.compile("^Phase RMSE .rad. over position error and dose"))
    maps = [found for found in title.find_all_next(class_="heatmaps", limit=3)]
    labels = [found.find_next_sibling(class_="colourbar").find_all("span")[-1].get_text() for found in maps]
    assert labels == [f"phase RMSE (rad), test split, {view} view" for view in study.design.views]
    shown = maps[1].find_all("table")[0]
    assert [th.get_text() for th in shown.find("thead").find_all("th")] == [
        "position error (px)", "1000 photons", "10000 photons",
    ]  # fmt: skip
    method, by_value = shown.caption.get_text(), {}
    for tr in shown.find("tbody").find_all("tr"):
        by_value[float(tr.find("th").get_text())] = tr.find_all("td")
    assert list(by_value) == [0.0, 0.5, 1.0]  # the neutral value first
    for value, cells in by_value.items():
        for dose, cell in zip(study.design.doses, cells):
            rmse = study.table(dose, "dense", "test", position_error=value).loc[("phase", "rmse"), method]
            assert cell.get_text().removesuffix("no better than a flat image") == f"{rmse:.3f}", (value, dose)
    assert by_value[0.5][1].a["href"] == "notebooks/phase_g/dose_10000/dense_position_error_0p5_test.html"
    assert (
        "position error (0.5, 1 px)" in parsed(page).get_text() and "at position error 0 px" in parsed(page).get_text()
    )


def test_what_halves_predict_stands_beside_the_truth(further):
    """Error, half period and error bars, predicted and true; the picture, the notebook, and what it cannot see."""
    folder, site = further / "resolve/dose_10000/dense_test_LSQML", further / "report/_site"
    record, section = json.loads((folder / "resolve.json").read_text()), parsed(site / "halves.html").main
    row = section.find("caption", string=re.compile("^Predicted by halves")).find_parent("table").tbody.tr
    cells = [cell.get_text() for cell in row.find_all(["th", "td"])]
    predicted = next(value for *name, value, _ in record["numbers"] if name == ["phase", "predicted_rms"])
    true = record["against_truth"]
    assert cells[:4] == [
        "LSQML: 10000 photons, dense, test", f"{predicted:.4f}", f"{true['phase_rmse_rad']:.4f}",
        f"{predicted / true['phase_rmse_rad']:.2f}",
    ]  # fmt: skip
    assert all(re.fullmatch(r"[\d.]+ px \([\d.]+ nm\)", cell) for cell in cells[4:6])
    assert cells[6:] == [f"{100 * true[f'held_{share}']:.0f} %" for share in (0.68, 0.95)]
    assert (site / row.a["href"]).is_file() and row.a["href"].startswith("notebooks/resolve/dose_10000/")
    assert "predicted phase error" in section.img["alt"] and "a wrong probe" in section.get_text()
    links = {a["href"] for a in parsed(site / "evidence.html").main.find_all("a", href=True)}
    assert {row.a["href"], "logs/resolve/dose_10000/dense_test_LSQML/resolve.log.txt"} <= links
    assert (site / "downloads/resolve/dose_10000/dense_test_LSQML/images.npz").is_file()


def test_search_finds_pages_by_method_and_number(further, browser):
    site, context = further / "report/_site", browser.new_context(viewport={"width": 1400, "height": 900})
    value = open_study(further).metrics.query("method == 'LSQML' and metric == 'rmse'")["value"].iloc[0]
    page = context.new_page()
    page.goto((site / "index.html").as_uri())
    for typed, found in ((f"lsqml {value:.3f}", "metrics.html"), ("phase_g dense", "notebooks/phase_g/dose_10000/")):
        page.get_by_label("Search in these pages").fill(typed)
        page.wait_for_selector("form.search li a", state="attached")
        links = page.eval_on_selector_all("form.search li a", "links => links.map(a => a.href)")
        assert any(found in link for link in links), (typed, links)
        assert all(Path(unquote(urlsplit(link).path)).is_file() for link in links)
    page.get_by_label("Search in these pages").fill("xylophone")
    assert page.locator("form.search [role=status]").inner_text() == "No page has xylophone"
    page.keyboard.press("Escape")
    assert page.get_by_label("Search in these pages").input_value() == ""
    context.close()


def test_two_pictures_are_compared_under_a_line(further, browser):
    """Sliders and lists choose the pictures, the line shows more of the left one; what is missing is named."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.goto((further / "report/_site/gallery.html").as_uri())
    control = lambda name: page.locator(f".swipe form [name={name}]")
    shown, over = page.locator(".swipe img:not([hidden])"), page.locator(".swipe img.over")
    caption = lambda: page.locator(".swipe figcaption").inner_text()
    control("row").press("ArrowRight")
    control("column").press("ArrowRight")
    control("right").select_option("LSQML")
    rmse = open_study(further).table(1e4, "dense", "test").loc[("phase", "rmse"), "LSQML"]
    assert caption().startswith(f"left: truth; right: LSQML, phase RMSE {rmse:.3f} rad.")
    assert [shown.nth(k).get_attribute("data-of") for k in range(2)] == ["truth/phase", "1/1/LSQML/phase"]
    half = over.evaluate("image => getComputedStyle(image).clipPath")
    page.locator(".swipe .line").press("End")
    assert half != over.evaluate("image => getComputedStyle(image).clipPath")
    control("channel").select_option("phase error")
    assert page.locator(".swipe [data-bar]:not([hidden])").get_attribute("data-bar") == "1/phase error"
    control("column").press("ArrowRight")  # its comparison was not made
    assert "right: LSQML: missing" in caption()
    assert shown.count() == 1 and over.count() == 0 and shown.bounding_box()["height"] > 100
    context.close()


def test_drawings_are_dark_on_a_dark_page(further, browser):
    """A drawing's paper in a screenshot, by the colour that the system prefers."""
    page = (further / "report/_site/imperfections.html").as_uri()
    seen = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme=scheme)
        shown = context.new_page()
        shown.goto(page)
        drawing = shown.locator("img[src$='.svg']").first
        drawing.scroll_into_view_if_needed()
        shown.evaluate("i => document.querySelector('img[src$=\".svg\"]').decode()")
        seen[scheme] = np.asarray(Image.open(io.BytesIO(drawing.screenshot())).convert("L"), float)
        context.close()
    assert np.median(seen["light"]) > 240 and np.median(seen["dark"]) < 40
    assert seen["light"].min() < 60 and seen["dark"].max() > 200  # ink on either


def test_a_study_without_predictions_says_how_to_make_them(site, study):
    text = parsed(site / "index.html").get_text()
    assert f"fly64 resolve {study.name}" in text and "Predicted by halves" not in text


def test_a_study_of_dose_and_view_alone_has_no_section_of_further_axes(site):
    for page in (site / "index.html", site / "metrics.html"):
        assert "further axes" not in parsed(page).get_text()
    assert PAGES["imperfections"] not in parsed(site / "index.html").get_text()


def test_crossed_axes_have_heatmaps_over_each_two(tmp_path):
    root = example_study(tmp_path / "study", position_errors=(0.5,))
    first = read_study(root)["design"]
    second = ChosenAxis("background", "background", "photons", 0.0, "knowledge", (1.0, 2.0), first.axes[0].source)
    design, base = replace(first, axes=(*first.axes, second), cross=True), read_base(root / "base.npz")
    write_study(root, design, base)
    write_example_root(root, design, base, 42)
    found = dict(further_heatmaps(open_study(root), HEATMAPS))
    assert [title for title in found if title.startswith("Phase RMSE")] == [
        f"Phase RMSE (rad) over {axes}"
        for axes in ("position error and dose", "background and dose", "position error and background")
    ]
    crossed = BeautifulSoup(found["Phase RMSE (rad) over position error and background"], "html.parser")
    tables = crossed.find_all("table")
    assert len(tables) == 2 * 3  # doses, methods
    assert [th.get_text() for th in tables[0].find("thead").find_all("th")] == [
        "position error (px)", "background 0 photons", "background 1 photons", "background 2 photons",
    ]  # fmt: skip
    value = open_study(root).table(1e3, "baseline", "test", position_error=0.5, background=2.0)
    shown = tables[0].find("tbody").find_all("tr")[1].find_all("td")[-1].get_text()
    assert shown == f"{value.loc[('phase', 'rmse'), tables[0].caption.get_text()]:.3f}"
