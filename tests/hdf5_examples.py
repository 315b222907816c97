"""Small valid HDF5 files of each format, laid out as its program writes them: for tests and for the fuzzing harness."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from scipy import fft

from fly64_nb.data.readers.example import ExampleScan

Writer = Callable[[Path, ExampleScan], Path]
JOULES = 1.602176634e-19
MIDDLE = (3e-6, -2e-6)  # of the object of a product, metres


def modes_of(scan: ExampleScan) -> np.ndarray:
    """Two modes of the scan's probe, (2, N, N)."""
    return np.stack([scan.probe, 0.25 * scan.probe])


def product(path: Path, scan: ExampleScan, older: bool = False) -> Path:
    """A Ptychodus product, from 1.7 or before."""
    half = 0.5 if older else 0.0
    with h5py.File(path, "w") as file:
        file.attrs.update({"name": "demo", "comments": "", "detector_object_distance_m": 2.0, "exposure_time_s": 0.5})
        file.attrs.update({"probe_energy_eV" if older else "photon_energy_eV": 10e3, "probe_photon_count": 1e5})
        file["object"], file["probe"] = scan.object[None], modes_of(scan)[None]
        file["object"].attrs.update({"pixel_height_m": scan.pixel_m, "pixel_width_m": scan.pixel_m})
        file["object"].attrs.update({"center_y_m": MIDDLE[0], "center_x_m": MIDDLE[1]})
        for axis, values, middle, centre in zip("yx", (scan.y, scan.x), scan.middle, MIDDLE):
            file[f"probe_position_{axis}_m"] = (values - 0.5 - half - middle) * scan.pixel_m + centre
        file["probe_position_indexes"] = np.arange(len(scan.y))
        file["object_layer_spacing_m"] = np.zeros(0)
        file["loss_epochs"], file["loss_values"] = np.arange(2), np.array([2.0, 1.0])
    return path


def diffraction(path: Path, scan: ExampleScan) -> Path:
    """A Ptychodus diffraction file."""
    with h5py.File(path, "w") as file:
        patterns = file.create_dataset("patterns", data=scan.counts, compression="lzf")
        patterns.attrs.update({"detector_pixel_height_m": 75e-6, "detector_pixel_width_m": 75e-6})
        file.create_dataset("indexes", data=np.arange(len(scan.y)), compression="lzf")
        file.create_dataset("bad_pixels", data=np.zeros(scan.counts.shape[1:], bool), compression="lzf")
    return path


def _product_pair(folder: Path, scan: ExampleScan) -> Path:
    diffraction(folder / "diffraction.h5", scan)
    return product(folder / "product.h5", scan)


def _training(folder: Path, scan: ExampleScan) -> Path:
    with h5py.File(folder / "training.h5", "w") as file:
        for key, data in (("patterns", scan.counts), ("probe", modes_of(scan)), ("object", scan.object)):
            file.create_dataset(key, data=data, compression="lzf")
        file["bad_pixels"] = np.zeros(scan.counts.shape[1:], bool)
        file["probe_position_y_px"], file["probe_position_x_px"] = scan.y - 0.5, scan.x - 0.5
        file["object_pixel_height_m"] = file["object_pixel_width_m"] = scan.pixel_m
        file["photon_energy_eV"], file["detector_object_distance_m"] = 10e3, 2.0
    return folder / "training.h5"


def _ptychi(folder: Path, scan: ExampleScan) -> Path:
    with h5py.File(folder / "scan_para.hdf5", "w") as file:
        file["probe"], file["object"] = modes_of(scan), np.ones((1, *scan.object.shape), np.complex64)
        file["object"].attrs["pixel_height_m"] = scan.pixel_m
        for axis, values, middle in zip("yx", (scan.y, scan.x), scan.middle):
            file[f"probe_position_{axis}_m"] = (values - 0.5 - middle) * scan.pixel_m
    with h5py.File(folder / "scan_dp.hdf5", "w") as file:
        file["dp"] = scan.counts.astype(np.float32)
    return folder / "scan_dp.hdf5"


