"""The two usual ways of summing cosines over the edges of a graph, to compare time and memory with.

Both are written as people write them, but for two things.  `torch.nn.functional.normalize` multiplies the gradient of a
zero row by 1e12, and lengths whose squares overflow or vanish change the loss, so that `losses._cosine.directions` stands
in its place: a few passes more over ``N D``, where these losses make many over ``N N`` or ``E D``.  And shapes that do not
belong together are refused.
"""

from __future__ import annotations

from torch import Tensor, nn

from ._checks import check_reduction
from ._cosine import directions
from ._graph import check_embeddings, check_square


class SimilarityMatrixLoss(nn.Module):
    """The cosines of all N x N pairs, of which those of the edges are summed: for an adjacency ``N N``, kept dense.

    Multiplying by the adjacency is a tenth faster than picking ``similarity[adjacency]``, and takes twice the memory.

    Raises:
        ValueError: an unknown reduction, or shapes that do not belong together.
    """

    adjacency: Tensor

    def __init__(self, adjacency: Tensor, reduction: str = "sum") -> None:
        super().__init__()
        check_reduction(reduction, ("sum", "mean", "none"))
        check_square("adjacency", adjacency)
        self.reduction = reduction
        self.register_buffer("adjacency", (adjacency.detach() > 0).float())

    def forward(self, embeddings: Tensor, nodes: Tensor | None = None) -> Tensor:
        """The loss of embeddings ``N D``, or of ``B D`` for the nodes ``B`` of a larger graph."""
        check_embeddings(embeddings, self.adjacency.shape[0], nodes)
        adjacency = self.adjacency.to(embeddings.dtype)
        if nodes is not None:
            adjacency = adjacency.index_select(0, nodes).index_select(1, nodes)
        z = directions(embeddings)
        return _reduced(-(adjacency * (z @ z.T)).sum(-1), self.reduction)


class EdgeGatherLoss(nn.Module):
    """The embeddings of both ends of every edge, multiplied: for an adjacency ``N N``, kept as a list of edges.

    Raises:
        ValueError: an unknown reduction, or shapes that do not belong together.
    """

    source: Tensor
    target: Tensor

    def __init__(self, adjacency: Tensor, reduction: str = "sum") -> None:
        super().__init__()
        check_reduction(reduction, ("sum", "mean", "none"))
        check_square("adjacency", adjacency)
        self.reduction = reduction
        self.nodes = adjacency.shape[0]
        source, target = (adjacency.detach() > 0).nonzero(as_tuple=True)
        self.register_buffer("source", source)
        self.register_buffer("target", target)

    def forward(self, embeddings: Tensor) -> Tensor:
        """The loss of embeddings ``N D``."""
        check_embeddings(embeddings, self.nodes, None)
        z = directions(embeddings)
        per_edge = (z[self.source] * z[self.target]).sum(-1)
        if self.reduction == "sum":
            return -per_edge.sum()
        return _reduced(-z.new_zeros(self.nodes).index_add(0, self.source, per_edge), self.reduction)


def _reduced(per_node: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return per_node
    return per_node.sum() if reduction == "sum" or per_node.numel() == 0 else per_node.mean()
