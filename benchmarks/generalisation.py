"""What trained networks do with an object they have not seen, and with a probe that is not quite the one they know.

    python benchmarks/generalisation.py STUDY [--dose 1e4] [--view dense]

Takes the networks of a finished study on the built-in base. Everything is measured on the test split's positions: the
study's own object, another object of the same family, one of another kind (discs), and the study's object lit by a
probe with 10 % more defocus, which the methods are not told about, or are. LSQML runs beside, with the probe that it
is told held or refined.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fly64_nb.methods.networks.patch_networks as networks  # first: TensorFlow must come after PyTorch's triton

import numpy as np
import typer

from fly64_nb.comparison import Image, compare_condition
from fly64_nb.contract import validate_dataset_contract
from fly64_nb.data.base import read_base
from fly64_nb.data.builtin import builtin_object, builtin_probe
from fly64_nb.data.dataset import Dataset
from fly64_nb.datasets import make_datasets
from fly64_nb.methods.lsqml import LSQML
from fly64_nb.methods.method import make_settings
from fly64_nb.methods.ptychi.solver import LsqmlSettings, reconstruct
from fly64_nb.physics.stitching import stitch_patches
from fly64_nb.quality.alignment import common_field
from fly64_nb.results.study import open_study


def discs(shape: tuple[int, int], seed: int = 5) -> np.ndarray:
    """Round particles of one material on a clear ground: nothing of the chip's lines."""
    rng = np.random.default_rng(seed)
    thickness = np.zeros(shape)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for _ in range(shape[0] * shape[1] // 250):
        (y, x), radius = rng.uniform((0, 0), shape), rng.uniform(3, 12)
        disc = np.sqrt(np.clip(1 - ((rows - y) ** 2 + (columns - x) ** 2) / radius**2, 0, 1)) * radius / 12
        thickness = np.maximum(thickness, disc)
    return ((1 - 0.3 * thickness) * np.exp(1j * 1.2 * thickness)).astype(np.complex64)


def by_network(network: networks.PatchNetwork, data: Dataset, probe: np.ndarray) -> Image:
    """Object of a dataset by a network that is told a probe, whatever probe it was trained with."""
    network.diffraction.set_probe(probe)
    return Image(*stitch_patches(network.predict_patches(data.diffraction), probe, data.y, data.x), 0.0)


def by_lsqml(data: Dataset, probe: np.ndarray, settings: LsqmlSettings) -> Image:
    """Object of a dataset by LSQML from a probe."""
    found = reconstruct(data.counts(), data.y, data.x, probe, settings)
    return Image(found.object, found.origin, found.seconds)


def main(study: Path, dose: float = 1e4, view: str = "dense") -> None:
    opened = open_study(study)
    design, layout, condition = opened.design, opened.layout(), opened.condition(dose, view, "test")
    base, chosen = read_base(layout.base), validate_dataset_contract(layout.dataset(condition))
    field = common_field([(chosen.y, chosen.x)], base.object.shape)
    trained = {}
    for name in ("PINN", "Supervised"):
        method = design.method(name)
        model = layout.learned(method.learned_on(condition), name) / method.model_file
        trained[name] = networks.load_network(model)
    settings = make_settings(LSQML, {**design.method("LSQML").settings, "seed": 1})
    defocused = builtin_probe(base.window, defocus_waves=1.27 * 1.1)
    cases = [
        ("the study's object", base.object, base.probe, False),
        ("another of its family", builtin_object(base.object.shape, 11), base.probe, False),
        ("discs", discs(base.object.shape), base.probe, False),
        ("defocus + 10 %, not told", base.object, defocused, False),
        ("defocus + 10 %, told", base.object, defocused, True),
    ]
    print(f"{condition}: phase MS-SSIM / published / RMSE (rad); amplitude SSIM")
    for title, obj, probe, told in cases:
        changed = replace(base, object=obj, probe=probe)
        data = make_datasets(changed, dose, mode=design.mode, seed=design.simulation_seed)["test"]
        data = data.select(np.flatnonzero(np.isin(data.scan_index, chosen.scan_index)))
        believed = data.probe if told else chosen.known_probe
        images = {name: by_network(network, data, believed) for name, network in trained.items()}
        for name, refine in (("LSQML", False), ("LSQML, refining the probe", True)):
            images[name] = by_lsqml(data, believed, replace(settings, update_probe=refine))
        table = compare_condition(obj, field, images, condition).table.set_index(["method", "channel", "metric"])
        for name in images:
            value = table.loc[name]["value"]
            print(
                f"{title:26s} {name:26s} {value['phase', 'ms_ssim']:.3f} / {value['phase', 'ms_ssim_published']:.3f} / "
                f"{value['phase', 'rmse']:.3f}; {value['amplitude', 'ssim']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
