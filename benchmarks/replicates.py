"""Where one method beats another by more than chance: the same study with several noise seeds.

    fly64 run A --seed 42; fly64 run B --seed 43; fly64 run C --seed 44
    python benchmarks/replicates.py A B C [--metric ms_ssim] [--channel phase] [--split test]

Prints mean ± standard deviation over the seeds of each method in each condition, the best method, and by how much it leads the next one, as the mean
of the paired differences and their standard deviation. A lead is called chance when a sign is not the same in every replicate.
"""
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from fly64_nb.comparison import METHOD_ORDER
from fly64_nb.design import read_study


def main(studies: list[Path], metric: str = "ms_ssim", channel: str = "phase", split: str = "test",
         lower: Annotated[bool, typer.Option("--lower", help="Lower is better, as for rmse.")] = False) -> None:
    design = read_study(studies[0])["design"]
    seeds = [read_study(s)["design"].simulation_seed for s in studies]
    table = pd.concat([pd.read_csv(s / "metrics.csv") for s in studies])
    rows = table[(table["metric"] == metric) & (table["channel"] == channel) & (table["split"] == split)]
    values = rows.pivot_table("value", ["dose", "view", "method"], "seed")[seeds]
    print(f"{channel} {metric}, {split} split, seeds {seeds}")
    for dose in design.doses:
        for view in design.views:
            here = values.loc[dose, view].reindex(METHOD_ORDER)
            ranked = here.mean(axis=1).sort_values(ascending=lower).index
            lead = (here.loc[ranked[0]] - here.loc[ranked[1]]).to_numpy() * (-1 if lower else 1)
            verdict = "" if (lead > 0).all() or len(seeds) < 2 else "  (chance)"
            cells = "  ".join(f"{m} {here.loc[m].mean():.4f} ± {here.loc[m].std(ddof=1):.4f}" for m in METHOD_ORDER)
            print(f"{dose:7g} {view:8s}  {cells}  best: {ranked[0]}, ahead of {ranked[1]} by {np.mean(lead):.4f} ± {np.std(lead, ddof=1):.4f}{verdict}")


if __name__ == "__main__":
    typer.run(main)
