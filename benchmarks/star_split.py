"""What halves of the photons say of a measured Siemens star, against the size of the spokes that can be seen.

    python benchmarks/star_split.py STAR.npz.bz2 [--doses all,1e5,1e4,1e3] [--methods ML,ML+probe] [--deals 1]
                                    [--csv FILE] [--images DIR]

The star's photons are thinned to each dose, dealt in halves, and reconstructed with the probe that all photons gave.
At a radius r its 30 spokes have a half period of pi r / 30 px; they end at the inner disc, at 3.6 px. Where they can
still be seen in the image is a resolution that knows nothing of rings and halves.

photons     a pattern
noise       phase error by noise, RMS rad
predicted   phase error without a truth, RMS rad
hp          half period in px where the halves fall to 1/7
hp_half_bit the same at the half-bit curve
hp_two      where two scans of this dose each would fall to 1/7
hp_spokes   half period of the smallest spokes whose wave stands three times above the waves beside it
contrast    of the smallest spokes, over that of broad ones
agrees      correlation of the image's smallest spokes with those of all photons
hp_agrees   half period of the spokes where that correlation falls to 0.5; nan: nowhere
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import typer
from scipy.ndimage import map_coordinates

from fly64_nb.data.dataset import Dataset
from fly64_nb.data.readers.understand import NOTHING_SAID
from fly64_nb.methods.method import find_methods
from fly64_nb.physics.photons import counts_to_amplitude, deal_photons
from fly64_nb.quality.alignment import common_field, true_phase
from fly64_nb.results.resolve import (
    Resolved,
    maker,
    resolve_dataset,
    scan_base,
    scan_method,
    whole_scan,
    write_resolved,
)

SPOKES, DISC = 30, 33.0  # number, and radius in px of the disc where they end
CENTRE = (211.0, 231.0)  # x, y of the middle, on the canvas, near enough for `find_centre`


def thinned(data: Dataset, dose: float, seed: int = 0) -> Dataset:
    """A dataset with so many photons a pattern of those that it has."""
    counts = deal_photons(data.counts(), dose / data.dose, np.random.default_rng(seed))[1]
    return replace(data, diffraction=counts_to_amplitude(counts, dose), metadata={**data.metadata, "nphotons": dose})


def ring_waves(phase: np.ndarray, centre: tuple[float, float], radius: float) -> np.ndarray:
    """Amplitude in rad of the waves around a circle, by their number around it."""
    angle = np.arange(720) * (2 * np.pi / 720)
    at = [centre[1] + radius * np.sin(angle), centre[0] + radius * np.cos(angle)]
    return 2 * np.abs(np.fft.rfft(map_coordinates(phase, at, order=3))) / len(angle)


def find_centre(phase: np.ndarray, about: tuple[float, float]) -> tuple[float, float]:
    """Where the waves of the spokes are strongest close to the disc, to half a pixel."""
    steps = np.arange(-8, 8.1, 0.5)
    near = [(about[0] + dx, about[1] + dy) for dx in steps for dy in steps]
    return max(near, key=lambda c: sum(ring_waves(phase, c, r)[SPOKES] for r in (DISC + 5, DISC + 15)))


def spokes_seen(phase: np.ndarray, centre: tuple[float, float]) -> tuple[float, float]:
    """Half period in px of the smallest spokes that stand out, and contrast of the smallest over that of broad ones."""
    radii = np.arange(DISC + 2, 110)
    waves = np.array([ring_waves(phase, centre, radius) for radius in radii])
    beside = np.r_[SPOKES + 9 : SPOKES + 17]  # missing spokes spread to those that are nearer
    stands = waves[:, SPOKES] > 3 * np.sqrt(np.mean(waves[:, beside] ** 2, axis=1))
    hidden = np.flatnonzero(~stands)
    first = 0 if not len(hidden) else hidden[-1] + 1
    seen = np.pi * radii[first] / SPOKES if first < len(radii) else np.nan
    return float(seen), float(waves[:4, SPOKES].mean() / waves[-30:, SPOKES].mean())


def agreement(phase: np.ndarray, whole: np.ndarray, centre: tuple[float, float]) -> tuple[float, float]:
    """Correlation with the image of all photons in the ring of the smallest spokes, and half period where it is 0.5.

    The rings are 6 px wide; nan where the correlation is above 0.5 up to the disc.
    """
    y, x = np.indices(phase.shape)
    radius, inner = np.hypot(y - centre[1], x - centre[0]), np.arange(DISC + 1, 100, 3)
    rings = [(radius > r) & (radius < r + 6) for r in inner]
    found = np.array([np.corrcoef(phase[ring], whole[ring])[0, 1] for ring in rings])
    below = np.flatnonzero(found < 0.5)
    return float(found[0]), float(np.pi * (inner[below[-1]] + 3) / SPOKES) if len(below) else np.nan


def row_of(found: Resolved, centre: tuple[float, float], whole: np.ndarray) -> dict[str, float]:
    """Numbers of one image."""
    quality, phase = found.quality, true_phase(found.full)
    period, seen = quality.resolution(), spokes_seen(phase, centre)
    agrees, half = agreement(phase, whole, centre)
    return {
        "noise": quality.noise_rms(),
        "predicted": quality.phase_rms,
        "hp": period["one_seventh"],
        "hp_half_bit": period["half_bit"],
        "hp_two": period["full_one_seventh"],
        "hp_spokes": seen[0],
        "contrast": seen[1],
        "agrees": agrees,
        "hp_agrees": half,
    }


def main(
    star: Path, doses: str = "all,1e5,1e4,1e3", methods: str = "ML,ML+probe", deals: int = 1, csv: str = "",
    images: Path | None = None,
) -> None:  # fmt: skip
    known, rows = find_methods(), []
    base, _ = scan_base(star, "quick", (), NOTHING_SAID, known)
    data = whole_scan(base)
    where = common_field([(data.y, data.x)], data.object.shape)
    for name in methods.split(","):
        chosen, method = scan_method(name, "quick", known)
        whole = centre = None
        for dose in doses.split(","):
            started = time.perf_counter()
            some = data if dose == "all" else thinned(data, float(dose))
            found = resolve_dataset(some, maker(method, chosen.settings), where, method=name, deals=deals)
            if whole is None:
                whole = true_phase(found.full)
                centre = find_centre(whole, (CENTRE[0] - where.left, CENTRE[1] - where.top))
            row = {"method": name, "photons": some.dose, **row_of(found, centre, whole)}
            rows.append({**row, "s": time.perf_counter() - started})
            table = pd.DataFrame(rows)
            print(table.tail(1).round(4).to_string(index=False, header=len(rows) == 1), flush=True)
            if csv:
                table.to_csv(csv, index=False)
            if images:
                write_resolved(images / f"{name}_{dose}", found)


if __name__ == "__main__":
    typer.run(main)
