"""A study grows: by a stranger's method, axis or reader, each one notebook in an empty folder, and by another dose."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import fly64
from fly64_nb import api
from fly64_nb.axes.axis import find_axes
from fly64_nb.data.base import read_base
from fly64_nb.design import get_study_design, read_study
from fly64_nb.panel import axis_controls, display_controls
from fly64_nb.quality.advice import advise_study
from fly64_nb.quality.table import headline, read_table, methods_of
from fly64_nb.results.run import choose_axes
from fly64_nb.results.study import open_study

METHOD = '''
import time
from dataclasses import dataclass
import numpy as np
from fly64_nb import Method, Reconstruction
---
@dataclass(frozen=True)
class Settings:
    """Attributes
    ----------
    epochs : int
        Passes over the patterns.
    """
    epochs: int = 10
---
def epie(data, settings, model, on_epoch):
    """The extended ptychographical iterative engine, with the known probe."""
    started, probe, n = time.perf_counter(), data.known_probe, data.window
    top, left = (np.round(c - n / 2).astype(int) for c in (data.known_y, data.known_x))
    image = np.ones((np.ptp(top) + n, np.ptp(left) + n), complex)
    measured = np.sqrt(np.fft.ifftshift(data.counts(), (1, 2)))
    probe = probe * np.sqrt((measured**2).sum((1, 2)).mean() / (np.abs(np.fft.fft2(probe)) ** 2).sum())
    for epoch in range(settings.epochs):
        for amplitude, y, x in zip(measured, top - top.min(), left - left.min()):
            part = image[y : y + n, x : x + n]
            wave = np.fft.fft2(probe * part)
            change = np.fft.ifft2(amplitude * np.exp(1j * np.angle(wave))) - probe * part
            part += probe.conj() * change / (np.abs(probe) ** 2).max()
        on_epoch(epoch + 1, settings.epochs)
    origin, seconds = (int(top.min()), int(left.min())), time.perf_counter() - started
    return Reconstruction(image.astype("c8"), probe.astype("c8"), origin, np.empty(0), seconds, "cpu", settings)
---
EPIE = Method("ToyPIE", Settings, epie)
'''
AXIS = '''
from dataclasses import replace
from fly64_nb import Axis
---
def tell_noisy_probe(data, share, rng):
    """A method is told a probe with noise of this share of its own spread."""
    re, im = rng.standard_normal((2, *data.probe.shape)) * share * data.probe.std() / 2**0.5
    return replace(data, known_probe=(data.probe + re + 1j * im).astype("c8"))

PROBE_NOISE = Axis("probe_noise", "probe noise", "of its spread", 0.0, "knowledge", tell_noisy_probe, least=0)
'''
READER = '''
import numpy as np
from fly64_nb import Base, Reader
---
def read_toy(path):
    """An NPZ of this laboratory's own."""
    with np.load(path) as file:
        return Base(file["sample"], file["beam"], *file["stage"], source={"kind": "toy", "file": path.name})

