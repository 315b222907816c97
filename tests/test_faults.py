"""Wrong input and damage: refused by name before any work, recorded, and nothing already made is lost."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from conftest import fly64
from fly64_nb.data.files import load_arrays


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--profile", "huge"), "known are tiny, quick, full, paper"),
        (("--mode", "guess"), "must be 'simulate' or 'thin'"),
        (("--profile", "tiny", "--mode", "thin"), "measured counts"),
        (("--doses", "0"), "positive number of photons"),
        (("--doses", "1e3,many"), "'many'"),
        (("--overlaps", "dense=1"), "overlap in [0, 1)"),
        (("--vary", "heat=1"), "axis 'heat' is unknown; there are"),
        (("--vary", "position_error=-1"), "needed is a value from 0"),
        (("--methods", "LSQML,Magic"), "method 'Magic' is unknown; there are PINN, Supervised, LSQML"),
        (("--method", "none.ipynb"), "none.ipynb: found no such file"),
        (("--set", "LSQML.epochs=0"), "LSQML: epochs = 0: must be greater than or equal to 1"),
        (("--set", "LSQML.speed=9"), "LSQML: setting 'speed' is unknown; there are epochs"),
        (("--set", "neighbor_count=2"), "K must be at least C"),
        (("--set", "epochs"), "METHOD.SETTING=VALUE"),
        (("--base", "no-such-file.npz"), "no-such-file.npz"),
    ],
)
def test_a_design_that_cannot_be_is_refused(tmp_path, arguments, words):
    done = fly64("design", tmp_path / "s", *arguments, check=False)
    assert done.returncode == 2 and words in done.stdout, done.stdout
    assert not (tmp_path / "s").exists()


def test_commands_on_a_folder_that_is_no_study(tmp_path):
    for command in ("generate", "overlap", "train", "reconstruct", "compare", "report", "status", "logs", "why"):
        done = fly64(command, tmp_path, check=False)
        assert done.returncode == 2 and "fly64 design" in done.stdout, command


def test_a_missing_dataset_is_refused_or_recorded(copy):
    (copy / "phase_c" / "dose_10000" / "patched_test.npz").unlink()
    refused = fly64("reconstruct", copy, check=False)
    assert refused.returncode == 2 and "patched_test.npz" in refused.stdout and "--allow-missing" in refused.stdout
    done = fly64("reconstruct", copy, "--allow-missing")
    assert "19 up to date, 5 left out" in done.stdout
    rows = json.loads((copy / "phase_f" / "skip_summary.json").read_text())
    title, flat = "phase_f/dose_10000/baseline_test", "phase_f/dose_10000/flat_object/baseline_test"
    names = [f"{title}_{method}" for method in ("PINN", "Supervised", "LSQML")]
    assert [row["name"] for row in rows] == [*names, f"{flat}_PINN", f"{flat}_Supervised"]
    assert "patched_test.npz" in rows[0]["reason"]


def test_a_view_that_went_missing_is_not_mistaken_for_one_left_out(copy):
    (copy / "phase_d" / "dose_10000" / "dense" / "dense_test.npz").unlink()
    refused = fly64("reconstruct", copy, "--only", "LSQML", check=False)
    assert refused.returncode == 2 and "dense_test.npz" in refused.stdout, refused.stdout


def test_a_broken_dataset_fails_its_own_jobs_only(copy):
    """One view's file is cut short: its jobs are rows with return code and log, the others are done."""
    broken = copy / "phase_d" / "dose_10000" / "sparse" / "sparse_train.npz"
    broken.write_bytes(broken.read_bytes()[:5000])
    done = fly64("reconstruct", copy, check=False)
    assert done.returncode == 1
    rows = json.loads((copy / "phase_f" / "reconstruction_manifest.json").read_text())["execution_results"]
    results = {row["name"]: row for row in rows}
    failed = results["phase_f/dose_10000/sparse_train_LSQML"]
    assert failed["returncode"] == 2 and "sparse_train.npz" in failed["detail"]
    assert sum(row["returncode"] == 0 for row in rows) == 21
    log = copy / "phase_f" / "dose_10000" / "sparse" / "train" / "LSQML" / "reconstruction.log"
    assert "sparse_train.npz" in log.read_text()


def test_a_stub_reconstruction_fails_its_comparison_by_name(copy):
    (copy / "phase_f" / "dose_10000" / "dense" / "test" / "LSQML" / "reconstruction.npz").write_bytes(b"")
    done = fly64("compare", copy, check=False)
    manifest = json.loads((copy / "phase_g" / "comparison_manifest.json").read_text())
    counts = [manifest[name] for name in ("n_jobs", "n_executed", "n_success", "n_failed")]
    assert done.returncode == 1 and counts == [6, 6, 5, 1]
    failed = [row for row in manifest["execution_results"] if row["status"] == "failed"]
    assert len(failed) == 1 and "LSQML/reconstruction.npz" in failed[0]["detail"]


def test_only_what_depends_on_a_damaged_file_is_made_again(copy):
    target = copy / "phase_g" / "dose_10000" / "dense" / "train" / "metrics.csv"
    numbers = lambda: pd.read_csv(target).query("metric != 'seconds'").reset_index(drop=True)
    before = numbers()
    target.write_text("dose,view\n")
    done = fly64("compare", copy)
    assert "1 done" in done.stdout and "5 up to date" in done.stdout
    pd.testing.assert_frame_equal(numbers(), before, check_exact=True)


def test_the_report_of_an_unfinished_study_says_what_is_missing(copy):
    for name in ("metrics.csv", "aligned.npz"):
        (copy / "phase_g" / "dose_10000" / "sparse" / "test" / name).unlink()
    fly64("report", copy)
    assert "missing" in (copy / "report" / "_site" / "index.html").read_text()


def test_a_base_that_breaks_the_rules_is_refused_by_name(tmp_path, study):
    good = load_arrays(study / "base.npz")
    n = len(good["ycoords"])
    window = len(good["probeGuess"])
    counts = np.random.default_rng(0).poisson(1.0, (n, window, window))
    scan = {"scan": np.stack([good["ycoords"], good["xcoords"]], 1), "probe": good["probeGuess"]}
    for name, arrays, words in (
        ("smooth", {**scan, "data": counts + np.random.default_rng(1).random(counts.shape)}, "not whole"),
        ("negative", {**scan, "data": counts - 5}, "negative"),
        ("short", {**scan, "data": counts[:-1]}, "needed a pattern for each of"),
        ("flat", {**scan, "data": np.ones_like(counts)}, "zero frequency"),
        ("no-probe", {"scan": scan["scan"], "data": counts}, "probe"),
        ("pickled", {**scan, "data": np.array([{}] * n, object)}, "unpickled"),
        ("outside", {**good, "xcoords": good["xcoords"] + 1000}, "inside the object"),
    ):
        path = tmp_path / f"{name}.npz"
        np.savez(path, **arrays)
        done = fly64("design", tmp_path / name, "--profile", "tiny", "--base", path, check=False)
        assert done.returncode == 2 and words in done.stdout and path.name in done.stdout, done.stdout
