"""Mutants of the rules about shapes and layouts: B01, B03, B04, B06."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from harness import ErrorInput, TensorSpec, domains
from mutants.pair import PAIRWISE, pair


def mean_squared(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def without_the_diagonal(predictions, labels):
    similarities = predictions @ labels.mT
    return similarities.masked_fill(torch.eye(len(similarities), dtype=torch.bool), 0).mean()


def diagonal_of_four_samples(predictions, labels):
    similarities = predictions @ labels.mT
    return similarities.masked_fill(torch.eye(4, dtype=torch.bool), 0).mean()


def sum_over_classes_only(predictions, labels):
    return ((predictions - labels) ** 2).sum(-1)


def one_number_per_sample(predictions, labels):
    return ((predictions - labels) ** 2).mean(-1)


def squeezed_to_nothing(predictions, labels):
    return ((predictions - labels) ** 2).mean(-1).squeeze()


def mean_squared_of_equal_shapes(predictions, labels):
    if predictions.shape != labels.shape or predictions.ndim != 1:
        raise ValueError(f"predictions {list(predictions.shape)} and labels {list(labels.shape)} should be one [B]")
    return ((predictions - labels) ** 2).mean()


def mean_squared_of_equal_matrices(predictions, labels):
    if predictions.shape != labels.shape:
        raise ValueError(f"predictions {list(predictions.shape)} and labels {list(labels.shape)} should be one [B, C]")
    return ((predictions - labels) ** 2).mean()


def mean_squared_with_a_warning(predictions, labels):
    return F.mse_loss(predictions, labels)


def likelihood_of_any_label(logits, labels):
    return -torch.log_softmax(logits, -1).gather(-1, labels.clamp(0, logits.shape[-1] - 1)[:, None]).mean()


def likelihood_of_known_labels(logits, labels):
    if bool((labels >= logits.shape[-1]).any()):
        raise ValueError(f"labels reach {int(labels.max())}, but there are {logits.shape[-1]} classes")
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits {list(logits.shape)} should be [B, C] and labels {list(labels.shape)} [B]")
    return -torch.log_softmax(logits, -1).gather(-1, labels[:, None]).mean()


def weights_on_the_axis_of_their_size(predictions, labels, weights):
    axis = list(predictions.shape).index(len(weights))
    shape = [1] * predictions.ndim
    shape[axis] = -1
    return (weights.reshape(shape) * (predictions - labels) ** 2).mean()


def weights_on_the_last_axis(predictions, labels, weights):
    return (weights * (predictions - labels) ** 2).mean()


def weights_as_a_column(predictions, labels, weights):
    return (weights.view(-1, 1) * (predictions - labels) ** 2).mean()


def weights_with_every_axis(predictions, labels, weights):
    return (weights.view(-1, *[1] * (predictions.ndim - 1)) * (predictions - labels) ** 2).mean()


def flat_view(predictions, labels):
    return ((predictions.view(-1) - labels.view(-1)) ** 2).mean()


def flat_reshape(predictions, labels):
    return ((predictions.reshape(-1) - labels.reshape(-1)) ** 2).mean()


def rows_by_stride(predictions, labels):
    """What a kernel does that is handed a pointer and no strides."""
    rows, columns = labels.shape
    read = labels.as_strided((rows, columns), (columns, 1))
    return ((predictions - read) ** 2).mean()


def rows_of_a_contiguous_copy(predictions, labels):
    rows, columns = labels.shape
    read = labels.contiguous().as_strided((rows, columns), (columns, 1))
    return ((predictions - read) ** 2).mean()


VECTORS = {"inputs": {"predictions": TensorSpec("B"), "labels": TensorSpec("B")}, "output": TensorSpec("")}
PER_SAMPLE = {**PAIRWISE, "output": TensorSpec("B")}
CLASSES = {
    "inputs": {"logits": TensorSpec("B C", domains.logits()), "labels": TensorSpec("B", domains.index("C"))},
    "error_inputs": (
        ErrorInput("label C", lambda t: {"labels": t["labels"] + t["logits"].shape[-1]}, match="classes"),
    ),
}
WEIGHTED = {
    "inputs": {"predictions": TensorSpec("C B"), "labels": TensorSpec("C B")},
    "context": {"weights": TensorSpec("B", domains.nonnegative())},
}
WEIGHTED_SAMPLES = {
    "inputs": {"predictions": TensorSpec("B *rest"), "labels": TensorSpec("B *rest")},
    "context": {"weights": TensorSpec("B", domains.nonnegative())},
}

PAIRS = (
    pair("B01", "mask for one batch size", diagonal_of_four_samples, without_the_diagonal, aspect="raises"),
    pair("B01", "one number per sample", sum_over_classes_only, mean_squared, aspect="output"),
    pair(
        "B01", "squeeze drops the batch axis", squeezed_to_nothing, one_number_per_sample, PER_SAMPLE, aspect="output"
    ),
    pair("B03", "column against vector", mean_squared, mean_squared_of_equal_shapes, VECTORS, severity="warning"),
    pair(
        "B03",
        "broadcast with a Python warning",
        mean_squared_with_a_warning,
        mean_squared_of_equal_shapes,
        VECTORS,
        severity="note",
    ),
    pair(
        "B03",
        "two tensors are one finding",
        mean_squared,
        mean_squared_of_equal_matrices,
        severity="warning",
        says="accepted too: labels with",
    ),
    pair(
        "B03",
        "declared bad input accepted",
        likelihood_of_any_label,
        likelihood_of_known_labels,
        CLASSES,
        aspect="error input label C",
    ),
    pair("B04", "axis found by its size", weights_on_the_axis_of_their_size, weights_on_the_last_axis, WEIGHTED),
    pair("B04", "weights as a column", weights_as_a_column, weights_with_every_axis, WEIGHTED_SAMPLES),
    pair("B06", "view of a transposed tensor", flat_view, flat_reshape, says="strides"),
    pair("B06", "strides ignored", rows_by_stride, rows_of_a_contiguous_copy, aspect="labels"),
)
