"""Wide studies and replicates: many overlaps, several noise seeds, and what gathers and shows them."""
from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from fly64_nb.comparison import METHOD_ORDER, METRICS_COLUMNS, best_method, comparison_dir, gather_metrics, headline, pivot, pivot_spread, write_metrics
from fly64_nb.core.bases import builtin_base, read_base, write_base
from fly64_nb.core.formats import write_json, write_npz
from fly64_nb.core.engine import run_job
from fly64_nb.core.optics import diffraction_intensity, photon_counts
from fly64_nb.datasets import dose_counts
from fly64_nb.design import (build_design_job, build_replicate_jobs, dose_folder, freeze_study, get_study_design, make_base, parse_overlaps, read_study,
                             replicate_design, study_roots)
from fly64_nb.core.site import publish_report
from fly64_nb.report import build_report_job, evidence_html, headline_html, left_out, missing_reasons, overlap_table


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A study that thins a small measured scan, and its replicate, made by their notebooks."""
    root = tmp_path_factory.mktemp("measured")
    base = builtin_base(150, 60, 8, window=48)
    counts = photon_counts(diffraction_intensity(base.object, base.probe, base.y, base.x), 1e5, np.random.default_rng(0))
    np.savez(root / "scan.npz", data=counts, scan=np.stack([base.y, base.x], 1), probe=base.probe, pixel_size_m=2e-8)
    design = get_study_design("tiny", mode="thin", doses=[1e3], replicates=2, recover_epochs=2)
    for job in (build_design_job(root / "study", design, root / "scan.npz"), *build_replicate_jobs(root / "study", design)):
        done = run_job(job)
        assert done.status == "done", done.detail
    return root / "study"


def test_a_replicate_has_the_same_base_to_the_bit_and_does_not_recover_it_again(measured):
    roots = study_roots(measured, read_study(measured)["design"])
    assert roots == {42: measured, 43: measured / "replicates" / "seed_43"}
    first, second = (read_base(root / "base.npz") for root in roots.values())
    for name in ("object", "probe", "y", "x", "counts"):
        assert getattr(first, name).dtype == getattr(second, name).dtype and np.array_equal(getattr(first, name), getattr(second, name))
    assert first.counts is not None and first.pixel_size_m == second.pixel_size_m == 2e-8
    assert (measured / "base.npz").read_bytes() == (roots[43] / "base.npz").read_bytes()
    records = [read_study(root) for root in roots.values()]
    assert records[0]["base_digest"] == records[1]["base_digest"] == first.digest
    assert records[0]["base_source"] == records[1]["base_source"]
    assert records[1]["base_source"]["kind"] == "measured scan" and records[1]["base_source"]["file"] == "scan.npz"
    assert records[0]["design"].patch_size == records[1]["design"].patch_size == 48          # the scan's own
    assert records[1]["design"] == replicate_design(records[0]["design"], 43) and records[1]["design"].mode == "thin"
    shown = ["".join(o.get("text", "") for c in nbformat.read(root / "notebooks" / "phase_a" / "design.ipynb", 4).cells for o in c.get("outputs", []))
             for root in roots.values()]
    assert "recovering" not in shown[1]
    # the replicate's counts are other draws from the same measured ones
    draws = [dose_counts(base, record["design"], 1e3) for base, record in zip((first, second), records)]
    assert not np.array_equal(*draws) and (draws[1] <= second.counts).all()


def test_replicate_jobs_do_not_depend_on_whether_the_base_was_seen(measured):
    frozen = read_study(measured)["design"]
    asked = replace(frozen, patch_size=32)
    assert build_replicate_jobs(measured, asked) == build_replicate_jobs(measured, frozen)
    assert build_replicate_jobs(measured, replace(frozen, replicates=1)) == []
    jobs = build_replicate_jobs(measured, replace(frozen, replicates=4))
    assert [job.study.name for job in jobs] == ["seed_43", "seed_44", "seed_45"]
    assert {(job.phase, job.name) for job in jobs} == {("phase_a", "design")}
    assert {(job.parameters["base_file"], job.inputs) for job in jobs} == {("../../base.npz", (measured / "base.npz",))}
    assert all(job.outputs == (job.study / "base.npz", job.study / "study.json") and job.log_path == job.study / "phase_a" / "design.log" for job in jobs)


def test_a_built_in_base_goes_over_as_well(tmp_path):
    design = get_study_design("tiny", simulation_seed=7, replicates=2)
    base = make_base(design)[0]
    write_base(tmp_path / "base.npz", base)
    again, recovery = make_base(replicate_design(design, 8), tmp_path / "base.npz")
    assert (again.digest, again.source, recovery) == (base.digest, base.source, None) and again.source["kind"] == "built-in base"


DOSES, SEEDS = (1e2, 1e3, 1e4, 1e5, 1e6), (42, 43)


def made_up_metrics(dose: float, place: int, view: str, split: str, seed: int) -> pd.DataFrame:
    """Numbers of one condition: LSQML best at high dose and overlap, the two networks as good as each other."""
    rng = np.random.default_rng([int(dose), place, len(split), seed])
    models = {"PtychoPINN": (0.92, 0.20, 0.02), "Baseline": (0.92, 0.20, 0.02), "PtyChi": (1.0, 0.35, 0.06)}
    rows = []
    for method, (top, few, sparse) in models.items():
        q = top - few * (100 / dose) ** 0.3 - sparse * place + 0.01 * (seed - 42) + rng.normal(0, 0.004)
        rows += [[dose, view, split, seed, method, c, m, 1 - q if m == "rmse" else q] for c, m in
                 (("phase", "ms_ssim"), ("phase", "ms_ssim_published"), ("phase", "rmse"), ("amplitude", "ssim"), ("amplitude", "rmse"), ("complex", "frc50"))]
    return pd.DataFrame(rows, columns=METRICS_COLUMNS)


def write_job(root: Path, name: str, status: str = "done", log: str = "job.log") -> dict:
    """A job's executed notebook and log, as small as they can be, and its row in the manifest."""
    phase, _, rest = name.partition("/")
    notebook, log_path = Path("notebooks", phase, f"{rest}.ipynb"), Path(phase, rest, log)
    for path in (root / notebook, root / log_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if status == "done":
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"{root.name} {name}")]), root / notebook)
    (root / log_path).write_text("return code: 0")
    return {"name": name, "status": status, "returncode": 0 if status == "done" else 2, "seconds": 1.0, "log_path": str(log_path),
            "executed_notebook": str(notebook), "detail": "" if status == "done" else "made to fail"}


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """Five doses, six views, two seeds: numbers, images, notebooks, logs and manifests as a study has them, made up."""
    study = tmp_path_factory.mktemp("wide") / "study"
    design = get_study_design("tiny", doses=DOSES, overlap_targets=parse_overlaps("0,0.2,0.5,0.7,0.9"), replicates=2)
    rng = np.random.default_rng(0)
    truth = np.exp(0.5j * rng.random((20, 30))).astype(np.complex64)
    for seed, root in study_roots(study, design).items():
        freeze_study(root, design if root == study else replicate_design(design, seed), "0" * 64, {"kind": "made up"})
        rows = {"phase_e": [], "phase_f": [], "phase_g": []}
        for dose, (place, view) in itertools.product(DOSES, enumerate(design.views)):
            d = dose_folder(dose)
            write_json(root / "phase_d" / d / view / "overlap_metrics.json",
                       {split: {"overlap_target": design.overlap_targets.get(view), "spacing_px": 3.0 * place, "positions": 100, "acceptance_of_bound": 0.7}
                        for split in design.splits})
            rows["phase_e"] += [write_job(root, f"phase_e/{d}/{view}_gs{1 if view == 'baseline' else 2}_pinn")]
            rows["phase_e"] += [write_job(root, f"phase_e/{d}/baseline_gs1_supervised")] if view == "baseline" else []
            for split in design.splits:
                if (dose, view, split, seed) == (1e2, "overlap_00", "test", 43):          # one comparison of the second seed was refused
                    rows["phase_g"].append(write_job(root, f"phase_g/{d}/{view}_{split}", "failed"))
                    continue
                folder = comparison_dir(root, dose, view, split)
                folder.mkdir(parents=True)
                made_up_metrics(dose, place, view, split, seed).to_csv(folder / "metrics.csv", index=False)
                for phase in ("phase_f", "phase_g") if split == "test" else ():          # the page shows the test split; fewer pages to render
                    rows[phase].append(write_job(root, f"{phase}/{d}/{view}_{split}"))
            if 1e2 < dose < 1e6:                    # images of two doses are enough to see, and drawing them takes the time
                continue
            images = {m: truth * np.exp(0.1j * rng.standard_normal(truth.shape)) for m in METHOD_ORDER} | {"truth": truth}
            write_npz(comparison_dir(root, dose, view, "test") / "aligned.npz",
                      images | {f"{m}_phase": np.angle(i) for m, i in images.items()})
        for phase, results in rows.items():
            write_json(root / phase / "manifest.json", {"execution_results": results})
        write_json(root / "phase_d" / "skip_summary.json", [{"name": "phase_d/x", "reason": "too few positions"}])
    return study


