"""Mutants of the declared laws, L01 to L13, for which the law that they declare does not hold; and of L16.

A law of weights in the context is checked by C04, C05 or C06; here the weights are inputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from harness import TensorSpec, domains, laws
from mutants.pair import PAIRWISE, pair


def mean_squared(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def negative_mean_squared(predictions, labels):
    return -((predictions - labels) ** 2).mean()


def sum_of_squares(predictions, labels):
    return ((predictions - labels) ** 2).sum()


def root_mean_square(predictions, labels):
    return ((predictions - labels) ** 2).mean().sqrt()


def consecutive_differences(predictions, labels):
    """Compares each row with the one before it, so that the order of the batch matters."""
    return ((predictions - labels) * (predictions - labels).roll(1, 0)).mean()


def rows_before_are_seen(embeddings, adjacency):
    return -(embeddings @ embeddings.mT * adjacency.triu()).sum()


def all_edges(embeddings, adjacency):
    return -(embeddings @ embeddings.mT * adjacency).sum()


def weights_normalised(predictions, labels, weights):
    return (weights.unsqueeze(-1) * (predictions - labels) ** 2).sum() / weights.sum().clamp(min=1e-6)


def weights_applied(predictions, labels, weights):
    return (weights.unsqueeze(-1) * (predictions - labels) ** 2).mean()


def weighted_squares(predictions, labels, weights):
    return (weights.unsqueeze(-1) * (predictions - labels) ** 2).sum()


def cosine_with_a_large_epsilon(embeddings):
    rows = embeddings / (embeddings.norm(dim=-1, keepdim=True) + 0.1)
    return (rows @ rows.mT).mean()


def cosine(embeddings):
    rows = F.normalize(embeddings, dim=-1)
    return (rows @ rows.mT).mean()


class _ScaleOfTheValueOnly(torch.autograd.Function):
    """The value is scale invariant; the backward forgets to divide by the length."""

    @staticmethod
    def forward(ctx, embeddings):
        rows = F.normalize(embeddings, dim=-1)
        ctx.save_for_backward(rows)
        return rows.sum()

    @staticmethod
    def backward(ctx, upstream):
        (rows,) = ctx.saved_tensors
        return upstream * (1 - rows * rows.sum(-1, keepdim=True))


def cosine_with_a_gradient_of_another_scale(embeddings):
    return _ScaleOfTheValueOnly.apply(embeddings)


def sum_of_unit_rows(embeddings):
    return F.normalize(embeddings, dim=-1).sum()


def squared_logits_added(logits, labels):
    """A regularisation of the logits themselves, which the partition function does not cancel."""
    return F.cross_entropy(logits, labels) + 1e-3 * logits.square().mean()


def cross_entropy(logits, labels):
    return F.cross_entropy(logits, labels)


def one_sided_divergence(predictions, labels):
    return (predictions * (predictions.clamp(min=1e-6) / labels.clamp(min=1e-6)).log()).sum()


def both_sided_divergence(predictions, labels):
    log_ratio = (predictions.clamp(min=1e-6) / labels.clamp(min=1e-6)).log()
    return ((predictions - labels) * log_ratio).sum()


def quantile_with_the_wrong_sign(predictions, labels):
    error = labels - predictions
    return torch.minimum(0.9 * error, -0.1 * error).mean()


def quantile(predictions, labels):
    error = labels - predictions
    return torch.maximum(0.9 * error, -0.1 * error).mean()


def root_of_shifted_squares(predictions, labels):
    return ((predictions - labels) ** 2 + 1e-2).sqrt().mean()


def charbonnier(predictions, labels):
    return (((predictions - labels) ** 2 + 1e-2).sqrt() - 0.1).mean()


def mean_over_present_weights(predictions, labels, weights):
    count = (weights > 0).sum().clamp(min=1)
    return (weights.unsqueeze(-1) * (predictions - labels) ** 2).sum() / count


def centred_before_weighing(predictions, labels, weights):
    """The batch's mean is taken before the weights remove anything."""
    centred = predictions - predictions.mean(0)
    return (weights.unsqueeze(-1) * (centred - labels) ** 2).sum()


def selected_before_weighing(predictions, labels, weights):
    column = weights.unsqueeze(-1)
    return (column * torch.where(column > 0, predictions - labels, 0) ** 2).sum()


def weighted_in_value_only(predictions, labels, weights):
    loss = weighted_squares(predictions, labels, weights)
    plain = sum_of_squares(predictions, labels)
    return plain + (loss - plain).detach()


def weights_squared(predictions, labels, weights):
    return weighted_squares(predictions, labels, weights**2) / weights.sum().clamp(min=1e-6)


def weights_in_a_column(predictions, labels, weights):
    return weights_normalised(predictions, labels, weights.squeeze(-1))


def squared_weights_in_a_column(predictions, labels, weights):
    return weights_squared(predictions, labels, weights.squeeze(-1))


def shares_of_columns(predictions, labels, weights):
    """Rows count alike whatever they weigh, so that a row of weight two is no two rows."""
    rows = (weights * (predictions - labels) ** 2).sum(-1) / weights.sum(-1).clamp(min=1e-6)
    return rows.mean()


def shares_of_elements(predictions, labels, weights):
    return (weights * (predictions - labels) ** 2).sum() / weights.sum().clamp(min=1e-6)


def temperature_used(predictions, labels, temperature):
    return ((predictions - labels) ** 2).mean() * (1 + 0.01 * temperature.mean())


