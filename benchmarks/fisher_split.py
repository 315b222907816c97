"""What halves of the photons predict of each pixel, against the Fisher matrix of the same small scan.

    python benchmarks/fisher_split.py [--doses 1e3,1e4,1e5] [--spacing 4] [--size 28] [--methods ML,MAP] [--draws 3]

A chip that no study has, a window of 32 px, a field for which the whole matrix fits. A row for each dose and method;
all errors are RMS rad over the field, without its plane.

limit      shot-noise limit 1/(2 sqrt n)
bound      Fisher matrix: least error of any method without a bias, neighbours unknown
noise      noise that halves predict, mean of the draws
true       error against the truth, mean of the draws
noise/bound, true/bound
pixels     correlation between the predicted standard deviation of each pixel and its bound, over the field
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import typer

from fly64_nb.methods.likelihood.common import trial_dataset
from fly64_nb.methods.method import find_methods
from fly64_nb.physics.limits import photons_through, rms_phase_limit
from fly64_nb.physics.fisher import phase_bound
from fly64_nb.quality.alignment import common_field
from fly64_nb.results.resolve import maker, resolve_dataset, scan_method


def main(
    doses: str = "1e3,1e4,1e5", spacing: float = 4.0, size: float = 28.0, methods: str = "ML,MAP", draws: int = 3
) -> None:
    found, rows = find_methods(), []
    for dose in map(float, doses.split(",")):
        data = trial_dataset(dose, spacing, size)
        where = common_field([(data.y, data.x)], data.object.shape)
        field = np.zeros(data.object.shape, bool)
        where.crop(field)[:] = True
        args = data.object, data.probe, data.y, data.x, dose
        bound = phase_bound(*args, field=field)[field]
        limit = rms_phase_limit(photons_through(*args)[field])
        for name in methods.split(","):
            chosen, method = scan_method(name, "quick", found)
            made = [
                resolve_dataset(
                    trial_dataset(dose, spacing, size, seed), maker(method, chosen.settings), where, method=name,
                    deals=2, truth=data.object,
                )
                for seed in range(draws)
            ]  # fmt: skip
            noise = np.sqrt(np.mean([m.quality.noise_rms() ** 2 for m in made]))
            true = np.sqrt(np.mean([m.truth.phase_rms**2 for m in made]))
            std = np.sqrt(np.mean([m.quality.std["phase"] ** 2 for m in made], 0))
            level = np.sqrt(np.nanmean(bound**2))
            rows.append({
                "dose": f"{dose:g}", "method": name, "limit": limit, "bound": level, "noise": noise, "true": true,
                "noise/bound": noise / level, "true/bound": true / level,
                "pixels": np.corrcoef(np.log(std.ravel()), np.log(bound))[0, 1],
            })  # fmt: skip
            print(pd.DataFrame(rows).tail(1).round(4).to_string(index=False, header=len(rows) == 1), flush=True)


if __name__ == "__main__":
    typer.run(main)
