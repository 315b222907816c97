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

from fly64_nb.axes.overlap import parse_overlaps
from fly64_nb.comparison import study_metrics
from fly64_nb.contract import validate_dataset_contract
from fly64_nb.data.base import read_base, write_base
from fly64_nb.data.builtin import builtin_base
from fly64_nb.data.files import metadata_array, write_json, write_npz
from fly64_nb.design import get_study_design, make_base, read_study, replicate_design, study_roots, write_study
from fly64_nb.methods.method import with_methods
from fly64_nb.physics.optics import diffraction_intensity
from fly64_nb.physics.photons import photon_counts
from fly64_nb.quality.table import best_method, headline, metrics_columns, pivot, pivot_spread
from fly64_nb.report import build_report_job, evidence_html, headline_html, left_out, overlap_table
from fly64_nb.results.plan import root_jobs, write_phases
from fly64_nb.results.run import Request, prepare_study
from fly64_nb.results.study import Study, open_study
from fly64_nb.engine.graph import run_job
from fly64_nb.engine.job import Job, write_log
from fly64_nb.engine.record import write_record
from fly64_nb.show.site import publish_report
from fly64_nb.study.condition import Condition
from fly64_nb.study.layout import Layout


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A study that thins a small measured scan: base and datasets of two noise seeds, made by their notebooks."""
    root = tmp_path_factory.mktemp("measured")
    base, study = builtin_base(150, 60, 8, window=48), root / "study"
    intensity = diffraction_intensity(base.object, base.probe, base.y, base.x)
    counts = photon_counts(intensity, 1e5, np.random.default_rng(0))
    np.savez(root / "scan.npz", data=counts, scan=np.stack([base.y, base.x], 1), probe=base.probe, pixel_size_m=2e-8)
    asked = {"profile": "tiny", "mode": "thin", "doses": (1e3,), "replicates": 2}
    prepared = prepare_study(study, Request(asked, root / "scan.npz"))
    done = run_job(prepared.job)
    assert done.status == "done", done.detail
    recovered_by = {"name": prepared.recovered_by.name, "source": prepared.recovered_by.source}
    write_study(study, prepared.design, read_base(study / "base.npz"), prepared.base_file, recovered_by)
    for seed in prepared.design.seeds:
        done = run_job(datasets_job(study, seed))
        assert done.status == "done", done.detail
    return study


def datasets_job(study: Path, seed: int) -> Job:
    """The job that makes the datasets of a noise seed's only dose."""
    return next(job for job in root_jobs(study, read_study(study)["design"], seed) if job.phase == "phase_c")


