"""The panel in a real JupyterLab page: a person at the selects and the mouse."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from fly64_nb.results.example import example_study
from halves import write_halves

QUIET = [
    "--no-browser",
    "--allow-root",
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.port_retries=0",
    "--IdentityProvider.token=",
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
]
PATIENCE = 60_000  # ms: a kernel that imports everything on a busy machine


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise AssertionError(f"jupyter lab did not answer at {url}:\n{log.read_text()}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory, study, chromium) -> Iterator[tuple[str, Path]]:
    """Address and root folder of a JupyterLab server with nobody's settings.

    The tiny study lies in the root, and a made-up one that has one further axis.
    """
    home = tmp_path_factory.mktemp("lab")
    root = home / "root"
    root.mkdir()
    (root / "tiny").symlink_to(study)
    example_study(root / "example", position_errors=[0.5])
    write_halves(root / "example", 1e3, "baseline", "test", "LSQML")
    own = {
        name: str(home / name.lower())
        for name in (
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_DATA_DIR",
            "JUPYTER_RUNTIME_DIR",
            "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
            "IPYTHONDIR",
        )
    }
    quiet = (
        Path(own["JUPYTERLAB_SETTINGS_DIR"]) / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    )
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false"}')
    port, log = free_port(), home / "server.log"
    command = [sys.executable, "-m", "jupyterlab", *QUIET, f"--ServerApp.port={port}", f"--ServerApp.root_dir={root}"]
    with open(log, "w") as out:
        server = subprocess.Popen(
            command, cwd=root, env={**os.environ, **own}, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/api/status", server, log)
        yield f"http://127.0.0.1:{port}", root
    finally:
        server.terminate()
        server.wait(30)


class Notebook:
    """A notebook of some cells, open in the browser.

    It keeps what the page asked of other hosts and what it complained about.
    """

    def __init__(self, browser, lab: tuple[str, Path], name: str, *cells: str):
        address, root = lab
        kernel = {"name": "python3", "display_name": "python3", "language": "python"}
        written = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(c) for c in cells], metadata={"kernelspec": kernel}
        )
        nbformat.write(written, root / f"{name}.ipynb")
        self.page = browser.new_page(viewport={"width": 1500, "height": 1300})
        self.page.set_default_timeout(PATIENCE)
        self.abroad, self.complaints = [], []
        self.page.on(
            "request",
            lambda r: (
                None
                if r.url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))
                else self.abroad.append(r.url)
            ),
        )
        self.page.on(
            "console", lambda m: self.complaints.append(f"{m.text} {m.location}") if m.type == "error" else None
        )
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.goto(f"{address}/lab/workspaces/{name}/tree/{name}.ipynb?reset")
        self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()

    def run(self, number: int):
        """Run a cell that has not run and return its output when it is there."""
        cell = self.page.locator(".jp-CodeCell").nth(number)
        while (
            cell.locator(".jp-InputPrompt").inner_text().strip() == "[ ]:"
        ):  # the page ignores the keys until it is ready, and does not say when
            cell.locator(".cm-content").click()
            self.page.keyboard.press("Control+Enter")
            self.page.wait_for_timeout(2000)
        output = cell.locator(".jp-OutputArea-output").first
        output.wait_for()
        return output

    def choose(self, name: str, option: str) -> None:
        self.page.get_by_label(name, exact=True).select_option(label=option)

    def slide(self, name: str, key: str) -> None:
        """Move a slider with the keyboard: ``ArrowRight``, ``ArrowLeft``."""
        self.page.locator(".widget-slider", has_text=name).locator(".noUi-handle").press(key)

    def says(self, text: str) -> None:
        """Wait until the panel says something."""
        self.page.locator("[role=status]", has_text=text).first.wait_for()

    def metrics(self) -> pd.Series:
        """The numbers that the page shows, as text, by channel, metric and method."""
        rows = self.page.locator("[aria-label='metrics of this condition'] tr").evaluate_all(
            "rows => rows.map(r => [...r.cells].map(c => c.textContent))"
        )
        methods = [name.removeprefix("▸ ") for name in rows[0][1:]]
        cells = {(*name.split(" "), m): v for name, *values in rows[1:] for m, v in zip(methods, values)}
        return pd.Series({place: text for place, text in cells.items() if text != "–"})  # a flat image has no seconds

    def window(self) -> list[float]:
        """Rows and columns that the panel says it shows: top, bottom, left, right."""
        words = self.page.locator("[role=status]", has_text="rows").inner_text()
        found = re.search(r"rows ([-\d.]+) to ([-\d.]+), columns ([-\d.]+) to ([-\d.]+)", words)
        return [float(number) for number in found.groups()]

    def picture(self) -> str:
        """The picture as it stands in the page, once the kernel has nothing more to draw."""
        self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        self.page.wait_for_timeout(500)
        return self.page.locator(".jupyter-matplotlib-canvas-div canvas").first.evaluate("canvas => canvas.toDataURL()")

    def zoom(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Take the zoom tool and drag the mouse over the picture, from and to shares of its width and height."""
        before = self.page.locator("[role=status]", has_text="rows").inner_text()
        self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        self.page.get_by_title("Zoom to rectangle").click()
        self.page.wait_for_timeout(500)  # on a busy machine the picture still moves, and the mouse would miss it
        box = self.page.locator(".jupyter-matplotlib-canvas-div").bounding_box()
        at = lambda p: (box["x"] + p[0] * box["width"], box["y"] + p[1] * box["height"])
        self.page.mouse.move(*at(start))
        self.page.mouse.down()
        self.page.mouse.move(*at(end), steps=8)
        self.page.mouse.up()
        self.page.wait_for_function("before => !document.body.innerText.includes(before)", arg=before)
        self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # the columns change first, then the rows

    def close(self) -> None:
        self.page.close()
        assert not self.abroad, self.abroad
        assert not self.complaints, self.complaints


