"""What the engine costs: a job that computes nothing, warm and in a new kernel; planning many. `engine.py` has more."""

from __future__ import annotations

import tempfile
from pathlib import Path

from case import Case
from engine import KINDS, in_engine, in_new_kernel, job

from fly64_nb.engine.fork import WarmParent
from fly64_nb.engine.graph import plan_jobs
from fly64_nb.engine.job import Job

FOLDER, PARENT = tempfile.TemporaryDirectory(), WarmParent()  # both go with the process


def plan(count: int) -> list[Job]:
    """Jobs in a graph like a study's: of every ten, one that the other nine wait for, and the last of them for all."""
    root = Path(FOLDER.name)
    notebook = job(root, "nothing", "").notebook
    reads = lambda i: [] if i % 10 == 0 else range(i - 9, i) if i % 10 == 9 else [i - i % 10]
    return [
        Job(
            "phase_x",
            f"j{i}",
            notebook,
            root,
            {"name": f"j{i}"},
            tuple(root / f"j{r}.txt" for r in reads(i)),
            (root / f"j{i}.txt",),
            root / f"j{i}.log",
        )
        for i in range(count)
    ]


def cases(full: bool, gpu: bool) -> list[Case]:
    made = []
    for kind in KINDS if full else ("empty", "comparison"):
        one = job(Path(FOLDER.name), kind, KINDS[kind])
        made.append(
            Case(
                f"a job without work, {kind}",
                lambda one=one: in_engine(one, PARENT),
                "in a warm parent",
                lambda one=one: in_new_kernel(one),
                "papermill in a new kernel",
                repeats=5 if full else 3 if kind == "empty" else 1,
            )
        )
    count = 10_000 if full else 1_000
    jobs = plan(count)
    return [
        *made,
        Case("planning", lambda: plan_jobs(jobs), f"{count:,} jobs, none done", items=count, item="jobs", repeats=3),
    ]
