"""One place makes a base of what a file holds: conversions, what is refused, and what the counts say of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import fft
from typer.testing import CliRunner

from fly64_nb.cli import app
from fly64_nb.data.base import Base, MeasuredScan, read_base, write_base
from fly64_nb.data.builtin import builtin_base
from fly64_nb.data.experiment import Experiment
from fly64_nb.data.files import FormatError
from fly64_nb.data.readers.contents import FileContents, Patterns, Positions
from fly64_nb.data.readers.judge import PATTERNS, POSITIONS, judge_base, orient
from fly64_nb.data.readers.reader import check_read, made_of, read_base_file
from fly64_nb.data.readers.understand import ReadOptions, understand
from fly64_nb.data.writers.writer import convert
from fly64_nb.datasets import make_datasets
from fly64_nb.design import build_design_job, get_study_design, make_base
from fly64_nb.physics.optics import diffraction_intensity
from fly64_nb.results.run import Request, prepare_study

HERE = Path("scan.h5")
PIXEL = 2e-8


@pytest.fixture(scope="module")
def base() -> Base:
    plain = builtin_base(60, 60, 5.0, window=32, seed=3)
    light = diffraction_intensity(plain.object, plain.probe, plain.y, plain.x)
    counts = np.random.default_rng(0).poisson(light * (1e5 / light.sum((1, 2)).mean())).astype(np.uint32)
    return replace(plain, counts=counts, pixel_size_m=PIXEL)


@pytest.fixture
def held(base) -> FileContents:
    """The base as a file of a plain format."""
    patterns = Patterns.of("data", base.counts, zero_frequency="centre")
    positions = Positions("xy", base.y, base.x, "px", origin="object")
    return FileContents("plain", patterns, positions, base.probe, object=base.object, pixel_m=(PIXEL, PIXEL))


def same(made: Base | MeasuredScan, base: Base) -> bool:
    fits = np.allclose(made.y, base.y, atol=1e-6) and np.allclose(made.x, base.x, atol=1e-6)
    return bool(fits and np.array_equal(made.counts, base.counts) and made.probe.dtype == np.complex64)


@pytest.mark.parametrize(
    "positions",
    [
        lambda y, x, n, s: Positions("p", y * PIXEL, x * PIXEL, "m", origin="object"),
        lambda y, x, n, s: Positions("p", y * PIXEL * 1e6, x * PIXEL * 1e6, None),
        lambda y, x, n, s: Positions("p", y - n // 2, x - n // 2, "px", "corner"),
        lambda y, x, n, s: Positions("p", y - 0.5, x - 0.5, "px", "middle", "object"),
        lambda y, x, n, s: Positions("p", y - s[0] / 2, x - s[1] / 2, "px", "middle", "object middle"),
        lambda y, x, n, s: Positions("p", y - s[0] / 2, x - s[1] / 2, "px"),
        lambda y, x, n, s: Positions("p", 1 + (y - s[0] / 2) * PIXEL, 2 + (x - s[1] / 2) * PIXEL, "m", "middle",
                                     "object middle", (1.0, 2.0)),
        lambda y, x, n, s: Positions("p", -y, -x, "px", of_sample=True, origin="object"),
    ],
    ids=["m", "um not said", "corner", "middle", "object middle", "about the middle", "with a middle", "sample"],
)  # fmt: skip
def test_positions_of_any_convention(held, base, positions):
    made = understand(HERE, replace(held, positions=positions(base.y, base.x, 32, base.object.shape)))
    assert same(made, base) and np.array_equal(made.object, base.object) and made.pixel_size_m == PIXEL


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: (c.astype(np.float32), {}), "whole numbers"),
        (lambda c: (np.sqrt(c).astype(np.float32), {"amplitude": True}), "amplitudes"),
        (lambda c: (np.sqrt(c), {}), "amplitudes"),
        (lambda c: ((np.sqrt(c) / 217.3).astype(np.float32), {"amplitude": True}), "normalised amplitudes"),
        (lambda c: ((c / 5123).astype(np.float32), {}), "scaled counts"),
        (lambda c: ((c * 9).astype(np.uint32), {}), "detector units"),
        (lambda c: (fft.ifftshift(c, axes=(1, 2)), {"zero_frequency": None}), "corner"),
        (lambda c: (fft.ifftshift(c, axes=(1, 2)), {"zero_frequency": "centre"}), "corner"),
        (lambda c: (c.astype(">u2"), {}), "whole numbers"),
    ],
    ids=[
        "float",
        "amplitude",
        "roots not said",
        "normalised",
        "scaled",
        "adu",
        "corner",
        "corner not said",
        "big endian",
    ],
)
def test_values_become_photons(held, base, change, told):
    array, more = change(base.counts)
    made = understand(HERE, replace(held, patterns=Patterns.of("data", array, **{"zero_frequency": "centre", **more})))
    assert same(made, base) and any(told in words for words in made.source["understood"])
    assert made.counts.dtype == np.uint32 and made.counts.flags.c_contiguous and made.mask is None


@pytest.mark.parametrize(
    ("kind", "flag"),
    [("uint32", 2**32 - 1), ("uint16", 65535), ("int32", -1), ("float32", np.nan), ("float64", np.inf)],
)
def test_bad_pixels_are_no_photons(held, base, kind, flag):
    array = base.counts.astype(kind)
    array[:, 5, 9], array[3, 20, 20] = flag, flag
    bad = np.zeros((32, 32), bool)
    bad[0, 0] = True
    made = understand(HERE, replace(held, patterns=Patterns.of("data", array), bad_pixels=bad))
    assert [tuple(p) for p in np.argwhere(~made.mask)] == [(0, 0), (5, 9), (20, 20)]
    assert np.array_equal(made.counts[:, made.mask], base.counts[:, made.mask]) and not made.counts[:, ~made.mask].any()
    assert judge_base(made).best == "as is"


def test_bad_pixels_move_with_the_zero_frequency_and_the_orientation(held, base):
    array = base.counts.astype(float)
    array[:, 5, 9] = -1
    patterns = Patterns.of("data", fft.ifftshift(array, axes=(1, 2)))
    made = understand(HERE, replace(held, patterns=patterns), ReadOptions(orientation="transposed"))
    assert np.argwhere(~made.mask).tolist() == [[9, 5]]


def test_a_full_pixel_is_no_count(held, base):
    made = understand(HERE, replace(held, saturation=float(base.counts.max())))
    assert np.count_nonzero(~made.mask) == 1 and made.counts.max() < base.counts.max()


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"probe": None}, {}, "--probe FILE gives one"),
        ({"positions": None}, {}, "without scan positions"),
        ({"patterns": None, "object": None}, {}, "no object and no patterns"),
        ({"patterns": None, "object_is": "guess"}, {}, "an initial guess and no patterns"),
        ({"pixel_m": (1e-8, 1.02e-8)}, {}, "square object pixels"),
        ({"pixel_m": (5.0, 5.0)}, {}, "5 x 5 m"),
        ({"far_field": False}, {}, "near field, as the file says"),
        ({}, {"positions_unit": "m"}, "--positions-unit"),
        ({"bad_pixels": np.zeros((8, 8), bool)}, {}, "shape .8, 8."),
    ],
)
def test_what_cannot_be_understood(held, change, options, words):
    with pytest.raises(FormatError, match=words):
        made_of(HERE, "plain", replace(held, **change), ReadOptions(**options))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (lambda c: c[:, :30], "32 x 32 pixels; needed 30 x 32, as the patterns have"),
        (lambda c: c[:-1], "one position for each pattern"),
        (lambda c: c[:, 8:24, 8:24], "32 x 32 pixels; needed 16 x 16"),
        (lambda c: c + np.random.default_rng(0).normal(0, 0.1, c.shape), "negative|not whole"),
        (lambda c: 0 * c, "no light"),
        (lambda c: np.full_like(c, 7), "where the zero frequency is"),
        (lambda c: c.astype(complex), "real patterns"),
    ],
)
def test_patterns_that_are_none(held, base, array, words):
    with pytest.raises(FormatError, match=words):
        understand(HERE, replace(held, patterns=Patterns.of("data", array(base.counts))))


def test_detector_units_that_are_told(held, base):
    rng = np.random.default_rng(0)
    adu = 7.3 * base.counts + rng.normal(0, 0.5, base.counts.shape)
    made = understand(HERE, replace(held, patterns=Patterns.of("data", adu)), ReadOptions(adu_per_photon=7.3))
    assert same(made, base)


@pytest.mark.parametrize("name", [*PATTERNS, *POSITIONS[:5], "shift 2 -3"])
def test_the_counts_refuse_a_file_that_lies_otherwise(held, base, name):
    wrong = orient(replace(base, counts=base.counts.copy()), name)
    wrong_file = replace(
        held, patterns=Patterns.of("data", wrong.counts, zero_frequency="centre"),
        positions=replace(held.positions, y=wrong.y, x=wrong.x),
    )  # fmt: skip
    if name == "corner":  # the light alone says it
        assert same(made_of(HERE, "plain", wrong_file), base)
        return
    with pytest.raises(FormatError, match=r"R = 0.\d+ as it was read, 0.\d+ with .* needed .*--orientation"):
        made_of(HERE, "plain", wrong_file)
    turned = made_of(HERE, "plain", wrong_file, ReadOptions(orientation="auto"))
    assert same(turned, base) and turned.source["R"]["as is"] > 1.5 * min(turned.source["R"].values())
    kept = made_of(HERE, "plain", wrong_file, ReadOptions(orientation="as is"))
    assert np.array_equal(kept.counts, wrong.counts) and "judged" in kept.source


def test_a_guess_with_counts_is_a_measured_scan(held, base):
    for change in ({"object_is": "guess"}, {"object": np.ones_like(base.object)}, {"object": None}):
        scan = made_of(HERE, "plain", replace(held, **change))
        assert isinstance(scan, MeasuredScan) and same(scan, base)


def test_a_look_reads_a_few_patterns(held, base):
    read = []

    def rows(indices):
        read.extend(indices)
        return base.counts[indices]

    made = made_of(HERE, "plain", replace(held, patterns=replace(held.patterns, rows=rows)), most=10)
    assert len(made.counts) == len(made.y) == 10 and len(read) <= 32 + 10


def test_modes_variants_and_layers(held, base):
    second = np.roll(base.probe, 4, 0) / 3
    probe = np.stack([np.stack([second, base.probe]), np.stack([second * 0, base.probe * 0.1])])
    weights = np.tile([1.0, 0.0], (len(base.y), 1))
    held = replace(held, patterns=None, object=np.stack([base.object] * 2))
    made = understand(HERE, replace(held, probe=probe, opr_weights=weights))
    assert made.modes.shape == (2, 32, 32) and np.array_equal(made.modes[0], made.probe)
    power = (np.abs(made.modes) ** 2).sum((1, 2))
    assert power[0] > power[1] > 0 and power.sum() == pytest.approx((np.abs(probe[0]) ** 2).sum(), rel=1e-5)
    assert np.allclose(made.object, base.object**2, atol=1e-5)
    told = " ".join(made.source["understood"])
    assert "leaves out" in told and "OPR" in told and "layers" in told


def test_a_base_keeps_mask_modes_and_experiment(held, base, tmp_path):
    array = base.counts.astype(np.int32)
    array[:, 5, 9] = -1
    made = made_of(HERE, "plain", replace(held, patterns=Patterns.of("data", array)))
    write_base(tmp_path / "base.npz", made)
    again = read_base(tmp_path / "base.npz")
    assert again.digest == made.digest and again.mask.sum() == 32 * 32 - 1 and again.source == made.source
    thinned = make_datasets(made, 1e4, mode="thin", guard_band=18.0, footprint_energy=0.3)
    assert np.array_equal(thinned["test"].mask, made.mask)
    simulated = make_datasets(made, 1e4, guard_band=18.0, footprint_energy=0.3)
    assert simulated["test"].mask is None


def test_a_probe_of_another_file_reaches_the_base_and_its_job(base, tmp_path):
    scan = tmp_path / "scan.npz"
    np.savez(scan, dp=base.counts, xcoords=base.x, ycoords=base.y, object=base.object)
    np.savez(tmp_path / "other.npz", xcoords=base.x, ycoords=base.y, object=base.object, probe=base.probe)
    with pytest.raises(FormatError, match="--probe FILE gives one"):
        read_base_file(scan)
    read = read_base_file(scan, options=ReadOptions(probe=tmp_path / "other.npz"))
    assert np.array_equal(read.probe, base.probe) and "other.npz" in read.source["files"]
    request = Request({"profile": "tiny"}, base=scan, reading={"probe": tmp_path / "other.npz", "orientation": "auto"})
    prepared = prepare_study(tmp_path / "study", request)
    assert prepared.job.parameters["reading"] == {"probe": "../other.npz", "orientation": "auto"}
    assert tmp_path / "other.npz" in [path.resolve() for path in prepared.job.inputs]
    with pytest.raises(ValueError, match="probe: said of a file, and there is none"):
        prepare_study(tmp_path / "study", Request(reading={"probe": tmp_path / "other.npz"}))
    assert "reading" not in build_design_job(tmp_path, get_study_design("tiny")).parameters


def test_a_measured_scan_is_turned_before_it_is_recovered(base, tmp_path):
    np.savez(tmp_path / "scan.npz", dp=base.counts[:, :, ::-1].copy(), xcoords=base.x, ycoords=base.y, probe=base.probe)
    turns = []

    def quick(scan):
        turns.append(scan.source.get("orientation", "as is"))
        return Base(base.object, base.probe, scan.y, scan.x, counts=scan.counts)

    def recover(scan):
        return replace(base, counts=scan.counts, source=scan.source), None

    made, _ = make_base("tiny", 32, file=tmp_path / "scan.npz", recover=recover, quick=quick)
    assert turns == ["as is", "flip y", "transposed", "transposed flip y"]
    assert "after quick recoveries" in made.source["judged"]


def test_repeated_and_distant_positions_are_refused(base):
    n = len(base.y)
    for y, x, words in (
        (np.repeat(base.y[: n // 4 + 1], 4)[:n], np.repeat(base.x[: n // 4 + 1], 4)[:n], "different ones among"),
        (base.y * 1e-6, base.x * 1e-6, "--positions-unit"),
    ):
        with pytest.raises(FormatError, match=words):
            check_read(HERE, "plain", replace(base, y=y, x=x))


def test_inspect_tells_of_any_file(base, tmp_path):
    np.savez(
        tmp_path / "scan.npz", dp=base.counts, xcoords=base.x, ycoords=base.y, object=base.object, probe=base.probe
    )
    (tmp_path / "cut.npz").write_bytes((tmp_path / "scan.npz").read_bytes()[:9000])
    (tmp_path / "text.txt").write_text("hello")
    good = CliRunner().invoke(app, ["inspect", str(tmp_path / "scan.npz")])
    assert good.exit_code == 0 and "R = 0." in good.stdout and "can use it as a base" in good.stdout
    for name in ("cut.npz", "text.txt", "absent.h5"):
        refused = CliRunner().invoke(app, ["inspect", str(tmp_path / name)])
        assert refused.exit_code == 2 and "cannot use it" in refused.stdout and "Traceback" not in refused.output
    odd = CliRunner().invoke(app, ["inspect", str(tmp_path / "scan.npz"), "--orientation", "upside"])
    assert odd.exit_code == 2 and "is unknown" in odd.stdout


def test_near_field_is_refused_for_its_reason():
    near = Path(__file__).resolve().parents[2] / "shared" / "data" / "petra-p25-near-field.cxi"
    if not near.is_file():
        pytest.skip("the measured near-field scan is not here")
    with pytest.raises(FormatError, match="the near field: patterns move with the sample"):
        read_base_file(near)


@pytest.mark.parametrize("to", ["ptychodus", "pty-chi", "cxi", "npz", "ptyd"])
def test_convert_and_back(base, tmp_path, to):
    flight = Experiment(energy_eV=10e3, distance_m=2.0, detector_pixel_m=(75e-6, 75e-6))
    pixel = flight.object_pixel_m((32, 32))[0]
    write_base(tmp_path / "in.npz", replace(base, experiment=flight, pixel_size_m=pixel))
    suffix = {"ptychodus": ".h5", "pty-chi": ".hdf5"}.get(to, f".{to}")
    arguments = ["convert", str(tmp_path / "in.npz"), str(tmp_path / f"out{suffix}"), "--to", to]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    first = next(Path(line.removeprefix("wrote ")) for line in done.stdout.splitlines() if line.startswith("wrote "))
    options = ReadOptions(probe=tmp_path / "in.npz") if to == "ptyd" else ReadOptions()
    again = read_base_file(first, options=options)
    assert np.array_equal(again.counts, base.counts) and again.pixel_size_m == pytest.approx(pixel, rel=1e-9)
    assert np.allclose(np.diff(again.y), np.diff(base.y)) and np.allclose(np.diff(again.x), np.diff(base.x))
    if isinstance(again, Base):
        assert np.array_equal(again.object, base.object) and np.allclose(again.y, base.y)
    if to != "ptychodus":  # there it is in photons
        assert np.array_equal(again.probe, base.probe)
    before = first.read_bytes()
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2 and "not written over" in refused.stdout and first.read_bytes() == before


def test_a_measured_scan_converts(base, tmp_path):
    np.savez(tmp_path / "in.npz", dp=base.counts, xcoords=base.x - 50, ycoords=base.y + 7.3, probe=base.probe)
    for name, to in (("a.h5", "ptychodus"), ("b.npz", "npz")):
        files, _ = convert(tmp_path / "in.npz", tmp_path / name, to)
        again = read_base_file(files[0])
        assert isinstance(again, MeasuredScan) and np.array_equal(again.counts, base.counts)
        assert np.allclose(np.diff(again.y), np.diff(base.y)) and again.pixel_size_m is None


def test_a_probe_from_an_array_file_or_a_zone_plate(base, tmp_path):
    flight = {"photon_energy_eV": 10e3, "detector_object_distance_m": 2.0}
    files, _ = convert_to_pair(base, tmp_path)
    import h5py

    with h5py.File(files[1], "a") as file:
        file.attrs.update(flight)
    np.save(tmp_path / "probe.npy", base.probe * 2)
    np.savez(tmp_path / "alone.npz", probe=base.probe * 3)
    for name, factor in (("probe.npy", 2), ("alone.npz", 3)):
        read = read_base_file(files[0], options=ReadOptions(probe=tmp_path / name))
        assert np.array_equal(read.probe, base.probe * factor) and name in read.source["files"]
    np.save(tmp_path / "real.npy", np.ones((32, 32)))
    with pytest.raises(FormatError, match="a complex probe"):
        read_base_file(files[0], options=ReadOptions(probe=tmp_path / "real.npy"))
    read = read_base_file(files[0], options=ReadOptions(zone_plate="outermost_nm=60,stop=0.3"))
    assert any("zone plate" in words for words in read.source["understood"])
    assert np.linalg.norm(read.probe) == pytest.approx(1, rel=1e-5)
    with pytest.raises(FormatError, match="coarser than its zones"):
        read_base_file(files[0], options=ReadOptions(zone_plate="outermost_nm=5"))
    with pytest.raises(ValueError, match="one of them is needed"):
        ReadOptions(probe=tmp_path / "probe.npy", zone_plate="outermost_nm=5")


def convert_to_pair(base, folder):
    """The base as a pty-chi pair."""
    write_base(folder / "in.npz", base)
    return convert(folder / "in.npz", folder / "pair.hdf5", "pty-chi")


def test_what_a_file_lacks_of_the_experiment_can_be_told(tmp_path):
    base = builtin_base(60, 60, 5.0, window=32, seed=3)
    write_base(tmp_path / "base.npz", replace(base, pixel_size_m=None))
    told = ReadOptions(experiment="energy_keV=10,distance_m=2,detector_um=75")
    read = read_base_file(tmp_path / "base.npz", options=told)
    assert read.experiment.energy_eV == 1e4 and read.pixel_size_m == pytest.approx(103.3e-9, rel=1e-3)
    assert read_base_file(tmp_path / "base.npz").pixel_size_m is None
    with pytest.raises(ValueError, match="found 'energy=1'"):
        ReadOptions(experiment="energy=1")
