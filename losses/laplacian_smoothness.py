"""Smoothness of embeddings over a graph: the quadratic form of its Laplacian.

    L = ½ Σ_ij A_ij |z_i - z_j|² = tr(Zᵀ (D - A) Z) for a symmetric A,     D = diag(Σ_j A_ij)

    combinatorial   z_i = e_i
    normalized      z_i = e_i / √d_i, d the degrees Σ_j (A_ij + A_ji) / 2, and z_i = 0 where d_i = 0

Shapes: embeddings e ``N D``, adjacency A ``N N``, weights from zero up.  Where A is not symmetric, each direction counts as A
holds it, which is the Laplacian of (A + Aᵀ) / 2.  A self-loop adds nothing but, where normalized, to its node's degree.
Embeddings of some nodes of a larger graph are compared over A[nodes][:, nodes], with the degrees of the whole graph; between
two rows of one node its self-loop counts.

Source: Belkin & Niyogi, Laplacian Eigenmaps for Dimensionality Reduction and Data Representation, Neural Computation 15, 2003,
section 3; normalized: Zhou, Bousquet, Lal, Weston & Schölkopf, Learning with Local and Global Consistency, NIPS 2003, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness import domains, laws
from harness.declare.annotations import Context
from harness.declare.declared import ErrorInput
from harness.declare.dims import Size, shape
from harness.declare.spec import LossSpec
from harness.declare.tensor_spec import TensorSpec

from ._checks import check_reduction, check_values, positions
from ._graph import Format, GraphMatrix, check_embeddings, check_square, half_sum_with_transpose
from ._laplacian import divided_by_root, smoothness
from ._laplacian_usual import EdgeGatherLoss, TraceLoss, sliced_trace
from ._precision import full_precision
from ._reduction import SAMPLE_REDUCTIONS, SampleReduction, naive_reduce, nothing_of


def naive_laplacian_smoothness(
    embeddings: Float[Tensor, "N D"],
    adjacency: Annotated[Float[Tensor, "N N"], Context, domains.nonnegative()],
    nodes: Tensor | None = None,
    reduction: SampleReduction = "sum",
    normalized: bool = False,
) -> Float[Tensor, ""]:
    """The formula of this module as loops, in float64, so that the order of the sum does not show in lower precision."""
    check_reduction(reduction, SAMPLE_REDUCTIONS)
    check_square("adjacency", adjacency)
    check_embeddings(embeddings, adjacency.shape[0], nodes)
    weights = (adjacency if adjacency.layout == torch.strided else adjacency.to_dense()).double().tolist()
    size = len(weights)
    scales = [1.0] * size
    if normalized:
        degrees = [sum((weights[n][m] + weights[m][n]) / 2 for m in range(size)) for n in range(size)]
        scales = [1 / math.sqrt(degree) if degree > 0 else 0.0 for degree in degrees]
    chosen = range(size) if nodes is None else positions("nodes", nodes, size)
    rows = [row * scales[node] for row, node in zip(embeddings.double(), chosen, strict=True)]
    shares = []
    for i, node in enumerate(chosen):
        share = nothing_of(embeddings)
        for j, neighbour in enumerate(chosen):
            share = share + weights[node][neighbour] * ((rows[i] - rows[j]) ** 2).sum() / 2
        shares.append(share)
    return naive_reduce(shares, [1.0] * len(shares), embeddings[:, 0], reduction)


class LaplacianSmoothnessLoss(nn.Module):
    """The same number as `naive_laplacian_smoothness`, from one product with a matrix that is prepared once.

    Args:
        adjacency: ``N N``, the weight of each edge, from zero up; boolean or numeric, dense, COO or CSR, where entries that
            COO holds twice are added.
        reduction: ``"sum"``, ``"mean"`` over the nodes, or ``"none"`` for the share ½ Σ_j A_ij |z_i - z_j|² of each node i.
        normalized: whether embeddings are divided by the root of their node's degree.
        format: how the graph is kept, ``"dense"`` or ``"csr"``; ``"auto"`` chooses by density, see `losses._graph`.

    Attributes:
        graph: the prepared matrix; ``graph.format`` says how it is kept, and so does printing the loss.

    Raises:
        TypeError: an adjacency that is not a tensor.
        ValueError: an unknown reduction or format, or an adjacency that is not square, or holds weights below zero or not
            finite.  Buffers that are loaded or written into later are not looked at.
    """

    degrees: Tensor | None

    def __init__(
        self,
        adjacency: Annotated[Float[Tensor, "N N"], domains.nonnegative()],
        reduction: SampleReduction = "sum",
        normalized: bool = False,
        *,
        format: Format = "auto",
    ) -> None:
        super().__init__()
        check_reduction(reduction, SAMPLE_REDUCTIONS)
        check_square("adjacency", adjacency)
        check_values("adjacency", adjacency, lowest=0)
        self.reduction = reduction
        adjacency = adjacency.detach()
        symmetric = half_sum_with_transpose(adjacency)
        # The sum over all pairs is the same for (A + Aᵀ) / 2, whose one product gives the value and the gradient.
        self.graph = GraphMatrix(adjacency if reduction == "none" else symmetric, format)
        self.register_buffer("degrees", symmetric.sum(1).to_dense() if normalized else None)

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

    def _loss(self, z: Tensor, nodes: Tensor | None) -> Tensor:
        if self.degrees is not None:
            z = divided_by_root(z, self.degrees if nodes is None else self.degrees.index_select(0, nodes))
        # Differences do not change, and rows that have much in common no longer cancel in |z_i|² - <z_i, z_j>.
        z = z - z.detach().mean(0)
        degrees = self.graph.row_sums(z, nodes)
        if self.reduction != "none" and nodes is None:
            loss = smoothness(z, degrees, self.graph.data)
        else:
            loss = self._shares(z, degrees, nodes)
            loss = loss if self.reduction == "none" else loss.sum()
        if self.reduction == "mean":
            loss = loss / max(z.shape[0], 1)
        # Between equal rows rounding may leave less than nothing, which is lifted without cutting the gradient.
        return loss + (-loss.detach()).clamp(min=0)

    def _shares(self, z: Tensor, degrees: Tensor, nodes: Tensor | None) -> Tensor:
        """½ Σ_j A_ij |z_i - z_j|² = ½ (d_i |z_i|² - 2 <z_i, (A z)_i> + (A |z|²)_i): both products are one."""
        squares = z.square().sum(-1, keepdim=True)
        joined = torch.cat([z, squares], -1)
        product = self.graph(joined) if nodes is None else self.graph.among(joined, nodes)
        of_neighbours = product[:, -1]
        return (degrees * squares.squeeze(-1) + of_neighbours) / 2 - (z * product[:, :-1]).sum(-1)

    def extra_repr(self) -> str:
        """What is summed and how, for printing."""
        return f"reduction={self.reduction!r}, normalized={self.degrees is not None}"


def complete_graph_smoothness(embeddings: Tensor) -> Tensor:
    """Every node connected to every node: ½ Σ_ij |e_i - e_j|² = N Σ_i |e_i|² - |Σ_i e_i|²."""
    centred = embeddings - embeddings.mean(0)
    return len(embeddings) * centred.square().sum()


def least_bytes(sizes: Mapping[str, Size], dtype: torch.dtype) -> int:
    """Embeddings and adjacency are read once each."""
    return dtype.itemsize * (math.prod(shape("N D", sizes)) + math.prod(shape("N N", sizes)))


_MORE_NODES = ErrorInput(
    "embeddings of more nodes",
    lambda t: {"embeddings": torch.cat([t["embeddings"], t["embeddings"]])},
    match="embeddings has shape .* adjacency has shape",
)
_UNIT_AXIS = ErrorInput(
    "embeddings with a unit axis",
    lambda t: {"embeddings": t["embeddings"].unsqueeze(0)},
    match="embeddings has shape .* adjacency",
)
_NOT_SQUARE = ErrorInput(
    "adjacency that is not square",
    lambda t: {"adjacency": torch.cat([t["adjacency"], t["adjacency"]])},
    match="adjacency has shape .* square",
)

SPEC = LossSpec(
    name="laplacian_smoothness",
    implementations={
        "naive": naive_laplacian_smoothness,
        "vectorized": LaplacianSmoothnessLoss,
        "trace": TraceLoss,
        "edge_gather": EdgeGatherLoss,
    },
    laws=(
        laws.permutation("N"),
        laws.permutation("D"),
        laws.translation_invariant("embeddings"),
        laws.nonnegative(),
        laws.linear_in("adjacency"),
        laws.reduces_to(complete_graph_smoothness, adjacency=1.0),
    ),
    bench_sizes=({"N": 16, "D": 16}, {"N": 128, "D": 16}, {"N": 2048, "D": 64}),
    bytes_bound=least_bytes,
    error_inputs=(_MORE_NODES, _UNIT_AXIS, _NOT_SQUARE),
)

SPEC_NORMALIZED = SPEC.replace(
    name="laplacian_smoothness_normalized",
    options={"normalized": True},
    laws=(
        laws.permutation("N"),
        laws.permutation("D"),
        laws.nonnegative(),
        laws.scale_invariant("adjacency"),
    ),
    bench_sizes=({"N": 16, "D": 16}, {"N": 1024, "D": 64}),
)

SPEC_INDEXED = LossSpec(
    name="laplacian_smoothness_indexed",
    implementations={
        "naive": naive_laplacian_smoothness,
        "vectorized": LaplacianSmoothnessLoss,
        "sliced_trace": sliced_trace,
    },
    inputs={"embeddings": TensorSpec("B D"), "nodes": TensorSpec("B", domains.index("N"))},
    context={"adjacency": TensorSpec("N N", domains.adjacency(), torch.bool)},
    output=TensorSpec(""),
    laws=(
        laws.permutation("B"),
        laws.permutation("D"),
        laws.translation_invariant("embeddings"),
        laws.nonnegative(),
    ),
    bench_sizes=({"B": 16, "D": 16, "N": 128}, {"B": 512, "D": 64, "N": 4096}),
    error_inputs=(
        ErrorInput(
            "nodes of a larger batch",
            lambda t: {"nodes": torch.cat([t["nodes"], t["nodes"]])},
            match="nodes has shape .* expected shape",
        ),
    ),
)
