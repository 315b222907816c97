"""A file format is one notebook: a stranger's reader in an empty folder, and what is refused."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fly64_nb.data.base import Base, MeasuredScan, write_base
from fly64_nb.data.builtin import builtin_base
from fly64_nb.data.files import FormatError
from fly64_nb.data.readers.reader import find_readers, read_base_file

TOY = """
import numpy as np
from fly64_nb.data.base import Base
from fly64_nb.data.readers.reader import Reader, first_bytes


def read_toy(path):
    table = np.load(path)
    obj, probe = table["object"][0], table["probe"][0]
    y, x = table["positions"][0].T
    return Base(obj, probe, y.copy(), x.copy(), source={"kind": "toy", "file": path.name})


toy = Reader("toy", lambda path: first_bytes(path).startswith(b"\\x93NUMPY"), read_toy)
"""
RETURNS = """
import numpy as np
from fly64_nb.data.base import Base, MeasuredScan
from fly64_nb.data.readers.reader import Reader

y, probe = np.array([6.0, 8, 10]), np.ones((8, 8), np.complex64)
obj = np.exp(1j * np.arange(256).reshape(16, 16) / 99).astype(np.complex64)
toy = Reader("toy", lambda path: path.suffix == ".toy", lambda path: {})
"""


def write_notebook(path: Path, code: str) -> Path:
    """A notebook with one cell."""
    cell = {"cell_type": "code", "id": "toy", "metadata": {}, "source": code, "outputs": [], "execution_count": None}
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


@pytest.fixture
def base() -> Base:
    return builtin_base(40, 50, 8, window=32)


def test_a_strangers_reader_is_one_notebook_in_an_empty_folder(tmp_path, base):
    fields = {"object": base.object, "probe": base.probe, "positions": np.stack([base.y, base.x], 1)}
    table = np.zeros(1, [(key, array.dtype, array.shape) for key, array in fields.items()])
    for key, array in fields.items():
        table[key] = array
    np.save(tmp_path / "scan.npy", table)
    with pytest.raises(FormatError, match=r"found an NPY file; needed .*asked: .*ptychodus.*npz.*--reader PATH"):
        read_base_file(tmp_path / "scan.npy")
    read = read_base_file(tmp_path / "scan.npy", [write_notebook(tmp_path / "toy.ipynb", TOY)])
    assert read.digest == base.digest and read.source == {"kind": "toy", "file": "scan.npy"}


def test_two_readers_of_one_name_are_refused(tmp_path):
    paths = [write_notebook(tmp_path / f"{name}.ipynb", TOY) for name in "ab"]
    with pytest.raises(ValueError, match=r"b.ipynb: found a Reader named 'toy', as in .*a.ipynb; needed another name"):
        find_readers(paths)
    npz = write_notebook(tmp_path / "npz.ipynb", TOY.replace('"toy"', '"npz"'))
    (tmp_path / "any.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="'npz', as in fly64_nb.data.readers.npz"):
        read_base_file(tmp_path / "any.npz", [npz])


def test_readers_are_asked_in_their_order(tmp_path, base):
    write_base(tmp_path / "base.npz", base)
    code = RETURNS.replace('path.suffix == ".toy"', "True").replace("{}", "Base(obj, probe, y, y)")
    mine = write_notebook(
        tmp_path / "mine.ipynb", code
    )  # of order 100: before any NPZ, after the products of Ptychodus
    asked = [found.item.name for found in find_readers([mine])]
    assert asked.index("ptychodus") < asked.index("toy") < asked.index("npz") == len(asked) - 1
    assert read_base_file(tmp_path / "base.npz", [mine]).object.shape == (16, 16)
    late = write_notebook(tmp_path / "late.ipynb", code.replace("y, y))", "y, y), order=300)"))
    assert read_base_file(tmp_path / "base.npz", [late]).digest == base.digest


def test_a_reader_that_fails_on_another_format_does_not_hinder_its_own_reader(tmp_path, base):
    write_base(tmp_path / "base.npz", base)
    text = RETURNS.replace('path.suffix == ".toy"', 'path.read_text().startswith("toy")')
    mine = write_notebook(tmp_path / "mine.ipynb", text)
    assert read_base_file(tmp_path / "base.npz", [mine]).digest == base.digest
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(FormatError, match=r"asked: .*ptychodus.*, toy \(UnicodeDecodeError: .*\).*, npz"):
        read_base_file(tmp_path / "bytes", [mine])


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("{}", "found dict from reader 'toy'; needed what a file holds"),
        ("Base(obj, probe, y, y + 9)", "windows outside the object, from reader 'toy'"),
        ("Base(obj.real, probe, y, y)", "key 'object': found 2-D float32"),
        ("Base(obj, probe[None], y, y)", "key 'probe': found 3-D complex64"),
        ("Base(obj, probe[:4], y, y)", "a square probe"),
        ("Base(obj, probe, y, y[1:])", "as many y as x"),
        ("Base(obj, probe, y * np.nan, y)", "key 'y'"),
        ("Base(obj, probe, y, y, counts=np.ones((3, 8, 8)))", "key 'counts': found shape .* of float64"),
        ("MeasuredScan(np.ones((2, 8, 8), np.uint32), y, y, probe, None, {})", r"needed shape \(3, 8, 8\) of uint32"),
    ],
)
def test_what_a_reader_returns_is_checked(tmp_path, returned, words):
    (tmp_path / "scan.toy").write_text("toy")
    mine = write_notebook(tmp_path / "mine.ipynb", RETURNS.replace("{}", returned))
    with pytest.raises(FormatError, match=words):
        read_base_file(tmp_path / "scan.toy", [mine])


def test_a_measured_scan_of_a_reader_is_taken(tmp_path):
    (tmp_path / "scan.toy").write_text("toy")
    scan = "MeasuredScan(np.ones((3, 8, 8), np.uint32), y - 100, y, probe, None, {'kind': 'toy'})"
    mine = write_notebook(tmp_path / "mine.ipynb", RETURNS.replace("{}", scan))
    assert isinstance(read_base_file(tmp_path / "scan.toy", [mine]), MeasuredScan)


def test_a_file_that_nobody_takes_is_described(tmp_path):
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["entry"] = 1
    whole = (tmp_path / "other.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[:100])
    (tmp_path / "packed.gz").write_bytes(gzip.compress(whole))
    (tmp_path / "notes.txt").write_text("my notes")
    (tmp_path / "nothing").write_bytes(b"")
    for name, words in {
        "other.h5": r"an HDF5 file with keys \['entry'\]; needed a file that one of the readers takes",
        "cut.h5": "an HDF5 file that cannot be opened",
        "packed.gz": "an HDF5 file, compressed",
        "notes.txt": "a file that starts with b'my notes'",
        "nothing": "an empty file",
        "absent": "found no such file; needed a readable file",
        ".": "found a folder",
    }.items():
        with pytest.raises(FormatError, match=words):
            read_base_file(tmp_path / name)


def test_reading_an_npz_costs_no_heavy_import(tmp_path, base):
    write_base(tmp_path / "base.npz", base)
    heavy = "'h5py', 'torch', 'tensorflow', 'matplotlib', 'IPython', 'pandas'"
    code = (
        "import sys; from fly64_nb.data.readers.reader import read_base_file; read_base_file(sys.argv[1]); "
        f"print([m for m in ({heavy}) if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "base.npz"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
