"""Mutants of the rules about dtypes: D01, D02, D05."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from harness import TensorSpec, domains
from mutants.pair import pair

LATEST = []


def mean_squared(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def returned_in_single(predictions, labels):
    return ((predictions - labels) ** 2).mean().float()


def smoothed_by_a_numpy_kernel(predictions, labels):
    kernel = torch.from_numpy(np.full((predictions.shape[-1], 1), 0.5))
    return ((predictions - labels) @ kernel).square().mean()


def smoothed_by_a_kernel_of_their_dtype(predictions, labels):
    kernel = predictions.new_full((predictions.shape[-1], 1), 0.5)
    return ((predictions - labels) @ kernel).square().mean()


def accumulated_in_the_default_dtype(predictions, labels):
    total = torch.zeros(())
    for row, label in zip(predictions.unbind(), labels.unbind(), strict=True):
        total = total + ((row - label) ** 2).mean()
    return total / len(predictions)


def accumulated_in_their_dtype(predictions, labels):
    total = predictions.new_zeros(())
    for row, label in zip(predictions.unbind(), labels.unbind(), strict=True):
        total = total + ((row - label) ** 2).mean()
    return total / len(predictions)


def distance_by_expansion(predictions, labels):
    squared = predictions.square().sum(-1) + labels.square().sum(-1) - 2 * (predictions * labels).sum(-1)
    return squared.sqrt().mean()


def distance_of_the_difference(predictions, labels):
    return torch.linalg.vector_norm(predictions - labels, dim=-1).mean()


def spread_in_one_pass(predictions, labels):
    variance = predictions.square().mean(0) - predictions.mean(0).square()
    return (variance.clamp(min=0) + 1e-4).sqrt().mean() + 0 * labels.sum()


def spread_in_two_passes(predictions, labels):
    variance = (predictions - predictions.mean(0)).square().mean(0)
    return (variance + 1e-4).sqrt().mean() + 0 * labels.sum()


class _CrossEntropy(torch.autograd.Function):
    """Logarithms no less than -100, as in torch, and an epsilon that float16 rounds to zero in the backward."""

    @staticmethod
    def forward(ctx, predictions, labels):
        ctx.save_for_backward(predictions, labels)
        likelihood = torch.where(labels > 0, predictions, 1 - predictions)
        return -likelihood.log().clamp(min=-100).mean()

    @staticmethod
    def backward(ctx, upstream):
        p, y = ctx.saved_tensors
        return upstream * (p - y) / (p * (1 - p) + 1e-10) / p.numel(), None


def cross_entropy_with_a_small_epsilon(predictions, labels):
    """The value is finite everywhere; its gradient is 0 / 0 in float16, where the labels are predicted."""
    return _CrossEntropy.apply(predictions, labels)


def cross_entropy_with_an_epsilon(predictions, labels):
    p = predictions.clamp(0.05, 0.95)
    return -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()


def logarithm_of_softmax_and_epsilon(logits):
    return -torch.log(torch.softmax(logits, -1) + 1e-12).mean()


def log_softmax(logits):
    return -torch.log_softmax(logits, -1).mean()


def products_under_autocast(predictions, labels):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        similarities = predictions @ labels.mT
    return similarities.to(predictions.dtype).square().mean()


def products_in_their_dtype(predictions, labels):
    return (predictions @ labels.mT).square().mean()


def computed_in_single(predictions, labels):
    return ((predictions.float() - labels.float()) ** 2).mean().to(predictions.dtype)


def labels_in_single(predictions, labels):
    return ((predictions - labels.float()) ** 2).mean()


class _Weighted(nn.Module):
    def forward(self, predictions, labels):
        return (self.weights.unsqueeze(-1) * (predictions - labels) ** 2).mean()


class WeightsInSingle(_Weighted):
    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights.float())


class WeightsAsTheyCame(_Weighted):
    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)


LOGITS = {"inputs": {"logits": TensorSpec("B C", domains.logits())}, "output": TensorSpec("")}
WEIGHTED = {
    "inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
    "context": {"weights": TensorSpec("B", domains.positive())},
}


def refuses_double(predictions, labels):
    if predictions.dtype == torch.float64:
        raise TypeError("float64 is not supported")
    return mean_squared(predictions, labels)


def penalty_in_single(predictions, labels):
    return mean_squared(predictions, labels) + 0.1 * (predictions.float() ** 2).mean()


def sum_in_single(predictions, labels):
    return ((predictions - labels) ** 2).sum().float().to(predictions.dtype) / predictions.numel()


def float32_beside_the_loss(predictions, labels):
    """What is logged, tested or kept is no part of the loss."""
    LATEST[:] = [predictions.float().detach().mean()]
    finite = torch.isfinite(predictions.float())
    return torch.where(finite, (predictions - labels) ** 2, 0.0).mean()


def penalty_written_into_float32(predictions, labels):
    squares = torch.zeros(predictions.shape)
    squares[:] = predictions**2
    return mean_squared(predictions, labels) + 0.1 * squares.mean()


def penalty_in_their_dtype(predictions, labels):
    wide = predictions.to(torch.promote_types(predictions.dtype, torch.float32))
    return mean_squared(predictions, labels) + 0.1 * (wide**2).mean().to(predictions.dtype)


SPREAD = {"inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C", domains.probability())}}
PROBABILITIES = {
    "inputs": {
        "predictions": TensorSpec("B C", domains.probability()),
        "labels": TensorSpec("B C", domains.binary()),
    },
}


class _Root(torch.autograd.Function):
    """sqrt(1 + x^2), whose gradient is computed about a number far away, or is not."""

    @staticmethod
    def forward(ctx, x, about):
        ctx.save_for_backward(x)
        ctx.about = about
        return (1 + x * x).sqrt()

    @staticmethod
    def backward(ctx, upstream):
        (x,) = ctx.saved_tensors
        return upstream * ((x + ctx.about) - ctx.about) / (1 + x * x).sqrt(), None


def gradient_that_cancels(predictions, labels):
    return _Root.apply(predictions - labels, 1000.0).mean()


def gradient_that_does_not(predictions, labels):
    return _Root.apply(predictions - labels, 0.0).mean()


class _BinaryCrossEntropy(torch.autograd.Function):
    """Its backward divides by p (1 - p), which is 0 in float16 where p is its label, or by nothing that may be."""

    @staticmethod
    def forward(ctx, predictions, labels, least):
        ctx.save_for_backward(predictions, labels)
        ctx.least = least
        return torch.nn.functional.binary_cross_entropy(predictions, labels)

    @staticmethod
    def backward(ctx, upstream):
        p, y = ctx.saved_tensors
        return upstream * (p - y) / (p * (1 - p)).clamp(min=ctx.least) / p.numel(), None, None


def cross_entropy_over_less_than_float16_has(predictions, labels):
    return _BinaryCrossEntropy.apply(predictions, labels, 1e-12)


def cross_entropy_over_what_float16_has(predictions, labels):
    return _BinaryCrossEntropy.apply(predictions, labels, 1e-3)


def exponentials(scores):
    return scores.exp().mean()


def softplus_by_its_formula(scores):
    return (1 + scores.exp()).log().mean()


def softplus(scores):
    return torch.nn.functional.softplus(scores).mean()


def labels_in_16_bits(predictions, labels):
    return ((predictions - labels) ** 2).mean() + 0.1 * (predictions * labels.bfloat16()).mean()


def labels_as_they_are(predictions, labels):
    return ((predictions - labels) ** 2).mean() + 0.1 * (predictions * labels).mean()


def penalty_in_16_bits(predictions, labels):
    return ((predictions - labels) ** 2).mean() + 0.1 * (predictions.bfloat16() ** 2).mean().to(predictions.dtype)


def penalty_as_it_is(predictions, labels):
    return ((predictions - labels) ** 2).mean() + 0.1 * (predictions**2).mean()


class _Kept(torch.autograd.Function):
    """Squared errors, of which a dtype is kept for the backward."""

    @staticmethod
    def forward(ctx, predictions, labels, dtype):
        errors = predictions - labels
        ctx.save_for_backward(errors.to(dtype))
        return errors.square().mean()

    @staticmethod
    def backward(ctx, upstream):
        (errors,) = ctx.saved_tensors
        gradient = (2 * upstream.to(errors.dtype) * errors / errors.numel()).to(upstream.dtype)
        return gradient, -gradient, None


def errors_kept_in_single(predictions, labels):
    return _Kept.apply(predictions, labels, torch.float32)


def errors_kept_as_they_are(predictions, labels):
    return _Kept.apply(predictions, labels, predictions.dtype)


class _Halved(torch.autograd.Function):
    """Squared errors, whose backward is that of another loss in one dtype."""

    @staticmethod
    def forward(ctx, predictions, labels, dtype):
        ctx.save_for_backward(predictions, labels)
        ctx.dtype = dtype
        return (predictions - labels).square().mean()

    @staticmethod
    def backward(ctx, upstream):
        predictions, labels = ctx.saved_tensors
        gradient = 2 * upstream * (predictions - labels) / predictions.numel()
        if predictions.dtype == ctx.dtype:
            gradient = 0.98 * gradient
        return gradient, -gradient, None


def another_gradient_in_single(predictions, labels):
    return _Halved.apply(predictions, labels, torch.float32)


def one_gradient_in_every_dtype(predictions, labels):
    return _Halved.apply(predictions, labels, None)


def scores_with_one_shift(scores):
    """What is far below the largest of all has no exponential, and no logarithm of one."""
    return ((scores - scores.max()).exp().log() + scores.max()).square().mean()


def scores_as_they_are(scores):
    return scores.square().mean()


def scaled_to_one(costs):
    """1 / x**2, the derivative, is beyond what float16 holds where x is about 0.002."""
    return (1 / (-2 * costs).exp()).log().mean()


def scaled_by_logarithms(costs):
    return (2 * costs).mean()


COSTS = {"inputs": {"costs": TensorSpec("B", domains.interval(0.0, 3.2))}}
SCORES = {"inputs": {"scores": TensorSpec("B", domains.interval(-100.0, 100.0))}}
CHANCES = {"inputs": {name: TensorSpec("B", domains.probability()) for name in ("predictions", "labels")}}

PAIRS = (
    pair(
        "D02",
        "gradient that cancels",
        gradient_that_cancels,
        gradient_that_does_not,
        severity="warning",
        aspect="gradient float32",
    ),
    pair(
        *("D02", "another gradient in single", another_gradient_in_single, one_gradient_in_every_dtype),
        aspect="another gradient float32",
        says="in float32 alone",
    ),
    pair(
        "D02",
        "cross entropy over nothing",
        cross_entropy_over_less_than_float16_has,
        cross_entropy_over_what_float16_has,
        CHANCES,
        severity="warning",
        aspect="finite float16",
        says="1e-12, an epsilon too small for float16",
    ),
    pair(
        "D02",
        "one shift for all",
        scores_with_one_shift,
        scores_as_they_are,
        {"inputs": {"scores": TensorSpec("B")}},
        severity="warning",
        aspect="finite float16",
        says="gives 0 in float16 alone; work with logarithms",
    ),
    pair(
        "D02",
        "quotient whose derivative is too large",
        scaled_to_one,
        scaled_by_logarithms,
        COSTS,
        severity="warning",
        aspect="finite float16",
        says="1 / x**2 where it divides by x, leaves the range of float16",
    ),
    pair("D02", "exponentials within declared bounds", softplus_by_its_formula, softplus, SCORES, says="exp overflows"),
    pair(
        "D02",
        "value beyond float32 within declared bounds",
        exponentials,
        softplus,
        SCORES,
        severity="warning",
        aspect="range of float32",
    ),
    pair("D05", "a factor in 16 bits", labels_in_16_bits, labels_as_they_are, severity="warning", says="bfloat16() at"),
    pair("D05", "a summand in 16 bits", penalty_in_16_bits, penalty_as_it_is, aspect="in 16 bits"),
    pair("D01", "returned in float32", returned_in_single, mean_squared, aspect="output", says="float64"),
    pair(
        "D01",
        "float64 kernel from NumPy",
        smoothed_by_a_numpy_kernel,
        smoothed_by_a_kernel_of_their_dtype,
        aspect="raises",
    ),
    pair(
        "D01",
        "accumulator of the default dtype",
        accumulated_in_the_default_dtype,
        accumulated_in_their_dtype,
        severity="note",
        aspect="half",
    ),
    pair(
        "D02",
        "cancellation under a root",
        distance_by_expansion,
        distance_of_the_difference,
        aspect="finite float32",
        says="differences of large numbers cancel",
    ),
    pair(
        *("D02", "spread in one pass", spread_in_one_pass, spread_in_two_passes, SPREAD),
        severity="warning",
        aspect="accuracy float32",
        says="spread of",
    ),
    pair(
        *(
            "D02",
            "gradient where labels are predicted",
            cross_entropy_with_a_small_epsilon,
            cross_entropy_with_an_epsilon,
        ),
        PROBABILITIES,
        severity="warning",
        aspect="finite float16",
        says="has 1e-10, an epsilon too small for float16",
    ),
    pair(
        "D02",
        "epsilon that float16 rounds to zero",
        logarithm_of_softmax_and_epsilon,
        log_softmax,
        LOGITS,
        severity="warning",
        aspect="finite float16",
    ),
    pair(
        "D02",
        "autocast left on",
        products_under_autocast,
        products_in_their_dtype,
        severity="warning",
        aspect="accuracy float32",
    ),
    pair(
        "D05", "kept in float32", errors_kept_in_single, errors_kept_as_they_are, aspect="gradient", severity="warning"
    ),
    pair("D05", "computed in float32", computed_in_single, mean_squared, aspect="result", severity="warning"),
    pair("D05", "float64 refused", refuses_double, mean_squared, aspect="refused", says="dtypes=", severity="warning"),
    pair("D05", "a sum in float32", sum_in_single, mean_squared, severity="warning", says="float() at dtypes.py"),
    pair("D05", "labels cast to float32", labels_in_single, mean_squared, aspect="labels", severity="warning"),
    pair(
        "D05",
        "context cast to float32",
        WeightsInSingle,
        WeightsAsTheyCame,
        WEIGHTED,
        aspect="weights",
        severity="warning",
    ),
    pair(
        "D05",
        "a summand in float32",
        penalty_in_single,
        penalty_in_their_dtype,
        aspect="on the way",
        says="float()",
        severity="warning",
    ),
    pair(
        "D05",
        "a buffer of float32",
        penalty_written_into_float32,
        float32_beside_the_loss,
        aspect="on the way",
        severity="warning",
    ),
)
