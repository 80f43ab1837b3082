"""One loss, ``sum(w[b] * |p[b] - y[b]|) / B``, right and with one defect each; what a suite looks at is named by LOSS."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Right(nn.Module):
    """Mean over samples of the weighted length of a residual."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, predictions: Tensor, labels: Tensor) -> Tensor:
        if predictions.shape != labels.shape or predictions.shape[:1] != self.weights.shape:
            raise ValueError(f"got shapes {predictions.shape}, {labels.shape} and {self.weights.shape}")
        weights = self.weights.to(predictions.dtype)
        return (weights * torch.linalg.vector_norm(predictions - labels, dim=-1)).mean()


class PlainAttribute(Right):
    """The weights follow no `.to()` and are in no checkpoint."""

    def __init__(self, weights: Tensor) -> None:
        nn.Module.__init__(self)
        self.weights = weights


class NoShapes(Right):
    """Labels of another shape broadcast."""

    def forward(self, predictions: Tensor, labels: Tensor) -> Tensor:
        return (self.weights.to(predictions.dtype) * torch.linalg.vector_norm(predictions - labels, dim=-1)).mean()


class SquareRoot(Right):
    """The gradient is NaN where a prediction is right."""

    def forward(self, predictions: Tensor, labels: Tensor) -> Tensor:
        super().forward(predictions, labels)
        return (self.weights.to(predictions.dtype) * ((predictions - labels) ** 2).sum(-1).sqrt()).mean()


class OtherMean(Right):
    """Divides by the sum of the weights: a right gradient of another function."""

    def forward(self, predictions: Tensor, labels: Tensor) -> Tensor:
        return super().forward(predictions, labels) * len(predictions) / self.weights.sum().to(predictions.dtype)


class Detached(Right):
    """A factor is cut out of the gradient."""

    def forward(self, predictions: Tensor, labels: Tensor) -> Tensor:
        super().forward(predictions, labels)
        residual = predictions - labels
        length = torch.linalg.vector_norm(residual, dim=-1).detach().clamp(min=1e-30)
        return (self.weights.to(predictions.dtype) * (residual**2).sum(-1) / length).mean()


class Narrowed(Right):
    """Computes in float32 whatever it is given."""

    def forward(self, predictions: Tensor, labels: Tensor) -> Tensor:
        return super().forward(predictions.float(), labels.float())


class InPlace(Right):
    """Leaves the residual in the labels."""

    def forward(self, predictions: Tensor, labels: Tensor) -> Tensor:
        value = super().forward(predictions, labels)
        with torch.no_grad():
            labels.sub_(predictions)
        return value


LOSSES: dict[str, type[Right]] = {
    each.__name__: each
    for each in (Right, PlainAttribute, NoShapes, SquareRoot, OtherMean, Detached, Narrowed, InPlace)
}


def chosen() -> Callable[[Tensor], nn.Module]:
    """The loss that the suites look at."""
    return LOSSES[os.environ.get("LOSS", "Right")]


# An example worked out by hand: lengths 5 and 13, weights 1 and 2, so (5 + 26) / 2.
WEIGHTS = (1.0, 2.0)
PREDICTIONS = ((3.0, 4.0), (5.0, 12.0))
VALUE = 15.5
