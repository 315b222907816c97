"""From patches to an object, against the additions and FFTs that it needs and against pty-chi's placing of patches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from case import Case, installed
from profiles import profile_base
from scipy import fft

from fly64_nb.physics.optics import object_patches, split_position
from fly64_nb.physics.stitching import stitch_patches


def transforms(count: int, window: int) -> None:
    """The FFTs that shift each patch and its weight by a fraction of a pixel: the weight's spectrum is known."""
    waves = np.ones((32, window, window), np.complex64)
    for i in range(0, count, 32):
        part = waves[: min(32, count - i)].copy()
        fft.ifft2(fft.ifft2(fft.fft2(part, overwrite_x=True), overwrite_x=True), overwrite_x=True)


def additions(patches: np.ndarray, y: np.ndarray, x: np.ndarray, shape: tuple[int, int]) -> Callable[[], None]:
    """Adding each patch and its weight where it belongs, whole pixels."""
    m = patches.shape[-1]
    top, left = split_position(y, m)[0], split_position(x, m)[0]
    weight = np.ones((m, m), np.float32)

    def add() -> None:
        total, weights = np.zeros(shape, np.complex128), np.zeros(shape)
        for row, column, image in zip(top, left, patches):
            total[row : row + m, column : column + m] += image
            weights[row : row + m, column : column + m] += weight

    return add


def ptychi_placing(
    patches: np.ndarray, probe: np.ndarray, y: np.ndarray, x: np.ndarray, shape: tuple[int, int], gpu: bool
) -> Callable[[], None]:
    """The same sums with pty-chi: weighted patches and weights, shifted and placed, a hundred at a time."""
    import torch
    from ptychi.image_proc import place_patches_fourier_shift

    device = "cuda" if gpu else "cpu"
    images, positions = (
        torch.from_numpy(patches).to(device),
        torch.from_numpy(np.stack([y, x], 1).astype(np.float32)).to(device) - 0.5,
    )
    light = torch.from_numpy(np.abs(probe).astype(np.float32) ** 2).to(device)

    def place() -> None:
        total, weight = (torch.zeros(shape, dtype=torch.complex64, device=device) for _ in range(2))
        for rows in torch.arange(len(y), device=device).split(100):
            total = place_patches_fourier_shift(total, positions[rows], images[rows] * light)
            weight = place_patches_fourier_shift(
                weight, positions[rows], light.to(torch.complex64).expand(len(rows), -1, -1)
            )
        (total / (weight.real + 1e-3)).cpu().numpy()

    return place


def cases(full: bool, gpu: bool) -> list[Case]:
    base = profile_base("paper" if full else "quick")
    patches = object_patches(base.object, base.y, base.x, base.window)
    n, size = len(patches), f"{len(patches):,} of {base.window}²"
    ours = lambda: stitch_patches(patches, base.probe, base.y, base.x)
    add = additions(patches, base.y, base.x, base.object.shape)
    theirs = installed("ptychi")
    return [
        Case("stitching", ours, size, add, "bound: the additions alone, numpy", items=n, item="patches"),
        Case(
            "stitching",
            ours,
            size,
            lambda: (transforms(n, base.window), add()),
            "bound: the additions and three FFTs a patch, scipy",
            items=n,
            item="patches",
        ),
        Case(
            "stitching",
            ours,
            size,
            ptychi_placing(patches, base.probe, base.y, base.x, base.object.shape, gpu) if theirs else None,
            f"pty-chi's place_patches_fourier_shift{' on the GPU' if gpu else ''}"
            if theirs
            else "pty-chi is not installed",
            items=n,
            item="patches",
        ),
    ]
