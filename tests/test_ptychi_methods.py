"""pty-chi's other reconstructors as methods: better than nothing, not worse with more epochs, strict about settings."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from fly64_nb.methods.method import DEFAULT_METHODS, find_methods, make_settings, settings_of
from fly64_nb.methods.ptychi.engines import batch_that_fits, example_dataset
from fly64_nb.methods.ptychi.solver import DivergedError
from fly64_nb.quality.alignment import align, common_field, true_phase
from fly64_nb.reconstruction import reconstruct_with

NAMES = ("ePIE", "RAAR", "AD")
METHODS = {name: method for name, (method, _) in find_methods().items() if name in NAMES}


@pytest.fixture(autouse=True)
def defaults():
    """pty-chi changes torch's default device and dtype for the whole process."""
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def scans():
    """A scan with much light and overlap, and one with little of both."""
    return {"bright": example_dataset(1e5), "dim": example_dataset(300, spacing=6)}


def made(name, data, **changes):
    """What a method makes of a dataset, on the way that a study takes."""
    settings = settings_of(METHODS[name], "tiny", changes)
    return reconstruct_with(data, METHODS[name], settings, None, lambda *_, **__: None)


def phase_rmse(data, found):
    """Of the phase in radians, aligned as the study's comparison does; of a flat image where there is none."""
    field = common_field([(data.y, data.x)], data.object.shape)
    truth = true_phase(field.crop(data.object))
    phase = align(data.object, found.object, found.origin, field, margin=4).phase if found else truth.mean()
    return float(np.sqrt(np.mean((phase - truth) ** 2)))


def test_they_are_found_and_not_run_by_default():
    assert tuple(sorted(METHODS)) == tuple(sorted(NAMES)) and not set(NAMES) & set(DEFAULT_METHODS)
    assert not {"rPIE", "DM", "BH"} & set(find_methods())  # not stable: nbs/methods/ptychi/engines.ipynb
    assert all(set(method.presets) == {"tiny", "quick", "full", "paper"} for method in METHODS.values())


@pytest.mark.parametrize("name", NAMES)
def test_better_than_a_flat_image_and_more_epochs_do_not_make_it_worse(scans, name):
    for scan, share in (("bright", 0.6), ("dim", 1.0)):
        flat = phase_rmse(scans[scan], None)
        fewer, more = (phase_rmse(scans[scan], made(name, scans[scan], epochs=epochs)) for epochs in (20, 40))
        assert fewer < share * flat and more < 1.05 * fewer


@pytest.mark.parametrize("name", NAMES)
def test_it_is_told_only_what_a_method_is_told(scans, name):
    """The same bits again, without the truth; frame and probe are those of the dataset."""
    data = scans["bright"]
    hidden = replace(
        data,
        object=np.ones_like(data.object),
        probe=np.zeros_like(data.probe),
        Y=np.zeros_like(data.Y),
        known_probe=data.probe,
    )
    first, again = made(name, data, epochs=3), made(name, hidden, epochs=3)
    assert np.array_equal(first.object, again.object) and first.origin == again.origin
    expected = np.abs(data.probe).astype(float) / np.linalg.norm(data.probe)
    assert np.allclose(np.abs(first.probe) / np.linalg.norm(first.probe), expected, atol=1e-5)
    assert (first.epoch, len(first.loss), first.held_out[0, 0]) == (3, 3, 0)


@pytest.mark.parametrize("name", NAMES)
def test_bad_settings_and_bad_counts_are_refused(scans, name):
    method = METHODS[name]
    bad = {
        "epochs": 0,
        "hold_out": 1.0,
        "device": "abacus",
        "step": -1,
        "batch": 0,
        "beta": 0.5,
        "inertia": 1,
    }
    for setting in {f.name for f in fields(method.settings)} & set(bad):
        with pytest.raises(ValueError, match=f"{name}: {setting} = "):
            make_settings(method, {setting: bad[setting]})
    with pytest.raises(ValueError, match="'momentum' is unknown"):
        make_settings(method, {"momentum": 1})
    blind = replace(scans["bright"], diffraction=np.full_like(scans["bright"].diffraction, np.nan))
    with pytest.raises(DivergedError, match="not finite"):
        made(name, blind, epochs=2)


def test_steps_of_a_batch_do_not_add_up(scans):
    """All 180 patterns at once would blow up; the batch is made smaller, whatever is asked for."""
    bright = scans["bright"]
    assert batch_that_fits(bright, 1.0, 180) < 10 and batch_that_fits(bright, 1e-3, 180) == 180
    wide = made("ePIE", bright, epochs=20, step=1.0, batch=180)
    assert phase_rmse(bright, wide) < 0.6 * phase_rmse(bright, None) and not wide.notes
