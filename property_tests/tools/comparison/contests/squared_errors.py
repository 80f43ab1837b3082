"""Weighted squared errors against the ways in which torch writes them."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from losses import dynamic_weighted, weighted_mse
from losses.dynamic_weighted import DynamicWeightedLoss
from losses.weighted_mse import WeightedMSELoss
from property_tests.tools.comparison.contest import OURS, Contestant, ahead, contest


def elementwise(predictions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    return (functional.mse_loss(predictions, labels, reduction="none") * mask).mean()


def squares(predictions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    return (mask * (predictions - labels) ** 2).mean()


def library(predictions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    return functional.mse_loss(predictions, labels, weight=mask)


def rescaled(predictions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    return functional.mse_loss(predictions, labels, weight=mask, reduction="sum") / predictions.numel()


def of_samples(predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return (weights.unsqueeze(-1) * (predictions - labels) ** 2).mean()


def of_samples_elementwise(predictions: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return (functional.mse_loss(predictions, labels, reduction="none") * weights.unsqueeze(-1)).mean()


# Predictions, labels and mask are read and a gradient is written, in float32.
BYTES_PER_ELEMENT = 16
GRID = {"batch": (), "H": 1024, "W": 1024}

CONTESTS = (
    contest(
        "weighted_mse, mean over elements, 4 MiB tensors",
        weighted_mse.SPEC,
        [
            Contestant(OURS, WeightedMSELoss, "WeightedMSELoss(m)(p, y)"),
            Contestant("elementwise", elementwise, '(F.mse_loss(p, y, reduction="none") * m).mean()'),
            Contestant("squares", squares, "(m * (p - y) ** 2).mean()"),
            Contestant(
                "library rescaled",
                rescaled,
                'F.mse_loss(p, y, weight=m, reduction="sum") / p.numel()',
                convention="torch's mean divides by the sum of the weights, so that its sum is divided",
            ),
        ],
        module=__name__,
        name="weighted_mse",
        small={"batch": (), "H": 3, "W": 5},
        sizes=[GRID],
        claims=[*ahead("elementwise"), *ahead("squares"), *ahead("library rescaled")],
    ),
    contest(
        "weighted_mse, weighted mean, 4 MiB tensors",
        weighted_mse.SPEC_WEIGHTED_MEAN,
        [
            Contestant(OURS, WeightedMSELoss, 'WeightedMSELoss(m, reduction="weighted_mean")(p, y)'),
            Contestant("library", library, "F.mse_loss(p, y, weight=m)"),
        ],
        module=__name__,
        name="weighted_mse_mean",
        small={"batch": (), "H": 3, "W": 5},
        sizes=[GRID],
        claims=ahead("library"),
    ),
    contest(
        "dynamic_weighted, 4 MiB tensors",
        dynamic_weighted.SPEC,
        [
            Contestant(OURS, DynamicWeightedLoss, "DynamicWeightedLoss(w)(p, y)"),
            Contestant("squares", of_samples, "(w.view(-1, 1) * (p - y) ** 2).mean()"),
            Contestant(
                "elementwise", of_samples_elementwise, '(F.mse_loss(p, y, reduction="none") * w.view(-1, 1)).mean()'
            ),
        ],
        module=__name__,
        name="dynamic_weighted",
        small={"B": 4, "rest": (3,)},
        sizes=[{"B": 1024, "rest": (1024,)}],
        claims=[*ahead("squares"), *ahead("elementwise")],
    ),
)
SPECS = [each.spec for each in CONTESTS]
