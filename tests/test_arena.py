"""The arena: places in closed form, what is missing or told, and the page 'how to enter', run as a stranger would."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from conftest import REPOSITORY, fly64
from fly64_nb.data.files import write_json
from fly64_nb.engine.record import write_record
from fly64_nb.methods.method import Trained, find_methods
from fly64_nb.quality.leaderboard import COMPLETE, INCOMPLETE, TOLD, leaderboard, limit_multiples, race, races
from fly64_nb.quality.table import NOTHING, headline, metrics_columns, read_table, values_of, write_metrics
from fly64_nb.results.example import example_study
from fly64_nb.results.study import open_study
from fly64_nb.show.arena import pareto_front
from fly64_nb.training import write_training

PAGE = REPOSITORY / "nbs" / "enter.ipynb"
COURSE = list(itertools.product((1e3, 1e4), ("baseline", "dense")))
LIMIT = {1e3: 0.1, 1e4: 0.03}


def table_of(multiples: dict, seeds: int = 3, scatter: float = 0.0, **others: dict) -> pd.DataFrame:
    """A tidy table from times the limit by method: one number, or by condition; `scatter` is each method's own luck."""
    rng, rows = np.random.default_rng(1), []
    for (dose, view), seed in itertools.product(COURSE, range(seeds)):
        place = [dose, view, "test", seed]
        rows.append([*place, NOTHING, "phase", "rmse", 10.0])
        rows += [[*place, NOTHING, "phase", "contrast", 0.0], [*place, NOTHING, "complex", "frc50", 0.0]]
        for method, own in multiples.items():
            multiple = own.get((dose, view)) if isinstance(own, dict) else own
            if multiple is not None:
                error = LIMIT[dose] * multiple * (1 + scatter * rng.standard_normal())
                numbers = {
                    "rmse": error,
                    "rmse_limit": LIMIT[dose],
                    "contrast": others.get("contrast", {}).get(method, 1),
                }
                rows += [[*place, method, "phase", name, value] for name, value in numbers.items()]
                rows.append([*place, method, "complex", "frc50", others.get("frc", {}).get(method, 0.25)])
    return pd.DataFrame(rows, columns=metrics_columns())


def test_places_by_each_criterion_in_closed_form():
    of_b = dict(zip(COURSE, (1.0, 2.0, 4.0, 8.0)))
    table = table_of({"A": 3.0, "B": of_b, "C": 2.0}, contrast={"A": 0.7, "B": 1.1, "C": 0.8}, frc={"B": 0.5, "C": 0.1})
    board = leaderboard(table)
    assert board.index.tolist() == ["C", "B", "A"]  # 2, the fourth root of 64, 3
    assert board["times the limit"].tolist() == pytest.approx([2, 8**0.5, 3])
    assert board["half period (px)"].tolist() == pytest.approx([5, 1, 2])
    places = {"# limit": [1, 2, 3], "# contrast": [2, 1, 3], "# resolution": [3, 1, 2]}
    assert {name: board[name].tolist() for name in places} == places
    assert board["# CPU"].isna().all() and board["CPU-s"].isna().all()  # nobody wrote it down


def test_a_mean_over_conditions_is_geometric_and_its_spread_is_over_draws():
    table = table_of({"A": dict(zip(COURSE, (1, 10, 100, 1000))), "B": 50.0})
    table.loc[(table["method"] == "A") & (table["metric"] == "rmse") & (table["seed"] == 2), "value"] *= 2
    row = leaderboard(table).loc["A"]
    assert row["times the limit"] == pytest.approx(1000**0.5 * 4 / 3)
    assert row["± times the limit"] == pytest.approx(np.std([1, 1, 2], ddof=1) * 1000**0.5)
    assert np.isnan(leaderboard(table[table["seed"] == 0]).loc["A", "± times the limit"])


