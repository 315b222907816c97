"""Dose and overlap that a wanted quality needs: made-up curves with a known answer, and the command on a study."""
from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from conftest import fly64
from fly64_nb.comparison import METRICS_COLUMNS
from fly64_nb.core.advice import advise, advise_overlap, advise_study, show_advice
from fly64_nb.core.bases import read_base

VIEWS = {"baseline": 0.8, "dense": 0.6, "sparse": 0.2}


def table_of(rmse, doses=(1e3, 1e4, 1e5), seeds=(42,), noise=0.0, method="PtyChi") -> pd.DataFrame:
    """A tidy table whose phase RMSE is a function of dose and overlap, with relative noise from seed to seed."""
    rng = np.random.default_rng(0)
    rows = [[dose, view, "test", seed, method, "phase", "rmse", rmse(dose, overlap) * np.exp(rng.normal(0, noise))]
            for dose in doses for view, overlap in VIEWS.items() for seed in seeds]
    return pd.DataFrame(rows, columns=METRICS_COLUMNS)


def test_a_power_law_gives_its_dose_and_the_interval_of_its_noise_covers_it():
    found = advise(table_of(lambda d, o: 3 * d**-0.5, seeds=range(42, 47), noise=0.05), phase_rmse=0.05, overlaps=VIEWS, light=dict.fromkeys(VIEWS, 0.01))
    true = (3 / 0.05) ** 2
    assert (found["relation"] == "about").all() and np.allclose(found["dose"], true, rtol=0.1)
    assert ((found["low"] < true) & (true < found["high"])).all() and (found["high"] / found["low"] < 1.6).all()
    assert np.allclose(found["photons_per_pixel"], found["dose"] * 0.01) and set(zip(found["bracket_low"], found["bracket_high"])) == {(1e3, 1e4)}


@pytest.mark.parametrize("wanted", [0.03, 0.05, 0.09])
def test_the_interval_of_a_curve_that_levels_off_covers_what_the_chord_misses(wanted):
    floor = 0.02
    found = advise(table_of(lambda d, o: np.hypot(3 * d**-0.5, floor)), phase_rmse=wanted).iloc[0]
    true = 9 / (wanted**2 - floor**2)
    assert found["bracket_low"] < found["low"] <= true <= found["high"] < found["bracket_high"] and "noise unknown" in found["said"]
    sparse = advise(table_of(lambda d, o: np.hypot(3 * d**-0.5, floor), doses=(1e3, 1e5)), phase_rmse=wanted).iloc[0]
    assert (sparse["low"], sparse["high"]) == pytest.approx((1e3, 1e5))                      # two points say nothing of the curve between them


def test_what_was_not_simulated_is_not_invented():
    table = table_of(lambda d, o: 3 * d**-0.5)
    low, high = advise(table, phase_rmse=0.2).iloc[0], advise(table, phase_rmse=0.001).iloc[0]
    assert (low["relation"], low["dose"], low["low"]) == ("at most", 1e3, 0) and (high["relation"], high["dose"], high["high"]) == ("more than", 1e5, np.inf)
    assert "not reached up to 1e5" in high["said"] and f"best {3 / 1e5**0.5:.3g} rad" in high["said"]
    dip = table_of(lambda d, o: {1e3: 0.04, 1e4: 0.08, 1e5: 0.01}[d])
    row = advise(dip, phase_rmse=0.05).iloc[0]
    assert (row["bracket_low"], row["bracket_high"], row["monotone"]) == (1e4, 1e5, False) and "not at all above it" in row["said"]


def test_the_overlap_at_each_dose_is_that_of_the_curve_over_overlap():
    found = advise_overlap(table_of(lambda d, o: 3 * d**-0.5 * 10 ** (0.8 - o)), VIEWS, phase_rmse=0.05).set_index("dose")
    assert found["relation"].tolist() == ["more than", "about", "at most"]
    assert found.loc[1e4, "overlap"] == pytest.approx(0.8 - np.log10(0.05 / 0.03)) and found.loc[1e5, "overlap"] == 0.2


def test_the_command_answers_from_a_study_and_converts_units(copy):
    law = lambda k: lambda d, o: k * d**-0.5 * 10 ** (0.5 * (0.8 - o))
    table = pd.concat([table_of(law(k), seeds=(42, 43), noise=0.02, method=m) for m, k in (("PtyChi", 3), ("PtychoPINN", 4))])
    resolution = table.assign(channel="complex", metric="frc50", value=0.02 / table["value"])
    pd.concat([table, resolution]).to_csv(copy / "metrics.csv", index=False)
    said = fly64("advise", copy, "--phase-rmse", "0.1").stdout
    assert "2 seeds of the noise" in said and "shot noise alone asks for 25 photons" in said and "Cheapest: " in said and "photons per pixel" in said
    advice = advise_study(copy, phase_rmse=0.1)
    assert set(advice.overlaps) == set(VIEWS) and advice.doses["photons_per_pixel"].gt(0).all() and said.strip().endswith(advice.cheapest())
    assert len(show_advice(advice).axes) == 3                                                # two methods and the colour bar
    pixel = read_base(copy / "base.npz").pixel_size_m * 1e9
    px, nm = (fly64("advise", copy, option, f"{value:g}").stdout for option, value in (("--resolution-px", 2.5), ("--resolution-nm", 2.5 * pixel)))
    assert f"{2.5 * pixel:g} nm is 2.50 px" in nm and px.splitlines()[-1] == nm.splitlines()[-1] and "half period of 2.50 px" in px


def test_the_command_refuses_what_it_cannot_answer(copy):
    def refused(*options):
        done = fly64("advise", copy, *options, check=False)
        assert done.returncode == 2, done.stdout + done.stderr
        return done.stdout

    assert "--phase-rmse and --resolution-nm" in refused("--phase-rmse", "0.1", "--resolution-nm", "40")
    assert "split 'val'" in refused("--phase-rmse", "0.1", "--split", "val")
    (copy / "metrics.csv").unlink()
    assert "metrics.csv: found no file" in refused("--phase-rmse", "0.1")
