"""What goes out in the format of another program comes back exactly, to the dtype, for anything that it may hold."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from fly64_nb.data.base import Base, MeasuredScan, write_base
from fly64_nb.data.builtin import builtin_base
from fly64_nb.data.experiment import Experiment
from fly64_nb.data.readers.reader import read_base_file
from fly64_nb.data.readers.understand import ReadOptions
from fly64_nb.data.writers.writer import find_writers
from fly64_nb.physics.optics import diffraction_intensity

SUFFIXES = {"ptychodus": ".h5", "pty-chi": ".hdf5", "cxi": ".cxi", "ptyd": ".ptyd", "npz": ".npz"}
WRITERS = find_writers()


def base_of(seed: int, window: int, photons: float, energy: float, modes: int, bad: int) -> Base:
    """A base with counts, several modes of the probe and bad pixels, all physics told."""
    rng, plain = np.random.default_rng(seed), builtin_base(24, 30, 5.0, window=window, seed=seed)
    flight = Experiment(energy_eV=energy, distance_m=2.0, detector_pixel_m=(75e-6, 75e-6))
    light = diffraction_intensity(plain.object, plain.probe, plain.y, plain.x)
    counts = rng.poisson(light * (photons / light.sum((1, 2)).mean())).astype(np.uint32)
    mask = np.ones((window, window), bool)
    mask[tuple(rng.integers(0, window, (2, bad)))] = False
    counts[:, ~mask] = 0
    stack = [plain.probe]
    for power in range(1, modes):
        other = np.roll(plain.probe, power, 0)
        other = other - sum(np.vdot(mode, other) / np.vdot(mode, mode) * mode for mode in stack)
        stack.append((other * 0.3**power / max(np.abs(other).max(), 1e-9) * np.abs(plain.probe).max()).astype("c8"))
    return replace(
        plain, counts=counts, experiment=flight, pixel_size_m=flight.object_pixel_m((window, window))[0],
        mask=mask if bad else None, modes=np.stack(stack) if modes > 1 else None,
    )  # fmt: skip


@settings(deadline=None, max_examples=4)
@given(
    seed=some.integers(0, 99),
    window=some.sampled_from([16, 24]),
    photons=some.sampled_from([3e3, 1e5, 1e7]),
    energy=some.floats(3e3, 30e3),
    modes=some.integers(1, 3),
    bad=some.integers(0, 4),
)
@pytest.mark.parametrize("name", SUFFIXES)
def test_a_base_comes_back_exactly(name, seed, window, photons, energy, modes, bad):
    base = base_of(seed, window, photons, energy, modes, bad)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"out{SUFFIXES[name]}"
        files = WRITERS[name].files(path)
        words = WRITERS[name].write(files, base)
        options = ReadOptions(orientation="as is")
        if name == "ptyd":  # has no place for a probe
            write_base(Path(folder) / "probe.npz", replace(base, counts=None, mask=None))
            options = replace(options, probe=Path(folder) / "probe.npz")
        again = read_base_file(files[0], options=options)
    assert np.array_equal(again.counts, base.counts) and again.counts.dtype == np.uint32
    if name == "pty-chi":  # has no place for a mask, and says so
        assert again.mask is None and (base.mask is None or "mask" in " ".join(words))
    else:
        assert again.mask is None if base.mask is None else np.array_equal(again.mask, base.mask)
    mine, theirs = (scan.probe[None] if scan.modes is None else scan.modes for scan in (base, again))
    assert theirs.dtype == np.complex64
    if name in ("npz", "pty-chi"):
        assert np.array_equal(theirs[0], mine[0])
    scale = np.vdot(mine[0], theirs[0]) / np.vdot(mine[0], mine[0])  # a product has its probe in photons
    kept = min(len(mine), len(theirs))
    assert np.allclose(theirs[:kept], scale * mine[:kept], atol=1e-4 * np.abs(theirs).max())
    assert again.pixel_size_m == pytest.approx(base.pixel_size_m, rel=1e-9)
    if again.experiment.energy_eV is not None:
        assert again.experiment.energy_eV == pytest.approx(energy, rel=1e-9)
    if isinstance(again, Base):
        assert np.array_equal(again.object, base.object) and again.object.dtype == np.complex64
        assert np.allclose(again.y, base.y, atol=1e-6) and np.allclose(again.x, base.x, atol=1e-6)
    else:
        assert isinstance(again, MeasuredScan)
        assert np.allclose(np.diff(again.y), np.diff(base.y), atol=1e-6)
        assert np.allclose(np.diff(again.x), np.diff(base.x), atol=1e-6)
