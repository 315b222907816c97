"""How far a network's quality goes with more patterns seen and more width.

    python benchmarks/longer_training.py STUDY [--dose 1e4] [--view dense] [--method PINN] --sizes 8000x12,40000x16

Trains on the study's train split once for each size (patterns seen x filters), and prints the quality on the test split
beside the seconds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import fly64_nb.methods.networks.patch_networks  # noqa: F401  first: TensorFlow must come after PyTorch's triton

import typer

from fly64_nb.comparison import Image, compare_condition
from fly64_nb.contract import validate_dataset_contract
from fly64_nb.data.dataset import Dataset
from fly64_nb.methods.method import load_method
from fly64_nb.quality.alignment import common_field
from fly64_nb.reconstruction import reconstruct_with
from fly64_nb.results.study import Study, open_study
from fly64_nb.training import train_on


def read(study: Study, dose: float, view: str, split: str) -> Dataset:
    """Dataset of a condition of a study."""
    return validate_dataset_contract(study.layout().dataset(study.condition(dose, view, split)))


def main(
    study: Path,
    dose: float = 1e4,
    view: str = "dense",
    method: str = "PINN",
    sizes: str = "8000x12,40000x16,100000x24",
) -> None:
    opened = open_study(study)
    chosen = opened.design.method(method)
    learner = load_method(method, chosen.source, opened.path)
    learned_on = chosen.learned_on(opened.condition(dose, view))
    train, test = read(opened, dose, learned_on.view, "train"), read(opened, dose, view, "test")
    everything = [read(opened, dose, v, "test") for v in opened.design.views]
    field = common_field([(d.y, d.x) for d in everything], test.object.shape)
    for size in sizes.split(","):
        images, filters = map(int, size.split("x"))
        settings = {**chosen.settings, "images": images, "filters": filters}
        trained = train_on(train, learner, settings, lambda *_, **__: None)
        with tempfile.TemporaryDirectory() as folder:
            trained.save(Path(folder) / chosen.model_file)
            found = reconstruct_with(test, learner, settings, Path(folder) / chosen.model_file, lambda *_, **__: None)
        image = Image(found.object, found.origin, found.seconds)
        table = compare_condition(test.object, field, {method: image}, test.condition).table
        value, losses = table.set_index(["channel", "metric"])["value"], trained.history["val_loss"]
        print(
            f"{method} {dose:g} {view}: {images} patterns, {filters} filters, {', '.join(trained.notes)}, "
            f"{trained.seconds:.0f} s, validation {losses.min():.5f}: "
            f"phase MS-SSIM {value['phase', 'ms_ssim']:.4f} / {value['phase', 'ms_ssim_published']:.4f}, "
            f"RMSE {value['phase', 'rmse']:.4f} rad, "
            f"amplitude SSIM {value['amplitude', 'ssim']:.3f}, RMSE {value['amplitude', 'rmse']:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
