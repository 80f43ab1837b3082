"""Mutants of the rules about weights, masks and graphs: C04 to C08."""

from __future__ import annotations

import torch
from torch import nn

from harness import TensorSpec, domains, laws
from mutants.laws import (
    WEIGHTED,
    mean_over_present_weights,
    mean_squared,
    weighted_squares,
    weights_applied,
    weights_normalised,
    weights_squared,
)
from mutants.pair import PAIRWISE, pair


def normalised_by_one_more(predictions, labels, weights):
    return (weights.unsqueeze(-1) * (predictions - labels) ** 2).sum() / (weights.sum() + 1)


def one_more(predictions, labels, weights):
    return 1 + weights_applied(predictions, labels, weights)


def mean_over_what_is_kept(predictions, labels, weights):
    total = weights.sum()
    return weighted_squares(predictions, labels, weights) / torch.where(total > 0, total, 1)


def softmax_along_the_wrong_axis(predictions, labels, weights):
    """Over an axis of size one every share is one."""
    return weighted_squares(predictions, labels, weights.unsqueeze(-1).softmax(-1).squeeze(-1))


def mean_before_the_mask(predictions, labels, mask):
    """The mean is one number, from which the mask cancels unless it is empty."""
    mean = (predictions - labels).square().mean()
    return (mean * mask).sum() / mask.sum().clamp(min=1e-6)


def mean_of_the_mask(predictions, labels, mask):
    return (mask * (predictions - labels).square()).sum() / mask.sum().clamp(min=1e-6)


def mean_of_rows_before_the_mask(predictions, labels, mask):
    rows = (predictions - labels).square().mean(-1, keepdim=True)
    return ((rows * mask).sum(-1) / mask.sum(-1).clamp(min=1e-6)).mean()


def mean_of_rows_of_the_mask(predictions, labels, mask):
    return ((mask * (predictions - labels).square()).sum(-1) / mask.sum(-1).clamp(min=1e-6)).mean()


def softmax_over_the_batch(predictions, labels, weights):
    return weighted_squares(predictions, labels, weights.softmax(0))


def without_labels(predictions, labels):
    return (predictions - predictions.mean(0)).square().mean()


class Averaged(nn.Module):
    """The momentum acts on the running mean, in training only."""

    def __init__(self, momentum):
        super().__init__()
        self.register_buffer("momentum", momentum)
        self.register_buffer("mean", torch.zeros_like(momentum))

    def forward(self, predictions, labels):
        mean = self.mean
        if self.training:
            mean = mean + self.momentum * (labels.detach().mean() - mean)
        return (predictions - labels - mean).square().mean()


class AveragedWithoutMomentum(Averaged):
    def forward(self, predictions, labels):
        self.momentum.clone()
        return (predictions - labels - self.mean).square().mean()


def group_of_each(embeddings, groups):
    """Depends on which labels are equal, and on no label itself."""
    together = (groups.unsqueeze(0) == groups.unsqueeze(1)).to(embeddings.dtype)
    return -(together * (embeddings @ embeddings.mT)).mean()


def groups_ignored(embeddings, groups):
    return -(torch.ones_like(groups).outer(torch.ones_like(groups)) * (embeddings @ embeddings.mT)).mean()


def whole_batch_where_the_mask_is_empty(predictions, labels, mask):
    error = (predictions - labels) ** 2
    return (mask * error).sum() / mask.sum() if mask.any() else error.mean()


def nothing_where_the_mask_is_empty(predictions, labels, mask):
    return (mask * (predictions - labels) ** 2).sum() / mask.sum().clamp(min=1)


def mean_over_what_the_mask_counts(predictions, labels, mask):
    return ((predictions - labels) ** 2).sum() / mask.sum().clamp(min=1)


def rows_over_the_sum_of_their_weights(predictions, labels, weights):
    return (((predictions - labels) ** 2).sum(-1) / weights.sum(-1).clamp(min=1e-12)).mean()


def first_of_each_row(predictions, labels, weights):
    """As many of each row count as have a weight: the order says nothing there, and nothing counts that is left out."""
    kept = torch.arange(labels.shape[1], device=labels.device) < (weights > 0).sum(-1, keepdim=True)
    return (kept * (predictions - labels) ** 2).sum()


def filled_with_a_large_number(predictions, labels, mask):
    """A softmax over a row without one kept element weighs all of them alike."""
    scores = predictions.masked_fill(~mask, -1e9)
    return (scores.softmax(-1) * torch.where(mask, predictions - labels, predictions)).sum()


def softmax_over_what_is_kept(predictions, labels, mask):
    kept = torch.where(mask, predictions, 0).exp() * mask
    share = kept / kept.sum(-1, keepdim=True).clamp(min=1e-12)
    return (share * torch.where(mask, predictions - labels, 0)).sum()


def edges_and_every_node_itself(embeddings, adjacency):
    whole = adjacency + torch.eye(len(adjacency), dtype=adjacency.dtype)
    return (whole * (embeddings @ embeddings.mT)).sum()


def edges_only(embeddings, adjacency):
    return (adjacency * (embeddings @ embeddings.mT)).sum()


