"""Seconds and gray: units, hand calculations, Ptychodus' dose map, and budgets whose answer is known."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pandas as pd
import pytest
from axe import violations
from conftest import fly64
from ptychodus.api.illumination import compute_illumination_map
from ptychodus.plugins.h5_product_file import H5ProductFileIO
from scipy.constants import e

from fly64_nb.data.builtin import builtin_base
from fly64_nb.data.experiment import Experiment, parse_experiment, read_experiment, stated_text, stated_values
from fly64_nb.data.files import write_json
from fly64_nb.data.product import write_product
from fly64_nb.physics.exposure import (
    absorbed_dose,
    exposure_time,
    fluence_of_dose,
    gray_in_words,
    parse_gray,
    parse_time,
    photon_fluence,
    photons_in_time,
    scan_time,
    time_in_words,
)
from fly64_nb.physics.limits import light_through, photons_through
from fly64_nb.physics.materials import mass_attenuation
from fly64_nb.quality.advice import advice_of, wanted_quality
from fly64_nb.quality.planner import (
    Budget,
    Costs,
    Plan,
    Scan,
    at_budget,
    needed_costs,
    needed_sentence,
    overlap_sentence,
)
from fly64_nb.quality.table import metrics_columns
from fly64_nb.results.example import example_study
from fly64_nb.results.planning import parse_field, plan_study
from fly64_nb.results.proposal import write_proposal
from fly64_nb.results.run import Request
from fly64_nb.results.study import open_study
from fly64_nb.results.study_file import read_study_file, study_text
from fly64_nb.study.condition import Condition

BEAM = "energy_keV=8,distance_m=2,detector_um=75,photons_per_s=1e8,material=protein,overhead_s=0.01"


@pytest.mark.parametrize("seconds", [2e-6, 0.012, 1.0, 40.0, 300.0, 9000.0])
def test_times_and_doses_come_back_from_their_words(seconds):
    words = time_in_words(seconds)
    assert "µs" in words or parse_time(words) == pytest.approx(seconds, rel=5e-3)
    assert parse_gray(gray_in_words(seconds * 1e3)) == pytest.approx(seconds * 1e3, rel=5e-2)


@pytest.mark.parametrize(
    ("text", "read"), [("5", parse_time), ("5m", parse_time), ("0s", parse_time), ("-1h", parse_time),
                       ("10", parse_gray), ("10mGy", parse_gray), ("1 Sv", parse_gray), ("infGy", parse_gray)],
)  # fmt: skip
def test_what_is_no_time_and_no_dose_is_refused_by_name(text, read):
    with pytest.raises(ValueError, match=f"--limit: found '{re.escape(text)}'; needed a positive number with one of"):
        read(text, "--limit")


def test_the_dose_of_a_hand_calculation():
    # 1e6 photons on a µm² are 1e18 on a m²; at 10 keV, 1.602177e-15 J each, 1602.177 J/m²; times 0.5 m²/kg
    fluence = photon_fluence(1e6, 1e-6)
    assert fluence == pytest.approx(1e18) and absorbed_dose(fluence, 10e3, 0.5) == pytest.approx(801.09, rel=1e-4)
    assert fluence_of_dose(801.0883, 10e3, 0.5) == pytest.approx(1e18, rel=1e-5)
    assert photons_in_time(scan_time(500, exposure_time(3e4, 1e7), 0.02), 500, 1e7, 0.02) == pytest.approx(3e4)


def test_ptychodus_has_the_same_dose_map(tmp_path):
    base = builtin_base(60, 70, 8, window=32)
    told = Experiment(8e3, 2.0, (75e-6, 75e-6), 0.1, material="protein")
    path, photons, pixel = tmp_path / "product.h5", 1e5, 20e-9
    write_product(
        path, base.object, base.probe, base.y, base.x, (0, 0), pixel, "mine", photons=photons, experiment=told
    )
    product = H5ProductFileIO().read(path)
    theirs = compute_illumination_map(product)
    assert theirs.mass_attenuation_m2_per_kg == pytest.approx(mass_attenuation("protein", 8e3))
    # the photons in front of the object, as many as let the dose through
    behind = photons_through(base.object, base.probe, base.y, base.x, photons)
    scale = behind.sum() / light_through(base.object, base.probe, base.y, base.x).sum()
    flat = np.ones_like(base.object)
    incident = scale * light_through(flat, base.probe, base.y, base.x)
    gray = absorbed_dose(photon_fluence(incident, pixel), 8e3, told.absorption_m2_per_kg)
    assert theirs.dose_Gy.shape == gray.shape
    assert theirs.dose_Gy.sum() == pytest.approx(gray.sum(), rel=1e-2)
    assert np.abs(theirs.dose_Gy - gray).max() < 0.02 * gray.max()
    # and their formula on one number
    assert theirs.energy_fluence_J_per_m2.max() == pytest.approx(theirs.photon_number.max() / pixel**2 * 8e3 * e)


@pytest.mark.parametrize(
    ("material", "keV", "cm2_per_g"),
    [("H2O", 6, 24.05), ("H2O", 8, 9.915), ("H2O", 10, 4.944), ("Si", 6, 143.9), ("Si", 8, 63.13), ("Si", 10, 32.89)],
)
def test_materials_absorb_as_nist_says(material, keV, cm2_per_g):
    """Mass energy-absorption coefficients of NIST Standard Reference Database 126."""
    assert 10 * mass_attenuation(material, keV * 1e3) == pytest.approx(cm2_per_g, rel=0.03)


def test_an_experiment_keeps_its_words_through_text_record_and_study_file(tmp_path):
    told = parse_experiment(BEAM)
    assert read_experiment(told.record()) == told
    assert stated_values(stated_text(stated_values(BEAM))) == stated_values(BEAM)
    assert read_experiment({"energy_eV": 8e3}) == Experiment(energy_eV=8e3)  # as an older version wrote it
    path = tmp_path / "study.toml"
    path.write_text(study_text(Request(reading={"experiment": BEAM}), tmp_path))
    assert parse_experiment(read_study_file(path).reading["experiment"]) == told
    with pytest.raises(ValueError, match="material: found 'Unobtainium'"):
        parse_experiment("material=Unobtainium")
    path.write_text("[experiment]\nmaterial = 3\n")
    with pytest.raises(ValueError, match="material"):
        read_study_file(path)


# two views: many exposures (100 an area of 1e4 px) and few; errors k / sqrt(dose)
SCANS = {"dense": Scan("dense", 0.8, 1000, 0.04), "sparse": Scan("sparse", 0.2, 100, 0.004)}
COSTS = Costs(Experiment(energy_eV=8e3, photons_per_s=1e7, attenuation_m2_per_kg=1.0, overhead_s=0.001), 10e-9, SCANS)


def planned(constants: dict, budget: Budget, rmse: float = 0.03, seeds=(42, 43, 44), noise: float = 0.01) -> Plan:
    """A plan of a made-up study whose phase error is ``k / sqrt(dose)``."""
    rng = np.random.default_rng(1)
    rows = [
        [dose, view, "test", seed, method, "phase", "rmse", k * dose**-0.5 * np.exp(rng.normal(0, noise))]
        for (method, view), k in constants.items() for dose in (1e2, 1e3, 1e4, 1e5, 1e6) for seed in seeds
    ]  # fmt: skip
    light = {view: scan.light for view, scan in SCANS.items()}
    overlaps = {view: scan.overlap for view, scan in SCANS.items()}
    advice = advice_of(pd.DataFrame(rows, columns=metrics_columns()), wanted_quality(phase_rmse=rmse), overlaps, light)
    return Plan(advice, COSTS, budget, at_budget(advice, COSTS, budget), needed_costs(advice, COSTS, budget))


@pytest.mark.parametrize("ratio", [1.5, 10.0])
def test_at_one_dose_limit_the_better_overlap_is_the_one_that_the_law_says(ratio):
    """Tenfold photons in each of a tenth of the exposures: level where the sparse k is sqrt(10) that of the dense."""
    plan = planned({("ML", "dense"): 2.0, ("ML", "sparse"): 2.0 * ratio}, Budget(dose_gray=5e3))
    best = plan.possible.iloc[0]
    assert best["view"] == ("dense" if ratio > 10**0.5 else "sparse")
    for row in plan.possible.to_dict("records"):
        assert row["gray"] == pytest.approx(5e3) and row["standing"] == "in" and row["limited_by"] == "dose"
        k = 2.0 * (ratio if row["view"] == "sparse" else 1)
        assert row["value"] == pytest.approx(k * row["photons"] ** -0.5, rel=0.02)
        assert row["low"] < row["value"] < row["high"]
    kind = "More, darker" if ratio > 10**0.5 else "Fewer, brighter"
    assert f"{kind} exposures are best, beyond the noise" in overlap_sentence(plan)


def test_views_that_are_level_are_told_to_be_level():
    plan = planned({("ML", "dense"): 2.0, ("ML", "sparse"): 2.0 * 10**0.5}, Budget(dose_gray=5e3), noise=0.05)
    assert "the noise does not separate it from" in plan.best_sentence()
    assert "within the noise of another" in overlap_sentence(plan)
    once = planned({("ML", "dense"): 2.0, ("ML", "sparse"): 20.0}, Budget(dose_gray=5e3), seeds=(42,))
    assert "drawn once" in once.best_sentence() and "drawn once" in overlap_sentence(once)


def test_at_one_time_the_stage_takes_its_part():
    plan = planned({("ML", "dense"): 2.0, ("ML", "sparse"): 2.0}, Budget(time_s=2.0))
    photons = plan.best.set_index("view")["photons"]
    assert photons["dense"] == pytest.approx((2.0 / 1000 - 0.001) * 1e7)
    assert photons["sparse"] == pytest.approx((2.0 / 100 - 0.001) * 1e7)
    assert plan.best["time_s"].tolist() == pytest.approx([2.0, 2.0])
    tight = planned({("ML", "dense"): 2.0, ("ML", "sparse"): 2.0}, Budget(time_s=0.5)).best.set_index("view")
    assert tight["standing"].to_dict() == {"dense": "none", "sparse": "in"}


def test_what_cannot_be_had_says_what_would_be_needed():
    constants = {("ML", "dense"): 3.0}  # 0.03 rad want 1e4 photons: 1000 x (1 ms + 1 ms), 400 photons per pixel
    enough = planned(constants, Budget(2.2, 6e3))
    row = enough.needed.iloc[0]
    assert row["photons"] == pytest.approx(1e4, rel=0.02) and row["time_s"] == pytest.approx(2.0, rel=0.01)
    assert row["gray"] == pytest.approx(400 / (10e-9) ** 2 * 8e3 * e * 1.0, rel=0.02)
    assert "can be had within 2.2 s and 6 kGy" in needed_sentence(enough)
    slow = needed_sentence(planned(constants, Budget(time_s=1.5)))
    assert "cannot be had within 1.5 s" in slow and re.search(r"\(1\.3 times as long\) or a flux of 2e7", slow), slow
    weak = needed_sentence(planned(constants, Budget(dose_gray=1e3)))
    assert re.search(r"a sample that can take 5\.\d kGy \(5\.\d times the limit\)", weak), weak
    never = needed_sentence(planned(constants, Budget(time_s=1e3), rmse=1e-4))
    assert "cannot be had with this study's doses and views" in never and "Not reached" in never


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A made-up study with overlaps, three draws, and nothing known of its experiment."""
    root = example_study(tmp_path_factory.mktemp("planner") / "example", replicates=3)
    study = open_study(root)
    for view, overlap, positions in (("baseline", 0.75, 140), ("dense", 0.6, 90), ("sparse", 0.2, 14)):
        record = {"test": {"linear_overlap": {"at_mean_spacing": overlap}, "positions": positions}}
        write_json(study.layout().overlap_record(Condition(1e3, view)), record)
    return root


