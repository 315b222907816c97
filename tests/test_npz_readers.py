"""NPZ and MATLAB 5 files of each program are read as they are meant, and what is wrong with them is named."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from hypothesis.extra import numpy as arrays_of
from scipy import fft
from scipy.io import loadmat, savemat

from fly64_nb.data.files import FormatError, array_headers, load_arrays, npz_keys, npz_patterns
from fly64_nb.data.readers.contents import FileContents
from fly64_nb.data.readers.example import ExampleScan, example_scan
from fly64_nb.data.readers.matlab5 import load_variables
from fly64_nb.data.readers.reader import choose_reader
from reader_examples import NPZ_FORMATS, matlab_variables, npz_arrays, write_example

STAR = Path(__file__).parents[2] / "shared" / "data" / "siemens-star-small.npz.bz2"


@pytest.fixture(scope="module")
def scan() -> ExampleScan:
    return example_scan()


def read(path: Path, reader: str | None = None) -> FileContents:
    """What a file holds, as the reader that takes it says."""
    found = choose_reader(path).item
    assert reader is None or found.name == reader, f"taken by {found.name}"
    held = found.read(path)
    assert isinstance(held, FileContents)
    return held


def centres(held: FileContents, axis: int) -> np.ndarray:
    """Window centres (pixel N/2) in object pixels along an axis, from what the file says."""
    positions, size, n = held.positions, held.object.shape[axis - 2], held.probe.shape[axis - 2]
    where = (positions.y, positions.x)[axis]
    if positions.origin == "object middle":
        pixel = held.pixel_m[axis] if positions.unit == "m" else 1.0
        where = (where - positions.middle[axis]) / pixel + (size - 1) / 2
    return where + {"pixel": 0, "corner": n // 2, "middle": n // 2 - (n - 1) / 2}[positions.point]


# What each format's file says


@pytest.mark.parametrize("name", [name for name in NPZ_FORMATS if name != "ptychodus-npz diffraction"])
def test_an_npz_is_read_as_its_program_means_it(tmp_path, scan, name):
    held = read(write_example(name, tmp_path, scan), name.split()[0])
    np.testing.assert_allclose(centres(held, 0), scan.y, atol=1e-9)
    np.testing.assert_allclose(centres(held, 1), scan.x, atol=1e-9)
    assert np.array_equal(held.object.reshape(scan.object.shape), scan.object)
    assert np.array_equal(held.probe.reshape(-1, 32, 32)[0], scan.probe)
    assert held.object.dtype == held.probe.dtype == np.complex64
    if held.patterns is None:
        assert name == "ptychodus-npz"
        return
    patterns = held.patterns.rows(np.arange(len(scan.y)))
    if held.patterns.zero_frequency == "corner":
        patterns = fft.fftshift(patterns, axes=(1, 2))
    if held.patterns.amplitude:
        patterns = (patterns * np.sqrt(scan.counts.max())) ** 2
    np.testing.assert_allclose(patterns, scan.counts, rtol=1e-5)
    assert np.array_equal(held.patterns.few(3), held.patterns.rows(np.array([0, 5, 10]))) or len(scan.y) != 11


def test_a_product_says_its_physics_and_keeps_modes(tmp_path, scan):
    held = read(write_example("ptychodus-npz", tmp_path, scan), "ptychodus-npz")
    assert held.format == "Ptychodus product (1.7), NPZ" and held.probe.shape == (1, 2, 32, 32)
    assert held.experiment.energy_eV == 10e3 and held.experiment.attenuation_m2_per_kg is None
    assert held.pixel_m == (scan.pixel_m, scan.pixel_m) and held.metadata["probe_photon_count"] == 1e5
    arrays = npz_arrays("ptychodus-npz", scan)
    arrays["probe_energy_eV"] = arrays.pop("photon_energy_eV")
    for key in ("probe_position_y_m", "probe_position_x_m"):  # counted from W/2 then
        arrays[key] = arrays[key] - scan.pixel_m / 2
    np.savez(tmp_path / "old.npz", **arrays)
    held = read(tmp_path / "old.npz", "ptychodus-npz")
    np.testing.assert_allclose(centres(held, 1), scan.x, atol=1e-9)
    assert (held.format, held.experiment.energy_eV) == ("Ptychodus product (before 1.7), NPZ", 10e3)


def test_ptychodus_reads_our_example_as_we_do(tmp_path, scan):
    plugin = pytest.importorskip("ptychodus.plugins.npz_product_file")
    path = write_example("ptychodus-npz", tmp_path, scan)
    product, held = plugin.NPZProductFileIO().read(path), read(path)
    geometry = product.object_.get_geometry()
    x = geometry.map_probe_positions_to_object_x_px(product.probe_positions)
    np.testing.assert_allclose(x + 0.5, centres(held, 1), atol=1e-9)
    assert np.array_equal(product.object_.get_array(), held.object)
    plugin.NPZProductFileIO().write(tmp_path / "theirs.npz", product)
    theirs = read(tmp_path / "theirs.npz", "ptychodus-npz")
    assert np.array_equal(theirs.positions.x, held.positions.x) and theirs.experiment == held.experiment
    assert np.array_equal(theirs.probe, held.probe)


def test_a_diffraction_file_has_no_positions(tmp_path, scan):
    held = read(write_example("ptychodus-npz diffraction", tmp_path, scan), "ptychodus-npz")
    assert held.positions is None and held.bad_pixels.shape == (32, 32)
    assert np.array_equal(held.patterns.rows(np.arange(4)), scan.counts[:4])


@pytest.mark.parametrize("named", ["product.npz", "diffraction.npz"])
def test_a_product_and_its_patterns_are_paired_by_index(tmp_path, scan, named):
    write_example("ptychodus-npz with patterns", tmp_path, scan)
    few = np.array([7, 3, 11, 60])
    np.savez(tmp_path / "diffraction.npz", indexes=few, patterns=scan.counts[few])
    held = read(tmp_path / named, "ptychodus-npz")
    assert len(held.positions.y) == 4 and "164 positions without a pattern are left out" in held.notes[-1]
    np.testing.assert_allclose(centres(held, 0), scan.y[np.sort(few)], atol=1e-9)
    patterns = held.patterns.rows(np.arange(4))[held.positions.index]
    assert np.array_equal(patterns, scan.counts[np.sort(few)])
    assert [file.name for file in held.files] == [{"p": "diffraction.npz", "d": "product.npz"}[named[0]]]


@pytest.mark.parametrize("compressed", [True, False])
def test_matlab_5_is_read_as_fold_slice_means_it(tmp_path, scan, compressed):
    savemat(tmp_path / "recon.mat", matlab_variables(scan), do_compression=compressed)
    held = read(tmp_path / "recon.mat", "ptychoshelves-mat5")
    np.testing.assert_allclose(centres(held, 0), scan.y, atol=1e-9)
    np.testing.assert_allclose(centres(held, 1), scan.x, atol=1e-9)
    assert np.array_equal(held.object, scan.object) and np.array_equal(held.probe[0], scan.probe)
    assert held.pixel_m == (scan.pixel_m, scan.pixel_m)
    assert held.experiment.energy_eV == pytest.approx(10e3) and held.experiment.detector_pixel_m == (75e-6, 75e-6)


def test_matlab_5_keeps_layers_modes_and_variants(tmp_path, scan):
    variables = matlab_variables(scan)
    variables["object"] = np.stack([scan.object, scan.object * 1j, scan.object * 2], -1)
    variables["probe"] = np.arange(32 * 32 * 2 * 3).reshape(32, 32, 2, 3) * (1 + 1j)
    savemat(tmp_path / "recon.mat", variables)
    held = read(tmp_path / "recon.mat")
    assert held.object.shape == (3, *scan.object.shape) and held.probe.shape == (3, 2, 32, 32)
    assert np.array_equal(held.probe[2, 1], variables["probe"][:, :, 1, 2])


def test_the_measured_star_of_tike_is_read(tmp_path):
    if not STAR.exists():
        pytest.skip("no measured scan here")
    held = read(STAR, "tike")
    assert held.patterns.shape == (516, 128, 128) and held.positions.origin == "free"
    with np.load(io.BytesIO(bz2.decompress(STAR.read_bytes()))) as data:
        assert np.array_equal(held.patterns.rows(np.array([0, 77, 515])), data["data"][0, [0, 77, 515]])
        assert np.array_equal(held.positions.y, data["scan"][0, :, 0])


# Mistakes


def broken(arrays: dict, **changes) -> dict:
    """Arrays with some replaced, and those that are None left out."""
    return {key: array for key, array in {**arrays, **changes}.items() if array is not None}


MISTAKES = [
    ("tike", {"scan": None}, "keys|key 'scan'"),
    ("tike", {"data": np.ones((3, 32, 32))}, "key 'data': found shape .*needed a pattern for each of"),
    ("tike", {"psi": np.ones((1, 99, 99), int)}, "key 'psi': found shape .* of int64; needed complex"),
    ("tike", {"eigen_probe": np.ones((1, 2, 1, 32, 32), complex)}, "key 'eigen_probe': .*eigen_weights with them"),
    ("tike", {"eigen_weights": np.ones((3, 1, 2))}, "key 'eigen_weights': found shape .3, 1, 2."),
    (
        "fly64",
        {"ycoords": np.zeros(3)},
        "key 'xcoords': found .* positions, and 3 under 'ycoords'; needed as many y as x",
    ),
    ("fly64", {"diff3d": np.array([{"run": "me"}])}, "key 'diff3d': found an array of Python objects"),
    ("fly64", {"xcoords": np.array(["a"] * 3)}, "key 'xcoords': found shape .3,. of <U1"),
    ("fly64", {"diff3d": np.ones((5, 32, 32), complex)}, "key 'diff3d'"),
    ("slac", {"xcoords_start": np.zeros(0)}, "xcoords_start|positions"),
    ("slac", {"probeGuess": np.ones((32, 32), int)}, "key 'probeGuess': .*complex"),
    ("ptychodus-npz", {"object_center_x_m": None}, "key 'object_center_x_m': found keys"),
    ("ptychodus-npz", {"object_pixel_width_m": np.nan}, "key 'object_pixel_width_m'"),
    ("ptychodus-npz", {"probe_position_x_m": np.zeros(3)}, "found 3 positions"),
    ("ptychodus-npz", {"probe": None}, "key 'probe'"),
    ("ptychodus-npz export", {"bad_pixels": np.zeros((3, 3), bool)}, "key 'bad_pixels': found shape .3, 3."),
    ("npz", {"positions_px": None}, "scan positions: one of"),
    ("npz", {"dp": None, "object": None}, "measured counts under one of"),
]


@pytest.mark.parametrize(("name", "changes", "words"), MISTAKES)
def test_an_ordinary_mistake_is_named(tmp_path, scan, name, changes, words):
    np.savez(tmp_path / "scan.npz", **broken(npz_arrays(name, scan), **changes))
    with pytest.raises(FormatError, match=words):
        read(tmp_path / "scan.npz")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outputs": None}, "key 'outputs.probe_positions': found variables .*or p.positions"),
        ({"outputs": {"other": 1}}, "key 'outputs.probe_positions': found no such field"),
        ({"outputs": {"probe_positions": np.zeros((3, 3))}}, "pairs of real numbers"),
        ({"object": np.ones((90, 90), int)}, "key 'object': .*complex"),
        ({"object": {"a": 1}}, "key 'object'"),
    ],
)
def test_a_mistake_in_matlab_5_is_named(tmp_path, scan, changes, words):
    savemat(tmp_path / "recon.mat", broken(matlab_variables(scan), **changes))
    with pytest.raises(FormatError, match=words):
        read(tmp_path / "recon.mat")


@pytest.mark.parametrize("compressed", [True, False])
def test_numbers_and_structures_of_matlab_5_are_those_of_scipy(tmp_path, scan, compressed):
    p = {name: np.arange(6).reshape(2, 3).astype(name) for name in ("i1", "u2", "i4", "u8", "f4", "f8", "c8", "c16")}
    p |= {"empty": np.zeros((0, 3)), "text": "abc", "cell": np.array([1, "a"], object), "deep": {"er": {"one": 1.5}}}
    variables = {**matlab_variables(scan), "p": p, "unused": np.zeros(5000)}
    savemat(tmp_path / "recon.mat", variables, do_compression=compressed)
    ours, theirs = load_variables(tmp_path / "recon.mat"), loadmat(tmp_path / "recon.mat")
    assert set(ours) == {"object", "probe", "outputs", "p"}
    for name in p:
        if isinstance(p[name], np.ndarray) and p[name].dtype != object:
            value = theirs["p"][0, 0][name]
            assert np.array_equal(ours["p"][name], value) and ours["p"][name].dtype == value.dtype, name
    assert ours["p"]["deep"]["er"]["one"] == 1.5 and ours["p"]["text"] is None and ours["p"]["cell"] is None
    assert np.array_equal(ours["probe"], theirs["probe"]) and ours["probe"].dtype == theirs["probe"].dtype


def test_a_changed_tag_in_matlab_5_is_refused(tmp_path, scan):
    """With such a byte, SciPy's own reader ends the whole process."""
    savemat(tmp_path / "recon.mat", {"object": scan.object, **matlab_variables(scan)}, do_compression=False)
    content = (tmp_path / "recon.mat").read_bytes()
    at = content.index(scan.object.real.T.tobytes()) - 8
    for kind in (0, 8, 10, 14, 99, 2**15):
        (tmp_path / "recon.mat").write_bytes(content[:at] + kind.to_bytes(4, "little") + content[at + 4 :])
        with pytest.raises(FormatError, match="of kind"):
            read(tmp_path / "recon.mat")


