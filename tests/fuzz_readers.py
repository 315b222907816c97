"""Fuzzing harness of the readers: mutated files of every format, read one after the other in a process with limits.

    python tests/fuzz_readers.py --seconds 600 --seed 1
    python tests/fuzz_readers.py --cases 1000000 --jobs 8 --keep corpus
    python tests/fuzz_readers.py --reader tike --cases 1000
    python tests/fuzz_readers.py --again 12345 --reader tike --seed 1     # one case, with its traceback

A case is named by seed, format and number, and is always the same. A good end is a refusal (`FormatError`) or a base
or scan that can be true. Counted besides: tracebacks (any other exception, or a crash), nonsense that was accepted,
hangs, and cases that took more than 1 GB. A file that was read before, byte by byte, is no case. The process is watched
from outside, and started anew where it hung or died.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402

from fly64_nb.data.base import Base, MeasuredScan  # noqa: E402
from fly64_nb.data.builtin import builtin_base  # noqa: E402
from fly64_nb.data.experiment import Experiment  # noqa: E402
from fly64_nb.data.files import FormatError  # noqa: E402
from fly64_nb.data.readers.example import ExampleScan  # noqa: E402
from fly64_nb.physics.optics import diffraction_intensity  # noqa: E402
from mutations import mutate  # noqa: E402
from reader_examples import EXAMPLES, write_example  # noqa: E402

ENDS = ("refused", "valid", "traceback", "nonsense", "hang", "heavy")
BAD = ENDS[2:]
HEAVY = 2**30
PROBELESS = {
    "ptychodus-npz diffraction", "ptychodus diffraction", "cxi raster", "ptypy", "fold_slice", "fold_slice by Python",
    "NSLS-II HXN", "NanoMAX", "PtyLab",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A mutated file of a format."""

    name: str
    seed: int
    number: int

    def random(self) -> np.random.Generator:
        """Its random generator."""
        return np.random.default_rng([self.seed, *self.name.encode(), self.number])


def small_scan(seed: int = 3) -> ExampleScan:
    """A scan of few patterns of 16 x 16 pixels, so that a case takes some milliseconds."""
    base = builtin_base(26, 30, 6.0, window=16, seed=seed)
    expected = diffraction_intensity(base.object, base.probe, base.y, base.x)
    scale = 1e5 / expected.sum((1, 2)).mean()
    counts = np.random.default_rng(seed).poisson(expected * scale).astype(np.uint16)
    experiment = Experiment(energy_eV=10e3, distance_m=2.0, detector_pixel_m=(75e-6, 75e-6), exposure_s=0.5)
    pixel = experiment.object_pixel_m((16, 16))[0]
    probe = (base.probe * np.sqrt(scale)).astype(np.complex64)
    return ExampleScan(base.object, probe, base.y, base.x, counts, pixel, experiment)


def nonsense(read: Any) -> str:
    """What cannot be true of a base or a measured scan that was accepted; empty if all can."""
    if not isinstance(read, (Base, MeasuredScan)):
        return f"a {type(read).__name__}"
    images = {"probe": read.probe} | ({"object": read.object} if isinstance(read, Base) else {})
    for key, array in images.items():
        if array.dtype != np.complex64 or array.ndim != 2 or not np.isfinite(array).all() or not np.abs(array).any():
            return f"{key}: {array.shape} of {array.dtype}, not finite, or zero"
    y, x, n = read.y, read.x, read.probe.shape[-1]
    if y.dtype != np.float64 or x.shape != y.shape or y.ndim != 1 or not len(y):
        return f"positions: {y.shape} {x.shape}"
    if not (np.isfinite(y).all() and np.isfinite(x).all()) or max(np.ptp(y), np.ptp(x)) > 1e5:
        return "positions that are not finite, or far apart"
    if len(y) > 1 and len(np.unique(np.stack([y, x]), axis=1).T) < 2:
        return "positions at one place"
    if isinstance(read, Base):
        height, width = read.object.shape
        if min(y.min(), x.min()) < n // 2 - 1 or y.max() > height - n // 2 + 1 or x.max() > width - n // 2 + 1:
            return "positions outside"
    if read.counts is not None:
        if read.counts.shape != (len(y), n, n) or read.counts.dtype != np.uint32 or not read.counts.any():
            return f"counts: {read.counts.shape} of {read.counts.dtype}, or none"
        if read.counts.max() >= 2**32 - 1:
            return "counts that are a flag"
    if read.pixel_size_m is not None and not 1e-13 < read.pixel_size_m < 1e-3:
        return f"a pixel of {read.pixel_size_m} m"
    return ""


