"""The likelihood methods: a peer's forward model, a finished study that they enter, chunks, masks, wrong input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import fly64
from fly64_nb.data.reconstruction import Reconstruction, write_reconstruction
from fly64_nb.design import StudyDesign
from fly64_nb.methods.likelihood.common import trial_dataset, trial_error
from fly64_nb.methods.likelihood.descent import descend
from fly64_nb.methods.likelihood.exposures import Exposures
from fly64_nb.methods.map import MAP
from fly64_nb.methods.method import DEFAULT_METHODS, find_methods, settings_of, with_methods
from fly64_nb.methods.ml import ML
from fly64_nb.methods.pinn_map import PINN_MAP
from fly64_nb.methods.ptychi.solver import ptychi_intensity
from fly64_nb.methods.wiener import WIENER
from fly64_nb.physics.photons import counts_to_amplitude, photon_counts
from fly64_nb.reconstruction import reconstruct_with


@pytest.fixture(autouse=True)
def defaults():
    """pty-chi changes torch's default device and dtype for the whole process."""
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


def made(method, data, **changes):
    """What a method makes of a dataset, on the way that a study takes."""
    return reconstruct_with(data, method, settings_of(method, "quick", changes), None, lambda *_, **__: None)


def test_they_are_found_and_two_of_them_are_in_every_study():
    assert {"ML", "MAP", "Wiener"} <= set(find_methods())
    assert DEFAULT_METHODS == ("PINN", "Supervised", "LSQML", "ML", "MAP")


@pytest.mark.parametrize("dose", [1e3, 1e6])
def test_the_loss_is_that_above_the_counts_themselves(dose):
    """It was negative where photons are many, and a logarithmic axis showed nothing."""
    data = trial_dataset(dose, size=90)
    for method in (ML, MAP):
        found = made(method, data)
        assert (found.loss > 0).all() and found.loss[-1] < 0.9 * found.loss[0] and "log-likelihood" in found.loss_label
    scan = Exposures(data.counts(), data.y, data.x, data.probe)
    n = data.counts().astype(float) + scan.floor
    assert abs(scan.least_misfit / (n - n * np.log(n)).sum() - 1) < 1e-5


def test_counts_that_pty_chi_simulated_give_the_same_order():
    """No inverse crime: the other program's forward model, and the same scan by ours."""
    ours = trial_dataset(3e3, size=90)
    intensity = ptychi_intensity(ours.object, ours.probe, ours.y, ours.x)
    counts = photon_counts(intensity, 3e3, np.random.default_rng(2))
    theirs = replace(ours, diffraction=counts_to_amplitude(counts, 3e3))
    errors = {
        (who, m.name): trial_error(data, made(m, data))
        for who, data in (("ours", ours), ("theirs", theirs))
        for m in (ML, WIENER, MAP)
    }
    for who in ("ours", "theirs"):
        assert errors[who, "MAP"] < errors[who, "Wiener"] < errors[who, "ML"], errors
    assert all(abs(errors["ours", m] / errors["theirs", m] - 1) < 0.15 for m in ("ML", "Wiener", "MAP")), errors


def test_three_draws_of_the_noise_rank_alike():
    for seed in (1, 2, 3):
        data = trial_dataset(1e4, spacing=9, size=90, seed=seed)
        assert trial_error(data, made(MAP, data)) < 0.8 * trial_error(data, made(ML, data))


def test_a_dataset_without_photons_is_refused_by_name():
    data = trial_dataset(1e4)
    with pytest.raises(ValueError, match="no photon was counted"):
        made(ML, replace(data, diffraction=0 * data.diffraction))


def test_memory_stays_small_where_nothing_is_kept():
    data = trial_dataset(1e4, spacing=3, size=90)
    scan = Exposures(data.counts(), data.y, data.x, data.probe, keep=False)
    for state in descend(scan):
        if state.iteration == 3:
            break
    assert not scan._kept and state.object.shape == scan.shape


def test_they_enter_a_finished_study(copy):
    fly64("design", copy, "--profile", "tiny", "--doses", "1e4", "--methods", "ML,MAP,Wiener")
    for step in ("reconstruct", "compare"):
        fly64(step, copy, "--view", "dense", "--split", "test")
    table = pd.read_csv(copy / "metrics.csv")
    rows = table.query("metric == 'rmse' and channel == 'phase' and split == 'test'").set_index(["view", "method"])
    assert {"ML", "MAP", "Wiener", "LSQML"} <= set(rows.index.get_level_values("method"))
    value = rows["value"]
    assert value["dense", "MAP"] < value["dense", "LSQML"]


def test_an_image_that_never_saw_the_photons_is_mended_wherever_its_canvas_lies(tmp_path):
    """PINN+MAP on the way of a study: the image on another canvas than the scan's, zero where it was not stitched."""
    data = trial_dataset(1e4, spacing=9, size=90)
    image = np.abs(data.object) ** 0.6 * np.exp(0.6j * np.angle(data.object))
    image[:30] = 0
    larger = Reconstruction(
        np.pad(image, ((3, 0), (0, 7))).astype(np.complex64), data.probe, (-3, 0), np.zeros(0), 0.0, "cpu", {}
    )
    path = tmp_path / "reconstruction.npz"
    write_reconstruction(path, tmp_path / "product.h5", larger, data, "PINN", {})
    found = reconstruct_with(data, PINN_MAP, settings_of(PINN_MAP, "quick"), path, lambda *_, **__: None)
    assert trial_error(data, found) < 0.9 * trial_error(data, made(MAP, data))
    assert "by PINN" in found.notes[0]
    elsewhere = replace(larger, origin=(5000, 0))
    write_reconstruction(path, tmp_path / "product.h5", elsewhere, data, "PINN", {})
    with pytest.raises(ValueError, match="no lit pixel in common"):
        reconstruct_with(data, PINN_MAP, settings_of(PINN_MAP, "quick"), path, lambda *_, **__: None)


def test_pinn_map_waits_for_pinn():
    assert "PINN+MAP" in find_methods() and "PINN+MAP" not in DEFAULT_METHODS
    with pytest.raises(ValueError, match="starts from 'PINN'"):
        with_methods(StudyDesign(profile="tiny"), ["PINN+MAP"])
