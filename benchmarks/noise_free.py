"""How well noise-free data of the built-in base reconstruct: the baseline view, train split, of a profile.

    python benchmarks/noise_free.py [--profile quick] [--epochs 30 100]

Noise-free means the expected intensities themselves at 1e6 photons per exposure, not counts drawn from them. What is
left is what the algorithm has not converged to, and what alignment and interpolation add.
"""

from __future__ import annotations

import argparse

import numpy as np
from profiles import method_settings, profile_base

from fly64_nb.comparison import Image, compare_condition
from fly64_nb.datasets import split_scan
from fly64_nb.methods.lsqml import LSQML
from fly64_nb.methods.ptychi.solver import reconstruct
from fly64_nb.physics.optics import diffraction_intensity
from fly64_nb.quality.alignment import common_field
from fly64_nb.study.condition import Condition


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--epochs", type=int, nargs="+", default=[30, 100])
    arguments = parser.parse_args()
    base = profile_base(arguments.profile)
    rows = split_scan(base.y, base.probe).train
    y, x = base.y[rows], base.x[rows]
    intensity = diffraction_intensity(base.object, base.probe, y, x)
    intensity *= 1e6 / intensity.sum((1, 2)).mean()
    field, condition = common_field([(y, x)], base.object.shape), Condition(np.inf, "baseline", "train")
    print(f"{len(rows)} patterns of {base.window}², field {field.shape[0]} x {field.shape[1]} px")
    for epochs in arguments.epochs:
        # photons can only be held out of whole counts
        settings = method_settings(LSQML, arguments.profile, epochs=epochs, hold_out=0.0)
        found = reconstruct(intensity, y, x, base.probe, settings)
        image = Image(found.object, found.origin, found.seconds)
        table = compare_condition(base.object, field, {"LSQML": image}, condition).table
        value = table.set_index(["channel", "metric"])["value"]
        print(
            f"{epochs:4d} epochs, {found.seconds:6.1f} s: phase SSIM {value['phase', 'ssim']:.4f}, "
            f"MS-SSIM {value['phase', 'ms_ssim']:.4f}, RMSE {value['phase', 'rmse']:.4f} rad; "
            f"amplitude SSIM {value['amplitude', 'ssim']:.4f}, RMSE {value['amplitude', 'rmse']:.5f}"
        )


if __name__ == "__main__":
    main()
