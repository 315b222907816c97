"""LSQML with a mask, several modes, corrected positions: an epoch of the fast form against pty-chi's own class."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from case import Case
from cases.lsqml import KINDS, Scan, scan

from fly64_nb.methods.ptychi.solver import _with_weights, open_task, task_options
from fly64_nb.physics.modes import start_modes

UNIT = "CPU-µs a pattern"
REMEDIES = {
    "one mode": {},
    "a mask": {"masked": True},
    "3 modes": {"modes": 3},
    "5 modes": {"modes": 5},
    "3 modes and a mask": {"modes": 3, "masked": True},
    "positions corrected": {"update_positions": True},
}


def inputs(patterns: Scan, modes: int, masked: bool) -> dict[str, np.ndarray]:
    """The scan with so many modes, and a gap of a module and a beamstop."""
    probe = patterns.data["probe_data"][0, 0]
    data = {**patterns.data, "probe_data": start_modes(probe, modes)[None].astype(np.complex64)}
    if masked:
        mask = np.ones(probe.shape, bool)
        mask[:, 40:44] = False
        mask[29:35, 29:35] = False
        data["valid_pixel_mask"] = mask
    return data


def epoch(patterns: Scan, kind: str, engine: str, masked: bool = False, **settings) -> Callable[[], float]:
    """CPU-microseconds a pattern of an epoch after the twelfth, when pty-chi no longer renews the preconditioner."""
    import torch

    chosen, part = KINDS[kind]
    chosen = replace(chosen, **settings)
    data = inputs(patterns, chosen.modes, masked)
    data = _with_weights(data) if chosen.update_intensities else data
    options = task_options(chosen, part, True, patterns.origin, len(patterns), False)
    opened = open_task(options, engine, None, **data)
    task = opened.__enter__()  # kept open for as long as the case is measured
    task.run(2)
    task.reconstructor.current_epoch = 12

    def run() -> float:
        torch.set_default_device("cpu" if engine == "stock" else None)  # the device mode that each form runs in
        began = time.process_time()
        task.run(1)
        took = time.process_time() - began
        torch.set_default_device(None)
        return 1e6 * took / len(patterns)

    run.opened = opened
    return run


def cases(full: bool, gpu: bool) -> list[Case]:
    import torch

    torch.set_num_threads(1)
    if gpu:
        return [Case("LSQML with remedies", None, peer_name="timed on the CPU only")]
    patterns, made = scan(1_000 if full else 120, 64), []
    size = f"{len(patterns)} of 64²"
    kinds = ("Poisson, compact", "Poisson, random") if full else ("Poisson, random",)
    for kind in kinds:
        for name, remedy in REMEDIES.items():
            sides = [epoch(patterns, kind, engine, **remedy) for engine in ("fast", "stock")]
            made.append(Case(f"{name}; {kind}", sides[0], size, sides[1], "pty-chi's own class", unit=UNIT))
        sides = [epoch(patterns, kind, "stock", update_intensities=weighed) for weighed in (True, False)]
        peer = "pty-chi's own class without"
        made.append(Case(f"intensities (pty-chi's class); {kind}", sides[0], size, sides[1], peer, unit=UNIT))
    return made
