"""Three losses for the pictures of a report: one is wrong, one is right but slow at some size, one is both fast and right."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from harness import LossSpec, TensorSpec, domains, laws


def naive_weighted_distance(
    predictions: Float[Tensor, "B D"], labels: Float[Tensor, "B D"], weights: Float[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Mean over samples of the weighted distance between prediction and label.

    .. math:: L = 1/B \\sum_b w_b |p_b - y_b|
    """
    total = predictions.new_zeros(())
    for prediction, label, weight in zip(predictions, labels, weights, strict=True):
        total = total + weight * torch.linalg.vector_norm(prediction - label)
    return total / len(predictions)


def vectorized_weighted_distance(predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The norm knows its gradient at zero, and other shapes would broadcast in silence."""
    if predictions.shape != labels.shape or weights.shape != predictions.shape[:1]:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (predictions, labels, weights))
        raise ValueError(f"got shapes {shapes}, expected (B, D), (B, D) and (B,)")
    return (weights * torch.linalg.vector_norm(predictions - labels, dim=-1)).mean()


def expanded_weighted_distance(predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """|p - y|^2 = |p|^2 + |y|^2 - 2 p.y, which is NaN where both are equal."""
    squares = (predictions**2).sum(-1) + (labels**2).sum(-1) - 2 * (predictions * labels).sum(-1)
    return (weights * squares.sqrt()).mean()


def pairwise_weighted_distance(predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Makes all B x B distances to keep those of the diagonal."""
    return (weights * torch.cdist(predictions, labels).diagonal()).mean()


SPEC = LossSpec(
    name="weighted_distance",
    implementations={
        "naive": naive_weighted_distance,
        "vectorized": vectorized_weighted_distance,
        "expanded": expanded_weighted_distance,
        "pairwise": pairwise_weighted_distance,
    },
    context={"weights": TensorSpec("B", domains.nonnegative())},
    laws=(laws.permutation("B"), laws.nonnegative()),
    bench_sizes=({"B": 16, "D": 32}, {"B": 128, "D": 32}, {"B": 1024, "D": 32}),
)
