"""Views that would be another view under a second name: left out with their reason, from the choice to the report."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import fly64
from fly64_nb.contract import validate_dataset_contract
from fly64_nb.data.base import Base, write_base
from fly64_nb.data.builtin import builtin_object, builtin_probe
from fly64_nb.data.dataset import write_dataset
from fly64_nb.datasets import make_datasets
from fly64_nb.design import get_study_design
from fly64_nb.engine.job import papermill_options
from fly64_nb.overlap import (
    build_overlap_jobs,
    choose_positions,
    generate_view,
    make_view,
    overlap_records,
    skipped_views,
    views_in_words,
)
from fly64_nb.physics.optics import effective_diameter
from fly64_nb.physics.scan import own_overlap
from fly64_nb.study.condition import Condition
from fly64_nb.study.layout import Layout

WINDOW, OVERLAP, MARGIN = 32, 0.62, 20
SETTINGS = {"gridsize": 2, "neighbor_count": 7}
SAME_AS_BASELINE = "as the baseline view does: the scan's own overlap is 0.62, at or below the target 0.70"


@pytest.fixture(scope="module")
def coarse() -> Base:
    """A raster whose neighbours overlap by 62 %, tall enough for two splits."""
    probe = builtin_probe(WINDOW)
    pitch = (1 - OVERLAP) * effective_diameter(probe)
    y, x = (c.ravel() * pitch + MARGIN for c in np.mgrid[0:20, 0:9])
    shape = tuple(int(np.ceil(c.max())) + MARGIN for c in (y, x))
    return Base(builtin_object(shape), probe, y, x, pixel_size_m=10e-9, source={"kind": "raster"})


@pytest.fixture(scope="module")
def exposed(coarse):
    return make_datasets(coarse, 1e4)


@pytest.fixture
def root(exposed, tmp_path) -> Path:
    """A study root in which one dose was exposed."""
    return write_exposed(tmp_path, exposed)


def write_exposed(root: Path, sets) -> Path:
    for split, data in sets.items():
        write_dataset(Layout(root).exposed(Condition(1e4, split=split)), data)
    return root


def test_a_view_that_keeps_every_position_is_left_out(coarse, exposed):
    assert own_overlap(coarse.y, coarse.x, effective_diameter(coarse.probe)) == pytest.approx(OVERLAP)
    for data in exposed.values():
        view, record = make_view(data, "dense", 0.7)
        assert view is None and record["positions"] == record["candidates"] == len(data)
        assert record["skipped"] == f"keeps all {len(data)} positions, {SAME_AS_BASELINE}"
        view, record = make_view(data, "sparse", 0.2, denser={"dense": 0.7})
        assert len(view) == record["positions"] < len(data) and "skipped" not in record
        assert len(make_view(data, "baseline", None, denser={"dense": 0.7})[0]) == len(data)


def test_too_few_positions_are_the_reason_before_all_others(exposed):
    _, record = make_view(exposed["test"], "dense", 0.7, minimum_positions=500)
    assert record["skipped"].endswith("and a view needs 500")


LINE = np.zeros(9), 10.0 * np.arange(9)  # own overlap 0.8 with D = 50 px
LONGER = np.zeros(10), np.append(10.0 * np.arange(9), 83.0)  # its last two are 3 px apart


@pytest.mark.parametrize(
    "scans, target, denser, twin",
    [
        ({"train": LINE, "test": LINE}, 0.9, {}, "baseline"),
        ({"train": LINE, "test": LINE}, 0.65, {"fine": 0.9, "dense": 0.75}, "dense"),
        ({"train": LINE, "test": LINE}, 0.65, {"fine": 0.9}, None),  # every other position, as no other view does
        ({"train": LONGER, "test": LINE}, 0.9, {}, None),  # differs in one split, and stays in both
        ({"test": LINE}, 0.9, {}, "baseline"),
    ],
)
def test_a_view_is_left_out_of_all_splits_or_of_none(scans, target, denser, twin):
    chosen = choose_positions(scans, "own", target, 50.0, denser=denser, least=3)
    reasons = {split: record.get("skipped") for split, (_, record) in chosen.items()}
    assert list(reasons) == list(scans)
    if twin is None:
        assert set(reasons.values()) == {None}
    elif twin == "baseline":
        own = "as the baseline view does: the scan's own overlap is 0.80, at or below the target 0.90"
        assert set(reasons.values()) == {f"keeps all 9 positions, {own}"}
    else:
        assert set(reasons.values()) == {f"keeps the same 5 positions as the view {twin} (target 0.75)"}


def test_a_place_that_is_exposed_twice_makes_another_view():
    twice = tuple(np.tile(c, 2) for c in LINE)
    first, second = (
        choose_positions({"test": twice}, name, target, 50.0, denser=denser, least=3)["test"]
        for name, target, denser in (("fine", 0.9, {}), ("dense", 0.85, {"fine": 0.9}))
    )
    assert len(first[0]) == 9 and "skipped" not in first[1]  # the baseline has each place twice
    assert second[1]["skipped"] == "keeps the same 9 positions as the view fine (target 0.90)"  # other rows of them


def test_a_left_out_view_leaves_its_reason_and_no_file(root, exposed):
    layout, dense, sparse = Layout(root), Condition(1e4, "dense"), Condition(1e4, "sparse")
    design = get_study_design("tiny", doses=[1e4])
    for split, data in exposed.items():  # as a study of another version left it
        write_dataset(layout.dataset(dense.at(split)), data)
    made = generate_view(root, dense, overlap=0.7, **SETTINGS)
    assert list(made) == ["train", "test"] and all(view is None for view, _ in made.values())
    assert not any(layout.dataset(dense.at(split)).exists() for split in made)
    made = generate_view(root, sparse, overlap=0.2, denser={"dense": 0.7}, **SETTINGS)
    for split, (view, _) in made.items():
        assert len(validate_dataset_contract(layout.dataset(sparse.at(split)), 7, 2)) == len(view)
    assert [(row["view"], row["split"]) for row in skipped_views(root, design)] == [("dense", s) for s in made]
    job = next(job for job in build_overlap_jobs(root, design) if job.condition["view"] == "dense")
    for path in job.optional_outputs:
        assert SAME_AS_BASELINE in job.reason_for_absence(path)


def test_only_the_splits_of_the_design_are_made(root, exposed):
    Layout(root).exposed(Condition(1e4, split="train")).unlink()
    made = generate_view(root, Condition(1e4, "sparse"), splits=["test"], overlap=0.2, **SETTINGS)
    assert list(made) == list(overlap_records(root, Condition(1e4, "sparse"))) == ["test"]


def test_jobs_know_the_denser_views_and_the_splits(tmp_path):
    design = get_study_design("tiny", doses=[1e4], overlap_targets={"low": 0.2, "high": 0.9, "middle": 0.5})
    jobs = {job.condition["view"]: job for job in build_overlap_jobs(tmp_path, design)}
    assert {view: job.parameters["denser"] for view, job in jobs.items()} == {
        "baseline": {}, "high": {}, "middle": {"high": 0.9}, "low": {"high": 0.9, "middle": 0.5},
    }  # fmt: skip
    assert all(job.parameters["splits"] == ["train", "test"] for job in jobs.values())
    assert json.loads(json.dumps(dict(jobs["low"].parameters))) == jobs["low"].parameters
    assert "-y" in papermill_options({"denser": jobs["low"].parameters["denser"]})
    (job, *_) = build_overlap_jobs(tmp_path, replace(design, splits=("test",)))
    assert job.parameters["splits"] == ["test"]


def test_what_a_design_would_keep_is_what_it_keeps(coarse, exposed):
    scan, dense, sparse = views_in_words(coarse, get_study_design("tiny", patch_size=WINDOW))
    assert scan == "the scan: 180 positions, own overlap 0.62 (D = 24.0 px)"
    assert dense.startswith("dense (target 0.70): left out: keeps all ") and SAME_AS_BASELINE in dense
    made = {split: make_view(data, "sparse", 0.2, denser={"dense": 0.7})[1] for split, data in exposed.items()}
    train, test = (f"{record['positions']} of {record['candidates']}" for record in made.values())
    assert sparse == f"sparse (target 0.20): {train} positions in the train split, {test} in test"


def assert_whole(root: Path, view: str, reason: str) -> None:
    """A study without one view: its reason where reasons are, the others compared, report and advice made."""
    skipped = json.loads((root / "phase_d" / "skip_summary.json").read_text())
    assert [(row["view"], row["split"]) for row in skipped] == [(view, "train"), (view, "test")]
    assert all(reason in row["reason"] for row in skipped)
    left_out = json.loads((root / "phase_f" / "skip_summary.json").read_text())
    assert left_out and all(row["view"] == view and reason in row["reason"] for row in left_out)
    assert view not in set(pd.read_csv(root / "metrics.csv")["view"])
    page = (root / "report" / "_site" / "evidence.html").read_text()
    assert reason in html.unescape(page)
    assert "Cheapest" in (said := fly64("advise", root, "--phase-rmse", "0.05").stdout) or "Not reached" in said, said


def test_a_study_of_a_coarse_scan_has_no_dense_view(coarse, tmp_path):
    write_base(tmp_path / "coarse.npz", coarse)
    root = tmp_path / "study"
    few = "--profile", "tiny", "--doses", "1e4", "--methods", "LSQML"
    fly64("run", root, "--base", tmp_path / "coarse.npz", *few, "--set", "LSQML.epochs=3")
    assert_whole(root, "dense", SAME_AS_BASELINE)


@pytest.mark.slow  # a minute; the same with another base is tested above
def test_an_overlap_that_the_scan_does_not_have(tmp_path):
    few = "--profile", "tiny", "--doses", "1e4", "--methods", "LSQML", "--set", "LSQML.epochs=3"
    fly64("run", tmp_path / "study", *few, "--overlaps", "0.5,0.9")
    assert_whole(tmp_path / "study", "overlap_90", "at or below the target 0.90")