def temperature_unused(predictions, labels, temperature):
    return ((predictions - labels) ** 2).mean() + 0 * temperature.sum()


class GraphModule(nn.Module):
    """A directed graph of which only one direction is read."""

    def __init__(self, adjacency):
        super().__init__()
        self.register_buffer("adjacency", adjacency)

    def forward(self, embeddings):
        return rows_before_are_seen(embeddings, self.adjacency)


class WholeGraphModule(GraphModule):
    def forward(self, embeddings):
        return all_edges(embeddings, self.adjacency)


def _declared(law, **more):
    return {**PAIRWISE, **more, "laws": (law,)}


WEIGHTED = {**PAIRWISE, "context": {"weights": TensorSpec("B", domains.nonnegative())}}
WEIGHED_BATCH = {**PAIRWISE, "inputs": {**PAIRWISE["inputs"], **WEIGHTED["context"]}}
GRAPH = {"inputs": {"embeddings": TensorSpec("N D")}, "context": {"adjacency": TensorSpec("N N", domains.adjacency())}}
EMBEDDINGS = {"inputs": {"embeddings": TensorSpec("N D")}, "laws": (laws.scale_invariant("embeddings"),)}
CLASSES = {
    "inputs": {"logits": TensorSpec("B C"), "labels": TensorSpec("B", domains.index("C"))},
    "laws": (laws.translation_invariant("logits"),),
}
DISTRIBUTIONS = {
    "inputs": {
        "predictions": TensorSpec("B C", domains.simplex(axis=-1)),
        "labels": TensorSpec("B C", domains.simplex(axis=-1)),
    },
    "laws": (laws.symmetric("predictions", "labels"),),
}
COLUMN = {**PAIRWISE, "inputs": {**PAIRWISE["inputs"], "weights": TensorSpec("B 1", domains.nonnegative())}}
ELEMENTS = {**PAIRWISE, "inputs": {**PAIRWISE["inputs"], "weights": TensorSpec("B C", domains.nonnegative())}}
TEMPERED = {**PAIRWISE, "context": {"temperature": TensorSpec("B", domains.positive())}}

PAIRS = (
    pair("L01", "root of the mean", root_mean_square, mean_squared, _declared(laws.mean_over("B"))),
    pair("L01", "sum instead of mean", sum_of_squares, mean_squared, _declared(laws.mean_over("B"))),
    pair("L02", "mean instead of sum", mean_squared, sum_of_squares, _declared(laws.sum_over("B"))),
    pair("L03", "order of the batch", consecutive_differences, mean_squared, _declared(laws.permutation("B"))),
    pair("L03", "half of the graph", GraphModule, WholeGraphModule, {**GRAPH, "laws": (laws.permutation("N"),)}),
    pair(
        "L04",
        "normalised weights",
        weights_normalised,
        weights_applied,
        {**WEIGHED_BATCH, "laws": (laws.linear_in("weights"),)},
    ),
    pair("L05", "epsilon beside the length", cosine_with_a_large_epsilon, cosine, EMBEDDINGS, aspect="value"),
    pair(
        "L05",
        "scale of the gradient",
        cosine_with_a_gradient_of_another_scale,
        sum_of_unit_rows,
        EMBEDDINGS,
        aspect="gradient",
    ),
    pair("L06", "logits penalised", squared_logits_added, cross_entropy, CLASSES),
    pair("L07", "one-sided divergence", one_sided_divergence, both_sided_divergence, DISTRIBUTIONS),
    pair("L08", "minimum for maximum", quantile_with_the_wrong_sign, quantile, _declared(laws.nonnegative())),
    pair("L16", "a distance with its sign turned", negative_mean_squared, mean_squared, severity="warning"),
    pair(
        "L09",
        "root of a shifted square",
        root_of_shifted_squares,
        charbonnier,
        _declared(laws.zero_when_equal("predictions", "labels")),
    ),
    pair(
        "L10",
        "sum where the known loss has a mean",
        weighted_squares,
        weights_applied,
        {**WEIGHED_BATCH, "laws": (laws.reduces_to(mean_squared, weights=1.0),)},
    ),
    pair(
        "L11",
        "centred before weighing",
        centred_before_weighing,
        selected_before_weighing,
        {**WEIGHTED, "laws": (laws.zero_weight_removes("weights"),)},
        aspect="weights value",
    ),
    pair(
        "L11",
        "weighed in the value only",
        weighted_in_value_only,
        selected_before_weighing,
        {**WEIGHTED, "laws": (laws.zero_weight_removes("weights"),)},
        aspect="weights",
    ),
    pair(
        "L12",
        "weights squared",
        weights_squared,
        weights_normalised,
        {**WEIGHED_BATCH, "laws": (laws.repeats("weights"),)},
    ),
    pair(
        "L12",
        "mean over present weights",
        mean_over_present_weights,
        weighted_squares,
        {**WEIGHED_BATCH, "laws": (laws.repeats("weights"),)},
    ),
    pair(
        "L12",
        "column of weights squared",
        squared_weights_in_a_column,
        weights_in_a_column,
        {**COLUMN, "laws": (laws.repeats("weights"),)},
    ),
    pair(
        "L12",
        "rows of equal share",
        shares_of_columns,
        shares_of_elements,
        {**ELEMENTS, "laws": (laws.repeats("weights"),)},
    ),
    pair(
        "L13",
        "used after all",
        temperature_used,
        temperature_unused,
        {**TEMPERED, "laws": (laws.inert("temperature"),)},
    ),
)
