"""Peak memory of each phase over the number of patterns, and what the full and the paper profile would need of 24 GB.

Each number comes from a Python of its own, which reads a dataset from disk as the phase does, works on it, and says its peak resident memory.
"""
from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from case import Case, in_child

from fly64_nb.datasets import split_scan
from fly64_nb.design import get_study_design, make_base

LIMIT_MB = 24_000
FOLDER = tempfile.TemporaryDirectory()                         # goes with the process

START = """
import resource, sys
import numpy as np
from dataclasses import replace
from fly64_nb.core.bases import builtin_base
from fly64_nb.design import get_study_design
count, path = int(sys.argv[1]), sys.argv[2]
design = get_study_design('quick')
side = 5.2 * (count ** 0.5 - 1) + 0.1
"""
READ = "from fly64_nb.contract import validate_dataset_contract\ndata = validate_dataset_contract(path)\n"
END = "\nprint(len(data), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == 'darwin' else 1e3))\n"
# both splits lie one above the other in the scan; what is not asked for is a strip
MAKE = START + """
from fly64_nb.contract import write_dataset
from fly64_nb.datasets import make_datasets
base = builtin_base(side, side, 5.2, window=64)
sets = make_datasets(base, design, 1e4)
write_dataset(path, sets['train'])
data = base.y
""" + END
NETWORK = """
from fly64_nb.training import TrainingSettings, best_precision, make_network, train_network
import fly64_nb.core.networks
settings = TrainingSettings(images=64, filters=design.filters, stages=design.stages, precision=best_precision())
"""
PHASES = {
    "simulation (C)": MAKE,
    "overlap (D)": START + READ + "from fly64_nb.overlap import make_view\nmake_view(data, design, 'dense')\n" + END,
    "training (E)": START + READ + NETWORK + "train_network(data, 'PtychoPINN', settings)\n" + END,
    "LSQML (F)": START + READ + "from fly64_nb.core.solver import reconstruct\n"
                 "reconstruct(data.counts(), data.y, data.x, data.probe, replace(design.lsqml_settings(0, 2), start_epochs=1, device='cpu'))\n" + END,
    "comparison (G)": START + READ + NETWORK + """
from fly64_nb.comparison import Image, compare_condition
from fly64_nb.core.alignment import common_field
from fly64_nb.training import reconstruct_with_network
network = make_network('PtychoPINN', data.probe, settings, data.dose, {})
image = Image(*reconstruct_with_network(network, data))
images = dict.fromkeys(('PtychoPINN', 'Baseline', 'PtyChi'), image)
compare_condition(data.object, common_field([(data.y, data.x)], data.object.shape), images, design, 1e4, 'baseline', 'train')
""" + END}


@cache
def patterns(profile: str, whole: bool) -> int:
    """Patterns of a profile's scan, or of its train split."""
    base, _ = make_base(get_study_design(profile))
    return len(base.y) if whole else len(split_scan(base.y, base.probe).train)


def dataset(scan: int) -> Path:
    """Path of the train split of a scan of about so many patterns; the simulation's own run has written it."""
    return Path(FOLDER.name) / f"{scan}.npz"


@cache
def peak(phase: str, scan: int) -> tuple[int, float]:
    """Patterns that a phase worked on, and its peak in megabytes."""
    if phase != "simulation (C)" and not dataset(scan).is_file():
        peak("simulation (C)", scan)
    count, megabytes = in_child(PHASES[phase], scan, dataset(scan)).split()[-2:]
    return int(count), float(megabytes)


def growth(phase: str, scans: tuple[int, ...]) -> tuple[float, float]:
    """Fixed megabytes, and megabytes a thousand patterns, by least squares."""
    points = [peak(phase, scan) for scan in scans]
    n0, m0 = (sum(c) / len(points) for c in zip(*points))
    slope = sum((n - n0) * (m - m0) for n, m in points) / sum((n - n0) ** 2 for n, _ in points)
    return m0 - slope * n0, slope * 1000


def extrapolated(phase: str, profile: str, scans: tuple[int, ...]) -> Callable[[], float]:
    """Megabytes that a job of a phase would need in a profile."""
    def megabytes() -> float:
        fixed, slope = growth(phase, scans)
        return fixed + slope * patterns(profile, phase == "simulation (C)") / 1000
    return megabytes


def said(phase: str, scans: tuple[int, ...]) -> Callable[[], str]:
    """The fit and what it was made from."""
    def text() -> str:
        fixed, slope = growth(phase, scans)
        peaks = ", ".join("{:,}: {:.0f} MB".format(*peak(phase, scan)) for scan in scans)
        return f"{fixed:.0f} MB and {slope:.0f} MB a thousand patterns, from {peaks}"
    return text


def cases(full: bool, gpu: bool) -> list[Case]:
    scans = (2_500, 5_000, 10_000, 20_000) if full else (2_500, 10_000)
    return [Case(f"peak memory, {phase}, {profile} profile", extrapolated(phase, profile, scans),
                 f"{patterns(profile, phase == 'simulation (C)'):,} patterns",
                 bound=LIMIT_MB, peer_name="24 GB", unit="MB", repeats=1, warm_up=False,
                 note=said(phase, scans) if profile == "full" else "from the same fit")
            for phase in PHASES for profile in ("full", "paper")]
