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
from fly64_nb.methods.ptychi.fast_lsqml import FastLSQMLTask, differs_from_stock, not_compared, reason_for_stock
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
    origin,
    patterns,
    noise="poisson",
    batches="random",
    momentum=0.0,
    probe=True,
    joint=True,
    double=True,
    device="cpu",
    positions=False,
):
    settings = LsqmlSettings(noise_model=noise, update_probe=probe, step=0.9, preconditioning=0.1)
    made = task_options(
        settings, Part(10, batches == "compact", 20, momentum), True, origin, patterns, device == "cuda"
    )
    made.reconstructor_options.batching_mode = api.BatchingModes(batches)
    made.reconstructor_options.default_dtype = api.Dtypes.FLOAT64 if double else api.Dtypes.FLOAT32
    made.reconstructor_options.single_slice_solve_obj_prb_step_size_jointly = joint
    made.probe_position_options.optimizable = positions
    return made


def run(task_class, made, data, epochs=6):
    """Object, probe and losses after some epochs; what is rounding at first grows tenfold in each."""
    with task_class(made, **data) as task:
        task.run(epochs)
        return (
            *(task.get_data_to_cpu(name, as_numpy=True).copy() for name in ("object", "probe")),
            task.reconstructor.loss_tracker.table["loss"].to_numpy(float),
        )


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def with_modes(data: dict, modes: int, masked: bool) -> dict:
    """The same scan from so many modes (a fifth of the power in the weaker ones), with a gap and a beamstop."""
    strongest = data["probe_data"][0, 0]
    weaker = [np.roll(strongest, 2 * k, k % 2) * np.exp(1j * k) * 0.3 / k for k in range(1, modes)]
    changed = {**data, "probe_data": np.stack([strongest, *weaker])[None]}
    if masked:
        mask = np.ones(strongest.shape, bool)
        mask[:, 9:11] = False
        mask[14:18, 14:18] = False
        changed |= {"valid_pixel_mask": mask, "diffraction_data": data["diffraction_data"] * mask}
    return changed


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


def test_the_light_of_a_kept_probe_is_averaged_as_by_pty_chi(small):
    """It is added up once, and goes into the preconditioner in the epochs in which pty-chi's would."""
    data, origin = small
    seen = []
    for task_class in (PtychographyTask, FastLSQMLTask):
        made = options(origin, len(data["diffraction_data"]), "gaussian", probe=False, joint=False)
        with task_class(made, **data) as task:
            lights = []
            for _ in range(12):
                task.run(1)
                lights.append(task.reconstructor.parameter_group.object.preconditioner.clone())
            seen.append(torch.stack(lights))
    assert torch.allclose(*seen, rtol=1e-12) and not torch.equal(seen[0][1], seen[0][2])


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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("modes,masked", [(1, True), (2, False), (5, False), (3, True)])
@pytest.mark.parametrize(
    "noise,batches,momentum,probe",
    [
        ("poisson", "random", 0.0, True),
        ("poisson", "compact", 0.9, True),
        ("poisson", "compact", 0.0, False),
        ("gaussian", "random", 0.0, False),
        ("gaussian", "compact", 0.5, True),
    ],
)
def test_the_same_with_modes_and_a_mask(small, noise, batches, momentum, probe, modes, masked, device):
    data, origin = with_modes(small[0], modes, masked), small[1]
    kind = dict(noise=noise, batches=batches, momentum=momentum, probe=probe, device=device)
    (obj, modes_found, loss), (fast_obj, fast_modes, fast_loss) = (
        run(task, options(origin, len(data["diffraction_data"]), **kind), data)
        for task in (PtychographyTask, FastLSQMLTask)
    )
    assert modes_found.shape == (1, modes, 32, 32)
    assert distance(fast_obj, obj) < 1e-4 and distance(fast_modes, modes_found) < 1e-4
    assert np.abs(fast_loss / loss - 1).max() < 1e-5
    assert np.std(obj) > 0.02  # it has begun to reconstruct


@pytest.mark.parametrize("joint,modes", [(True, 1), (False, 3)])
@pytest.mark.parametrize("noise,batches,momentum", [("poisson", "random", 0.0), ("gaussian", "compact", 0.5)])
def test_the_same_with_positions_that_move(small, noise, batches, momentum, joint, modes):
    data, origin = with_modes(small[0], modes, False), small[1]
    wrong = np.random.default_rng(1).normal(0, 0.5, (2, len(data["probe_position_y_px"]))).astype(np.float32)
    data |= {f"probe_position_{axis}_px": data[f"probe_position_{axis}_px"] + e for axis, e in zip("yx", wrong)}
    found = []
    for task_class in (PtychographyTask, FastLSQMLTask):
        kind = dict(noise=noise, batches=batches, momentum=momentum, joint=joint, positions=True)
        with task_class(options(origin, len(data["diffraction_data"]), **kind), **data) as task:
            task.run(8)
            names = ("object", "probe", "probe_positions")
            found.append([task.get_data_to_cpu(name, as_numpy=True).copy() for name in names])
    told = np.stack([data["probe_position_y_px"], data["probe_position_x_px"]], 1)
    assert np.abs(found[0][2] - told).max() > 0.05  # they have moved
    assert np.abs(found[1][2] - found[0][2]).max() < 1e-5
    assert distance(found[1][0], found[0][0]) < 1e-4 and distance(found[1][1], found[0][1]) < 1e-4


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
    two_opr_modes = {**data, "probe_data": np.repeat(data["probe_data"], 2, 0)}
    weights = np.ones((len(data["diffraction_data"]), 2), np.float32)
    with pytest.raises(ValueError, match="one OPR mode, found 1 and 2; use ptychi.api.task.PtychographyTask"):
        FastLSQMLTask(made, **two_opr_modes, opr_mode_weights_data=weights)
    made.reconstructor_options.exclude_measured_pixels_below = 1.0
    shapes = data["object_data"].shape, data["probe_data"].shape
    assert "exclude_measured_pixels_below = 1.0 was not checked" in not_compared(made, *shapes)
    made = options(origin, len(data["diffraction_data"]))
    made.reconstructor_options.solve_step_sizes_only_using_first_probe_mode = True
    assert not_compared(made, *shapes) is None
    assert "only for the first" in not_compared(made, shapes[0], (1, 2, 32, 32))
    made.reconstructor_options.solve_step_sizes_only_using_first_probe_mode = False
    made.probe_position_options.correction_options.update_magnitude_limit = 0.3
    assert "correction_options" in not_compared(made, *shapes)
    with pytest.raises(ValueError, match="outside"):
        FastLSQMLTask(
            options(origin, len(data["diffraction_data"])), **{**data, "object_data": data["object_data"][:, :-30]}
        )


