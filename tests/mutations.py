"""What may be wrong with a file: bytes that changed, keys that are missing, arrays that are not what they should be.

Each mutation takes a folder with a valid file and a random generator, changes the file, and says what it did.
"""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Mutation = Callable[[Path, np.random.Generator], str]
VALUES = (0.0, -1.0, np.nan, np.inf, -np.inf, 1e300, 1e-300, 2.0**31, 2.0**32 - 1, 65535.0, 1e6, 0.5)
DTYPES = ("f2", ">f4", "f8", "i1", "u1", ">i2", "i8", "u8", "c8", ">c16", "U3", "S2", "?", "m8[s]")
HUGE = ((2**31,), (10**9, 10**6), (2**40, 2, 2), (0,), (-1,), (2**63,), (1, 1, 1, 1, 1, 1), ())


# Bytes


def flip_bytes(path: Path, rng: np.random.Generator) -> str:
    """Some bytes are others, mostly near the start or the end, where a file says what it holds."""
    content, count = bytearray(path.read_bytes()), int(rng.integers(1, 9))
    for _ in range(count):
        upto = len(content) if rng.random() < 0.5 else min(len(content), 4096)
        at = int(rng.integers(upto))
        content[at if rng.random() < 0.7 else -1 - at] = int(rng.integers(256))
    path.write_bytes(content)
    return f"{count} bytes changed"


