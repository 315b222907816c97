"""Draws of the test split's noise: what is made again, what is not, and what the report makes of it."""

from __future__ import annotations

import html

import pandas as pd
import pytest

from conftest import fly64
from fly64_nb.data.files import file_digest
from fly64_nb.quality.table import NOTHING
from fly64_nb.results.study import open_study


@pytest.fixture(scope="module")
def drawn(study, tmp_path_factory):
    """The tiny study, grown by a second draw of its test split's noise, and what was printed."""
    import shutil

    folder = tmp_path_factory.mktemp("luck") / "study"
    shutil.copytree(study, folder)
    return folder, fly64("run", folder, "--draws", "2").stdout


def test_a_draw_trains_nothing_and_leaves_the_first_as_it_is(study, drawn):
    folder, _ = drawn
    again = folder / "replicates" / "seed_43"
    assert not (again / "phase_e").exists() and not list(again.rglob("*train*.npz"))
    for name in ("phase_e/dose_10000/dense/PINN/model.keras", "phase_g/dose_10000/dense/test/metrics.csv"):
        assert file_digest(study / name) == file_digest(folder / name)
    opened = open_study(folder)
    network = opened.job(1e4, "dense", "test", "PINN", seed=43)
    assert network.parameters["model"] == "../../phase_e/dose_10000/dense/PINN/model.keras"
    assert opened.training(1e4, "dense", "PINN", seed=43) == opened.training(1e4, "dense", "PINN")
    with pytest.raises(ValueError, match="seed 43 .* has no train split"):
        opened.job(1e4, "dense", "train", seed=43)
    with pytest.raises(ValueError, match="it draws noise alone"):
        opened.reconstructions(1e4, "dense", "train", seed=43)
    assert (opened.progress["state"] == "compared").all() and len(opened.progress) == 6 + 3


def test_other_photons_fall_on_the_same_positions(drawn):
    opened = open_study(drawn[0])
    table = opened.metrics
    assert set(table.loc[table["split"] == "test", "seed"]) == {42, 43}
    assert set(table.loc[table["split"] == "train", "seed"]) == {42}
    where = (1e4, "dense", "test", "LSQML")
    first, second = opened.reconstruction(*where), opened.reconstruction(*where, seed=43)
    assert (first.truth == second.truth).all() and not (first.image == second.image).all()


def test_the_report_says_what_its_spread_is_over(drawn):
    folder, said = drawn
    page = html.unescape((folder / "report" / "_site" / "index.html").read_text())
    assert "The noise of the test split was drawn 2 times" in page and "Networks were trained once" in page
    answer = open_study(folder).answer().sentence()
    assert answer in page and f"answer: {answer}" in said
    assert "replicates/seed_43/notebooks/phase_g/dose_10000/dense_test.html" in page
    assert f"{NOTHING} (nothing reconstructed)" in page and "shown the truth" in page
    assert pd.read_csv(folder / "report" / "headline.csv")["seeds"].max() == 2