def test_the_table_is_gathered_over_replicates_in_a_fixed_order(wide):
    design, table = read_study(wide)["design"], gather_metrics(wide)
    assert list(table.columns) == METRICS_COLUMNS and not table.duplicated(METRICS_COLUMNS[:-1]).any()
    found = list(table[["dose", "view", "split", "seed"]].drop_duplicates().itertuples(index=False, name=None))
    assert found == [(*c, s) for c in design.conditions for s in SEEDS if (*c, s) != (1e2, "overlap_00", "test", 43)]
    assert set(gather_metrics(wide / "replicates" / "seed_43")["seed"]) == {43}          # a replicate is a study of its own
    assert write_metrics(wide).equals(table) and pd.read_csv(wide / "metrics.csv").shape == table.shape


def test_numbers_are_means_over_seeds_with_their_sample_deviation(wide):
    table = gather_metrics(wide)
    rows = table.query("channel == 'phase' and metric == 'ms_ssim' and split == 'test'").set_index(["dose", "view", "method", "seed"])["value"]
    shown = headline(table)
    assert list(shown.columns) == ["phase MS-SSIM", "± phase MS-SSIM", "phase MS-SSIM (published convention)", "phase RMSE (rad)", "amplitude SSIM",
                                   "amplitude RMSE", "FRC50 (1/px)", "seeds"]
    assert list(shown.index) == [(d, v, m) for d in DOSES for v in read_study(wide)["design"].views for m in METHOD_ORDER]
    for key in shown.index:
        assert shown.loc[key, "phase MS-SSIM"] == pytest.approx(rows[key].mean(), abs=1e-4)
        alone = key[:2] == (1e2, "overlap_00")
        assert shown.loc[key, "seeds"] == (1 if alone else 2)
        assert np.isnan(shown.loc[key, "± phase MS-SSIM"]) if alone else shown.loc[key, "± phase MS-SSIM"] == pytest.approx(rows[key].std(ddof=1), abs=1e-4)
    mean, spread = (f(table, "ms_ssim", "phase", "PtyChi", "test") for f in (pivot, pivot_spread))
    assert mean.shape == spread.shape == (5, 6) and spread.isna().sum().sum() == 1
    one = headline(table[table["seed"] == 42])
    assert list(one.columns) == [c for c in shown.columns if c not in ("± phase MS-SSIM", "seeds")]