def test_who_lacks_a_condition_or_a_draw_is_marked_and_has_no_place():
    easy = {COURSE[3]: 0.5}
    table = table_of({"A": 2.0, "B": 3.0, "Easy": easy})
    short = (table["method"] == "B") & (table["seed"] == 2) & (table["dose"] == 1e3) & (table["view"] == "dense")
    board = leaderboard(table[~short], methods=["A", "B", "Easy", "Gone"])
    assert board.index.tolist() == ["A", "Easy", "B", "Gone"]
    assert board["standing"].tolist() == [COMPLETE, INCOMPLETE, INCOMPLETE, INCOMPLETE]
    assert board["conditions"].tolist() == [4, 1, 3, 0] and set(board["of"]) == {4}
    assert board["# limit"].notna().tolist() == [True, False, False, False]
    assert board.loc["A", "times the limit"] == pytest.approx(2)  # over all its conditions, whatever others lack
    assert board.loc["Gone", "resolved"] == 0 and np.isnan(board.loc["Gone", "times the limit"])


def test_a_condition_that_nobody_has_counts_against_nobody():
    table = table_of({"A": 2.0, "B": 3.0})
    board = leaderboard(table[(table["dose"] == 1e3) | (table["view"] == "dense")])
    assert set(board["of"]) == {3} and (board["standing"] == COMPLETE).all()


def test_who_was_shown_the_truth_stands_apart():
    table = table_of({"Told": 0.5, "A": 2.0, "B": 3.0})
    board = leaderboard(table, told=["Told"])
    assert board.index.tolist() == ["A", "B", "Told"] and board.loc["Told", "standing"] == TOLD
    assert board.loc["Told", [c for c in board if c.startswith("#")]].isna().all()
    assert board.loc["Told", ["ahead", "best", "level"]].isna().all()
    assert board.loc["A", ["# limit", "ahead", "best"]].tolist() == [1, 4, 4]  # as if it were not there
    assert "Told" not in str(races(table, without=["Told"]))


def test_a_lead_within_the_noise_is_nobodys():
    clear, blurred = table_of({"A": 2.0, "B": 3.0}, scatter=1e-3), table_of({"A": 2.0, "B": 2.001}, scatter=0.1)
    assert leaderboard(clear)["best"].tolist() == [4, 0]
    board = leaderboard(blurred)
    assert board["best"].sum() == 0 and board["level"].tolist() == [4, 4] and board["ahead"].sum() == 4
    once = leaderboard(blurred[blurred["seed"] == 0])  # one draw tells nothing
    assert once["best"].sum() == 0 and once["level"].sum() == once["ahead"].sum() == 4


def test_equal_numbers_have_equal_places_and_all_of_them_are_ahead():
    board = leaderboard(table_of({"A": 2.0, "B": 2.0, "C": 3.0}))
    assert board.sort_index()["# limit"].tolist() == [1, 1, 3]
    assert board.sort_index()["ahead"].tolist() == [4, 4, 0] and board["best"].sum() == 0


def test_nobody_wins_with_nothing_reconstructed():
    errors = pd.DataFrame({"A": [0.1, 0.11], "B": [0.5, 0.51]})
    assert race(errors, failed=["A"])["ahead"] == []
    board = leaderboard(table_of({"A": 97.0, "B": 98.0}))  # at 1e3 9.7 and 9.8 rad, a flat image has 10
    assert board["nothing"].tolist() == [2, 2] and board["ahead"].tolist() == [2, 0]


def test_costs_are_means_over_conditions_and_missing_where_one_is_unknown():
    table = table_of({"A": 2.0, "B": 3.0})
    index = values_of(table, "rmse_limit", "phase", "test").index
    cpu = pd.Series(np.where(index.get_level_values("dose") == 1e3, 1.0, 3.0), index)
    board = leaderboard(table, cpu=cpu, training={"B": 60.0})
    assert board["CPU-s"].tolist() == [2, 2] and board["# CPU"].tolist() == [1, 1]
    assert np.isnan(board.loc["A", "training CPU-s"]) and board.loc["B", "training CPU-s"] == 60
    lost = cpu[(index.get_level_values("method") == "A") | (index.get_level_values("view") == "dense")]
    assert leaderboard(table, cpu=lost)["CPU-s"].isna().tolist() == [False, True]


