"""Fixtures that several tests share: one tiny study, run once for all workers, the measured scan, and a browser."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest

from warm import ONE_THREAD, Warm

# before NumPy and PyTorch are there: test workers run side by side, and the threads of each would wait for the others'
for name, number in ONE_THREAD.items():
    os.environ.setdefault(name, number)
REPOSITORY = Path(__file__).resolve().parents[1]
STAR = REPOSITORY.parent / "shared" / "data" / "siemens-star-small.npz.bz2"
# the order of the package's user; tests of the others add them to a copy
ONE_DOSE = ("--profile", "tiny", "--doses", "1e4", "--methods", "PINN,Supervised,LSQML")
# files whose tests share nothing but the tiny study: each test may run on any worker
SPREAD = ("test_commands", "test_faults", "test_growth", "test_layers", "test_notebooks", "test_study")
# of those, what takes a minute or more: begun first, so that no worker is left alone with one at the end
LONG = (
    "test_another_dose_makes_what_is_new_and_leaves_the_rest",
    "test_a_strangers_method_is_compared_like_any_other",
    "test_notebook_runs[enter.ipynb]",
    "test_the_same_condition_made_anew_gives_the_same_numbers",
    "test_a_strangers_axis_has_a_column_folders_and_filters",
    "test_python_does_the_same_and_raises_what_a_terminal_prints",
    "test_notebook_runs[07_report.ipynb]",
)
# commands that run jobs, as many at a time as there are cores unless they are told; not arena, which with no option
# beside the study only looks at it
RUN_JOBS = ("run", "train", "reconstruct", "compare")


@functools.cache
def warm() -> Warm:
    """The process of this test worker whose children run notebooks and commands."""
    started = Warm()
    atexit.register(started.close)
    return started


def fly64(*arguments: str | Path, check: bool = True, cold: bool = False) -> subprocess.CompletedProcess:
    """The command line as a user would run it; `cold` is the installed program itself, which has to import all.

    Other than the cold one it runs one job at a time: test workers keep the cores busy, and each job at a time needs
    processes that import PyTorch and TensorFlow. What several jobs at a time do is tested by the shared study, which is
    cold, and in test_engine.
    """
    environment = {"FLY64_QUARTO": "", **os.environ, "COLUMNS": "200"}  # with Quarto every run would render for minutes
    texts = list(map(str, arguments))
    if not cold and texts[:1] and texts[0] in RUN_JOBS and not {"--workers", "--dry-run"} & set(texts):
        texts += ["--workers", "1"]
    if cold:
        program = [Path(sys.executable).with_name("fly64"), *texts]
        done = subprocess.run(program, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)
    else:
        done = warm().run("command", *texts, environment=environment)
    if check and done.returncode:
        command = " ".join(texts)
        raise AssertionError(f"fly64 {command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


# pytest-xdist reads the marks in a hook of its own, which must come later
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests come first; those of another file share its fixtures, or what it imports, and stay on one worker."""
    items.sort(key=lambda item: LONG.index(item.name) if item.name in LONG else len(LONG))
    for item in items:
        if item.path.stem not in SPREAD:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def once_for_all(tmp_path_factory: pytest.TempPathFactory, name: str) -> tuple[Path, filelock.FileLock]:
    """A folder that all workers of a test session share, and a lock on it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return shared / name, filelock.FileLock(shared / f"{name}.lock")


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny study of one dose, run from the base to the report. Read only: tests that change one take `copy`."""
    folder, lock = once_for_all(tmp_path_factory, "study")
    with lock:
        if not (folder / "output.txt").is_file():
            done = fly64("run", folder / "tiny", *ONE_DOSE, cold=True)
            (folder / "output.txt").write_text(done.stdout)
    return folder / "tiny"


@pytest.fixture
def copy(study: Path, tmp_path: Path) -> Path:
    """A copy of the tiny study that a test may damage."""
    return Path(shutil.copytree(study, tmp_path / "copy"))


@pytest.fixture(scope="session")
def star() -> Path:
    """The measured scan beside the project. Where it is not there the tests are skipped, except in CI."""
    if not STAR.is_file():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{STAR} is missing and CI=true: the tests on the real scan must run")
        pytest.skip(f"the real scan {STAR} is not here")
    return STAR


# no display, no sandbox (CI is root), and no word to the outside
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The system's Chromium or Chrome. Where there is none the tests in a browser are skipped, except in CI."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        reason = f"none of {', '.join(names)} is installed"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} and CI=true: the tests in a browser must run")
        pytest.skip(reason)
    return Path(found)


# playwright's loop runs in the main thread and lets no asyncio.run beside it, so it does not outlive the module
@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator:
    """A headless browser, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield running
        running.close()
