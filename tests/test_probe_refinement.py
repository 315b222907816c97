"""Object and probe refined together: a probe out of focus, a second mode, masks and priors, and a scan recovered."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from fly64_nb.data.builtin import builtin_base, builtin_probe
from fly64_nb.methods.likelihood.descent import Pull, descend
from fly64_nb.methods.likelihood.exposures import Exposures
from fly64_nb.methods.likelihood.probe import descend_with_probe, recover
from fly64_nb.physics.modes import start_modes
from fly64_nb.physics.optics import diffraction_intensity
from fly64_nb.quality.alignment import align, common_field

DEFOCUSED = builtin_probe(32, defocus_waves=1.27 * 1.1)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base():
    return builtin_base(60, 60, 5, window=32)


def intensity(base, modes, dose=1e5):
    """Noise-free counts of a probe of some modes."""
    total = sum(diffraction_intensity(base.object, mode, base.y, base.x).astype(float) for mode in modes)
    return total * (dose / total.sum((1, 2)).mean())


def phase_error(base, image, origin):
    field = common_field([(base.y, base.x)], base.object.shape)
    aligned = align(base.object, image, origin, field, margin=4)
    return np.angle(aligned.image * field.crop(base.object).conj()).std()


def last(states, iterations):
    *_, state = islice(states, iterations)
    return state


def test_a_probe_out_of_focus_is_found(base):
    counts = intensity(base, [base.probe])
    errors = {}
    for refine in (descend, descend_with_probe):
        exposures = Exposures(counts, base.y, base.x, DEFOCUSED)
        state = last(refine(exposures), 60)
        errors[refine] = phase_error(base, state.object.numpy(), exposures.origin)
    assert errors[descend_with_probe] < 1e-3 < 0.02 < errors[descend]
    found = exposures.probe[0].numpy()
    assert abs(np.vdot(found, base.probe)) > 0.999 * np.linalg.norm(found) * np.linalg.norm(base.probe)


def test_before_the_probe_moves_the_descent_is_that_of_the_object(base):
    counts = intensity(base, [base.probe])
    one, two = (Exposures(counts, base.y, base.x, DEFOCUSED) for _ in range(2))
    pull = Pull(torch.ones(one.shape, dtype=torch.complex64), 10.0)
    alone, together = last(descend(one, prior=pull), 4), last(descend_with_probe(two, prior=pull, after=4), 4)
    assert torch.equal(alone.object, together.object) and together.misfit == alone.misfit
    assert torch.equal(two.probe, one.probe)


def test_the_caller_keeps_the_start_and_a_strong_prior_wins(base):
    exposures = Exposures(intensity(base, [base.probe]), base.y, base.x, DEFOCUSED)
    start = torch.ones(exposures.shape, dtype=torch.complex64)
    target = torch.full(exposures.shape, 0.5 + 0.2j, dtype=torch.complex64)
    state = last(descend_with_probe(exposures, start, Pull(target, 1e9), after=0), 10)
    assert torch.equal(start, torch.ones_like(start))
    assert (state.object - target).abs().max() < 1e-2


def test_masked_pixels_say_nothing_of_the_probe(base):
    counts = intensity(base, [base.probe])
    mask = np.ones((32, 32), bool)
    mask[12:20, 5:9] = False
    spoilt = counts.copy()
    spoilt[:, ~mask] = spoilt[::-1, ~mask]  # of other patterns: wrong, but no other total, which sets the scale
    assert not np.allclose(spoilt, counts)
    states = [
        last(descend_with_probe(Exposures(given, base.y, base.x, DEFOCUSED, mask=mask), after=2), 6)
        for given in (counts, spoilt)
    ]
    torch.testing.assert_close(states[0].probe, states[1].probe, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(states[0].object, states[1].object, rtol=1e-3, atol=1e-3)


def test_a_second_mode_lowers_the_misfit_and_is_refined(base):
    second = start_modes(base.probe, 2, share=0.15)
    counts = intensity(base, second)
    misfits = {}
    for modes in (1, 2):
        made, found = recover(counts, base.y, base.x, base.probe, 40, modes=modes)
        misfits[modes] = made.loss[-1]
        assert found.shape == (modes, 32, 32) and made.probe.shape == (32, 32)
    truth = last(descend(Exposures(counts, base.y, base.x, second)), 40).misfit
    assert misfits[2] - truth < 0.2 * (misfits[1] - truth)


def test_recover_reports_every_iteration(base):
    counts = np.random.default_rng(0).poisson(intensity(base, [base.probe], 1e4))
    seen = []
    made, _ = recover(
        counts, base.y, base.x, DEFOCUSED, 12, lambda epoch, epochs, loss: seen.append((epoch, epochs, loss))
    )
    assert [s[:2] for s in seen] == [(k, 12) for k in range(1, 13)] and made.epoch == 12
    assert made.loss.tolist() == [s[2] for s in seen] and made.loss[-1] < made.loss[0]
    assert phase_error(base, made.object, made.origin) < 0.1
