"""Seconds over problem size, phase by phase, with the exponent that fits (that of a training step is in `training.py`)."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from case import Case, scaling

from fly64_nb.comparison import Image, compare_condition
from fly64_nb.contract import Dataset
from fly64_nb.core.alignment import common_field
from fly64_nb.core.bases import builtin_base
from fly64_nb.core.solver import reconstruct
from fly64_nb.core.stitching import stitch_patches
from fly64_nb.datasets import make_datasets
from fly64_nb.design import StudyDesign, get_study_design
from fly64_nb.overlap import make_view

PITCH, WINDOW = 5.2, 64


def scan(count: int):
    """A base with so many positions, about."""
    side = PITCH * (count**0.5 - 1) + 0.1
    return builtin_base(side, side, PITCH, window=WINDOW)


def dataset(count: int, design: StudyDesign) -> Dataset:
    """A split of about so many patterns: the scan is taller than wide, and one half of it."""
    side = PITCH * (count**0.5 - 1) + 0.1
    return make_datasets(builtin_base(2 * side + 60, side, PITCH, window=WINDOW), design, 1e4)["train"]


def generation(design: StudyDesign) -> Callable[[int], Callable[[], object]]:
    """Phase C."""
    def prepare(count: int) -> Callable[[], object]:
        base = scan(count)
        return lambda: make_datasets(base, design, 1e4)
    return prepare


def view(design: StudyDesign) -> Callable[[int], Callable[[], object]]:
    """Phase D, the dense view."""
    def prepare(count: int) -> Callable[[], object]:
        data = dataset(count, design)
        return lambda: make_view(data, design, "dense")
    return prepare


def solver(design: StudyDesign) -> Callable[[int], Callable[[], object]]:
    """Phase F, two epochs of either part of the schedule."""
    def prepare(count: int) -> Callable[[], object]:
        data = dataset(count, design)
        counts = data.counts()
        settings = replace(design.lsqml_settings(0, 4), start_epochs=2, device="cpu")
        return lambda: reconstruct(counts, data.y, data.x, data.probe, settings)
    return prepare


def comparison(design: StudyDesign) -> Callable[[int], Callable[[], object]]:
    """Phase G without the networks: one image, stitched, aligned and measured."""
    def prepare(count: int) -> Callable[[], object]:
        data = dataset(count, design)
        noisy = data.Y + 0.03 * np.random.default_rng(0).standard_normal(data.Y.shape).astype(np.float32)

        def compare() -> object:
            image, origin = stitch_patches(noisy, data.probe, data.y, data.x)
            field = common_field([(data.y, data.x)], data.object.shape)
            return compare_condition(data.object, field, {"PtyChi": Image(image, origin, 0.0)}, design, 1e4, "baseline", "train")
        return compare
    return prepare


def cases(full: bool, gpu: bool) -> list[Case]:
    design = get_study_design("quick")
    sizes = (500, 1_000, 2_000, 4_000, 8_000) if full else (500, 1_000, 2_000)
    return [scaling("scaling of a dose's datasets (C)", sizes, generation(design)), scaling("scaling of a view (D)", sizes, view(design)),
            scaling("scaling of LSQML (F), 4 epochs", sizes if full else (250, 500, 1_000), solver(design), repeats=3 if full else 2),
            scaling("scaling of a comparison (G), one image", sizes, comparison(design))]
