"""The pre-trained chain: what it learns from, that it learns, that its file is not trusted, and what it makes up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import fly64
from fly64_nb.data.base import write_base
from fly64_nb.data.builtin import builtin_base, builtin_object, builtin_probe
from fly64_nb.data.files import FormatError, load_arrays, write_json, write_npz
from fly64_nb.data.objects import KINDS, UNSEEN, own_images, training_object
from fly64_nb.design import get_study_design, read_study
from fly64_nb.engine.record import code_of, ingredients, record_done, why_stale
from fly64_nb.methods.method import choose_method, make_settings
from fly64_nb.methods.likelihood.common import LikelihoodSettings, expose, trial_dataset, trial_error
from fly64_nb.methods.likelihood.exposures import Exposures
from fly64_nb.methods.networks.chain import error_power, fit_errors, run_chain
from fly64_nb.methods.networks.pretraining import (
    Pretrained,
    is_for,
    load_checkpoint,
    phase_error,
    pretrain,
    save_checkpoint,
    simulate_scan,
)
from fly64_nb.methods.networks.pretraining_settings import PretrainingSettings
from fly64_nb.methods.networks.prior_evidence import chain_on, evidence, scanned_phase
from fly64_nb.methods.networks.shipped import find_checkpoint, learn_once, package_folder
from fly64_nb.methods.pretrained import PRETRAINED, photons_of_the_object, train
from fly64_nb.physics.photons import counts_to_amplitude
from fly64_nb.reconstruction import reconstruction_jobs
from fly64_nb.results.example import example_study
from fly64_nb.study.condition import Condition
from fly64_nb.study.layout import Layout
from fly64_nb.training import build_training_jobs, probe_alone, training_jobs, write_training

SMALL = PretrainingSettings(scans=32, epochs=24, turns=1, widths=(16, 24), side=2.6, kinds=("chips", "cells"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLY64_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def learned() -> Pretrained:
    return pretrain(builtin_probe(32), SMALL, device="cpu")


@pytest.mark.parametrize("kind", [*KINDS, *UNSEEN])
def test_objects_of_a_kind_follow_from_the_generator_and_vary(kind):
    one, same, other = (training_object(kind, (48, 64), np.random.default_rng([n, 5])) for n in (1, 1, 2))
    assert one.dtype == np.complex64 and one.shape == (48, 64)
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert 0.25 < np.abs(one).min() and np.abs(one).max() <= 1.001
    assert 0.01 < np.std(np.angle(one / one.mean())) < 1.2


def test_the_studys_own_object_is_not_among_those_that_are_learned_from():
    own = np.angle(builtin_object((144, 144), builtin_base(10, 10, 5).source["seed"]))
    for number in range(0, 40, 4):  # as pre-training draws chips
        rng = np.random.default_rng([PretrainingSettings().random_state, 1, number])
        other = np.angle(training_object("chips", own.shape, rng))
        assert abs(np.corrcoef(own.ravel(), other.ravel())[0, 1]) < 0.6
    assert not set(PretrainingSettings().kinds) & set(UNSEEN)


def test_own_images_are_read_without_trust(tmp_path):
    np.save(tmp_path / "image.npy", np.random.default_rng(0).random((40, 50)))
    images, digest = own_images(tmp_path)
    assert len(images) == 1 and len(digest) == 64
    settings = PretrainingSettings(kinds=("own",), images=str(tmp_path))
    assert training_object(settings.kinds[0], (32, 32), np.random.default_rng(0), images).shape == (32, 32)
    for wrong in (np.array([None, "x"], object), np.zeros((20, 20)), np.full((20, 20), np.nan), np.zeros(5)):
        np.save(tmp_path / "wrong.npy", wrong, allow_pickle=True)
        with pytest.raises(FormatError, match="wrong.npy"):
            own_images(tmp_path)
    (tmp_path / "wrong.npy").unlink()
    (tmp_path / "wrong.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 50)
    with pytest.raises(FormatError, match="wrong.png"):
        own_images(tmp_path)


def test_a_small_pretraining_improves_on_map_for_scans_it_has_not_seen(learned):
    ratios = []
    for number in range(4):
        example, images = chain_on(learned, "chips", 3e3, 0.6, number)
        ratios.append(phase_error(example, images["network 1"]) / phase_error(example, images["MAP"]))
    assert np.mean(ratios) < 0.98, ratios


def test_on_a_flat_object_less_is_made_up_than_noise_there_is(learned):
    table = evidence(learned, ("flat", "discs"), (1e3,), (0.5,), objects=1)
    flat, discs = table.iloc[0], table.iloc[1]
    assert flat["chain"] < 0.8 * flat["ML"] and np.isnan(flat["contrast"])
    assert 0.2 < discs["contrast"] < 1.3 and not discs["seen"]
    example, images = chain_on(learned, "flat", 1e3, 0.5)
    assert np.std(scanned_phase(example, images["network 1"])) == pytest.approx(flat["chain"], rel=0.05)


def test_a_checkpoint_comes_back_and_gives_the_same_image(learned, tmp_path):
    save_checkpoint(tmp_path / "model.npz", learned)
    back = load_checkpoint(tmp_path / "model.npz")
    assert is_for(back, 1j * learned.probe, SMALL)
    assert not is_for(back, learned.probe, replace(SMALL, epochs=25))
    pd.testing.assert_frame_equal(back.history, learned.history, check_dtype=False, rtol=1e-5)
    base = builtin_base(40, 40, 8, window=32)
    scan = simulate_scan(base.probe, "cells", np.random.default_rng(0), 2.6, dose=1e4, spacing=0.5)
    counts = np.concatenate([scan.exposures.counts(k).numpy() for k in range(len(scan.exposures))])
    counts = np.fft.fftshift(counts, axes=(1, 2))
    y, x = (np.random.default_rng(1).uniform(40, 80, len(counts)) for _ in range(2))
    exposures = Exposures(counts, y, x, base.probe)
    one, other = (run_chain(exposures, 1e4, k.knowledge)[-1] for k in (learned, back))
    assert np.abs(one - other).max() < 0.02


def test_the_chain_uses_what_is_told_of_the_detector(learned, tmp_path):
    ideal = trial_dataset(1e4, spacing=7.0)
    mask, background = np.ones((32, 32), bool), np.full((32, 32), 0.5, np.float32)
    mask[18:21] = False
    counts = (ideal.counts() + np.random.default_rng(0).poisson(background, ideal.diffraction.shape)) * mask
    data = replace(ideal, diffraction=counts_to_amplitude(counts.astype(np.float32), 1e4))
    told = replace(data, mask=mask, known_background=background)
    save_checkpoint(tmp_path / "model.npz", learned)
    one, other = (PRETRAINED.reconstruct(d, SMALL, tmp_path / "model.npz", lambda *_: None) for d in (told, data))
    assert trial_error(ideal, one) < 0.8 * trial_error(ideal, other)
    # what the method gives its chain is what the likelihood methods have
    scan = expose(told, told.counts(), LikelihoodSettings(device="cpu"))
    by_hand = run_chain(scan, photons_of_the_object(told, told.counts()), learned.knowledge)[-1]
    assert np.abs(one.object - by_hand).max() < 0.02


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "shape", "nan", "settings", "missing"])
def test_a_damaged_checkpoint_is_refused_by_name(learned, tmp_path, damage):
    path = tmp_path / "model.npz"
    save_checkpoint(path, learned)
    arrays = load_arrays(path)
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        key = "network0.enter.weight"
        changed = {
            "other": {"_metadata": np.array('{"what": "something else"}')},
            "shape": {key: arrays[key][:-1]},
            "nan": {key: np.full_like(arrays[key], np.nan)},
            "settings": {"_metadata": np.array(str(arrays["_metadata"]).replace('"turns": 1', '"turns": 99'))},
            "missing": {},
        }[damage]
        arrays |= changed
        if damage == "missing":
            arrays.pop("errors")
        write_npz(path, arrays)
    with pytest.raises(FormatError, match="model.npz"):
        load_checkpoint(path)


def test_what_was_learned_for_a_probe_is_found_again_and_a_damaged_file_is_passed_over(tmp_path):
    tiny = make_settings(PRETRAINED, {"scans": 4, "epochs": 1, "turns": 1, "widths": (8,), "side": 2.5})
    probe = builtin_probe(32)
    assert find_checkpoint(probe, tiny) is None
    learned, words, earlier_cpu_s = learn_once(probe, tiny, device="cpu")
    assert words.startswith("trained here, and kept") and earlier_cpu_s == 0
    (file,) = (tmp_path / "cache").glob("pretrained_*.npz")
    (tmp_path / "cache" / "pretrained_0.npz").write_bytes(b"damaged")
    trained = train(probe_alone(builtin_base(40, 40, 8, window=32)), tiny, lambda *_, **__: None)
    assert str(file) in trained.notes[1] and trained.notes[1].startswith("nothing was trained here")
    assert trained.earlier_cpu_s == pytest.approx(learned.record["cpu_seconds"]) and trained.earlier_cpu_s > 0
    write_training(tmp_path / "model.npz", tmp_path / "history.csv", trained)
    assert (pd.read_csv(tmp_path / "history.csv")["earlier_cpu_s"] == trained.earlier_cpu_s).all()


def test_the_checkpoint_that_comes_with_the_package_is_not_free():
    probe = builtin_base(40, 40, 8).probe
    data = replace(probe_alone(builtin_base(40, 40, 8, window=32)), known_probe=probe)
    trained = train(data, make_settings(PRETRAINED, {}), lambda *_, **__: None)
    assert "comes with the package" in trained.notes[1] and trained.earlier_cpu_s == pytest.approx(551, abs=1)


def test_a_change_of_an_own_image_makes_the_pretraining_stale(tmp_path):
    images, root = tmp_path / "mine", tmp_path / "S"
    images.mkdir(), root.mkdir()
    np.save(images / "one.npy", np.random.default_rng(0).random((40, 50)))
    write_base(root / "base.npz", builtin_base(40, 40, 8, window=32))
    own = {"kinds": ("own",), "images": str(images)}
    chosen = choose_method(PRETRAINED, "fly64_nb.methods.pretrained", "tiny", own)
    design = get_study_design("tiny", methods=(chosen,))
    job_now = lambda: training_jobs(root, design)[0]
    job = job_now()
    assert job.inputs == (root / "base.npz", images / "one.npy")
    for path in (*job.outputs, job.executed_notebook):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    record_done(job, ingredients(job, code_of(job)))
    assert why_stale(job_now()) is None
    np.save(images / "one.npy", np.random.default_rng(1).random((41, 50)))
    assert why_stale(job_now()) == f"its input {job.relative(images / 'one.npy')} changed"
    record_done(job, ingredients(job, code_of(job)))
    np.save(images / "two.npy", np.random.default_rng(2).random((40, 50)))
    assert why_stale(job_now()) == f"its input {job.relative(images / 'two.npy')} is new"
    (images / "one.npy").unlink(), (images / "two.npy").unlink()
    images.rmdir()
    with pytest.raises(FileNotFoundError, match="mine"):
        build_training_jobs(root, design)


def test_training_of_one_dose_includes_what_is_learned_once(tmp_path):
    root = example_study(tmp_path / "S")
    record = json.loads((root / "study.json").read_text(encoding="utf-8"))
    chosen = choose_method(PRETRAINED, "fly64_nb.methods.pretrained", "tiny")
    design = replace(read_study(root)["design"], methods=(*read_study(root)["design"].methods, chosen))
    write_json(root / "study.json", {**record, "design": json.loads(design.to_json())})
    asked = "train", root, "--dry-run", "--allow-missing"
    for filters in (("--dose", "1e3"), ("--view", "dense"), ("--dose", "1e4", "--only", "Pretrained")):
        assert "phase_e/Pretrained" in fly64(*asked, *filters).stdout, filters
    assert "phase_e/Pretrained" not in fly64(*asked, "--dose", "1e3", "--only", "PINN").stdout
    wrong = fly64(*asked, "--dose", "7", check=False)
    assert wrong.returncode == 2 and "--dose 7" in wrong.stdout


def test_a_study_learns_once_whatever_its_doses_views_and_noise_seeds():
    chosen = choose_method(PRETRAINED, "fly64_nb.methods.pretrained", "tiny")
    design = get_study_design("tiny", methods=(chosen,), doses=(1e3,), overlap_targets={"dense": 0.7})
    (job,) = training_jobs("STUDY", design)
    assert (job.title, job.inputs) == ("phase_e/Pretrained", (Path("STUDY/base.npz"),))
    grown = replace(design, doses=(1e2, 1e3), overlap_targets={"dense": 0.7, "sparse": 0.2})
    assert training_jobs("STUDY", grown) == [job]
    replicate = Layout(Layout("STUDY").replicate(43))
    assert not training_jobs(replicate.root, grown)
    for root in (Path("STUDY"), replicate.root):
        jobs = reconstruction_jobs(root, grown)
        assert len(jobs) == 12 and all(j.inputs[1] == job.model for j in jobs)
        assert {(root / j.parameters["model"]).resolve() for j in jobs} == {job.model.resolve()}
    assert chosen.learned_on(Condition(1e3, "dense", "test")) is None


def test_what_learns_before_the_experiment_is_given_the_probe_and_nothing_else(tmp_path):
    base = builtin_base(40, 40, 8, window=32)
    write_base(tmp_path / "base.npz", base)
    data = probe_alone(base)
    assert np.array_equal(data.known_probe, base.probe)
    assert len(data) == 0 and data.object.size == 0 and data.Y.size == 0 and data.dose == 0


def test_error_power_is_a_smooth_function_of_dose_and_spacing():
    rng = np.random.default_rng(0)
    doses, spacings = np.exp(rng.uniform(np.log(3e2), np.log(3e5), 60)), rng.uniform(0.2, 1.1, 60)
    fitted = fit_errors(doses, spacings, (1 / doses * spacings**2)[:, None, None] * np.ones((60, 1, 1)))
    assert error_power(fitted, 1e4, 0.8)[0, 0] == pytest.approx(0.64e-4, rel=0.15)
    assert error_power(fitted, 1e9, 0.8) == pytest.approx(error_power(fitted, 1e6, 0.8))  # kept within what was seen


def test_the_checkpoint_that_comes_with_the_package_is_for_the_built_in_probe_and_has_its_evidence():
    learned, path = find_checkpoint(builtin_probe(64), make_settings(PRETRAINED, {}), [package_folder()])
    assert path.stat().st_size <= 2e6
    table = pd.read_csv(path.with_suffix(".csv"))
    assert {*KINDS, *UNSEEN, "flat"} == set(table["kind"])
    assert set(table.loc[~table["seen"], "kind"]) == {*UNSEEN, "flat"}
    flat = table[table["kind"] == "flat"]
    assert (flat["chain"] < flat["ML"]).all()
    unseen = table[table["kind"].isin(list(UNSEEN))]
    assert (unseen["chain"] < unseen["ML"]).mean() > 0.9
