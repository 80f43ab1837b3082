"""Mutants of the rules about sizes that are easily forgotten: B02, B05, B07."""

from __future__ import annotations

import torch

from harness import TensorSpec, domains
from mutants.pair import PAIRWISE, pair


def masked_mean_of_what_the_mask_holds(predictions, labels, mask):
    return (mask * (predictions - labels) ** 2).sum() / mask.sum()


def masked_mean_of_what_the_mask_covers(predictions, labels, mask):
    return (mask * (predictions - labels) ** 2).sum() / mask.expand_as(predictions).sum()


def weights_by_matrix_product(predictions, labels, weights):
    return ((predictions - labels) ** 2 @ weights.unsqueeze(-1)).mean()


def weights_by_product(predictions, labels, weights):
    return ((predictions - labels) ** 2 * weights).sum(-1).mean()


class _OneGradientForAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx, offsets, shape):
        ctx.shape = offsets.shape
        return offsets.expand(shape).clone()

    @staticmethod
    def backward(ctx, gradient):
        kept = [slice(0, size) for size in ctx.shape]
        return gradient[tuple(kept)], None


def offset_with_the_first_gradient(predictions, offsets):
    return ((predictions - _OneGradientForAll.apply(offsets, predictions.shape)) ** 2).mean()


def offset_expanded(predictions, offsets):
    return ((predictions - offsets.expand(predictions.shape)) ** 2).mean()


def products_of_squeezed(predictions, labels):
    return torch.einsum("bc,bc->b", predictions.squeeze(), labels.squeeze()).mean()


def products(predictions, labels):
    return torch.einsum("bc,bc->b", predictions, labels).sum() / max(len(predictions), 1)


def spread_with_correction(predictions, labels):
    return (predictions - labels).var(dim=0).sum()


def spread_around_the_mean(predictions, labels):
    errors = predictions - labels
    return (errors - errors.sum(0) / max(len(errors), 1)).square().sum() / max(len(errors), 1)


def spread_of_two_rows_or_more(predictions, labels):
    if len(predictions) == 1:
        raise ValueError("the spread needs at least two rows")
    return spread_around_the_mean(predictions, labels)


def spread_of_squeezed(predictions, labels):
    if predictions.squeeze().ndim != 2 and predictions.numel() > 1:
        raise ValueError(f"predictions have {predictions.squeeze().ndim} axes, expected 2: rows and columns")
    return spread_around_the_mean(predictions, labels)


def largest_error(predictions, labels):
    return (predictions - labels).abs().sum(-1).max()


def largest_error_or_zero(predictions, labels):
    errors = (predictions - labels).abs().sum(-1)
    return torch.cat([errors, errors.new_zeros(1)]).max()


def _reduced(errors, reduction):
    return {"none": lambda: errors, "mean": errors.mean, "sum": errors.sum}[reduction]()


def squared(predictions, labels, reduction="mean"):
    return _reduced((predictions - labels) ** 2, reduction)


def sum_over_classes_mean_over_samples(predictions, labels, reduction="mean"):
    errors = (predictions - labels) ** 2
    return errors.sum(-1).mean() if reduction == "sum" else _reduced(errors, reduction)


def mean_of_what_is_not_zero(predictions, labels, reduction="mean"):
    hinges = (predictions - labels).clamp(min=0)
    return hinges.sum() / (hinges > 0).sum().clamp(min=1) if reduction == "mean" else _reduced(hinges, reduction)


def mean_of_hinges(predictions, labels, reduction="mean"):
    return _reduced((predictions - labels).clamp(min=0), reduction)


def no_sum_of_weighted(predictions, labels, weights, reduction="mean"):
    errors = weights.unsqueeze(-1) * (predictions - labels) ** 2
    if reduction == "sum":
        return errors.sum() / weights.sum().view(-1, 2)[0, 0]
    return _reduced(errors, reduction)


def weighted_squares(predictions, labels, weights, reduction="mean"):
    return _reduced(weights.unsqueeze(-1) * (predictions - labels) ** 2, reduction)


def two_strings(predictions, labels, weights, reduction="mean"):
    """Takes two of the strings, and refuses the third as any other."""
    if reduction not in ("none", "mean"):
        raise ValueError(f"reduction is 'none' or 'mean', not {reduction!r}")
    return _reduced(weights.unsqueeze(-1) * (predictions - labels) ** 2, reduction)


