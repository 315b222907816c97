"""The tidy table with no, one and two further axes: what is held, what is in which order, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fly64_nb.data.files import FormatError
from fly64_nb.quality.table import (
    axis_values,
    best_method,
    further_axes,
    gather_metrics,
    headline,
    held_values,
    methods_of,
    metrics_columns,
    pivot,
    pivot_spread,
    read_table,
    values_of,
    write_metrics,
)

DOSES, VIEWS, METHODS = (1e2, 1e3, 1e4), ("baseline", "dense", "sparse"), ("PINN", "Supervised", "LSQML")
AXES = {"position_error": (0.0, 0.5, 0.25), "background": (1.0, 0.0)}  # neutral first, then as the study has them
WHAT = ("ms_ssim", "phase", "LSQML", "test")


def quality(dose, view, further, method, seed) -> float:
    """A made-up quality: what is not neutral costs some of it, and no two conditions have the same."""
    axes = sum(abs(value - AXES[axis][0]) * 10.0**-k for k, (axis, value) in enumerate(zip(AXES, further), 2))
    return 0.5 + np.log10(dose) / 20 - VIEWS.index(view) / 30 - axes + METHODS.index(method) / 200 + seed / 1e4


def table_of(*axes: str, seeds=(42, 43), doses=DOSES, methods=METHODS) -> pd.DataFrame:
    """A made-up tidy table with some further axes, in the study's order."""
    grid = itertools.product(doses, VIEWS, *(AXES[axis] for axis in axes), ("train", "test"), seeds, methods)
    rows = [
        [dose, view, *further, split, seed, method, channel, metric, quality(dose, view, further, method, seed)]
        for dose, view, *further, split, seed, method in grid
        for channel, metric in (("phase", "ms_ssim"), ("phase", "rmse"), ("complex", "frc50"))
    ]
    return pd.DataFrame(rows, columns=metrics_columns(axes))


def at_neutral(table: pd.DataFrame) -> pd.DataFrame:
    """The rows where all further axes are neutral, as a table without them."""
    axes = further_axes(table)
    return (
        table[(table[axes] == [AXES[axis][0] for axis in axes]).all(axis=1)].drop(columns=axes).reset_index(drop=True)
    )


@pytest.fixture(params=[(), ("position_error",), ("position_error", "background")], ids=len)
def table(request) -> pd.DataFrame:
    return table_of(*request.param)


def test_the_table_says_its_axes_and_methods_in_the_study_s_order(table):
    further = further_axes(table)
    assert table.columns.tolist() == metrics_columns(further)
    assert [tuple(axis_values(table, axis)) for axis in further] == [AXES[axis] for axis in further]
    assert axis_values(table.iloc[::-1], "dose") == list(DOSES)  # ascending, wherever they stand
    assert methods_of(table) == list(METHODS)
    assert values_of(table, "ms_ssim", "phase", "test").index.names == ["dose", "view", *further, "method", "seed"]


def test_neutral_conditions_have_the_numbers_that_they_had_without_further_axes(table):
    plain = table_of()
    pd.testing.assert_frame_equal(at_neutral(table), plain)
    for statistic in (pivot, pivot_spread):
        pd.testing.assert_frame_equal(statistic(table, *WHAT), statistic(plain, *WHAT), check_exact=True)
    for result in (headline, best_method):
        found = result(table)
        for axis in further_axes(table):
            found = found.xs(AXES[axis][0], level=axis)
        pd.testing.assert_frame_equal(found, result(plain), check_exact=True)


def test_headline_and_leads_stand_in_the_study_s_order(table):
    axes = [DOSES, VIEWS, *(AXES[axis] for axis in further_axes(table))]
    assert headline(table).index.tolist() == list(itertools.product(*axes, METHODS))
    leads = best_method(table)
    assert leads.index.tolist() == list(itertools.product(*axes)) and leads.index.names[-1] in ("view", *AXES)
    assert (leads["best"] == "LSQML").all() and (leads["runner-up"] == "Supervised").all()
    assert best_method(table, lower=True)["best"].unique().tolist() == ["PINN"]


def test_any_two_axes_are_rows_and_columns_and_the_others_are_held():
    table = table_of("position_error", "background")
    wide = pivot(table, *WHAT, rows="position_error", columns="background", at={"dose": 1e3, "view": "dense"})
    assert (wide.index.name, wide.columns.name) == ("position_error", "background")
    assert wide.index.tolist() == list(AXES["position_error"]) and wide.columns.tolist() == list(AXES["background"])
    for error, background in itertools.product(*AXES.values()):
        true = np.mean([quality(1e3, "dense", (error, background), "LSQML", seed) for seed in (42, 43)])
        assert wide.loc[error, background] == pytest.approx(true, abs=1e-12)
    over = pivot(table, *WHAT, rows="view", columns="dose", at={"background": 0.0})
    assert over.index.tolist() == list(VIEWS) and over.columns.tolist() == list(DOSES)
    assert over.loc["sparse", 1e4] == pytest.approx(quality(1e4, "sparse", (0.0, 0.0), "LSQML", 42.5), abs=1e-12)
    spread = pivot_spread(table, *WHAT, rows="background", columns="view", at={"dose": 1e2})
    assert np.allclose(spread, 1e-4 / 2**0.5)
    assert held_values(table, at={"background": 0.0}) == {"position_error": 0.0, "background": 0.0}
    assert held_values(table) == {"position_error": 0.0, "background": 1.0}