def test_a_table_without_a_limit_or_without_the_split_has_rows_and_no_numbers():
    table = table_of({"A": 2.0, "B": 3.0})
    board = leaderboard(table[table["metric"] != "rmse_limit"])
    assert board["times the limit"].isna().all() and board["best"].tolist() == [4, 0]
    assert limit_multiples(table[table["metric"] != "rmse_limit"]).empty
    board = leaderboard(table, split="train")
    assert board["of"].tolist() == [0, 0] and board["times the limit"].isna().all()


def test_the_front_leaves_out_who_is_beaten_in_both():
    cost, error = {"a": 1, "b": 2, "c": 3, "d": 2}, {"a": 3, "b": 2, "c": 2.5, "d": 2}
    assert pareto_front(cost, error) == ["a", "b", "d"]
    assert pareto_front({}, {}) == []


def method_of_the_page(path: Path) -> Path:
    """The method of the page 'how to enter' as a stranger's notebook: its cells that are no examples."""
    page = json.loads(PAGE.read_text(encoding="utf-8"))
    is_method = lambda cell: cell["cell_type"] == "code" and "example" not in cell["metadata"].get("tags", [])
    cells = [cell for cell in page["cells"] if is_method(cell)]
    lines = [line for cell in cells for line in "".join(cell["source"]).splitlines() if line.strip()]
    assert len(cells) == 3 and len(lines) <= 45, "a method is a page of code at most"
    path.write_text(json.dumps({**page, "cells": cells}), encoding="utf-8")
    return path


def test_the_page_says_what_is_typed_and_the_rules():
    text = PAGE.read_text(encoding="utf-8")
    assert "fly64 arena S --method mine.ipynb --profile tiny" in text
    assert all(word in text for word in ("Never on the test split", "learns_truth", "seed", "CPU-seconds"))


def test_a_stranger_enters_as_the_page_says(copy, tmp_path):
    before = fly64("arena", copy).stdout
    assert "Projections" not in before and "LSQML" in before
    mine = method_of_the_page(tmp_path / "mine.ipynb")
    shown = fly64("arena", copy, "--method", mine).stdout
    study = open_study(copy)
    board = study.leaderboard()
    row = board.loc["Projections"]
    assert set(board.index) == set(study.methods) > {"Projections"}
    assert (row["standing"], row["conditions"], row["of"]) == (COMPLETE, 3, 3)
    assert 1 <= row["# limit"] <= len(board) and row["CPU-s"] > 0 and row["contrast kept"] > 0.5
    assert board.loc["Supervised", "standing"] == TOLD
    quality = headline(read_table(copy / "metrics.csv")).xs("Projections", level="method")["times the limit"]
    assert row["times the limit"] == pytest.approx(np.exp(np.log(quality).mean()), rel=1e-3)
    assert_row_in_terminal(shown, row)
    assert_row_in_terminal(fly64("arena", copy).stdout, row)  # looked at again, nothing is run
    assert_row_in_report(copy, row)


def assert_row_in_terminal(shown: str, row: pd.Series) -> None:
    """The method's row on the printed leaderboard, which is no wider than eighty characters."""
    lines = shown[shown.index("Leaderboard, test split") :].splitlines()
    (line,) = [line for line in lines if line.startswith("Projections")]
    assert f"{row['times the limit']:.2f} ({row['# limit']})" in line and line.split()[-1] == "3/3"
    assert max(len(line.rstrip()) for line in lines[1:6]) <= 80


