"""Files: a dataset with every clause of its contract, and the product, against numpy and h5py alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import h5py
import numpy as np
from case import Case
from profiles import profile_base

from fly64_nb.contract import validate_dataset_contract
from fly64_nb.data.dataset import write_dataset
from fly64_nb.data.files import file_digest
from fly64_nb.data.product import write_product
from fly64_nb.data.readers.reader import read_base_file
from fly64_nb.datasets import make_datasets

FOLDER = tempfile.TemporaryDirectory()  # goes with the process


def plain_load(path: Path) -> dict[str, np.ndarray]:
    """Every array, and no check."""
    with np.load(path, allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


def synced(path: Path) -> None:
    """What both ways of writing end with."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def plain_save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """numpy's own, flushed to the disk."""
    np.savez(path, **arrays)
    synced(path)


def plain_product(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """The same arrays in HDF5, flushed to the disk."""
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array
    synced(path)


def plain_read(path: Path) -> dict[str, np.ndarray]:
    """Every array of an HDF5 file."""
    with h5py.File(path) as file:
        return {key: file[key][()] for key in file}


def cases(full: bool, gpu: bool) -> list[Case]:
    data = make_datasets(profile_base("paper" if full else "quick"), 1e4)["train"]
    folder = Path(FOLDER.name)
    ours, plain, product, other = (folder / name for name in ("ours.npz", "plain.npz", "ours.h5", "plain.h5"))
    write_dataset(ours, data)
    arrays = plain_load(ours)
    make_product = lambda: write_product(product, data.object, data.probe, data.y, data.x, (0, 0), 1e-8, "benchmark")
    make_product()
    contents = plain_read(product)
    size, small = (
        f"{len(data):,} patterns, {ours.stat().st_size / 1e6:.0f} MB",
        f"object of {data.object.shape[0]} x {data.object.shape[1]}",
    )
    return [
        Case(
            "reading a dataset, all checks",
            lambda: validate_dataset_contract(ours),
            size,
            lambda: plain_load(ours),
            "np.load, no check",
            items=len(data),
        ),
        Case(
            "writing a dataset, atomically",
            lambda: write_dataset(ours, data),
            size,
            lambda: plain_save(plain, arrays),
            "np.savez and fsync",
            items=len(data),
        ),
        Case("digest of a dataset", lambda: file_digest(ours), size, ours.read_bytes, "bound: reading the bytes"),
        Case("writing a product", make_product, small, lambda: plain_product(other, contents), "h5py and fsync"),
        Case(
            "reading a product, all checks",
            lambda: read_base_file(product),
            small,
            lambda: plain_read(product),
            "h5py, no check",
        ),
    ]