def flip_bit(path: Path, rng: np.random.Generator) -> str:
    """One bit is another."""
    content = bytearray(path.read_bytes())
    at = int(rng.integers(len(content)))
    content[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    return f"a bit of byte {at} changed"


def cut(path: Path, rng: np.random.Generator) -> str:
    """The file ends too early."""
    content = path.read_bytes()
    upto = int(rng.integers(len(content)))
    path.write_bytes(content[:upto])
    return f"cut after {upto} of {len(content)} bytes"


def blank(path: Path, rng: np.random.Generator) -> str:
    """A block is zeros, as after a crash of a computer."""
    content = bytearray(path.read_bytes())
    at, size = int(rng.integers(len(content))), int(rng.integers(1, 2000))
    content[at : at + size] = bytes(len(content[at : at + size]))
    path.write_bytes(content)
    return f"{size} bytes at {at} are zero"


def move(path: Path, rng: np.random.Generator) -> str:
    """A block is in there twice, or missing."""
    content = path.read_bytes()
    at, size = int(rng.integers(len(content))), int(rng.integers(1, 500))
    twice = rng.random() < 0.5
    path.write_bytes(content[: at + size * twice] + content[at + size * (not twice) :])
    return f"{size} bytes at {at} are {'there twice' if twice else 'missing'}"


def number(path: Path, rng: np.random.Generator) -> str:
    """A whole number in the file is a huge one."""
    content = bytearray(path.read_bytes())
    form = ["<I", ">I", "<Q", "<H"][rng.integers(4)]
    size = struct.calcsize(form)
    upto = min(len(content), 8192) if rng.random() < 0.7 else len(content)
    at = int(rng.integers(max(upto - size, 1)))
    value = [0, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (8 * size - 2), 2**16 - 1][rng.integers(5)]
    content[at : at + size] = struct.pack(form, value)
    path.write_bytes(content)
    return f"the {form} at {at} is {value}"


def compress(path: Path, rng: np.random.Generator) -> str:
    """Compressed as a whole, and then damaged or not."""
    pack = [bz2.compress, gzip.compress][rng.integers(2)]
    path.write_bytes(pack(path.read_bytes(), 1))
    return "compressed" + ("" if rng.random() < 0.2 else "; " + [flip_bit, cut, flip_bytes][rng.integers(3)](path, rng))


BYTES: tuple[Mutation, ...] = (flip_bytes, flip_bytes, flip_bit, cut, blank, move, number, number, compress)


# Arrays


def other_values(array: np.ndarray, rng: np.random.Generator) -> tuple[Any, str]:
    """An array with some values that are others, or all of them."""
    value = VALUES[rng.integers(len(VALUES))]
    out = array.astype(array.dtype if array.dtype.kind in "fc" else np.float64)
    flat = out.reshape(-1)
    which = slice(None) if rng.random() < 0.4 else rng.integers(0, max(flat.size, 1), 3)
    if flat.size:
        flat[which] = value
    if array.dtype.kind in "iu" and np.isfinite(out).all() and rng.random() < 0.5:
        out = np.clip(out, np.iinfo(array.dtype).min, np.iinfo(array.dtype).max / 2).astype(array.dtype)
    return out, f"values {value}"


def other_shape(array: np.ndarray, rng: np.random.Generator) -> tuple[Any, str]:
    """An array of another shape."""
    if array.ndim == 0:
        return np.full(3, array), "a list of a number"
    kinds = [
        lambda a: a[..., None], lambda a: a[None], lambda a: a.ravel(), lambda a: a.T, lambda a: a[:-1],
        lambda a: a[..., :-1], lambda a: np.concatenate([a, a]), lambda a: np.stack([a, a]), lambda a: a.reshape(-1)[0],
        lambda a: np.moveaxis(a, 0, -1), lambda a: np.asfortranarray(a), lambda a: a[..., ::-1], lambda a: a[::2],
        lambda a: np.roll(a, 1, 0), lambda a: a[:0], lambda a: a[rng.permutation(len(a))], lambda a: a[:1],
    ]  # fmt: skip
    out = np.asarray(kinds[rng.integers(len(kinds))](array))
    return out, f"shape {out.shape}"


def other_type(array: np.ndarray, rng: np.random.Generator) -> tuple[Any, str]:
    """An array of another type."""
    dtype = DTYPES[rng.integers(len(DTYPES))]
    plain = array.real if array.dtype.kind == "c" and np.dtype(dtype).kind != "c" else array
    return np.asarray(plain).astype(dtype), f"type {dtype}"


def other_scale(array: np.ndarray, rng: np.random.Generator) -> tuple[Any, str]:
    """Values times a factor, moved, or their roots."""
    factor = [1e-9, 1e-6, -1.0, 1e3, 1e9, 1e30][rng.integers(6)]
    kind = int(rng.integers(4))
    out = [array * factor, array + factor, np.abs(array), np.sqrt(np.abs(array))][kind]
    return out, [f"times {factor}", f"plus {factor}", "absolute values", "roots"][kind]


ARRAYS = (other_values, other_values, other_shape, other_shape, other_type, other_scale)


def change_arrays(arrays: dict[str, Any], rng: np.random.Generator) -> str:
    """Change one or two things in a dictionary of arrays, in place."""
    keys, done = list(arrays), []
    for _ in range(int(rng.integers(1, 3))):
        key = keys[rng.integers(len(keys))]
        if key not in arrays:
            continue
        what = rng.random()
        if what < 0.12:
            del arrays[key]
            done.append(f"no {key}")
        elif what < 0.2:
            arrays[[key.upper(), key + "_", "data", "x", "object", "probe"][rng.integers(6)]] = arrays.pop(key)
            done.append(f"{key} renamed")
        elif what < 0.3:
            other = keys[rng.integers(len(keys))]
            if other in arrays:
                arrays[key], arrays[other] = arrays[other], arrays[key]
                done.append(f"{key} and {other} swapped")
        else:
            with np.errstate(all="ignore"):
                arrays[key], words = ARRAYS[rng.integers(len(ARRAYS))](np.asarray(arrays[key]), rng)
            done.append(f"{key}: {words}")
    return ", ".join(done)


# NPZ


def npz_arrays(path: Path, rng: np.random.Generator) -> str:
    """Arrays of an NPZ are others."""
    with np.load(path) as data:
        arrays = dict(data)
    words = change_arrays(arrays, rng)
    save = np.savez_compressed if rng.random() < 0.2 else np.savez
    with open(path, "wb") as stream:
        save(stream, **arrays)
    return words


def npz_header(path: Path, rng: np.random.Generator) -> str:
    """An array of an NPZ claims another shape, type or order, with a checksum that fits."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = list(entries)[rng.integers(len(entries))]
    shape, dtype = HUGE[rng.integers(len(HUGE))], ["<f8", "|O", "<c8", ">u2", "|V7", "<U9", "|S0"][rng.integers(7)]
    buffer = io.BytesIO()
    header = {"descr": dtype, "fortran_order": bool(rng.integers(2)), "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    stream = io.BytesIO(entries[name])
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    entries[name] = buffer.getvalue() + stream.read()
    if rng.random() < 0.3:
        head = bytearray(entries[name])
        head[int(rng.integers(8, 60))] = int(rng.integers(32, 127))
        entries[name] = bytes(head)
    with zipfile.ZipFile(path, "w", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED][rng.integers(2)]) as archive:
        for key, content in entries.items():
            archive.writestr(key, content)
    return f"{name} claims {shape} of {dtype}"


# MATLAB


def mat_arrays(path: Path, rng: np.random.Generator) -> str:
    """Variables or fields of a MATLAB file are others."""
    from scipy.io import loadmat, savemat

    variables = {key: value for key, value in loadmat(path, simplify_cells=True).items() if not key.startswith("__")}
    inner = [value for value in variables.values() if isinstance(value, dict)]
    where = inner[rng.integers(len(inner))] if inner and rng.random() < 0.5 else variables
    flat = {key: value for key, value in where.items() if not isinstance(value, dict)}
    before = set(flat)
    words = change_arrays(flat, rng) if flat else ""
    for key in before - set(flat):
        del where[key]
    where.update({key.strip("_"): value for key, value in flat.items()})
    savemat(path, variables, do_compression=bool(rng.integers(2)))
    return words


# HDF5


def hdf5_arrays(path: Path, rng: np.random.Generator) -> str:
    """Datasets or attributes of an HDF5 file are others, or lead elsewhere."""
    import h5py

    with h5py.File(path, "r+") as file:
        nodes: list[str] = []
        file.visit(nodes.append)
        sets = [name for name in nodes if isinstance(file.get(name), h5py.Dataset)]
        kind = rng.random()
        if kind < 0.25:
            return _attributes(file, [file[name] for name in nodes] + [file], rng)
        name = sets[rng.integers(len(sets))]
        if kind < 0.4:
            return _links(file, name, rng)
        if kind < 0.5:
            return _claims(file, name, rng)
        arrays = {key: file[key][()] for key in sets if file[key].dtype.kind in "uifcb"}
        before = dict(arrays)
        words = change_arrays(arrays, rng)
        for key in before:
            if key not in arrays or arrays[key] is not before[key]:
                attributes = dict(file[key].attrs)
                del file[key]
                if key in arrays:
                    array = np.asarray(arrays[key])
                    file[key] = array.astype(h5py.string_dtype()) if array.dtype.kind in "UM" else array
                    file[key].attrs.update(attributes)
        for key in set(arrays) - set(before):
            if key not in file:
                file[key] = arrays[key]
        return words


def _attributes(file: Any, nodes: list[Any], rng: np.random.Generator) -> str:
    """An attribute is missing or another."""
    nodes = [node for node in nodes if node is not None and len(node.attrs)]
    if not nodes:
        return "nothing"
    node = nodes[rng.integers(len(nodes))]
    key = list(node.attrs)[rng.integers(len(node.attrs))]
    values = (*VALUES, "text", np.zeros(0), np.arange(3.0), np.eye(2), -3, b"\xff\xfe", "9" * 5000, None, 1 + 2j, True)
    value = values[rng.integers(len(values))]
    del node.attrs[key]
    if value is not None:
        node.attrs[key] = value
    return f"attribute {key} of {node.name} is {str(value)[:20]}"


def _links(file: Any, name: str, rng: np.random.Generator) -> str:
    """A dataset is a link, a group, or something else."""
    import h5py

    targets = {
        "a loop": lambda: h5py.SoftLink("/" + name),
        "a link to nothing": lambda: h5py.SoftLink("/nothing/there"),
        "a link to the root": lambda: h5py.SoftLink("/"),
        "an external link": lambda: h5py.ExternalLink("/etc/passwd", "/"),
        "a link into itself": lambda: h5py.ExternalLink(file.filename, "/" + name),
        "text": lambda: "text",
        "a reference": lambda: np.array([file.ref] * 3, dtype=h5py.ref_dtype),
        "a table": lambda: np.zeros(4, [("r", "f4"), ("i", "f4")]),
        "another table": lambda: np.zeros((3, 8, 8), [("a", "f4"), ("b", "i2")]),
    }
    words = list(targets)[rng.integers(len(targets))]
    target = targets[words]()
    del file[name]
    if rng.random() < 0.1:
        file.create_group(name)
        return f"{name} is a group"
    file[name] = target
    return f"{name} is {words}"


def _claims(file: Any, name: str, rng: np.random.Generator) -> str:
    """A dataset claims a huge shape that nobody wrote."""
    shape = [s for s in HUGE if s and min(s) >= 0][rng.integers(5)]
    ndim = max(file[name].ndim, 1)
    shape = (tuple(shape) + (2,) * ndim)[:ndim] if rng.random() < 0.5 else shape
    dtype, chunks = file[name].dtype, True if rng.random() < 0.7 else None
    if dtype.kind not in "uifcb" or 0 in shape or max(shape) >= 2**62:
        return "nothing"
    del file[name]
    more = {"compression": "gzip", "fillvalue": 1} if chunks and rng.random() < 0.5 else {}
    try:
        file.create_dataset(name, shape, dtype, chunks=(1,) * (len(shape) - 1) + (min(shape[-1], 64),), **more)
    except (ValueError, TypeError, OSError):
        return f"no {name}"
    return f"{name} claims {shape}"


FORMATS: dict[str, tuple[Mutation, ...]] = {
    "zip": (npz_arrays, npz_arrays, npz_arrays, npz_header),
    "hdf5": (hdf5_arrays,),
    "matlab": (mat_arrays,),
}


def kind_of(path: Path) -> str:
    """Kind of a valid file, from its first bytes."""
    start = path.read_bytes()[:8]
    return (
        "zip"
        if start[:2] == b"PK"
        else "matlab"
        if start[:6] == b"MATLAB" and b"HDF" not in path.read_bytes()[:520]
        else "hdf5"
    )


def mutate(path: Path, rng: np.random.Generator) -> str:
    """Change a valid file at random, and say how."""
    kind = kind_of(path)
    if rng.random() < 0.6:
        choices = FORMATS[kind]
        words = choices[rng.integers(len(choices))](path, rng)
        if rng.random() > 0.1:
            return words
    else:
        words = ""
    return ", ".join(filter(None, [words, BYTES[rng.integers(len(BYTES))](path, rng)]))
