"""A small graph of real jobs for the tests of engine/: nine notebooks that hash what they read.

``python graph.py ROOT OPTIONS`` runs it in a process of its own, which a test can then kill. OPTIONS is JSON: `seconds`
that each job takes, `modes` by job name (``fail``, ``fail once``, ``leave out``, ``segfault``, ``memory``, ``sleep``),
and arguments of `Runner`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from fly64_nb.engine.cluster import Runner
from fly64_nb.engine.graph import Limits, plan_jobs
from fly64_nb.engine.job import Job, JobResult

PARAMETERS = "name = ''\nreads = []\nsettings = {'seconds': 0.0}\nmode = ''"
EXAMPLE = "raise RuntimeError('an example is no part of a job')"
BODY = """import ctypes, hashlib, os, pathlib, sys, time
from fly64_nb.engine.fork import report_progress
from fly64_nb.engine.inputs import LeftOutError

report_progress(1, 2, "half", value=0.5)
print("".join(f"\\r{percent}%" for percent in range(0, 101, 10)), file=sys.stderr)
time.sleep(settings["seconds"])
tried = pathlib.Path(f"{name}.tried")
tried.write_text((tried.read_text() if tried.exists() else "") + "x")
assert mode != "fail" and (mode != "fail once" or len(tried.read_text()) > 1), "told to fail"
if mode == "leave out":
    raise LeftOutError("too few positions: 9 of 140")
if mode == "segfault":
    ctypes.string_at(0)
if mode == "memory":
    hoard = [bytearray(os.urandom(1) * 50_000_000) for _ in range(20)]
    time.sleep(60)
if mode == "sleep":
    time.sleep(600)
text = "".join(pathlib.Path(p).read_text() for p in reads)
pathlib.Path(f"{name}.txt").write_text(hashlib.sha256((name + text).encode()).hexdigest() + " " * 2000)
print(name, "made, gpu", os.environ.get("CUDA_VISIBLE_DEVICES"))
print("parent", os.getppid())"""
NAMES = {"a": 4, "b": 3, "c": 1, "d": 1}


def build(root: Path, seconds: float = 0.0, modes: Mapping[str, str] = {}, gpu: Sequence[str] = ()) -> list[Job]:
    """a0..a3 read base.txt; b0..b2 read two of them each; c reads b0..b2; d stands alone."""
    root = Path(root).resolve()
    root.mkdir(parents=True, exist_ok=True)
    notebook = root / "work.ipynb"
    if not notebook.exists():
        cells = [
            new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            new_code_cell(EXAMPLE, metadata={"tags": ["example"]}),
            new_code_cell(BODY),
        ]
        nbformat.write(
            new_notebook(
                cells=cells,
                metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python"}},
            ),
            notebook,
        )
        (root / "base.txt").write_text("base")
    reads = {
        **{f"a{i}": ["base"] for i in range(4)},
        **{f"b{i}": [f"a{i}", f"a{i + 1}"] for i in range(3)},
        "c": ["b0", "b1", "b2"],
        "d": ["base"],
    }
    return [
        Job(
            phase=f"phase_{name[0]}",
            name=name,
            notebook=str(notebook),
            study=root,
            inputs=tuple(root / f"{r}.txt" for r in sources),
            parameters={
                "name": name,
                "reads": [f"{r}.txt" for r in sources],
                "settings": {"seconds": seconds},
                "mode": modes.get(name, ""),
            },
            outputs=(root / f"{name}.txt",),
            log_path=root / "logs" / f"{name}.log",
            memory_gb=0.1,
            gpu=name in gpu,
        )
        for name, sources in reads.items()
    ]


def go(
    root: Path,
    seconds: float = 0.0,
    modes: Mapping[str, str] = {},
    gpu: Sequence[str] = (),
    limits: Limits | None = None,
    on_result=lambda result: None,
    **options,
) -> dict[str, JobResult]:
    """Run the graph; results by job name."""
    jobs = build(root, seconds, modes, gpu)
    with Runner(Path(root), "graph.py", limits=limits or Limits(), **options) as runner:
        return {result.job.name: result for result in runner.run(plan_jobs(jobs), on_result)}


def numbers(root: Path) -> dict[str, str]:
    """What the graph's jobs wrote."""
    return {path.name: path.read_text() for path in sorted(Path(root).glob("[a-d]*.txt")) if path.name != "base.txt"}


if __name__ == "__main__":
    chosen = json.loads(sys.argv[2])
    ended = go(
        Path(sys.argv[1]),
        limits=Limits(**chosen.pop("limits", {})),
        on_result=lambda result: print(result.job.name, result.status, flush=True),
        **chosen,
    )
    sys.exit(any(r.status == "failed" for r in ended.values()))
