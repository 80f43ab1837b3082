"""Mutants of the rules about how a context may be given: C09 to C11."""

from __future__ import annotations

import torch
from torch import nn

from harness import TensorSpec, domains, laws
from mutants.laws import WEIGHTED, weights_normalised
from mutants.pair import PAIRWISE, pair


def kept_by_not_dropped(predictions, labels, dropped):
    """~1 is 254 in uint8."""
    return (~dropped * (predictions - labels) ** 2).mean()


def kept_by_comparison(predictions, labels, dropped):
    return ((dropped == 0) * (predictions - labels) ** 2).mean()


def picked_by_the_mask(predictions, labels, dropped):
    """An int64 mask picks rows 0 and 1."""
    error = torch.cat([(predictions - labels) ** 2, predictions.new_zeros(1, predictions.shape[1])])
    return error[:-1][dropped].sum()


def picked_where_the_mask_is_set(predictions, labels, dropped):
    return ((predictions - labels) ** 2)[dropped != 0].sum()


def undirected_where_sparse(embeddings, adjacency):
    """The sparse branch takes each edge in one direction only."""
    similarity = embeddings @ embeddings.mT
    if adjacency.layout != torch.strided:
        first, second = adjacency.to_sparse(layout=torch.sparse_coo).coalesce().indices()
        return -similarity[first, second][first < second].sum()
    return -(adjacency * similarity).sum()


def directed_everywhere(embeddings, adjacency):
    similarity = embeddings @ embeddings.mT
    if adjacency.layout != torch.strided:
        entries = adjacency.to_sparse(layout=torch.sparse_coo).coalesce()
        first, second = entries.indices()
        return -(entries.values() * similarity[first, second]).sum()
    return -(adjacency * similarity).sum()


class MovingCentre(nn.Module):
    """The centre starts as a tensor that the caller still owns, and is moved in place."""

    def __init__(self, centre):
        super().__init__()
        self.register_buffer("centre", self.kept(centre))

    def kept(self, centre):
        return centre

    def forward(self, predictions):
        with torch.no_grad():
            self.centre.mul_(0.9)
        return (predictions - self.centre).square().mean()


class MovingCopyOfTheCentre(MovingCentre):
    def kept(self, centre):
        return centre.clone()


def zero_for_the_same_storage(predictions, labels):
    """A shortcut for equal tensors, which cuts the gradient."""
    if predictions.data_ptr() == labels.data_ptr():
        return (predictions * 0).sum()
    return ((predictions - labels).abs() + 0.1 * predictions.square()).mean()


def without_a_shortcut(predictions, labels):
    return ((predictions - labels).abs() + 0.1 * predictions.square()).mean()


def groups_counted_in_the_batch(predictions, groups, weights):
    count = int(groups.max()) + 1
    sums = predictions.new_zeros(count).index_add(0, groups, predictions**2)
    return (weights[:count] * sums).sum() / weights[:count].sum()


def groups_counted_in_the_context(predictions, groups, weights):
    sums = predictions.new_zeros(len(weights)).index_add(0, groups, predictions**2)
    return (weights * sums).sum() / weights.sum()


def weights_relative_to_the_largest(predictions, labels, weights):
    """Scale invariant, and zeros remove; yet the mean counts them."""
    error = (weights.unsqueeze(-1) * (predictions - labels) ** 2).sum(-1)
    return (error / weights.max().clamp(min=1e-12)).mean()


DROPPED = {**PAIRWISE, "context": {"dropped": TensorSpec("B C", domains.boolean())}}
DROPPED_ROWS = {**PAIRWISE, "context": {"dropped": TensorSpec("B", domains.boolean())}}
GRAPH = {
    "inputs": {"embeddings": TensorSpec("N D")},
    "context": {"adjacency": TensorSpec("N N", domains.adjacency())},
}
CENTRE = {"inputs": {"predictions": TensorSpec("B C")}, "context": {"centre": TensorSpec("B C")}, "stateful": True}
GROUPED = {
    "inputs": {"predictions": TensorSpec("B"), "groups": TensorSpec("B", domains.index("G"))},
    "context": {"weights": TensorSpec("G", domains.positive())},
}
PADDED = {**WEIGHTED, "laws": (laws.zero_weight_removes("weights"), laws.scale_invariant("weights"))}

PAIRS = (
    pair("C09", "tilde of a byte", kept_by_not_dropped, kept_by_comparison, DROPPED, severity="warning", says="uint8"),
    pair(
        "C09",
        "integer mask picks rows",
        picked_by_the_mask,
        picked_where_the_mask_is_set,
        DROPPED_ROWS,
        severity="warning",
        says="int64",
    ),
    pair(
        "C09",
        "sparse edges in one direction",
        undirected_where_sparse,
        directed_everywhere,
        GRAPH,
        severity="warning",
        aspect="adjacency sparse",
    ),
    pair("C10", "centre moved in place", MovingCentre, MovingCopyOfTheCentre, CENTRE),
    pair("C10", "shortcut for the same storage", zero_for_the_same_storage, without_a_shortcut),
    pair(
        "C11",
        "groups counted in the batch",
        groups_counted_in_the_batch,
        groups_counted_in_the_context,
        GROUPED,
        severity="warning",
        aspect="G value",
    ),
    pair(
        "C11",
        "mean over padding",
        weights_relative_to_the_largest,
        weights_normalised,
        PADDED,
        severity="warning",
        aspect="weights padding",
    ),
)