def test_one_dose_needs_no_choice_and_several_do():
    over = {"rows": "position_error", "columns": "view"}
    assert pivot(table_of("position_error", doses=(1e3,)), *WHAT, **over).shape == (3, 3)
    with pytest.raises(ValueError, match=r"found no dose to hold; needed is one of \[100.0, 1000.0, 10000.0\]"):
        pivot(table_of("position_error"), *WHAT, **over)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"rows": "dose", "columns": "dose"}, "needed are two of the axes"),
        ({"rows": "method"}, "found rows 'method'"),
        ({"at": {"dose": 1e3}}, "axes that can be held here: ['position_error']"),
        ({"at": {"probe_error": 1}}, "found a value to hold 'probe_error' at"),
        ({"at": {"position_error": 0.3}}, "position_error: found 0.3 to hold it at; needed is one of [0.0, 0.5, 0.25]"),
    ],
)
def test_a_pivot_that_is_unclear_is_refused(asked, reason):
    for statistic in (pivot, pivot_spread):
        with pytest.raises(ValueError) as refused:
            statistic(table_of("position_error"), *WHAT, **asked)
        assert reason in str(refused.value)


def test_methods_in_another_order_change_the_order_and_ties_and_no_number():
    table = table_of()
    turned = table_of(methods=METHODS[::-1])
    assert headline(turned).index[:3].get_level_values("method").tolist() == list(METHODS[::-1])
    pd.testing.assert_frame_equal(headline(turned).sort_index(), headline(table).sort_index())
    equal = [t.assign(value=0.5) for t in (table, turned)]
    assert [best_method(t)["best"].unique().tolist() for t in equal] == [["PINN"], ["LSQML"]]
    assert not best_method(equal[0])["decided"].any()


def test_missing_numbers_and_methods_leave_the_others_as_they_are():
    table = table_of("position_error")
    gap = (table["view"] == "sparse") & (table["method"] == "LSQML") & (table["position_error"] == 0.5)
    holes = table.assign(value=table["value"].mask(gap))
    wide = pivot(holes, *WHAT, at={"position_error": 0.5})
    assert wide["sparse"].isna().all() and wide[["baseline", "dense"]].notna().all(axis=None)
    assert best_method(holes).loc[(1e3, "sparse", 0.5), ["best", "runner-up"]].tolist() == ["Supervised", "PINN"]
    alone = best_method(table_of("position_error", seeds=(42,), methods=("LSQML",)))
    assert alone["runner-up"].isna().all() and alone["decided"].isna().all() and (alone["seeds"] == 0).all()
    assert pivot(table, "ms_ssim", "phase", "no such method", "test").empty


def write(path: Path, table: pd.DataFrame) -> Path:
    write_metrics(path, table)
    return path


def test_tables_of_a_study_that_grew_by_axes_become_one(tmp_path):
    neutral = {axis: values[0] for axis, values in AXES.items()}
    tables = table_of(), table_of("position_error"), table_of("position_error", "background")
    files = [write(tmp_path / f"{k}.csv", table) for k, table in enumerate(tables)]
    found = gather_metrics([files[0], tmp_path / "not_made.csv", *files[1:]], neutral)
    assert found.columns.tolist() == metrics_columns(list(AXES)) and len(found) == sum(map(len, tables))
    pd.testing.assert_frame_equal(at_neutral(found.iloc[: len(tables[0])]), tables[0])
    pd.testing.assert_frame_equal(found.iloc[-len(tables[2]) :].reset_index(drop=True), tables[2])
    pd.testing.assert_frame_equal(read_table(write(tmp_path / "all.csv", found)), found)
    with pytest.raises(FormatError, match="0.csv: key 'position_error': found columns dose, view, split"):
        gather_metrics(files)
    nothing = gather_metrics([], neutral)
    assert nothing.empty and nothing.columns.tolist() == metrics_columns(list(AXES))


def test_two_axes_are_gathered_as_they_are(tmp_path):
    table = table_of()
    halves = [write(tmp_path / f"{name}.csv", part) for name, part in table.groupby("dose")]
    pd.testing.assert_frame_equal(gather_metrics(halves), table, check_exact=True)


def test_older_tables_are_read_with_the_present_names_of_the_methods(tmp_path):
    older = dict(zip(METHODS, ("PtychoPINN", "Baseline", "PtyChi"), strict=True))
    table = table_of()
    path = write(tmp_path / "metrics.csv", table.assign(method=table["method"].map(older)))
    pd.testing.assert_frame_equal(read_table(path), table)


def test_what_is_no_tidy_table_is_refused_with_file_and_column(tmp_path):
    path = tmp_path / "metrics.csv"
    with pytest.raises(FormatError, match="metrics.csv: found no file; needed the tidy table"):
        read_table(path)
    for name in metrics_columns():
        table_of().drop(columns=name).to_csv(path, index=False)
        with pytest.raises(FormatError, match=f"metrics.csv: key '{name}'"):
            read_table(path)
    table_of("position_error").assign(position_error="some").to_csv(path, index=False)
    with pytest.raises(FormatError, match="metrics.csv: key 'position_error': found could not convert"):
        read_table(path)
    path.write_text("")
    with pytest.raises(FormatError, match="metrics.csv: found No columns"):
        read_table(path)
    path.write_bytes(b"dose,view\n\xff\xfe,1\n")
    with pytest.raises(FormatError, match="metrics.csv"):
        read_table(path)