# One case


def remember_what_stays() -> None:
    """Ask for readers and for the probe's file once: for a process that does nothing else."""
    from fly64_nb.data.readers import reader

    for name in ("find_readers", "read_probe"):
        setattr(reader, name, lru_cache(getattr(reader, name)))


class Reading:
    """What a worker needs to make and read its cases."""

    def __init__(self, folder: Path):
        from fly64_nb.data.readers import reader
        from fly64_nb.data.readers.understand import ReadOptions

        self.folder, self.read, self.scan = folder, reader.read_base_file, small_scan()
        self.valid: dict[str, tuple[Path, str]] = {}
        self.seen: set[bytes] = set()
        self.at, self.low = 0, peak()
        probe = write_example("base", folder, self.scan).rename(folder / "probe.npz")
        self.options = {name: ReadOptions(probe=probe) for name in PROBELESS}
        self.options["NanoMAX"] = ReadOptions(probe=probe, positions_unit="px")
        self.plain = ReadOptions()

    def make(self, case: Case) -> tuple[Path, str]:
        """The file of a case, and what was done to it."""
        if case.name not in self.valid:
            place = self.folder / f"valid-{len(self.valid)}"
            place.mkdir()
            path = write_example(case.name, place, self.scan)
            self.valid[case.name] = place, path.name
        place, name = self.valid[case.name]
        # another folder each time: two files of one name, size and time would be taken for one
        shutil.rmtree(self.folder / f"case-{self.at}", ignore_errors=True)
        self.at += 1
        target = self.folder / f"case-{self.at}"
        target.mkdir()
        for member in place.iterdir():
            (target / member.name).write_bytes(member.read_bytes())
        rng = case.random()
        members = sorted(target.iterdir())
        chosen = members[rng.integers(len(members))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return target / name, mutate(chosen, rng)

    def new(self, folder: Path) -> bool:
        """Whether the files of a case, byte by byte, were not read before."""
        content = hashlib.blake2b(digest_size=12)
        for member in sorted(folder.iterdir()):
            content.update(member.name.encode() + b"\0" + member.read_bytes())
        known = content.digest() in self.seen
        self.seen.add(content.digest())
        return not known

    def run(self, case: Case, again: bool = False) -> tuple[str, str]:
        """How a case ended, and more words; no end at all if it is none."""
        try:
            path, words = self.make(case)
        except Exception as error:  # the mutation itself did not work out
            return "", f"no case: {type(error).__name__}: {error}"
        if not again and not self.new(path.parent):
            return "", f"no case: read before: {words}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read = self.read(path, (), self.options.get(case.name, self.plain))
        except FormatError as error:
            end, more = "refused", str(error)
        except BaseException:
            end, more = "traceback", traceback.format_exc()
        else:
            wrong = nonsense(read)
            end, more = ("nonsense", wrong) if wrong else ("valid", "")
        if (most := peak() - self.low) > HEAVY:
            self.low = peak()  # a peak is for ever: the next one must be higher
            if end in ("refused", "valid"):
                end, more = "heavy", f"{most / 2**20:.0f} MB; {end} {more}"
        return end, f"{words} -> {more.replace(str(path.parent), '')}"


def peak() -> int:
    """Most memory that this process has ever had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def work(pipe: Connection, names: list[str], seed: int, first: int, step: int, memory: int) -> None:
    """Make and read case after case until killed: each is announced, then reported."""
    memory_disk = Path("/dev/shm")
    place = memory_disk if os.access(memory_disk, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fly64-fuzz-", dir=place) as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        remember_what_stays()
        reading = Reading(Path(folder))
        for name in names:  # so that all is imported before memory is limited
            reading.run(Case(name, seed, 0))
        gc.collect()
        gc.freeze()  # what was imported stays, and need not be looked through each time
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        number = first
        while True:
            for name in names:
                pipe.send(("begin", Case(name, seed, number)))
                pipe.send(("end", reading.run(Case(name, seed, number))))
            number += step


# Many cases


class Worker:
    """A process that reads cases; started anew where the last one hung or died."""

    def __init__(self, names: list[str], seed: int, first: int, step: int, memory: int):
        self.arguments, self.first = (names, seed), first
        self.step, self.memory = step, memory
        self.case: Case | None = None
        self.start(first)

    def start(self, first: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        names, seed = self.arguments
        order = names[:]
        if self.case is not None:  # go on after the case at which the last process ended
            at = (names.index(self.case.name) + 1) % len(names)
            order = names[at:] + names[:at]
            first = self.case.number + self.step
        self.process = context.Process(
            target=work, args=(other, order, seed, first, self.step, self.memory), daemon=True
        )
        self.process.start()
        other.close()
        self.since, self.case = time.monotonic() + 60, None

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def fuzz(
    names: list[str], seconds: float, cases: int, seed: int, jobs: int, timeout: float, memory: int, keep: Path | None
) -> dict[str, Counter]:
    """Read mutated files until time or cases are over; how they ended, by format."""
    table: dict[str, Counter] = {name: Counter() for name in names}
    workers = [Worker(names, seed, first, jobs, memory) for first in range(1, jobs + 1)]
    until, done, seen = time.monotonic() + seconds, 0, Counter()

    def count(case: Case, end: str, words: str) -> None:
        nonlocal done
        done += bool(end)
        table[case.name][end or "no case"] += 1
        lines = words.strip().splitlines() or [""]
        where = next((line.strip() for line in reversed(lines[:-1]) if "fly64_nb" in line), "")
        kind = (case.name, end, where or lines[-1][:60])
        seen[kind] += 1
        if end in BAD and seen[kind] <= 3:
            print(
                f"{end}: {case.name} {case.number} (seed {case.seed}): {lines[0][:200]}\n    {where} {lines[-1][:300]}",
                flush=True,
            )
            if keep is not None:
                save(case, keep, f"{end}: {words}")

    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))  # what was found until then is told
    while time.monotonic() < until and done < cases and not ended:
        ready = wait([worker.pipe for worker in workers], timeout=0.2)
        for worker in workers:
            try:
                while worker.pipe in ready and worker.pipe.poll():
                    what, value = worker.pipe.recv()
                    if what == "begin":
                        worker.case, worker.since = value, time.monotonic()
                    else:
                        count(worker.case, *value)
                        worker.since = time.monotonic()
                        if done >= cases:
                            break
            except (EOFError, OSError):
                worker.process.join()
                if worker.case is None:
                    raise RuntimeError("a worker died before its first case") from None
                count(worker.case, "traceback", f"the process died, exit code {worker.process.exitcode}")
                worker.stop()
                worker.start(worker.first)
                continue
            if time.monotonic() - worker.since > timeout:
                if worker.case is not None:
                    count(worker.case, "hang", f"no answer after {timeout} s")
                worker.stop()
                worker.start(worker.first)
    for worker in workers:
        worker.stop()
    return table


def save(case: Case, folder: Path, words: str) -> None:
    """Keep the file of a case, with what was wrong."""
    with tempfile.TemporaryDirectory() as place:
        path, _ = Reading(Path(place)).make(case)
        target = folder / f"{case.name.replace(' ', '-')}-{case.seed}-{case.number}"
        shutil.copytree(path.parent, target, dirs_exist_ok=True)
        (target / "what.txt").write_text(words)


def report(table: dict[str, Counter]) -> str:
    """The table by format, in Markdown."""
    lines = [f"| format | cases | {' | '.join(ENDS)} |", "|---" * (len(ENDS) + 2) + "|"]
    for name, ends in [*table.items(), ("all", sum(table.values(), Counter()))]:
        lines.append(f"| {name} | {sum(ends[e] for e in ENDS)} | " + " | ".join(str(ends[end]) for end in ENDS) + " |")
    return "\n".join(lines)


def main() -> int:
    """Command line; exit code 1 if something bad was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cases", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", choices=list(EXAMPLES), help="format; all of them without it")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds after which a case hangs")
    parser.add_argument("--memory", type=int, default=6, help="limit of address space of a process, GiB")
    parser.add_argument("--keep", type=Path, help="folder for the files that ended badly")
    parser.add_argument("--again", type=int, help="number of one case to make and read here")
    given = parser.parse_args()
    names = given.reader or list(EXAMPLES)
    if given.again is not None:
        with tempfile.TemporaryDirectory() as folder:
            reading = Reading(Path(folder))
            for name in names:
                print(name, *reading.run(Case(name, given.seed, given.again), again=True), sep=": ")
        return 0
    table = fuzz(
        names, given.seconds, given.cases, given.seed, given.jobs, given.timeout, given.memory * 2**30, given.keep
    )
    print(report(table))
    return int(any(ends[end] for ends in table.values() for end in BAD))


if __name__ == "__main__":
    sys.exit(main())