def expected(table: pd.DataFrame, **condition) -> pd.Series:
    """The numbers of a condition in the tidy table, as the panel should show them."""
    rows = table.query(" and ".join(f"{k} == {v!r}" for k, v in condition.items()))
    return pd.Series({(r.channel, r.metric, r.method): f"{r.value:.4g}" for r in rows.itertuples()})


def test_a_person_explores_a_study(browser, lab, study, tmp_path):
    table = pd.read_csv(study / "metrics.csv")
    book = Notebook(
        browser,
        lab,
        "explore",
        "import fly64_nb as fly64\npanel = fly64.explore('tiny')\npanel",
        "import json\nprint(json.dumps([[*ax.get_ylim()[::-1], *ax.get_xlim()] for ax in panel.panels]))",
    )
    book.run(0)
    book.says("phase of truth, PINN, Supervised, LSQML (10000 photons, baseline, test)")
    pd.testing.assert_series_equal(
        book.metrics().sort_index(), expected(table, view="baseline", split="test").sort_index()
    )
    for name, option, words in (
        ("view", "sparse", "sparse, test"),
        ("channel", "phase error", "phase error of"),
        ("method", "LSQML", "sparse"),
        ("beside", "Supervised", "of truth, Supervised, LSQML ("),
    ):
        book.choose(name, option)
        book.says(words)
    pd.testing.assert_series_equal(
        book.metrics().sort_index(), expected(table, view="sparse", split="test").sort_index()
    )
    book.choose("beside", "all methods")
    book.says("of truth, PINN, Supervised, LSQML (")

    whole, pictures = book.window(), [book.picture()]
    book.zoom((0.25, 0.15), (0.4, 0.3))  # in the first panel
    zoomed = book.window()
    assert whole[0] < zoomed[0] < zoomed[1] < whole[1] and whole[2] < zoomed[2] < zoomed[3] < whole[3]
    pictures.append(book.picture())
    limits = json.loads(book.run(1).inner_text())
    assert len(limits) == 4 and np.allclose(limits, zoomed, atol=0.06)  # all panels alike

    book.choose("view", "dense")
    book.says("dense, test")
    assert book.window() == zoomed
    pictures.append(book.picture())
    assert len(set(pictures)) == 3
    title = "phase_f/dose_10000/dense_test_LSQML"
    assert title in book.page.get_by_label(f"log of {title}").inner_text()
    book.page.screenshot(path=os.environ.get("FLY64_SCREENSHOT", tmp_path / "panel.png"))
    book.choose("split", "train")  # another part of the object: all of it
    book.says("dense, train")
    assert book.window() != zoomed
    pd.testing.assert_series_equal(
        book.metrics().sort_index(), expected(table, view="dense", split="train").sort_index()
    )

    book.page.get_by_role("link", name="executed notebook of phase_f/dose_10000/dense_train_LSQML").click()
    book.page.get_by_role("tab", name="dense_train_LSQML.ipynb").wait_for()
    book.close()


