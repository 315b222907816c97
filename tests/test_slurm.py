"""A study on a real SLURM: README's recipe as it stands, jobs that meet their time limit, workers lost, a run killed.

Needs Debian's slurm-wlm and munge, which these tests start for themselves in a temporary folder: `pytest -m slurm`.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

from conftest import REPOSITORY
from graph import go
from slurm import missing_packages, slurm, wait_until

pytest.importorskip("dask_jobqueue", reason="pip install dask-jobqueue")
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(missing_packages()), reason=f"apt-get install {' '.join(missing_packages())}"),
]
STUDY = ("--profile", "tiny", "--doses", "1e3,1e4", "--methods", "ML")
# what README's recipe has, and what it is here: two jobs of one core
HERE = {
    'queue="cpu"': 'queue="cpu", interface="lo"',
    "cores=8": "cores=1",
    '"64GB"': '"3GB"',
    "threads=8,memory_gb=64": "threads=1,memory_gb=3",
    "minimum_jobs=4, maximum_jobs=4": "minimum_jobs=2, maximum_jobs=2",
}


def recipe() -> str:
    """The Python of README's recipe, for this host."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    [code] = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "SLURMCluster" in block]
    for theirs, ours in HERE.items():
        assert theirs in code, f"README's recipe has no {theirs}"
        code = code.replace(theirs, ours)
    return code


def queue(environment: dict[str, str], state: str) -> list[str]:
    """Numbers of SLURM's jobs in a state."""
    command = ["squeue", "--noheader", "--format=%i", f"--states={state}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


@contextlib.contextmanager
def jobs(environment: dict[str, str], folder: Path, limit: str) -> Iterator[list[str]]:
    """README's recipe at work, with a time limit for its jobs; the arguments for `fly64 run` that it prints."""
    script = folder / "recipe.py"
    script.write_text(recipe().replace("04:00:00", limit))
    process = subprocess.Popen([sys.executable, script], env=environment, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        printed = process.stdout.readline().split()
        assert printed[:4] == ["fly64", "run", "STUDY", "--scheduler"], printed
        yield printed[3:]
    finally:
        process.send_signal(signal.SIGINT)  # Ctrl-C: it cancels its jobs
        process.wait(60)


def workers() -> list[psutil.Process]:
    """Worker processes of SLURM's jobs on this host; each is the child of Dask's nanny."""
    nannies = [p for p in psutil.process_iter(["cmdline"]) if "SLURMCluster-" in " ".join(p.info["cmdline"] or [])]
    children = [child for nanny in nannies for child in nanny.children()]
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def run(root: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen:
    """`fly64 run` of the study, which writes beside it what it prints."""
    program = [Path(sys.executable).with_name("fly64"), "run", root, *STUDY, *arguments]
    environment = {"FLY64_QUARTO": "", **environment}
    with open(f"{root}.txt", "a") as printed:
        return subprocess.Popen(program, env=environment, stdout=printed, stderr=subprocess.STDOUT)


def goes_on(root: Path) -> None:
    """Wait until another job of a running study is done."""
    done = lambda: Path(f"{root}.txt").read_text().count(": done in")
    before = done()
    wait_until(lambda: done() > before, 300, "another job of the study")


def numbers(root: Path) -> pd.DataFrame:
    """The study's table, without what a clock measured."""
    return pd.read_csv(root / "metrics.csv").query("metric != 'seconds'").reset_index(drop=True)


def test_the_recipe_brings_workers_and_takes_its_jobs_back(tmp_path):
    with slurm(tmp_path / "slurm") as environment:
        with jobs(environment, tmp_path / "slurm", "01:00:00") as scheduler:
            done = go(tmp_path / "study", scheduler=scheduler[-1])
        assert Counter(result.status for result in done.values()) == {"done": 9}
        wait_until(lambda: not queue(environment, "RUNNING,PENDING"), 60, "the end of SLURM's jobs")


@pytest.mark.slow
def test_limits_are_met_and_workers_lost_and_the_numbers_stay(tmp_path):
    root, folder = tmp_path / "study", tmp_path / "slurm"
    with slurm(folder) as environment:
        two = lambda: wait_until(lambda: len(queue(environment, "RUNNING")) == 2, 240, "two jobs of SLURM")
        with jobs(environment, folder, "00:01:00") as scheduler:
            study = run(root, environment, *scheduler)
            # SLURM ends the first two in the middle of the study, and two others come in their place
            wait_until(lambda: len(queue(environment, "TIMEOUT")) == 2, 240, "SLURM's time limit")
            assert study.poll() is None, "the study was over before SLURM's time limit"
            two()
            goes_on(root)
            wait_until(workers, 60, "a worker")
            workers()[0].kill()
            subprocess.run(["scancel", queue(environment, "RUNNING")[-1]], env=environment, check=True)
            goes_on(root)
            study.kill()
            study.wait()
        # the same command continues it, with other jobs
        with jobs(environment, folder, "01:00:00") as scheduler:
            again = run(root, environment, *scheduler)
            assert again.wait(3600) == 0, Path(f"{root}.txt").read_text()
        assert "up to date" in Path(f"{root}.txt").read_text()
    assert run(tmp_path / "plain", dict(os.environ)).wait(3600) == 0
    pd.testing.assert_frame_equal(numbers(root), numbers(tmp_path / "plain"), check_exact=True)
