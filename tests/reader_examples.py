"""Small valid files of each format, laid out as its program writes them: for tests and for the fuzzing harness."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import fft

from fly64_nb.data.base import Base, write_base
from fly64_nb.data.readers.example import ExampleScan, example_scan
from hdf5_examples import HDF5_EXAMPLES

Writer = Callable[[Path, ExampleScan], Path]


def npz_arrays(name: str, scan: ExampleScan) -> dict[str, Any]:
    """Arrays of an NPZ of a format, under the keys of its program."""
    y, x, pixel, window = scan.y, scan.x, scan.pixel_m, len(scan.probe)
    (middle_y, middle_x), n, physics = scan.middle, len(scan.y), scan.experiment
    common = {
        "xcoords": x, "ycoords": y, "xcoords_start": x + 0.25, "ycoords_start": y - 0.25,
        "probeGuess": scan.probe, "objectGuess": scan.object, "scan_index": np.zeros(n, int),
    }  # fmt: skip
    modes = np.stack([scan.probe, 0.25 * scan.probe])
    amplitude = np.sqrt(scan.counts.astype(np.float32))
    return {
        "npz": lambda: {
            "dp": scan.counts, "probe": scan.probe, "object": scan.object, "positions_px": np.stack([y, x], 1),
            "pixel_size_m": pixel,
        },
        "ptychodus-npz": lambda: {
            "name": "demo", "comments": "", "photon_energy_eV": physics.energy_eV, "far_field": True,
            "detector_object_distance_m": physics.distance_m, "probe_photon_count": 1e5, "exposure_time_s": 0.5,
            "mass_attenuation_m2_per_kg": 0.0, "tomography_angle_deg": 0.0, "focus_object_distance_m": 0.0,
            "tilt_angle_deg": 0.0, "probe_position_indexes": np.arange(n),
            "probe_position_y_m": (y - 0.5 - middle_y) * pixel + 1e-6,
            "probe_position_x_m": (x - 0.5 - middle_x) * pixel - 2e-6,
            "probe": modes[None], "probe_pixel_width_m": pixel, "probe_pixel_height_m": pixel,
            "object": scan.object[None], "object_center_y_m": 1e-6, "object_center_x_m": -2e-6,
            "object_pixel_width_m": pixel, "object_pixel_height_m": pixel, "object_layer_spacing_m": [],
            "loss_epochs": [0, 1], "loss_values": [2.0, 1.0],
        },
        "ptychodus-npz diffraction": lambda: {
            "indexes": np.arange(n), "patterns": scan.counts, "bad_pixels": np.zeros((window, window), bool),
        },
        "ptychodus-npz export": lambda: {
            **common, "xcoords": x - 0.5, "ycoords": y - 0.5, "xcoords_start": x - 0.5, "ycoords_start": y - 0.5,
            "diff3d": scan.counts, "bad_pixels": np.zeros((window, window), bool), "probeGuess": modes,
        },
        "tike": lambda: {
            "data": fft.ifftshift(scan.counts, axes=(1, 2)).astype(np.float32),
            "scan": np.stack([y, x], 1) - window // 2, "probe": modes[None, None], "psi": scan.object[None],
        },
        "fly64": lambda: {**common, "diff3d": scan.counts},
        "fly64 (H, W, n)": lambda: {**common, "diff3d": np.ascontiguousarray(np.moveaxis(scan.counts, 0, -1))},
        "fly64 canonical": lambda: {
            **common, "diffraction": amplitude / amplitude.max(), "probeGuess": scan.probe[..., None],
        },
        "slac": lambda: {
            "diffraction": np.ascontiguousarray(np.moveaxis(scan.counts, 0, -1)), "xcoords_start": x,
            "ycoords_start": y, "probeGuess": scan.probe, "objectGuess": scan.object,
            "photon_energy_eV": physics.energy_eV, "detector_distance_m": physics.distance_m,
            "detector_pixel_size_m": 75e-6,
        },
    }[name]()  # fmt: skip


def matlab_variables(scan: ExampleScan) -> dict[str, Any]:
    """Variables of a MATLAB file of fold_slice."""
    height, width = scan.object.shape
    window = len(scan.probe)
    first = [-(-(side - window) // 2) - 1 for side in (height, width)]  # pixel of a window at (0, 0)
    corner = np.stack([scan.x - window // 2 - first[1], scan.y - window // 2 - first[0]], 1)
    return {
        "object": scan.object,
        "probe": np.stack([scan.probe, 0.25 * scan.probe], -1),
        "outputs": {"probe_positions": corner, "fourier_error_out": np.ones(3)},
        "p": {
            "dx_spec": [scan.pixel_m] * 2, "lambda": scan.experiment.wavelength_m, "z": scan.experiment.distance_m,
            "ds": 75e-6, "scan": {"type": "fermat"},
        },
    }  # fmt: skip


def _npz(name: str, save: Callable = np.savez) -> Writer:
    def write(folder: Path, scan: ExampleScan) -> Path:
        path = folder / f"{name.replace(' ', '-')}.npz"
        save(path, **npz_arrays(name, scan))
        return path

    return write


def _base(folder: Path, scan: ExampleScan) -> Path:
    write_base(
        folder / "base.npz", Base(scan.object, scan.probe, scan.y, scan.x, scan.pixel_m, source={"kind": "demo"})
    )
    return folder / "base.npz"


def _matlab(compressed: bool) -> Writer:
    def write(folder: Path, scan: ExampleScan) -> Path:
        from scipy.io import savemat

        savemat(folder / "Niter100.mat", matlab_variables(scan), do_compression=compressed)
        return folder / "Niter100.mat"

    return write


def _deflated(folder: Path, scan: ExampleScan) -> Path:
    np.savez_compressed(folder / "deflated.npz", **npz_arrays("npz", scan))
    return folder / "deflated.npz"


def _npz_pair(folder: Path, scan: ExampleScan) -> Path:
    np.savez_compressed(folder / "diffraction.npz", **npz_arrays("ptychodus-npz diffraction", scan))
    np.savez(folder / "product.npz", **npz_arrays("ptychodus-npz", scan))
    return folder / "product.npz"


NPZ_FORMATS = (
    "npz", "ptychodus-npz", "ptychodus-npz diffraction", "ptychodus-npz export", "tike", "fly64", "fly64 (H, W, n)",
    "fly64 canonical", "slac",
)  # fmt: skip
EXAMPLES: dict[str, Writer] = {
    "base": _base,
    **{name: _npz(name) for name in NPZ_FORMATS},
    "npz deflated": _deflated,
    "ptychodus-npz with patterns": _npz_pair,
    "ptychoshelves-mat5": _matlab(True),
    "ptychoshelves-mat5 plain": _matlab(False),
    **HDF5_EXAMPLES,
}


def write_example(name: str, folder: Path, scan: ExampleScan | None = None) -> Path:
    """Write a small valid file of a format.

    Parameters
    ----------
    name : str
        Of `EXAMPLES`: a reader's name, and a word more where a reader takes several kinds.
    folder : path
    scan : ExampleScan, optional

    Returns
    -------
    path
        To read; files that belong to it may lie beside it.
    """
    return EXAMPLES[name](folder, example_scan() if scan is None else scan)
