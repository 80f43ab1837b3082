"""Differentiable functions of torchmetrics that are used as losses, declared as their documentation says.

Most stand beside a short form of the documented formula.  Where more is better, a training loop would negate them.

Source: https://lightning.ai/docs/torchmetrics/stable/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require
from harness.declare.laws import Law

audio = require("torchmetrics.functional.audio")
images = require("torchmetrics.functional.image")
regression = require("torchmetrics.functional.regression")

SCALAR = TensorSpec("")
IMAGE = TensorSpec("B C H W", domains.interval(0.0, 1.0))
SIGNAL = TensorSpec("B time")
EPSILON = 1.17e-6


def cosine_similarity(preds: Tensor, target: Tensor) -> Tensor:
    """Σ x · y / (|x| |y|) over the samples."""
    return (torch.nn.functional.normalize(preds) * torch.nn.functional.normalize(target)).sum()


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Mean over samples of Σ p (log p - log q), 0 log 0 = 0, of both after division by their sums."""
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(1).mean()


def js_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Half of KL(p ‖ m) + KL(q ‖ m) with m = (p + q) / 2."""
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    return (kl_divergence(p, (p + q) / 2) + kl_divergence(q, (p + q) / 2)) / 2


def log_cosh(preds: Tensor, target: Tensor) -> Tensor:
    """Mean of log cosh(x - y), as |d| + log(1 + exp(-2 |d|)) - log 2, which does not overflow."""
    d = (preds - target).abs()
    return (d + torch.nn.functional.softplus(-2 * d) - torch.log(torch.tensor(2.0, dtype=d.dtype))).mean()


def squared_log_error(preds: Tensor, target: Tensor) -> Tensor:
    """Mean of (log(1 + x) - log(1 + y))²."""
    return ((preds.log1p() - target.log1p()) ** 2).mean()


def percentage_error(preds: Tensor, target: Tensor) -> Tensor:
    """Mean of |x - y| / max(ε, |y|)."""
    return ((preds - target).abs() / target.abs().clamp(min=EPSILON)).mean()


def symmetric_percentage_error(preds: Tensor, target: Tensor) -> Tensor:
    """Twice the mean of |x - y| / max(|x| + |y|, ε)."""
    return 2 * ((preds - target).abs() / (preds.abs() + target.abs()).clamp(min=EPSILON)).mean()


def weighted_percentage_error(preds: Tensor, target: Tensor) -> Tensor:
    """Σ |x - y| / Σ |y|."""
    return (preds - target).abs().sum() / target.abs().sum().clamp(min=EPSILON)


def minkowski(preds: Tensor, targets: Tensor, p: float) -> Tensor:
    """(Σ |x - y|^p)^(1/p)."""
    distance: Tensor = torch.linalg.vector_norm((preds - targets).flatten(), p)
    return distance


def poisson_deviance(preds: Tensor, targets: Tensor) -> Tensor:
    """Twice the mean of y log(y / x) + x - y, 0 log 0 = 0."""
    return 2 * (torch.xlogy(targets, targets) - torch.xlogy(targets, preds) + preds - targets).mean()


def gamma_deviance(preds: Tensor, targets: Tensor) -> Tensor:
    """Twice the mean of log(x / y) + y / x - 1."""
    return 2 * ((preds / targets).log() + targets / preds - 1).mean()


def normalized_error(preds: Tensor, target: Tensor) -> Tensor:
    """√(mean (x - y)²) / mean y."""
    return ((preds - target) ** 2).mean().sqrt() / target.mean()


def signal_noise_ratio(preds: Tensor, target: Tensor) -> Tensor:
    """10 log₁₀(Σ y² / Σ (y - x)²) of each sample, with an ε of the dtype in both sums."""
    epsilon = torch.finfo(preds.dtype).eps
    return 10 * (((target**2).sum(-1) + epsilon) / (((target - preds) ** 2).sum(-1) + epsilon)).log10()


def scale_invariant_ratio(preds: Tensor, target: Tensor) -> Tensor:
    """The ratio above with the target scaled to its projection of the prediction."""
    epsilon = torch.finfo(preds.dtype).eps
    scale = ((preds * target).sum(-1, keepdim=True) + epsilon) / ((target**2).sum(-1, keepdim=True) + epsilon)
    return signal_noise_ratio(preds, scale * target)


def total_variation(img: Tensor) -> Tensor:
    """Σ |∂_y I| + Σ |∂_x I| over everything."""
    return img.diff(dim=-2).abs().sum() + img.diff(dim=-1).abs().sum()


def psnr(preds: Tensor, target: Tensor) -> Tensor:
    """10 log₁₀(1 / MSE)."""
    return -10 * ((preds - target) ** 2).mean().log10()


def spectral_angle(preds: Tensor, target: Tensor) -> Tensor:
    """Mean over samples and pixels of arccos(x · y / (|x| |y|)) along the channels."""
    cosine = torch.nn.functional.normalize(preds, dim=1) * torch.nn.functional.normalize(target, dim=1)
    return cosine.sum(1).clamp(-1, 1).acos().mean()


def without_zeros(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Distributions along the last axis: -log p has no derivative at zero."""
    return torch.rand(shape, generator=generator, dtype=torch.float64).softmax(-1).to(dtype)