def test_the_command_plans_and_writes_a_page(example, tmp_path, browser):
    page = tmp_path / "page.html"
    before = (example / "study.json").read_bytes()
    told = ["--time", "60s", "--dose-limit", "20Gy", "--phase-rmse", "0.05", "--experiment", BEAM]
    shown = fly64("advise", str(example), *told, "--page-file", str(page))
    assert "A phase RMSE of 0.05 rad can be had within 60 s and 20 Gy" in shown.stdout, shown.stdout
    assert "The best within 60 s and 20 Gy: PINN at overlap 0.75 (baseline), 140 patterns" in shown.stdout
    assert "Overlap at this budget, PINN" in shown.stdout and "protein absorbs 0.98 m²/kg" in shown.stdout
    html = page.read_text()
    assert html.count("<img ") == 3 and "size: A4" in html and 'src="http' not in html
    assert not violations(browser, page)
    assert (example / "study.json").read_bytes() == before
    again = fly64("advise", str(example), "--resolution-nm", "300", "--time", "60s", "--experiment", BEAM)
    assert "A half period of 2.32 px (300 nm) can be had" in again.stdout, again.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--time", "5min"],
            'found no flux; needed are photons a second: say it with --experiment "photons_per_s=1e9"',
        ),
        (["--dose-limit", "1MGy"], "no photon energy, no size of an object pixel, no absorption of the object"),
        (["--time", "5"], "--time: found '5'; needed a positive number with one of the units ms, s, min, h"),
        (["--dose-limit", "10mGy"], "--dose-limit: found '10mGy'"),
        (["--time", "5min", "--experiment", "photons_per_s=1e9", "--field-um", "10"], "--field-um: found '10'"),
        (["--experiment", "photon_flux=1e9"], "experiment: found 'photon_flux=1e9'"),
        (["--field-um", "10x10"], "no size of an object pixel"),
    ],
)
def test_what_is_missing_is_named_with_the_option_that_gives_it(example, options, words):
    refused = fly64("advise", str(example), *options, check=False)
    assert refused.returncode == 2 and words in refused.stdout.replace("\n", " "), refused.stdout


def test_a_field_takes_the_exposures_of_its_area(example):
    study = open_study(example)
    narrow, wide = (plan_study(study, told=BEAM, field=field).costs.scans["dense"] for field in ("10x10", "20x10"))
    assert wide.patterns == pytest.approx(2 * narrow.patterns) and wide.light == narrow.light
    assert parse_field("20x10") == 200
    # photons that fall on a field are those of its exposures, before the object
    pixels = 100e-12 / study.known_pixel_m(parse_experiment(BEAM)) ** 2
    assert narrow.patterns * narrow.incident == pytest.approx(narrow.light * pixels)


def test_the_page_prints_on_one_page(example, tmp_path, chromium):
    study = open_study(example)
    plan = plan_study(study, Budget(time_s=60.0, dose_gray=20.0), told=BEAM)
    page, pdf = write_proposal(tmp_path / "page.html", study, plan, "fly64 advise example " * 8), tmp_path / "page.pdf"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--print-to-pdf={pdf}", "--no-pdf-header-footer"]
    subprocess.run([chromium, *flags, f"--user-data-dir={tmp_path / 'profile'}", page], check=True, capture_output=True)
    assert re.search(rb"/Type\s*/Pages\s*/Count (\d+)", pdf.read_bytes())[1] == b"1"
