"""The main job: a study from the base to the report, what it leaves, and what happens when it is run again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import nbformat
import numpy as np
import pandas as pd
import pytest

from conftest import ONE_DOSE, fly64
from fly64_nb.quality.table import NOTHING
from fly64_nb.contract import validate_dataset_contract
from fly64_nb.data.reconstruction import read_reconstruction
from fly64_nb.design import get_study_design, read_study
from fly64_nb.reconstruction import build_ptychi_jobs
from fly64_nb.study.layout import Layout

METHODS = ("PINN", "Supervised", "LSQML")


def test_public_names_are_where_users_know_them():
    code = """
import fly64_nb
for name in fly64_nb.__all__:
    assert name in dir(fly64_nb)
import fly64_nb.api, fly64_nb.cli, fly64_nb.panel
assert all(callable(getattr(fly64_nb, name)) for name in fly64_nb.__all__)
from fly64_nb import Axis, Method, Reader, Reconstruction, StudyDesign, Trained, get_study_design
from fly64_nb.comparison import ComparisonJob, build_comparison_jobs, execute_comparison_jobs
from fly64_nb.contract import validate_dataset_contract
from fly64_nb.design import StudyDesign, get_study_design
from fly64_nb.reconstruction import ReconstructionJob, build_ptychi_jobs, run_ptychi_job
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_study_leaves_all_that_it_promises(study):
    layout, design = Layout(study), read_study(study)["design"]
    assert [method.name for method in design.methods] == list(METHODS)
    for condition in design.conditions:
        validate_dataset_contract(layout.dataset(condition))
        executed = [study / "notebooks" / "phase_g" / "dose_10000" / f"{condition.view}_{condition.split}.ipynb"]
        for name in ("metrics.csv", "aligned.npz", "comparison.png", "frc.png", "comparison.log"):
            assert (layout.comparison(condition) / name).stat().st_size > 100
        for method in METHODS:
            assert layout.product(condition, method).is_file()
            name = f"{condition.view}_{condition.split}_{method}.ipynb"
            executed.append(study / "notebooks" / "phase_f" / "dose_10000" / name)
        for notebook in executed:
            outputs = [o for c in nbformat.read(notebook, as_version=4).cells for o in c.get("outputs", [])]
            assert not [o for o in outputs if o.output_type == "error"]
            assert any("image/png" in o.get("data", {}) for o in outputs), notebook
    assert all(row["valid"] for row in json.loads((study / "phase_b" / "contract_report.json").read_text()))


def test_every_job_has_its_log_record_and_notebook(study):
    manifests = [json.loads(path.read_text()) for path in study.glob("phase_*/*manifest.json")]
    rows = [row for manifest in manifests for row in manifest["execution_results"]]
    assert len(rows) == 1 + 1 + 3 + 1 + 4 + (18 + 6) + 6 + 1  # A C D B E F G H; 6 of F are of a flat object
    for row in rows:
        assert row["status"] == "done" and row["returncode"] == 0 and row["seconds"] > 0
        log = (study / row["log_path"]).read_text()
        assert "return code: 0" in log and "=== STDOUT ===" in log and "=== STDERR ===" in log
        executed = study / row["executed_notebook"]
        assert executed.is_file() and executed.with_suffix(".json").is_file()
    text = "".join(p.read_text() for p in study.glob("phase_*/*.json")) + (study / "study.json").read_text()
    assert str(study) not in text  # a study can be moved


def test_the_tidy_table_has_one_finite_number_a_row(study):
    table = pd.read_csv(study / "metrics.csv")
    assert list(table.columns) == ["dose", "view", "split", "seed", "method", "channel", "metric", "value"]
    assert not table.duplicated(["dose", "view", "split", "seed", "method", "channel", "metric"]).any()
    assert np.isfinite(table["value"]).all() and len(table.groupby(["dose", "view", "split"])) == 6
    assert list(dict.fromkeys(table["method"])) == [*METHODS, NOTHING]
    assert (table.groupby(["dose", "view", "split"])["method"].nunique() == 4).all()
    registered = table.query(
        "metric in ['shift_y_px', 'shift_x_px', 'ramp_y_cycles_per_px', 'ramp_x_cycles_per_px', 'factor', 'seconds']"
    )
    assert len(registered) == 6 * 3 * 6
    quality = table.query("channel == 'phase' and metric == 'ms_ssim'").set_index(["method", "view", "split"])["value"]
    for split in ("train", "test"):  # less overlap cannot help
        baseline, dense, sparse = (quality["LSQML", view, split] for view in ("baseline", "dense", "sparse"))
        assert baseline > dense > sparse
        for method in ("PINN", "Supervised"):
            assert quality[method, "baseline", split] > quality[method, "sparse", split] > 0.4