def halves_are_shown(book: Notebook, folder: Path) -> None:
    """What halves predict beside the truth, of an image that has it; of another one the command."""
    record = json.loads((folder / "resolve.json").read_text())
    fold = book.page.get_by_text("Without a truth: halves of the photons")
    fold.click()
    book.page.get_by_text("fly64 resolve example --method PINN --dose 1000 --view baseline --split test").wait_for()
    book.choose("method", "LSQML")
    predicted = next(value for *name, value, _ in record["numbers"] if name == ["phase", "predicted_rms"])
    words = f"predicted {predicted:.4f} rad RMS, true {record['against_truth']['phase_rmse_rad']:.4f} rad RMS"
    book.page.get_by_text(f"Phase error {words}").wait_for()
    picture = book.page.locator(f"img[alt*='{words}']")
    assert picture.evaluate("i => i.decode().then(() => i.naturalWidth)") > 600
    assert len(picture.get_attribute("src")) > 40_000  # an empty one has 5000
    assert "a wrong probe" in book.page.get_by_text("Errors that both halves share").inner_text()
    assert not book.page.get_by_text("Out of date:").count()
    fold.click()


def test_what_was_not_made_says_why(browser, lab):
    """A study in progress: another dose keeps the zoom, and a condition that is not there takes nothing with it.

    What halves of its photons say is folded away.
    """
    _, root = lab
    book = Notebook(browser, lab, "progress", "import fly64_nb as fly64\nfly64.explore('example')")
    book.run(0)
    book.says("1000 photons, baseline, test")
    halves_are_shown(book, root / "example/resolve/dose_1000/baseline_test_LSQML")
    book.zoom((0.25, 0.15), (0.4, 0.3))
    zoomed = book.window()
    book.slide("dose", "ArrowRight")
    book.says("10000 photons, baseline, test")
    assert book.window() == zoomed
    book.choose("view", "sparse")
    book.says("comparison of 10000 photons, sparse, test: not made yet; `fly64 run")
    book.page.locator(".jupyter-matplotlib-canvas-div").wait_for(state="hidden")
    for change, words, folder in (
        (lambda: book.slide("dose", "ArrowLeft"), "1000 photons, sparse, test", "sparse/test"),
        (
            lambda: book.choose("position error", "0.5 px"),
            "1000 photons, sparse, position error 0.5, test",
            "sparse/position_error_0p5/test",
        ),
    ):
        change()
        book.says(words)
        assert book.window() == zoomed
        table = pd.read_csv(root / "example" / "phase_g" / "dose_1000" / folder / "metrics.csv")
        pd.testing.assert_series_equal(book.metrics().sort_index(), expected(table, split="test").sort_index())
    book.choose("split", "train")
    book.says("left out: 9 of 140 positions are at least S = 19.10 px apart")
    book.close()
