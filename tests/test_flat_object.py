"""What learned methods invent: a flat object for each that learns, its numbers, its section in the report."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from conftest import fly64
from fly64_nb.comparison import comparison_jobs, write_study_metrics
from fly64_nb.data.builtin import builtin_base
from fly64_nb.datasets import dose_counts, make_datasets
from fly64_nb.design import get_study_design
from fly64_nb.methods.method import Method, Trained, choose_method, with_methods
from fly64_nb.quality.table import read_table, values_of, write_metrics
from fly64_nb.reconstruction import flat_dataset, flat_object_jobs, noise_alone, reconstruction_jobs
from fly64_nb.results.plan import root_jobs
from fly64_nb.results.study import NotMadeError, open_study
from fly64_nb.study.layout import Layout

SECTION = "What the learned methods invent"


@pytest.fixture(scope="module")
def base():
    return builtin_base(110, 50, 4, window=32)


def test_counts_of_a_flat_object_have_the_dose_and_no_structure(base):
    data = make_datasets(base, 1e4)["test"]
    flat = flat_dataset(data)
    assert flat.counts().sum((1, 2), dtype=float).mean() == pytest.approx(1e4, rel=0.01)
    assert np.ptp(np.abs(flat.object)) == 0 and np.ptp(np.angle(flat.object)) == 0
    # the mean over many patterns is the probe's own: what differs from it is shot noise
    spread = flat.counts().var(0, ddof=1).sum() / flat.counts().mean(0).sum()
    assert spread == pytest.approx(1, abs=0.05) and data.counts().var(0, ddof=1).sum() / data.counts().mean(0).sum() > 2


def test_a_method_is_told_what_it_is_told_otherwise_and_the_seed_is_fixed(base):
    data = make_datasets(base, 1e4)["test"]
    data = replace(data, known_y=data.y + 0.3, known_probe=1j * data.probe)
    one, same, other = (flat_dataset(d) for d in (data, data, make_datasets(base, 1e4, seed=7)["test"]))
    for name in ("known_probe", "known_y", "known_x", "metadata", "groups", "mask", "probe"):
        assert getattr(one, name) is getattr(data, name), name
    assert np.array_equal(one.diffraction, same.diffraction) and not np.array_equal(one.diffraction, other.diffraction)


def test_where_counts_are_thinned_the_flat_object_is_still_simulated(base):
    measured = replace(base, counts=dose_counts(base, 1e5))
    data = make_datasets(measured, 1e3, mode="thin")["test"]
    assert flat_dataset(data).counts().sum((1, 2), dtype=float).mean() == pytest.approx(1e3, rel=0.02)


@dataclass(frozen=True)
class NoSettings:
    """Settings of a stranger's method, of which there are none."""


def test_every_method_that_learns_is_asked_a_strangers_as_well():
    stranger = Method("Mine", NoSettings, lambda *_: None, train=lambda *_: Trained(Path.touch, pd.DataFrame(), 0.0))
    plain = get_study_design("tiny", doses=(1e3,), draws=3)
    known = with_methods(plain, ["PINN", "Pretrained", "LSQML", "ML", "MAP"])
    design = replace(known, methods=(*known.methods, choose_method(stranger, "mine.ipynb", "tiny")))
    jobs, first = flat_object_jobs("S", design), Path("S")
    assert [job.condition["method"] for job in jobs[:4]] == ["PINN", "ML", "Pretrained", "Mine"]
    assert len(jobs) == 3 * 4 and {job.condition["split"] for job in jobs} == {"test"}
    assert noise_alone(design).name == "ML" and noise_alone(with_methods(plain, ["PINN", "LSQML"])) is None
    for seed in design.seeds:  # the first draw alone
        those = [job for job in root_jobs(first, design, seed) if "/flat_object/" in job.name]
        assert those == (jobs if seed == design.simulation_seed else [])
    same = {job.name: job for job in reconstruction_jobs(first, design)}
    for job in jobs:
        usual = same[job.name.replace("flat_object/", "")]
        assert (job.inputs, job.parameters) == (usual.inputs, {**usual.parameters, "flat": True})
        assert not set(job.outputs) & set(usual.outputs) and job.log_path != usual.log_path


