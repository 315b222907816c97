"""Every benchmark, one table: ours, a peer or a bound, and the ratio of the two.

    python benchmarks/suite.py [--full] [--gpu] [--only NAME ...] [--study PATH] [--output FILE.md]

Each file in `cases/` runs in a process of its own, with one thread a library; ours and the peer are called in turn.
The ratio is that of the medians, and in brackets that of the fastest calls; below 1, ours takes less. It is no test:
a case that raises, or whose peer is not installed, is a row that says so.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from case import measure

CASES = Path(__file__).parent / "cases"
LIBRARIES = ("numpy", "scipy", "torch", "torchmetrics", "ptychi", "tensorflow", "keras", "scikit-image", "h5py")
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ),
    "1",
)
SCALES = {"s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))}
MARK = "benchmark row: "  # of a child's lines, the parent reads those that begin so


def send(record: dict[str, Any]) -> None:
    """Give a row, or the beginning of one, to the parent."""
    print(MARK + json.dumps(record), flush=True)


def run_file(name: str, full: bool, gpu: bool) -> None:
    """Run the cases of one file in this process, and send a row for each."""
    try:
        found = importlib.util.spec_from_file_location(f"cases.{name}", CASES / f"{name}.py")
        module = sys.modules[found.name] = importlib.util.module_from_spec(found)  # dataclasses look their module up
        found.loader.exec_module(module)
        cases = module.cases(full, gpu)
    except Exception as error:
        traceback.print_exc()
        send({"case": "all of it", "error": f"{type(error).__name__}: {error}"})
        return
    for number, case in enumerate(cases):
        send({"begins": case.name, "number": number, "of": len(cases)})
        send(measure(case, 60.0 if full else 4.0))


def rows_of(name: str, arguments: argparse.Namespace, gpu: bool) -> Iterator[dict[str, Any]]:
    """What a process of its own sends about the cases of a file, as it comes."""
    environment = {
        **os.environ,
        **ONE_THREAD,
        "PYTHONHASHSEED": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "FLY64_BENCH_STUDY": arguments.study or "",
    }
    if not gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        "--child",
        name,
        *(["--full"] if arguments.full else []),
        *(["--gpu"] if gpu else []),
    ]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as child,
    ):
        for line in child.stdout:
            if line.startswith(MARK):
                yield json.loads(line.removeprefix(MARK))
        if child.wait():
            errors.seek(0)
            last = (errors.read().strip().splitlines() or [""])[-1]
            yield {"case": "what was left of it", "error": f"the process ended with {child.returncode}: {last}"}


def version(name: str) -> str:
    """Version of a distribution; TensorFlow has two names."""
    for distribution in (name, f"{name}-cpu"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "not installed"


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def gpu_name() -> str:
    """Name of the GPU that PyTorch finds, or nothing."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()


def heading(full: bool, asked_gpu: bool, gpu: str) -> list[str]:
    """Date, machine and versions."""
    import psutil

    lines = [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, {'full' if full else 'default'} form",
        f"{processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GB; "
        f"load at the beginning {os.getloadavg()[0]:.1f}; one thread a library",
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
    ]
    if asked_gpu:
        lines.append(f"GPU: {gpu}" if gpu else "GPU: PyTorch finds none here, so everything ran on the CPU")
    return lines


def numbers(values: list[float], unit: str) -> str:
    """``min / median / max unit``, or one number if that is all there is."""
    if not values:
        return "-"
    middle = statistics.median(values)
    factor, name = next(
        ((f, n) for f, n in SCALES.get(unit, ((1.0, unit),)) if middle >= f), SCALES.get(unit, ((1.0, unit),))[-1]
    )
    shown = [middle] if len(values) == 1 else [min(values), middle, max(values)]
    return " / ".join(f"{v / factor:,.0f}" if v / factor >= 999.5 else f"{v / factor:.3g}" for v in shown) + f" {name}"


def ratio(ours: list[float], peer: list[float]) -> str:
    """Ratio of medians, and of the smallest values where there are several."""
    if not ours or not peer or not statistics.median(peer):
        return "-"
    text = f"{statistics.median(ours) / statistics.median(peer):.2f}"
    return text if len(ours) == 1 else f"{text} ({min(ours) / min(peer):.2f})"