def assert_row_in_report(root: Path, row: pd.Series) -> None:
    """The method's row on the report's page, its numbers linked to executed notebooks that are there."""
    site = root / "report" / "_site"
    page = BeautifulSoup((site / "index.html").read_text(encoding="utf-8"), "html.parser")
    board = page.find("caption", string=re.compile("^Leaderboard, test split")).find_parent("table")
    (found,) = [tr for tr in board.tbody.find_all("tr") if tr.th.get_text() == "Projections"]
    assert f"{row['times the limit']:#.3g} (" in found.get_text() and "3 of 3" in found.get_text()
    course = page.find("caption", string=re.compile("^Phase RMSE / shot-noise limit")).find_parent("table")
    assert "Projections" in course.thead.get_text() and len(course.tbody.find_all("tr")) == 3
    links = {a["href"] for table in (board, course) for a in table.find_all("a")}
    assert "notebooks/phase_f/dose_10000/dense_test_Projections.html" in links
    assert all((site / link).is_file() for link in links)
    assert page.find("img", alt=re.compile("^What an error costs, test split.*Projections"))


def test_a_study_that_is_not_there_is_planned_with_everyone_and_three_draws(tmp_path):
    asked = "--profile", "tiny", "--doses", "1e4", "--dry-run"
    plan = fly64("arena", tmp_path / "S", *asked).stdout
    for method in find_methods():
        assert f"phase_f/dose_10000/dense_test_{method}: " in plan, method
    assert "replicates/seed_44/" in plan and "seed_45" not in plan and "Leaderboard" not in plan
    chosen = fly64("arena", tmp_path / "S", *asked, "--methods", "LSQML", "--draws", "1").stdout
    assert "PINN" not in chosen and "seed_43" not in chosen
    assert not (tmp_path / "S").exists()


def test_a_checkpoint_costs_what_it_took_before(tmp_path):
    root = example_study(tmp_path / "small")
    study = open_study(root)
    trainings = [job for job in study.jobs() if job.phase == "phase_e" and job.condition["method"] == "PINN"]
    history = pd.DataFrame({"epoch": [1], "loss": [1.0], "val_loss": [1.0], "seconds": [1.0]})
    found = Trained(Path.touch, history, 0.1, earlier_cpu_s=551.0)
    for job in trainings:
        job.model.parent.mkdir(parents=True)
        write_record(job, "done", returncode=0, cpu_s=0.5)
        write_training(*job.outputs, found if job is trainings[0] else replace(found, earlier_cpu_s=0.0))
    cost = 551 + 0.5 * len(trainings)
    assert open_study(root).training_cpu_seconds() == {"PINN": pytest.approx(cost)}
    assert open_study(root).leaderboard().loc["PINN", "training CPU-s"] == pytest.approx(cost)
    shown = fly64("arena", root).stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("PINN ")]
    assert f" {cost:.0f} " in line


def test_one_method_alone_is_no_arena_and_who_has_not_entered_is_named(tmp_path):
    root = example_study(tmp_path / "small")
    record = json.loads((root / "study.json").read_text(encoding="utf-8"))
    record["design"]["methods"] = [m for m in record["design"]["methods"] if m["name"] == "LSQML"]
    write_json(root / "study.json", record)
    for path in root.rglob("metrics.csv"):
        table = read_table(path)
        write_metrics(path, table[table["method"].isin(["LSQML", NOTHING])])
    fly64("report", root)
    page = (root / "report" / "_site" / "index.html").read_text(encoding="utf-8")
    assert "There is no arena: LSQML is the only method here" in page and "Leaderboard, test" not in page
    shown = fly64("arena", root).stdout
    others = [name for name in find_methods() if name != "LSQML"]
    (line,) = [line for line in shown.splitlines() if line.startswith("not entered: ")]
    assert ", ".join(others) in line and line.endswith(f"fly64 run {root} --methods {','.join(others)}")
    assert "incomplete: 1 of 6 comparisons of the test split are missing" in shown
