"""Samplers for tensors that no domain of `harness.domains` makes; a proposed file holds their source as it stands here."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from harness.declare.domain import Make


def positive_definite(
    shape: tuple[int, ...],
    generator: Generator,
    dtype: torch.dtype,
) -> Tensor:
    """Symmetric positive definite matrices: A Aᵀ / n + I."""
    root = torch.randn(shape, generator=generator, dtype=torch.float64)
    unit = torch.eye(shape[-1], dtype=torch.float64)
    return (root @ root.mT / shape[-1] + unit).to(dtype)


def distinct_classes(
    shape: tuple[int, ...],
    generator: Generator,
    dtype: torch.dtype,
) -> Tensor:
    """In each row some distinct classes, then -1."""
    labels = torch.rand(shape, generator=generator).argsort(-1)
    kept = torch.arange(shape[-1]) < max(shape[-1] // 2, 1)
    return torch.where(kept, labels, -1).to(dtype)


# By name, each with the dtype of what it makes where that is fixed.
SAMPLERS: Mapping[str, tuple[Make, torch.dtype | None]] = {
    "positive_definite": (positive_definite, None),
    "distinct_classes": (distinct_classes, torch.int64),
}
