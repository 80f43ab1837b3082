"""Minus the cosine similarity of connected nodes, summed over the edges of a graph.

    L = -Σ_{(i,j): A_ij > 0} cos(e_i, e_j),     cos(x, y) = <x, y> / (|x| |y|),     cos = 0 where |x| or |y| is 0

Shapes: embeddings e ``N D``, adjacency A ``N N``; an edge counts once for each direction that A holds, a self-loop once.
Embeddings of some nodes of a larger graph are compared over A[nodes][:, nodes].
A zero row has similarity 0 to every node and gradient 0, although the cosine has no limit there.

Source: for unit vectors -Σ cos = ½ Σ |z_i - z_j|² - |edges|, the objective of Belkin & Niyogi, Laplacian Eigenmaps for
Dimensionality Reduction and Data Representation, Neural Computation 15, 2003, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from harness import domains, laws
from harness.annotations import Context
from harness.dims import Size, shape
from harness.spec import ErrorInput, LossSpec, TensorSpec
from losses._checks import check_floating, check_index, check_reduction, positions
from losses._reduction import nothing_of

GraphReduction = Literal["sum", "mean", "none"]

REDUCTIONS: tuple[GraphReduction, ...] = ("sum", "mean", "none")


def naive_graph_distance(
    embeddings: Float[Tensor, "N D"],
    adjacency: Annotated[Bool[Tensor, "N N"], Context, domains.adjacency()],
    nodes: Tensor | None = None,
    reduction: GraphReduction = "sum",
) -> Float[Tensor, ""]:
    """The formula of this module as loops, in float64, so that the order of the sum does not show in lower precision."""
    check_reduction(reduction, REDUCTIONS)
    _check_adjacency(adjacency)
    _check_call(embeddings, adjacency, nodes)
    edges = (adjacency if adjacency.layout == torch.strided else adjacency.to_dense()).tolist()
    chosen = range(len(edges)) if nodes is None else positions("nodes", nodes, len(edges))
    largest = [row.abs().max().item() for row in embeddings.detach().double()]
    # Dividing by a constant changes no cosine, and no square then overflows or vanishes.
    rows = [row / (size or 1) for row, size in zip(embeddings.double(), largest, strict=True)]
    lengths = [(row @ row).sqrt() for row in rows]
    zero = nothing_of(embeddings)
    total, per_node = zero, []
    for i, node in enumerate(chosen):
        similarity = zero
        for j, neighbour in enumerate(chosen):
            if edges[node][neighbour] > 0 and largest[i] > 0 and largest[j] > 0:
                similarity = similarity + rows[i] @ rows[j] / (lengths[i] * lengths[j])
        per_node.append(-similarity)
        total = total - similarity
    if reduction == "none":
        return torch.stack([zero, *per_node])[1:].to(embeddings.dtype)
    if reduction == "mean" and len(per_node) > 0:
        total = total / len(per_node)
    return total.to(embeddings.dtype)


class GraphDistanceLoss(nn.Module):
    """The same number as `naive_graph_distance`, from one matrix product.

    Args:
        adjacency: ``N N``, an edge where it is above zero; boolean or numeric, dense, COO or CSR, where
            entries that COO holds twice are added first.  A sparse one stays sparse (COO, the layout that modules can
            move and copy), which torch.compile and vmap do not take.
        reduction: ``"sum"`` over all edges, ``"none"`` for the share of each node i as ``N``, or ``"mean"`` over nodes.

    Raises:
        ValueError: an unknown reduction, or an adjacency that is not square.
    """

    adjacency: Tensor

    def __init__(
        self, adjacency: Annotated[Bool[Tensor, "N N"], domains.adjacency()], reduction: GraphReduction = "sum"
    ) -> None:
        super().__init__()
        check_reduction(reduction, REDUCTIONS)
        _check_adjacency(adjacency)
        self.reduction = reduction
        self.register_buffer("adjacency", _edges(adjacency.detach()))

    def forward(self, embeddings: Float[Tensor, "N D"], nodes: Tensor | None = None) -> Float[Tensor, ""]:
        """The loss, in the embeddings' dtype.

        Args:
            embeddings: ``N D``.
            nodes: int64, the node of each embedding in a graph that is larger than the batch.

        Raises:
            ValueError: shapes that do not belong together; the message names both.
            TypeError: embeddings that are not floating, or nodes that are not an integer tensor.
            IndexError, RuntimeError: a node outside the graph, also one below zero; torch chooses which.
        """
        _check_call(embeddings, self.adjacency, nodes)
        # With z the rows of length one, Σ_ij A_ij <z_i, z_j> = Σ_i <z_i, (A z)_i>: neither the N x N similarities nor the
        # two ends of every edge are ever made.
        z = directions(embeddings)
        per_node = -(z * self._neighbour_sum(z, nodes)).sum(-1)
        if self.reduction == "none":
            return per_node
        if self.reduction == "sum" or per_node.numel() == 0:
            return per_node.sum()
        return per_node.mean()

    def _neighbour_sum(self, z: Tensor, nodes: Tensor | None) -> Tensor:
        """Row i is Σ_j A_ij z_j."""
        adjacency = self.adjacency.to(z.dtype)
        if nodes is None:
            return adjacency @ z
        if adjacency.layout == torch.strided:
            return adjacency.index_select(0, nodes).index_select(1, nodes) @ z
        # Slicing a sparse matrix reads its size back to the host; spreading the batch over all nodes does not.
        spread = z.new_zeros(adjacency.shape[1], z.shape[1]).index_add(0, nodes, z)
        return (adjacency @ spread).index_select(0, nodes)

    def extra_repr(self) -> str:
        """Shape and reduction, for printing."""
        return f"adjacency={list(self.adjacency.shape)}, reduction={self.reduction!r}"


def directions(embeddings: Tensor) -> Tensor:
    """Rows divided by their lengths, ``N D``; a zero row stays zero, with gradient zero of every order."""
    # Dividing by a constant changes no direction, and no square then overflows or vanishes.
    largest = embeddings.detach().abs().amax(-1, keepdim=True)
    zero = largest == 0
    scaled = embeddings / largest.masked_fill(zero, 1)
    length = scaled.square().sum(-1, keepdim=True).masked_fill(zero, 1).sqrt()
    return (scaled / length).masked_fill(zero, 0)


def _edges(adjacency: Tensor) -> Tensor:
    """1 where there is an edge, else 0, in a floating dtype, so that `.to()` moves it along and a product needs no cast."""
    dtype = adjacency.dtype if adjacency.is_floating_point() else torch.float32
    if adjacency.layout == torch.strided:
        return (adjacency > 0).to(dtype)
    entries = adjacency.to_sparse(layout=torch.sparse_coo).coalesce()
    indices = entries.indices()[:, entries.values() > 0]
    ones = torch.ones(indices.shape[1], dtype=dtype, device=indices.device)
    # Said in so many words: torch warns where it is left open whether the indices, taken from a tensor, are checked.
    return torch.sparse_coo_tensor(indices, ones, adjacency.shape, check_invariants=False, is_coalesced=True)


def _check_adjacency(adjacency: Tensor) -> None:
    if adjacency.ndim != 2 or adjacency.shape[0] != adjacency.shape[1]:
        raise ValueError(f"adjacency has shape {list(adjacency.shape)}, but should be square, [N, N]")


def _check_call(embeddings: Tensor, adjacency: Tensor, nodes: Tensor | None) -> None:
    check_floating("embeddings", embeddings)
    if embeddings.ndim != 2 or embeddings.shape[1] == 0:
        raise ValueError(
            f"embeddings has shape {list(embeddings.shape)}, but should be [N, D] with D >= 1 "
            f"and N the nodes of adjacency, which has shape {list(adjacency.shape)}"
        )
    if nodes is not None:
        check_index(
            "nodes", nodes, tuple(embeddings.shape[:1]), f"one for each row of embeddings {list(embeddings.shape)}"
        )
    elif embeddings.shape[0] != adjacency.shape[0]:
        raise ValueError(
            f"embeddings has shape {list(embeddings.shape)}, but adjacency has shape {list(adjacency.shape)}, and each node "
            f"needs one row; for some nodes of a larger graph pass nodes, one for each row"
        )


def complete_graph_distance(embeddings: Tensor) -> Tensor:
    """Every node connected to every node and to itself: -Σ_ij <z_i, z_j> = -|Σ_i z_i|²."""
    return -directions(embeddings).sum(0).square().sum()


def least_bytes(sizes: Mapping[str, Size], dtype: torch.dtype) -> int:
    """Embeddings and a boolean adjacency are read once each."""
    return dtype.itemsize * math.prod(shape("N D", sizes)) + math.prod(shape("N N", sizes))


SPEC = LossSpec(
    name="graph_distance",
    implementations={"naive": naive_graph_distance, "vectorized": GraphDistanceLoss},
    laws=(
        laws.permutation("N"),
        laws.permutation("D"),
        laws.scale_invariant("embeddings"),
        laws.reduces_to(complete_graph_distance, adjacency=1.0),
    ),
    bench_sizes=({"N": 16, "D": 16}, {"N": 64, "D": 16}, {"N": 128, "D": 16}),
    bytes_bound=least_bytes,
    error_inputs=(
        ErrorInput(
            "embeddings of more nodes",
            lambda t: {"embeddings": torch.cat([t["embeddings"], t["embeddings"]])},
            match="embeddings has shape .* adjacency has shape",
        ),
        ErrorInput(
            "embeddings with a unit axis",
            lambda t: {"embeddings": t["embeddings"].unsqueeze(0)},
            match="embeddings has shape .* adjacency",
        ),
        ErrorInput(
            "adjacency that is not square",
            lambda t: {"adjacency": torch.cat([t["adjacency"], t["adjacency"]])},
            match="adjacency has shape .* square",
        ),
    ),
)

SPEC_INDEXED = LossSpec(
    name="graph_distance_indexed",
    implementations={"naive": naive_graph_distance, "vectorized": GraphDistanceLoss},
    inputs={"embeddings": TensorSpec("B D"), "nodes": TensorSpec("B", domains.index("N"))},
    context={"adjacency": TensorSpec("N N", domains.adjacency(), torch.bool)},
    output=TensorSpec(""),
    laws=(laws.permutation("B"), laws.permutation("D"), laws.scale_invariant("embeddings")),
    bench_sizes=({"B": 32, "D": 16, "N": 512},),
    error_inputs=(
        ErrorInput(
            "nodes of a larger batch",
            lambda t: {"nodes": torch.cat([t["nodes"], t["nodes"]])},
            match="nodes has shape .* should have shape",
        ),
    ),
)