TOY = Reader("toy", lambda path: path.suffix == ".toy", read_toy, order=0)
'''


def write_notebook(path: Path, text: str) -> Path:
    """A notebook as a person would save it; cells stand between lines of ``---``."""
    cells = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "outputs": [], "execution_count": None,
         "source": cell.strip().splitlines(keepends=True)}
        for n, cell in enumerate(re.split(r"^---$", text, flags=re.MULTILINE))
    ]  # fmt: skip
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def titles(output: str, words: str = ": done in") -> set[str]:
    """Jobs of a command's output that it says this of."""
    lines = [line for line in output.splitlines() if words in line]
    return {re.sub(r"^\[\d+/\d+\] ", "", line).split(": ")[0] for line in lines}


def digests(root: Path, *folders: str) -> dict[str, str]:
    """Digest of every file in folders of a study, but those that list all jobs of a phase."""
    paths = [path for folder in folders for path in (root / folder).rglob("*") if path.is_file()]
    own = [path for path in paths if path.parent != root / path.relative_to(root).parts[0]]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in own}


CONDITIONS = [f"{view}_{split}" for view in ("baseline", "dense", "sparse") for split in ("train", "test")]


@pytest.mark.parametrize("text, most", [(METHOD, 33), (AXIS, 8), (READER, 8)])
def test_a_strangers_notebook_is_short(text, most):
    assert len([line for line in text.splitlines() if line.strip("-").strip()]) <= most


def test_a_strangers_method_is_compared_like_any_other(copy, tmp_path):
    before = digests(copy, "phase_c", "phase_d", "phase_e", "phase_f")
    toy = write_notebook(tmp_path / "toy.ipynb", METHOD)
    shown = fly64("run", copy, "--profile", "tiny", "--doses", "1e4", "--method", toy).stdout
    ran = {f"phase_f/dose_10000/{name}_ToyPIE" for name in CONDITIONS}
    ran |= {f"phase_g/dose_10000/{name}" for name in CONDITIONS}
    assert titles(shown) == ran | {"phase_h/report"}
    assert {path: digest for path, digest in digests(copy, *"phase_c phase_d phase_e phase_f".split()).items()
            if path in before} == before  # fmt: skip
    table = read_table(copy / "metrics.csv")
    assert methods_of(table) == ["PINN", "Supervised", "LSQML", "ToyPIE"]
    assert (table.query("method == 'ToyPIE' and metric == 'rmse'").groupby(["view", "split"]).size() == 3).all()
    quality = headline(table).xs("ToyPIE", level="method")["phase MS-SSIM"]
    assert quality[1e4, "baseline"] > 0.5, quality
    assert "ToyPIE" in shown.partition("Against the truth")[2]
    assert_in_report_panel_and_advice(copy)
    assert "nothing to do" in fly64("run", copy).stdout  # the study remembers where the method is
    plan = fly64("run", copy, "--set", "ToyPIE.epochs=3", "--dry-run").stdout
    assert titles(plan, "settings.epochs changed from 10 to 3") == {name for name in ran if "_ToyPIE" in name}
    write_notebook(toy, METHOD.replace("/ (np.abs(probe) ** 2).max()", "/ (np.abs(probe) ** 2).sum()"))
    plan = fly64("run", copy, "--dry-run").stdout
    assert titles(plan, "toy.ipynb changed") == {name for name in ran if "_ToyPIE" in name}
    assert "PINN: " not in plan and "phase_e" not in plan


def assert_in_report_panel_and_advice(root: Path) -> None:
    """The new method stands wherever methods stand."""
    page = "".join(
        path.read_text() for path in (root / "report" / "_site").rglob("*.html") if "phase_" not in str(path)
    )
    for place in ("headline", "heatmap", "gallery"):
        assert place in page.lower(), place
    assert page.count("ToyPIE") > 20
    study = open_study(root)
    assert "ToyPIE" in study.reconstructions(1e4, "dense", "test")
    assert "ToyPIE" in display_controls(study)["method"].options
    assert "ToyPIE" in set(advise_study(root, phase_rmse=0.1).doses["method"])
    assert "ToyPIE" in fly64("advise", root, "--phase-rmse", "0.1").stdout


def test_a_strangers_axis_has_a_column_folders_and_filters(tmp_path):
    root, toy = tmp_path / "s", write_notebook(tmp_path / "toy_axis.ipynb", AXIS)
    asked = "--profile", "tiny", "--doses", "1e4", "--overlaps", "dense=0.7", "--methods", "LSQML"
    fly64("run", root, *asked, "--axis", toy, "--vary", "probe_noise=0.5")
    table = pd.read_csv(root / "metrics.csv")
    assert list(table.columns[:4]) == ["dose", "view", "probe_noise", "split"]
    assert list(dict.fromkeys(table["probe_noise"])) == [0, 0.5]
    phase = table.query("channel == 'phase' and metric == 'ms_ssim' and split == 'test' and view == 'baseline'")
    phase = phase[phase["method"] == "LSQML"]
    neutral, noisy = phase.set_index("probe_noise")["value"].reindex([0, 0.5])
    assert neutral > noisy + 0.02
    assert (root / "phase_f/dose_10000/dense/probe_noise_0p5/test/LSQML/reconstruction.npz").is_file()
    page = "".join(path.read_text() for path in (root / "report" / "_site").glob("*.html"))
    assert "probe noise" in page
    assert "probe_noise" in axis_controls(open_study(root))
    shown = fly64("logs", root, "--at", "probe_noise=0.5", "--view", "dense", "--split", "test", "--phase", "F").stdout
    assert shown.count("condition: ") == 1 and "dense_probe_noise_0p5_test_LSQML" in shown
    shown = fly64("status", root, "--at", "probe_noise=0", "--phase", "G").stdout
    assert [line.split()[:3] for line in shown.splitlines() if line.startswith("G ")] == [["G", "comparison", "4"]]
    refused = fly64("why", root, "--at", "probe_noise=2", check=False)
    assert refused.returncode == 2 and "there are 0, 0.5" in refused.stdout
    shown = fly64("advise", root, "--phase-rmse", "0.1").stdout
    assert "0.5" in shown and "noise" in shown
    assert "nothing to do" in fly64("run", root).stdout
    plan = fly64("run", root, "--vary", "probe_noise=1", "--vary", "position_error=0.5", "--dry-run").stdout
    new = titles(plan, "after phase_d")
    assert new and all("probe_noise_1" in name or "position_error_0p5" in name or "phase_b" in name for name in new)


def test_a_strangers_reader_is_asked_for_its_files(study, tmp_path):
    base = read_base(study / "base.npz")
    with open(tmp_path / "scan.toy", "wb") as file:
        np.savez(file, sample=base.object, beam=base.probe, stage=[base.y, base.x])
    refused = fly64("design", tmp_path / "s", "--profile", "tiny", "--base", tmp_path / "scan.toy", check=False)
    assert refused.returncode == 2 and "scan.toy" in refused.stdout
    toy = write_notebook(tmp_path / "toy_reader.ipynb", READER)
    fly64("design", tmp_path / "s", "--profile", "tiny", "--base", tmp_path / "scan.toy", "--reader", toy)
    assert np.array_equal(read_base(tmp_path / "s" / "base.npz").object, base.object)
    assert "0 of" not in fly64("run", tmp_path / "s", "--dry-run").stdout  # and continued without naming it again


@pytest.fixture
def small(tmp_path) -> Path:
    """A study of one dose and one method."""
    root = tmp_path / "small"
    fly64("run", root, "--profile", "tiny", "--doses", "1e4", "--overlaps", "dense=0.7", "--methods", "LSQML")
    return root


def test_another_dose_makes_what_is_new_and_leaves_the_rest(small):
    folders = [f"phase_{letter}" for letter in "cdfg"]
    before = digests(small, *folders)
    plan = fly64("run", small, "--doses", "1e3,1e4", "--dry-run").stdout
    jobs = {"phase_c/dose_1000/datasets", "phase_d/dose_1000/baseline", "phase_d/dose_1000/dense"}
    for name in ("baseline_train", "baseline_test", "dense_train", "dense_test"):
        jobs |= {f"phase_f/dose_1000/{name}_LSQML", f"phase_g/dose_1000/{name}"}
    assert "phase_c/dose_1000/datasets: not made yet" in plan
    assert f"{len(jobs) + 2} of 25 jobs to run" in plan  # and the audit, and the report
    shown = fly64("run", small, "--doses", "1e3").stdout
    assert titles(shown) == jobs | {"phase_b/contract", "phase_h/report"}
    after = digests(small, *folders)
    assert {path: after[path] for path in before} == before and len(after) > len(before)
    assert read_study(small)["design"].doses == (1e3, 1e4)
    table = read_table(small / "metrics.csv")
    assert list(dict.fromkeys(table["dose"])) == [1e3, 1e4] and methods_of(table) == ["LSQML"]
    manifest = json.loads((small / "phase_f" / "reconstruction_manifest.json").read_text())
    assert manifest["n_success"] == 8


def test_what_is_held_fixed_is_refused_by_name(copy):
    before = (copy / "study.json").read_bytes()
    for wrong, words in (
        (("--profile", "quick"), "profile: 'tiny' there, 'quick' asked for"),
        (("--mode", "thin"), "mode: 'simulate' there"),
        (("--seed", "7"), "simulation_seed: 42 there, 7 asked for"),
        (("--set", "guard_band=3"), "guard_band: None there, 3.0 asked for"),
        (("--overlaps", "dense=0.6"), "view dense: overlap 0.7 there, 0.6 asked for"),
        (("--base", copy / "base.npz"), "The base is held fixed"),
    ):
        done = fly64("run", copy, *wrong, check=False)
        assert done.returncode == 2 and words in done.stdout, done.stdout
    assert (copy / "study.json").read_bytes() == before
    plan = fly64("run", copy, "--seeds", "2", "--dry-run").stdout
    assert "replicates/seed_43/phase_c/dose_10000/datasets: not made yet" in plan
    assert all("seed_43" in line for line in plan.splitlines()[:-2])


def test_python_does_the_same_and_raises_what_a_terminal_prints(copy, tmp_path, capsys):
    study = api.run(copy, get_study_design("tiny", doses=[1e4]))
    assert study.path == copy and (study.progress["state"] == "compared").all()
    assert "41/41" in capsys.readouterr().err  # the progress bar
    with pytest.raises(ValueError, match="profile: 'tiny' there, 'full' asked for"):
        api.run(copy, profile="full", progress=False)
    toy = write_notebook(tmp_path / "toy.ipynb", METHOD)
    design = get_study_design("tiny", doses=[1e4], axes=choose_axes({"position_error": [0.5]}, find_axes()))
    study = api.run(tmp_path / "s", design, methods=["ToyPIE", toy], progress=False, overlap_targets={}, workers=1)
    assert study.methods == ("ToyPIE",) and study.design.views == ("baseline",)
    assert (study.progress["state"] == "compared").all() and len(study.progress) == 4
    assert len(study.reconstruction(1e4, "baseline", "test", "ToyPIE", position_error=0.5).phase) > 10
