"""The notebooks are the source: each runs, is clean, and is what the modules and the README were made from."""
from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from conftest import REPOSITORY

NOTEBOOKS = sorted(p.relative_to(REPOSITORY / "nbs").as_posix() for p in (REPOSITORY / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
PHASES = [n for n in NOTEBOOKS if n[0].isdigit()]


def program(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def test_every_notebook_runs():
    """All inline tests, two notebooks at a time; nbdev names the ones that fail and shows where."""
    done = subprocess.run([program("nbdev_test"), "--n_workers", "2"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_modules_and_readme_are_those_of_the_notebooks(tmp_path):
    """nbdev_export and nbdev_clean change nothing: nobody edited a module, and no notebook carries stale outputs."""
    ignore = shutil.ignore_patterns(".venv", ".git", "study", "__pycache__", "*.egg-info", "build", ".pytest_cache")
    shutil.copytree(REPOSITORY, tmp_path / "copy", ignore=ignore, symlinks=True)
    before = {p.relative_to(tmp_path): p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.suffix in (".py", ".ipynb", ".md") and p.is_file()}
    for command in ("nbdev_export", "nbdev_clean"):
        subprocess.run([program(command)], cwd=tmp_path / "copy", check=True, capture_output=True)
    subprocess.run(["make", "readme", f"BIN={Path(sys.executable).parent}"], cwd=tmp_path / "copy", check=True, capture_output=True)
    changed = [str(p) for p, content in before.items() if (tmp_path / p).read_bytes() != content]
    assert not changed


@pytest.mark.parametrize("name", PHASES)
def test_phase_notebook_has_the_shape_that_papermill_needs(name):
    notebook = nbformat.read(REPOSITORY / "nbs" / name, as_version=4)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert sum("parameters" in c.metadata.get("tags", []) for c in code) == 1
    assert all(len(c.source.splitlines()) <= 60 for c in code)
    assert json.dumps([c.get("outputs", []) for c in code]).count("Traceback") == 0