def test_a_lead_within_noise_is_not_decided(wide):
    table = gather_metrics(wide)
    leads = best_method(table)
    assert len(leads) == 30 and leads.index.is_unique
    assert leads.loc[(1e6, "baseline"), "best"] == "PtyChi" and leads.loc[(1e6, "baseline"), "decided"] is True
    assert leads.loc[(1e2, "overlap_00"), "decided"] is None and leads.loc[(1e2, "overlap_00"), "seeds"] == 1
    assert not leads["decided"].drop((1e2, "overlap_00")).all()                          # the two networks are the same but for noise
    assert (leads["margin"].dropna() >= 0).all()
    worst = best_method(table, "rmse", lower=True)                                       # 1 - quality here: the same order
    assert (worst["best"] == leads["best"]).all() and np.allclose(worst["margin"], leads["margin"])
    # the luck that all methods of a seed share (0.01 here) is no part of the error of their difference
    rows = table.query("dose == 1e6 and view == 'baseline' and metric == 'ms_ssim' and channel == 'phase' and split == 'test'")
    by_hand = rows.pivot(index="seed", columns="method", values="value")
    difference = by_hand["PtyChi"] - by_hand[leads.loc[(1e6, "baseline"), "runner-up"]]
    assert leads.loc[(1e6, "baseline"), "standard error"] == pytest.approx(difference.std(ddof=1) / 2**0.5)


