"""Programs side by side: CPU-seconds to a phase error, on one condition of the quick study, with the probe known.

    python benchmarks/peers.py [--dose 1e4] [--view dense] [--seed 42] [--most 120]

Each gets the same counts, positions and probe, and is aligned and measured as the comparison does it. Ours and
pty-chi's are run with the settings of the quick profile to their own end. PtyPy (0.9; in no registry, so by its
repository on PYTHONPATH), cdtools (0.3.2; cdtools-py in the registry) and PtyLab (0.3.7) are stopped and measured every
few iterations. Neither measuring nor importing is counted. A program that is not installed is named and left out.

PtyLab places windows at whole pixels. It is run as it is, and with the probe of each position shifted by the fraction
of a pixel that is left, as the counts were made. Steps and batches of cdtools and PtyLab were chosen on the train
split, at 1e4 photons and another seed (43); `--dose 1e8` shows whether the conventions of a program are met.

error    least phase RMSE in rad, and after how many CPU-seconds and iterations
target   CPU-seconds to the phase RMSE that our ML ends with, times 1.05; a dash: not within the time given
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import typer
from scipy.constants import c, e, h

from calibrate_split import conditions
from fly64_nb.data.base import Base
from fly64_nb.data.dataset import Dataset
from fly64_nb.data.experiment import Experiment
from fly64_nb.data.writers.ptyd import write_ptyd
from fly64_nb.design import get_study_design
from fly64_nb.methods.method import find_methods, make_settings, seeded, settings_of
from fly64_nb.physics.optics import fourier_shift, split_position
from fly64_nb.quality.alignment import Field, align, true_phase

Course = Iterator[tuple[int, np.ndarray, tuple[int, int]]]  # iteration, object, its first pixel


def imported(course: Callable[[Dataset], Course], *modules: str) -> Callable[[Dataset], Course]:
    """A course whose modules are there before it begins."""

    def run(data: Dataset) -> Course:
        for module in modules:
            import_module(module)
        return course(data)

    return run


def ours(name: str, **changes: Any) -> Callable[[Dataset], Course]:
    """A method of the package, to its own end."""
    method = find_methods()[name][0]

    def run(data: Dataset) -> Course:
        settings = make_settings(method, seeded(method, settings_of(method, "quick", changes), data.seed(name)))
        found = method.reconstruct(data, settings, None, lambda *_, **__: None)
        yield len(found.loss), found.object, found.origin

    return imported(run, *method.imports)


def ptypy_engine(name: str, every: int, **settings: Any) -> Callable[[Dataset], Course]:
    """An engine of PtyPy with the probe kept, every few iterations."""

    def run(data: Dataset) -> Course:
        from ptypy import utils as u
        from ptypy.core import Ptycho

        beam = Experiment(energy_eV=8e3, distance_m=1.0, detector_pixel_m=(75e-6, 75e-6))
        pixel = h * c / e / 8e3 * 1.0 / (data.window * 75e-6)
        counts = data.counts().astype(np.uint32)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "scan.ptyd"
            base = Base(data.object, data.probe, data.y, data.x, pixel, counts, {"kind": "file"}, beam)
            write_ptyd((file,), base)
            p = u.Param(verbose_level="critical", data_type="single", run=None)
            silent = {"autosave": u.Param(active=False), "autoplot": u.Param(active=False)}
            p.io = u.Param(home=folder, interaction=u.Param(active=False), **silent)
            light = u.Param(model=data.known_probe[None] * 1.0, photons=float(counts.sum((1, 2)).mean()))
            told = {"illumination": u.Param(**light, aperture=None, diversity=None), "sample": u.Param(fill=1.0 + 0j)}
            scan = u.Param(name="BlockFull", data=u.Param(name="PtydScan", dfile=str(file)), **told)
            p.scans = u.Param(scan=scan)
            p.engines = u.Param(one=u.Param(name=name, numiter=10**6, probe_update_start=10**7, **settings))
            problem = Ptycho(p, level=3)
            problem.runtime.iter_info = []
            problem.init_engine()
            engine = problem.engines["one"]
            engine.initialize()
            engine.prepare()
            low = next(iter(problem.pods.values())).ob_view.dlow
            top, left = (int(round(p[0] - data.window // 2)) - int(d) for p, d in ((data.y, low[0]), (data.x, low[1])))
            for k in range(1, 10**6):
                engine.iterate(every)
                image = next(iter(problem.obj.storages.values())).data[0]
                yield k * every, image.astype(np.complex64), (top, left)

    return imported(run, "ptypy.core", "ptypy.engines")


def photon_probe(data: Dataset) -> np.ndarray:
    """The probe that is told, (N, N) complex64, with as many photons as a pattern has in the mean."""
    photons = data.counts().sum((1, 2), dtype=np.float64).mean()
    return (data.known_probe * np.sqrt(photons / np.sum(np.abs(data.known_probe) ** 2))).astype(np.complex64)


def cdtools_engine(
    optimizer: str, every: int, loss: str, steps: int | None = None, **settings: Any
) -> Callable[[Dataset], Course]:
    """An optimizer of cdtools on its model FancyPtycho, of which only the object is free, every few epochs.

    An epoch of L-BFGS has 20 steps, or `steps`.
    """

    def run(data: Dataset) -> Course:
        import torch
        from cdtools import reconstructors
        from cdtools.datasets import Ptycho2DDataset
        from cdtools.models import FancyPtycho

        torch.manual_seed(data.seed("cdtools"))
        n, corner = data.window, np.stack([data.known_y, data.known_x], 1) - data.window // 2
        (top, left), (bottom, right) = (np.floor(f(0)).astype(int).tolist() for f in (corner.min, corner.max))
        # its places are (x, y, z), here in pixels: an object's rows go along y and its columns along x
        basis = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]], np.float32)
        places = np.pad((corner - (top, left))[:, ::-1], ((0, 0), (0, 1))).astype(np.float32)
        geometry = {"distance": 1.0, "basis": basis, "corner": np.zeros(3, np.float32)}
        start = torch.ones(bottom - top + n, right - left + n, dtype=torch.complex64)
        model = FancyPtycho(
            1.0, geometry, basis, photon_probe(data)[None], start, loss=loss, background=np.full((n, n), 1e-6)
        )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name == "obj")
        scan = Ptycho2DDataset(places, data.counts(), wavelength=1.0, detector_geometry=geometry)
        solver = getattr(reconstructors, optimizer)(model, scan)
        if steps is not None:
            solver.optimizer.param_groups[0]["max_iter"] = steps
        for k, _ in enumerate(solver.optimize(10**6, thread=False, **settings), 1):
            if k % every == 0:
                yield k * (steps or 1), model.obj.detach().numpy().copy(), (top, left)

    return imported(run, "cdtools", "torch._dynamo")  # torch.optim imports the latter when it is first used


def told_probes(engine: type, probes: np.ndarray) -> type:
    """An engine of PtyLab that uses the probe of each position, (n, 1, 1, 1, 1, N, N), and changes none."""

    class Told(engine):
        def setPositionOrder(self) -> None:
            super().setPositionOrder()
            self.order = iter(self.positionIndices)
            self.reconstruction.probe = probes[next(self.order)]

        def probeUpdate(self, *_: Any) -> np.ndarray:
            return probes[next(self.order, 0)]

        def probeMomentumUpdate(self) -> None:
            pass

    return Told


def ptylab_engine(
    name: str, every: int, constraint: str = "standard", whole: bool = False, **settings: Any
) -> Callable[[Dataset], Course]:
    """An engine of PtyLab with the probe kept, every few iterations; `whole`: never shifted by less than a pixel."""

    def run(data: Dataset) -> Course:
        from PtyLab import DummyMonitor, Engines, ExperimentalData, Params, Reconstruction

        np.random.seed(data.seed("PtyLab"))  # its order of positions
        n = data.window
        (start_y, dy), (start_x, dx) = split_position(data.known_y, n), split_position(data.known_x, n)
        starts = np.stack([start_y, start_x], 1)
        middle = (starts.min(0) + starts.max(0)) // 2
        scan = ExperimentalData()
        # a wavelength, a distance and a pixel of the detector that make an object's pixel one metre
        scan.wavelength, scan.zo, scan.dxd, scan.encoder = 1.0, 1.0, 1.0 / n, (starts - middle).astype(float)
        scan.ptychogram = data.counts()
        scan.entrancePupilDiameter = scan.spectralDensity = scan.theta = scan.emptyBeam = None
        scan._setData()
        params = Params()
        params.gpuSwitch, params.fftshiftSwitch, params.intensityConstraint = False, True, constraint
        held = Reconstruction(scan, params)
        held.initializeObjectProbe()
        held.object = np.ones_like(held.object)
        probe = photon_probe(data)
        probes = np.repeat(probe[None], len(data), 0) if whole else fourier_shift(probe, dy, dx)
        probes = probes[:, None, None, None, None]
        held.probe = probes[0]
        top, left = (middle - held.No // 2 + n // 2).tolist()
        solver = told_probes(getattr(Engines, name), probes)(held, scan, params, DummyMonitor())
        for key, value in {**settings, "numIterations": every}.items():
            setattr(solver, key, value)
        for k in range(1, 10**6):
            with redirect_stdout(io.StringIO()):
                solver.reconstruct()
            yield k * every, held.object[0, 0, 0, 0].copy(), (top, left)

    return imported(run, "PtyLab")


def phase_rms(data: Dataset, where: Field, image: np.ndarray, origin: tuple[int, int]) -> float:
    """Phase error of an image against the truth, rad RMS."""
    error = align(data.object, image, origin, where).phase - true_phase(where.crop(data.object))
    return float(np.sqrt(np.mean(error**2)))


def measured(course: Course, data: Dataset, where: Field, most: float, target: float) -> dict[str, float]:
    """Least error of a course, when it was reached, and when the target was."""
    spent, best, reached = 0.0, (np.inf, 0.0, 0), np.nan
    while spent < most:
        started = time.process_time()
        found = next(course, None)
        if found is None:
            break
        spent += time.process_time() - started
        error = phase_rms(data, where, *found[1:])
        if error < best[0]:
            best = error, spent, found[0]
        if not reached <= spent and error <= target:
            reached = spent
    return {"error": best[0], "CPU-s": best[1], "iterations": best[2], "target": reached}


PEERS: dict[str, Callable[[Dataset], Course]] = {
    "ML (ours)": ours("ML"),
    "MAP (ours)": ours("MAP"),
    "LSQML (pty-chi, fast form)": ours("LSQML"),
    "LSQML (pty-chi's class)": ours("LSQML", engine="stock"),
    "PtyPy ML, Gaussian, preconditioned": ptypy_engine("ML", 10, ML_type="gaussian", scale_precond=True),
    "PtyPy ML, Poisson": ptypy_engine("ML", 10, ML_type="poisson", scale_precond=True),
    "PtyPy DM": ptypy_engine("DM", 10),
    "PtyPy ePIE": ptypy_engine("EPIE", 5),
    "cdtools L-BFGS, Poisson": cdtools_engine(
        "LBFGSReconstructor", 1, "poisson nll", steps=5, lr=1.0, history_size=10, calculation_width=20
    ),
    "cdtools Adam, Poisson": cdtools_engine(
        "AdamReconstructor", 1, "poisson nll", lr=0.05, batch_size=124, calculation_width=20
    ),
    "cdtools Adam, amplitudes": cdtools_engine(
        "AdamReconstructor", 1, "amplitude mse", lr=0.05, batch_size=124, calculation_width=20
    ),
    "PtyLab ePIE, amplitudes": ptylab_engine("ePIE", 2, betaObject=0.5),
    "PtyLab ePIE, Poisson": ptylab_engine("ePIE", 2, "poisson", betaObject=0.3),
    "PtyLab mPIE, Poisson": ptylab_engine("mPIE", 2, "poisson", betaObject=0.15, alphaObject=1.0),
    "PtyLab mPIE, whole pixels": ptylab_engine("mPIE", 2, "poisson", True, betaObject=0.15, alphaObject=1.0),
}


def main(dose: float = 1e4, view: str = "dense", seed: int = 42, most: float = 120.0) -> None:
    (_, _, data, where), *_ = conditions(get_study_design("quick"), [dose], [view], "train", seed)
    rows, target = [], np.inf
    for name, peer in PEERS.items():
        try:
            row = measured(peer(data), data, where, most, target)
        except ImportError as missing:
            print(f"{name}: {missing}")
            continue
        target = 1.05 * row["error"] if not rows else target
        rows.append({"program": name, **row})
        print(pd.DataFrame(rows).tail(1).round(4).to_string(index=False, header=len(rows) == 1), flush=True)


if __name__ == "__main__":
    typer.run(main)
