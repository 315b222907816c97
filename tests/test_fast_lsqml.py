"""The fast form of LSQML against pty-chi's own class: the same numbers, on every option that it is chosen for."""

from __future__ import annotations

import itertools

import numpy as np
import ptychi.api as api
import pytest
import torch
from ptychi.api.task import PtychographyTask

from fly64_nb.data.builtin import builtin_base
from fly64_nb.data.readers.reader import read_base_file
from fly64_nb.methods.ptychi import fast_lsqml
from fly64_nb.methods.ptychi.fast_lsqml import FastLSQMLTask, reason_for_stock
from fly64_nb.methods.ptychi.solver import LsqmlSettings, Part, reconstruct, task_options
from fly64_nb.physics.optics import diffraction_intensity
from fly64_nb.physics.scan import canvas

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(
            not torch.cuda.is_available(), reason="no GPU here: the fast form was not compared on one"
        ),
    ),
]


@pytest.fixture(autouse=True)
def defaults():
    """pty-chi changes torch's default device and dtype for the whole process."""
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


def inputs(counts: np.ndarray, y: np.ndarray, x: np.ndarray, probe: np.ndarray) -> tuple[dict, tuple[int, int]]:
    """What pty-chi's task takes, and the canvas' origin."""
    origin, shape = canvas(y, x, probe.shape[-1])
    scale = np.sqrt(counts.sum((1, 2), dtype=float).mean() / probe.size / np.sum(np.abs(probe) ** 2))
    return {
        "diffraction_data": counts.astype(np.float32),
        "object_data": np.ones((1, *shape), np.complex64),
        "probe_data": (probe * scale).astype(np.complex64)[None, None],
        "probe_position_x_px": x.astype(np.float32),
        "probe_position_y_px": y.astype(np.float32),
    }, origin


@pytest.fixture(scope="module")
def small():
    """Sixty-odd patterns of the built-in base at 1e4 photons."""
    base = builtin_base(40, 40, 5.2, window=32)
    intensity = diffraction_intensity(base.object, base.probe, base.y, base.x)
    counts = np.random.default_rng(0).poisson(intensity * (1e4 / intensity.sum((1, 2)).mean()))
    return inputs(counts, base.y, base.x, base.probe)


def options(
    origin, patterns, noise="poisson", batches="random", momentum=0.0, probe=True, joint=True, double=True, device="cpu"
):
    settings = LsqmlSettings(noise_model=noise, update_probe=probe, step=0.9, preconditioning=0.1)
    made = task_options(
        settings, Part(10, batches == "compact", 20, momentum), True, origin, patterns, device == "cuda"
    )
    made.reconstructor_options.batching_mode = api.BatchingModes(batches)
    made.reconstructor_options.default_dtype = api.Dtypes.FLOAT64 if double else api.Dtypes.FLOAT32
    made.reconstructor_options.single_slice_solve_obj_prb_step_size_jointly = joint
    return made


def run(task_class, made, data, epochs=10):
    """Object, probe and losses after some epochs."""
    with task_class(made, **data) as task:
        task.run(epochs)
        return (
            *(task.get_data_to_cpu(name, as_numpy=True).copy() for name in ("object", "probe")),
            task.reconstructor.loss_tracker.table["loss"].to_numpy(float),
        )


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "noise,batches,momentum",
    list(itertools.product(["poisson", "gaussian"], ["random", "uniform", "compact"], [0.0, 0.5])),
)
def test_the_same_results_as_pty_chi(small, noise, batches, momentum, device):
    """In double precision, where rounding does not hide a difference: single precision is held against it below."""
    data, origin = small
    kind = dict(noise=noise, batches=batches, momentum=momentum, device=device)
    (obj, probe, loss), (fast_obj, fast_probe, fast_loss) = (
        run(task, options(origin, len(data["diffraction_data"]), **kind), data)
        for task in (PtychographyTask, FastLSQMLTask)
    )
    assert distance(fast_obj, obj) < 1e-4 and distance(fast_probe, probe) < 1e-4
    assert np.abs(fast_loss / loss - 1).max() < 1e-5
    assert loss[-1] < 0.5 * loss[0]  # and it reconstructs


@pytest.mark.parametrize(
    "changes",
    [{"probe": False}, {"joint": False}, {"probe": False, "joint": False, "batches": "compact", "momentum": 0.9}],
)
def test_the_same_with_a_fixed_probe_and_separate_steps(small, changes):
    data, origin = small
    (obj, probe, loss), (fast_obj, fast_probe, fast_loss) = (
        run(task, options(origin, len(data["diffraction_data"]), **changes), data)
        for task in (PtychographyTask, FastLSQMLTask)
    )
    assert (
        distance(fast_obj, obj) < 1e-6
        and distance(fast_probe, probe) < 1e-6
        and np.abs(fast_loss / loss - 1).max() < 1e-6
    )