def test_products_hold_what_the_reconstruction_holds(study):
    folder = study / "phase_f" / "dose_10000" / "dense" / "test" / "LSQML"
    found = read_reconstruction(folder / "reconstruction.npz")
    data = validate_dataset_contract(study / "phase_d" / "dose_10000" / "dense" / "dense_test.npz")
    with h5py.File(folder / "product.h5") as file:
        assert np.array_equal(file["object"][0], found["object"])
        probe = file["probe"][0, 0]  # in photons: its light is what an exposure counts behind the object
        scale = np.vdot(found["probe"], probe).real / np.vdot(found["probe"], found["probe"]).real
        assert np.allclose(probe, scale * found["probe"], rtol=1e-4)
        assert 0.5 * data.dose < np.sum(np.abs(probe) ** 2) < 2 * data.dose
        pixel = file["object"].attrs["pixel_height_m"]
        assert np.allclose(file["probe_position_y_m"][()] / pixel, data.y)
        assert np.array_equal(file["probe_position_indexes"][()], data.scan_index)
        # a reader places the object's middle at its centre attribute: the first pixel is then at the origin
        middle = file["object"].attrs["center_y_m"] / pixel
        assert middle - found["object"].shape[0] / 2 == pytest.approx(found["origin"][0])
    settings = found["metadata"]["settings"]
    assert settings["noise_model"] == "poisson" and len(found["loss"]) == settings["epochs"]
    assert read_study(study)["environment"]["packages"]["ptychi"].startswith("2.2")


def test_run_again_does_no_work_and_says_so(study):
    files = [study / "metrics.csv", *study.glob("phase_*/*manifest.json")]
    before = [f.read_bytes() for f in files]
    done = fly64("run", study, "--profile", "tiny", "--doses", "1e4")
    assert "nothing to do: all 41 jobs are up to date" in done.stdout, done.stdout
    assert [f.read_bytes() for f in files] == before


def test_the_same_condition_made_anew_gives_the_same_numbers(study, tmp_path):
    """Phase by phase, with filters; the networks are trained anew as well."""
    root = tmp_path / "again"
    fly64("design", root, *ONE_DOSE)
    fly64("generate", root)
    fly64("overlap", root)
    fly64("train", root, "--view", "dense", "--only", "PINN")
    fly64("train", root, "--only", "Supervised")
    fly64("reconstruct", root, "--view", "dense", "--split", "test")
    fly64("compare", root, "--view", "dense", "--split", "test")
    condition = Path("phase_g/dose_10000/dense/test/metrics.csv")
    numbers = lambda p: pd.read_csv(p / condition).query("metric != 'seconds'").reset_index(drop=True)
    pd.testing.assert_frame_equal(numbers(root), numbers(study), check_exact=True)
    for name in ("phase_c/dose_10000/patched_test.npz", "phase_d/dose_10000/dense/dense_test.npz"):
        assert (root / name).read_bytes() == (study / name).read_bytes()


def test_a_dry_run_names_commands_and_runs_nothing(copy):
    (copy / "phase_f" / "reconstruction_manifest.json").unlink()
    done = fly64("reconstruct", copy, "--dry-run", "--split", "train", "--only", "LSQML")
    assert done.stdout.count("-m papermill") == 3 and done.stdout.count("reconstruction.log") == 3
    results = json.loads((copy / "phase_f" / "reconstruction_manifest.json").read_text())["execution_results"]
    assert sum("papermill" in row.get("preview", "") for row in results) == 3
    assert [row["status"] for row in results] == ["done"] * 24  # from the jobs' records: looking does not undo


def test_eighteen_jobs_in_fixed_order(tmp_path):
    _, rows = build_ptychi_jobs(tmp_path, get_study_design("tiny"), allow_missing=True)
    assert [(row["dose"], row["view"], row["split"]) for row in rows] == [
        (d, v, s) for d in (1e3, 1e4, 1e5) for v in ("baseline", "dense", "sparse") for s in ("train", "test")
    ]
    assert {row["method"] for row in rows} == {"LSQML"}
