"""Contrast, the end of a ring correlation, and what a flat image scores, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from fly64_nb.comparison import Image, compare_condition
from fly64_nb.data.builtin import builtin_object
from fly64_nb.quality.alignment import Field, true_phase
from fly64_nb.quality.metrics import (
    contrast_kept,
    crossing,
    fourier_ring_correlation,
    half_bit_threshold,
    ring_pixels,
)
from fly64_nb.quality.table import NOTHING
from fly64_nb.study.condition import Condition

RINGS = 105
FREQUENCY = (np.arange(RINGS) + 1.5) / (2 * (RINGS + 1))


@pytest.mark.parametrize("share", [1.0, 0.8, 0.0, -0.5])
def test_contrast_is_the_factor_whatever_the_offset_and_the_noise(share: float) -> None:
    rng = np.random.default_rng(3)
    truth, noise = rng.uniform(-0.5, 0.5, (120, 140)), 0.3 * rng.standard_normal((120, 140))
    assert contrast_kept(truth, share * truth + 7) == pytest.approx(share, abs=1e-12)
    error_of_slope = 0.3 / np.sqrt(truth.size / 12)  # the variance of a uniform width of one is 1/12
    assert abs(contrast_kept(truth, share * truth + noise) - share) < 4 * error_of_slope


def test_contrast_of_a_constant_truth_is_refused() -> None:
    with pytest.raises(ValueError, match="truth is constant"):
        contrast_kept(np.full((9, 9), 0.1), np.eye(9))


@pytest.mark.parametrize("threshold", [0.5, 1 / 7])
@pytest.mark.parametrize("length", [0.05, 0.1, 0.2])
def test_an_exponential_decay_is_left_where_the_formula_says(threshold: float, length: float) -> None:
    """The chord of an exponential lies above it by at most (step / length)^2 / 8 of its value."""
    step = FREQUENCY[1] - FREQUENCY[0]
    expected = -length * np.log(threshold)
    found = crossing(FREQUENCY, np.exp(-FREQUENCY / length), threshold)
    assert expected < found < expected + 1.1 * (step / length) ** 2 / 8 * length
    each = np.full(RINGS, threshold)
    assert crossing(FREQUENCY, np.exp(-FREQUENCY / length), each) == found


@pytest.mark.parametrize("ring", [0, 1, 5, 20, 45])
@pytest.mark.parametrize("depth", [0.49, 0.0])
def test_one_ring_below_is_a_dip_and_no_fall(ring: int, depth: float) -> None:
    correlation = np.where(FREQUENCY < 0.25, 0.9, 0.1)
    expected = crossing(FREQUENCY, correlation, 0.5)
    assert abs(expected - 0.25) < 1 / RINGS
    correlation[ring] = depth
    assert crossing(FREQUENCY, correlation, 0.5) == expected


def test_rings_below_for_longer_than_a_run_are_a_fall() -> None:
    correlation = np.full(RINGS, 0.9)
    correlation[30:45] = 0.1
    assert FREQUENCY[29] < crossing(FREQUENCY, correlation, 0.5) < FREQUENCY[30]


@pytest.mark.parametrize("ring", [0, 1, 50, RINGS - 3, RINGS - 1])
def test_a_lucky_ring_begins_nothing_and_prolongs_nothing(ring: int) -> None:
    correlation = 0.1 * np.random.default_rng(1).standard_normal(RINGS)
    correlation[ring] = 0.6
    assert crossing(FREQUENCY, correlation, 0.5) == 0
    good = np.where(FREQUENCY < 0.1, 0.9, 0.1)
    prolonged = good.copy()
    prolonged[max(ring, 40)] = 0.6
    assert crossing(FREQUENCY, prolonged, 0.5) == crossing(FREQUENCY, good, 0.5)


def test_missed_lowest_rings_do_not_count_and_the_ends_of_the_scale() -> None:
    correlation = np.where(FREQUENCY < 0.3, 0.9, 0.1)
    expected = crossing(FREQUENCY, correlation, 0.5)
    correlation[:4] = -0.2
    assert crossing(FREQUENCY, correlation, 0.5) == expected
    assert crossing(FREQUENCY, np.zeros(RINGS), 0.5) == 0
    assert crossing(FREQUENCY, np.ones(RINGS), 0.5) == FREQUENCY[-1]
    assert crossing(FREQUENCY[:3], np.ones(3), 0.5) == FREQUENCY[2]  # fewer rings than a run


def test_the_end_lies_between_two_rings_when_a_dip_stands_right_before_the_fall() -> None:
    correlation = np.full(RINGS, 0.05)
    correlation[:20], correlation[20], correlation[21:24] = 0.9, 0.49, (0.4, 0.9, 0.9)
    found = crossing(FREQUENCY, correlation, 0.5)
    assert FREQUENCY[19] < found < FREQUENCY[24]
    above = np.flatnonzero(correlation >= 0.5)
    assert any(FREQUENCY[i] <= found <= FREQUENCY[i + 1] for i in above)


def test_half_bit_by_hand() -> None:
    # (0.2071 + 1.9102) / (1.2071 + 0.9102); (0.2071 + 0.19102) / (1.2071 + 0.09102); 0.226202 / 1.216202
    assert half_bit_threshold(np.array([1.0, 100.0, 1e4])) == pytest.approx([1.0, 0.306690, 0.185990], abs=1e-6)


def test_pixels_of_a_ring_against_a_count_by_hand() -> None:
    """A spectrum of 8 x 8 px has four rings: 1 px, then those from 1 to below 2, 2 to below 3 and 3 to below 4."""
    whole = ring_pixels((8, 8), real=False)
    assert whole / whole[0] == pytest.approx([1, 16 / 8, 20 / 8])
    assert ring_pixels((8, 8), real=True) == pytest.approx(whole / 2)
    # a Tukey window with a taper of alpha has a mean square of 1 - 5 alpha / 8 along each axis
    large = ring_pixels((400, 500), real=False)
    assert large.sum() == pytest.approx(np.pi / 4 * 400 * 500 * (1 - 5 / 32) ** 2, rel=0.01)
    assert len(large) == len(fourier_ring_correlation(np.eye(400, 500), np.eye(400, 500))[0])


def test_a_flat_image_scores_the_standard_deviation_of_the_phase_and_no_resolution() -> None:
    truth, field = builtin_object((230, 260)), Field(20, 30, 210, 230)
    cut = field.crop(truth)
    noise = np.random.default_rng(0).standard_normal(truth.shape)
    images = {"Made": Image((truth + 0.02 * noise).astype(np.complex64), (0, 0), 2.0)}
    result = compare_condition(truth, field, images, Condition(1e4, "dense", "test"), photons=np.ones(truth.shape))
    assert list(result.methods) == ["Made"]
    table = result.table.set_index(["method", "channel", "metric"])["value"]
    assert np.isfinite(table).all() and table.index.is_unique
    nothing, made = table[NOTHING], table["Made"]
    gone = set(made.index) - set(nothing.index)
    assert {metric for _, metric in gone} == {
        "rmse_limit", "seconds", "factor", "shift_y_px", "shift_x_px", "ramp_y_cycles_per_px", "ramp_x_cycles_per_px"
    }  # fmt: skip
    # alignment minimises the error of the complex image, and may fit a phase ramp and a constant phase to it
    phase = true_phase(cut)
    y, x = np.indices(cut.shape)
    plane = np.stack([np.ones(cut.size), y.ravel(), x.ravel()], 1)
    left = phase.ravel() - plane @ np.linalg.lstsq(plane, phase.ravel())[0]
    assert left.std() * 0.999 < nothing["phase", "rmse"] < phase.std() * 1.02
    resolutions = [
        nothing[channel, metric]
        for channel in ("amplitude", "phase", "complex")
        for metric in ("frc50", "frc1over7", "frc_half_bit")
    ]
    assert resolutions == [0.0] * 9
    assert abs(nothing["phase", "contrast"]) < 0.05 and abs(nothing["amplitude", "contrast"]) < 1e-3
    assert made["phase", "rmse"] < 0.2 * nothing["phase", "rmse"] and abs(made["phase", "contrast"] - 1) < 0.02
