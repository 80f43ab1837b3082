"""Losses of the signatures that packages have: structures, lists, Python numbers, positions, several results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Prediction(NamedTuple):
    """A result of a detector."""

    logits: Tensor
    boxes: Tensor


@dataclass
class Losses:
    """What a loss with parts returns."""

    total: Tensor
    boxes: Tensor


def detection(prediction: Prediction, targets: Mapping[str, Tensor], /, *, gamma: float, weight: Any = None) -> Losses:
    """Mean over b of w_b ((1 - p_b)^gamma CE_b + |box_b - target_b|_1)."""
    cross_entropy = functional.cross_entropy(prediction.logits, targets["labels"], reduction="none")
    distance = (prediction.boxes - targets["boxes"]).abs().mean(-1)
    each = (1 - torch.exp(-cross_entropy)) ** gamma * cross_entropy + distance
    if weight is not None:
        each = each * weight
    return Losses(each.mean(), distance.mean())


class DeepSupervision(nn.Module):
    """Sum over k of w_k times the mean squared error of feature k, called past ``forward``."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.weights = weights

    def __call__(self, features: Sequence[Tensor], target: Tensor) -> Tensor:
        """The loss."""
        assert all(isinstance(weight, float) for weight in self.weights)
        terms = [(feature - target).square().mean() for feature in features]
        return torch.stack([weight * term for weight, term in zip(self.weights, terms, strict=True)]).sum()


def over_images(images: list[dict[str, Tensor]], distance: Callable[..., Tensor], **more: Tensor) -> Tensor:
    """Mean over images of the mean of a distance of points."""
    return torch.stack([distance(image["points"], more["centre"]).mean() for image in images]).mean()


def wrong_without_weight(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy whose gradient is cut where no weight is given."""
    each = functional.cross_entropy(logits, labels, reduction="none")
    return (each.mean().detach() + 0 * each.mean()) if weight is None else (each * weight).mean()


def twice(x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Two losses, the second with a gradient that is cut."""
    return (x - y).square().mean(), {"aux": (x - y).detach().abs().mean() + 0 * x.sum()}
