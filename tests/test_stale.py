"""What a change makes stale: looked at on a finished study, with a changed copy of the package. Nothing is run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY

# Counts the jobs that a run would look at again, by phase and method. Arguments: study, request as JSON keywords.
SCRIPT = """
import collections, json, sys
from pathlib import Path
from fly64_nb.results.plan import study_jobs
from fly64_nb.results.run import Request, prepare_study
from fly64_nb.engine.graph import plan_jobs

study, asked = Path(sys.argv[1]), json.loads(sys.argv[2])
prepared = prepare_study(study, Request(**asked))
jobs = [prepared.job, *study_jobs(study, prepared.design)]
plan = plan_jobs(jobs)
names = [f"{jobs[n].phase[-1]} {jobs[n].condition.get('method', '')}".strip() for n in plan.reasons]
print(json.dumps(collections.Counter(names)))
"""


def stale(study: Path, tree: Path = REPOSITORY, **asked) -> dict[str, int]:
    """Jobs to run or to look at again, by phase and method."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, study, json.dumps(asked)],
        capture_output=True,
        text=True,
        cwd=tree,  # where Python looks first
        env={**os.environ, "PYTHONPATH": str(tree)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of package and notebooks that a test may change."""
    copied = tmp_path_factory.mktemp("tree")
    for folder in ("fly64_nb", "nbs"):
        shutil.copytree(REPOSITORY / folder, copied / folder, ignore=shutil.ignore_patterns("__pycache__", "*.nbt"))
    return copied


def changed(tree: Path, module: str, change: Callable[[str], str]) -> None:
    path = tree / "fly64_nb" / module
    before = path.read_text()
    after = change(before)
    assert after != before
    path.write_text(after)


COMPARED = {"g": 6}
CASES = {
    "a comment in the solver": ("methods/ptychi/fast_lsqml.py", lambda s: s + "\n# a thought\n", {}),
    "the solver": ("methods/ptychi/fast_lsqml.py", lambda s: s + "\nSPEED = 1\n", {"f LSQML": 6, **COMPARED}),
    "a colour in a figure": ("show/style.py", lambda s: s.replace('"viridis"', '"plasma"'), COMPARED),
    "a layer of a network": (
        "methods/networks/layers.py",
        lambda s: s + "\nDEPTH = 1\n",
        {"e PINN": 3, "e Supervised": 1, "f PINN": 9, "f Supervised": 9, **COMPARED},  # three of them on a flat object
    ),
    "a metric": ("quality/metrics.py", lambda s: s + "\nBEST = 1\n", COMPARED),
    "how jobs are run": ("results/plan.py", lambda s: s + "\nPHASE = 1\n", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_change_of_the_code_makes_only_what_stands_on_it_stale(study, tree, case):
    module, change, expected = CASES[case]
    before = (tree / "fly64_nb" / module).read_text()
    try:
        changed(tree, module, change)
        assert stale(study, tree) == expected
    finally:
        (tree / "fly64_nb" / module).write_text(before)


def test_growth_makes_only_what_is_new(study):
    assert stale(study) == {}
    new_dose = {"c": 1, "d": 3, "b": 1, "e PINN": 3, "e Supervised": 1, "f PINN": 6, "f Supervised": 6, "f LSQML": 6}
    with_flat_objects = {**new_dose, "f PINN": 9, "f Supervised": 9}
    assert stale(study, fields={"doses": [1e3]}) == {**with_flat_objects, "g": 6}
    assert stale(study, fields={"replicates": 2}) == {**new_dose, "g": 6}
    assert stale(study, settings={"LSQML": {"epochs": 7}}) == {"f LSQML": 6, **COMPARED}
    assert stale(study, fields={"ms_ssim_sigma": 1.5}) == COMPARED
    wrong = stale(study, vary={"position_error": [0.5]})  # of each view a dataset, and all that is made of it
    assert wrong == {
        "d": 3,
        "b": 1,
        "e PINN": 3,
        "e Supervised": 1,
        "f PINN": 6,
        "f Supervised": 6,
        "f LSQML": 6,
        "g": 6,
    }
