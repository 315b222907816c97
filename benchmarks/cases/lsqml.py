"""LSQML: one epoch of the fast form against pty-chi's own class and against the FFTs that it cannot do without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from case import Case

from fly64_nb.data.builtin import builtin_base
from fly64_nb.methods.ptychi.solver import LsqmlSettings, Part, open_task, task_options
from fly64_nb.physics.optics import diffraction_intensity
from fly64_nb.physics.scan import canvas

KEPT = LsqmlSettings(update_probe=False)
KINDS = {
    "probe kept, Poisson, random": (KEPT, Part(12, False, 50, 0.0)),
    "probe kept, Poisson, compact": (KEPT, Part(12, True, 100, 0.9)),
    "Poisson, compact": (LsqmlSettings(), Part(12, True, 100, 0.9)),
    "Poisson, random": (LsqmlSettings(), Part(12, False, 50, 0.0)),
    "Gaussian, random": (LsqmlSettings(noise_model="gaussian"), Part(12, False, 96, 0.0)),
}


@dataclass(frozen=True)
class Scan:
    """Counts of a scan, ready for pty-chi."""

    data: dict[str, np.ndarray]
    origin: tuple[int, int]

    def __len__(self) -> int:
        return len(self.data["diffraction_data"])

    @property
    def window(self) -> int:
        return self.data["probe_data"].shape[-1]


def scan(count: int, window: int, dose: float = 1e4) -> Scan:
    """About so many patterns of the built-in base."""
    side = 5.2 * (count**0.5 - 1) + 0.1
    base = builtin_base(side, side, 5.2, window=window)
    origin, shape = canvas(base.y, base.x, window)
    intensity = diffraction_intensity(base.object, base.probe, base.y, base.x)
    counts = np.random.default_rng(0).poisson(intensity * (dose / intensity.sum((1, 2)).mean()))
    probe = base.probe * np.sqrt(dose / window**2 / np.sum(np.abs(base.probe) ** 2))
    return Scan(
        {
            "diffraction_data": counts.astype(np.float32),
            "object_data": np.ones((1, *shape), np.complex64),
            "probe_data": probe.astype(np.complex64)[None, None],
            "probe_position_x_px": base.x.astype(np.float32),
            "probe_position_y_px": base.y.astype(np.float32),
        },
        origin,
    )


def epoch(patterns: Scan, kind: str, engine: str, gpu: bool) -> Callable[[], None]:
    """An epoch after the twelfth, when pty-chi no longer renews the preconditioner in each."""
    import torch

    settings, part = KINDS[kind]
    opened = open_task(
        task_options(settings, part, True, patterns.origin, len(patterns), gpu), engine, None, **patterns.data
    )
    task = opened.__enter__()  # kept open for as long as the case is measured
    task.run(12)
    mode = "cpu" if engine == "stock" and not gpu else None  # the device mode that each form runs in

    def run() -> None:
        torch.set_default_device("cuda" if gpu else mode)
        task.run(1)
        if gpu:
            torch.cuda.synchronize()
        torch.set_default_device(None)

    run.opened = opened
    return run


def transforms(count: int, window: int, pairs: int, gpu: bool) -> Callable[[], None]:
    """FFTs there and back for each pattern, a hundred patterns at a time, as LSQML does them.

    Two pairs: shifted probe, far field, exit wave, probe gradient. A probe that is kept needs one.
    """
    import torch

    from fly64_nb.methods.fourier import fft2, ifft2

    waves = torch.ones((100, window, window), dtype=torch.complex64, device="cuda" if gpu else "cpu")

    def run() -> None:
        for left in range(count, 0, -100):
            part = waves[:left]
            for transform in (ifft2, fft2) * pairs:
                transform(part)
        if gpu:
            torch.cuda.synchronize()

    return run


def cases(full: bool, gpu: bool) -> list[Case]:
    import torch

    torch.set_num_threads(1)
    made = []
    for window, count in ((64, 1_000), (128, 300)) + (((64, 4_000),) if full else ()):
        patterns = scan(count, window)
        size = f"{len(patterns)} of {window}²"
        for kind in KINDS:
            ours, pairs = epoch(patterns, kind, "fast", gpu), 2 if KINDS[kind][0].update_probe else 1
            made += [
                Case(
                    f"LSQML epoch, {kind}",
                    ours,
                    size,
                    epoch(patterns, kind, "stock", gpu),
                    "pty-chi's own class",
                    items=len(patterns),
                ),
                Case(
                    f"LSQML epoch, {kind}",
                    ours,
                    size,
                    transforms(len(patterns), window, pairs, gpu),
                    f"its {'four' if pairs == 2 else 'two'} FFTs",
                    items=len(patterns),
                ),
            ]
    return made
