"""Tables of commands as data: what a terminal prints, for a script."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest

from conftest import fly64
from fly64_nb.axes.axis import find_axes
from fly64_nb.quality.advice import advise_study
from fly64_nb.results.example import example_study
from fly64_nb.results.study import open_study


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Path:
    """A made-up study with a further axis and two seeds; nothing of it was run."""
    return example_study(tmp_path_factory.mktemp("format") / "study", replicates=2, position_errors=(0.5, 1.0))


def data(*arguments: str | Path) -> dict:
    """What a command prints as JSON; nothing else may stand beside it."""
    return json.loads(fly64(*arguments, "--format", "json").stdout)


def table(*arguments: str | Path) -> pd.DataFrame:
    """What a command prints as CSV."""
    return pd.read_csv(io.StringIO(fly64(*arguments, "--format", "csv").stdout))


def test_an_advice_in_full(example):
    found, expected = data("advise", example, "--phase-rmse", "0.05"), advise_study(example, phase_rmse=0.05)
    assert found["said"] == expected.cheapest() and found["wanted"] == str(expected.wanted)
    shown = fly64("advise", example, "--phase-rmse", "0.05").stdout
    assert shown.startswith(found["said"]) and "known to" in shown
    doses = pd.DataFrame(found["doses"])
    assert len(doses) == len(expected.doses) and doses["dose"].tolist() == pytest.approx(
        expected.doses["dose"].tolist()
    )
    assert table("advise", example, "--phase-rmse", "0.05")["method"].tolist() == expected.doses["method"].tolist()
    assert len(found["overlaps"]) == len(expected.needed_overlaps)


def test_a_leaderboard_dose_lost_axes_and_jobs(example):
    board = open_study(example).leaderboard()
    assert table("arena", example)["method"].tolist() == list(board.index)
    lost = data("advise", example, "--imperfection", "all")["dose_lost"]
    assert {row["method"] for row in lost} == {"PINN", "LSQML"} and {row["value"] for row in lost} == {0.5, 1.0}
    axes = data("axes")
    assert {row["name"] for row in axes["axes"]} == set(find_axes()) and axes["beamlines"]
    jobs = table("status", example)
    assert jobs["job"].is_unique and {"phase_a/design", "phase_h/report"} <= set(jobs["job"])
    assert "not made yet" in set(jobs["status"])


def test_what_cannot_be_had_is_refused(example, tmp_path):
    for arguments, words in (
        (("advise", example, "--format", "xml"), "--format: found 'xml'; needed is text, json or csv"),
        (("arena", example, "--methods", "LSQML", "--format", "json"), "needed is one that was"),
        (("arena", tmp_path / "none", "--format", "csv"), "needed is one that was"),
        (("resolve", tmp_path / "scan.h5", "--format", "json"), "needed is a study root"),
    ):
        refused = fly64(*arguments, check=False)
        assert refused.returncode == 2 and words in refused.stdout, refused.stdout
    assert not (tmp_path / "none").exists()
