"""Peak memory of each phase over the number of patterns, and what the full and the paper profile would need of 24 GB.

Each number comes from a Python of its own, which reads a dataset from disk as the phase does, works on it, and prints
its peak resident memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from case import Case, in_child
from profiles import profile_base

from fly64_nb.datasets import split_scan

LIMIT_MB = 24_000
FOLDER = tempfile.TemporaryDirectory()  # goes with the process

START = """
import resource, sys
import numpy as np
count, path = int(sys.argv[1]), sys.argv[2]
"""
READ = """
from fly64_nb.contract import validate_dataset_contract
data = validate_dataset_contract(path)
"""
END = """
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(data), peak / (1e6 if sys.platform == 'darwin' else 1e3))
"""
# both splits lie one above the other in the scan; what is not asked for is a strip
SIMULATE = """
from fly64_nb.data.builtin import builtin_base
from fly64_nb.data.dataset import write_dataset
from fly64_nb.datasets import make_datasets
side = 5.2 * (count ** 0.5 - 1) + 0.1
base = builtin_base(side, side, 5.2, window=64)
write_dataset(path, make_datasets(base, 1e4)['train'])
data = base.y
"""
SETTINGS = """
from fly64_nb.methods.method import make_settings, settings_of
settings = lambda method, **changes: make_settings(method, settings_of(method, 'quick', changes))
"""
CHOOSE = """
from fly64_nb.overlap import make_view
make_view(data)
"""
TRAIN = """
from fly64_nb.methods.pinn import PINN
PINN.train(data, settings(PINN, images=64), lambda *_, **__: None)
"""
PREDICT = """
from functools import partial
from fly64_nb.methods.networks.learning import best_precision, make_network
from fly64_nb.methods.networks.patch_networks import PhysicsNetwork
from fly64_nb.methods.pinn import PINN
from fly64_nb.physics.stitching import stitch_patches
chosen = settings(PINN, precision=best_precision())
network = make_network(partial(PhysicsNetwork, stages=chosen.stages, dose=data.dose), data, chosen, {})
stitch_patches(network.predict_patches(data.diffraction), data.known_probe, data.known_y, data.known_x)
"""
ITERATE = """
from fly64_nb.methods.lsqml import LSQML
chosen = settings(LSQML, epochs=2, start_epochs=1, device='cpu')
LSQML.reconstruct(data, chosen, None, lambda *_, **__: None)
"""
COMPARE = """
from fly64_nb.comparison import Image, compare_condition, expected_photons
from fly64_nb.physics.stitching import stitch_patches
from fly64_nb.quality.alignment import common_field
image = Image(*stitch_patches(data.Y, data.probe, data.y, data.x), 0.0)
images = dict.fromkeys(('PINN', 'Supervised', 'LSQML'), image)
field = common_field([(data.y, data.x)], data.object.shape)
compare_condition(data.object, field, images, data.condition, photons=expected_photons(data))
"""
SIMULATION = "simulation (C)"
PHASES = {
    SIMULATION: START + SIMULATE + END,
    "overlap (D)": START + READ + CHOOSE + END,
    "training (E)": START + READ + SETTINGS + TRAIN + END,
    "network (F)": START + READ + SETTINGS + PREDICT + END,
    "LSQML (F)": START + READ + SETTINGS + ITERATE + END,
    "comparison (G)": START + READ + COMPARE + END,
}


@cache
def patterns(profile: str, whole: bool) -> int:
    """Patterns of a profile's scan, or of its train split."""
    base = profile_base(profile)
    return len(base.y) if whole else len(split_scan(base.y, base.probe).train)


def dataset(scan: int) -> Path:
    """Path of the train split of a scan of about so many patterns; the simulation's own run has written it."""
    return Path(FOLDER.name) / f"{scan}.npz"


@cache
def peak(phase: str, scan: int) -> tuple[int, float]:
    """Patterns that a phase worked on, and its peak in megabytes."""
    if phase != SIMULATION and not dataset(scan).is_file():
        peak(SIMULATION, scan)
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
        return fixed + slope * patterns(profile, phase == SIMULATION) / 1000

    return megabytes


def fit_in_words(phase: str, scans: tuple[int, ...]) -> Callable[[], str]:
    """The fit and what it was made from."""

    def text() -> str:
        fixed, slope = growth(phase, scans)
        peaks = ", ".join("{:,}: {:.0f} MB".format(*peak(phase, scan)) for scan in scans)
        return f"{fixed:.0f} MB and {slope:.0f} MB a thousand patterns, from {peaks}"

    return text


def cases(full: bool, gpu: bool) -> list[Case]:
    scans = (2_500, 5_000, 10_000, 20_000) if full else (2_500, 10_000)
    return [
        Case(
            f"peak memory, {phase}, {profile} profile",
            extrapolated(phase, profile, scans),
            f"{patterns(profile, phase == SIMULATION):,} patterns",
            bound=LIMIT_MB,
            peer_name="24 GB",
            unit="MB",
            repeats=1,
            warm_up=False,
            note=fit_in_words(phase, scans) if profile == "full" else "from the same fit",
        )
        for phase in PHASES
        for profile in ("full", "paper")
    ]