@pytest.mark.parametrize("compressed", [True, False])
def test_a_deep_nest_in_matlab_5_is_refused(tmp_path, scan, compressed):
    variables, nest = matlab_variables(scan), {"dx_spec": 1.0}
    for _ in range(29):
        nest = {"a": nest}
    savemat(tmp_path / "recon.mat", {**variables, "p": nest}, do_compression=compressed)
    with pytest.raises(FormatError, match="more than 24 nested parts"):
        read(tmp_path / "recon.mat")


# Damage, and worse


def npy(shape: tuple, descr: str = "<f8", fortran: bool = False, content: bytes = b"") -> bytes:
    """An NPY entry that claims what it likes."""
    buffer = io.BytesIO()
    header = {"descr": descr, "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + content


def zipped(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for key, content in entries.items():
            archive.writestr(f"{key}.npy", content)
    return path


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (npy((10**9, 10**6)), "bytes, in an entry of 0"),
        (npy((4,), content=bytes(16)), "32 bytes, in an entry of 16"),
        (npy((1,), content=bytes(16)), "8 bytes, in an entry of 16"),
        (npy((-1,), content=bytes(8)), "shape .-1,."),
        (npy((1, 1), "|S0"), "0 bytes, in an entry of 0"),
        (npy((2,), "|O", content=bytes(16)), "an array of Python objects"),
        (b"\x93NUMPY\x09\x00", "NPY version"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "a whole NPY array"),
        (b"not an array", "a whole NPY array"),
        (b"", "a whole NPY array"),
        (b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 118, "a whole NPY array"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, entry, words):
    with pytest.raises(FormatError, match=words):
        load_arrays(zipped(tmp_path / "scan.npz", {"a": entry}))


def test_fortran_order_and_big_endian_are_read(tmp_path):
    values = np.arange(24, dtype=">f4").reshape(2, 3, 4)
    np.savez(tmp_path / "a.npz", big=values, order=np.asfortranarray(values.astype("<f4")))
    for array in load_arrays(tmp_path / "a.npz").values():
        assert np.array_equal(array, values) and array.dtype.isnative and array.flags.c_contiguous
    for key in ("big", "order"):
        assert np.array_equal(npz_patterns(tmp_path / "a.npz", key).rows(np.arange(2)), values)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("layout", [(0, 1, 2), (2, 0, 1)])
def test_a_changed_byte_of_patterns_is_noticed(tmp_path, scan, save, layout):
    counts = scan.counts if layout == (0, 1, 2) else np.moveaxis(scan.counts, 0, -1)
    save(tmp_path / "scan.npz", dp=np.ascontiguousarray(counts))
    content = bytearray((tmp_path / "scan.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "scan.npz").write_bytes(content)
    with pytest.raises(FormatError, match="key 'dp'"):
        npz_patterns(tmp_path / "scan.npz", "dp", layout).rows(np.arange(len(scan.y)))


def test_a_truncated_file_is_refused_whatever_is_cut(tmp_path, scan):
    whole = write_example("npz", tmp_path, scan).read_bytes()
    for upto in np.linspace(1, len(whole) - 1, 23).astype(int):
        for content in (whole[:upto], bz2.compress(whole)[: upto // 3], gzip.compress(whole, 1)[: upto // 3]):
            (tmp_path / "cut.npz").write_bytes(content)
            with pytest.raises(FormatError):
                read(tmp_path / "cut.npz")


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    zeros = npy((2**26 // 8,), content=bytes(2**26))
    bomb = zipped(tmp_path / "bomb.npz", {"probe": zeros}, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr("fly64_nb.data.files.FREE_BYTES", 2**20)
    with pytest.raises(FormatError, match="MiB unpacked from .* bytes; needed at most 500 times"):
        load_arrays(bomb)
    (tmp_path / "bomb.npz.bz2").write_bytes(bz2.compress(bytes(2**26)))
    (tmp_path / "bomb.npz.gz").write_bytes(gzip.compress(bytes(2**26)))
    for name in ("bomb.npz.bz2", "bomb.npz.gz"):
        with pytest.raises(FormatError, match="unpacked from"):
            array_headers(tmp_path / name)
        assert npz_keys(tmp_path / name) == frozenset()
    savemat(tmp_path / "bomb.mat", {"object": np.zeros(2**23)}, do_compression=True)
    with pytest.raises(FormatError, match="unpacked from"):
        read(tmp_path / "bomb.mat")


def test_two_entries_of_one_name_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        for value in (1, 2):
            archive.writestr("a.npy", npy((1,), content=np.float64(value).tobytes()))
    with pytest.raises(FormatError, match="two entries of this name"):
        load_arrays(tmp_path / "twice.npz")


def test_an_encrypted_entry_is_refused(tmp_path):
    path = zipped(tmp_path / "secret.npz", {"a": npy((1,), content=bytes(8))})
    content = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + place] |= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match="encrypted"):
        load_arrays(path)


@pytest.mark.parametrize("kind", ["pipe", "folder", "empty", "absent", "zip of text"])
def test_what_is_no_file_of_arrays_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "scan.npz"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "zip of text":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
    with pytest.raises(FormatError):
        read(path)
    for look in (load_arrays, lambda path: npz_patterns(path, "dp")):
        if kind != "zip of text" or look is not load_arrays:
            with pytest.raises(FormatError):
                look(path)
    assert npz_keys(path) == frozenset()


def test_unused_members_are_not_unpacked(tmp_path):
    entries = {"a": npy((1,), content=bytes(8)), "junk": npy((10**5,), content=bytes(8 * 10**5))}
    content = bytearray(zipped(tmp_path / "scan.npz", entries).read_bytes())
    content[len(content) // 2] = 1  # junk's checksum is wrong now
    (tmp_path / "scan.npz").write_bytes(content)
    assert load_arrays(tmp_path / "scan.npz", ["a"])["a"] == 0
    with pytest.raises(FormatError, match="key 'junk': found Bad CRC-32"):
        load_arrays(tmp_path / "scan.npz")


# Any array comes back

NUMBERS = some.sampled_from(["<u2", ">u2", "<i4", "u1", "<f4", ">f4", "<f8", "<c8", ">c16", "?", "<U3"])
ANY = NUMBERS.flatmap(lambda dtype: arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, min_side=0, max_side=4)))
STACKS = some.sampled_from(["<u2", ">u2", "<f4", ">f8", "u1"]).flatmap(
    lambda dtype: arrays_of.arrays(dtype, some.tuples(*[some.integers(1, 5)] * 3))
)
ONE_FOLDER = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ONE_FOLDER
@given(array=ANY, save=some.sampled_from([np.savez, np.savez_compressed]), fortran=some.booleans())
def test_any_array_comes_back_exactly(tmp_path, array, save, fortran):
    save(tmp_path / "any.npz", a=np.asfortranarray(array) if fortran and array.ndim else array)
    again = load_arrays(tmp_path / "any.npz")["a"]
    assert again.shape == array.shape and again.dtype == array.dtype.newbyteorder("=")
    assert again.tobytes() == array.astype(again.dtype).tobytes()
    assert array_headers(tmp_path / "any.npz")["a"] == (array.shape, array.dtype)


@ONE_FOLDER
@given(stack=STACKS, layout=some.sampled_from([(0, 1, 2), (2, 0, 1), (0, 2, 1), (2, 1, 0)]), data=some.data())
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_any_patterns_come_back_in_any_layout(tmp_path, save, stack, layout, data):
    laid = np.empty([stack.shape[layout.index(axis)] for axis in range(3)], stack.dtype)
    np.copyto(np.moveaxis(laid, layout, (0, 1, 2)), stack)
    save(tmp_path / "any.npz", a=np.asfortranarray(laid) if data.draw(some.booleans()) else laid)
    patterns = npz_patterns(tmp_path / "any.npz", "a", layout)
    assert patterns.shape == stack.shape
    for _ in range(3):
        rows = sorted(data.draw(some.sets(some.integers(0, len(stack) - 1))))
        got = patterns.rows(np.array(rows, int))
        assert got.tobytes() == stack[rows].astype(patterns.dtype).tobytes() and got.dtype == patterns.dtype


# Size

LIMITED = """
import resource, sys
import numpy as np
from pathlib import Path
from fly64_nb.data.readers.tike import read_tike
resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))
held = read_tike(Path(sys.argv[1]))
print(held.patterns.rows(np.arange(516)).sum() > 0, held.patterns.few(30).shape)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="no limit of memory here")
def test_a_compressed_scan_is_read_under_a_memory_limit():
    if not STAR.exists():
        pytest.skip("no measured scan here")
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LIMITED, str(STAR)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **threads})
    assert done.stdout == "True (30, 128, 128)\n", done.stderr
