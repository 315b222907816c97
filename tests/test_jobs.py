"""Jobs for real: papermill in a process of its own, up to date or stale, failing, interrupted."""
from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest

from fly64_nb.core import jobs as engine
from fly64_nb.core.jobs import Job, Running, run_job, run_jobs, why_stale


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Builds jobs on a notebook of two cells that repeats the input n times, fails for n = 5 and sleeps for n = 9."""
    cells = [nbformat.v4.new_code_cell("n = 1", metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("import pathlib, time\nassert n != 5, 'too many'\ntime.sleep(60 if n == 9 else 0)\n"
                                       "pathlib.Path(f'out{n}.txt').write_text(pathlib.Path('in.txt').read_text() * n)\nprint('made', n)")]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python"}})
    nbformat.write(notebook, tmp_path / "tiny.ipynb")
    (tmp_path / "in.txt").write_text("x")
    monkeypatch.setattr(engine, "notebook_path", lambda name: tmp_path / name)
    engine.code_digest.cache_clear()
    return lambda n: Job("phase_x", f"n{n}", "tiny.ipynb", tmp_path, {"n": n}, (tmp_path / "in.txt",), (tmp_path / f"out{n}.txt",), tmp_path / f"n{n}.log")


def test_a_job_runs_once_and_again_when_something_changed(make, tmp_path):
    job = make(2)
    assert run_jobs([job])[0].status == "done"
    assert (tmp_path / "out2.txt").read_text() == "xx"
    assert run_jobs([job])[0].status == "up to date"
    (tmp_path / "out2.txt").write_text("tampered")
    assert why_stale(job) == "out2.txt was changed"
    (tmp_path / "in.txt").write_text("y")
    assert why_stale(job) == "an input, a parameter or the code changed"
    result = run_jobs([job])[0]
    assert result.status == "done" and (tmp_path / "out2.txt").read_text() == "yy"
    log = job.log_path.read_text()
    assert log.startswith("condition: phase_x/n2\ncommand: ") and "return code: 0" in log
    assert "=== STDOUT ===" in log and "=== STDERR ===" in log and "made 2" in log


def test_a_failing_job_is_a_row_and_takes_no_other_with_it(make, tmp_path):
    bad, good = run_jobs([make(5), make(3)], workers=2)
    assert (bad.status, bad.returncode) == ("failed", 1) and "too many" in bad.detail
    assert good.status == "done" and (tmp_path / "out3.txt").read_text() == "xxx"
    assert "AssertionError" in make(5).log_path.read_text()
    assert any("too many" in str(c.get("outputs")) for c in nbformat.read(make(5).executed_notebook, 4).cells)   # the evidence is kept
    assert why_stale(make(5)) == "never finished"


def test_a_stopped_job_leaves_nothing_that_looks_finished(make):
    running, done = Running(), []
    thread = threading.Thread(target=lambda: done.append(run_job(make(9), running=running)))
    thread.start()
    time.sleep(6)
    running.stop()
    thread.join(20)
    assert done and done[0].returncode == -signal.SIGKILL
    assert not make(9).outputs[0].exists() and why_stale(make(9)) == "never finished"
    assert run_job(make(3), running=running).returncode == -signal.SIGINT      # and nothing new begins


def test_ctrl_c_ends_the_run_and_its_processes(tmp_path):
    """SIGINT to the command line: exit status 130, no kernel left, and a word on how to go on."""
    program = Path(sys.executable).with_name("fly64")
    process = subprocess.Popen([program, "run", tmp_path / "s", "--profile", "tiny", "--doses", "1e4"], stdout=subprocess.PIPE, text=True)
    time.sleep(8)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 130 and "to continue" in output
    time.sleep(1)
    left = subprocess.run(["pgrep", "-f", str(tmp_path / "s")], capture_output=True, text=True).stdout
    assert not left