def test_replicates_share_the_base_and_count_other_photons(measured):
    record = read_study(measured)
    roots = study_roots(measured, record["design"])
    assert roots == {42: measured, 43: measured / "replicates" / "seed_43"}
    for name in ("base.npz", "study.json"):
        assert [path.parent for path in measured.rglob(name)] == [measured]  # one base, recovered once
    base = read_base(measured / "base.npz")
    assert record["base_digest"] == base.digest and base.counts is not None and base.pixel_size_m == 2e-8
    assert record["base_source"]["kind"] == "measured scan" and record["base_source"]["file"] == "scan.npz"
    assert record["design"].patch_size == 48  # the scan's own
    assert replicate_design(record["design"], 43).mode == "thin"
    condition = Condition(1e3, "baseline", "train")
    first, second = (validate_dataset_contract(Layout(root).dataset(condition)) for root in roots.values())
    for name in ("object", "probe", "y", "x", "scan_index"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    draws = [data.counts() for data in (first, second)]  # others, of the same measured counts
    assert not np.array_equal(*draws) and all((counts <= base.counts[first.scan_index]).all() for counts in draws)


def test_the_jobs_of_a_replicate_read_the_base_of_the_study(measured):
    frozen = read_study(measured)["design"]
    grown = replace(frozen, replicates=4)
    assert root_jobs(measured, grown, 43) == root_jobs(measured, frozen, 43)
    jobs = root_jobs(measured, grown, 45)
    assert {job.study for job in jobs} == {measured / "replicates" / "seed_45"}
    reads_base = [job for job in jobs if measured / "base.npz" in job.inputs]
    assert {job.phase for job in reads_base} == {"phase_c"}
    assert {job.parameters["base"] for job in reads_base} == {"../../base.npz"}
    assert {job.parameters["seed"] for job in reads_base} == {45}
    with pytest.raises(ValueError, match="seed 46: no such replicate; there are 42, 43, 44, 45"):
        root_jobs(measured, grown, 46)


def test_a_built_in_base_that_is_given_as_a_file_is_the_same(tmp_path):
    base, _ = make_base("tiny", 32)
    write_base(tmp_path / "base.npz", base)
    again, recovery = make_base("tiny", 32, file=tmp_path / "base.npz")
    assert (again.digest, again.source, recovery) == (base.digest, base.source, None)
    assert again.source["kind"] == "built-in base"


DOSES, SEEDS = (1e2, 1e3, 1e4, 1e5, 1e6), (42, 43)
MODELS = {"PINN": (0.92, 0.20, 0.02), "Supervised": (0.92, 0.20, 0.02), "LSQML": (1.0, 0.35, 0.06)}
MEASURED = (
    ("phase", "ms_ssim"), ("phase", "ms_ssim_published"), ("phase", "rmse"), ("amplitude", "ssim"),
    ("amplitude", "rmse"), ("complex", "frc50"),
)  # fmt: skip
TOO_FEW, REFUSED = (1e2, "overlap_00", "train"), (1e2, "overlap_00", "test", 43)


def made_up_metrics(condition: Condition, place: int, seed: int) -> pd.DataFrame:
    """Numbers of one condition: LSQML best at high dose and overlap, the two networks as good as each other."""
    rng = np.random.default_rng([int(condition.dose), place, len(condition.split), seed])
    rows = []
    for method, (top, few, sparse) in MODELS.items():
        q = top - few * (100 / condition.dose) ** 0.3 - sparse * place + 0.01 * (seed - 42) + rng.normal(0, 0.004)
        where = [condition.dose, condition.view, condition.split, seed, method]
        rows += [[*where, channel, metric, 1 - q if metric == "rmse" else q] for channel, metric in MEASURED]
    return pd.DataFrame(rows, columns=metrics_columns())


def made_up_images(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Truth and every method, as a comparison keeps them."""
    truth = np.exp(0.5j * np.random.default_rng(0).random((20, 30))).astype(np.complex64)
    images = {m: truth * np.exp(0.1j * rng.standard_normal(truth.shape)) for m in MODELS} | {"truth": truth}
    about = metadata_array({"field": [0, 0, 20, 30]})
    return images | {f"{m}_phase": np.angle(i) for m, i in images.items()} | {"_metadata": about}


def finish(job: Job, status: str = "done", notebook: bool = True) -> None:
    """A job's executed notebook, log and record, as small as they can be."""
    returncode, detail = (0, "") if status == "done" else (2, "made to fail")
    if status == "done" and notebook:
        cell = nbformat.v4.new_markdown_cell(f"{job.study.name} {job.title}")
        job.executed_notebook.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), job.executed_notebook)
    write_log(job, returncode, "", "")
    write_record(job, status, returncode=returncode, seconds=1.0, detail=detail)


def fill_root(study: Study, seed: int) -> None:
    """Everything that a noise seed of the wide study has."""
    layout, design, rng = study.layout(seed), study.design, np.random.default_rng(seed)
    for condition in design.without_split():
        target, place = design.overlap_targets.get(condition.view), design.views.index(condition.view)
        record = {"overlap_target": target, "spacing_px": 3.0 * place, "positions": 100, "acceptance_of_bound": 0.7}
        records = {split: dict(record) for split in design.splits}
        if (condition.dose, condition.view, "train") == TOO_FEW:
            records["train"]["skipped"] = "too few positions"
        write_json(layout.overlap_record(condition), records)
        finish(study.job(**condition.values(), split="test", of="D", seed=seed), notebook=False)
    for method, condition in itertools.product(study.methods, design.without_split()):
        if job := study.training(**condition.values(), method=method, seed=seed):
            finish(job)
    for condition in design.conditions:
        key, compared = (condition.dose, condition.view, condition.split), study.job(**condition.values(), seed=seed)
        if key == TOO_FEW:
            continue
        if (*key, seed) == REFUSED:
            finish(compared, "failed")
            continue
        rows = made_up_metrics(condition, design.views.index(condition.view), seed)
        compared.output_dir.mkdir(parents=True)
        rows.to_csv(layout.condition_metrics(condition), index=False)
        shown = condition.split == "test"  # the page shows the test split; fewer notebooks to render
        for of in ("G", *study.methods):
            finish(study.job(**condition.values(), of=of, seed=seed), notebook=shown)
        if shown and condition.dose in (1e2, 1e6):  # images of two doses are enough to see, and drawing takes the time
            write_npz(layout.aligned(condition), made_up_images(rng))


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """Five doses, six views, two seeds: numbers, images, notebooks, logs and manifests as a study has them, made up."""
    root, overlaps = tmp_path_factory.mktemp("wide") / "study", parse_overlaps("0,0.2,0.5,0.7,0.9")
    design = with_methods(get_study_design("tiny", doses=DOSES, overlap_targets=overlaps, replicates=2))
    base, _ = make_base(design.profile, design.patch_size)
    write_study(root, design, base)
    write_base(root / "base.npz", base)
    study = open_study(root)
    for seed in SEEDS:
        fill_root(study, seed)
    write_phases(root, design, [result for _, result in study.records()])
    return root


