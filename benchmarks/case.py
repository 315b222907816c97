"""What a benchmark case is, and how it is measured; `suite.py` runs them, `cases/` holds them."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import log
from typing import Any


@dataclass(frozen=True)
class Case:
    """Something that takes time (or memory), and what to hold against it.

    Attributes
    ----------
    name : str
        What is measured.
    ours : callable or None
        Without arguments. With the unit ``"s"`` it is timed, with any other unit it returns the number.
        None for a row that only says why there is nothing.
    size : str
        Size of the problem, in words.
    peer : callable or None
        The same by other means, or the part of it that cannot be left out; called in turn with `ours`.
    peer_name : str
        What the peer or the bound is; where there is none, why.
    bound : float or None
        A fixed number in the case's unit, instead of a peer.
    unit : str
        ``"s"``, or that of the numbers that `ours` and `peer` return. Less is better, always.
    items, item : float, str
        Things that a call works on, for a rate: ``1927, "patterns"``.
    repeats : int
        Calls of each after the warm-up; fewer when they take long, but not below three (or `repeats`).
    warm_up : bool
        Call each once before it is measured.
    note : str or callable
        A remark; a callable is asked after the measurement.
    """

    name: str
    ours: Callable[[], Any] | None
    size: str = ""
    peer: Callable[[], Any] | None = None
    peer_name: str = ""
    bound: float | None = None
    unit: str = "s"
    items: float = 0
    item: str = "patterns"
    repeats: int = 9
    warm_up: bool = True
    note: str | Callable[[], str] = ""


def installed(module: str) -> bool:
    """Whether a peer's module is there."""
    return find_spec(module) is not None


def once(call: Callable[[], Any], unit: str) -> float:
    """One measurement: seconds of the call, or what it returns."""
    began = time.perf_counter()
    value = call()
    return time.perf_counter() - began if unit == "s" else float(value)


def measure(case: Case, budget_s: float) -> dict[str, Any]:
    """A row of the table: ours and the peer in turn (A B A B ...), until the repeats are done or the time is up."""
    row: dict[str, Any] = {
        "case": case.name,
        "size": case.size,
        "unit": case.unit,
        "peer_name": case.peer_name,
        "ours": [],
        "peer": [],
        "error": "",
        "note": "",
        "items": case.items,
        "item": case.item,
    }
    sides = [(side, call) for side, call in (("ours", case.ours), ("peer", case.peer)) if call]
    if case.bound is not None:
        row["peer"] = [case.bound]
    began = time.perf_counter()
    for repeat in range(-1 if case.warm_up else 0, case.repeats):
        if repeat >= 3 and time.perf_counter() - began > budget_s:
            break
        for side, call in list(sides):
            try:
                value = once(call, case.unit)
            except Exception as error:  # the suite fails nothing: an error is a row
                first_line = next(iter(str(error).strip().splitlines()), "")
                row["error"] += f"{side}: {type(error).__name__}: {first_line} "
                sides.remove((side, call))
                continue
            if repeat >= 0:
                row[side].append(value)
    try:
        row["note"] = case.note() if callable(case.note) else case.note
    except Exception as error:
        row["error"] += f"note: {type(error).__name__}: {error} "
    return row


def scaling(
    name: str,
    sizes: Sequence[int],
    prepare: Callable[[int], Callable[[], Any]],
    item: str = "patterns",
    expected: float = 1.0,
    repeats: int = 3,
) -> Case:
    """A case that fits an exponent: least squares through log(fastest seconds) over log(size); its note is the curve.

    Parameters
    ----------
    name, item : str
    sizes : sequence of int
    prepare : callable
        Makes the call to be timed for a size.
    expected : float
        The exponent that theory gives.
    """
    seconds: dict[int, float] = {}

    def exponent() -> float:
        for n in sizes:
            call = prepare(n)
            call()
            seconds[n] = min(once(call, "s") for _ in range(repeats))
        points = [(log(n), log(s)) for n, s in seconds.items()]
        x0, y0 = (statistics.mean(c) for c in zip(*points))
        return sum((x - x0) * (y - y0) for x, y in points) / sum((x - x0) ** 2 for x, _ in points)

    return Case(
        name,
        exponent,
        size=f"{sizes[0]:,} to {sizes[-1]:,} {item}",
        bound=expected,
        peer_name="theory",
        unit="exponent",
        repeats=1,
        warm_up=False,
        note=lambda: "; ".join(f"{n:,}: {s:.3g} s" for n, s in seconds.items()),
    )


def in_child(code: str, *arguments: Any) -> str:
    """Output of some code in a Python of its own, same environment; RuntimeError with its last line if it fails."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1]}")
    return done.stdout
