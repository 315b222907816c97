"""Experiments that are not ideal: what a study plans of them, what a dataset tells of them, and remedies by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fly64_nb.axes.axis import find_axes
from fly64_nb.beamlines.beamline import find_beamlines
from fly64_nb.cli import app
from fly64_nb.contract import validate_dataset_contract
from fly64_nb.data.base import write_base
from fly64_nb.data.builtin import builtin_base
from fly64_nb.data.dataset import write_dataset
from fly64_nb.data.files import FormatError
from fly64_nb.datasets import make_datasets
from fly64_nb.methods.method import load_method, methods_on
from fly64_nb.overlap import make_views
from fly64_nb.results.run import Request, chosen_design, prepare_study

SMALL = builtin_base(120, 60, 6, window=32)
EXPOSURE = {
    "background": 0.2, "source_blur": 0.4, "fly_blur": 1.0, "vibration": 1.0, "intensity_fluctuation": 0.1,
    "intensity_drift": 0.3, "module_gap": 2.0, "dead_pixels": 0.02, "beamstop": 2.0, "saturation": 0.3,
    "readout_noise": 0.5, "point_spread": 0.4, "quantum_efficiency": 0.5, "scan_pattern": 2.0, "fewer_brighter": 2.0,
}  # fmt: skip


def applied(name: str, value: float):
    """An axis at a value as `make_datasets` takes it."""
    axis = find_axes()[name][0]
    return (name, value, lambda m, rng: axis.apply(m, value, rng))


def test_every_axis_of_the_exposure_is_tried_here():
    assert {name for name, (axis, _) in find_axes().items() if axis.acts_on == "exposure"} == set(EXPOSURE)


@pytest.mark.parametrize("name", EXPOSURE)
def test_what_was_measured_holds_the_contract_and_comes_back(name, tmp_path):
    """Also as a view; the condition is the study's, whatever became of the photons."""
    sets = make_datasets(SMALL, 1e4, axes=[applied(name, EXPOSURE[name])])
    for split, data in sets.items():
        path = tmp_path / f"{split}.npz"
        write_dataset(path, data)
        again = validate_dataset_contract(path, 7, 2)
        assert again.condition == data.condition and again.condition.dose == 1e4
        assert again.condition.exposure == ((name, EXPOSURE[name]),)
        for key in ("known_probe", "modes", "known_modes", "mask", "known_background"):
            assert np.array_equal(getattr(again, key), getattr(data, key)), key
        through = np.mean(np.sum(np.abs(data.Y * data.known_probe) ** 2, (1, 2)))
        assert through == pytest.approx(16**2, rel=0.25)  # the known probe stands for the photons behind the object
    view, record = make_views(sets, "dense", 0.7)["test"]
    assert view is None or np.array_equal(view.counts(), sets["test"].counts()[np.isin(
        sets["test"].scan_index, view.scan_index)]), record  # fmt: skip


@pytest.mark.parametrize("name", [name for name in EXPOSURE if name != "scan_pattern"])
def test_a_neutral_value_changes_nothing(name):
    neutral = find_axes()[name][0].neutral
    plain, asked = (make_datasets(SMALL, 1e4, axes=axes)["test"] for axes in ([], [applied(name, neutral)]))
    expected = plain.counts().mean(0)
    assert asked.known_background is None or not asked.known_background.any()
    assert asked.mask is None or asked.mask.all()
    # another noise, since the condition is another one; the same light
    assert np.abs(asked.counts().mean(0) - expected).max() < 6 * np.sqrt(expected.max() / len(plain))


def test_modes_of_a_base_are_measured_and_told(tmp_path):
    second = 0.5 * np.roll(SMALL.probe, 3, 1)
    base = replace(SMALL, modes=np.stack([SMALL.probe, second]))
    write_base(tmp_path / "base.npz", base)
    data = make_datasets(base, 1e4)["test"]
    assert data.modes.shape == (2, 32, 32) and data.known_modes is data.modes
    powers = (np.abs(data.modes) ** 2).sum((1, 2))
    assert powers.sum() == pytest.approx((np.abs(data.known_probe) ** 2).sum(), rel=1e-4)
    blurred = make_datasets(base, 1e4, axes=[applied("source_blur", 0.4)])["test"]
    assert len(blurred.known_modes) == 2 < len(blurred.modes)  # what is told is what the base knows