def test_the_table_is_gathered_over_replicates_in_a_fixed_order(wide):
    design, table = read_study(wide)["design"], study_metrics(wide)
    assert list(table.columns) == metrics_columns() and not table.duplicated(metrics_columns()[:-1]).any()
    found = list(table[["dose", "view", "split", "seed"]].drop_duplicates().itertuples(index=False, name=None))
    keys = [(c.dose, c.view, c.split) for c in design.conditions]
    assert found == [(*key, s) for key in keys for s in SEEDS if key != TOO_FEW and (*key, s) != REFUSED]
    pd.testing.assert_frame_equal(pd.read_csv(wide / "metrics.csv"), table)
    pd.testing.assert_frame_equal(open_study(wide).metrics, table)


def test_numbers_are_means_over_seeds_with_their_sample_deviation(wide):
    table = study_metrics(wide)
    rows = table.query("channel == 'phase' and metric == 'ms_ssim' and split == 'test'")
    rows = rows.set_index(["dose", "view", "method", "seed"])["value"].sort_index()
    shown = headline(table)
    assert list(shown.columns) == [
        "phase MS-SSIM",
        "± phase MS-SSIM",
        "phase MS-SSIM (published convention)",
        "phase RMSE (rad)",
        "± phase RMSE (rad)",
        "amplitude SSIM",
        "amplitude RMSE",
        "FRC50 (1/px)",
        "seeds",
    ]
    assert list(shown.index) == [(d, v, m) for d in DOSES for v in read_study(wide)["design"].views for m in MODELS]
    for key in shown.index:
        assert shown.loc[key, "phase MS-SSIM"] == pytest.approx(rows[key].mean(), abs=1e-4)
        alone = key[:2] == (1e2, "overlap_00")
        assert shown.loc[key, "seeds"] == (1 if alone else 2)
        assert (
            np.isnan(shown.loc[key, "± phase MS-SSIM"])
            if alone
            else shown.loc[key, "± phase MS-SSIM"] == pytest.approx(rows[key].std(ddof=1), abs=1e-4)
        )
    mean, spread = (f(table, "ms_ssim", "phase", "LSQML", "test") for f in (pivot, pivot_spread))
    assert mean.shape == spread.shape == (5, 6) and spread.isna().sum().sum() == 1
    one = headline(table[table["seed"] == 42])
    assert list(one.columns) == [c for c in shown.columns if c != "seeds" and not c.startswith("±")]


def test_a_lead_within_noise_is_not_decided(wide):
    table = study_metrics(wide)
    leads = best_method(table)
    assert len(leads) == 30 and leads.index.is_unique
    assert leads.loc[(1e6, "baseline"), "best"] == "LSQML" and leads.loc[(1e6, "baseline"), "decided"] is True
    assert leads.loc[(1e2, "overlap_00"), "decided"] is None and leads.loc[(1e2, "overlap_00"), "seeds"] == 1
    assert not leads["decided"].drop((1e2, "overlap_00")).all()  # the two networks are the same but for noise
    assert (leads["margin"].dropna() >= 0).all()
    worst = best_method(table, "rmse", lower=True)  # 1 - quality here: the same order
    assert (worst["best"] == leads["best"]).all() and np.allclose(worst["margin"], leads["margin"])
    # the luck that all methods of a seed share (0.01 here) is no part of the error of their difference
    rows = table.query(
        "dose == 1e6 and view == 'baseline' and metric == 'ms_ssim' and channel == 'phase' and split == 'test'"
    )
    by_hand = rows.pivot(index="seed", columns="method", values="value")
    difference = by_hand["LSQML"] - by_hand[leads.loc[(1e6, "baseline"), "runner-up"]]
    assert leads.loc[(1e6, "baseline"), "standard error"] == pytest.approx(difference.std(ddof=1) / 2**0.5)


def test_a_lone_method_has_no_runner_up():
    table = pd.DataFrame(
        [[1e3, "baseline", "test", s, "LSQML", "phase", "ms_ssim", 0.9] for s in SEEDS], columns=metrics_columns()
    )
    row = best_method(table).iloc[0]
    assert row["runner-up"] is None and row["decided"] is None and np.isnan(row["margin"])


