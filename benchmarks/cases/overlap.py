"""Phase D: positions by spacing, groups and measured overlaps, for ten thousand and a million positions."""

from __future__ import annotations

import numpy as np
from case import Case
from scipy.spatial import cKDTree

from fly64_nb.physics.scan import form_groups, overlap_metrics, select_by_spacing

DIAMETER, NEIGHBOURS = 27.0, 7  # pixels, about the built-in probe's; K


def scan(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a jittered raster of 4 pixels pitch."""
    side = round(count**0.5)
    y, x = np.mgrid[:side, :side].reshape(2, -1) * 4.0 + np.random.default_rng(0).uniform(-1, 1, (2, side * side))
    return y, x


def first_come(y: np.ndarray, x: np.ndarray, spacing: float) -> np.ndarray:
    """The textbook's choice: in random order, every position that no earlier choice excludes."""
    points = np.stack([y, x], 1)
    tree, free, kept = cKDTree(points), np.ones(len(y), bool), []
    for i in np.random.default_rng(0).permutation(len(y)):
        if free[i]:
            kept.append(i)
            free[tree.query_ball_point(points[i], np.nextafter(spacing, 0))] = False
    return np.sort(kept)


def query(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances and numbers of each point's nearest neighbours, by scipy."""
    return cKDTree(points).query(points, NEIGHBOURS + 1)


def selection(y: np.ndarray, x: np.ndarray, overlap: float, once: bool) -> Case:
    """Choosing positions, with the number that either keeps."""
    spacing, kept = (1 - overlap) * DIAMETER, {}

    def ours() -> None:
        kept["ours"] = len(select_by_spacing(y, x, spacing, 0))

    def peer() -> None:
        kept["theirs"] = len(first_come(y, x, spacing))

    return Case(
        f"positions by spacing, overlap {overlap:g}",
        ours,
        f"{len(y):,}",
        peer,
        "textbook: random order, scipy's cKDTree",
        items=len(y),
        item="positions",
        repeats=1 if once else 5,
        warm_up=not once,
        note=lambda: f"keeps {kept['ours']:,}, the textbook {kept['theirs']:,}",
    )


def cases(full: bool, gpu: bool) -> list[Case]:
    made = []
    for count in (10_000, 1_000_000):
        y, x = scan(count)
        points, large = np.stack([y, x], 1), count > 10_000
        groups, _ = form_groups(y, x, 4, NEIGHBOURS, count, 0)
        centres = points[groups].mean(1)
        few = {"repeats": 3 if full else 1, "warm_up": full} if large else {}
        made += [
            selection(y, x, overlap, large and not full) for overlap in ((0.7, 0.2) if full or not large else (0.7,))
        ]
        made += [
            Case(
                "groups of four",
                lambda y=y, x=x: form_groups(y, x, 4, NEIGHBOURS, len(y), 0),
                f"{count:,}",
                lambda p=points: query(p),
                "bound: k-d tree, nearest neighbours",
                items=count,
                item="positions",
                **few,
            ),
            Case(
                "measured overlaps",
                lambda y=y, x=x, g=groups: overlap_metrics(y, x, g, DIAMETER, NEIGHBOURS),
                f"{count:,}",
                lambda p=points, c=centres: (query(p), query(c)),
                "bound: k-d trees, neighbours of positions and of groups",
                items=count,
                item="positions",
                **few,
            ),
        ]
    return made
