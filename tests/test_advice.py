"""Dose and overlap that a wanted quality needs: made-up curves with a known answer, and the command on a study."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import pytest

from conftest import fly64
from fly64_nb.data.base import read_base
from fly64_nb.quality.advice import advice_of, advise, advise_overlap, advise_study, wanted_quality
from fly64_nb.quality.table import NOTHING, metrics_columns
from fly64_nb.results.study import open_study
from fly64_nb.show.advice import show_advice

VIEWS = {"baseline": 0.8, "dense": 0.6, "sparse": 0.2}


def rmse(value: float):
    """A phase RMSE in rad as what is wanted."""
    return wanted_quality(phase_rmse=value)


def table_of(law, doses=(1e3, 1e4, 1e5), seeds=(42,), noise=0.0, method="LSQML") -> pd.DataFrame:
    """A tidy table whose phase RMSE is a function of dose and overlap, with relative noise from seed to seed."""
    rng = np.random.default_rng(0)
    rows = [
        [dose, view, "test", seed, method, "phase", "rmse", law(dose, overlap) * np.exp(rng.normal(0, noise))]
        for dose in doses
        for view, overlap in VIEWS.items()
        for seed in seeds
    ]
    return pd.DataFrame(rows, columns=metrics_columns())


def with_axis(tables: dict[float, pd.DataFrame], axis: str) -> pd.DataFrame:
    """Tables at some values of a further axis as one."""
    return pd.concat([table.assign(**{axis: value}) for value, table in tables.items()])[metrics_columns([axis])]


def test_a_power_law_gives_its_dose_and_the_interval_of_its_noise_covers_it():
    table = table_of(lambda d, o: 3 * d**-0.5, seeds=range(42, 47), noise=0.05)
    found = advise(table, rmse(0.05), overlaps=VIEWS, light=dict.fromkeys(VIEWS, 0.01))
    true = (3 / 0.05) ** 2
    assert (found["relation"] == "about").all() and np.allclose(found["dose"], true, rtol=0.1)
    assert ((found["low"] < true) & (true < found["high"])).all() and (found["high"] / found["low"] < 1.6).all()
    assert np.allclose(found["photons_per_pixel"], found["dose"] * 0.01)
    assert (found["bracket_low"] == 1e3).all() and (found["bracket_high"] == 1e4).all()


@pytest.mark.parametrize("wanted", [0.03, 0.05, 0.09])
def test_the_interval_of_a_curve_that_levels_off_covers_what_the_chord_misses(wanted):
    floor = 0.02
    law = lambda d, o: np.hypot(3 * d**-0.5, floor)
    found = advise(table_of(law, seeds=(42, 43)), rmse(wanted)).iloc[0]
    true = 9 / (wanted**2 - floor**2)
    assert found["bracket_low"] < found["low"] <= true <= found["high"] < found["bracket_high"]
    sparse = advise(table_of(law, doses=(1e3, 1e5), seeds=(42, 43)), rmse(wanted)).iloc[0]
    # two points say nothing of the curve between them
    assert (sparse["low"], sparse["high"]) == pytest.approx((1e3, 1e5))


def test_one_draw_of_the_noise_has_no_interval():
    found = advise(table_of(lambda d, o: 3 * d**-0.5), rmse(0.05)).iloc[0]
    assert np.isnan(found["low"]) and np.isnan(found["high"])
    assert "one noise draw, so no interval; " not in found["sentence"] and "so no interval" in found["sentence"]
    assert "simulated: 1000 is not enough, 10000 is" in found["sentence"] and "95" not in found["sentence"]


def with_nothing(table: pd.DataFrame, flat: float = 0.192) -> pd.DataFrame:
    """A table with what a flat image scores in each condition."""
    first = table[table["seed"] == table["seed"].min()].drop_duplicates(["dose", "view", "split"])
    return pd.concat([table, first.assign(method=NOTHING, value=flat)])


def test_what_is_no_better_than_nothing_is_never_recommended():
    law = lambda d, o: {1e3: 0.179, 1e4: 0.1, 1e5: 0.05}[d]
    table = with_nothing(table_of(law))
    resolution = table_of(lambda d, o: 0.2).assign(channel="complex", metric="frc50")  # as of a lucky picture
    found = advise(pd.concat([table, resolution]), wanted_quality(frc=0.15)).iloc[0]
    assert (found["relation"], found["bracket_low"], found["bracket_high"]) == ("about", 1e3, 1e4)
    with pytest.raises(ValueError, match="a flat image, nothing reconstructed, has 0.192 rad"):
        advise(table, rmse(0.18))


def test_a_method_that_was_shown_the_truth_is_left_out():
    table = pd.concat([table_of(lambda d, o, k=k: k * d**-0.5, method=m) for m, k in (("Oracle", 1), ("LSQML", 3))])
    advice = advice_of(table, rmse(0.05), VIEWS, without=["Oracle"])
    assert set(advice.doses["method"]) == set(advice.needed_overlaps["method"]) == set(advice.grids()) == {"LSQML"}
    assert "Oracle" not in advice.cheapest() and "Oracle" in advice_of(table, rmse(0.05), VIEWS).cheapest()


def test_what_was_not_simulated_is_not_invented():
    table = table_of(lambda d, o: 3 * d**-0.5)
    low, high = advise(table, rmse(0.2)).iloc[0], advise(table, rmse(0.001)).iloc[0]
    assert (low["relation"], low["dose"], low["bracket_low"]) == ("at most", 1e3, 0)
    assert (high["relation"], high["dose"], high["bracket_high"]) == ("more than", 1e5, np.inf)
    assert "not reached up to 100000" in high["sentence"] and f"best {3 / 1e5**0.5:.3g} rad" in high["sentence"]
    dip = table_of(lambda d, o: {1e3: 0.04, 1e4: 0.08, 1e5: 0.01}[d])
    row = advise(dip, rmse(0.05)).iloc[0]
    assert (row["bracket_low"], row["bracket_high"], row["monotone"]) == (1e4, 1e5, False)
    assert "not at every dose above it" in row["sentence"]


def test_the_overlap_at_each_dose_is_that_of_the_curve_over_overlap():
    table = table_of(lambda d, o: 3 * d**-0.5 * 10 ** (0.8 - o))
    found = advise_overlap(table, rmse(0.05), VIEWS).set_index("dose")
    assert found["relation"].tolist() == ["more than", "about", "at most"]
    assert found.loc[1e4, "overlap"] == pytest.approx(0.8 - np.log10(0.05 / 0.03)) and found.loc[1e5, "overlap"] == 0.2


def test_a_view_with_the_positions_of_another_one_counts_as_the_same_place():
    table = table_of(lambda d, o: 3 * d**-0.5 * 10 ** (0.8 - o))
    twice = pd.concat([table, table.query("view == 'baseline'").assign(view="overlap_90")])
    found = advise_overlap(twice, rmse(0.05), VIEWS | {"overlap_90": 0.8})
    assert found.equals(advise_overlap(table, rmse(0.05), VIEWS))


def test_methods_stand_in_the_order_of_the_table_whatever_their_names():
    tables = [table_of(lambda d, o: 3 * d**-0.5 * 10 ** (0.8 - o), method=m) for m in ("zeta", "LSQML", "alpha")]
    advice = advice_of(pd.concat(tables), rmse(0.05), VIEWS)
    assert advice.doses.query("view == 'dense'")["method"].tolist() == ["zeta", "LSQML", "alpha"]
    assert list(dict.fromkeys(advice.needed_overlaps["method"])) == ["zeta", "LSQML", "alpha"]
    assert [ax.get_title() for ax in show_advice(advice).axes] == ["zeta", "LSQML", "alpha", ""]


def test_a_further_axis_has_rows_of_its_own_and_leaves_the_neutral_ones_as_they_were():
    law = lambda k: lambda d, o: k * d**-0.5 * 10 ** (0.8 - o)
    plain = table_of(law(3))
    several = with_axis({0.0: plain, 0.5: table_of(law(6))}, "position_error")
    light = {"baseline": 0.04, "dense": 0.02, "sparse": 0.005}
    one, both = (advice_of(table, rmse(0.05), VIEWS, light) for table in (plain, several))
    assert both.doses.columns.tolist()[:4] == ["method", "view", "position_error", "overlap"]
    assert both.needed_overlaps.columns.tolist()[:4] == ["method", "dose", "position_error", "relation"]
    for before, after in ((one.doses, both.doses), (one.needed_overlaps, both.needed_overlaps)):
        neutral = after.query("position_error == 0").reset_index(drop=True).drop(columns=["position_error", "sentence"])
        assert len(after) == 2 * len(before) and neutral.equals(before.drop(columns="sentence"))
    costs = both.doses.query("view == 'baseline'").set_index("position_error")["dose"]
    assert costs[0.5] == pytest.approx(4 * costs[0.0])
    assert "LSQML, baseline, position error 0.5 (overlap 0.80): about 14000 photons" in "".join(both.doses["sentence"])
    assert one.cheapest().startswith("Cheapest: LSQML at overlap 0.80 (baseline) and 3600 photons per exposure")
    assert both.cheapest().startswith("Cheapest: LSQML at overlap 0.80 (baseline), position error 0 and 3600 photons")
    assert both.grids()["LSQML"].equals(one.grids()["LSQML"])
    assert np.allclose(both.grids({"position_error": 0.5})["LSQML"], 2 * one.grids()["LSQML"])
    assert "position error 0.5" in show_advice(both, {"position_error": 0.5}).get_suptitle()
    assert "position error" not in show_advice(one).get_suptitle()


def test_a_view_without_a_measured_overlap_is_named_alone_also_among_the_equally_cheap():
    table = table_of(lambda d, o: 3 * d**-0.5)  # every view alike
    said = advice_of(table, rmse(0.05), {}).cheapest()
    assert said.startswith("Cheapest: LSQML at the baseline view and 3600 photons per exposure")
    assert said.endswith("; equally cheap within the uncertainty: LSQML at the dense view; LSQML at the sparse view")


def test_the_command_answers_from_a_study_and_converts_units(copy):
    law = lambda k: lambda d, o: k * d**-0.5 * 10 ** (0.5 * (0.8 - o))
    constants = {"PINN": 4, "Supervised": 5, "LSQML": 3}
    table = pd.concat([table_of(law(k), seeds=(42, 43), noise=0.02, method=m) for m, k in constants.items()])
    resolution = table.assign(channel="complex", metric="frc50", value=0.02 / table["value"])
    pd.concat([table, resolution]).to_csv(copy / "metrics.csv", index=False)
    answer = fly64("advise", copy, "--phase-rmse", "0.1").stdout
    assert "2 draws of the noise" in answer and "shot noise alone requires 25 photons" in answer
    assert "Cheapest: " in answer and "photons per pixel" in answer
    advice = advise_study(copy, phase_rmse=0.1)
    assert set(advice.overlaps) == set(VIEWS) and advice.doses["photons_per_pixel"].gt(0).all()
    assert answer.startswith(advice.cheapest())
    assert len(show_advice(advice).axes) == 3  # two methods, without the one that saw the truth, and the colour bar
    assert "left out: Supervised, shown the truth" in answer
    told = fly64("advise", copy, "--phase-rmse", "0.1", "--with-truth-trained").stdout
    assert "Supervised" in told and "left out" not in told
    assert (
        "found no row of a 'flat image'" in fly64("advise", copy, check=False).stdout
    )  # no contrast to take a share of
    pixel = read_base(copy / "base.npz").pixel_size_m * 1e9
    options = {"--resolution-px": 2.5, "--resolution-nm": 2.5 * pixel}
    px, nm = (fly64("advise", copy, option, f"{value:g}").stdout for option, value in options.items())
    assert f"{2.5 * pixel:g} nm is 2.50 px" in nm and "half period of 2.50 px" in px
    assert px.splitlines()[0] == nm.splitlines()[0]


def test_without_a_wish_the_command_answers_as_the_report_and_the_run_do(study, copy):
    said = fly64("advise", study).stdout.strip().splitlines()[0]
    assert said.startswith("answer: ") and said.removeprefix("answer: ") == open_study(study).answer().sentence()
    page = html.unescape((study / "report" / "_site" / "index.html").read_text())
    assert said.removeprefix("answer: ") in page
    assert said in (study.parent / "output.txt").read_text()


def test_the_command_refuses_what_it_cannot_answer(copy):
    def refused(*options):
        done = fly64("advise", copy, *options, check=False)
        assert done.returncode == 2, done.stdout + done.stderr
        return done.stdout

    assert "--phase-rmse and --resolution-nm" in refused("--phase-rmse", "0.1", "--resolution-nm", "40")
    assert "split 'val'" in refused("--phase-rmse", "0.1", "--split", "val")
    (copy / "metrics.csv").unlink()
    assert "metrics.csv: found no file" in refused("--phase-rmse", "0.1")
