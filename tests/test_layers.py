"""The tree is the architecture: .importlinter says who may import whom, and a module that breaks it is noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from conftest import REPOSITORY


def check_imports(root: Path) -> subprocess.CompletedProcess:
    """What import-linter says of the package below `root`."""
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([program, "--no-cache"], cwd=root, capture_output=True, text=True)


@pytest.fixture
def package(tmp_path) -> Path:
    """A copy of the package and its rules that a test may break."""
    shutil.copytree(REPOSITORY / "fly64_nb", tmp_path / "fly64_nb", ignore=shutil.ignore_patterns("__pycache__"))
    return Path(shutil.copy(REPOSITORY / ".importlinter", tmp_path)).parent


def test_no_module_imports_itself_through_others():
    """So each can be imported first, whatever a test's process has imported before."""
    graph = grimp.build_graph("fly64_nb", exclude_type_checking_imports=True, cache_dir=None)
    number = {name: k for k, name in enumerate(sorted(graph.modules))}
    pairs = [(number[one], number[other]) for one in number for other in graph.find_modules_directly_imported_by(one)]
    matrix = coo_array((np.ones(len(pairs)), np.transpose(pairs)), shape=(len(number), len(number)))
    assert len(pairs) > len(number) and connected_components(matrix, connection="strong")[0] == len(number)


def test_modules_import_from_lower_layers_only():
    done = check_imports(REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "module, line, refused",
    [
        ("physics/optics.py", "import fly64_nb.data.files", "fly64_nb.physics is not allowed to import fly64_nb.data"),
        (
            "study/condition.py",
            "import fly64_nb.physics.optics",
            "fly64_nb.study is not allowed to import fly64_nb.physics",
        ),
        (
            "data/base.py",
            "import fly64_nb.methods.ptychi.solver",
            "fly64_nb.data is not allowed to import fly64_nb.methods",
        ),
        (
            "engine/job.py",
            "def late():\n    import fly64_nb.data.dataset",
            "fly64_nb.engine is not allowed to import fly64_nb.data.dataset",
        ),
        (
            "quality/metrics.py",
            "import fly64_nb.methods.ptychi.solver",
            "fly64_nb.quality is not allowed to import fly64_nb.methods",
        ),
        ("comparison.py", "import tensorflow", "fly64_nb.comparison is not allowed to import tensorflow"),
    ],
    ids=lambda value: value if value.endswith(".py") else "",
)
def test_a_broken_rule_is_noticed(package, module, line, refused):
    with (package / "fly64_nb" / module).open("a") as file:
        file.write(f"\n\n{line}\n")
    done = check_imports(package)
    assert done.returncode == 1
    assert refused in done.stdout


def test_a_module_without_a_layer_is_noticed(package):
    (package / "fly64_nb" / "homeless.py").write_text("")
    done = check_imports(package)
    assert done.returncode == 1
    assert "homeless" in done.stdout


def test_an_import_for_types_alone_is_allowed(package):
    with (package / "fly64_nb" / "physics" / "optics.py").open("a") as file:
        file.write("\n\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import fly64_nb.report\n")
    assert "fly64_nb.physics" not in check_imports(package).stdout
