"""What a person sees of a study: status, logs, where a number comes from, what a run would do; and replicates."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from conftest import fly64
from fly64_nb.cli import app
from fly64_nb.design import read_study
from fly64_nb.engine.graph import run_folder, running_notes

HEAVY = ("numpy", "pandas", "pydantic", "torch", "keras", "tensorflow", "matplotlib", "distributed", "IPython")


def table_rows(output: str) -> dict[str, list[str]]:
    """Words of the lines of a table by their first word."""
    return {line.split()[0]: line.split() for line in output.splitlines() if line.strip()}


def test_help_answers_without_heavy_imports():
    code = f"import sys, fly64_nb, fly64_nb.cli; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    shown = CliRunner().invoke(app, ["--help"]).output
    commands = "init design generate overlap train reconstruct compare report run status logs why advise".split()
    assert all(name in shown for name in commands)
    for name in commands:
        assert "STUDY" in CliRunner().invoke(app, [name, "--help"]).output
    options = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["run", "--help"]).output
    for option in ("--vary", "--set", "--method", "--methods", "--axis", "--reader", "--cross", "--seeds"):
        assert option in options


def test_a_study_file_is_written_read_and_outvoted(tmp_path):
    root, axis = tmp_path / "s", ("--vary", "position_error=0.5")
    fly64("init", root, "--profile", "tiny", "--doses", "1e4", *axis, "--methods", "LSQML", "--set", "LSQML.epochs=9")
    written = tomllib.loads((root / "study.toml").read_text())
    assert written["study"] == {"profile": "tiny", "doses": [10000], "methods": ["LSQML"]}
    assert written["axes"] == {"position_error": [0.5]} and written["methods"]["LSQML"] == {"epochs": 9}
    assert "# noise_model" in (root / "study.toml").read_text()
    assert json.loads((root / ".fly64" / "study.schema.json").read_text())["properties"]["methods"]
    plan = fly64("run", root, "--dry-run").stdout
    assert "phase_f/dose_10000/dense_position_error_0p5_test_LSQML" in plan and "PINN" not in plan
    assert "phase_c/dose_1000/datasets" in fly64("run", root, "--dry-run", "--doses", "1e3").stdout
    again = fly64("init", root, check=False)
    assert again.returncode == 2 and "is there already" in again.stdout
    (root / "study.toml").write_text("[study]\nprofile = 'tiny'\n\n[methods.LSQML]\nepochs = 0\n")
    refused = fly64("run", root, check=False)
    assert refused.returncode == 2
    assert "study.toml, line 5: key 'methods.LSQML.epochs': found 0; needed greater than" in refused.stdout
    assert not (root / "study.json").exists()


def test_design_tells_which_overlaps_the_scan_can_have(tmp_path):
    said = fly64("design", tmp_path / "s", "--profile", "tiny", "--overlaps", "0.5,0.9").stdout
    assert "own overlap 0.8" in said and "overlap_50 (target 0.50): " in said
    assert "overlap_90 (target 0.90): left out: keeps all " in said


def test_status_of_a_finished_and_of_a_damaged_study(study, copy):
    shown = fly64("status", study).stdout
    assert "no run is going on" in shown and "F reconstruction" in shown
    assert "failed" not in shown and "left" not in shown
    (copy / "phase_f" / "dose_10000" / "dense" / "test" / "LSQML" / "product.h5").unlink()
    rows = table_rows(fly64("status", copy).stdout)
    assert "left" in rows["phase"] and rows["F"][2:5] == ["24", "23", "1"]
    rows = table_rows(fly64("status", study, "--only", "PINN", "--view", "dense").stdout)
    assert rows["E"][2:4] == ["1", "1"] and rows["F"][2:4] == ["3", "3"] and "G" not in rows


def test_logs_are_found_by_condition_and_method(study):
    shown = fly64("logs", study, "--view", "dense", "--split", "test", "--only", "LSQML").stdout
    assert "phase_f/dose_10000/dense/test/LSQML/reconstruction.log" in shown and "return code: 0" in shown
    assert "epochs" in shown and shown.count("condition: ") == 1
    shown = fly64("logs", study, "--view", "dense", "--only", "PINN", "--phase", "e").stdout
    assert "phase_e/dose_10000/dense/PINN/train.log" in shown and shown.count("condition: ") == 1
    for wrong, words in (
        (("--view", "nowhere"), "there are ['baseline', 'dense', 'sparse']"),
        (("--only", "Magic"), "--only Magic: no such job; there are PINN, Supervised, LSQML"),
        (("--at", "position_error=0.5"), "--at position_error: no such axis"),
        (("--phase", "X"), "--phase X: no such phase; there are A to H"),
        (("--seed", "7"), "seed 7: no such replicate; there are 42"),
    ):
        refused = fly64("logs", study, *wrong, check=False)
        assert refused.returncode == 2 and words in refused.stdout, refused.stdout


def test_why_leads_from_a_comparison_back_to_the_base(study):
    shown = fly64("why", study, "--dose", "1e4", "--view", "dense", "--split", "test").stdout
    for word in (
        "phase_g/dose_10000/dense_test",
        "phase_f/dose_10000/dense_test_LSQML",
        "phase_f/dose_10000/dense_test_PINN",
        "phase_e/dose_10000/dense_PINN",
        "phase_e/dose_10000/baseline_Supervised",
        "phase_d/dose_10000/dense",
        "phase_c/dose_10000/datasets",
        "phase_a/design",
        "base.npz",
        "quality/metrics.py",
        "ptychi 2.2",
    ):
        assert word in shown, word
    assert read_study(study)["base_digest"][:12] in shown and "changed since" not in shown
    record = json.loads((study / "notebooks/phase_g/dose_10000/dense_test.json").read_text())
    assert record["host"] in shown and record["input_digests"]["phase_d/dose_10000/dense/dense_test.npz"][:12] in shown


def test_a_dry_run_says_what_would_be_run_and_why(copy):
    assert "0 of 41 jobs" in fly64("run", copy, "--dry-run").stdout
    damaged = copy / "phase_d" / "dose_10000" / "dense" / "dense_test.npz"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    shown = fly64("run", copy, "--dry-run").stdout
    assert "phase_d/dose_10000/dense: its output phase_d/dose_10000/dense/dense_test.npz was changed" in shown
    assert "phase_f/dose_10000/dense_test_LSQML: after phase_d/dose_10000/dense" in shown
    assert "phase_f/dose_10000/sparse_test" not in shown


def test_only_what_depends_on_a_damaged_dataset_is_made_again(copy):
    """The damaged view is chosen anew and comes out the same to the byte, so nothing behind it has to run."""
    damaged = copy / "phase_d" / "dose_10000" / "dense" / "dense_test.npz"
    before = damaged.read_bytes()
    damaged.write_bytes(before[:5000])
    shown = fly64("run", copy).stdout
    assert damaged.read_bytes() == before
    ran = [line.split("] ")[1].split(":")[0] for line in shown.splitlines() if ": done in" in line]
    assert ran == ["phase_d/dose_10000/dense", "phase_h/report"], shown  # the report shows how long it took


def kill_when(root: Path, made: int) -> subprocess.Popen:
    """Run a study, and kill it with SIGKILL in the middle of a job, when so many reconstructions are there."""
    program = Path(sys.executable).with_name("fly64")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run = subprocess.Popen([program, "run", root], **quiet, start_new_session=True)
    ended = time.monotonic() + 240
    while len(list(root.glob("phase_f/**/reconstruction.npz"))) < made or not running_notes(root):
        assert run.poll() is None and time.monotonic() < ended
        time.sleep(0.05)
    if made == 4:
        shown = fly64("status", root).stdout
        assert f"process {run.pid}" in shown and "running" in shown
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    return run


@pytest.mark.slow  # three minutes; test_engine kills everything on a graph of small jobs
def test_a_killed_study_ends_with_the_same_numbers(study, copy):
    """Reconstructions and comparisons of the real study are made again, killed twice; then the rest is made."""
    for folder in ("phase_f", "phase_g"):
        shutil.rmtree(copy / folder)
    for made in (4, 10):
        kill_when(copy, made)
    assert "a run was killed" in fly64("status", copy).stdout and (run_folder(copy) / "run.json").is_file()
    done = fly64("run", copy)
    assert "fly64 run" not in fly64("status", copy).stdout
    numbers = lambda root: pd.read_csv(root / "metrics.csv").query("metric != 'seconds'").reset_index(drop=True)
    pd.testing.assert_frame_equal(numbers(copy), numbers(study), check_exact=True)
    assert "report:" in done.stdout


@pytest.mark.slow  # two minutes; replicates are also read in test_sweep, and planned in test_stale
def test_a_sweep_by_name_with_replicates_runs_to_its_report(tmp_path):
    """One dose, two overlaps of which one leaves too few positions, two seeds of the noise, one method."""
    root = tmp_path / "s"
    sweep = "--doses", "1e4", "--overlaps", "close=0.8,0", "--seeds", "2", "--methods", "LSQML"
    fly64("run", root, "--profile", "tiny", *sweep)
    design = read_study(root)["design"]
    assert design.views == ("baseline", "close", "overlap_00") and design.seeds == (42, 43)
    table = pd.read_csv(root / "metrics.csv")
    phase = table.query("channel == 'phase' and metric == 'ms_ssim' and split == 'test'")
    phase = phase.set_index(["seed", "view", "method"])["value"]
    assert set(table["seed"]) == {42, 43} and set(phase.loc[42].index) == set(phase.loc[43].index)
    assert phase[42, "close", "LSQML"] != phase[43, "close", "LSQML"]
    left_out = {row["name"]: row["reason"] for row in json.loads((root / "phase_f" / "skip_summary.json").read_text())}
    if "overlap_00" not in set(table["view"]):
        assert "positions are at least S" in left_out["phase_f/dose_10000/overlap_00_test_LSQML"]
    page = (root / "report" / "_site" / "index.html").read_text()
    assert "±" in page and "replicates/seed_43/notebooks" in page
    assert "nothing to do" in fly64("run", root).stdout
    shown = fly64("why", root, "--view", "close", "--split", "test", "--seed", "43").stdout
    assert "phase_f/dose_10000/close_test_LSQML" in shown and "from phase_a/design" in shown
    shown = compare_again(root, 43)
    assert "1 done" in shown and "1 up to date" in shown


def compare_again(root: Path, seed: int) -> str:
    """Make one comparison of a replicate again, by its phase alone."""
    before = (root / "metrics.csv").read_bytes()
    (root / "replicates" / f"seed_{seed}" / "phase_g" / "dose_10000" / "close" / "test" / "frc.png").unlink()
    shown = fly64("compare", root, "--view", "close", "--seed", str(seed)).stdout
    assert len((root / "metrics.csv").read_bytes().splitlines()) == len(before.splitlines())
    return shown
