"""Networks: one file for both backends, checkpoints that are refused, and the physics against pty-chi's own."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import fly64
from fly64_nb.methods.networks.checkpoints import read_checkpoint_record
from fly64_nb.study.condition import Condition
from fly64_nb.study.layout import Layout

# Trains a few steps, or loads a file made by the other backend, and writes what it predicts.
SCRIPT = """
import sys
from pathlib import Path

import numpy as np

from fly64_nb.contract import validate_dataset_contract
from fly64_nb.methods.networks.patch_networks import load_network
from fly64_nb.methods.pinn import PINN, PinnSettings

import keras

what, dataset, model, out = sys.argv[1], *map(Path, sys.argv[2:])
data, settings = validate_dataset_contract(dataset), PinnSettings(images=320, filters=8, seed=3)
quiet = lambda epoch, epochs, **losses: None
if what == "train":
    PINN.train(data, settings, quiet).save(model)
found = PINN.reconstruct(data, settings, model, quiet)
patches = load_network(model, method="PINN", dose=1e4).predict_patches(data.diffraction[:8])
np.savez(out, patches=patches, object=found.object, device=found.device, backend=keras.backend.backend())
"""


def model(study: Path, view: str, method: str = "PINN") -> Path:
    """The network that a method learned from a view."""
    return Layout(study).learned(Condition(1e4, view), method) / "model.keras"


def python(backend: str, *arguments) -> None:
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("trainer, reader", [("tensorflow", "torch"), ("torch", "tensorflow")])
def test_a_network_trained_on_one_backend_predicts_the_same_on_the_other(study, tmp_path, trainer, reader):
    dataset = Layout(study).dataset(Condition(1e4, "dense", "train"))
    python(trainer, "train", dataset, tmp_path / "model.keras", tmp_path / "trainer.npz")
    python(reader, "load", dataset, tmp_path / "model.keras", tmp_path / "reader.npz")
    one, other = np.load(tmp_path / "trainer.npz"), np.load(tmp_path / "reader.npz")
    assert (str(one["backend"]), str(other["backend"])) == (trainer, reader)
    assert np.abs(one["patches"] - 1).max() > 0.05  # it learned something
    assert np.abs(one["patches"] - other["patches"]).max() < 1e-3
    assert np.abs(one["object"] - other["object"]).max() < 1e-2 and str(one["device"]) == str(other["device"])


def test_physics_agrees_with_ptychi_in_value_and_gradient():
    """The same patch, probe and counts: pty-chi's forward model with torch's gradient, and our layer compiled."""
    from fly64_nb.methods.networks.layers import Diffraction, pairs_to_patches, patches_to_pairs  # before Keras

    import keras
    import ptychi.api as api
    import torch
    from keras import ops
    from ptychi.api.task import PtychographyTask

    from fly64_nb.data.builtin import builtin_base
    from fly64_nb.physics.optics import diffraction_intensity, object_windows, scale_probe

    base = builtin_base(20, 20, 10, window=64)
    probe = scale_probe(base.object, base.probe, base.y, base.x, 32.0**2)
    y, x = (np.round(c[:1]) for c in (base.y, base.x))  # on the grid: one sub-pixel model for both
    patch = object_windows(base.object, y, x, 64)
    measured = (
        np.random.default_rng(0).poisson(diffraction_intensity(base.object, probe, y, x) * 10).astype(np.float32) / 10
    )

    class Probing(keras.Model):
        def __init__(self):
            super().__init__()
            self.diffraction = Diffraction(64, 64)
            self.diffraction.set_probe(probe)
            self.patch = self.add_weight(shape=(1, 64, 64, 2), initializer="zeros", name="patch")
            self.patch.assign(patches_to_pairs(patch, 64))

        def call(self, anything):
            return self.diffraction(self.patch)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.sum(y_pred - y * ops.log(y_pred + 0.01))

    probing = Probing()
    before = ops.convert_to_numpy(probing.patch)
    intensity = ops.convert_to_numpy(probing(np.zeros((1, 1), np.float32)))
    probing.compile(optimizer=keras.optimizers.SGD(1.0))
    value = float(probing.train_on_batch(np.zeros((1, 1), np.float32), measured))
    gradient = pairs_to_patches(before - ops.convert_to_numpy(probing.patch))[0]

    options = api.LSQMLOptions()
    options.object_options.pixel_size_m = 1.0
    options.object_options.determine_position_origin_coords_by = api.ObjectPosOriginCoordsMethods.SPECIFIED
    options.object_options.position_origin_coords = [31.5, 31.5]
    options.reconstructor_options.default_device = api.Devices.CPU
    with PtychographyTask(
        options,
        diffraction_data=np.ones((1, 64, 64), np.float32),
        object_data=patch,
        probe_data=probe[None, None],
        probe_position_y_px=np.zeros(1, np.float32),
        probe_position_x_px=np.zeros(1, np.float32),
    ) as task:
        model = task.reconstructor.forward_model
        with torch.enable_grad():
            predicted = torch.fft.fftshift(model.forward(torch.arange(1)), dim=(-2, -1)) / 64**2
            loss = (predicted - torch.from_numpy(measured) * torch.log(predicted + 0.01)).sum()
            loss.backward()
        theirs = next(
            p.grad for p in task.reconstructor.parameter_group.object.parameters() if p.grad is not None
        ).numpy()
        predicted, loss = predicted.detach().numpy(), float(loss.detach())
    if not np.iscomplexobj(theirs):
        theirs = theirs[..., 0] + 1j * theirs[..., 1]
    relative = lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(b)
    assert relative(intensity, predicted) < 1e-5 and abs(value / loss - 1) < 1e-5
    assert relative(gradient, theirs.reshape(64, 64)) < 1e-3


def measured(**told):
    """A handful of exposures of a small scan, as a dataset that tells so much of the detector."""
    from fly64_nb.data.builtin import builtin_base
    from fly64_nb.data.dataset import Dataset
    from fly64_nb.physics.optics import diffraction_intensity, object_patches, scale_probe
    from fly64_nb.physics.photons import counts_to_amplitude

    base = builtin_base(20, 20, 8, window=32)
    probe = scale_probe(base.object, base.probe, base.y, base.x, 16.0**2)
    counts = np.random.default_rng(0).poisson(1e4 / 256 * diffraction_intensity(base.object, probe, base.y, base.x))
    about = {"nphotons": 1e4, "split": "train", "view": "dense", "gridsize": 2}
    patches, index = object_patches(base.object, base.y, base.x, 32), np.arange(len(base.y))
    amplitude = counts_to_amplitude(counts.astype(np.float32), 1e4)
    return Dataset(amplitude, patches, base.object, probe, base.y, base.x, index, about, **told)


MASK = np.arange(1024).reshape(32, 32) % 7 > 0
BACKGROUND = np.linspace(0.1, 2, 1024, dtype=np.float32).reshape(32, 32)


def physics_network(data, settings):
    """An untrained network of a dataset, with updates that change something."""
    from functools import partial

    from fly64_nb.methods.networks.learning import identity, make_network
    from fly64_nb.methods.networks.patch_networks import PhysicsNetwork

    about = identity("PINN", data, "dense", settings) | {"patterns": len(data)}
    network = make_network(partial(PhysicsNetwork, stages=2, dose=data.dose), data, settings, about)
    rng = np.random.default_rng(1)
    for weight in network.trainable_variables:
        weight.assign(weight + 0.02 * rng.normal(size=weight.shape))
    return network


@pytest.fixture(scope="module")
def told():
    """A dataset with modes, mask and background, and a network of it."""
    from fly64_nb.methods.pinn import PinnSettings

    probe = measured().probe
    modes = np.stack([0.8 * probe, 0.6 * np.roll(probe, 2, 1)])
    data = measured(known_modes=modes, mask=MASK, known_background=BACKGROUND)
    return data, physics_network(data, PinnSettings(filters=4))


def test_the_likelihood_is_that_of_modes_and_background_where_the_mask_counts(told):
    """Against numpy, and compiled against line by line: values and gradients."""
    from fly64_nb.methods.networks.layers import pairs_to_patches

    import keras
    from keras import ops

    data, network = told
    inputs = {"amplitude": data.diffraction[:4, None], "positions": np.zeros((4, 1, 2), np.float32)}
    wanted = data.diffraction[4:8, None] ** 2
    patches = np.ones((4, 32, 32), np.complex64)
    edge = (32 - network.support) // 2
    inside = np.s_[:, edge : 32 - edge, edge : 32 - edge]
    patches[inside] = pairs_to_patches(network(inputs))[:, 0]
    assert np.abs(patches - 1).max() > 1e-3
    far = np.fft.fftshift(np.fft.fft2(data.known_modes * patches[:, None], norm="ortho"), axes=(-2, -1))
    rate = (np.abs(far) ** 2).sum(1, dtype=np.float64) * 1e4 / 256 + BACKGROUND
    counts = wanted[:, 0].astype(float) * 1e4 / 256
    terms = rate - counts + counts * np.log((counts + 1e-3) / (rate + 1e-3))
    expected = (terms * MASK).sum((1, 2)).mean() / 1e4

    before, found = network.get_weights(), {}
    for eager in (False, True):
        network.set_weights(before)
        network.compile(keras.optimizers.SGD(1.0), run_eagerly=eager)
        value = float(network.train_on_batch(inputs, wanted))
        steps = [a - b for a, b in zip(before, network.get_weights(), strict=True)]
        found[eager] = np.concatenate([step.ravel() for step in steps]).astype(float)
        assert value == pytest.approx(expected, rel=1e-4)
    network.set_weights(before)
    assert np.linalg.norm(found[True]) > 0
    assert np.linalg.norm(found[False] - found[True]) < 1e-3 * np.linalg.norm(found[True])
    # a gradient is what the value changes by
    epsilon = 1e-2 / np.linalg.norm(found[True])
    values = []
    for sign in (1, -1):
        network.set_weights([w + sign * epsilon * s for w, s in zip(before, steps, strict=True)])
        values.append(float(ops.convert_to_numpy(network.compute_loss(inputs, wanted, network(inputs)))))
    network.set_weights(before)
    slope = (values[0] - values[1]) / (2 * epsilon)
    assert slope == pytest.approx((found[True] ** 2).sum(), rel=2e-2)


def test_what_lies_on_masked_pixels_changes_neither_loss_nor_answer(told):
    from keras import ops

    data, network = told
    inputs = {"amplitude": data.diffraction[:4, None], "positions": np.zeros((4, 1, 2), np.float32)}
    wanted = data.diffraction[4:8, None] ** 2
    spoilt = [np.where(MASK, image, 50).astype(np.float32) for image in (inputs["amplitude"], wanted)]
    other = {**inputs, "amplitude": spoilt[0]}
    answers = [ops.convert_to_numpy(network(one)) for one in (inputs, other)]
    assert np.array_equal(*answers)
    losses = [float(network.compute_loss(inputs, y, answers[0])) for y in (wanted, spoilt[1])]
    assert losses[0] == losses[1]


def test_a_network_is_refused_for_another_detector_and_its_file_holds_its_own(told, tmp_path):
    from dataclasses import replace

    from fly64_nb.data.files import FormatError
    from fly64_nb.methods.networks.patch_networks import load_network, save_network  # before Keras

    from fly64_nb.methods.pinn import PINN, PinnSettings
    from keras import ops

    (data, network), settings, path = told, PinnSettings(filters=4), tmp_path / "model.keras"
    save_network(path, network)
    again = load_network(path)
    assert np.array_equal(ops.convert_to_numpy(again.diffraction.mask), MASK.astype(np.float32))
    one, other = (net.predict_patches(data.diffraction) for net in (network, again))
    assert np.abs(one - other).max() < 1e-5
    assert PINN.reconstruct(data, settings, path, None).object.any()
    for other, of, key in (
        (replace(data, mask=~MASK), settings, "mask_digest"),
        (replace(data, mask=None), settings, "mask_digest"),
        (data, replace(settings, use_mask=False), "mask_digest"),
        (replace(data, known_background=2 * BACKGROUND), settings, "background_digest"),
        (replace(data, known_modes=None), settings, "modes_digest"),
    ):
        with pytest.raises(FormatError, match=f"model.keras: key '{key}'"):
            PINN.reconstruct(other, of, path, None)


def test_a_kernel_may_run_a_network_and_then_ptychi():
    """TensorFlow and PyTorch's triton carry the same library: in the wrong order the process would crash."""
    code = "import fly64_nb.methods.networks.patch_networks, ptychi.api, triton._C.libtriton"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_planning_imports_no_network():
    code = "import sys, fly64_nb.methods.pinn, fly64_nb.methods.supervised; print([*sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"keras", "tensorflow", "torch", "pandas", "matplotlib"} & set(ast.literal_eval(done.stdout))