def test_a_comparison_does_without_a_flat_object_that_is_not_there(study):
    design = open_study(study).design
    job = next(j for j in comparison_jobs(study, design) if j.name == "dose_10000/dense_test")
    there = job.with_present_inputs().parameters
    assert there["flat_objects"] == ["PINN", "Supervised"] and len(there["methods"]) == 3
    layout, condition = Layout(study), open_study(study).condition(1e4, "dense", "test")
    lost = job.with_present_inputs(without=[layout.flat_object(condition, "PINN")]).parameters
    assert lost["flat_objects"] == ["Supervised"] and lost["methods"] == there["methods"]


def test_numbers_are_those_of_the_pictures(study):
    opened = open_study(study)
    phase, amplitude = (
        values_of(opened.metrics, "flat_object_rms", channel, "test") for channel in ("phase", "amplitude")
    )
    assert (
        len(phase) == 3 * 2 == len(amplitude) and values_of(opened.metrics, "flat_object_rms", "phase", "train").empty
    )
    for (dose, view, method, _), value in phase.items():
        image = opened.flat_objects(dose, view)[method]
        assert image.shape == opened.truth(dose, view, "test").image.shape
        assert value == pytest.approx(np.sqrt(np.mean(np.angle(image) ** 2)), rel=1e-4) and 0 < value < 0.5
    assert not amplitude.isna().any() and opened.flat_object(1e4, "dense", "LSQML") is None
    limit = values_of(opened.metrics, "flat_object_limit", "phase", "test").groupby("view").mean()
    real = values_of(opened.metrics, "rmse_limit", "phase", "test").groupby("view").mean()
    assert (limit / real).between(0.8, 1.25).all()  # as many photons, elsewhere absorbed


def section_of(root: Path) -> tuple[BeautifulSoup, str]:
    """The page of the report, and the text of the section."""
    page = BeautifulSoup((root / "report" / "_site" / "index.html").read_text(encoding="utf-8"), "html.parser")
    head = next(h for h in page.find_all(["h2", "h3"]) if h.get_text().startswith(SECTION))
    text = [str(head.get_text())]
    for element in head.find_all_next():
        if element.name == head.name:
            break
        text += [element.get_text()] if element.name in ("p", "td", "th", "caption") else []
    return page, " ".join(text)


def test_the_report_shows_it_and_every_number_leads_to_its_notebook(study):
    page, text = section_of(study)
    assert "flat object" in text and "shot-noise limit (rad)" in text and "Not known: the methods" not in text
    table = page.find("caption", string=re.compile("^Structure of a flat object")).find_parent("table")
    assert [th.get_text() for th in table.thead.find_all("th")][2:4] == ["PINN", "Supervised"]
    links = {a["href"] for a in table.find_all("a")}
    assert {
        "notebooks/phase_g/dose_10000/dense_test.html",
        "notebooks/phase_f/dose_10000/flat_object/dense_test_PINN.html",
    } <= links
    assert all((study / "report" / "_site" / link).is_file() for link in links)
    gallery = (study / "report" / "_site" / "gallery.html").read_text(encoding="utf-8")
    assert BeautifulSoup(gallery, "html.parser").find("img", alt=re.compile("^Phase of a flat object, .*PINN"))


def test_a_study_of_an_earlier_version_is_read_and_says_that_nobody_was_shown_one(copy):
    for path in copy.glob("phase_g/**/metrics.csv"):
        table = read_table(path)
        write_metrics(path, table[~table["metric"].str.startswith("flat_object")])
    for path in copy.glob("phase_?/**/flat_object*"):
        path.unlink()
    with pytest.raises(NotMadeError, match="compared by an earlier version"):
        open_study(copy).flat_objects(1e4, "dense")
    write_study_metrics(copy)
    fly64("report", copy)
    page, text = section_of(copy)
    assert "Not known: the methods of this study were not given a flat object" in text and "fly64 run copy" in text
    assert not page.find("caption", string=re.compile("^Structure of a flat object"))
