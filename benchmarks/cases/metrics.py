"""Phase G's numbers: image metrics, ring correlation, alignment, against the libraries called plainly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from case import Case
from scipy import fft
from skimage.metrics import structural_similarity
from skimage.registration import phase_cross_correlation
from skimage.restoration import unwrap_phase

from fly64_nb.comparison import compare
from fly64_nb.data.builtin import builtin_object
from fly64_nb.physics.optics import fourier_shift
from fly64_nb.quality.alignment import Field, align, common_field
from fly64_nb.quality.metrics import MS_SSIM_WEIGHTS, fourier_ring_correlation, image_metrics, ms_ssim, ms_ssim_scales


def plain_ssim(truth: np.ndarray, image: np.ndarray) -> Callable[[], float]:
    """scikit-image's SSIM."""
    return lambda: structural_similarity(
        truth, image, data_range=np.ptp(truth), gaussian_weights=True, sigma=1.0, use_sample_covariance=False
    )


def plain_ms_ssim(truth: np.ndarray, image: np.ndarray) -> Callable[[], float]:
    """torchmetrics' MS-SSIM on tensors that are there already."""
    import torch
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    a, b = (torch.from_numpy(i.astype(np.float32))[None, None] for i in (image, truth))
    weights = np.array(MS_SSIM_WEIGHTS[: ms_ssim_scales(truth.shape)])
    options = {
        "data_range": float(np.ptp(truth)),
        "sigma": 1.0,
        "betas": tuple(weights / weights.sum()),
        "normalize": "relu",
    }
    return lambda: float(multiscale_structural_similarity_index_measure(a, b, **options))


def cases(full: bool, gpu: bool) -> list[Case]:
    made = []
    for side in (256, 1024) if full else (256,):
        truth = builtin_object((side + 32, side + 32))
        rng = np.random.default_rng(0)
        noisy = truth + 0.03 * (rng.standard_normal(truth.shape) + 1j * rng.standard_normal(truth.shape))
        moved = fourier_shift(noisy, [0.3], [-0.4])[0]
        field = Field(16, 16, 16 + side, 16 + side)
        cut, size = field.crop(truth), f"{side} x {side}"
        a, b = np.abs(cut), np.abs(field.crop(noisy))
        aligned, near = align(truth, moved, (0, 0), field), field.crop(moved)
        waves = cut.astype(complex), aligned.image.astype(complex)
        ssim, multiscale = plain_ssim(a, b), plain_ms_ssim(a, b)
        y, x = (c.ravel() for c in np.mgrid[16 : side + 16 : 5, 16 : side + 16 : 5].astype(float))
        made += [
            Case(
                "MS-SSIM",
                lambda a=a, b=b: ms_ssim(a, b, float(np.ptp(a))),
                size,
                multiscale,
                "torchmetrics, called plainly",
            ),
            Case(
                "all image metrics",
                lambda a=a, b=b: image_metrics(a, b),
                size,
                lambda s=ssim, m=multiscale: (s(), m()),
                "SSIM (scikit-image) and MS-SSIM (torchmetrics)",
            ),
            Case(
                "Fourier ring correlation",
                lambda c=cut, i=aligned.image: fourier_ring_correlation(c, i),
                size,
                lambda w=waves: list(map(fft.fft2, w)),
                "bound: its two FFTs",
            ),
            Case(
                "alignment",
                lambda t=truth, m=moved, f=field: align(t, m, (0, 0), f),
                size,
                lambda c=cut, m=near: (
                    phase_cross_correlation(c, m, upsample_factor=100, normalization=None),
                    unwrap_phase(np.angle(c)),
                ),
                "shift by scikit-image to 0.01 px, no ramp; one unwrapping",
            ),
            Case("common field of three views", lambda y=y, x=x, s=truth.shape: common_field([(y, x)] * 3, s), size),
            Case(
                "every number of a method",
                lambda c=cut, r=aligned: compare(c, r),
                size,
                lambda c=cut, s=ssim, m=multiscale: (
                    s(),
                    s(),
                    s(),
                    m(),
                    m(),
                    m(),
                    unwrap_phase(np.angle(c)),
                    [fft.fft2(c) for _ in range(6)],
                ),
                "three SSIM, three MS-SSIM, an unwrapping, six FFTs",
            ),
        ]
    return made
