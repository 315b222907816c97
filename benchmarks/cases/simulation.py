"""Phase C: patterns, counts and true patches, against the FFTs that they need and pty-chi's own forward model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from case import Case, installed
from profiles import profile_base
from scipy import fft

from fly64_nb.data.base import Base
from fly64_nb.datasets import make_datasets
from fly64_nb.physics.optics import diffraction_intensity, object_patches
from fly64_nb.physics.photons import photon_counts

BATCH = 32  # that of `diffraction_intensity`


def two_transforms(count: int, window: int) -> Callable[[], None]:
    """The FFTs of a simulation and nothing else: the probe back from Fourier space, the exit wave into it."""
    waves = np.ones((BATCH, window, window), np.complex64)

    def transform() -> None:
        for i in range(0, count, BATCH):
            part = waves[: min(BATCH, count - i)].copy()
            fft.fft2(fft.ifft2(part, overwrite_x=True), norm="ortho", overwrite_x=True)

    return transform


def ptychi_forward(base: Base, gpu: bool) -> Callable[[], None]:
    """pty-chi's forward model on the same exposures, a hundred at a time."""
    import ptychi.api as api
    import torch
    from ptychi.api.task import PtychographyTask

    options = api.LSQMLOptions()
    options.object_options.pixel_size_m = 1.0
    options.object_options.determine_position_origin_coords_by = api.ObjectPosOriginCoordsMethods.SPECIFIED
    options.object_options.position_origin_coords = [-0.5, -0.5]
    options.reconstructor_options.default_device = api.Devices.GPU if gpu else api.Devices.CPU
    task = PtychographyTask(
        options,
        diffraction_data=np.ones((len(base.y), base.window, base.window), np.float32),
        object_data=base.object[None],
        probe_data=base.probe[None, None],
        probe_position_y_px=base.y.astype(np.float32),
        probe_position_x_px=base.x.astype(np.float32),
    )

    def forward() -> None:
        with torch.no_grad():
            for rows in torch.arange(len(base.y)).split(100):
                task.reconstructor.forward_model.forward(rows).cpu().numpy()

    return forward


def ptychi_patches(base: Base) -> Callable[[], None]:
    """pty-chi's patches of the object at sub-pixel positions, a hundred at a time."""
    import torch
    from ptychi.image_proc import extract_patches_fourier_shift

    image, positions = (
        torch.from_numpy(base.object),
        torch.from_numpy(np.stack([base.y, base.x], 1).astype(np.float32)) - 0.5,
    )
    return lambda: [
        extract_patches_fourier_shift(image, part, (base.window, base.window)) for part in positions.split(100)
    ]


def cases(full: bool, gpu: bool) -> list[Case]:
    base = profile_base("paper" if full else "quick")
    n, window = len(base.y), base.window
    intensity = diffraction_intensity(base.object, base.probe, base.y, base.x)
    rates = intensity * (1e4 / intensity.sum((1, 2), dtype=np.float64).mean())
    size = f"{n:,} of {window}²"
    theirs = installed("ptychi")
    patterns = lambda: diffraction_intensity(base.object, base.probe, base.y, base.x)
    return [
        Case(
            "noise-free patterns",
            patterns,
            size,
            two_transforms(n, window),
            "bound: its two FFTs a pattern, scipy",
            items=n,
        ),
        Case(
            "noise-free patterns",
            patterns,
            size,
            ptychi_forward(base, gpu) if theirs else None,
            f"pty-chi's forward model{' on the GPU' if gpu else ''}" if theirs else "pty-chi is not installed",
            items=n,
        ),
        Case(
            "photon counts",
            lambda: photon_counts(intensity, 1e4, np.random.default_rng(0)),
            size,
            lambda: np.random.default_rng(0).poisson(rates),
            "bound: numpy's Poisson numbers",
            items=n,
        ),
        Case(
            "true patches",
            lambda: object_patches(base.object, base.y, base.x, window),
            size,
            ptychi_patches(base) if theirs else None,
            "pty-chi's extract_patches_fourier_shift" if theirs else "pty-chi is not installed",
            items=n,
            item="patches",
        ),
        Case(
            "datasets of a dose",
            lambda: make_datasets(base, 1e4),
            size,
            lambda: (
                patterns(),
                photon_counts(intensity, 1e4, np.random.default_rng(0)),
                object_patches(base.object, base.y, base.x, window),
            ),
            "its parts: patterns, counts, patches",
            items=n,
            repeats=5,
        ),
    ]