def cxi(path: Path, scan: ExampleScan) -> Path:
    """A CXI file of cdtools, with a probe."""
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector.create_dataset("data", data=scan.counts, compression="gzip")
        detector["distance"], detector["x_pixel_size"], detector["y_pixel_size"] = 2.0, 75e-6, 75e-6
        detector["mask"] = np.zeros(scan.counts.shape[1:], np.uint32)
        detector["basis_vectors"] = np.array([[0, -75e-6], [-75e-6, 0], [0, 0]])
        file["entry_1/instrument_1/source_1/energy"] = 10e3 * JOULES
        file["entry_1/instrument_1/source_1/illumination"] = scan.probe
        translation = np.stack([scan.x, scan.y, 0 * scan.x], 1) * scan.pixel_m
        file["entry_1/sample_1/geometry_1/translation"] = translation
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        file["entry_1/data_1/translation"] = h5py.SoftLink("/entry_1/sample_1/geometry_1/translation")
    return path


def _nxcxi(folder: Path, scan: ExampleScan) -> Path:
    rows = np.lexsort((scan.x, scan.y))[: len(scan.y) // 12 * 12]
    with h5py.File(folder / "scan.nxs", "w") as file:
        file["entry_1/definition"] = "NXcxi_ptycho"
        file["entry_1/instrument_1/detector_1/data"] = scan.counts[rows].reshape(12, -1, *scan.counts.shape[1:])
        file["entry_1/data/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        for axis, values in (("y", scan.y), ("x", scan.x)):
            file[f"entry_1/data/{axis}"] = values[rows].reshape(12, -1) * scan.pixel_m * 1e3
            file[f"entry_1/data/{axis}"].attrs["units"] = "mm"
        file["entry_1/instrument_1/source_1/energy"] = 3e9 * JOULES
        file["entry_1/instrument_1/beam_1/energy"] = 10e3 * JOULES
        file["entry_1/instrument_1/detector_1/distance"] = 2.0
        for axis in "xy":
            file[f"entry_1/instrument_1/detector_1/{axis}_pixel_size"] = 75e-6
    return folder / "scan.nxs"


def ptyd(path: Path, scan: ExampleScan, link: bool = False) -> Path:
    """Prepared data of PtyPy in chunks, in this file or in link mode."""
    with h5py.File(path, "w") as file:
        meta = {"energy": 10.0, "distance": 2.0, "psize": np.full(2, 75e-6), "shape": np.full(2, len(scan.probe))}
        for key, value in {**meta, "center": np.full(2, len(scan.probe) / 2), "num_frames": np.zeros(1)}.items():
            file[f"meta/{key}"] = value
        file.create_group("info")
        for number, rows in enumerate(np.array_split(np.arange(len(scan.y)), 3)):
            part = h5py.File(f"{path}.part{number:03d}", "w") if link else file.create_group(f"chunks/{number}")
            weights = np.ones((len(rows), *scan.counts.shape[1:]))
            points = np.stack([scan.y, scan.x], 1)[rows] * scan.pixel_m
            for key, data in (
                ("data", scan.counts[rows].astype(np.int32)),
                ("positions", points),
                ("weights", weights),
            ):
                part.create_dataset(key, data=data, compression="gzip")
            part["indices"] = rows
            if link:
                part.close()
                file[f"chunks/{number}"] = h5py.ExternalLink(f"{path}.part{number:03d}", "/")
    return path


def _ptyr(folder: Path, scan: ExampleScan) -> Path:
    with h5py.File(folder / "scan.ptyr", "w") as file:
        file["content/probe/SMFG00/data"], file["content/obj/SMFG00/data"] = modes_of(scan), scan.object[None]
        file["content/probe/SMFG00/_energy"] = 10.0
        file["content/obj/SMFG00/_psize"] = np.full(2, scan.pixel_m)
        file["content/obj/SMFG00/_origin"] = np.array([-4e-6, -5e-6])
        file["content/positions/SMFG00"] = np.stack([scan.y, scan.x], 1) * scan.pixel_m + [-4e-6, -5e-6]
    return folder / "scan.ptyr"


def _matlab73(folder: Path, scan: ExampleScan) -> Path:
    path, pair = folder / "Niter100.mat", np.dtype([("real", "<f4"), ("imag", "<f4")])
    n = len(scan.probe)
    shelves = [v - n // 2 - np.ceil((s - n) / 2) for v, s in zip((scan.y, scan.x), scan.object.shape)]
    with h5py.File(path, "w", userblock_size=512) as file:
        file["object"] = np.ascontiguousarray(scan.object.T).view(pair)
        file["probe"] = np.ascontiguousarray(np.moveaxis(modes_of(scan), 0, -1).T).view(pair)
        file["outputs/probe_positions"] = np.stack([shelves[1], shelves[0]])
        file["p/dx_spec"], file["p/lambda"] = np.full((2, 1), scan.pixel_m), [[scan.experiment.wavelength_m]]
        file["p/z"], file["p/ds"] = [[2.0]], [[75e-6]]
    with open(path, "r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))
    return path


def fold_slice(folder: Path, scan: ExampleScan, by_matlab: bool = True) -> Path:
    """Data of fold_slice in two files, with the axes of MATLAB or of Python."""
    with h5py.File(folder / "data_roi0_para.hdf5", "w") as file:
        for key, values in (("ppY", scan.y), ("ppX", scan.x)):
            file[key] = (values[None] if by_matlab else values) * scan.pixel_m
        file["lambda"], file["dx"] = scan.experiment.wavelength_m, scan.pixel_m
    with h5py.File(folder / "data_roi0_dp.hdf5", "w") as file:
        data = scan.counts.transpose(0, 2, 1) if by_matlab else scan.counts
        more = {"chunks": (1, *data.shape[1:]), "compression": "gzip", "track_times": by_matlab}  # as MATLAB does
        file.create_dataset("dp", data=data.astype(np.float32), **more)
    return folder / "data_roi0_dp.hdf5"


def _hxn(folder: Path, scan: ExampleScan) -> Path:
    with h5py.File(folder / "scan_1.h5", "w") as file:
        file["diffamp"] = fft.fftshift(np.sqrt(scan.counts), axes=(1, 2)).astype(np.float32)
        file["points"] = np.stack([scan.x, scan.y]) * scan.pixel_m * 1e6
        file["ccd_pixel_um"], file["z_m"], file["angle"] = 75.0, 2.0, 15.0
        file["lambda_nm"] = scan.experiment.wavelength_m * 1e9
    return folder / "scan_1.h5"


def _nanomax(folder: Path, scan: ExampleScan) -> Path:
    with h5py.File(folder / "000012.h5", "w") as file:
        frames = scan.counts.astype(np.uint32)
        file.create_dataset("entry/measurement/eiger1m/frames", data=frames, chunks=(1, *frames.shape[1:]))
        for axis, values in (("y", scan.y), ("x", scan.x)):
            file[f"entry/measurement/pseudo/{axis}"] = -values * scan.pixel_m * 1e6
        file["entry/snapshot/energy"] = np.array([10e3])
    return folder / "000012.h5"


def _ptylab(folder: Path, scan: ExampleScan) -> Path:
    with h5py.File(folder / "data.hdf5", "w") as file:
        file["ptychogram"] = scan.counts.astype(np.float32)
        file["encoder"] = np.stack([scan.y, scan.x], 1) * scan.pixel_m
        file["wavelength"], file["dxd"], file["zo"] = scan.experiment.wavelength_m, 75e-6, 2.0
    return folder / "data.hdf5"


HDF5_EXAMPLES: dict[str, Writer] = {
    "ptychodus": lambda folder, scan: product(folder / "alone.h5", scan),
    "ptychodus older": lambda folder, scan: product(folder / "older.h5", scan, older=True),
    "ptychodus with patterns": _product_pair,
    "ptychodus training data": _training,
    "ptychodus diffraction": lambda folder, scan: diffraction(folder / "diffraction.h5", scan),
    "pty-chi pair": _ptychi,
    "cxi": lambda folder, scan: cxi(folder / "scan.cxi", scan),
    "cxi raster": _nxcxi,
    "ptypy": lambda folder, scan: ptyd(folder / "scan.ptyd", scan),
    "ptypy ptyr": _ptyr,
    "matlab 7.3": _matlab73,
    "fold_slice": fold_slice,
    "fold_slice by Python": lambda folder, scan: fold_slice(folder, scan, by_matlab=False),
    "NSLS-II HXN": _hxn,
    "NanoMAX": _nanomax,
    "PtyLab": _ptylab,
}
READER = {"cxi raster": "cxi", "ptypy ptyr": "ptypy", "ptychodus older": "ptychodus"} | {
    "ptychodus with patterns": "ptychodus",
    "fold_slice by Python": "fold_slice",
}
