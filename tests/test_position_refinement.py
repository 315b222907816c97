"""Positions refined with the object: to the limit of their photons, with a probe, within bounds, and by ML."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from fly64_nb.axes.position_error import tell_wrong_positions
from fly64_nb.data.builtin import builtin_base, builtin_probe
from fly64_nb.data.reconstruction import write_reconstruction
from fly64_nb.methods.likelihood.common import trial_dataset, trial_error
from fly64_nb.methods.likelihood.descent import descend
from fly64_nb.methods.likelihood.exposures import Exposures
from fly64_nb.methods.likelihood.positions import (
    block_gradients,
    descend_with_positions,
    evidence,
    misfits,
    move_positions,
    position_limit,
    rms_correction,
)
from fly64_nb.methods.ml import ML, MlSettings
from fly64_nb.physics.optics import diffraction_intensity


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base():
    return builtin_base(50, 50, 5, window=32)


@pytest.fixture(scope="module")
def counts(base):
    intensity = diffraction_intensity(base.object, base.probe, base.y, base.x).astype(float)
    return np.random.default_rng(0).poisson(intensity * (1e5 / intensity.sum((1, 2)).mean()))


@pytest.fixture(scope="module")
def wrong(base):
    """Positions 0.7 px rms away."""
    return np.stack([base.y, base.x], 1) + np.random.default_rng(1).normal(0, 0.5, (len(base.y), 2))


def last(states, iterations):
    *_, state = islice(states, iterations)
    return state


def test_refined_positions_are_near_the_limit_of_their_photons(base, counts, wrong):
    exposures = Exposures(counts, *wrong.T, base.probe)
    state = last(descend_with_positions(exposures), 30)
    left, limit = rms_correction(exposures, base.y, base.x), position_limit(exposures, state.object)
    assert left < 2 * limit < 0.2 * rms_correction(Exposures(counts, *wrong.T, base.probe), base.y, base.x)
    assert np.sqrt(2 / state.precision) == pytest.approx(0.7, rel=0.15)
    assert np.allclose(state.places.mean(0), wrong.mean(0), atol=1e-3)


def test_right_positions_stay_and_cost_nothing(base, counts):
    known, refined = (Exposures(counts, base.y, base.x, base.probe) for _ in range(2))
    state, plain = last(descend_with_positions(refined), 25), last(descend(known), 25)
    assert rms_correction(refined, base.y, base.x) < 0.05
    assert (state.object - plain.object).abs().mean() < 0.01


def test_positions_stay_within_their_bound_and_windows_on_the_canvas(base, counts):
    far = np.stack([base.y, base.x], 1) + np.random.default_rng(1).normal(0, 3, (len(base.y), 2))
    exposures = Exposures(counts, *far.T, base.probe)
    state = last(descend_with_positions(exposures, farthest=1.0), 20)
    assert (state.places.numpy() - far < 1.1).all() and rms_correction(exposures, *far.T) < 1.05
    starts = torch.cat(exposures.starts)
    assert (starts >= 0).all() and (starts + 32 <= torch.tensor(exposures.shape)).all()
    assert torch.isfinite(state.object.abs()).all()


def test_a_step_never_raises_the_misfit_of_a_pattern(base, counts, wrong):
    exposures = Exposures(counts, *wrong.T, base.probe)
    image, before = torch.ones(exposures.shape, dtype=torch.complex64), None
    for _ in range(3):
        told = torch.from_numpy(np.stack([exposures.y, exposures.x], 1))
        before = misfits(exposures, image)
        _, gained = move_positions(exposures, image, told)
        fell = before - misfits(exposures, image)
        assert (fell > -1e-3 * before.abs()).all() and float(fell.sum()) == pytest.approx(gained, rel=1e-3, abs=1)


def test_masked_pixels_say_nothing_of_a_position(base, counts, wrong):
    mask = np.ones((32, 32), bool)
    mask[12:20, 5:9] = False
    spoilt = counts.copy()
    spoilt[:, ~mask] = spoilt[::-1, ~mask]
    image = None
    said = []
    for given in (counts, spoilt):
        exposures = Exposures(given, *wrong.T, base.probe, mask=mask)
        image = last(descend(exposures), 3).object if image is None else image
        (_, _, places), _ = block_gradients(exposures, image, [])
        said.append((evidence(exposures, image), places))
    for one, other in zip(said[0][0].__dict__.values(), said[1][0].__dict__.values()):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(said[0][1], said[1][1], rtol=1e-3, atol=0.1)
    torch.testing.assert_close(2 * said[0][1], said[0][0].slope, rtol=1e-2, atol=1.0)


def test_ml_refines_positions_alone_and_with_the_probe():
    trial = trial_dataset(1e5)
    told = tell_wrong_positions(trial, 0.7, np.random.default_rng(0))
    blurred = replace(told, known_probe=builtin_probe(32, defocus_waves=1.27 * 1.1).astype(np.complex64))
    errors = {}
    for name, data, changes in (
        ("kept", told, {}),
        ("refined", told, {"update_positions": True}),
        ("both kept", blurred, {}),
        ("both refined", blurred, {"update_positions": True, "update_probe": True}),
    ):
        made = ML.reconstruct(data, MlSettings(device="cpu", **changes), None, lambda *_, **__: None)
        errors[name] = trial_error(trial, made)
        assert bool(made.notes) == ("update_positions" in changes)
    assert errors["refined"] < 0.6 * errors["kept"] and errors["both refined"] < 0.6 * errors["both kept"], errors
    assert made.notes == (f"positions refined, moved by {float(made.notes[0].split()[-3]):.2f} px rms",)
    assert 0.5 < float(made.notes[0].split()[-3]) < 0.9


def test_refined_positions_are_written(tmp_path):
    trial = trial_dataset(1e5)
    told = tell_wrong_positions(trial, 0.7, np.random.default_rng(0))
    made = ML.reconstruct(told, MlSettings(device="cpu", update_positions=True), None, lambda *_, **__: None)
    write_reconstruction(tmp_path / "made.npz", tmp_path / "made.h5", made, told, "ML", {})
    written = np.load(tmp_path / "made.npz")
    assert np.array_equal(written["ycoords"], made.y) and np.array_equal(written["xcoords"], made.x)
    off = [np.std(np.stack([y, x], 1) - np.stack([trial.y, trial.x], 1), axis=0).max()
           for y, x in ((told.known_y, told.known_x), (made.y, made.x))]  # fmt: skip
    assert off[1] < 0.5 * off[0], off