MASKED = {**PAIRWISE, "context": {"mask": TensorSpec("B C", domains.boolean())}}
GROUPED = {"inputs": {"embeddings": TensorSpec("B D"), "groups": TensorSpec("B", domains.index("G"))}}
AVERAGED = {**PAIRWISE, "context": {"momentum": TensorSpec("", domains.probability())}}
PROMISED = {**WEIGHTED, "laws": (laws.zero_weight_removes("weights"),)}
GRAPH = {
    "inputs": {"embeddings": TensorSpec("N D")},
    "context": {"adjacency": TensorSpec("N N", domains.adjacency())},
    "laws": (laws.zero_weight_removes("adjacency"),),
}


def plain_mean_without_weights(predictions, labels, weights):
    error = (predictions - labels) ** 2
    total = weights.sum()
    return (weights.unsqueeze(-1) * error).sum() / total if total > 0 else error.mean()


def zero_without_weights(predictions, labels, weights):
    total = weights.sum()
    total = torch.where(total > 0, total, torch.ones_like(total))
    return (weights.unsqueeze(-1) * (predictions - labels) ** 2).sum() / total


def _weighted(law, domain=None):
    context = WEIGHTED["context"] if domain is None else {"weights": TensorSpec("B", domain)}
    return {**WEIGHTED, "context": context, "laws": (law,)}


AFFINE = {
    "weights": domains.nonnegative(),
    "a mask": domains.binary(),
    "a selection": domains.boolean(),
    "shares": domains.probability(),
    "weights off zero": domains.interval(0.5, 2.0),
    "signs": domains.sign(),
}


PAIRS = (
    pair("C04", "weights squared in context", weights_squared, weights_normalised, _weighted(laws.repeats("weights"))),
    pair(
        "C04",
        "mean over present context",
        mean_over_present_weights,
        weighted_squares,
        _weighted(laws.repeats("weights")),
    ),
    pair("C05", "normalised context", weights_normalised, weights_applied, _weighted(laws.linear_in("weights"))),
    pair(
        "C05",
        "normalised by one more",
        normalised_by_one_more,
        zero_without_weights,
        _weighted(laws.scale_invariant("weights")),
    ),
    pair(
        "C05",
        "shares normalised by one more",
        normalised_by_one_more,
        zero_without_weights,
        _weighted(laws.scale_invariant("weights"), domains.probability()),
    ),
    *(
        pair("C05", f"affine in {what}", one_more, weights_applied, _weighted(laws.linear_in("weights"), domain))
        for what, domain in AFFINE.items()
    ),
    pair(
        "C04",
        "mean over all of a mask",
        weights_applied,
        mean_over_what_is_kept,
        _weighted(laws.repeats("weights"), domains.binary()),
    ),
    pair(
        "C06",
        "sum where the unweighted loss has a mean",
        weighted_squares,
        weights_applied,
        _weighted(laws.reduces_to(mean_squared, weights=1.0)),
    ),
    pair(
        "C07",
        "softmax along the wrong axis",
        softmax_along_the_wrong_axis,
        softmax_over_the_batch,
        WEIGHTED,
        severity="warning",
    ),
    *(
        pair("C07", f"{what} that cancels", mutant, twin, {**MASKED, "context": {"mask": mask}}, severity="warning")
        for what, mask, mutant, twin in (
            ("mask", TensorSpec("B C", domains.binary()), mean_before_the_mask, mean_of_the_mask),
            ("selection", TensorSpec("B C", domains.boolean()), mean_before_the_mask, mean_of_the_mask),
            ("weight", TensorSpec("B 1", domains.nonnegative()), mean_before_the_mask, mean_of_the_mask),
            (
                "mask of rows",
                TensorSpec("B C", domains.binary()),
                mean_of_rows_before_the_mask,
                mean_of_rows_of_the_mask,
            ),
        )
    ),
    pair(
        "C07",
        "mask in the denominator alone",
        mean_over_what_the_mask_counts,
        nothing_where_the_mask_is_empty,
        MASKED,
        severity="warning",
        aspect="mask by its sum alone",
    ),
    pair(
        "C07",
        "weights in the denominator of each row alone",
        rows_over_the_sum_of_their_weights,
        first_of_each_row,
        {**PAIRWISE, "context": {"weights": TensorSpec("B C", domains.nonnegative())}},
        severity="warning",
        aspect="weights by its sum alone",
    ),
    pair("C07", "labels not used", without_labels, mean_squared, severity="warning", aspect="labels"),
    pair("C07", "groups ignored", groups_ignored, group_of_each, GROUPED, severity="warning", aspect="groups"),
    pair("C07", "momentum not used", AveragedWithoutMomentum, Averaged, AVERAGED, severity="warning"),
    pair(
        "C08",
        "whole batch where the mask is empty",
        whole_batch_where_the_mask_is_empty,
        nothing_where_the_mask_is_empty,
        MASKED,
        aspect="mask all zero",
    ),
    pair(
        "C08",
        "softmax over a large negative number",
        filled_with_a_large_number,
        softmax_over_what_is_kept,
        MASKED,
        aspect="mask all zero",
    ),
    pair("C08", "plain mean without weights", plain_mean_without_weights, zero_without_weights, PROMISED),
    pair("C08", "every node its own edge", edges_and_every_node_itself, edges_only, GRAPH, aspect="isolated node"),
)
