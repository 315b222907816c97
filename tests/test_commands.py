"""What a person sees of a study: its status, its logs, where a number comes from, what a run would do; and a wider sweep with replicates."""
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from conftest import fly64
from fly64_nb.core.engine import hidden
from fly64_nb.design import read_study


def test_status_of_a_finished_and_of_a_damaged_study(study, copy):
    said = fly64("status", study).stdout
    assert "no run is going on" in said and "F LSQML" in said and "failed" not in said and "left" not in said
    (copy / "phase_f" / "dose_10000" / "dense" / "test" / "product.h5").unlink()
    lines = {line.split()[0]: line.split() for line in fly64("status", copy).stdout.splitlines() if line.strip()}
    assert "left" in lines["phase"] and lines["F"][2:5] == ["6", "5", "1"]


def test_logs_are_found_by_condition(study):
    said = fly64("logs", study, "--phase", "F", "--view", "dense", "--split", "test").stdout
    assert "phase_f/dose_10000/dense/test/ptychi.log" in said and "return code: 0" in said and "epochs" in said and said.count("condition: ") == 1
    refused = fly64("logs", study, "--view", "nowhere", check=False)
    assert refused.returncode == 2 and "there are ['baseline', 'dense', 'sparse']" in refused.stdout


def test_why_leads_from_a_comparison_back_to_the_base(study):
    said = fly64("why", study, "--dose", "1e4", "--view", "dense", "--split", "test").stdout
    for word in ("phase_g/dose_10000/dense_test", "phase_f/dose_10000/dense_test", "phase_e/dose_10000/dense_gs2_pinn", "phase_d/dose_10000/dense", "phase_c/dose_10000/datasets",
                 "phase_a/design", "base.npz", "core/metrics.py", "ptychi 2.2"):
        assert word in said, word
    assert read_study(study)["base_digest"][:12] in said and "changed since" not in said
    record = json.loads((study / "notebooks/phase_g/dose_10000/dense_test.json").read_text())
    assert record["host"] in said and record["input_digests"]["phase_d/dose_10000/dense/dense_test.npz"][:12] in said


def test_a_dry_run_says_what_would_be_run_and_why(copy):
    assert "0 of 23 jobs" in fly64("run", copy, "--dry-run").stdout
    damaged = copy / "phase_d" / "dose_10000" / "dense" / "dense_test.npz"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    said = fly64("run", copy, "--dry-run").stdout
    assert "phase_d/dose_10000/dense: its output phase_d/dose_10000/dense/dense_test.npz was changed" in said
    assert "phase_f/dose_10000/dense_test: after phase_d/dose_10000/dense" in said and "phase_f/dose_10000/sparse_test" not in said


def test_only_what_depends_on_a_damaged_dataset_is_made_again(copy):
    """The damaged view is chosen anew and comes out the same to the byte, so nothing behind it has to run."""
    damaged = copy / "phase_d" / "dose_10000" / "dense" / "dense_test.npz"
    before = damaged.read_bytes()
    damaged.write_bytes(before[:5000])
    said = fly64("run", copy).stdout
    assert damaged.read_bytes() == before
    ran = [line.split("] ")[1].split(":")[0] for line in said.splitlines() if ": done in" in line]
    assert ran == ["phase_d/dose_10000/dense", "phase_h/report"], said            # the report shows how long it took


def test_a_killed_study_ends_with_the_same_numbers(study, copy):
    """The real study, with LSQML and comparisons to make again, killed with SIGKILL three times; then the engine finds what is missing."""
    for folder in ("phase_f", "phase_g"):
        shutil.rmtree(copy / folder)
    for seconds in (9, 14, 20):
        run = subprocess.Popen([Path(sys.executable).with_name("fly64"), "run", copy], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(seconds)
        if seconds == 14:
            status = fly64("status", copy).stdout
            assert f"process {run.pid}" in status and "running" in status
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert "a run was killed" in fly64("status", copy).stdout and (hidden(copy) / "run.json").is_file()
    done = fly64("run", copy)
    assert "fly64 run" not in fly64("status", copy).stdout
    numbers = lambda root: pd.read_csv(root / "metrics.csv").query("metric != 'seconds'").reset_index(drop=True)
    pd.testing.assert_frame_equal(numbers(copy), numbers(study), check_exact=True)
    assert "report:" in done.stdout


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """One dose, two overlaps of which one leaves too few positions, two seeds of the noise."""
    root = tmp_path_factory.mktemp("sweep") / "s"
    fly64("run", root, "--profile", "tiny", "--doses", "1e4", "--overlaps", "close=0.8,0", "--seeds", "2")
    return root


def test_a_sweep_by_name_with_replicates_runs_to_its_report(sweep):
    design = read_study(sweep)["design"]
    assert design.views == ("baseline", "close", "overlap_00") and design.seeds == (42, 43)
    table = pd.read_csv(sweep / "metrics.csv")
    phase = table.query("channel == 'phase' and metric == 'ms_ssim' and split == 'test'").set_index(["seed", "view", "method"])["value"]
    assert set(table["seed"]) == {42, 43} and set(phase.loc[42].index) == set(phase.loc[43].index)
    assert phase[42, "close", "PtyChi"] != phase[43, "close", "PtyChi"]
    left_out = {row["name"]: row["reason"] for row in json.loads((sweep / "phase_f" / "skip_summary.json").read_text())}
    if ("overlap_00" not in set(table["view"])):
        assert "positions are at least S" in left_out["phase_f/dose_10000/overlap_00_test"]
    page = (sweep / "report" / "_site" / "index.html").read_text()
    assert "±" in page and "replicates/seed_43/notebooks" in page
    assert "nothing to do" in fly64("run", sweep).stdout
    assert "phase_f/dose_10000/close_test" in fly64("why", sweep, "--view", "close", "--split", "test", "--seed", "43").stdout
