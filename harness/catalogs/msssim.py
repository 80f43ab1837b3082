"""The structural similarities of pytorch-msssim, declared as its documentation says.  More is better: a loss is 1 - SSIM.

Source: https://github.com/VainF/pytorch-msssim
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require

package = require("pytorch_msssim")

IMAGES = {
    "X": TensorSpec("B C H W", domains.interval(0.0, 1.0)),
    "Y": TensorSpec("B C H W", domains.interval(0.0, 1.0)),
}
SHARED = (laws.symmetric("X", "Y"), laws.mean_over("B"))


def ssim(X: Tensor, Y: Tensor, win_size: int) -> Tensor:
    """Mean of (2 μ_x μ_y + c₁)(2 σ_xy + c₂) / ((μ_x² + μ_y² + c₁)(σ_x² + σ_y² + c₂)) over windows, samples, channels."""
    steps = torch.arange(win_size, dtype=X.dtype) - win_size // 2
    window = (-(steps**2) / (2 * 1.5**2)).exp()
    window = torch.outer(window, window) / window.sum() ** 2

    def local(image: Tensor) -> Tensor:
        flat = image.reshape(-1, 1, *image.shape[2:])
        return F.conv2d(flat, window[None, None])

    x, y = local(X), local(Y)
    covariance, of_x, of_y = local(X * Y) - x * y, local(X**2) - x**2, local(Y**2) - y**2
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * x * y + c1) * (2 * covariance + c2) / ((x**2 + y**2 + c1) * (of_x + of_y + c2))).mean()


SPECS = (
    LossSpec(
        "msssim.ssim",
        {"formula": ssim, "msssim": package.ssim},
        inputs=IMAGES,
        output=TensorSpec(""),
        differentiable=("X", "Y"),
        options={"data_range": 1.0, "win_size": 3},
        fixed_sizes={"H": 4, "W": 5},
        laws=(*SHARED, laws.mean_over("C")),
    ),
    LossSpec(
        "msssim.ms_ssim",
        {"msssim": package.ms_ssim},
        inputs=IMAGES,
        output=TensorSpec(""),
        differentiable=("X",),
        options={"data_range": 1.0, "win_size": 3},
        fixed_sizes={"C": 1, "H": 33, "W": 34},  # the smaller side must be above 16 (win_size - 1)
        laws=SHARED,
    ),
)
