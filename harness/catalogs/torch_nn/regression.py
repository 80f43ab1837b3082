"""torch's losses between numbers: squared and absolute errors, likelihoods of counts and of Gaussians, divergences.

Formulas are those of the documentation of torch.nn; shapes are any unless a spec says otherwise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs.torch_nn._shared import ANY_SHAPE, SAMPLEWISE, SCALAR, in_double, reduce, same_shape

_ERRORS = (
    laws.symmetric("input", "target"),
    laws.translation_invariant("input", "target"),
    laws.nonnegative(),
    laws.zero_when_equal("input", "target"),
    *SAMPLEWISE,
)
_WEIGHT = {"weight": TensorSpec("B *rest", domains.nonnegative())}
_WEIGHTED = (laws.nonnegative(), laws.permutation("B"), laws.zero_weight_removes("weight"))


@in_double
def squared_error(input: Tensor, target: Tensor, weight: Tensor | float = 1.0, reduction: str = "mean") -> Tensor:
    """w (x - y)²."""
    same_shape(input, target, *([weight] if isinstance(weight, Tensor) else []))
    return reduce(weight * (input - target) ** 2, reduction)


@in_double
def absolute_error(input: Tensor, target: Tensor, weight: Tensor | float = 1.0, reduction: str = "mean") -> Tensor:
    """w |x - y|."""
    same_shape(input, target, *([weight] if isinstance(weight, Tensor) else []))
    return reduce(weight * (input - target).abs(), reduction)


@in_double
def smooth_absolute_error(input: Tensor, target: Tensor, beta: float = 1.0, reduction: str = "mean") -> Tensor:
    """(x - y)² / 2β where |x - y| < β, else |x - y| - β / 2; for β = 0 the absolute error."""
    same_shape(input, target)
    distance = (input - target).abs()
    square = distance**2 / (2 * beta) if beta else distance
    return reduce(torch.where(distance < beta, square, distance - beta / 2), reduction)


@in_double
def huber(
    input: Tensor, target: Tensor, delta: float = 1.0, weight: Tensor | float = 1.0, reduction: str = "mean"
) -> Tensor:
    """w (x - y)² / 2 where |x - y| <= δ, else w δ (|x - y| - δ / 2)."""
    same_shape(input, target, *([weight] if isinstance(weight, Tensor) else []))
    distance = (input - target).abs()
    errors = torch.where(distance <= delta, distance**2 / 2, delta * (distance - delta / 2))
    return reduce(weight * errors, reduction)


@in_double
def poisson_likelihood(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:
    """exp(x) - y x, or x - y log(x + ε) of a rate x; with ``full`` and where y > 1, + y log y - y + log(2πy) / 2."""
    same_shape(input, target)
    errors = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        stirling = target * target.log() - target + (2 * math.pi * target).log() / 2
        errors = errors + torch.where(target > 1, stirling, 0.0)
    return reduce(errors, reduction)


@in_double
def gaussian_likelihood(
    input: Tensor, target: Tensor, var: Tensor, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """(log max(v, ε) + (x - y)² / max(v, ε)) / 2; with ``full`` + log(2π) / 2.  One variance for each element."""
    same_shape(input, target, var)
    variance = var.clamp(min=eps)
    errors = (variance.log() + (input - target) ** 2 / variance) / 2
    return reduce(errors + math.log(2 * math.pi) / 2 if full else errors, reduction)


def gaussian_likelihood_by_row(input: Tensor, target: Tensor, var: Tensor, reduction: str = "mean") -> Tensor:
    """`gaussian_likelihood` with one variance for each row."""
    same_shape(input[:, 0], var)
    return gaussian_likelihood(input=input, target=target, var=var.unsqueeze(-1).expand_as(input), reduction=reduction)


@in_double
def divergence(input: Tensor, target: Tensor, log_target: bool = False, reduction: str = "mean") -> Tensor:
    """y (log y - x) of log-probabilities x, with 0 log 0 = 0; the mean of ``batchmean`` is over samples."""
    same_shape(input, target)
    probabilities = target.exp() if log_target else target
    entropy = probabilities * target if log_target else torch.xlogy(target, target)
    errors = entropy - probabilities * input
    return errors.sum() / len(input) if reduction == "batchmean" else reduce(errors, reduction)


MSE = LossSpec(
    "nn.MSELoss",
    {"formula": squared_error, "torch": nn.MSELoss},
    inputs=ANY_SHAPE,
    output=SCALAR,
    laws=_ERRORS,
)
MSE_WEIGHTED = LossSpec(
    "nn.functional.mse_loss-weighted",
    {"formula": squared_error, "torch": functional.mse_loss},
    inputs=ANY_SHAPE,
    context=_WEIGHT,
    output=SCALAR,
    laws=_WEIGHTED,
)
L1 = LossSpec(
    "nn.L1Loss",
    {"formula": absolute_error, "torch": nn.L1Loss},
    inputs=ANY_SHAPE,
    output=SCALAR,
    laws=_ERRORS,
)
L1_WEIGHTED = LossSpec(
    "nn.functional.l1_loss-weighted",
    {"formula": absolute_error, "torch": functional.l1_loss},
    inputs=ANY_SHAPE,
    context=_WEIGHT,
    output=SCALAR,
    laws=_WEIGHTED,
)
SMOOTH_L1 = LossSpec(
    "nn.SmoothL1Loss",
    {"formula": smooth_absolute_error, "torch": nn.SmoothL1Loss},
    inputs=ANY_SHAPE,
    output=SCALAR,
    laws=_ERRORS,
)
SMOOTH_L1_NARROW = SMOOTH_L1.replace(name="nn.SmoothL1Loss-narrow", options={"beta": 0.25})
SMOOTH_L1_SHARP = SMOOTH_L1.replace(name="nn.SmoothL1Loss-beta_zero", options={"beta": 0.0})
HUBER = LossSpec(
    "nn.HuberLoss",
    {"formula": huber, "torch": nn.HuberLoss},
    inputs=ANY_SHAPE,
    output=SCALAR,
    laws=_ERRORS,
)
HUBER_WIDE = HUBER.replace(name="nn.HuberLoss-wide", options={"delta": 2.5})
HUBER_WEIGHTED = LossSpec(
    "nn.functional.huber_loss-weighted",
    {"formula": huber, "torch": functional.huber_loss},
    inputs=ANY_SHAPE,
    context=_WEIGHT,
    output=SCALAR,
    laws=(*_WEIGHTED, laws.linear_in("weight")),
)
_COUNTS = {"input": TensorSpec("B *rest"), "target": TensorSpec("B *rest", domains.nonnegative())}
POISSON_NLL = LossSpec(
    "nn.functional.poisson_nll_loss",
    {"formula": poisson_likelihood, "torch": functional.poisson_nll_loss},
    inputs=_COUNTS,
    output=SCALAR,
    laws=SAMPLEWISE,
)
POISSON_NLL_FULL = POISSON_NLL.replace(name="nn.functional.poisson_nll_loss-full", options={"full": True})
POISSON_NLL_RATE = POISSON_NLL.replace(
    name="nn.functional.poisson_nll_loss-rate",
    inputs={**_COUNTS, "input": TensorSpec("B *rest", domains.positive())},
    options={"log_input": False},
)
_GAUSSIAN = {"input": TensorSpec("B D"), "target": TensorSpec("B D"), "var": TensorSpec("B D", domains.positive())}
GAUSSIAN_NLL = LossSpec(
    "nn.GaussianNLLLoss",
    {"formula": gaussian_likelihood, "torch": nn.GaussianNLLLoss},
    inputs=_GAUSSIAN,
    output=SCALAR,
    differentiable=("input", "var"),
    laws=(laws.symmetric("input", "target"), laws.translation_invariant("input", "target"), *SAMPLEWISE),
)
GAUSSIAN_NLL_FULL = GAUSSIAN_NLL.replace(name="nn.GaussianNLLLoss-full", options={"full": True})
GAUSSIAN_NLL_ROWS = GAUSSIAN_NLL.replace(
    name="nn.GaussianNLLLoss-homoscedastic",
    implementations={"formula": gaussian_likelihood_by_row, "torch": nn.GaussianNLLLoss},
    inputs={**_GAUSSIAN, "var": TensorSpec("B", domains.positive())},
)
# Log-probabilities have no special points of their own, and the formula holds for all numbers.
KL_DIV = LossSpec(
    "nn.KLDivLoss",
    {"formula": divergence, "torch": nn.KLDivLoss},
    inputs={"input": TensorSpec("B C"), "target": TensorSpec("B C", domains.simplex(axis=1))},
    output=SCALAR,
    laws=(*SAMPLEWISE, laws.permutation("C")),
)
KL_DIV_BATCHMEAN = KL_DIV.replace(name="nn.KLDivLoss-batchmean", options={"reduction": "batchmean"})
KL_DIV_LOG_TARGET = KL_DIV.replace(
    name="nn.KLDivLoss-log_target",
    inputs={"input": TensorSpec("B C"), "target": TensorSpec("B C", domains.interval(-20.0, 0.0))},
    options={"log_target": True},
)

SPECS = (
    MSE,
    MSE_WEIGHTED,
    L1,
    L1_WEIGHTED,
    SMOOTH_L1,
    SMOOTH_L1_NARROW,
    SMOOTH_L1_SHARP,
    HUBER,
    HUBER_WIDE,
    HUBER_WEIGHTED,
    POISSON_NLL,
    POISSON_NLL_FULL,
    POISSON_NLL_RATE,
    GAUSSIAN_NLL,
    GAUSSIAN_NLL_FULL,
    GAUSSIAN_NLL_ROWS,
    KL_DIV,
    KL_DIV_BATCHMEAN,
    KL_DIV_LOG_TARGET,
)
