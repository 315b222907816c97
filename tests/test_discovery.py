"""Methods, axes and readers are found: in a package's folder, in entry points, in files that a person named."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from fly64_nb.study.discovery import discover, load_source, source_code

TOOL = "from dataclasses import dataclass\n\n@dataclass(frozen=True)\nclass Tool:\n    name: str\n"


def write_notebook(path: Path, *cells: str | tuple[str, str]) -> Path:
    """A notebook of code cells; a pair is a cell and its tag."""
    made = [
        {
            "cell_type": "code",
            "id": f"cell{n}",
            "metadata": {} if isinstance(cell, str) else {"tags": [cell[1]]},
            "source": (cell if isinstance(cell, str) else cell[0]).splitlines(keepends=True),
            "outputs": [],
            "execution_count": None,
        }
        for n, cell in enumerate(cells)
    ]
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


@pytest.fixture
def toolbox(tmp_path, monkeypatch):
    """Name of a package with two tools, one of which another module imports, and the class of tools."""
    name = f"toolbox_{tmp_path.name}"
    folder = tmp_path / name
    (folder / "inner").mkdir(parents=True)
    for file, text in {
        "__init__.py": "",
        "base.py": TOOL,
        "axe.py": f"from {name}.hammer import HAMMER, Tool\nAXE = Tool('axe')\n__all__ = ['AXE']\n",
        "hammer.py": f"from {name}.base import Tool\nHAMMER = Tool('hammer')\n",
        "inner/__init__.py": f"from {name}.base import Tool\nSCREW = Tool('screw')\n",
    }.items():
        (folder / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return name, __import__(f"{name}.base", fromlist=["Tool"]).Tool


def test_a_package_is_searched_by_its_folder_and_without_sub_packages(toolbox):
    name, Tool = toolbox
    found = discover(name, "no.such.group", Tool)
    assert [(key, tool.source, tool.path.name) for key, tool in found.items()] == [
        ("axe", f"{name}.axe", "axe.py"),
        ("hammer", f"{name}.hammer", "hammer.py"),
    ]


@pytest.mark.parametrize("value", ["shed_tools", "shed_tools:SAW"])
def test_another_package_brings_its_own_by_an_entry_point(toolbox, tmp_path, monkeypatch, value):
    name, Tool = toolbox
    shed = tmp_path / "shed"
    (shed / "shed-1.0.dist-info").mkdir(parents=True)
    (shed / "shed-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: shed\nVersion: 1.0\n")
    (shed / "shed-1.0.dist-info" / "entry_points.txt").write_text(f"[tools.{tmp_path.name}]\nsaw = {value}\n")
    (shed / "shed_tools.py").write_text(f"from {name}.hammer import HAMMER, Tool\nSAW = Tool('saw')\n")
    monkeypatch.syspath_prepend(shed)
    monkeypatch.delitem(sys.modules, "shed_tools", raising=False)
    found = discover(name, f"tools.{tmp_path.name}", Tool)
    assert list(found) == ["axe", "hammer", "saw"] and found["saw"].source == "shed_tools"
    assert found["saw"].path == shed / "shed_tools.py"


def test_a_file_that_is_named_comes_last_and_counts_once(toolbox, tmp_path):
    name, Tool = toolbox
    cells = f"%matplotlib inline\nfrom {name}.hammer import HAMMER, Tool", "saw = Tool('saw')", ("1 / 0", "example")
    mine = write_notebook(tmp_path / "mine.ipynb", *cells)
    found = discover(name, "no.such.group", Tool, [mine, mine])
    assert list(found) == ["axe", "hammer", "saw"] and found["saw"].path == mine
    assert discover(name, "no.such.group", Tool, [mine])["saw"].item is found["saw"].item


def test_what_is_wrong_is_refused_with_its_file(toolbox, tmp_path):
    name, Tool = toolbox
    search = lambda *paths: discover(name, "no.such.group", Tool, paths)
    twin = tmp_path / "twin.py"
    twin.write_text(f"from {name}.base import Tool\nother = Tool('axe')\n")
    with pytest.raises(ValueError, match=rf"twin.py: found a Tool named 'axe', as in {name}.axe; needed another name"):
        search(twin)
    with pytest.raises(ValueError, match="empty.ipynb: found no Tool at module level"):
        search(write_notebook(tmp_path / "empty.ipynb", f"from {name}.base import Tool"))
    with pytest.raises(ValueError, match="none.ipynb: found no such file"):
        search(tmp_path / "none.ipynb")
    with pytest.raises(ValueError, match="notes.txt: found a file that ends in '.txt'"):
        search(tmp_path / "notes.txt")
    (tmp_path / "half.ipynb").write_text('{"cells": [')
    with pytest.raises(ValueError, match="half.ipynb: found JSONDecodeError"):
        search(tmp_path / "half.ipynb")
    (tmp_path / name / "wrench.py").write_text("x = 1\nimport metal_of_tomorrow\n")
    with pytest.raises(RuntimeError, match=r"wrench.py, line 2: ModuleNotFoundError: .*metal_of_tomorrow"):
        search()


def test_an_error_names_cell_and_line_and_leaves_no_half_module(tmp_path):
    path = write_notebook(tmp_path / "broken.ipynb", "a = 1", "def f():\n    return nowhere", "f()")
    before = set(sys.modules)
    with pytest.raises(RuntimeError, match="broken.ipynb, cell 2, line 2: NameError: name 'nowhere'") as caught:
        load_source(path)
    assert "return nowhere" in "".join(traceback.format_exception(caught.value))  # the line itself is shown
    assert set(sys.modules) == before
    with pytest.raises(RuntimeError, match="typo.ipynb, cell 1, line 2: SyntaxError"):
        load_source(write_notebook(tmp_path / "typo.ipynb", "a = 1\nb = = 2"))


def test_exported_cells_count_alone_and_examples_never(tmp_path):
    path = write_notebook(
        tmp_path / "export.ipynb", "#| default_exp x", "#| export\na = 1", "a = 2", "#| exporti\nb = a"
    )
    assert vars(load_source(path))["b"] == 1
    assert source_code(path) == "#| export\na = 1\n\n#| exporti\nb = a"
    path = write_notebook(
        tmp_path / "whole.ipynb", ("a = 1", "parameters"), "!ls\na = 3\n%time a", ("a = 4", "example")
    )
    assert load_source(path).a == 3


def test_a_changed_file_is_another_module_and_its_classes_can_be_pickled(tmp_path):
    cells = (
        "from __future__ import annotations\nfrom dataclasses import dataclass",
        "@dataclass\nclass P:\n    x: Later = 1",
    )
    path = write_notebook(tmp_path / "my model.ipynb", *cells)
    first = load_source(path)
    assert load_source(path) is first and pickle.loads(pickle.dumps(first.P(3))) == first.P(3)
    write_notebook(path, *cells, "more = 1")
    assert load_source(path) is not first and load_source(path).more == 1


def test_looking_for_something_costs_no_heavy_import():
    heavy = "'numpy', 'torch', 'tensorflow', 'matplotlib', 'IPython'"
    code = f"import sys, fly64_nb.study.discovery; print([m for m in ({heavy}) if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
