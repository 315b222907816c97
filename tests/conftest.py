"""Fixtures that several tests share: one tiny study, run once, and the measured scan."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
STAR = REPOSITORY.parent / "shared" / "data" / "siemens-star-small.npz.bz2"


def fly64(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess:
    """The command line as a user would run it."""
    program = Path(sys.executable).with_name("fly64")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          env={**os.environ, "COLUMNS": "200"})
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
