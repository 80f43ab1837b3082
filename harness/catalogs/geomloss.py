"""The distances between point clouds of geomloss, declared as its documentation says; the kernel norms beside the formula.

Source: https://www.kernel-operations.io/geomloss/api/pytorch-api.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require
from harness.declare.laws import Law

package = require("geomloss")

BLUR = 0.5
UNIT = domains.interval(0.0, 1.0)


def distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j| with a zero gradient where the points coincide."""
    squares = ((x[:, None] - y) ** 2).sum(-1)
    return squares.where(squares > 0, 1).sqrt().where(squares > 0, 0)


def kernel_norm(x: Tensor, y: Tensor, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """1/2 |α - β|²_k = 1/2 mean k(x, x) + 1/2 mean k(y, y) - mean k(x, y), for uniform weights."""
    own = kernel(distances(x, x)).mean() + kernel(distances(y, y)).mean()
    return own / 2 - kernel(distances(x, y)).mean()


def gaussian(x: Tensor, y: Tensor) -> Tensor:
    """The kernel exp(-|x - y|² / 2σ²)."""
    return kernel_norm(x, y, lambda d: (-(d**2) / (2 * BLUR**2)).exp())


def laplacian(x: Tensor, y: Tensor) -> Tensor:
    """The kernel exp(-|x - y| / σ)."""
    return kernel_norm(x, y, lambda d: (-d / BLUR).exp())


def energy(x: Tensor, y: Tensor) -> Tensor:
    """The kernel -|x - y|."""
    return kernel_norm(x, y, torch.neg)


class SamplesLoss(nn.Module):
    """`geomloss.SamplesLoss` on tensors in memory; the package's own takes its tensors by position alone.

    Args:
        loss: which distance.
        blur: σ of the kernel, or ε = σ² of the entropy.
        reach: how far mass is moved before it is cheaper to destroy it; all of it where ``None``.
    """

    def __init__(self, loss: str, blur: float, reach: float | None = None) -> None:
        super().__init__()
        self.distance = package.SamplesLoss(loss, blur=blur, reach=reach, backend="tensorized")

    def forward(self, x: Tensor, y: Tensor) -> Any:
        """The distance between x [N, D] and y [M, D]."""
        return self.distance(x, y)


def spec(kind: str, formula: Callable[..., Any] | None, *further: Law, **options: object) -> LossSpec:
    """One kind of `SamplesLoss` between clouds of points in the unit cube, all points of one weight."""
    own: Mapping[str, Callable[..., Any]] = {"geomloss": SamplesLoss}
    return LossSpec(
        f"geomloss.SamplesLoss-{kind}",
        own if formula is None else {"formula": formula, **own},
        inputs={"x": TensorSpec("N D", UNIT), "y": TensorSpec("M D", UNIT)},
        output=TensorSpec(""),
        differentiable=("x", "y"),
        options={"loss": kind.partition("-")[0], "blur": BLUR, **options},
        laws=(laws.nonnegative(), laws.permutation("N"), laws.permutation("M"), laws.permutation("D"), *further),
    )


SPECS = (
    spec("gaussian", gaussian),
    spec("laplacian", laplacian),
    spec("energy", energy),
    spec("hausdorff", None),
    spec("sinkhorn", None).replace(detaches=True),
    spec("sinkhorn-unbalanced", None, reach=1.0).replace(detaches=True),
)
