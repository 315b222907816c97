"""The shot-noise limit beside what a solver really reaches, and in the study's files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fly64_nb.contract import validate_dataset_contract
from fly64_nb.data.builtin import builtin_base
from fly64_nb.data.files import load_arrays, read_metadata
from fly64_nb.methods.ptychi.solver import LsqmlSettings, reconstruct
from fly64_nb.physics.limits import GUESSED_PHASE, phase_limit, photons_through, rms_phase_limit
from fly64_nb.physics.optics import diffraction_intensity
from fly64_nb.physics.photons import photon_counts
from fly64_nb.quality.alignment import align, common_field, true_phase
from fly64_nb.study.condition import Condition
from fly64_nb.study.layout import Layout


def test_lsqml_with_a_known_probe_and_enough_photons_stays_above_the_limit_and_near_it():
    base, dose = builtin_base(48, 60, 4, window=32), 1e5
    counts = photon_counts(
        diffraction_intensity(base.object, base.probe, base.y, base.x), dose, np.random.default_rng(0)
    )
    found = reconstruct(counts.astype(np.float32), base.y, base.x, base.probe, LsqmlSettings(update_probe=False))
    field = common_field([(base.y, base.x)], base.object.shape)
    error = align(base.object, found.object, found.origin, field).phase - true_phase(field.crop(base.object))
    ratio = np.sqrt(np.mean(error**2)) / rms_phase_limit(
        field.crop(photons_through(base.object, base.probe, base.y, base.x, dose))
    )
    assert 1.2 < ratio < 3, ratio  # far-field intensities cannot do better than about 1.5, see physics/limits


def test_the_limit_falls_with_the_square_root_of_the_dose_and_dark_pixels_keep_it_finite():
    base = builtin_base(40, 60, 15, window=32)
    few, many = (photons_through(base.object, base.probe, base.y, base.x, dose) for dose in (1e3, 4e3))
    assert few.sum() == pytest.approx(1e3 * len(base.y), rel=1e-9)
    lit = few > 1
    assert rms_phase_limit(many[lit]) == pytest.approx(rms_phase_limit(few[lit]) / 2)
    assert phase_limit(few).max() == pytest.approx(GUESSED_PHASE) and np.isfinite(rms_phase_limit(few))


def test_a_study_keeps_photons_and_limit_of_every_condition(study):
    layout = Layout(study)
    rows = pd.read_csv(layout.metrics).query("channel == 'phase' and metric == 'rmse_limit'")
    limits = rows.groupby(["split", "view"])["value"]
    assert len(rows) == 2 * 3 * 3 and (limits.nunique() == 1).all()  # the same for every method
    for (split, view), limit in limits.first().items():
        condition = Condition(1e4, view, split)
        kept = load_arrays(layout.aligned(condition))
        data = validate_dataset_contract(layout.dataset(condition))
        assert kept["photons"].dtype == np.float32 and kept["photons"].shape == kept["truth"].shape
        assert limit == pytest.approx(rms_phase_limit(kept["photons"]), rel=1e-5)
        top, left, bottom, right = read_metadata("aligned.npz", kept["_metadata"])["field"]
        through = photons_through(
            data.object, data.probe, data.y, data.x, data.counts().sum((1, 2), dtype=float).mean()
        )
        counted = through[top:bottom, left:right].sum()
        assert kept["photons"].sum() == pytest.approx(counted, rel=0.01)
    assert all(
        limits.first()[split, "baseline"] < limits.first()[split, "dense"] < limits.first()[split, "sparse"]
        for split in ("train", "test")
    )
