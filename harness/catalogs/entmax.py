"""The losses of entmax, declared as its documentation says; sparsemax beside its formula, 1.5-entmax beside the bisection.

Source: https://github.com/deep-spin/entmax
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require

package = require("entmax")


def sparsemax(X: Tensor, target: Tensor) -> Tensor:
    """Mean of (1 - |p|²) / 2 + <p, x> - x_target for the p of sparsemax, whose threshold is the largest of (sum of the k largest - 1) / k.

    Source: Martins & Astudillo, From Softmax to Sparsemax, ICML 2016.
    """
    x = X - X.detach().amax(1, keepdim=True)
    counts = torch.arange(1, x.shape[1] + 1, device=x.device)
    largest = x.detach().sort(1, descending=True).values.cumsum(1)
    support = x > ((largest - 1) / counts).amax(1, keepdim=True)
    threshold = (x.where(support, 0).sum(1, keepdim=True) - 1) / support.sum(1, keepdim=True)
    p = (x - threshold).where(support, 0)
    return ((1 - p.square().sum(1)) / 2 + (p * x).sum(1) - x.gather(1, target[:, None])[:, 0]).mean()


def spec(name: str, implementations: Mapping[str, Callable[..., Any]]) -> LossSpec:
    """One loss of scores and class indices, the mean over samples."""
    return LossSpec(
        f"entmax.{name}",
        implementations,
        inputs={"X": TensorSpec("B C", domains.logits()), "target": TensorSpec("B", domains.index("C"))},
        output=TensorSpec(""),
        laws=(laws.mean_over("B"), laws.permutation("C"), laws.translation_invariant("X"), laws.nonnegative()),
    )


SPECS = (
    spec("SparsemaxLoss", {"formula": sparsemax, "entmax": package.SparsemaxLoss}),
    spec("SparsemaxBisectLoss", {"formula": sparsemax, "entmax": package.SparsemaxBisectLoss}),
    spec("Entmax15Loss", {"bisection": package.EntmaxBisectLoss, "entmax": package.Entmax15Loss}),
)
