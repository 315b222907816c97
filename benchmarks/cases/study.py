"""Where a whole study's time goes: by phase, what computes and what does not, read from its records and executed notebooks."""
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

PHASES = {"a": "design", "b": "contract", "c": "datasets", "d": "overlap", "e": "training", "f": "LSQML", "g": "comparison", "h": "report"}
FOLDER = tempfile.TemporaryDirectory()                         # goes with the process


def kind_of(source: str) -> str:
    """What a notebook's cell is for: those that do the job ask for the study, or report the progress of an epoch."""
    if "if study:" in source or "if study else make" in source or "report_progress(" in source:
        return "computing"
    return "pictures" if "figures." in source or "plt." in source else "examples and checks"


def seconds_of(record: Path) -> Counter:
    """Seconds of one job by kind; what lies outside its cells is starting, reading and writing the notebook, and digests."""
    known = json.loads(record.read_text(encoding="utf-8"))
    notebook = json.loads(record.with_suffix(".ipynb").read_text(encoding="utf-8"))
    parts: Counter = Counter()
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            parts[kind_of("".join(cell["source"]))] += cell["metadata"].get("papermill", {}).get("duration") or 0.0
    parts["around the cells"] = max(0.0, known["seconds"] - sum(parts.values()))
    return parts + Counter({"wall": known["seconds"], "cpu": known.get("cpu_s", 0.0)})


def phase_case(name: str, records: list[Path]) -> Case:
    """Wall seconds of a phase's jobs, against the seconds in the cells that do the job."""
    total: Counter = sum((seconds_of(record) for record in records), Counter())
    memory = max(json.loads(record.read_text(encoding="utf-8")).get("max_rss_gb", 0.0) for record in records)
    rest = ", ".join(f"{kind} {total[kind]:.1f} s" for kind in ("examples and checks", "pictures", "around the cells"))
    return Case(name, lambda: total["wall"], f"{len(records)} jobs", bound=total["computing"], peer_name="cells that do the job", unit="s of jobs",
                repeats=1,
                warm_up=False, note=f"{total['cpu']:.1f} CPU s; {rest}; at most {memory:.2f} GB a job")


def finished(study: Path) -> list[Path]:
    """Records of the jobs that are done."""
    return [path for path in sorted((study / "notebooks").rglob("*.json"))
            if path.with_suffix(".ipynb").is_file() and json.loads(path.read_text(encoding="utf-8")).get("status") == "done"]


def run_quick() -> tuple[Path, float]:
    """A quick study of its own, and the seconds that it took."""
    study, began = Path(FOLDER.name) / "quick", time.perf_counter()
    command = [sys.executable, "-c", "from fly64_nb.core.cli import app; app()", "run", str(study), "--profile", "quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"fly64 run ended with {done.returncode}: {(done.stdout.strip().splitlines() or [''])[-1]}")
    return study, time.perf_counter() - began


def cases(full: bool, gpu: bool) -> list[Case]:
    given, made = os.environ.get("FLY64_BENCH_STUDY"), []
    if not given and not full:
        return [Case("a whole study", None, note="no study to look into: --study PATH names a finished one, --full runs a quick one")]
    study, wall = (Path(given), None) if given else run_quick()
    records = finished(study)
    if not records:
        raise RuntimeError(f"{study.name} has no finished jobs")
    if wall:
        made.append(Case("quick study, from nothing", lambda: wall, f"{os.cpu_count()} workers", unit="s of wall time", repeats=1, warm_up=False))
    by_phase = {letter: [r for r in records if f"phase_{letter}" in r.relative_to(study).parts] for letter in PHASES}
    made += [phase_case(f"{letter.upper()} {PHASES[letter]}", found) for letter, found in by_phase.items() if found]
    return [*made, phase_case("all phases", records)]