def test_the_report_of_a_wide_study_has_every_seed_and_no_dead_link(wide):
    job = build_report_job(wide)
    names = {str(p.relative_to(wide)) for p in job.inputs}
    assert {
        "phase_g/comparison_manifest.json",
        "replicates/seed_43/phase_g/comparison_manifest.json",
        "replicates/seed_43/phase_d/skip_summary.json",
    } <= names
    done = run_job(job)
    assert done.status == "done", done.detail
    page = publish_report(wide, quarto="").page
    text = "".join(one.read_text() for one in sorted(page.parent.glob("*.html")))
    local = [h for h in re.findall(r'href="([^"]*)"', text) if not h.startswith(("#", "http", "data:"))]
    assert not [h for h in local if not (page.parent / h.split("#")[0]).exists()]
    of_second = {
        kind: sum(h.startswith(f"replicates/seed_43/{kind}/") for h in local) for kind in ("notebooks", "logs")
    }
    assert of_second["notebooks"] > 100 and of_second["logs"] > 90
    compared = page.parent / "replicates/seed_43/notebooks/phase_g/dose_100/baseline_test.html"
    assert "seed_43 phase_g/dose_100/baseline_test" in compared.read_text()
    assert "within the noise of 2 seeds" in text and 'class="cell noise"' in text and "made to fail" in text
    assert "means over 2 whole replicates (seeds 42, 43), each trained anew" in text
    pictures = {p.name for p in (wide / "report" / "figures").iterdir()}
    assert {"curves_ms_ssim.svg", "phase_dose_100.svg", "phase_error_dose_1000000.svg"} <= pictures
    assert "phase_dose_1000.svg" not in pictures


def test_the_tables_of_a_wide_study(wide):
    study = open_study(wide)
    rows = BeautifulSoup(headline_html(study), "html.parser").find("tbody").find_all("tr")
    assert len(rows) == 90 and " ± " in rows[3].get_text()
    links = [{a["href"] for a in row.find_all("a")} for row in rows]
    training = "replicates/seed_43/notebooks/phase_e/dose_100/overlap_90_PINN.html"
    assert any(training in those for those in links)
    key = lambda row: [c.get_text() for c in row.find_all(["th", "td"])][:2]
    alone = [those for row, those in zip(rows, links) if key(row) == ["100", "overlap_00"]]
    assert len(alone) == 3 and not any("seed_43" in link for those in alone for link in those)  # not made, no link
    evidence = BeautifulSoup(evidence_html(study), "html.parser")
    assert [th.get_text() for th in evidence.find("thead").find_all("th")] == ["job", "seed 42", "seed 43"]
    row = next(tr for tr in evidence.find_all("tr") if tr.find("th").get_text() == "phase_g/dose_100/overlap_00_test")
    failed = row.find_all("td")[1]
    assert failed.get_text() == "failed, 1.0 s, log"
    assert failed.find("a")["href"].startswith("replicates/seed_43/logs/")


def test_what_a_wide_study_lacks_has_its_reason(wide):
    study = open_study(wide)
    assert left_out(study) == [
        "phase_d/dose_100/overlap_00_train: too few positions (seed 42, 43)",
        "phase_g/dose_100/overlap_00_test failed (return code 2): made to fail (seed 43)",
    ]
    assert study.missing(1e2, "overlap_00", "test", "LSQML", seed=43) == "failed: made to fail"
    assert study.missing(1e2, "overlap_00", "train", "LSQML") == "left out: too few positions"
    assert study.missing(1e2, "baseline", "test", "LSQML") == "not made yet"
    overlaps = overlap_table(study)
    assert list(overlaps["view"].unique()) == list(study.design.views) and len(overlaps) == 12
    assert list(overlaps.loc[overlaps["skipped"] != "", ["view", "split"]].iloc[0]) == ["overlap_00", "train"]


def test_overlaps_from_text():
    assert parse_overlaps("0,0.2,0.5,0.7,0.9") == {
        "overlap_00": 0,
        "overlap_20": 0.2,
        "overlap_50": 0.5,
        "overlap_70": 0.7,
        "overlap_90": 0.9,
    }
    assert parse_overlaps("dense=0.7, 0.125") == {"dense": 0.7, "overlap_12p5": 0.125}
    for hundredth in range(100):
        assert parse_overlaps(f"{hundredth / 100}") == {f"overlap_{hundredth:02d}": hundredth / 100}
    for wrong in (
        "",
        "0.2,",
        "x",
        "1",
        "-0.1",
        "inf",
        "a=b",
        "a b=0.2",
        "baseline=0.2",
        "a=0.1,a=0.2",
        "0.2,0.2",
        "a=0.2,0.2",
        "../up=0.2",
    ):
        with pytest.raises(ValueError, match="overlaps: "):
            parse_overlaps(wrong)
