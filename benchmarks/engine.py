"""What the engine costs: overhead of a job, cold and warm; and a plan of 10,000 jobs that do nothing.

    python benchmarks/engine.py [--jobs 10000]

Overhead is wall time less the time inside the notebook's own cells that compute. It is measured on an empty notebook,
and on one that imports what LSQML, training and comparison import: in a new kernel (papermill as it comes), in a new
Python without a kernel (`--cold`), and in a child of a warm parent.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from fly64_nb.engine.cluster import Run, local_cluster, run_plan
from fly64_nb.engine.fork import WarmParent, environment
from fly64_nb.engine.graph import plan_jobs, run_job
from fly64_nb.engine.job import Job, JobResult
from fly64_nb.engine.record import code_key, ingredients, record_done

KINDS = {
    "empty": "",
    "LSQML": "import fly64_nb.reconstruction, fly64_nb.methods.ptychi.fast_lsqml, fly64_nb.show.images",
    "training": "import fly64_nb.training, fly64_nb.methods.networks.patch_networks, fly64_nb.show.curves",
    "comparison": "import fly64_nb.comparison, torchmetrics.functional.image, fly64_nb.show.images",
}


def job(root: Path, name: str, code: str, reads: tuple[str, ...] = ()) -> Job:
    """A job whose notebook imports something, and writes one file."""
    path = root / f"{name}.ipynb"
    cells = [
        new_code_cell("name = ''", metadata={"tags": ["parameters"]}),
        new_code_cell(f"{code}\nopen(f'{{name}}.txt', 'w').write(name)"),
    ]
    nbformat.write(
        new_notebook(
            cells=cells, metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python"}}
        ),
        path,
    )
    imports = tuple(code.removeprefix("import ").split(", ")) if code else ()
    return Job(
        "phase_x",
        name,
        str(path),
        root,
        {"name": name},
        tuple(root / r for r in reads),
        (root / f"{name}.txt",),
        root / f"{name}.log",
        imports=imports,
    )


def in_new_kernel(one: Job) -> None:
    """A job as papermill runs it on its own."""
    one.executed_notebook.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *one.command[1:]]
    subprocess.run(command, cwd=one.study, check=True, capture_output=True, env=environment())


def in_engine(one: Job, parent: WarmParent | None = None) -> None:
    """A job as the engine runs it: in a child of a warm parent, or without one in a new Python."""
    assert run_job(one, parent).status == "done"


def seconds(call: Callable[..., None], *arguments: Any) -> float:
    """Wall time of a call."""
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def overhead() -> None:
    """Seconds of a job that computes nothing, in three ways."""
    following = "warm, next (min / median / max of 5)"
    print(f"{'kind':12}{'new kernel':>12}{'new Python':>12}{'warm, first':>13}{following:>40}")
    for kind, code in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            one = job(Path(folder), kind, code)
            kernel, cold = seconds(in_new_kernel, one), seconds(in_engine, one)
            parent = WarmParent()
            times = [seconds(in_engine, one, parent) for _ in range(6)]
            parent.stop()
            first, *rest = times
            warm = f"{min(rest):>20.2f} / {statistics.median(rest):.2f} / {max(rest):.2f} s"
            print(f"{kind:12}{kernel:>10.2f} s{cold:>10.2f} s{first:>11.2f} s{warm}")


def nothing(one: Job, run: Run, *upstream: JobResult) -> JobResult:
    """A task that does nothing."""
    return JobResult(one, "done")


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def many(count: int) -> None:
    """A plan of `count` jobs in a graph like a study's.

    Of every ten, one that the other nine wait for, and the last of them for all.
    """
    from distributed import Client

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        first = job(root, "nothing", "")
        jobs = []
        for i in range(count):
            block, place = i - i % 10, i % 10
            reads = [] if not place else range(block, i) if place == 9 else [block]
            jobs.append(
                Job(
                    "phase_x",
                    f"j{i}",
                    first.notebook,
                    root,
                    {"name": f"j{i}"},
                    tuple(root / f"j{r}.txt" for r in reads),
                    (root / f"j{i}.txt",),
                    root / f"j{i}.log",
                )
            )
        before, began = peak_mb(), time.perf_counter()
        plan = plan_jobs(jobs)
        took, more = time.perf_counter() - began, peak_mb() - before
        print(f"plan of {count} jobs, none done: {took:.2f} s, {more:.0f} MB more in this process")
        with local_cluster(2) as cluster, Client(cluster) as client:
            client.run(lambda: None)
            before, began = peak_mb(), time.perf_counter()
            results = run_plan(plan, Run(root, "1"), client, task=nothing)
            took = time.perf_counter() - began
            assert len(results) == count and all(r.status == "done" for r in results)
            print(
                f"run on 2 workers: {took:.1f} s, {took / count * 1e3:.2f} ms a job, "
                f"{peak_mb() - before:.0f} MB more in the process that holds scheduler and client"
            )
        for one in jobs:
            one.outputs[0].write_text(one.name)
            one.executed_notebook.parent.mkdir(parents=True, exist_ok=True)
            one.executed_notebook.write_text("{}")
        code = {"code": "1"}
        for one in jobs:
            record_done(one, ingredients(one, code), seconds=0.1)
        began = time.perf_counter()
        plan = plan_jobs(jobs, {code_key(one): code for one in jobs})
        assert not plan.reasons
        print(f"plan of {count} jobs, all up to date: {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    chosen = parser.parse_args()
    overhead()
    many(chosen.jobs)
