"""The usual ways of writing the smoothness of embeddings over a graph, to compare time and memory with.

They are written as people write them, but that shapes that do not belong together are refused.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._checks import check_reduction
from ._graph import check_embeddings, check_square, half_sum_with_transpose
from ._laplacian import divided_by_root
from ._reduction import SAMPLE_REDUCTIONS, SampleReduction


class TraceLoss(nn.Module):
    """The dense Laplacian, prepared once, and the trace of Eᵀ (L E).

    Arguments and errors are those of `losses.laplacian_smoothness.LaplacianSmoothnessLoss`.
    """

    laplacian: Tensor
    degrees: Tensor | None

    def __init__(self, adjacency: Tensor, reduction: SampleReduction = "sum", normalized: bool = False) -> None:
        super().__init__()
        check_reduction(reduction, SAMPLE_REDUCTIONS)
        check_square("adjacency", adjacency)
        self.reduction = reduction
        symmetric = half_sum_with_transpose(adjacency.detach()).to_dense()
        weights = adjacency.detach().to_dense().to(symmetric.dtype) if reduction == "none" else symmetric
        laplacian = torch.diag(weights.sum(1)) - weights
        self.register_buffer("laplacian", laplacian)
        self.register_buffer("degrees", symmetric.sum(1) if normalized else None)

    def forward(self, embeddings: Tensor) -> Tensor:
        """The loss, in the embeddings' dtype."""
        check_embeddings(embeddings, self.laplacian.shape[0], None)
        laplacian = self.laplacian.to(embeddings.dtype)
        z = embeddings if self.degrees is None else divided_by_root(embeddings, self.degrees)
        if self.reduction == "none":
            return (z * (laplacian @ z)).sum(-1) - laplacian @ z.square().sum(-1) / 2
        total = torch.trace(z.T @ (laplacian @ z))
        return total / max(len(z), 1) if self.reduction == "mean" else total


class EdgeGatherLoss(nn.Module):
    """Both ends of every edge gathered, and the squares of their differences summed.

    Arguments and errors are those of `losses.laplacian_smoothness.LaplacianSmoothnessLoss`.
    """

    source: Tensor
    target: Tensor
    weights: Tensor
    degrees: Tensor | None

    def __init__(self, adjacency: Tensor, reduction: SampleReduction = "sum", normalized: bool = False) -> None:
        super().__init__()
        check_reduction(reduction, SAMPLE_REDUCTIONS)
        check_square("adjacency", adjacency)
        self.reduction = reduction
        self.nodes = adjacency.shape[0]
        entries = adjacency.detach().to_sparse(layout=torch.sparse_coo).coalesce()
        source, target = entries.indices().clone()
        values = entries.values().clone()  # a view of what is sparse is nothing that torch.compile can take
        self.register_buffer("source", source)
        self.register_buffer("target", target)
        self.register_buffer("weights", values if values.is_floating_point() else values.float())
        degrees = half_sum_with_transpose(entries).sum(1).to_dense()
        self.register_buffer("degrees", degrees if normalized else None)

    def forward(self, embeddings: Tensor) -> Tensor:
        """The loss, in the embeddings' dtype."""
        check_embeddings(embeddings, self.nodes, None)
        z = embeddings if self.degrees is None else divided_by_root(embeddings, self.degrees)
        difference = z[self.source] - z[self.target]
        of_edges = self.weights.to(z.dtype) * difference.square().sum(-1) / 2
        if self.reduction == "none":
            return z.new_zeros(self.nodes).index_add(0, self.source, of_edges)
        total = of_edges.sum()
        return total / max(self.nodes, 1) if self.reduction == "mean" else total


def sliced_trace(embeddings: Tensor, adjacency: Tensor, nodes: Tensor, reduction: SampleReduction = "sum") -> Tensor:
    """For some nodes: the dense adjacency sliced, its Laplacian, and the trace of Eᵀ (L E)."""
    check_reduction(reduction, SAMPLE_REDUCTIONS)
    check_square("adjacency", adjacency)
    check_embeddings(embeddings, adjacency.shape[0], nodes)
    weights = adjacency[nodes][:, nodes].to(embeddings.dtype)
    shares = (weights.sum(1) + weights.sum(0)) / 2
    laplacian = torch.diag(shares) - (weights + weights.T) / 2
    if reduction == "none":
        laplacian = torch.diag(weights.sum(1)) - weights
        return (embeddings * (laplacian @ embeddings)).sum(-1) - laplacian @ embeddings.square().sum(-1) / 2
    total = torch.trace(embeddings.T @ (laplacian @ embeddings))
    return total / max(len(embeddings), 1) if reduction == "mean" else total