def columns(row: dict[str, Any]) -> list[str]:
    """A row of the table as text."""
    if "ours" not in row:
        return [row["file"], row["case"], "", "-", "", "-", "-", row["error"]]
    rate = (
        f"{row['items'] / statistics.median(row['ours']):,.0f} {row['item']}/s"
        if row["items"] and row["ours"] and row["unit"] == "s"
        else ""
    )
    remark = "; ".join(t for t in (rate, row["note"], row["error"].strip()) if t)
    return [
        row["file"],
        row["case"],
        row["size"],
        numbers(row["ours"], row["unit"]),
        row["peer_name"],
        numbers(row["peer"], row["unit"]),
        ratio(row["ours"], row["peer"]),
        remark,
    ]


TITLES = [
    "file",
    "case",
    "size",
    "ours: min / median / max",
    "peer or bound",
    "its min / median / max",
    "ratio",
    "remarks",
]


def markdown(head: list[str], rows: list[dict[str, Any]]) -> str:
    """The table as a Markdown document."""
    cells = lambda row: "| " + " | ".join(text.replace("|", "\\|") for text in row) + " |"
    lines = [
        "# Benchmarks",
        "",
        *(f"- {line}" for line in head),
        "",
        " ".join(__doc__.split("\n\n")[-1].split()),
        "",
        cells(TITLES),
        "|" + "---|" * len(TITLES),
    ]
    return "\n".join([*lines, *(cells(columns(row)) for row in rows)]) + "\n"


def show(console: Any, head: list[str], rows: list[dict[str, Any]]) -> None:
    """The table on a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="\n".join(head), title_justify="left", show_lines=False)
    for title in TITLES:
        table.add_column(title, overflow="fold", justify="right" if title == "ratio" else "left")
    before = None
    for row in rows:
        if before not in (None, row["file"]):
            table.add_section()
        name, before = "" if row["file"] == before else row["file"], row["file"]
        table.add_row(name, *map(Text, columns(row)[1:]), style="red" if row["error"] else None)
    console.print(table)


def run(arguments: argparse.Namespace) -> None:
    """Run the files, show the table, write it if asked."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    names = sorted(path.stem for path in CASES.glob("*.py"))
    unknown = set(arguments.only) - set(names)
    if unknown:
        raise SystemExit(f"--only {' '.join(sorted(unknown))}: there are {', '.join(names)}")
    console = Console(width=None if sys.stdout.isatty() else 220)
    gpu = gpu_name() if arguments.gpu else ""
    head, rows, took = heading(arguments.full, arguments.gpu, gpu), [], {}
    chosen = [name for name in names if not arguments.only or name in arguments.only]
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task("", total=None)
        for place, name in enumerate(chosen):
            progress.update(task, description=f"{place + 1}/{len(chosen)} {name}")
            began = time.perf_counter()
            for row in rows_of(name, arguments, bool(gpu)):
                if "begins" in row:
                    case = f"{row['number'] + 1}/{row['of']} {row['begins']}"
                    progress.update(task, description=f"{place + 1}/{len(chosen)} {name}: {case}")
                else:
                    rows.append({"file": name, **row})
            took[name] = time.perf_counter() - began
    head.append(
        f"{len(rows)} cases in {sum(took.values()):.0f} s: "
        + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in took.items())
    )
    show(console, head, rows)
    if arguments.output:
        arguments.output.write_text(markdown(head, rows), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="larger sizes, more repeats, and a quick study of its own")
    parser.add_argument("--gpu", action="store_true", help="the same with the GPU where a case can use it")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="files of cases/, without the ending")
    parser.add_argument(
        "--study", metavar="PATH", help="a finished study, whose time and memory are broken down by phase"
    )
    parser.add_argument("--output", type=Path, metavar="FILE.md", help="write the table as Markdown, too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        run_file(chosen.child, chosen.full, chosen.gpu)
    else:
        run(chosen)
