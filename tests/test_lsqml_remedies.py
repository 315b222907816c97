"""LSQML with what a beamline adds: masks, background, modes, positions and intensities, and what is told of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fly64_nb.data.base import MeasuredScan
from fly64_nb.data.builtin import builtin_base
from fly64_nb.methods.lsqml import LSQML, REMEDIES, reconstruct_dataset, recover_base
from fly64_nb.methods.method import settings_of
from fly64_nb.methods.ptychi.engines import example_dataset
from fly64_nb.methods.ptychi.solver import HeldOut, LsqmlSettings, reconstruct
from fly64_nb.physics.modes import start_modes
from fly64_nb.physics.photons import photons_from
from fly64_nb.physics.optics import diffraction_intensity

SHORT = LsqmlSettings(epochs=3, damped_epochs=1, start_epochs=2, update_probe=False, hold_out=0.02)


def told_nothing(*_, **__):
    """No progress."""


@pytest.fixture(scope="module")
def scan():
    """Positions and probe of some sixty patterns, and counts of 1e4 photons."""
    base = builtin_base(40, 40, 5.2, window=32)
    intensity = diffraction_intensity(base.object, base.probe, base.y, base.x)
    counts = np.random.default_rng(0).poisson(intensity * (1e4 / intensity.sum((1, 2)).mean())).astype(np.float32)
    return counts, base.y, base.x, base.probe


@pytest.fixture
def mask():
    made = np.ones((32, 32), bool)
    made[:, 20:23] = made[14:18, 14:18] = False
    return made


def test_what_stands_in_masked_pixels_does_not_matter(scan, mask):
    counts, *places = scan
    junk = np.where(mask, counts, 12345)
    first, second = (reconstruct(c, *places, SHORT, mask=mask, photons=1e4) for c in (counts, junk))
    assert np.array_equal(first.object, second.object) and np.array_equal(first.held_out, second.held_out)
    assert first.engine == "fast" and len(first.held_out) > 1


def test_a_probe_keeps_the_photons_that_are_told(scan, mask):
    """pty-chi's rescaling of the first epoch would take the masked photons off the probe."""
    counts, *places = scan
    found = reconstruct(counts, *places, replace(SHORT, epochs=1, hold_out=0), mask=mask, photons=1e4)
    assert np.isclose(np.sum(np.abs(found.probe) ** 2) * 32**2, 1e4, rtol=1e-4)


def test_settings_switch_mask_and_background_off(scan, mask):
    counts, *places = scan
    off = replace(SHORT, use_mask=False, use_background=False)
    plain = reconstruct(counts, *places, SHORT)
    told = reconstruct(counts, *places, off, mask=mask, background=1.0, photons=1e4)
    assert np.array_equal(plain.object, told.object)


def test_held_out_photons_expect_the_background_and_see_no_masked_pixel(scan, mask):
    counts, y, x, probe = scan
    obj, flat = np.ones((90, 90), np.complex64), probe * 0
    held = HeldOut(counts[:2] * 0 + 1, y[:2] + 10, x[:2] + 10, 0.02, mask=mask, background=50.0)
    assert np.allclose(held.likelihoods(obj, flat), mask.sum() * (1 - np.log(1 + 1e-3 * 0.02)))  # 0.02 * 50 = 1


@pytest.mark.parametrize(
    "changes,told,message",
    [
        ({}, {"mask": np.ones((32, 32), bool) & (np.arange(32) > 3)}, "photons = None"),
        ({}, {"background": 0.1}, "needs those of an exposure"),
        ({}, {"mask": np.zeros((32, 32), bool), "photons": 1e4}, "no pixel of the detector counts"),
        ({}, {"mask": np.zeros((16, 16), bool), "photons": 1e4}, r"\(16, 16\); needed is \(32, 32\)"),
        ({"modes": 2}, {}, "update_probe = True"),
    ],
)
def test_what_cannot_be_done_is_refused(scan, changes, told, message):
    with pytest.raises(ValueError, match=message):
        reconstruct(*scan, replace(SHORT, **changes), **told)


def test_intensities_are_fitted_by_pty_chi(scan):
    """Patterns that are a third brighter and darker in turn: its own class, and a better image."""
    counts, y, x, probe = scan
    bright = np.where(np.arange(len(y)) % 2, 1.3, 0.7)[:, None, None]
    counts = np.random.default_rng(2).poisson(counts * bright).astype(np.float32)
    longer = replace(SHORT, epochs=12, start_epochs=12)
    kept, fitted = (reconstruct(counts, y, x, probe, replace(longer, update_intensities=on)) for on in (False, True))
    assert kept.engine == "fast" and "OPR mode" in fitted.engine
    assert fitted.held_out[-1, 1] < kept.held_out[-1, 1] and fitted.modes is None


def test_a_dataset_tells_modes_background_and_mask(mask):
    data = example_dataset(1e4)
    modes = start_modes(data.probe, 2).astype(np.complex64)
    told = replace(data, mask=mask, known_modes=modes, known_background=np.full((32, 32), 0.1, np.float32))
    one, two = (reconstruct_dataset(told, replace(SHORT, modes=m), None, told_nothing) for m in (1, 2))
    assert one.modes.shape == two.modes.shape == (2, 32, 32)  # what is told is used
    assert np.isclose(np.sum(np.abs(two.modes) ** 2), np.sum(np.abs(two.probe) ** 2), rtol=1e-4)
    assert np.isclose(np.sum(np.abs(one.probe) ** 2) * 32**2, 1e4, rtol=0.05)


def test_a_scan_is_recovered_with_its_mask_and_modes(scan, mask):
    counts, y, x, probe = scan
    counts, modes = (counts * mask).astype(np.uint32), start_modes(probe, 2).astype(np.complex64)
    measured = MeasuredScan(counts, y, x, modes[0], None, {}, modes=modes, mask=mask)
    base, found = recover_base(measured, "tiny", 0, told_nothing)
    assert found.engine == "fast" and base.modes.shape == (2, 32, 32) and np.array_equal(base.mask, mask)
    assert np.array_equal(base.probe, base.modes[0]) and base.counts is counts
    assert 0.9e4 < photons_from(counts, mask, modes) < 1.3e4


@pytest.mark.parametrize("name", REMEDIES)
def test_every_remedy_is_two_sets_of_settings(name):
    remedy = LSQML.remedies[name]
    on, off = (settings_of(LSQML, "tiny", changes) for changes in (remedy.on, remedy.off))
    assert set(remedy.off) <= set(remedy.on) and on != off
