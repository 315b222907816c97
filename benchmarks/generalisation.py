"""What trained networks do with an object they have not seen, and with a probe that is not quite the one they know.

    python benchmarks/generalisation.py STUDY [--dose 1e4] [--view dense]

Takes the networks of a finished study on the built-in base. Everything is measured on the test split's positions: the study's own object, another
object of the same family, one of another kind (discs), and the study's object lit by a probe with 10 % more defocus, which the methods are not told
about, or are. LSQML runs beside, with the probe that it is told held or refined.
"""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fly64_nb.core.networks as networks  # first: it settles the order of heavy imports

import numpy as np
import typer

from fly64_nb.comparison import Image, compare_condition, method_files
from fly64_nb.contract import validate_dataset_contract
from fly64_nb.core.alignment import common_field
from fly64_nb.core.bases import builtin_object, builtin_probe, read_base
from fly64_nb.core.solver import reconstruct
from fly64_nb.datasets import make_datasets
from fly64_nb.design import read_study
from fly64_nb.overlap import view_path
from fly64_nb.training import reconstruct_with_network


def discs(shape: tuple[int, int], seed: int = 5) -> np.ndarray:
    """Round particles of one material on a clear ground: nothing of the chip's lines."""
    rng = np.random.default_rng(seed)
    thickness = np.zeros(shape)
    rows, columns = np.mgrid[:shape[0], :shape[1]]
    for _ in range(shape[0] * shape[1] // 250):
        (y, x), radius = rng.uniform((0, 0), shape), rng.uniform(3, 12)
        thickness = np.maximum(thickness, np.sqrt(np.clip(1 - ((rows - y) ** 2 + (columns - x) ** 2) / radius**2, 0, 1)) * radius / 12)
    return ((1 - 0.3 * thickness) * np.exp(1j * 1.2 * thickness)).astype(np.complex64)


def main(study: Path, dose: float = 1e4, view: str = "dense") -> None:
    design, base = read_study(study)["design"], read_base(study / "base.npz")
    chosen = validate_dataset_contract(view_path(study, dose, view, "test"))
    field = common_field([(chosen.y, chosen.x)], base.object.shape)
    files = method_files(study, design, dose, view, "test")
    trained = {name: networks.load_network(files[name]) for name in ("PtychoPINN", "Baseline")}
    known = trained["PtychoPINN"].diffraction, chosen.probe
    defocused = builtin_probe(base.window, defocus_waves=1.27 * 1.1)
    cases = [("the study's object", base.object, base.probe, False), ("another of its family", builtin_object(base.object.shape, 11), base.probe, False),
             ("discs", discs(base.object.shape), base.probe, False), ("defocus + 10 %, not told", base.object, defocused, False),
             ("defocus + 10 %, told", base.object, defocused, True)]
    print(f"{dose:g} photons, {view}, test split: phase MS-SSIM / published / RMSE (rad); amplitude SSIM")
    for name, obj, probe, told in cases:
        data = make_datasets(replace(base, object=obj, probe=probe), design, dose)["test"]
        data = data.select(np.flatnonzero(np.isin(data.scan_index, chosen.scan_index)))
        believed = data.probe if told else known[1]
        images = {}
        for method, network in trained.items():
            network.diffraction.set_probe(believed)
            images[method] = Image(*reconstruct_with_network(network, replace(data, probe=believed)))
        for method, refine in (("PtyChi", False), ("PtyChi, refining the probe", True)):
            found = reconstruct(data.counts(), data.y, data.x, believed, replace(design.lsqml_settings(1), update_probe=refine))
            images[method] = Image(found.object, found.origin, found.seconds)
        table = compare_condition(obj, field, images, design, dose, view, "test").table.set_index(["method", "channel", "metric"])["value"]
        for method in images:
            v = lambda channel, metric: table[method, channel, metric]
            print(f"{name:26s} {method:27s} {v('phase', 'ms_ssim'):.3f} / {v('phase', 'ms_ssim_published'):.3f} / {v('phase', 'rmse'):.3f}; "
                  f"{v('amplitude', 'ssim'):.3f}", flush=True)


if __name__ == "__main__":
    typer.run(main)