@pytest.mark.parametrize("noise,batches", list(itertools.product(["poisson", "gaussian"], ["random", "compact"])))
def test_single_precision_loses_nothing(small, noise, batches):
    """LSQML amplifies rounding; the fast form must be as near to the double result as pty-chi's own class is."""
    data, origin = small
    kind = dict(noise=noise, batches=batches, momentum=0.5)
    count = len(data["diffraction_data"])
    exact = run(PtychographyTask, options(origin, count, **kind), data)
    stock, fast = (
        run(task, options(origin, count, double=False, **kind), data) for task in (PtychographyTask, FastLSQMLTask)
    )
    for i in (0, 1):
        assert distance(fast[i], exact[i]) < 3 * distance(stock[i], exact[i]) + 1e-5


def test_the_same_on_measured_counts(star):
    scan = read_base_file(star)
    rows = np.flatnonzero((np.abs(scan.y - scan.y.mean()) < 60) & (np.abs(scan.x - scan.x.mean()) < 60))[:60]
    data, origin = inputs(scan.counts[rows], scan.y[rows], scan.x[rows], scan.probe)
    (obj, probe, loss), (fast_obj, fast_probe, fast_loss) = (
        run(task, options(origin, len(rows), batches="compact", momentum=0.5), data)
        for task in (PtychographyTask, FastLSQMLTask)
    )
    assert (
        distance(fast_obj, obj) < 1e-4
        and distance(fast_probe, probe) < 1e-4
        and np.abs(fast_loss / loss - 1).max() < 1e-5
    )


def test_what_it_was_not_checked_for_goes_to_pty_chi(small):
    data, origin = small
    made = options(origin, len(data["diffraction_data"]))
    two_modes = {**data, "probe_data": np.repeat(data["probe_data"], 2, 1)}
    with pytest.raises(ValueError, match="1 x 2 modes.*use ptychi.api.task.PtychographyTask"):
        FastLSQMLTask(made, **two_modes)
    with pytest.raises(ValueError, match="mask of valid pixels"):
        FastLSQMLTask(made, **data, valid_pixel_mask=np.ones((32, 32), bool))
    made.reconstructor_options.exclude_measured_pixels_below = 1.0
    assert "exclude_measured_pixels_below = 1.0 was not checked" in reason_for_stock(
        made, data["object_data"].shape, data["probe_data"].shape
    )
    with pytest.raises(ValueError, match="outside"):
        FastLSQMLTask(
            options(origin, len(data["diffraction_data"])), **{**data, "object_data": data["object_data"][:, :-30]}
        )


def test_another_version_falls_back_with_a_reason(small, monkeypatch):
    data, origin = small
    arguments = (
        data["diffraction_data"],
        data["probe_position_y_px"].astype(float),
        data["probe_position_x_px"].astype(float),
        data["probe_data"][0, 0],
    )
    settings = LsqmlSettings(epochs=8, start_epochs=4, start_batch=20, batch=20)
    fast = reconstruct(*arguments, settings)
    monkeypatch.setattr(fast_lsqml, "CHECKED_VERSIONS", ("9.9.9",))
    stock = reconstruct(*arguments, settings)
    assert fast.engine == "fast" and stock.engine.startswith("stock: pty-chi ") and "9.9.9" in stock.engine
    assert np.allclose(fast.loss, stock.loss, rtol=0.02)
    with pytest.raises(ValueError, match="does not apply"):
        reconstruct(*arguments, LsqmlSettings(epochs=2, damped_epochs=0, start_epochs=1, engine="fast"))


def test_nothing_of_pty_chi_is_patched(small):
    """After a fast reconstruction pty-chi's own class is what it was, and so are torch's defaults."""
    from ptychi.reconstructors.lsqml import LSQMLReconstructor

    data, origin = small
    before = dict(vars(LSQMLReconstructor))
    run(FastLSQMLTask, options(origin, len(data["diffraction_data"]), double=False), data, epochs=2)
    assert dict(vars(LSQMLReconstructor)) == before and torch.get_default_device().type == "cpu"


def test_a_diverging_schedule_is_tried_again_and_reported(small, monkeypatch):
    """A momentum far beyond its range blows up; the safe schedule does not, and the note says what happened."""
    data, _ = small
    arguments = (
        data["diffraction_data"],
        data["probe_position_y_px"].astype(float),
        data["probe_position_x_px"].astype(float),
        data["probe_data"][0, 0],
    )
    found = reconstruct(
        *arguments,
        LsqmlSettings(
            epochs=40, damped_epochs=0, start_epochs=2, start_batch=20, batch=20, momentum=1e6, update_probe=False
        ),
    )
    assert len(found.notes) == 1 and found.notes[0].startswith("diverged (") and "safe schedule" in found.notes[0]
    assert np.isfinite(found.object).all() and found.loss[-1] < 0.5 * found.loss[0]
