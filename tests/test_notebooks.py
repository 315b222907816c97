"""The notebooks are the source: each runs, is clean, and is what the modules, the README and a wheel were made from."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from conftest import REPOSITORY, warm
from warm import ONE_THREAD

NOTEBOOKS = sorted(
    p.relative_to(REPOSITORY / "nbs").as_posix()
    for p in (REPOSITORY / "nbs").rglob("*.ipynb")
    if ".ipynb_checkpoints" not in p.parts
)
PHASES = [n for n in NOTEBOOKS if n[0].isdigit()]
MODULES = sorted(
    p.relative_to(REPOSITORY / "fly64_nb").as_posix()
    for p in (REPOSITORY / "fly64_nb").rglob("*.py")
    if p.name not in ("__init__.py", "_modidx.py")
)
LONGEST_CELL = 50  # lines


def run(name: str, *arguments: str | Path, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess:
    """A program of this environment; what it printed is in the error when it fails."""
    done = subprocess.run(
        [Path(sys.executable).with_name(name), *arguments],
        cwd=cwd,
        env={**os.environ, **ONE_THREAD},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{name} {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
    return done


def code_cells(name: str) -> list[nbformat.NotebookNode]:
    return [c for c in nbformat.read(REPOSITORY / "nbs" / name, as_version=4).cells if c.cell_type == "code"]


@pytest.fixture
def repository(tmp_path) -> Path:
    """A copy of the repository that a test may write to."""

    def unneeded(folder: str, names: list[str]) -> set[str]:
        made = {"__pycache__", ".ipynb_checkpoints"}
        if Path(folder) == REPOSITORY:
            made |= {".git", ".venv", "build", "dist", "study", "_docs"} | {n for n in names if n.endswith("_cache")}
        return made | {n for n in names if n.endswith(".egg-info")}

    return Path(shutil.copytree(REPOSITORY, tmp_path / "copy", ignore=unneeded, symlinks=True))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name):
    """Its cells in order, as `nbdev_test` runs them: not those marked ``eval: false`` or with a flag of tst_flags."""
    done = warm().run("notebook", name, environment={**os.environ, **ONE_THREAD})
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_notebook_that_fails_is_noticed(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 + 1 == 3, 'wrong sum'")])
    nbformat.write(notebook, tmp_path / "fails.ipynb")
    name = os.path.relpath(tmp_path / "fails.ipynb", REPOSITORY / "nbs")
    done = warm().run("notebook", name, environment={**os.environ})
    assert done.returncode == 1 and "wrong sum" in done.stderr


def test_modules_and_readme_are_those_of_the_notebooks(repository):
    """nbdev_export, nbdev_clean and `make readme` change nothing: nobody edited a module, no notebook is unclean."""
    before = {
        p: p.read_bytes() for p in sorted(repository.rglob("*")) if p.suffix in (".py", ".ipynb", ".md") and p.is_file()
    }
    run("nbdev_export", cwd=repository)
    run("nbdev_clean", cwd=repository)
    subprocess.run(
        ["make", "readme", f"BIN={Path(sys.executable).parent}"], cwd=repository, check=True, capture_output=True
    )
    assert not [str(p.relative_to(repository)) for p, content in before.items() if p.read_bytes() != content]


@pytest.mark.parametrize("name", MODULES)
def test_module_has_a_notebook(name):
    """nbdev_export leaves the module of a notebook that was renamed or removed where it is."""
    module = REPOSITORY / "fly64_nb" / name
    source = re.search(r"File to edit: (\S+\.ipynb)\.$", module.read_text(encoding="utf-8"), re.MULTILINE)
    assert source, f"fly64_nb/{name} was not made from a notebook"
    assert (module.parent / source[1]).is_file(), f"the notebook of fly64_nb/{name} is gone: remove the module"


def test_wheel_holds_every_module_and_notebook(repository):
    """Whoever adds a folder lists it nowhere."""
    target = repository.parent / "wheel"
    run("pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", target, repository)
    (wheel,) = target.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"fly64_nb/{n}" for n in MODULES} | {f"fly64_nb/notebooks/{n}" for n in NOTEBOOKS}
    beside = ("_quarto.yml", "report.css", "report.scss", "report.js", "scroll.js", "swipe.js")
    expected |= {"fly64_nb/py.typed", *(f"fly64_nb/notebooks/{n}" for n in beside)}
    assert not expected - names
    assert {n for n in names if n.endswith(".ipynb")} <= expected


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_cells_are_short(name):
    """A cell holds one idea; one that is a single class may be as long as the class, whose methods are short."""
    for cell in code_cells(name):
        if len(cell.source.splitlines()) > LONGEST_CELL:
            (only, *more) = ast.parse(cell.source).body
            assert isinstance(only, ast.ClassDef) and not more, cell.source[:200]
            parts = [part.end_lineno - part.lineno + 1 for part in only.body if isinstance(part, ast.FunctionDef)]
            assert max(parts, default=0) <= LONGEST_CELL


@pytest.mark.parametrize("name", PHASES)
def test_phase_notebook_has_the_shape_that_papermill_needs(name):
    code = code_cells(name)
    assert sum("parameters" in c.metadata.get("tags", []) for c in code) == 1
    assert json.dumps([c.get("outputs", []) for c in code]).count("Traceback") == 0
