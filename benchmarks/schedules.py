"""Quality per second of LSQML: a study's schedule against the one of before, over every condition of the study.

    python benchmarks/schedules.py STUDY [--split train] [--stock]

Before: Gaussian amplitudes, random batches of 96, no momentum, 100 epochs. Both are run with the fast form, which
gives the same numbers (`tests/test_fast_lsqml.py`); the seconds of "before" are those of pty-chi's own class,
measured on a few epochs of each condition (`--stock` runs all of them). "Reached" is the shortest of some shorter
forms of the schedule whose phase error is not above that of before. STUDY needs phases A to D (`fly64 design`,
`generate`, `overlap`).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

from fly64_nb.contract import validate_dataset_contract
from fly64_nb.data.dataset import Dataset
from fly64_nb.data.reconstruction import Reconstruction
from fly64_nb.methods.lsqml import LSQML
from fly64_nb.methods.method import make_settings
from fly64_nb.methods.ptychi.solver import LsqmlSettings, reconstruct, safe
from fly64_nb.quality.alignment import Field, align, common_field, true_phase
from fly64_nb.results.study import open_study


def errors(found: Reconstruction, data: Dataset, field: Field) -> tuple[float, float]:
    """Root mean square errors of phase (rad) and amplitude in the field."""
    aligned, truth = align(data.object, found.object, found.origin, field), field.crop(data.object)
    return (
        float(np.sqrt(np.mean((aligned.phase - true_phase(truth)) ** 2))),
        float(np.sqrt(np.mean((np.abs(aligned.image) - np.abs(truth)) ** 2))),
    )


def timed(data: Dataset, settings: LsqmlSettings) -> tuple[Reconstruction, float]:
    """A reconstruction and its CPU seconds."""
    began = time.process_time()
    found = reconstruct(data.counts(), data.known_y, data.known_x, data.known_probe, settings)
    return found, time.process_time() - began


def shorter(settings: LsqmlSettings, epochs: int) -> LsqmlSettings:
    """The same schedule in fewer epochs, each part with its share."""
    start = round(settings.start_epochs * epochs / settings.epochs)
    return replace(settings, epochs=epochs, start_epochs=start, damped_epochs=min(settings.damped_epochs, start // 3))


def reached(data: Dataset, field: Field, settings: LsqmlSettings, error: float) -> tuple[int, float]:
    """Epochs and CPU seconds of the shortest form that has at most this phase error; zeros if none has."""
    for epochs in (8, 12, 20, 30, 40, 50, 60, 70, 80):
        found, seconds = timed(data, shorter(settings, epochs))
        if errors(found, data, field)[0] <= error:
            return epochs, seconds
    return 0, 0.0


def compare(data: Dataset, field: Field, now: LsqmlSettings, before: LsqmlSettings, stock: bool) -> None:
    """Print a condition's line."""
    old, old_seconds = timed(data, replace(before, engine="stock" if stock else "auto"))
    if not stock:
        few, more = (timed(data, replace(before, engine="stock", epochs=n, start_epochs=n))[1] for n in (2, 5))
        old_seconds = few + 98 * (more - few) / 3
    new, new_seconds = timed(data, now)
    was, found = errors(old, data, field), errors(new, data, field)
    epochs, seconds = reached(data, field, now, was[0])
    shortest = f"{epochs} epochs, {seconds:.1f} s, ratio {old_seconds / seconds:.1f}" if epochs else "not reached"
    print(
        f"{str(data.condition):40}{len(data):9d} | {was[0]:.4f} / {was[1]:.4f}, {old_seconds:6.1f} s | "
        f"{found[0]:.4f} / {found[1]:.4f}, {new_seconds:5.1f} s, epoch {new.epoch:2d} of {len(new.loss):2d} | "
        f"{old_seconds / new_seconds:5.1f} | {shortest}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("--split", default="train", choices=("train", "test"))
    parser.add_argument(
        "--stock", action="store_true", help="run all epochs of the former schedule with pty-chi's own class"
    )
    arguments = parser.parse_args()
    study = open_study(arguments.study)
    now = make_settings(LSQML, {**study.design.method("LSQML").settings, "seed": 7})
    before = replace(safe(replace(now, epochs=100)), batch=96, start_batch=96, hold_out=0.0)
    print(f"{'condition':40}{'patterns':>9} | before: phase rmse / amplitude rmse, CPU s | now | CPU ratio | reached")
    for dose in study.design.doses:
        conditions = [study.condition(dose, view, arguments.split) for view in study.design.views]
        paths = [path for condition in conditions if (path := study.layout().dataset(condition)).is_file()]
        views = [validate_dataset_contract(path) for path in paths]
        field = common_field([(data.y, data.x) for data in views], views[0].object.shape)
        for data in views:
            compare(data, field, now, before, arguments.stock)


if __name__ == "__main__":
    main()
