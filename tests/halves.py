"""A result of `fly64 resolve` in a made-up study, quickly: for tests of what reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nbformat

from fly64_nb.engine.record import code_of, ingredients, record_done
from fly64_nb.methods.likelihood.common import trial_dataset
from fly64_nb.methods.method import settings_of
from fly64_nb.methods.ml import ML
from fly64_nb.quality.alignment import common_field
from fly64_nb.results.resolve import Resolved, maker, resolve_dataset, write_resolved
from fly64_nb.results.resolve_jobs import resolve_job
from fly64_nb.results.study import open_study


def write_halves(root: Path, dose: float, view: str, split: str, method: str) -> Resolved:
    """Halves of a small chip, as if they were a study's: files, executed notebook and record of the job."""
    study = open_study(root)
    condition = study.condition(dose, view, split)
    chip, few = trial_dataset(1e4, spacing=8, size=48), {"iterations": 10}
    chip = replace(chip, metadata={**chip.metadata, "pixel_size_m": 10e-9})
    field, make = common_field([(chip.y, chip.x)], chip.object.shape), maker(ML, settings_of(ML, "quick", few))
    title = f"{method}: {condition}"
    found = resolve_dataset(chip, make, field, method=method, title=title, deals=1, truth=chip.object)
    job = resolve_job(study, condition, method, deals=1)
    write_resolved(job.output_dir, found)
    job = replace(job, inputs=())  # a made-up study has no reconstructions
    job.log_path.write_text("as if it had been run")
    job.executed_notebook.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(), job.executed_notebook)
    record_done(job, ingredients(job, code_of(job)), seconds=1.0)
    return found
