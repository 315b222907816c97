"""What halves of the photons predict, against the truth: phase error, resolution, and whether intervals hold.

    python benchmarks/calibrate_split.py [--profile quick] [--doses 1e3,1e4,1e5] [--views dense] [--methods ML,MAP]
                                         [--split train] [--seeds 1] [--deals 2] [--csv FILE]

The same counts, positions and fields as a study of the profile has them, in memory; a row for each dose, view, seed and
method. Of the test split nothing should be tuned.

predicted   phase error, RMS rad, without a truth: noise and what is seen besides
true        against the truth
hp          half period in px where the halves fall to 1/7
hp_judged   the same as the judge sees it, of half of the dose
hp_true     where the correlation with the truth falls to 0.5, which is the same convention
held68/95   share of the pixels whose error is within the interval that should hold 68 or 95 per cent
noise68/95  the same with noise alone
limit       shot-noise limit of the phase, RMS rad
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import typer
from scipy.stats import t as student

from fly64_nb.data.dataset import Dataset
from fly64_nb.datasets import make_datasets
from fly64_nb.design import StudyDesign, get_study_design
from fly64_nb.methods.method import find_methods
from fly64_nb.overlap import denser_views, make_views
from fly64_nb.quality.advice import half_period_px
from fly64_nb.quality.alignment import Field, common_field
from fly64_nb.results.resolve import Resolved, judge_for, maker, resolve_dataset, scan_method
from profiles import profile_base


def conditions(
    design: StudyDesign, doses: list[float], views: list[str], split: str, seed: int
) -> Iterator[tuple[float, str, Dataset, Field]]:
    """Dataset and field of each dose and view."""
    base = profile_base(design.profile)
    for dose in doses:
        sets = {split: make_datasets(base, dose, seed=seed, splits=[split])[split]}
        there = {}
        for view in design.views:
            target, gridsize = design.overlap_targets.get(view), design.gridsize(view)
            made = make_views(sets, view, target, gridsize, denser=denser_views(design, view))[split][0]
            there |= {} if made is None else {view: made}
        where = common_field([(d.y, d.x) for d in there.values()], base.object.shape)
        yield from ((dose, view, there[view], where) for view in views if view in there)


def row_of(found: Resolved, seconds: float) -> dict[str, float | str]:
    """Predicted and true of one image."""
    quality, truth = found.quality, found.truth
    assert truth is not None
    nu, error = quality.freedom["phase"][0], np.abs(truth.phase_error)
    noise = {f"noise{p}": np.mean(error <= quality.std["phase"] * student.ppf(0.5 + p / 200, nu)) for p in (68, 95)}
    return {
        "noise": quality.noise_rms(),
        "dose_bias": quality.dose_bias_rms,
        "judged": np.nan if quality.judged is None else quality.judged,
        "predicted": quality.phase_rms,
        "true": truth.phase_rms,
        "ratio": quality.phase_rms / truth.phase_rms,
        "hp": quality.resolution()["one_seventh"],
        "hp_judged": quality.resolution().get("judged", np.nan),
        "hp_true": half_period_px(found.true_resolution),
        "held68": truth.held(quality, 0.68),
        "held95": truth.held(quality, 0.95),
        **noise,
        "limit": found.limit,
        "s": seconds,
    }


def main(
    profile: str = "quick", doses: str = "1e3,1e4,1e5", views: str = "dense", methods: str = "ML,MAP",
    split: str = "train", seeds: int = 1, deals: int = 2, csv: str = "",
) -> None:  # fmt: skip
    design, found, rows = get_study_design(profile), find_methods(), []
    for seed in range(design.simulation_seed, design.simulation_seed + seeds):
        asked = [float(dose) for dose in doses.split(",")], views.split(",")
        for dose, view, data, where in conditions(design, *asked, split, seed):
            for name in methods.split(","):
                started = time.perf_counter()
                chosen, method = scan_method(name, profile, found)
                made = resolve_dataset(
                    data, maker(method, chosen.settings), where, method=name, deals=deals, truth=data.object,
                    judge=judge_for(method, "ML", profile, found),
                )  # fmt: skip
                place = {"dose": f"{dose:g}", "view": view, "seed": seed, "method": name, "patterns": len(data)}
                rows.append({**place, **row_of(made, time.perf_counter() - started)})
                table = pd.DataFrame(rows)
                print(table.tail(1).round(4).to_string(index=False, header=len(rows) == 1), flush=True)
                if csv:
                    table.to_csv(csv, index=False)


if __name__ == "__main__":
    typer.run(main)
