"""Programs side by side: CPU-seconds to a phase error, on one condition of the quick study, with the probe known.

    python benchmarks/peers.py [--dose 1e4] [--view dense] [--seed 42] [--most 120]

Each gets the same counts, positions and probe, and is aligned and measured as the comparison does it. Ours and
pty-chi's are run with the settings of the quick profile to their own end. PtyPy (0.9; in no registry, so by its
repository on PYTHONPATH) is stopped and measured every few iterations; the time of measuring is not counted.

error    least phase RMSE in rad, and after how many CPU-seconds and iterations
target   CPU-seconds to the phase RMSE that our ML ends with, times 1.05; a dash: not within the time given
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
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
from fly64_nb.quality.alignment import Field, align, true_phase

Course = Iterator[tuple[int, np.ndarray, tuple[int, int]]]  # iteration, object, its first pixel


def ours(name: str, **changes: Any) -> Callable[[Dataset], Course]:
    """A method of the package, to its own end."""
    method = find_methods()[name][0]

    def run(data: Dataset) -> Course:
        settings = make_settings(method, seeded(method, settings_of(method, "quick", changes), data.seed(name)))
        found = method.reconstruct(data, settings, None, lambda *_, **__: None)
        yield len(found.loss), found.object, found.origin

    return run


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

    return run


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
