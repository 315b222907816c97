"""Fixtures that several tests share: one tiny study, run once, the measured scan, and a browser."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
STAR = REPOSITORY.parent / "shared" / "data" / "siemens-star-small.npz.bz2"


def fly64(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess:
    """The command line as a user would run it."""
    program = Path(sys.executable).with_name("fly64")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          env={"FLY64_QUARTO": "", **os.environ, "COLUMNS": "200"})            # with Quarto every run would render for minutes
    if check and done.returncode:
        raise AssertionError(f"fly64 {' '.join(map(str, arguments))} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """A tiny study of one dose, run from the base to the report. Read only: tests that change one take `copy`."""
    root = tmp_path_factory.mktemp("study") / "tiny"
    done = fly64("run", root, "--profile", "tiny", "--doses", "1e4")
    (root.parent / "output.txt").write_text(done.stdout)
    return root


@pytest.fixture
def copy(study, tmp_path) -> Path:
    """A copy of the tiny study that a test may damage."""
    return Path(shutil.copytree(study, tmp_path / "copy"))


@pytest.fixture(scope="session")
def star() -> Path:
    """The measured scan beside the project. Where it is not there the tests are skipped, except in CI, where it must be."""
    if not STAR.is_file():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{STAR} is missing and CI=true: the tests on the real scan must run")
        pytest.skip(f"the real scan {STAR} is not here")
    return STAR


# no display, no sandbox (CI is root), and no word to the outside
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                  "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The system's Chromium or Chrome. Where there is none the tests in a browser are skipped, except in CI, where it must be."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        reason = "neither chromium, chromium-browser nor google-chrome is installed"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} and CI=true: the tests in a browser must run")
        pytest.skip(reason)
    return Path(found)


# playwright's loop runs in the main thread and lets no asyncio.run beside it, so it does not outlive the module
@pytest.fixture(scope="module")
def browser(chromium) -> Iterator:
    """A headless browser, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield running
        running.close()
