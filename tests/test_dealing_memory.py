"""What dealing photons holds at once, in multiples of the counts, and that blocks draw the same numbers."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fly64_nb.data.builtin import builtin_base
from fly64_nb.datasets import dose_counts, each_dataset, make_datasets
from fly64_nb.methods.networks.learning import split_photons
from fly64_nb.methods.ptychi.solver import LsqmlSettings, hold_out
from fly64_nb.physics.photons import deal_in_blocks, deal_photons, thin_counts


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    """So many patterns that a block of them is little, float32 as methods take them."""
    light = 20 * np.exp(-((np.hypot(*np.mgrid[-32:32, -32:32]) / 10) ** 2))
    return np.random.default_rng(0).poisson(light, (3000, 64, 64)).astype(np.float32)


def peak(make: Callable[[], Any]) -> int:
    """Bytes that were allocated at most, beside what was there."""
    tracemalloc.start()
    try:
        make()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def held(counts: np.ndarray) -> tuple[Any, np.ndarray]:
    y = x = np.linspace(0, 90, len(counts))
    return hold_out(counts, y, x, np.ones((64, 64), complex), LsqmlSettings(hold_out=0.02, seed=3), [])


@pytest.mark.parametrize(
    "make,most",
    [
        (held, 1.3),  # what the solver sees, and a few patterns of what was held out
        (lambda counts: thin_counts(counts, 300, np.random.default_rng(1)), 1.2),
        (lambda counts: deal_photons(counts, 0.5, np.random.default_rng(1)), 2.2),  # two whole results
        (lambda counts: split_photons(counts, 0.1, np.random.default_rng(1)), 2.2),
    ],
)
def test_photons_are_dealt_in_little_more_than_the_result(counts, make, most):
    assert peak(lambda: make(counts)) < most * counts.nbytes


def test_blocks_draw_what_one_call_draws(counts):
    """One call of `Generator.binomial` for all patterns gives the numbers of any blocks of them."""
    whole, lit = counts[:300].astype(np.int64), counts[:300] > 0
    at_once = np.zeros(whole.shape, np.uint32)
    at_once[lit] = np.random.default_rng(3).binomial(whole[lit], 0.02)
    for block in (1, 64, 1000):
        parts = [dealt for *_, dealt in deal_in_blocks(counts[:300], 0.02, np.random.default_rng(3), block)]
        assert np.array_equal(np.concatenate(parts), at_once)
    photons, seen = held(counts[:300])
    assert np.array_equal(photons.counts, at_once[photons.rows]) and len(photons.rows) == 256
    assert np.array_equal(seen, whole - at_once) and seen.dtype == photons.counts.dtype == np.float32


def test_a_thinned_scan_is_written_a_split_at_a_time():
    """Thinned counts, then the amplitudes of both splits and the true patches of one; never all of them."""
    base = builtin_base(150, 100, 2.2, window=32)
    measured = replace(base, counts=dose_counts(base, 1e4))
    settings = {"mode": "thin", "guard_band": 18.0, "footprint_energy": 0.3}

    def in_turn() -> None:
        for data in each_dataset(measured, 1e3, **settings):
            del data

    sets = make_datasets(measured, 1e3, **settings)
    patterns = sum(map(len, sets.values()))
    assert patterns > 2000 and peak(in_turn) < 2.2 * measured.counts.nbytes
    thinned = dose_counts(measured, 1e3, "thin")
    for data in sets.values():
        assert np.array_equal(data.counts(), thinned[data.scan_index])
