"""Wrong input and damage: refused by name before any work, recorded, and nothing already made is lost."""
from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from conftest import fly64
from fly64_nb.core.formats import load_arrays


@pytest.mark.parametrize("arguments, words", [
    (("--profile", "huge"), "known are tiny, quick, full, paper"),
    (("--mode", "guess"), "must be 'simulate' or 'thin'"),
    (("--profile", "tiny", "--mode", "thin"), "measured counts"),
    (("--doses", "0"), "positive number of photons"),
    (("--base", "no-such-file.npz"), "no-such-file.npz"),
])
def test_a_design_that_cannot_be_is_refused(tmp_path, arguments, words):
    done = fly64("design", tmp_path / "s", *arguments, check=False)
    assert done.returncode in (1, 2) and words in done.stdout
    assert not (tmp_path / "s" / "study.json").exists()


def test_a_study_root_keeps_its_design(copy):
    before = (copy / "study.json").read_bytes()
    done = fly64("run", copy, "--profile", "tiny", "--doses", "1e4,1e5", check=False)
    assert done.returncode == 2 and "made with another design" in done.stdout and "doses" in done.stdout
    assert (copy / "study.json").read_bytes() == before


def test_commands_on_a_folder_that_is_no_study(tmp_path):
    for command in ("generate", "overlap", "reconstruct", "compare", "report"):
        done = fly64(command, tmp_path, check=False)
        assert done.returncode == 2 and "fly64 design" in done.stdout, command


def test_a_missing_dataset_is_refused_or_recorded(copy):
    (copy / "phase_d" / "dose_10000" / "dense" / "dense_test.npz").unlink()
    refused = fly64("reconstruct", copy, check=False)
    assert refused.returncode == 2 and "dense_test.npz" in refused.stdout and "--allow-missing" in refused.stdout
    fly64("reconstruct", copy, "--allow-missing")
    skipped = json.loads((copy / "phase_f" / "skip_summary.json").read_text())
    assert [row["name"] for row in skipped] == ["phase_f/dose_10000/dense_test"] and "dense_test.npz" in skipped[0]["reason"]


def test_a_broken_dataset_fails_its_own_job_only(copy):
    """One view's file is cut short: that job is a row with its return code and log, the others are done, the exit status says so."""
    broken = copy / "phase_d" / "dose_10000" / "sparse" / "sparse_train.npz"
    broken.write_bytes(broken.read_bytes()[:5000])
    done = fly64("reconstruct", copy, check=False)
    assert done.returncode == 1
    results = {r["name"]: r for r in json.loads((copy / "phase_f" / "reconstruction_manifest.json").read_text())["execution_results"]}
    assert results["phase_f/dose_10000/sparse_train"]["returncode"] == 2 and "sparse_train.npz" in results["phase_f/dose_10000/sparse_train"]["detail"]
    assert sum(r["returncode"] == 0 for r in results.values()) == 5
    assert "sparse_train.npz" in (copy / "phase_f" / "dose_10000" / "sparse" / "train" / "ptychi.log").read_text()


def test_a_stub_reconstruction_fails_its_comparison_by_name(copy):
    (copy / "phase_f" / "dose_10000" / "dense" / "test" / "ptychi_reconstruction.npz").write_bytes(b"")
    done = fly64("compare", copy, check=False)
    manifest = json.loads((copy / "phase_g" / "comparison_manifest.json").read_text())
    assert done.returncode == 1 and (manifest["n_jobs"], manifest["n_executed"], manifest["n_success"], manifest["n_failed"]) == (6, 6, 5, 1)
    failed = [r for r in manifest["execution_results"] if r["status"] == "failed"]
    assert len(failed) == 1 and "ptychi_reconstruction.npz" in failed[0]["detail"]


def test_only_what_depends_on_a_damaged_file_is_made_again(copy):
    target = copy / "phase_g" / "dose_10000" / "dense" / "train" / "metrics.csv"
    numbers = lambda: pd.read_csv(target).query("metric != 'seconds'").reset_index(drop=True)
    before = numbers()
    target.write_text("dose,view\n")
    done = fly64("compare", copy)
    assert "1 done, 5 up to date" in done.stdout
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
    for name, arrays, words in (("amplitudes", {**scan, "data": np.sqrt(counts.astype(float))}, "not whole"),
                                ("negative", {**scan, "data": counts - 5}, "negative"),
                                ("short", {**scan, "data": counts[:-1]}, "a pattern of the probe's size for each position"),
                                ("flat", {**scan, "data": np.ones_like(counts)}, "zero frequency"),
                                ("no-probe", {"scan": scan["scan"], "data": counts}, "probe"),
                                ("pickled", {**scan, "data": np.array([{}] * n, object)}, "unpickled"),
                                ("outside", {**good, "xcoords": good["xcoords"] + 1000}, "inside the object")):
        path = tmp_path / f"{name}.npz"
        np.savez(path, **arrays)
        done = fly64("design", tmp_path / name, "--profile", "tiny", "--base", path, check=False)
        assert done.returncode != 0 and words in done.stdout and path.name in done.stdout, done.stdout