def few_epochs(data: dict, **changes) -> tuple[tuple[np.ndarray, ...], LsqmlSettings]:
    """What `reconstruct` takes of these data."""
    names = ("diffraction_data", "probe_position_y_px", "probe_position_x_px")
    settings = LsqmlSettings(**{"epochs": 8, "start_epochs": 4, "start_batch": 20, "batch": 20, **changes})
    return (*(data[name].astype(float) for name in names), data["probe_data"][0, 0]), settings


def test_another_version_with_the_same_steps_keeps_the_speed(small, monkeypatch):
    arguments, settings = few_epochs(small[0])
    monkeypatch.setattr(fast_lsqml.ptychi, "__version__", "2.2.99")
    found = reconstruct(*arguments, settings)
    assert found.engine == "fast"


@pytest.mark.parametrize(
    "name,factor", [("get_psi_far_step_size", 1.01), ("_calculate_object_patch_update_direction", 1 + 0.01j)]
)
def test_other_steps_of_pty_chi_fall_back_with_a_reason(small, monkeypatch, name, factor):
    """A pty-chi that goes one per cent another way: its own class runs, and the reason is told."""
    from ptychi.reconstructors.lsqml import LSQMLReconstructor

    stock = getattr(LSQMLReconstructor, name)
    arguments, settings = few_epochs(small[0])
    fast = reconstruct(*arguments, settings)
    monkeypatch.setattr(LSQMLReconstructor, name, lambda self, *a, **k: factor * stock(self, *a, **k))
    monkeypatch.setattr(fast_lsqml.ptychi, "__version__", "9.9.9")
    found = reconstruct(*arguments, settings)
    assert fast.engine == "fast"
    assert found.engine.startswith("stock: pty-chi 9.9.9 takes other steps") and " differs by " in found.engine
    with pytest.raises(ValueError, match="does not apply"):
        reconstruct(*arguments, LsqmlSettings(epochs=2, damped_epochs=0, start_epochs=1, engine="fast"))


def test_a_version_that_breaks_the_fast_form_falls_back(small, monkeypatch):
    monkeypatch.setattr(fast_lsqml.ptychi, "__version__", "9.9.8")
    monkeypatch.setattr(fast_lsqml, "trimmed_mean", None)
    arguments, settings = few_epochs(small[0], epochs=2, start_epochs=2, damped_epochs=0)
    assert "the test of the fast form raised TypeError" in reconstruct(*arguments, settings).engine


def test_the_test_of_versions_leaves_no_trace_and_is_asked_once(small):
    data, origin = small
    made = options(origin, len(data["diffraction_data"]), double=False)
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    fast_lsqml._KINDS.clear()
    assert differs_from_stock(made, 1, False) is None and len(fast_lsqml._KINDS) == 1
    assert torch.equal(before[0], torch.get_rng_state()) and np.array_equal(before[1], np.random.get_state()[1])
    assert torch.get_default_dtype() == torch.float32
    assert reason_for_stock(made, (1, 50, 50), (1, 1, 32, 32)) is None and len(fast_lsqml._KINDS) == 1
    assert reason_for_stock(made, (1, 50, 50), (1, 4, 32, 32), True) is None and len(fast_lsqml._KINDS) == 2


def test_nothing_of_pty_chi_is_patched(small):
    """After a fast reconstruction pty-chi's own class is what it was, and so are torch's defaults."""
    from ptychi.reconstructors.lsqml import LSQMLReconstructor

    data, origin = small
    before = dict(vars(LSQMLReconstructor))
    run(FastLSQMLTask, options(origin, len(data["diffraction_data"]), double=False), data, epochs=2)
    assert dict(vars(LSQMLReconstructor)) == before and torch.get_default_device().type == "cpu"


def test_a_diverging_schedule_is_tried_again_and_reported(small, monkeypatch):
    """A momentum far beyond its range blows up, with shorter steps too; the safe schedule does not, and it is told."""
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
    assert len(found.notes) == 2 and all(note.startswith("diverged (") for note in found.notes)
    assert "without over-relaxation" in found.notes[0] and "safe schedule" in found.notes[1]
    assert np.isfinite(found.object).all() and found.loss[-1] < 0.5 * found.loss[0]