@pytest.mark.parametrize("key, change, words", [
    ("known_background", lambda a: a[:5], "known_background"),
    ("modes", lambda a: a[:, :5], "at least one mode"),
    ("known_modes", lambda a: a * np.nan, "not finite"),
])  # fmt: skip
def test_damaged_knowledge_is_refused(key, change, words, tmp_path):
    base = replace(SMALL, modes=np.stack([SMALL.probe, 0.5 * np.roll(SMALL.probe, 3, 1)]))
    data = make_datasets(base, 1e4, axes=[applied("background", 0.2)])["test"]
    write_dataset(tmp_path / "broken.npz", replace(data, **{key: np.ascontiguousarray(change(getattr(data, key)))}))
    with pytest.raises(FormatError, match=words):
        validate_dataset_contract(tmp_path / "broken.npz")


METHODS = ("ML", "ML+positions", "ML-mask", "MAP")


def test_variants_run_where_they_help(tmp_path):
    asked = Request({"profile": "tiny"}, vary={"position_error": (1,), "module_gap": (2,)}, methods=METHODS)
    design = chosen_design(tmp_path, asked, None)
    assert [m.name for m in design.methods] == ["ML", "ML+positions", "ML-mask", "MAP"]
    named = {str(c): [m.name for m in methods_on(design, c)] for c in design.without_split()}
    assert named["10000 photons, dense"] == list(METHODS)
    assert named["10000 photons, dense, position error 1"] == ["ML", "ML+positions", "MAP"]
    assert named["10000 photons, dense, module gap 2"] == ["ML", "ML-mask", "MAP"]


def test_a_variant_has_its_settings_and_the_methods_seed():
    settings = {m.name: m.settings for m in chosen_design(Path(), Request(methods=METHODS), None).methods}
    assert settings["ML+positions"]["update_positions"] and not settings["ML"]["update_positions"]
    assert settings["ML"]["use_mask"] and not settings["ML-mask"]["use_mask"]
    found = load_method("ML+positions", "fly64_nb.methods.ml")
    assert found.name == "ML+positions" and found.seed_words == ("ML",)
    with pytest.raises(ValueError, match="ePIE has no remedy 'mask'; it has"):
        chosen_design(Path(), Request(methods=("ePIE+mask",)), None)


def test_what_is_asked_of_a_method_is_asked_of_its_variants():
    asked = Request(methods=METHODS, settings={"ML": {"iterations": 7}, "ML-mask": {"iterations": 9}})
    made = {m.name: m.settings["iterations"] for m in chosen_design(Path(), asked, None).methods if "ML" in m.name}
    assert made == {"ML": 7, "ML+positions": 7, "ML-mask": 9}


@pytest.mark.parametrize("name", find_beamlines())
def test_a_beamline_is_each_imperfection_alone_and_all_together(name, tmp_path):
    values = find_beamlines()[name][0].values
    design = prepare_study(tmp_path / "s", Request({"profile": "tiny"}, beamlines=(name,), methods=("ML",))).design
    sets = {frozenset(c.further) for c in design.without_split()}
    assert sets == {frozenset(), *(frozenset([one]) for one in values.items()), frozenset(values.items())}
    axes = [applied(*pair) for pair in values.items() if find_axes()[pair[0]][0].acts_on == "exposure"]
    data = make_datasets(SMALL, 1e4, axes=axes)["train"]
    path = tmp_path / "all.npz"
    write_dataset(path, data)
    assert len(validate_dataset_contract(path)) == len(data)


def test_an_unknown_beamline_and_an_unknown_choice_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'mine' is unknown; there are"):
        chosen_design(tmp_path, Request(beamlines=("mine",)), None)
    with pytest.raises(ValueError, match="found 'round'; needed is a number, raster, spiral"):
        chosen_design(tmp_path, Request(vary={"scan_pattern": ("round",)}), None)
    chosen = chosen_design(tmp_path, Request(vary={"fly_blur": (2,), "scan_pattern": ("spiral",)}), None)
    assert [axis.name for axis in chosen.axes] == ["scan_pattern", "fly_blur"]  # the scan is laid before it is flown
    assert chosen.axes[0].in_words(2.0) == "scan pattern spiral"


def test_the_axes_are_listed():
    shown = CliRunner().invoke(app, ["axes"]).output
    assert all(f"{name}:" in shown for name in (*find_axes(), *find_beamlines()))
    assert "scan_pattern:" in shown and "spiral" in shown and "remedy: positions" in shown
