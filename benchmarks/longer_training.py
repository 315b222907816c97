"""How far a network's quality goes with more patterns seen and more width.

    python benchmarks/longer_training.py STUDY [--dose 1e4] [--view dense] [--method PtychoPINN] --sizes 8000x12,40000x16,100000x24

Trains on the study's train split once for each size (patterns seen x filters), and prints the quality on the test split beside the seconds.
"""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fly64_nb.core.networks  # noqa: F401  first: it settles the order of heavy imports

import typer

from fly64_nb.comparison import Image, compare_condition
from fly64_nb.contract import validate_dataset_contract
from fly64_nb.core.alignment import common_field
from fly64_nb.design import read_study
from fly64_nb.overlap import view_path
from fly64_nb.training import gridsize_of, reconstruct_with_network, train_network, training_settings


def main(study: Path, dose: float = 1e4, view: str = "dense", method: str = "PtychoPINN", sizes: str = "8000x12,40000x16,100000x24") -> None:
    design = read_study(study)["design"]
    train, test = (validate_dataset_contract(view_path(study, dose, view, split)) for split in ("train", "test"))
    everything = [validate_dataset_contract(view_path(study, dose, v, "test")) for v in design.views]
    field = common_field([(d.y, d.x) for d in everything], test.object.shape)
    for size in sizes.split(","):
        images, filters = map(int, size.split("x"))
        settings = replace(training_settings(design, dose, view, method), images=images, filters=filters)
        trained = train_network(train, method, settings, gridsize_of(design, view), design.neighbor_count)
        found = Image(*reconstruct_with_network(trained.network, test))
        table = compare_condition(test.object, field, {method: found}, design, dose, view, "test").table.set_index(["channel", "metric"])["value"]
        print(f"{method} {dose:g} {view}: {images} patterns, {filters} filters, {trained.network.count_params()} weights, {trained.seconds:.0f} s, "
              f"best epoch {int(trained.history['val_loss'].idxmin()) + 1} of {len(trained.history)}, validation {trained.history['val_loss'].min():.5f}: "
              f"phase MS-SSIM {table['phase', 'ms_ssim']:.4f} / {table['phase', 'ms_ssim_published']:.4f}, RMSE {table['phase', 'rmse']:.4f} rad, "
              f"amplitude SSIM {table['amplitude', 'ssim']:.3f}, RMSE {table['amplitude', 'rmse']:.4f}", flush=True)


if __name__ == "__main__":
    typer.run(main)