class WeightedMean(torch.nn.Module):
    def __init__(self, weights, reduction="mean"):
        super().__init__()
        self.register_buffer("weights", weights)
        self.reduction = reduction

    def forward(self, predictions, labels):
        errors = self.weights.unsqueeze(-1) * (predictions - labels) ** 2
        return self.reduce(errors)

    def reduce(self, errors):
        if self.reduction == "mean":
            return errors.sum() / (self.weights.sum() * errors.shape[-1])
        return _reduced(errors, self.reduction)


class WeightsCountTwiceInTheSum(WeightedMean):
    def reduce(self, errors):
        return (self.weights.unsqueeze(-1) * errors).sum() if self.reduction == "sum" else super().reduce(errors)


MASKED = {
    "inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
    "context": {"mask": TensorSpec("B #C", domains.positive())},
    "output": TensorSpec(""),
}
WEIGHTED_CLASSES = {
    "inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
    "context": {"weights": TensorSpec("#C", domains.positive())},
}
OFFSETS = {
    "inputs": {"predictions": TensorSpec("B C"), "offsets": TensorSpec("#B #C")},
    "differentiable": ("predictions", "offsets"),
}
WEIGHTED_SAMPLES = {
    "inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
    "context": {"weights": TensorSpec("B", domains.positive())},
}
EMPTY_PROMISED = {**PAIRWISE, "requires": ("B05",)}


class _EachSquare(torch.autograd.Function):
    """(p - y)^2, whose backward takes the mean of the upstream gradient for each of its elements, or does not."""

    @staticmethod
    def forward(ctx, predictions, labels, averages):
        ctx.save_for_backward(predictions, labels)
        ctx.averages = averages
        return (predictions - labels) ** 2

    @staticmethod
    def backward(ctx, upstream):
        predictions, labels = ctx.saved_tensors
        given = upstream.mean() if ctx.averages else upstream
        return 2 * given * (predictions - labels), None, None


def _reduced(values, reduction):
    return {"none": values, "mean": values.mean(), "sum": values.sum()}[reduction]


def upstream_averaged(predictions, labels, reduction="mean"):
    return _reduced(_EachSquare.apply(predictions, labels, True), reduction)


def upstream_by_element(predictions, labels, reduction="mean"):
    return _reduced(_EachSquare.apply(predictions, labels, False), reduction)


PAIRS = (
    pair(
        "B02",
        "mask counted once for all classes",
        masked_mean_of_what_the_mask_holds,
        masked_mean_of_what_the_mask_covers,
        MASKED,
        aspect="mask",
    ),
    pair(
        "B02",
        "declared broadcast refused",
        weights_by_matrix_product,
        weights_by_product,
        WEIGHTED_CLASSES,
        says="RuntimeError",
    ),
    pair(
        "B02",
        "gradient of the first element only",
        offset_with_the_first_gradient,
        offset_expanded,
        OFFSETS,
        aspect="offsets gradient",
    ),
    pair("B05", "raises on one sample", products_of_squeezed, products, severity="warning", aspect="size of one"),
    pair(
        "B05",
        "variance of one sample",
        spread_with_correction,
        spread_around_the_mean,
        severity="warning",
        aspect="not finite on a size of one",
    ),
    pair(
        "B05",
        "maximum of nothing",
        largest_error,
        largest_error_or_zero,
        severity="note",
        aspect="raises on an empty batch",
    ),
    pair(
        "B05",
        "refuses one row in words",
        spread_of_two_rows_or_more,
        spread_around_the_mean,
        severity="note",
        aspect="refuses on a size of one",
    ),
    pair(
        "B05",
        "refuses what it has squeezed",
        spread_of_squeezed,
        spread_around_the_mean,
        severity="warning",
        aspect="raises on a size of one",
    ),
    pair("B05", "promised empty batch", largest_error, largest_error_or_zero, EMPTY_PROMISED, aspect="empty batch"),
    pair("B07", "sum is a mean over samples", sum_over_classes_mean_over_samples, squared, aspect="sum"),
    pair("B07", "upstream averaged", upstream_averaged, upstream_by_element, aspect="none gradient"),
    pair("B07", "weights twice in the sum", WeightsCountTwiceInTheSum, WeightedMean, WEIGHTED_SAMPLES, aspect="sum"),
    pair(
        *("B07", "sum raises where the others work", no_sum_of_weighted, weighted_squares, WEIGHTED_SAMPLES),
        severity="warning",
        aspect="sum raises",
    ),
    pair(
        "B07", "mean of what is not zero", mean_of_what_is_not_zero, mean_of_hinges, severity="warning", aspect="mean"
    ),
)
