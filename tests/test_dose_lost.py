"""What imperfections cost in photons: made-up curves with a known answer, the command, and the report's page."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from conftest import fly64
from fly64_nb.design import ChosenAxis
from fly64_nb.engine.graph import run_job
from fly64_nb.quality.dose_lost import (
    Treatment,
    begins_to_matter,
    better_buy,
    dose_lost,
    factor_at,
    factor_in_short,
    hurts_most,
    imperfections_of,
    in_words,
    middle_dose,
)
from fly64_nb.quality.table import NOTHING, metrics_columns
from fly64_nb.report import build_report_job, lost_tables
from fly64_nb.results.example import example_study
from fly64_nb.results.imperfection import dose_lost_of
from fly64_nb.results.study import open_study
from fly64_nb.show.evidence import PAGES
from fly64_nb.show.site import publish_report

C, DOSES, NEUTRAL = 3.0, (1e3, 1e4, 1e5, 1e6), {"stage": 0.0, "fog": 0.0}
FLOORS = {"stage": {0.5: 0.005, 1.0: 0.01}, "fog": {0.1: 0.02}}
BOTH = {"a beamline": {"stage": 0.5, "fog": 0.1}}
AXES = (
    ChosenAxis("stage", "stage error", "px", 0.0, "knowledge", (0.5, 1.0), "", "positions"),
    ChosenAxis("fog", "fog", "photons / px", 0.0, "exposure", (0.1,), ""),
)
REMEDIES = frozenset({"positions", "mask"})
TREATMENTS = {
    "ML": Treatment("ML", frozenset({"mask"}), REMEDIES),
    "ML+positions": Treatment("ML", REMEDIES, REMEDIES),
    "ePIE": Treatment("ePIE"),
}


def floor_of(method: str, at: dict[str, float]) -> float:
    """Error that no light lowers: floors add in squares, a remedy takes nine tenths of that of the stage."""
    part = {"stage": 0.1 if method == "ML+positions" else 1.0, "fog": 1.0}
    return float(np.sqrt(sum((part[a] * FLOORS[a][v]) ** 2 for a, v in at.items() if v)))


def table_of(doses=DOSES, seeds=(42,), noise=0.0, methods=tuple(TREATMENTS), seed=0) -> pd.DataFrame:
    """Phase errors ``sqrt(c² / dose + floor²)`` by axis and of both together; noise from seed to seed."""
    rng, rows = np.random.default_rng(seed), []
    places = [{}, *({"stage": v} for v in FLOORS["stage"]), {"fog": 0.1}, *BOTH.values()]
    for dose, at, draw, method in itertools.product(doses, places, seeds, methods):
        error = np.hypot(C / dose**0.5, floor_of(method, at)) * np.exp(rng.normal(0, noise))
        place = [dose, "baseline", at.get("stage", 0.0), at.get("fog", 0.0)]
        rows.append([*place, "test", draw, method, "phase", "rmse", error])
    return pd.DataFrame(rows, columns=metrics_columns(["stage", "fog"]))


def lost_of(table: pd.DataFrame) -> pd.DataFrame:
    return dose_lost(table, NEUTRAL, imperfections_of(AXES, BOTH), TREATMENTS)


def row_of(lost: pd.DataFrame, imperfection: str, variant: str, dose: float) -> pd.Series:
    here = lost[(lost["imperfection"] == imperfection) & (lost["variant"] == variant) & (lost["dose"] == dose)]
    assert len(here) == 1
    return here.iloc[0]


def test_a_floor_under_shot_noise_costs_exactly_what_theory_says():
    lost = lost_of(table_of())
    cases = {"stage error 0.5 px": {"stage": 0.5}, "stage error 1 px": {"stage": 1.0}, "a beamline": BOTH["a beamline"]}
    for (label, at), method, dose in itertools.product(cases.items(), ("ML", "ML+positions", "ePIE"), DOSES[1:]):
        if label == "a beamline" and method == "ePIE" and dose > 1e5:
            continue
        exact, row = 1 + floor_of(method, at) ** 2 * dose / C**2, row_of(lost, label, method, dose)
        if exact <= dose / DOSES[0]:
            assert row["relation"] == "" and row["factor"] == pytest.approx(exact, rel=1e-9), (label, method, dose)
        assert row["error"] == pytest.approx(np.hypot(C / dose**0.5, floor_of(method, at)))


def test_nothing_is_extrapolated():
    lost = lost_of(table_of(doses=(1e4, 1e5, 1e6)))
    bound = row_of(lost, "fog 0.1 photons / px", "ML", 1e4)
    assert (bound["relation"], bound["factor"]) == (">", 1.0)  # it is 1.44, but below 1e4 nothing was simulated
    far = row_of(lost, "a beamline", "ML", 1e6)
    assert (far["relation"], far["factor"]) == ("", pytest.approx(1 + (0.005**2 + 0.02**2) * 1e6 / C**2))
    better = table_of().assign(value=lambda t: t["value"] * np.where(t["stage"] == 0.5, 0.1, 1.0))
    least = row_of(lost_of(better), "stage error 0.5 px", "ML", 1e6)
    assert (least["relation"], least["factor"]) == ("<", 1.0)
    assert (lost["factor"] <= lost["dose"] / lost["dose"].min() * (1 + 1e-9)).all()


def test_the_interval_is_that_of_students_t_and_covers_the_truth_as_often_as_it_says():
    doses, rng, covered = np.array([1e3, 1e4, 1e5]), np.random.default_rng(1), 0
    ideal_curve, imperfect_curve = C / doses**0.5, np.hypot(C / doses**0.5, 0.01)
    exact = 1 + 0.01**2 * 1e4 / C**2
    for _ in range(400):
        noisy = lambda curve: pd.DataFrame(
            {s: curve * np.exp(rng.normal(0, 0.02, 3)) for s in range(3)}, pd.Index(doses, name="dose")
        )
        found = factor_at(1e4, noisy(ideal_curve), noisy(imperfect_curve))
        assert found.relation == "" and found.low < found.value < found.high
        covered += found.low <= exact <= found.high
    assert 0.92 < covered / 400 < 0.98


def test_one_seed_has_no_uncertainty_and_seeds_that_only_one_experiment_has_do_not_count():
    lost = lost_of(table_of())
    assert lost[["low", "high"]].isna().all(axis=None) and set(lost["seeds"]) == {1}
    table = table_of(seeds=(42, 43, 44), noise=0.02)
    lacking = table[~((table["seed"] == 44) & (table["stage"] == 0) & (table["fog"] == 0))]
    both = lost_of(lacking)
    assert set(both["seeds"]) == {2} and (both.loc[both["relation"] == "", "low"].notna()).any()


def test_what_is_no_better_than_nothing_is_reached_at_no_dose():
    table = table_of()
    failed = table.assign(value=lambda t: t["value"].where(t["fog"] == 0, 0.19))
    flat = failed[failed["method"] == "ML"].assign(method=NOTHING, value=0.2)
    lost = lost_of(pd.concat([failed, flat]))
    fog = lost[lost["imperfection"] == "fog 0.1 photons / px"]
    assert set(fog["relation"]) == {"never"} and np.isinf(fog["factor"]).all()
    assert hurts_most(lost)["relation"].iloc[0] == "never"
    words = " ".join(in_words(lost, "baseline", "ML"))
    assert "no dose reaches it" in words and "no dose makes up for it" in words
    assert set(better_buy(fog)["relation"]) == {"never"}


def test_without_and_with_a_remedy_have_one_yardstick():
    lost = lost_of(table_of())
    stage = lost[lost["axis"] == "stage"]
    assert stage.groupby("variant")["side"].unique().map(list).to_dict() == {
        "ML": ["without"], "ML+positions": ["with"], "ePIE": ["without"],
    }  # fmt: skip
    assert set(stage.loc[stage["variant"] == "ePIE", "lacks"]) == {"positions"}
    # of the fog, against which nothing is known, a variant would do what the method does
    assert set(lost.loc[lost["axis"] == "fog", "variant"]) == {"ML", "ePIE"}
    # a remedy that costs on the ideal experiment is measured against the method without it
    dear = table_of().assign(value=lambda t: t["value"] * np.where(t["method"] == "ML+positions", 2.0, 1.0))
    assert row_of(lost_of(dear), "stage error 0.5 px", "ML+positions", 1e5)["factor"] > 4
    # and where only the variant was run, against itself
    alone = lost_of(dear[dear["method"] != "ML"])
    exact = 1 + (0.1 * 0.005) ** 2 * 1e5 / C**2
    assert row_of(alone, "stage error 0.5 px", "ML+positions", 1e5)["factor"] == pytest.approx(exact)


def test_a_remedy_that_is_on_by_default_stands_on_its_side():
    gaps = (ChosenAxis("stage", "gaps", "", 0.0, "exposure", (0.5, 1.0), "", "mask"),)
    table = table_of().query("fog == 0").drop(columns="fog")
    lost = dose_lost(table, {"stage": 0.0}, imperfections_of(gaps), {"ML": TREATMENTS["ML"]})
    assert set(lost["side"]) == {"with"}
    off = {"ML": TREATMENTS["ML"], "ML+positions": replace(TREATMENTS["ML+positions"], on=frozenset())}
    assert set(dose_lost(table, {"stage": 0.0}, imperfections_of(gaps), off)["side"]) == {"with", "without"}


def test_an_imperfection_begins_to_matter_where_theory_says():
    doses = tuple(np.geomspace(1e2, 1e6, 41))
    starts = begins_to_matter(lost_of(table_of(doses=doses)))
    for (label, at), variant in itertools.product(
        {"stage error 0.5 px": {"stage": 0.5}, "stage error 1 px": {"stage": 1.0}}.items(), ("ML", "ML+positions")
    ):
        row = starts[(starts["imperfection"] == label) & (starts["variant"] == variant)].iloc[0]
        exact = 0.25 * C**2 / floor_of(variant, at) ** 2
        if exact > 1e6:
            assert (row["relation"], row["dose"]) == ("more than", pytest.approx(1e6))
        else:
            assert row["relation"] == "about" and row["dose"] == pytest.approx(exact, rel=0.01)


def test_more_photons_or_a_better_stage():
    buy = better_buy(lost_of(table_of()), 1e4).set_index(["imperfection", "variant"])
    half, whole = (1 + FLOORS["stage"][v] ** 2 * 1e4 / C**2 for v in (0.5, 1.0))
    step = buy.loc[("stage error 1 px", "ML")]
    assert step["to"] == 0.5 and step["saved"] == pytest.approx(whole / half)
    removed = buy.loc[("stage error 0.5 px", "ML")]
    assert np.isnan(removed["to"]) and removed["saved"] == pytest.approx(half)
    fine = better_buy(lost_of(table_of(doses=tuple(np.geomspace(1e3, 1e6, 61)))), 1e4)
    light = fine[(fine["imperfection"] == "stage error 0.5 px") & (fine["variant"] == "ML")].iloc[0]
    assert light["instead"] == pytest.approx(1 / (1 - 0.005**2 * 1e4 / C**2), rel=0.005)
    late = better_buy(lost_of(table_of()), 1e5).set_index(["imperfection", "variant"]).loc[("stage error 1 px", "ML")]
    assert (late["instead relation"], late["instead"]) == (">", 10.0)  # its floor is above the ideal error
    words = in_words(lost_of(table_of()), "baseline", "ML", 1e5)
    assert any("halving it to stage error 0.5 px is worth" in w and "removing the cause is better" in w for w in words)


def test_the_worst_comes_first_and_words_name_remedies():
    lost = lost_of(table_of())
    assert middle_dose(lost) == 1e5 and hurts_most(lost)["dose"].unique().tolist() == [1e5]
    assert (np.diff(hurts_most(lost, 1e6)["factor"]) <= 0).all()
    words = in_words(lost, "baseline", "ML")
    assert "the most costly: a beamline" in words[0]
    back = (1 + 0.01**2 * 1e5 / C**2) / (1 + 0.001**2 * 1e5 / C**2)
    (remedied,) = [w for w in words if w.startswith("stage error 1 px: positions (ML+positions) brings it from")]
    assert f"worth {factor_in_short(back)} times the photons" in remedied
    assert "No method here has a remedy against fog 0.1 photons / px" in words
    assert "ePIE has no remedy for positions" in in_words(lost, "baseline", "ePIE")
    assert in_words(lost, "dense", "ML") == []


def test_by_default_every_value_of_one_axis_is_an_imperfection():
    found = dose_lost(table_of(), NEUTRAL)
    assert list(dict.fromkeys(found["imperfection"])) == ["stage 0.5", "stage 1", "fog 0.1"]
    assert set(found["side"]) == {"without"}


def test_a_page_escapes_what_it_is_told(tmp_path):
    study = open_study(example_study(tmp_path / "study", position_errors=(0.5,)))
    hostile = replace(study.design.axes[0], label="<img src=x onerror=alert(1)>")
    told = replace(study, design=replace(study.design, axes=(hostile,)))
    tables = lost_tables(told, dose_lost_of(told))
    assert all("<img" not in shown and "&lt;img" in shown for shown in tables.values())


@pytest.fixture(scope="module")
def further(tmp_path_factory) -> Path:
    """A made-up study with a further axis and two seeds, and its report; one comparison has an executed notebook."""
    root = example_study(tmp_path_factory.mktemp("lost") / "study", replicates=2, position_errors=(0.5, 1.0))
    executed = open_study(root).job(1e4, "dense", "test", position_error=0.5).executed_notebook
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("as if it had been run")]), executed)
    done = run_job(build_report_job(root))
    assert done.status == "done", done.detail
    publish_report(root, quarto="")
    return root


def test_the_report_has_a_page_of_what_a_beamline_costs(further):
    site = further / "report" / "_site"
    page, first = (
        BeautifulSoup((site / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
        for name in ("imperfections", "index")
    )
    section, lost = page.find("main"), dose_lost_of(open_study(further))
    here = page.find("nav").find("a", href="imperfections.html")
    assert section.h1.get_text() == PAGES["imperfections"] == here.get_text() and here["aria-current"] == "page"
    tables = {(t.find_previous("h2").get_text(), t.caption.get_text().split(" (")[0]): t for t in section("table")}
    assert len(tables) == 3 * 3  # views, methods
    for view, method in itertools.product(("baseline", "dense"), ("PINN", "Supervised", "LSQML")):
        cells = tables[f"Dose lost, {view} view", method].tbody.find_all("td")
        expected = lost.of(view, method).sort_values(["value", "dose"], kind="stable")
        assert len(cells) == len(expected)
        for cell, (_, row) in zip(cells, expected.iterrows()):
            number = next(cell.stripped_strings)
            shown = "no dose" if row["relation"] == "never" else f"{row['relation']} {factor_in_short(row['factor'])}"
            assert number == shown.strip(), (view, method, row)
    links = [a["href"] for a in tables["Dose lost, dense view", "LSQML"]("a")]
    assert "notebooks/phase_g/dose_10000/dense_position_error_0p5_test.html" in links
    assert len(section("img")) == 2 and all("What imperfections cost" in i["alt"] for i in section("img"))
    text = section.get_text()
    assert "the most costly: position error 1 px" in text and "interval over 2 draws" in text
    assert first.find("main").find("a", href="imperfections.html")


def test_of_an_ideal_study_nothing_is_known(tmp_path):
    root = example_study(tmp_path / "study")  # that its report has no such page: test_report
    assert dose_lost_of(open_study(root)) is None
    refused = fly64("advise", root, "--imperfection", "all", check=False)
    assert refused.returncode == 2 and "--vary position_error" in refused.stdout


def test_the_command_prints_the_map_and_says_what_to_do(further):
    shown = fly64("advise", further, "--imperfection", "position_error").stdout
    assert shown == fly64("advise", further, "--imperfection", "all").stdout
    lost = dose_lost_of(open_study(further))
    row = lost.of("dense", "LSQML").query("value == 1 and dose == 1e4").iloc[0]
    dense = shown.partition("dense view")[2].partition("sparse view")[0]
    (line,) = [ln for ln in dense.splitlines() if ln.startswith("position error 1 px") and " LSQML " in ln]
    assert f"{row['relation']}{factor_in_short(row['factor'])}" in line
    assert "LSQML, baseline view:" in shown and "the most costly: position error 1 px" in shown
    assert "Supervised" not in shown  # it was shown the truth
    assert "Supervised" in fly64("advise", further, "--imperfection", "all", "--with-truth-trained").stdout
    one = fly64("advise", further, "--imperfection", "position error 0.5 px").stdout
    assert "position error 1 px" not in one
    for options, words in (
        (("--imperfection", "fog"), "there are position_error"),
        (("--imperfection", "all", "--phase-rmse", "0.05"), "needed is one of them"),
    ):
        refused = fly64("advise", further, *options, check=False)
        assert refused.returncode == 2 and words in refused.stdout, refused.stdout