def compared(
    name: str,
    implementations: Mapping[str, Callable[..., Any]],
    tensor: TensorSpec,
    *further: Law,
    names: tuple[str, str] = ("preds", "target"),
    output: TensorSpec = SCALAR,
    **options: object,
) -> LossSpec:
    """A function of two tensors of one shape, which is differentiated by both."""
    return LossSpec(
        f"torchmetrics.{name}",
        implementations,
        inputs=dict.fromkeys(names, tensor),
        output=output,
        differentiable=names,
        options=options,
        laws=(laws.permutation("B"), *further),
    )


EQUAL = (laws.nonnegative(), laws.zero_when_equal("preds", "target"))
SYMMETRIC = (laws.symmetric("preds", "target"),)
ANY = TensorSpec("B *rest")
VECTORS = TensorSpec("B D")
POSITIVE = TensorSpec("B", domains.positive())
DISTRIBUTION = TensorSpec("B D", domains.custom(without_zeros))

SPECS = (
    compared(
        "cosine_similarity",
        {"formula": cosine_similarity, "torchmetrics": regression.cosine_similarity},
        VECTORS,
        *SYMMETRIC,
        laws.sum_over("B"),
    ),
    compared(
        "kl_divergence",
        {"formula": kl_divergence, "torchmetrics": regression.kl_divergence},
        DISTRIBUTION,
        laws.nonnegative(),
        laws.mean_over("B"),
        names=("p", "q"),
    ).replace(inputs={"p": TensorSpec("B D", domains.simplex(axis=1)), "q": DISTRIBUTION}, differentiable=("q",)),
    compared(
        "jensen_shannon_divergence",
        {"formula": js_divergence, "torchmetrics": regression.jensen_shannon_divergence},
        DISTRIBUTION,
        laws.nonnegative(),
        laws.zero_when_equal("p", "q"),
        laws.symmetric("p", "q"),
        laws.mean_over("B"),
        names=("p", "q"),
    ),
    compared(
        "log_cosh_error",
        {"formula": log_cosh, "torchmetrics": regression.log_cosh_error},
        TensorSpec("B"),
        *EQUAL,
        *SYMMETRIC,
        laws.mean_over("B"),
    ),
    compared(
        "mean_squared_log_error",
        {"formula": squared_log_error, "torchmetrics": regression.mean_squared_log_error},
        TensorSpec("B *rest", domains.nonnegative()),
        *EQUAL,
        *SYMMETRIC,
        laws.mean_over("B"),
    ),
    compared(
        "mean_absolute_percentage_error",
        {"formula": percentage_error, "torchmetrics": regression.mean_absolute_percentage_error},
        ANY,
        *EQUAL,
        laws.mean_over("B"),
    ),
    compared(
        "symmetric_mean_absolute_percentage_error",
        {"formula": symmetric_percentage_error, "torchmetrics": regression.symmetric_mean_absolute_percentage_error},
        ANY,
        *EQUAL,
        *SYMMETRIC,
        laws.mean_over("B"),
    ),
    compared(
        "weighted_mean_absolute_percentage_error",
        {"formula": weighted_percentage_error, "torchmetrics": regression.weighted_mean_absolute_percentage_error},
        ANY,
        *EQUAL,
    ),
    compared(
        "minkowski_distance",
        {"formula": minkowski, "torchmetrics": regression.minkowski_distance},
        ANY,
        laws.nonnegative(),
        laws.zero_when_equal("preds", "targets"),
        laws.symmetric("preds", "targets"),
        laws.translation_invariant("preds", "targets"),
        names=("preds", "targets"),
        p=3.0,
    ),
    compared(
        "tweedie_deviance_score-poisson",
        {"formula": poisson_deviance, "torchmetrics": regression.tweedie_deviance_score},
        POSITIVE,
        laws.nonnegative(),
        laws.mean_over("B"),
        names=("preds", "targets"),
        power=1,
    ).replace(inputs={"preds": POSITIVE, "targets": TensorSpec("B", domains.nonnegative())}, differentiable=("preds",)),
    compared(
        "tweedie_deviance_score-gamma",
        {"formula": gamma_deviance, "torchmetrics": regression.tweedie_deviance_score},
        POSITIVE,
        laws.nonnegative(),
        laws.mean_over("B"),
        names=("preds", "targets"),
        power=2,
    ),
    compared(
        "normalized_root_mean_squared_error",
        {"formula": normalized_error, "torchmetrics": regression.normalized_root_mean_squared_error},
        POSITIVE,
        *EQUAL,
    ),
    compared(
        "signal_noise_ratio",
        {"formula": signal_noise_ratio, "torchmetrics": audio.signal_noise_ratio},
        SIGNAL,
        laws.permutation("time"),
        output=TensorSpec("B"),
    ),
    compared(
        "scale_invariant_signal_distortion_ratio",
        {"formula": scale_invariant_ratio, "torchmetrics": audio.scale_invariant_signal_distortion_ratio},
        SIGNAL,
        laws.permutation("time"),
        output=TensorSpec("B"),
    ),
    compared(
        "peak_signal_noise_ratio",
        {"formula": psnr, "torchmetrics": images.peak_signal_noise_ratio},
        IMAGE,
        *SYMMETRIC,
        data_range=1.0,
    ),
    compared(
        "spectral_angle_mapper",
        {"formula": spectral_angle, "torchmetrics": images.spectral_angle_mapper},
        TensorSpec("B C+1 H W", domains.interval(0.0, 1.0)),
        laws.nonnegative(),
        *SYMMETRIC,
        laws.mean_over("B"),
    ),
    compared(
        "structural_similarity_index_measure",
        {"torchmetrics": images.structural_similarity_index_measure},
        IMAGE,
        *SYMMETRIC,
        laws.mean_over("B"),
        data_range=1.0,
        kernel_size=3,
        gaussian_kernel=False,
    ).replace(fixed_sizes={"H": 6, "W": 5}),
    compared(
        "universal_image_quality_index",
        {"torchmetrics": images.universal_image_quality_index},
        IMAGE,
        *SYMMETRIC,
        laws.mean_over("B"),
        kernel_size=(3, 3),
    ).replace(fixed_sizes={"H": 6, "W": 5}),
    LossSpec(
        "torchmetrics.total_variation",
        {"formula": total_variation, "torchmetrics": images.total_variation},
        inputs={"img": TensorSpec("B C H W")},
        output=SCALAR,
        laws=(laws.nonnegative(), laws.translation_invariant("img"), laws.sum_over("B"), laws.sum_over("C")),
    ),
)