def test_networks_that_are_no_good_fail_their_reconstructions_by_name(copy):
    """Empty, truncated, and another view's: each fails the reconstructions that need it, and no other."""
    whole = model(copy, "sparse").read_bytes()
    model(copy, "sparse").write_bytes(whole[:-3000])
    model(copy, "dense").write_bytes(b"")
    model(copy, "baseline").write_bytes(whole)
    done = fly64("reconstruct", copy, check=False)
    manifest = json.loads(Layout(copy).manifest("phase_f").read_text())
    assert done.returncode == 1  # 18 conditions of three methods, and 6 flat objects of the two that learn
    assert [manifest[k] for k in ("n_jobs", "n_success", "n_failed")] == [24, 15, 9]
    words = {
        "dense": "an empty file",
        "sparse": "no undamaged zip",
        "baseline": "key 'view': found 'sparse'; needed 'baseline'",
    }
    failed = [row for row in manifest["execution_results"] if row["status"] == "failed"]
    for row in failed:
        view, _, method = row["name"].split("/")[-1].split("_")
        assert method == "PINN" and row["returncode"] == 2, row
        assert "model.keras" in row["detail"] and words[view] in row["detail"], row
        assert words[view] in (copy / row["log_path"]).read_text()
    model(copy, "dense").unlink()
    refused = fly64("reconstruct", copy, "--view", "dense", check=False)
    assert refused.returncode and "model.keras" in refused.stdout
    assert "3 left out" in fly64("reconstruct", copy, "--view", "dense", "--allow-missing", check=False).stdout


