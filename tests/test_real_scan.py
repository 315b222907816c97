"""The main job on a measured scan, reduced: fewer positions and epochs, one dose, by simulation and by thinning."""

from __future__ import annotations

import bz2
import io
import json

import numpy as np
import pandas as pd
import pytest

from conftest import fly64
from fly64_nb.data.base import MeasuredScan, read_base
from fly64_nb.data.readers.reader import read_base_file
from fly64_nb.design import read_study
from fly64_nb.study.layout import Layout


def test_the_scan_is_read_for_what_it_is(star):
    scan = read_base_file(star)
    assert isinstance(scan, MeasuredScan) and scan.counts.shape == (516, 128, 128)
    assert scan.source["zero_frequency"] == "corner" and scan.counts.sum((1, 2)).mean() == pytest.approx(461213, abs=1)
    mean = scan.counts.mean(0)
    assert mean[32:96, 32:96].sum() > 0.7 * mean.sum()  # and turned to the centre


@pytest.fixture(scope="module")
def strip(star, tmp_path_factory):
    """The scan's middle columns as a file of its own, in tike's layout."""
    with np.load(io.BytesIO(bz2.decompress(star.read_bytes()))) as data:
        keep = np.abs(data["scan"][0, :, 1]) < 75
        path = tmp_path_factory.mktemp("strip") / "strip.npz"
        np.savez(path, data=data["data"][:, keep], scan=data["scan"][:, keep], probe=data["probe"])
    return path


@pytest.mark.parametrize("mode", [pytest.param("simulate", marks=pytest.mark.slow), "thin"])  # a minute each
def test_the_study_on_the_real_scan(strip, tmp_path, mode):
    root = tmp_path / mode
    layout = Layout(root)
    asked = "--profile", "tiny", "--doses", "1e5", "--methods", "PINN,LSQML"
    asked += "--set", "LSQML.epochs=12", "--set", "PINN.images=200"
    done = fly64("run", root, "--base", strip, "--mode", mode, *asked)
    record = read_study(root)
    assert record["design"].patch_size == 128 and record["base_source"]["kind"] == "measured scan"
    assert record["recovered_by"]["name"] == "LSQML" and record["design"].method("LSQML").settings["epochs"] == 12
    if mode == "thin":
        assert read_base(layout.base).counts is not None
    table = (
        pd.read_csv(layout.metrics)
        .query("method == 'LSQML' and channel == 'phase' and metric == 'rmse'")
        .set_index(["view", "split"])["value"]
    )
    assert {("baseline", "train"), ("baseline", "test"), ("dense", "train"), ("dense", "test")} <= set(table.index)
    # a star whose phase spans more than a radian: far better than the flat object that it started from
    assert table["baseline", "train"] < 0.25 and table["baseline", "test"] < 0.25
    skipped = json.loads(layout.skips("phase_d").read_text())
    assert all("positions are at least S" in row["reason"] for row in skipped)
    assert "report:" in done.stdout and (layout.report / "_site" / "index.html").is_file()
