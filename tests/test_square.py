"""Patterns of any sides: put into a square they predict the same counts in the pixels that were measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import fft, ndimage

from fly64_nb.data.base import Base, MeasuredScan
from fly64_nb.data.experiment import Experiment
from fly64_nb.data.files import FormatError
from fly64_nb.data.readers.contents import FileContents, Patterns, Positions
from fly64_nb.data.readers.judge import judge_base, predicted
from fly64_nb.data.readers.reader import made_of, read_base_file
from fly64_nb.data.readers.square import Square
from fly64_nb.data.readers.understand import ReadOptions, understand

HERE, PHYSICS = Path("scan.h5"), Experiment(10e3, 2.0, (75e-6, 75e-6))


def smooth(shape: tuple[int, int], width: float, rng: np.random.Generator) -> np.ndarray:
    """Random smooth complex values of magnitude about one."""
    real, imag = (ndimage.gaussian_filter(rng.normal(size=shape), width) * 2 * width for _ in range(2))
    return np.exp(0.8j * real - 0.2 * imag)


def scan_of(shape: tuple[int, int], seed: int, whole: bool = True) -> tuple[FileContents, np.ndarray]:
    """A scan as a program with windows of that shape computes it, and the light that it expects."""
    rng, (h, w) = np.random.default_rng(seed), shape
    rows, columns = np.arange(h)[:, None] - h // 2, np.arange(w) - w // 2
    far = np.exp(-(rows**2 / (h / 6) ** 2 + columns**2 / (w / 6) ** 2)) * smooth(shape, 4, rng)
    probe = fft.fftshift(fft.ifft2(fft.ifftshift(far), norm="ortho"))
    obj = smooth((h + 40, w + 34), 3, rng)
    y, x = rng.integers([h // 2, w // 2], [h // 2 + 40, w // 2 + 34], (60, 2)).T
    waves = np.stack([probe * obj[b - h // 2 : b - h // 2 + h, a - w // 2 : a - w // 2 + w] for b, a in zip(y, x)])
    axes = (1, 2)
    light = np.abs(fft.fftshift(fft.fft2(fft.ifftshift(waves, axes=axes), norm="ortho"), axes=axes)) ** 2
    light *= 1e6 / light.sum(axes).mean()
    positions = Positions("xy", y.astype(float), x.astype(float), "px", origin="object")
    patterns = Patterns.of("data", rng.poisson(light).astype(np.uint32), zero_frequency="centre")
    return FileContents("plain", patterns, positions, probe, object=obj), light


SIDES = some.tuples(some.integers(18, 34), some.integers(18, 34)).filter(lambda s: s[0] * s[1] >= 0.5 * max(s) ** 2)


@settings(deadline=None, max_examples=15)
@given(
    shape=SIDES,
    seed=some.integers(0, 99),
    point=some.sampled_from(["pixel", "middle", "corner"]),
    metres=some.booleans(),
)
def test_a_padded_scan_predicts_the_same_counts_in_the_pixels_of_the_file(shape, seed, point, metres):
    held, light = scan_of(shape, seed)
    step = [{"pixel": 0, "middle": (n // 2 - (n - 1) / 2), "corner": n // 2}[point] for n in shape]
    given_as = [c - s for c, s in zip((held.positions.y, held.positions.x), step)]
    pixel = PHYSICS.object_pixel_m(shape)
    if metres:
        given_as = [c * size for c, size in zip(given_as, pixel)]
    positions = Positions("xy", *given_as, "m" if metres else "px", point, "object")
    contents = FileContents("plain", held.patterns, positions, held.probe, object=held.object, experiment=PHYSICS)
    base, square = understand(HERE, contents), Square.around(shape)
    inside = (slice(None), *square.inside)
    counts = held.patterns.rows(np.arange(60))
    assert base.counts.shape == (60, square.side, square.side) and base.window == square.side
    assert np.array_equal(base.counts[inside], counts) and base.counts.sum() == counts.sum()
    assert (
        base.mask is None
        if not square.padded
        else np.array_equal(np.argwhere(base.mask), np.argwhere(square.put(np.ones(shape))))
    )
    assert base.pixel_size_m == pytest.approx(PHYSICS.object_pixel_m((square.side, square.side))[0])
    expected = predicted(base, base.y, base.x)
    mine, theirs = np.sqrt(expected[inside]), np.sqrt(light)
    mine *= (mine * theirs).sum() / (mine**2).sum()
    assert np.abs(mine - theirs).sum() < 0.02 * theirs.sum()
    assert expected.sum() < 1.001 * expected[inside].sum()  # next to nothing beside the detector


@pytest.mark.parametrize("shape", [(33, 33), (30, 26)])
def test_a_padded_scan_is_judged_like_any_other(shape):
    held, _ = scan_of(shape, 5)
    base = made_of(HERE, "plain", held)
    assert isinstance(base, Base) and base.source["R"]["as is"] < 0.05 and judge_base(base).best == "as is"
    assert any(f"{shape[0]} x {shape[1]} pixels put into" in words for words in base.source["understood"])
    flipped = Patterns.of("data", held.patterns.rows(np.arange(60))[:, ::-1])
    if shape[0] % 2:
        with pytest.raises(FormatError, match="--orientation 'flip y'"):
            made_of(HERE, "plain", FileContents("plain", flipped, held.positions, held.probe, object=held.object))


def test_a_corner_and_bad_pixels_keep_their_places(tmp_path):
    held, _ = scan_of((31, 24), 2)
    counts = held.patterns.rows(np.arange(60)).astype(np.float32)
    counts[:, 3, 4] = -1
    inside = Square.around((31, 24)).inside
    for patterns in (
        Patterns.of("data", counts, zero_frequency="centre"),
        Patterns.of("data", fft.ifftshift(counts, axes=(1, 2)), zero_frequency="corner"),
    ):
        contents = FileContents("plain", patterns, held.positions, held.probe)
        scan = understand(HERE, contents)
        assert isinstance(scan, MeasuredScan) and scan.probe.shape == (32, 32)
        assert np.argwhere(~scan.mask[inside]).tolist() == [[3, 4]] and np.count_nonzero(scan.mask) == 31 * 24 - 1
        assert np.array_equal(scan.counts[:, scan.mask], np.where(counts < 0, 0, counts)[:, scan.mask[inside]])


def test_a_zone_plate_is_made_on_the_square(tmp_path):
    held, _ = scan_of((31, 24), 2)
    contents = FileContents("plain", held.patterns, held.positions, experiment=PHYSICS)
    scan = understand(HERE, contents, ReadOptions(zone_plate="outermost_nm=200"))
    assert scan.probe.shape == (32, 32) and scan.pixel_size_m == pytest.approx(PHYSICS.object_pixel_m((32, 32))[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"probe": np.ones((32, 32), complex)},
            "32 x 32 pixels; needed 31 x 24, as the patterns have: on another grid",
        ),
        ({"pixel_m": (2e-8, 2e-8)}, "square object pixels, to 1 %, of windows of 32 x 32 pixels"),
    ],
)
def test_what_belongs_to_another_grid_is_refused(change, words):
    held, _ = scan_of((31, 24), 2)
    with pytest.raises(FormatError, match=words):
        understand(HERE, FileContents("plain", held.patterns, held.positions, **{"probe": held.probe, **change}))


def test_too_oblong_patterns_are_refused():
    held, _ = scan_of((31, 24), 2)
    patterns = Patterns.of("data", held.patterns.rows(np.arange(60))[:, :, 5:17])
    with pytest.raises(FormatError, match="fill half of a square of 32 x 32 pixels at least"):
        understand(HERE, FileContents("plain", patterns, held.positions))


def test_an_odd_npz_is_read_from_end_to_end(tmp_path):
    held, _ = scan_of((33, 33), 7)
    counts = held.patterns.rows(np.arange(60))
    arrays = {"dp": counts, "positions_px": np.stack([held.positions.y, held.positions.x], 1)}
    np.savez(tmp_path / "odd.npz", **arrays, probe=held.probe, object=held.object)
    base = read_base_file(tmp_path / "odd.npz")
    assert base.window == 34 and base.counts[:, 1:, 1:].sum() == counts.sum() and not base.mask[0].any()
    assert base.source["R"]["as is"] < 0.05