def test_training_leaves_curves_logs_and_a_network_that_says_what_it_is(study):
    layout = Layout(study)
    manifest = json.loads(layout.manifest("phase_e").read_text())
    assert [manifest[k] for k in ("n_jobs", "n_executed", "n_success", "n_failed")] == [4, 4, 4, 0]
    assert json.loads(layout.skips("phase_e").read_text()) == []
    assert sorted((job["method"], job["view"]) for job in manifest["jobs"]) == [
        *(("PINN", view) for view in ("baseline", "dense", "sparse")),
        ("Supervised", "baseline"),
    ]
    for job in manifest["jobs"]:
        about = read_checkpoint_record(model(study, job["view"], job["method"]))["about"]
        assert [about[k] for k in ("method", "dose", "view")] == [job["method"], 1e4, job["view"]]
        assert about["gridsize"] == 2
        assert about["settings"]["precision"] in ("float32", "mixed_bfloat16")  # what ran, not "auto"
        assert "return code: 0" in (study / job["log_path"]).read_text()
        lines = layout.history(Condition(1e4, job["view"]), job["method"]).read_text().splitlines()
        assert lines[0] == "epoch,loss,val_loss,seconds" and len(lines) > 2


def test_train_takes_the_filters_of_the_other_phases(copy):
    done = fly64("train", copy, "--view", "baseline", "--dry-run")
    assert done.stdout.count("-m papermill") == 2 and done.stdout.count("train.log") == 2
    done = fly64("train", copy, "--only", "PINN", "--dry-run")
    assert done.stdout.count("-m papermill") == 3
    assert "no such job" in fly64("train", copy, "--dose", "7", check=False).stdout
    Layout(copy).dataset(Condition(1e4, "dense", "train")).unlink()
    refused = fly64("train", copy, check=False)
    assert refused.returncode == 2 and "dense_train.npz" in refused.stdout and "--allow-missing" in refused.stdout
