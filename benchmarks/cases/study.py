"""Where a study's time goes: by phase, what computes and what does not, from its records and executed notebooks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from case import Case

from fly64_nb.results.plan import PHASES
from fly64_nb.results.study import open_study, report_job
from fly64_nb.engine.job import Job
from fly64_nb.engine.record import read_record

FOLDER = tempfile.TemporaryDirectory()  # goes with the process
COMPUTES = ("if study:", "report_progress(", "open_study(")
DRAWS = ("images.", "curves.", "scans.", "picture(", "plt.")


def kind_of(source: str) -> str:
    """What a notebook's cell is for: those that do the job ask for the study, or report the progress of an epoch."""
    if source.startswith("#| "):
        return "definitions"
    if any(word in source for word in COMPUTES):
        return "computing"
    return "pictures" if any(word in source for word in DRAWS) else "other cells"


def seconds_of(job: Job) -> Counter:
    """Seconds of one job by kind; what lies outside its cells is starting, reading and writing it, and digests."""
    record = read_record(job) or {}
    notebook = json.loads(job.executed_notebook.read_text(encoding="utf-8"))
    parts: Counter = Counter()
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            parts[kind_of("".join(cell["source"]))] += cell["metadata"].get("papermill", {}).get("duration") or 0.0
    parts["around the cells"] = max(0.0, record["seconds"] - sum(parts.values()))
    return parts + Counter({"wall": record["seconds"], "cpu": record.get("cpu_s", 0.0)})


def phase_case(name: str, jobs: list[Job]) -> Case:
    """Wall seconds of a phase's jobs, against the seconds in the cells that do the job."""
    total: Counter = sum(map(seconds_of, jobs), Counter())
    memory = max((read_record(job) or {}).get("max_rss_gb", 0.0) for job in jobs)
    kinds = ("definitions", "pictures", "other cells", "around the cells")
    rest = ", ".join(f"{kind} {total[kind]:.1f} s" for kind in kinds)
    return Case(
        name,
        lambda: total["wall"],
        f"{len(jobs)} jobs",
        bound=total["computing"],
        peer_name="cells that do the job",
        unit="s of jobs",
        repeats=1,
        warm_up=False,
        note=f"{total['cpu']:.1f} CPU s; {rest}; at most {memory:.2f} GB a job",
    )


def finished(path: Path) -> list[Job]:
    """Jobs of a study that are done."""
    study = open_study(path)
    jobs = [*(result.job for _, result in study.records()), report_job(study.path)]
    return [job for job in jobs if job.executed_notebook.is_file() and (read_record(job) or {}).get("status") == "done"]


def run_quick() -> tuple[Path, float]:
    """A quick study of its own, and the seconds that it took."""
    study, began = Path(FOLDER.name) / "quick", time.perf_counter()
    code = "from fly64_nb.cli import app; app()"
    command = [sys.executable, "-c", code, "run", str(study), "--profile", "quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"fly64 run ended with {done.returncode}: {(done.stdout.strip().splitlines() or [''])[-1]}")
    return study, time.perf_counter() - began


def cases(full: bool, gpu: bool) -> list[Case]:
    given, made = os.environ.get("FLY64_BENCH_STUDY"), []
    if not given and not full:
        note = "no study to look into: --study PATH names a finished one, --full runs a quick one"
        return [Case("a whole study", None, note=note)]
    study, wall = (Path(given), None) if given else run_quick()
    jobs = finished(study)
    if not jobs:
        raise RuntimeError(f"{study.name} has no finished jobs")
    if wall:
        workers, once = f"{os.cpu_count()} workers", {"repeats": 1, "warm_up": False}
        made.append(Case("quick study, from nothing", lambda: wall, workers, unit="s of wall time", **once))
    by_phase = {phase: [job for job in jobs if job.phase == phase] for phase in PHASES}
    made += [phase_case(PHASES[phase], found) for phase, found in by_phase.items() if found]
    return [*made, phase_case("all phases", jobs)]
