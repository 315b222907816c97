"""Networks: one file for both backends, checkpoints that are refused, and the physics against pty-chi's own."""
from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from conftest import fly64
from fly64_nb.core.checkpoints import read_checkpoint_record

# Trains a few steps, or loads a file made by the other backend, and writes what it predicts.
SCRIPT = """
import sys
import numpy as np
import fly64_nb.core.networks as networks
import keras
from fly64_nb.contract import validate_dataset_contract
from fly64_nb.training import TrainingSettings, train_network

what, dataset, checkpoint, out = sys.argv[1:]
data = validate_dataset_contract(dataset)
if what == "train":
    settings = TrainingSettings(images=320, filters=8, seed=3)
    networks.save_network(checkpoint, train_network(data, "PtychoPINN", settings, 2, 7).network)
network = networks.load_network(checkpoint, method="PtychoPINN", dose=1e4)
np.savez(out, patches=network.predict_patches(data.diffraction[:8]), backend=keras.backend.backend())
"""


def python(backend: str, *arguments) -> None:
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, *map(str, arguments)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("trainer, reader", [("tensorflow", "torch"), ("torch", "tensorflow")])
def test_a_network_trained_on_one_backend_predicts_the_same_on_the_other(study, tmp_path, trainer, reader):
    dataset = study / "phase_d" / "dose_10000" / "dense" / "dense_train.npz"
    python(trainer, "train", dataset, tmp_path / "pinn.keras", tmp_path / "trainer.npz")
    python(reader, "load", dataset, tmp_path / "pinn.keras", tmp_path / "reader.npz")
    one, other = np.load(tmp_path / "trainer.npz"), np.load(tmp_path / "reader.npz")
    assert (str(one["backend"]), str(other["backend"])) == (trainer, reader)
    assert np.abs(one["patches"] - 1).max() > 0.05                      # it learned something
    assert np.abs(one["patches"] - other["patches"]).max() < 1e-3


def test_physics_agrees_with_ptychi_in_value_and_gradient():
    """The same patch, probe and counts: pty-chi's forward model with torch's gradient, and our layer inside a compiled training step."""
    from fly64_nb.core.physics import Diffraction, pairs_to_patches, patches_to_pairs  # first: it settles the order of heavy imports

    import keras
    import ptychi.api as api
    import torch
    from keras import ops
    from ptychi.api.task import PtychographyTask

    from fly64_nb.core.bases import builtin_base
    from fly64_nb.core.optics import diffraction_intensity, object_windows, scale_probe

    base = builtin_base(20, 20, 10, window=64)
    probe = scale_probe(base.object, base.probe, base.y, base.x, 32.0**2)
    y, x = (np.round(c[:1]) for c in (base.y, base.x))                  # on the grid: one sub-pixel model for both
    patch = object_windows(base.object, y, x, 64)
    measured = np.random.default_rng(0).poisson(diffraction_intensity(base.object, probe, y, x) * 10).astype(np.float32) / 10

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
    with PtychographyTask(options, diffraction_data=np.ones((1, 64, 64), np.float32), object_data=patch, probe_data=probe[None, None],
                          probe_position_y_px=np.zeros(1, np.float32), probe_position_x_px=np.zeros(1, np.float32)) as task:
        model = task.reconstructor.forward_model
        with torch.enable_grad():
            predicted = torch.fft.fftshift(model.forward(torch.arange(1)), dim=(-2, -1)) / 64**2
            loss = (predicted - torch.from_numpy(measured) * torch.log(predicted + 0.01)).sum()
            loss.backward()
        theirs = next(p.grad for p in task.reconstructor.parameter_group.object.parameters() if p.grad is not None).numpy()
        predicted, loss = predicted.detach().numpy(), float(loss.detach())
    if not np.iscomplexobj(theirs):
        theirs = theirs[..., 0] + 1j * theirs[..., 1]
    relative = lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(b)
    assert relative(intensity, predicted) < 1e-5 and abs(value / loss - 1) < 1e-5
    assert relative(gradient, theirs.reshape(64, 64)) < 1e-3


def test_checkpoints_that_are_no_good_fail_their_comparisons_by_name(copy):
    """Empty, truncated, and another view's: each fails the comparisons that need it, before one starts; the others are up to date."""
    networks = copy / "phase_e" / "dose_10000"
    sparse = networks / "sparse" / "gs2" / "pinn.keras"
    whole = sparse.read_bytes()
    sparse.write_bytes(whole[:-3000])
    (networks / "dense" / "gs2" / "pinn.keras").write_bytes(b"")
    (networks / "baseline" / "gs1" / "pinn.keras").write_bytes(whole)
    done = fly64("compare", copy, check=False)
    manifest = json.loads((copy / "phase_g" / "comparison_manifest.json").read_text())
    assert done.returncode == 1 and (manifest["n_executed"], manifest["n_success"], manifest["n_failed"]) == (6, 0, 6)
    words = {"dense": "an empty file", "sparse": "no undamaged zip", "baseline": "key 'view': found 'sparse'; needed 'baseline'"}
    for row in manifest["execution_results"]:
        view = row["name"].split("/")[-1].split("_")[0]
        assert row["returncode"] == 2 and "pinn.keras" in row["detail"] and words[view] in row["detail"], row
        assert words[view] in (copy / row["log_path"]).read_text()
    (networks / "dense" / "gs2" / "pinn.keras").unlink()
    assert "no file" in fly64("compare", copy, "--view", "dense", check=False).stdout
    assert "2 left out" in fly64("compare", copy, "--view", "sparse", "--allow-missing", check=False).stdout


def test_training_leaves_curves_logs_and_a_network_that_says_what_it_is(study):
    manifest = json.loads((study / "phase_e" / "training_manifest.json").read_text())
    assert [manifest[k] for k in ("n_jobs", "n_executed", "n_success", "n_failed")] == [4, 4, 4, 0]
    assert json.loads((study / "phase_e" / "skip_summary.json").read_text()) == []
    for job in manifest["jobs"]:
        checkpoint, history = (study / p for p in job["outputs"])
        about = read_checkpoint_record(checkpoint)["about"]
        assert about["method"] == job["parameters"]["method"] and about["view"] == job["view"] and about["gridsize"] == job["gridsize"]
        assert "return code: 0" in (study / job["log_path"]).read_text()
        lines = history.read_text().splitlines()
        assert lines[0] == "epoch,loss,val_loss,seconds" and len(lines) > 2


def test_train_takes_the_filters_of_the_other_phases(copy):
    done = fly64("train", copy, "--view", "baseline", "--gridsize", "1", "--dry-run")
    assert done.stdout.count("-m papermill") == 2 and done.stdout.count("_train.log") == 2
    assert "no such job" in fly64("train", copy, "--dose", "7", check=False).stdout
    (copy / "phase_d" / "dose_10000" / "dense" / "dense_train.npz").unlink()
    refused = fly64("train", copy, check=False)
    assert refused.returncode == 2 and "dense_train.npz" in refused.stdout and "--allow-missing" in refused.stdout
