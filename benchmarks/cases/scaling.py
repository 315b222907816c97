"""Seconds over problem size, phase by phase, with the exponent that fits; a training step's is in `training.py`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from case import Case, scaling
from profiles import method_settings

from fly64_nb.comparison import Image, compare_condition
from fly64_nb.data.base import Base
from fly64_nb.data.builtin import builtin_base
from fly64_nb.data.dataset import Dataset
from fly64_nb.datasets import make_datasets
from fly64_nb.methods.lsqml import LSQML
from fly64_nb.methods.ptychi.solver import reconstruct
from fly64_nb.overlap import make_view
from fly64_nb.physics.stitching import stitch_patches
from fly64_nb.quality.alignment import common_field

PITCH, WINDOW = 5.2, 64


def scan(count: int) -> Base:
    """A base with so many positions, about."""
    side = PITCH * (count**0.5 - 1) + 0.1
    return builtin_base(side, side, PITCH, window=WINDOW)


def dataset(count: int) -> Dataset:
    """A split of about so many patterns: the scan is taller than wide, and one half of it."""
    side = PITCH * (count**0.5 - 1) + 0.1
    return make_datasets(builtin_base(2 * side + 60, side, PITCH, window=WINDOW), 1e4)["train"]


def generation(count: int) -> Callable[[], object]:
    """Phase C."""
    base = scan(count)
    return lambda: make_datasets(base, 1e4)


def view(count: int) -> Callable[[], object]:
    """Phase D, the dense view."""
    data = dataset(count)
    return lambda: make_view(data)


def solver(count: int) -> Callable[[], object]:
    """Phase F, two epochs of either part of the schedule."""
    data = dataset(count)
    counts = data.counts()
    settings = method_settings(LSQML, "quick", epochs=4, start_epochs=2, damped_epochs=1, device="cpu")
    return lambda: reconstruct(counts, data.y, data.x, data.probe, settings)


def comparison(count: int) -> Callable[[], object]:
    """Phase G: one image, stitched, aligned and measured."""
    data = dataset(count)
    noisy = data.Y + 0.03 * np.random.default_rng(0).standard_normal(data.Y.shape).astype(np.float32)

    def compare() -> object:
        image = Image(*stitch_patches(noisy, data.probe, data.y, data.x), 0.0)
        field = common_field([(data.y, data.x)], data.object.shape)
        return compare_condition(data.object, field, {"LSQML": image}, data.condition)

    return compare


def cases(full: bool, gpu: bool) -> list[Case]:
    sizes = (500, 1_000, 2_000, 4_000, 8_000) if full else (500, 1_000, 2_000)
    solved, repeats = (sizes, 3) if full else ((250, 500, 1_000), 2)
    return [
        scaling("scaling of a dose's datasets (C)", sizes, generation),
        scaling("scaling of a view (D)", sizes, view),
        scaling("scaling of LSQML (F), 4 epochs", solved, solver, repeats=repeats),
        scaling("scaling of a comparison (G), one image", sizes, comparison),
    ]
