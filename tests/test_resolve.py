"""Quality without a truth: files and studies by the command line, what is refused, and what it cannot see."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fly64_nb.cli import app
from hdf5_examples import HDF5_EXAMPLES
from fly64_nb.data.base import Base, write_base
from fly64_nb.data.experiment import Experiment
from fly64_nb.data.readers.example import ExampleScan
from fly64_nb.data.reconstruction import write_reconstruction
from fly64_nb.engine.graph import plan_jobs
from fly64_nb.engine.job import Job
from fly64_nb.data.writers.writer import convert
from fly64_nb.methods.likelihood.common import trial_dataset
from fly64_nb.methods.map import MAP
from fly64_nb.methods.method import find_methods, settings_of
from fly64_nb.methods.ml import ML
from fly64_nb.quality.alignment import common_field
from fly64_nb.quality.split import BLIND
from fly64_nb.reconstruction import reconstruct_with
from fly64_nb.report import build_report_job
from fly64_nb.results.resolve import dealt_halves, judge_for, maker, resolve_dataset
from fly64_nb.results.resolve_jobs import resolve_jobs
from fly64_nb.results.resolved import read_result, resolved_images
from fly64_nb.results.score import score
from fly64_nb.results.study import open_study

PIXEL = 20e-9


def fly64(*arguments: str | Path, status: int = 0) -> str:
    """What the command line prints, in this process: a new one would spend longer on its imports than on the work."""
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == status, done.output
    return done.output


def quick(method, **changes):
    """A method with few iterations, as a function of a dataset."""
    return maker(method, settings_of(method, "quick", changes))


def resolved(data, make, **more):
    """What halves say of a trial dataset, beside its truth."""
    where = common_field([(data.y, data.x)], data.object.shape)
    return resolve_dataset(data, make, where, method="ML", title="trial", truth=data.object, **more)


def scan_of(data, **changes) -> Base:
    """A trial dataset as a base with its counts."""
    counts = data.counts().astype(np.uint32)
    base = Base(data.object, data.probe, data.y, data.x, PIXEL, counts, {"kind": "file", "file": "chip.npz"})
    return replace(base, **changes)


@pytest.fixture(scope="module")
def chip():
    """A chip of 36 patterns of 32² pixels."""
    return trial_dataset(3e4, spacing=7, size=48)


def test_noise_and_resolution_are_those_against_the_truth(chip):
    found = resolved(chip, quick(ML))
    assert 0.8 < found.quality.phase_rms / found.truth.phase_rms < 1.2, found.sentences()
    assert abs(found.truth.held(found.quality, 0.95) - 0.95) < 0.06
    assert 0.7 < found.quality.resolution()["one_seventh"] * 2 * found.true_resolution < 1.3


def test_more_photons_are_better_and_halves_of_a_deal_differ(chip):
    bright = trial_dataset(3e5, spacing=7, size=48)
    dim, clear = (resolved(data, quick(ML, iterations=15), deals=1).quality for data in (chip, bright))
    assert clear.noise_rms() < 0.6 * dim.noise_rms()
    again = dealt_halves(chip, 0)[0].counts(), dealt_halves(chip, 0)[0].counts(), dealt_halves(chip, 1)[0].counts()
    assert np.array_equal(again[0], again[1]) and not np.array_equal(again[1], again[2])


def test_a_wrong_probe_that_both_halves_are_told_is_not_seen(chip):
    """The prediction stays, the true error grows, and the result says that it cannot know."""
    y, x = np.indices(chip.probe.shape) - chip.window / 2
    wrong = (chip.probe * np.exp(0.02j * (y**2 + x**2) / 8)).astype(np.complex64)
    right, fooled = (resolved(data, quick(ML), deals=1) for data in (chip, replace(chip, known_probe=wrong)))
    assert fooled.truth.phase_rms > 1.5 * right.truth.phase_rms
    assert fooled.quality.phase_rms < 0.8 * fooled.truth.phase_rms
    assert any("a wrong probe" in line for line in BLIND) and set(BLIND) <= set(fooled.sentences())


def test_a_judge_sees_what_a_prior_smooths_away():
    data = trial_dataset(3e3, spacing=8, size=48)
    judge = judge_for(MAP, "ML", "quick", find_methods())
    few = {"rounds": 3}
    alone, judged = (resolved(data, quick(MAP, **few), deals=1, judge=one) for one in (None, judge))
    assert alone.quality.phase_rms < judged.quality.phase_rms
    errors = [abs(np.log(one.quality.phase_rms / one.truth.phase_rms)) for one in (alone, judged)]
    assert errors[1] < errors[0]
    assert any("shot-noise limit" in note for note in alone.quality.notes)
    assert "as seen by a judge without a prior" in judged.quality.sentences()[0]
    assert judge_for(ML, "ML", "quick", find_methods()) is None
    with pytest.raises(ValueError, match="needed is one of"):
        judge_for(MAP, "LSQML", "quick", find_methods())


def test_positions_that_are_told_wrong_as_a_whole_move_the_field(chip):
    told = replace(chip, known_y=chip.y + 3, known_x=chip.x - 2)
    found, plain = (resolved(data, quick(ML, iterations=15), deals=1) for data in (told, chip))
    assert abs(found.quality.phase_rms / plain.quality.phase_rms - 1) < 0.1
    assert abs(found.truth.phase_rms / plain.truth.phase_rms - 1) < 0.1


def test_a_file_is_resolved_by_the_command_line(chip, tmp_path):
    write_base(tmp_path / "chip.npz", scan_of(chip))
    out = tmp_path / "out"
    done = fly64("resolve", tmp_path / "chip.npz", "--deals", "1", "--profile", "tiny", "--output", out)
    assert "predicted without a truth" in done and "nm)" in done and "a wrong probe" in done
    assert {p.name for p in out.iterdir()} == {"resolve.json", "resolve.csv", "rings.csv", "images.npz", "resolve.png"}
    record, table = json.loads((out / "resolve.json").read_text()), pd.read_csv(out / "resolve.csv")
    assert record["deals"] == 1 and record["against_truth"] is None and record["cannot_see"] == list(BLIND)
    assert set(table["unit"]) == {"rad", "1", "px", "nm"}
    rings = pd.read_csv(out / "rings.csv")
    assert rings["complex_object"].iloc[0] > 0.9 and (rings["frequency"].diff()[1:] > 0).all()


def test_what_cannot_be_resolved_is_refused(chip, tmp_path):
    write_base(tmp_path / "dark.npz", scan_of(chip, counts=None))
    for command, words in (
        ((tmp_path / "dark.npz",), "no measured counts"),
        ((tmp_path,), "study.json"),
        ((tmp_path / "dark.npz", "--method", "PINN"), "learns beforehand"),
        ((tmp_path / "dark.npz", "--method", "none"), "is unknown"),
    ):
        assert words in fly64("resolve", *command, status=2)


def test_images_of_a_study_are_resolved_beside_their_truth(copy):
    """Of a network, whose weights read both halves: the output says so.

    An image that cannot be read takes only itself, and what was done is not done again.
    """
    asked = ("--method", "PINN", "--split", "test", "--deals", "1", "--workers", "1", "--no-judge")
    study = open_study(copy)
    image, broken = (study.job(1e4, view, "test", "PINN").outputs[0] for view in ("dense", "sparse"))
    whole = image.read_bytes()
    broken.write_bytes(b"damaged")
    done = fly64("resolve", copy, *asked, "--view", "dense", "--view", "sparse", status=1)
    assert "failed resolve/dose_10000/sparse_test_PINN" in done and "same weights" in done
    folder = copy / "resolve/dose_10000/dense_test_PINN"
    kept, written = read_result(folder), (folder / "resolve.json").stat().st_mtime_ns
    stored = pd.read_csv(copy / "metrics.csv").query("view == 'dense' and split == 'test' and method == 'PINN'")
    rmse = stored.query("channel == 'phase' and metric == 'rmse'")["value"].iloc[0]
    assert abs(kept.truth["phase_rmse_rad"] / rmse - 1) < 1e-3 and f"{rmse:.3g} rad RMS" in done

    again = fly64("resolve", copy, *asked, "--view", "dense")
    assert kept.sentences[1] in again and "a wrong probe" in again
    assert (folder / "resolve.json").stat().st_mtime_ns == written
    jobs = resolve_jobs(study, [study.condition(1e4, "dense", "test")], ["PINN"], deals=1, judge="")
    assert not plan_jobs(jobs).reasons and "parameter deals changed" in plan_jobs([asked_twice(jobs[0])]).reasons[0]
    assert [image.outdated for image in resolved_images(study)] == [""]
    assert build_report_job(copy).inputs[-1] == folder / "resolve.json"
    image.write_bytes(whole + b"\0")
    assert "reconstruction.npz is not what it was made from" in resolved_images(study)[0].outdated


def asked_twice(job: Job) -> Job:
    """The same job with one deal more."""
    return replace(job, parameters={**job.parameters, "deals": job.parameters["deals"] + 1})


def test_images_that_are_not_there_are_named_and_filters_checked(copy):
    """Without any work: a reconstruction that was not made is left out, with what makes it."""
    job = open_study(copy).job(1e4, "sparse", "train", "LSQML")
    job.outputs[0].unlink()
    asked = ("--view", "sparse", "--split", "train", "--method", "LSQML")
    done = fly64("resolve", copy, *asked)
    assert "left out resolve/dose_10000/sparse_train_LSQML: missing input" in done and "reconstruction.npz" in done
    for more, words in (
        (("--method", "nobody"), "there are PINN, Supervised, LSQML"),
        (("--dose", "7"), "no such job; there are [10000.0]"),
        (("--output", copy / "out"), "a study keeps its own"),
        (("--method", "LSQML", "--judge", "LSQML"), "needed is one of"),
    ):
        assert words in fly64("resolve", copy, *more, status=2)


@pytest.fixture(scope="module")
def images(chip, tmp_path_factory) -> dict[str, Path]:
    """Files of images of the chip: NPZ, Ptychodus product, pty-chi's pair; its truth; a second scan's counts."""
    folder = tmp_path_factory.mktemp("images")
    data = replace(chip, metadata={**chip.metadata, "pixel_size_m": PIXEL})
    quiet, paths = lambda *_, **__: None, {}
    for name, iterations in (("poor", 3), ("better", 30)):
        found = reconstruct_with(data, ML, settings_of(ML, "quick", {"iterations": iterations}), None, quiet)
        paths[name] = folder / f"{name}.npz"
        write_reconstruction(paths[name], folder / f"{name}.h5", found, data, "ML", {})
        paths[f"{name} product"] = folder / f"{name}.h5"
    for name, base in (("truth", scan_of(chip, counts=None)), ("second", scan_of(trial_dataset(3e4, 7, 48, seed=5)))):
        paths[name] = folder / f"{name}.npz"
        write_base(paths[name], base)
    return paths


def test_images_of_several_formats_are_scored_alike(images):
    found = score([images["poor product"], images["better"], images["better product"]], truth=images["truth"])
    table = found.table()
    assert table.index[-1] == "poor.h5" and len(table) == 3
    assert abs(table.loc["better.npz", "phase RMSE (rad)"] / table.loc["better.h5", "phase RMSE (rad)"] - 1) < 1e-3


def test_photons_that_no_image_saw_rank_as_the_truth_does(images):
    told = score([images["poor product"], images["better product"]], counts=images["second"]).held_out
    assert list(told.index) == ["better.h5", "poor.h5"]
    assert told.loc["poor.h5", "behind the best"] > 3 * told.loc["poor.h5", "standard error"]


def test_scores_by_the_command_line(images, tmp_path):
    out = tmp_path / "scores"
    done = fly64("score", images["better product"], images["poor product"], "--truth", images["truth"], "--output", out)
    assert "Against the truth" in done and "RMSE (rad)" in done and (out / "score.png").stat().st_size > 10_000
    assert json.loads((out / "score.json").read_text())["reference"].endswith("truth.npz")
    halves = fly64("score", images["better product"], images["poor product"], "--halves")
    assert "predicted without a truth" in halves and "who agrees with whom" in halves
    for command, words in (
        ((images["better"], images["better"]), "the same file twice"),
        ((images["better"], "--halves"), "needed are two halves"),
        ((images["better"], "--counts", images["truth"]), "without counts"),
    ):
        assert words in fly64("score", *command, status=2)


def test_images_of_pty_chi_are_scored_though_its_files_call_them_a_guess(chip, images, tmp_path):
    held = scan_of(chip, object=np.load(images["better"])["object"])
    origin = np.load(images["better"])["origin"]
    base = replace(held, y=chip.y - origin[0], x=chip.x - origin[1])
    write_base(tmp_path / "better.npz", base)
    files, _ = convert(tmp_path / "better.npz", tmp_path / "theirs.h5", "pty-chi")
    found = score([files[1], images["better product"]], truth=images["truth"])
    errors = found.table()["phase RMSE (rad)"]
    assert abs(errors.iloc[0] / errors.iloc[1] - 1) < 0.01, errors


def test_images_of_ptypy_are_scored_as_those_of_others(chip, images, tmp_path):
    """Its reconstructions, with modes of the probe and positions in metres from a corner of their own."""
    files, experiment = [], Experiment(energy_eV=10e3)
    for name in ("better", "poor"):
        made = np.load(images[name])
        y, x = chip.y - made["origin"][0], chip.x - made["origin"][1]
        probe = made["probe"].reshape(-1, *made["probe"].shape[-2:])[0]
        (folder := tmp_path / name).mkdir()
        scan = ExampleScan(made["object"], probe, y, x, chip.counts(), PIXEL, experiment)
        files.append(HDF5_EXAMPLES["ptypy ptyr"](folder, scan))
    done = fly64("score", *files, images["better product"], "--truth", images["truth"], "--output", tmp_path / "out")
    rows = pd.read_csv(tmp_path / "out" / "score.csv").set_index("image")["phase RMSE (rad)"]
    assert rows.index[-1] == "poor/scan.ptyr" and "better/scan.ptyr" in done  # the best stands first
    assert abs(rows.iloc[1] / rows.iloc[0] - 1) < 0.01
