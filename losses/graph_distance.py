"""Minus the cosine similarity of connected nodes, or their cosine distance, summed over the edges of a graph.

    similarity   L = -Σ_{(i,j): A_ij > 0} w_ij cos(e_i, e_j)          cos(x, y) = <x, y> / (|x| |y|), 0 where |x| or |y| is 0
    distance     L =  Σ_{(i,j): A_ij > 0} w_ij (1 - cos(e_i, e_j))    never below zero

Shapes: embeddings e ``N D``, adjacency A ``N N``.  An edge weighs w_ij = 1, or A_ij in a weighted graph; it counts once for
each direction that A holds, a self-loop once; what is not above zero is no edge.
Embeddings of some nodes of a larger graph are compared over A[nodes][:, nodes].
A zero row has similarity 0 (distance 1) to every node and gradient 0, although the cosine has no limit there.

Source: for unit vectors Σ (1 - cos) = ½ Σ |z_i - z_j|², the objective of Belkin & Niyogi, Laplacian Eigenmaps for
Dimensionality Reduction and Data Representation, Neural Computation 15, 2003, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from harness import domains, laws
from harness.declare.annotations import Context
from harness.declare.declared import ErrorInput
from harness.declare.dims import Size, shape
from harness.declare.spec import LossSpec
from harness.declare.tensor_spec import TensorSpec

from ._checks import check_index, check_reduction, check_tensor, check_values, positions
from ._cosine import directions, similarity
from ._edge_cosines import EdgeGatherLoss, SimilarityMatrixLoss
from ._graph import Format, GraphMatrix, check_embeddings, check_square, coo, half_sum_with_transpose
from ._precision import full_precision
from ._reduction import nothing_of

GraphReduction = Literal["sum", "mean", "none"]
Form = Literal["similarity", "distance"]

REDUCTIONS: tuple[GraphReduction, ...] = get_args(GraphReduction)
FORMS: tuple[Form, ...] = get_args(Form)


def naive_graph_distance(
    embeddings: Float[Tensor, "N D"],
    adjacency: Annotated[Bool[Tensor, "N N"], Context, domains.adjacency()],
    nodes: Tensor | None = None,
    reduction: GraphReduction = "sum",
    *,
    weighted: bool = False,
    form: Form = "similarity",
) -> Float[Tensor, ""]:
    """The formula of this module as loops, in float64, so that the order of the sum does not show in lower precision."""
    check_reduction(reduction, REDUCTIONS)
    _check_form(form)
    check_square("adjacency", adjacency)
    check_embeddings(embeddings, adjacency.shape[0], nodes)
    edges = (adjacency if adjacency.layout == torch.strided else adjacency.to_dense()).tolist()
    chosen = range(len(edges)) if nodes is None else positions("nodes", nodes, len(edges))
    largest = [row.abs().max().item() for row in embeddings.detach().double()]
    # Dividing by a constant changes no cosine, and no square then overflows or vanishes.
    rows = [row / (size or 1) for row, size in zip(embeddings.double(), largest, strict=True)]
    lengths = [(row @ row).sqrt() for row in rows]
    zero = nothing_of(embeddings)
    total, per_node = zero, []
    for i, node in enumerate(chosen):
        share = zero
        for j, neighbour in enumerate(chosen):
            if edges[node][neighbour] > 0:
                weight = edges[node][neighbour] if weighted else 1
                cosine = zero
                if largest[i] > 0 and largest[j] > 0:
                    cosine = rows[i] @ rows[j] / (lengths[i] * lengths[j])
                share = share + weight * (1 - cosine if form == "distance" else -cosine)
        per_node.append(share)
        total = total + share
    if reduction == "none":
        return torch.stack([zero, *per_node])[1:].to(embeddings.dtype)
    if reduction == "mean" and len(per_node) > 0:
        total = total / len(per_node)
    return total.to(embeddings.dtype)


class GraphDistanceLoss(nn.Module):
    """The same number as `naive_graph_distance`, from one product with a matrix that is prepared once.

    With z the rows of length one, Σ_ij A_ij <z_i, z_j> = Σ_i <z_i, (A z)_i>: neither the N x N similarities nor the two ends
    of every edge are made.  The sum is the same for (A + Aᵀ) / 2, whose one product gives the value and the gradient.

    Args:
        adjacency: ``N N``, an edge where it is above zero; boolean or numeric, dense, COO or CSR, where entries that
            COO holds twice are added first.  See `from_edges` for a list of edges.
        reduction: ``"sum"`` over all edges, ``"none"`` for the share of each node i as ``N``, or ``"mean"`` over nodes.
        weighted: an edge counts A_ij instead of once.
        form: ``"similarity"`` for minus the sum of cosines, ``"distance"`` for the sum of one minus cosine.
        format: how the graph is kept, ``"dense"`` or ``"csr"``; ``"auto"`` chooses by density, see `losses._graph`.

    Attributes:
        graph: the prepared matrix; ``graph.format`` says how it is kept, and so does printing the loss.

    Raises:
        TypeError: an adjacency that is not a tensor.
        ValueError: an unknown reduction, form or format, or an adjacency that is not square or, where edges are weighted,
            not finite.  Buffers that are loaded or written into later are not looked at.
    """

    def __init__(
        self,
        adjacency: Annotated[Bool[Tensor, "N N"], domains.adjacency()],
        reduction: GraphReduction = "sum",
        *,
        weighted: bool = False,
        form: Form = "similarity",
        format: Format = "auto",
    ) -> None:
        super().__init__()
        check_reduction(reduction, REDUCTIONS)
        _check_form(form)
        check_square("adjacency", adjacency)
        if weighted:
            check_values("adjacency", adjacency)
        self.reduction = reduction
        self.weighted = weighted
        self.form = form
        edges = _edges(adjacency.detach(), weighted)
        self.graph = GraphMatrix(edges if reduction == "none" else half_sum_with_transpose(edges), format)

    @classmethod
    def from_edges(cls, edges: Tensor, nodes: int, weights: Tensor | None = None, **options: Any) -> Self:
        """The loss of a graph that is given as a list of edges.

        Args:
            edges: int64 ``2 E``: an edge from node ``edges[0, k]`` to node ``edges[1, k]`` of [0, nodes).  Without weights
                an edge that is listed twice counts once.
            nodes: N.
            weights: ``E``, the weight of each edge; those of an edge that is listed twice are added.
            options: the other arguments of the class.

        Raises:
            TypeError: edges that are no integer tensor, or weights that are no tensor.
            ValueError: another shape, or a node outside [0, nodes).
        """
        _check_edges(edges, nodes, weights)
        values = torch.ones_like(edges[0], dtype=torch.float32) if weights is None else weights.detach()
        return cls(coo(edges.long(), values, nodes), **{"weighted": weights is not None, **options})

    def forward(self, embeddings: Float[Tensor, "N D"], nodes: Tensor | None = None) -> Float[Tensor, ""]:
        """The loss, in the embeddings' dtype; sums are taken at least in float32.

        Args:
            embeddings: ``N D``.
            nodes: int64, the node of each embedding in a graph that is larger than the batch.

        Raises:
            ValueError: shapes that do not belong together; the message names both.
            TypeError: embeddings that are not floating, or nodes that are not an integer tensor.
            IndexError, RuntimeError: a node outside the graph, also one below zero; torch chooses which.
        """
        check_embeddings(embeddings, self.graph.size, nodes)
        with full_precision(embeddings.device):
            loss = self._loss(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), nodes)
        return loss.to(embeddings.dtype)

    def _loss(self, embeddings: Tensor, nodes: Tensor | None) -> Tensor:
        if self.reduction == "none":
            return self._shares(embeddings, nodes)
        if nodes is None:
            total = self._of_edges(
                similarity(embeddings, self.graph.data), lambda: self.graph.row_sums(embeddings).sum()
            )
        else:
            total = self._shares(embeddings, nodes).sum()
        return total / max(embeddings.shape[0], 1) if self.reduction == "mean" else total

    def _shares(self, embeddings: Tensor, nodes: Tensor | None) -> Tensor:
        """What each node contributes; with (A + Aᵀ) / 2 only their sum is that of A."""
        z = directions(embeddings)
        neighbours = self.graph(z) if nodes is None else self.graph.among(z, nodes)
        return self._of_edges((z * neighbours).sum(-1), lambda: self.graph.row_sums(z, nodes))

    def _of_edges(self, similarities: Tensor, weights: Callable[[], Tensor]) -> Tensor:
        if self.form == "similarity":
            return -similarities
        distances = weights() - similarities
        # Between rows of one direction rounding may leave less than nothing, which is lifted without cutting the gradient.
        return distances + (-distances.detach()).clamp(min=0)

    def extra_repr(self) -> str:
        """What is summed and how, for printing."""
        weighted = ", weighted=True" if self.weighted else ""
        return f"reduction={self.reduction!r}, form={self.form!r}{weighted}"


def _edges(adjacency: Tensor, weighted: bool) -> Tensor:
    """The weight of each edge, zero where there is none, in a floating dtype; what came sparse stays sparse."""
    dtype = adjacency.dtype if adjacency.is_floating_point() else torch.float32
    if adjacency.layout == torch.strided:
        edge = adjacency > 0
        return torch.where(edge, adjacency, 0).to(dtype) if weighted else edge.to(dtype)
    entries = adjacency.to_sparse(layout=torch.sparse_coo).coalesce()
    edge = entries.values() > 0
    values = entries.values()[edge].to(dtype)
    return coo(entries.indices()[:, edge], values if weighted else torch.ones_like(values), adjacency.shape[0])


def _check_form(form: str) -> None:
    if form not in FORMS:
        raise ValueError(f"form={form!r}, expected one of {list(FORMS)}")


def _check_edges(edges: Tensor, nodes: int, weights: Tensor | None) -> None:
    check_tensor("edges", edges)
    if weights is not None:
        check_tensor("weights", weights)
    check_index("edges", edges, (2, edges.shape[-1]) if edges.ndim > 0 else (2, 0), "the two ends of each edge")
    if edges.numel() > 0 and not (int(edges.min()) >= 0 and int(edges.max()) < nodes):
        raise ValueError(
            f"edges holds nodes from {int(edges.min())} to {int(edges.max())}, expected in [0, {nodes}), nodes={nodes}"
        )
    if weights is not None and weights.shape != edges.shape[1:]:
        raise ValueError(
            f"weights has shape {list(weights.shape)}, but edges has shape {list(edges.shape)}, and each edge needs one weight"
        )


def complete_graph_distance(embeddings: Tensor) -> Tensor:
    """Every node connected to every node and to itself: -Σ_ij <z_i, z_j> = -|Σ_i z_i|²."""
    return -directions(embeddings).sum(0).square().sum()


def least_bytes(sizes: Mapping[str, Size], dtype: torch.dtype) -> int:
    """Embeddings and a boolean adjacency are read once each."""
    return dtype.itemsize * math.prod(shape("N D", sizes)) + math.prod(shape("N N", sizes))


SPEC = LossSpec(
    name="graph_distance",
    implementations={
        "naive": naive_graph_distance,
        "vectorized": GraphDistanceLoss,
        "similarity_matrix": SimilarityMatrixLoss,
        "edge_gather": EdgeGatherLoss,
    },
    laws=(
        laws.permutation("N"),
        laws.permutation("D"),
        laws.scale_invariant("embeddings"),
        laws.reduces_to(complete_graph_distance, adjacency=1.0),
    ),
    bench_sizes=({"N": 16, "D": 16}, {"N": 64, "D": 16}, {"N": 1024, "D": 32}),
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
    implementations={
        "naive": naive_graph_distance,
        "vectorized": GraphDistanceLoss,
        "similarity_matrix": SimilarityMatrixLoss,
    },
    inputs={"embeddings": TensorSpec("B D"), "nodes": TensorSpec("B", domains.index("N"))},
    context={"adjacency": TensorSpec("N N", domains.adjacency(), torch.bool)},
    output=TensorSpec(""),
    laws=(laws.permutation("B"), laws.permutation("N"), laws.permutation("D"), laws.scale_invariant("embeddings")),
    bench_sizes=({"B": 32, "D": 16, "N": 512}, {"B": 256, "D": 64, "N": 2048}),
    error_inputs=(
        ErrorInput(
            "nodes of a larger batch",
            lambda t: {"nodes": torch.cat([t["nodes"], t["nodes"]])},
            match="nodes has shape .* expected shape",
        ),
    ),
)

SPEC_WEIGHTED = LossSpec(
    name="graph_distance_weighted",
    implementations={"naive": naive_graph_distance, "vectorized": GraphDistanceLoss},
    context={"adjacency": TensorSpec("N N", domains.nonnegative())},
    options={"weighted": True},
    laws=(
        laws.permutation("N"),
        laws.permutation("D"),
        laws.scale_invariant("embeddings"),
        laws.linear_in("adjacency"),
        laws.reduces_to(complete_graph_distance, adjacency=1.0),
    ),
    bench_sizes=({"N": 16, "D": 16}, {"N": 64, "D": 16}),
    error_inputs=SPEC.error_inputs,
)

SPEC_DISTANCE = LossSpec(
    name="graph_distance_nonnegative",
    implementations={"naive": naive_graph_distance, "vectorized": GraphDistanceLoss},
    options={"form": "distance"},
    laws=(laws.permutation("N"), laws.permutation("D"), laws.scale_invariant("embeddings"), laws.nonnegative()),
    bench_sizes=({"N": 16, "D": 16}, {"N": 64, "D": 16}),
    error_inputs=SPEC.error_inputs,
)
