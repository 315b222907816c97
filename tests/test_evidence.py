"""Pages of evidence made in several processes: the same files to the byte, and the same errors, as in one."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from fly64_nb.show import evidence as pages
from fly64_nb.show.evidence import Evidence, write_evidence
from fly64_nb.show.plain import Frame, write_plain_evidence
from fly64_nb.show.site import write_quarto_evidence

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def written(folder: Path, count: int) -> list[Evidence]:
    """Pages to be made of so many small executed notebooks of two kinds, one in six with a picture."""
    evidence = []
    for k in range(count):
        shown = v4.new_output("display_data", data={"text/html": f"<p>{k}</p>", "text/plain": "p"})
        picture = v4.new_output("display_data", data={"image/png": PIXEL})
        cells = [
            v4.new_markdown_cell(f"# Kind {k // 6}\n\n$n$ <b>is</b> below"),
            v4.new_code_cell(f"seed = {k}", metadata={"tags": ["injected-parameters"]}),
            v4.new_code_cell("show('<&>')", outputs=[shown, *([] if k % 6 else [picture])]),
        ]
        path = folder / "notebooks" / f"phase_{k // 6}" / f"job_{k}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(v4.new_notebook(cells=cells), path)
        path.with_suffix(".json").write_text(json.dumps({"status": "done", "seconds": k}))
        page = folder / "report" / path.relative_to(folder)
        evidence.append(Evidence(path, page, "../../", None, {}))
    return evidence


def made(folder: Path, evidence: list[Evidence], workers: int, quarto: bool) -> dict[str, bytes]:
    """Every file of a report whose evidence so many processes made."""
    report = folder / "report"
    frame = Frame("made up", "Pages.", {"index": "Study"})
    plain = functools.partial(write_plain_evidence, report=report, site=report / "_site", frame=frame)
    write_evidence(evidence, functools.partial(write_quarto_evidence, report=report) if quarto else plain, workers)
    files = {p.relative_to(report).as_posix(): p.read_bytes() for p in report.rglob("*") if p.is_file()}
    report.rename(folder / f"report {workers}")
    return files


@pytest.mark.parametrize("quarto", [False, True])
def test_several_processes_make_the_same_files_to_the_byte(tmp_path, monkeypatch, quarto):
    monkeypatch.setattr(pages, "PAGES_A_PROCESS", 1)
    evidence = written(tmp_path, 12)
    one, two = (made(tmp_path, evidence, workers, quarto) for workers in (1, 2))
    assert len([name for name in one if name.endswith(".ipynb" if quarto else ".html")]) == 12
    assert len([name for name in one if name.endswith(".png")]) == 2
    assert one == two


def test_a_page_is_made_again_only_where_something_changed(tmp_path, monkeypatch):
    """A new frame needs no new page; another record, a page that a kill cut short, and a page that is gone do."""
    evidence, report = written(tmp_path, 8), tmp_path / "report"
    former, site = report / "_site", report / "_site.unfinished"
    for one in evidence:
        write_plain_evidence(one, report, former, Frame("before", "Pages.", {"index": "Study"}))
    places = [(former / one.page.relative_to(report)).with_suffix(".html") for one in evidence]
    evidence[1].record.write_text(json.dumps({"status": "done", "seconds": 1e3}))
    places[2].write_text(places[2].read_text().partition("</main>")[0])
    places[3].unlink()
    made_again, make = [], pages.Evidence.make
    monkeypatch.setattr(pages.Evidence, "make", lambda one: made_again.append(one.executed) or make(one))
    frame = Frame("after", "Pages.", {"index": "Study", "gallery": "Gallery"})
    for one in evidence:
        write_plain_evidence(one, report, site, frame, earlier=(report / "gone", former))
    assert made_again == [one.executed for one in evidence[1:4]]
    kept = {p.relative_to(site): p.read_bytes() for p in site.rglob("*") if p.is_file()}
    shutil.rmtree(site)
    for one in evidence:  # and what was taken is what is made
        write_plain_evidence(one, report, site, frame)
    assert kept == {p.relative_to(site): p.read_bytes() for p in site.rglob("*") if p.is_file()}
    assert len([name for name in kept if name.suffix == ".png"]) == 2 and b"gallery.html" in kept[min(kept)]


def test_an_error_of_a_page_is_the_same_in_another_process(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "PAGES_A_PROCESS", 1)
    evidence = written(tmp_path, 6)
    evidence[3].executed.write_text("no notebook")
    raised = []
    for workers in (1, 2):
        with pytest.raises(ValueError) as found:
            made(tmp_path, evidence, workers, quarto=False)
        raised.append((found.type, str(found.value)))
    assert raised[0] == raised[1] and "does not appear to be JSON" in raised[0][1]


ENDLESS = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from fly64_nb.show import evidence as pages

if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("spawn"), pages._end_with, (os.getpid(),)) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


def test_a_killed_run_leaves_no_process_behind(tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    run = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    child = int(run.stdout.readline())
    run.kill()
    run.wait()
    run.stdout.close()
    gone = lambda: not Path(f"/proc/{child}").exists() or "\nState:\tZ" in Path(f"/proc/{child}/status").read_text()
    end = time.monotonic() + 20
    while not gone() and time.monotonic() < end:
        time.sleep(0.1)
    assert gone(), os.kill(child, signal.SIGKILL)
