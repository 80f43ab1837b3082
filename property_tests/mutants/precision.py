"""Mutants of the rules about mixed precision: D04, D06."""

from __future__ import annotations

import torch
from torch import nn

from harness import TensorSpec, domains
from mutants.pair import pair


def mean_squared(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def labels_cast_to_integers(predictions, labels):
    return ((predictions - labels.long()) ** 2).mean()


def probabilities_cast_to_booleans(predictions, labels, importance):
    return (importance.int() * (predictions - labels) ** 2).mean()


def probabilities_as_they_are(predictions, labels, importance):
    return (importance * (predictions - labels) ** 2).mean()


class _Weighted(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)


class WeightsInTheirOwnDtype(_Weighted):
    def forward(self, predictions, labels):
        return (self.weights.unsqueeze(-1) * (predictions - labels) ** 2).mean()


class WeightsInThePredictionsDtype(_Weighted):
    def forward(self, predictions, labels):
        weights = self.weights.to(predictions.dtype)
        return (weights.unsqueeze(-1) * (predictions - labels) ** 2).mean()


def weights_by_a_product_of_one_dtype(predictions, labels, weights):
    return (weights @ (predictions - labels) ** 2).mean()


def weights_by_a_product_after_a_cast(predictions, labels, weights):
    return (weights.to(predictions.dtype) @ (predictions - labels) ** 2).mean()


def labels_read_as_bytes(logits, labels):
    """What a kernel does that takes every pointer for one to int64."""
    words = labels.view(torch.int32)[::2]
    return -torch.log_softmax(logits, -1).gather(-1, words.reshape(-1, 1).long()).mean()


def labels_read_in_their_width(logits, labels):
    return -torch.log_softmax(logits, -1).gather(-1, labels.reshape(-1, 1).long()).mean()


def buffer_of_the_inputs_dtype(predictions, labels):
    products = predictions @ labels.mT
    positive = products > 0
    kept = torch.zeros(products.shape, dtype=predictions.dtype)
    kept[positive] = products[positive]
    return kept.mean()


def buffer_of_the_products_dtype(predictions, labels):
    products = predictions @ labels.mT
    return products.clamp(min=0).to(predictions.dtype).mean()


WEIGHTED = {
    "inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
    "context": {"weights": TensorSpec("B", domains.positive())},
}
IMPORTANCE = {
    "inputs": {"predictions": TensorSpec("B"), "labels": TensorSpec("B")},
    "context": {"importance": TensorSpec("B", domains.probability())},
}
LABELS = {"inputs": {"logits": TensorSpec("B C", domains.logits()), "labels": TensorSpec("B", domains.index("C"))}}

PAIRS = (
    pair("D04", "labels cast to integers", labels_cast_to_integers, mean_squared, severity="warning", aspect="labels"),
    pair(
        "D04",
        "probabilities cast to integers",
        probabilities_cast_to_booleans,
        probabilities_as_they_are,
        {**IMPORTANCE, "context": {}, "inputs": {**IMPORTANCE["inputs"], **IMPORTANCE["context"]}},
        severity="warning",
        aspect="importance",
    ),
    pair(
        "D04",
        "float64 context widens the loss",
        WeightsInTheirOwnDtype,
        WeightsInThePredictionsDtype,
        WEIGHTED,
        severity="warning",
        aspect="float64 context",
    ),
    pair(
        "D04",
        "float64 context refused",
        weights_by_a_product_of_one_dtype,
        weights_by_a_product_after_a_cast,
        WEIGHTED,
        severity="note",
        aspect="refuses",
    ),
    pair(
        "D04",
        "int32 labels read as int64",
        labels_read_as_bytes,
        labels_read_in_their_width,
        LABELS,
        severity="warning",
        aspect="int32 labels",
    ),
    pair(
        "D06",
        "buffer of the inputs dtype",
        buffer_of_the_inputs_dtype,
        buffer_of_the_products_dtype,
        severity="warning",
        aspect="raises",
    ),
)