def test_a_lone_method_has_no_runner_up():
    table = pd.DataFrame([[1e3, "baseline", "test", s, "PtyChi", "phase", "ms_ssim", 0.9] for s in SEEDS], columns=METRICS_COLUMNS)
    row = best_method(table).iloc[0]
    assert row["runner-up"] is None and row["decided"] is None and np.isnan(row["margin"])


def test_the_report_of_a_wide_study_has_every_seed_and_no_dead_link(wide):
    job = build_report_job(wide)
    names = {str(p.relative_to(wide)) for p in job.inputs}
    assert {"phase_g/manifest.json", "replicates/seed_43/phase_g/manifest.json", "replicates/seed_43/phase_d/skip_summary.json"} <= names
    done = run_job(job)
    assert done.status == "done", done.detail
    page = publish_report(wide, quarto="").page
    text = page.read_text()
    local = [h for h in re.findall(r'href="([^"]*)"', text) if not h.startswith(("#", "http", "data:"))]
    assert not [h for h in local if not (page.parent / h.split("#")[0]).exists()]
    assert sum(h.startswith("replicates/seed_43/notebooks/") for h in local) > 100 and sum(h.startswith("replicates/seed_43/logs/") for h in local) > 90
    assert "seed_43 phase_g/dose_100/baseline_test" in (page.parent / "replicates/seed_43/notebooks/phase_g/dose_100/baseline_test.html").read_text()
    assert "Within noise" in text and "means over the noise seeds 42, 43" in text and "made to fail" in text
    pictures = {p.name for p in (wide / "report" / "figures").iterdir()}
    assert {"curves_ms_ssim.svg", "phase_dose_100.webp", "phase_error_dose_1000000.webp"} <= pictures and "phase_dose_1000.webp" not in pictures


def test_the_tables_of_a_wide_study(wide):
    design, table = read_study(wide)["design"], gather_metrics(wide)
    rows = BeautifulSoup(headline_html(table, wide, design), "html.parser").find("tbody").find_all("tr")
    assert len(rows) == 90 and " ± " in rows[3].get_text()
    links = [{a["href"] for a in row.find_all("a")} for row in rows]
    assert any("replicates/seed_43/notebooks/phase_e/dose_100/overlap_90_gs2_pinn.html" in those for those in links)
    alone = [those for row, those in zip(rows, links) if [c.get_text() for c in row.find_all(["th", "td"])][:2] == ["100", "overlap_00"]]
    assert len(alone) == 3 and not any("seed_43" in link for those in alone for link in those)             # what was not made has no link
    evidence = BeautifulSoup(evidence_html(wide), "html.parser")
    assert [th.get_text() for th in evidence.find("thead").find_all("th")] == ["job", "seed 42", "seed 43"]
    row = next(tr for tr in evidence.find_all("tr") if tr.find("th").get_text() == "phase_g/dose_100/overlap_00_test")
    assert row.find_all("td")[1].get_text() == "failed, 1.0 s, log" and row.find_all("td")[1].find("a")["href"].startswith("replicates/seed_43/logs/")
    assert left_out(wide) == ["phase_d/x: too few positions (seed 42, 43)", "phase_g/dose_100/overlap_00_test failed (return code 2): made to fail (seed 43)"]
    assert missing_reasons(wide, design, "test")(1e2, "overlap_00", "PtyChi") == "failed: made to fail"
    assert missing_reasons(wide, design, "test")(1e2, "baseline", "PtyChi") == "not made yet"
    overlaps = overlap_table(wide, design)
    assert list(overlaps["view"].unique()) == list(design.views) and len(overlaps) == 12


def test_overlaps_from_text():
    assert parse_overlaps("0,0.2,0.5,0.7,0.9") == {"overlap_00": 0, "overlap_20": 0.2, "overlap_50": 0.5, "overlap_70": 0.7, "overlap_90": 0.9}
    assert parse_overlaps("dense=0.7, 0.125") == {"dense": 0.7, "overlap_12p5": 0.125}
    for hundredth in range(100):
        assert parse_overlaps(f"{hundredth / 100}") == {f"overlap_{hundredth:02d}": hundredth / 100}
    for wrong in ("", "0.2,", "x", "1", "-0.1", "inf", "a=b", "a b=0.2", "baseline=0.2", "a=0.1,a=0.2", "0.2,0.2", "a=0.2,0.2", "../up=0.2"):
        with pytest.raises(ValueError, match="overlaps: "):
            parse_overlaps(wrong)
