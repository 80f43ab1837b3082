"""Losses over the edges of a graph: against all pairs, against both ends of every edge, and between our own formats."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from harness import domains
from harness.declare.domains import Domain
from harness.declare.tensor_spec import TensorSpec
from losses import graph_distance, laplacian_smoothness
from losses.graph_distance import GraphDistanceLoss
from losses.laplacian_smoothness import LaplacianSmoothnessLoss
from property_tests.tools.comparison.contest import OURS, Claim, Contestant, ahead, contest

NODES, DEGREE = 4096, 8


class MaskedSimilarities(nn.Module):
    def __init__(self, adjacency: Tensor) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency.to(torch.float32))

    def forward(self, embeddings: Tensor) -> Tensor:
        z = functional.normalize(embeddings, dim=1)
        return -(self.adjacency.to(z.dtype) * (z @ z.T)).sum()


class SelectedSimilarities(nn.Module):
    def __init__(self, adjacency: Tensor) -> None:
        super().__init__()
        self.register_buffer("edge", adjacency > 0)

    def forward(self, embeddings: Tensor) -> Tensor:
        z = functional.normalize(embeddings, dim=1)
        return -(z @ z.T)[self.edge].sum()


class GatheredCosines(nn.Module):
    def __init__(self, adjacency: Tensor) -> None:
        super().__init__()
        source, target = (adjacency > 0).nonzero().unbind(1)
        self.register_buffer("source", source)
        self.register_buffer("target", target)

    def forward(self, embeddings: Tensor) -> Tensor:
        z = functional.normalize(embeddings, dim=1)
        return -(z[self.source] * z[self.target]).sum()


class DenseGraphDistance(GraphDistanceLoss):
    def __init__(self, adjacency: Tensor) -> None:
        super().__init__(adjacency, format="dense")


class RowsGraphDistance(GraphDistanceLoss):
    def __init__(self, adjacency: Tensor) -> None:
        super().__init__(adjacency, format="csr")


class Trace(nn.Module):
    def __init__(self, adjacency: Tensor) -> None:
        super().__init__()
        symmetric = (adjacency + adjacency.T) / 2
        self.register_buffer("laplacian", torch.diag(symmetric.sum(1)) - symmetric)

    def forward(self, embeddings: Tensor) -> Tensor:
        return torch.trace(embeddings.T @ self.laplacian @ embeddings)


class GatheredDifferences(nn.Module):
    def __init__(self, adjacency: Tensor) -> None:
        super().__init__()
        source, target = adjacency.nonzero().unbind(1)
        self.register_buffer("source", source)
        self.register_buffer("target", target)
        self.register_buffer("weights", adjacency[source, target])

    def forward(self, embeddings: Tensor) -> Tensor:
        differences = embeddings[self.source] - embeddings[self.target]
        return (self.weights * differences.square().sum(1)).sum() / 2


class GeometricLaplacian(nn.Module):
    """torch_geometric's Laplacian of an undirected graph, and its product of a sparse matrix."""

    def __init__(self, adjacency: Tensor) -> None:
        super().__init__()
        from torch_geometric.utils import dense_to_sparse, get_laplacian, spmm, to_torch_csr_tensor

        edges, weights = get_laplacian(*dense_to_sparse(adjacency), num_nodes=len(adjacency))
        self.laplacian = to_torch_csr_tensor(edges, weights, size=len(adjacency))
        self._spmm = spmm

    def forward(self, embeddings: Tensor) -> Tensor:
        return (embeddings * self._spmm(self.laplacian, embeddings)).sum()


# On a handful of nodes the density of a large graph would leave hardly an edge.
FEW_NODES = 64


def random_graph(density: float, *, directed: bool = False) -> Domain:
    """Each edge there with one probability, and no self-loops; drawn at once, where a general domain takes seconds."""

    def graph(shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
        part = density if shape[0] > FEW_NODES else 0.5
        edges = (torch.rand(shape, generator=generator) < part).fill_diagonal_(False)
        if not directed:
            edges = edges.triu()
            edges |= edges.T.clone()
        return edges.to(dtype)

    return domains.custom(graph)


_COSINES = [
    Contestant(OURS, GraphDistanceLoss, "GraphDistanceLoss(A)(e)"),
    Contestant("all pairs masked", MaskedSimilarities, "z = F.normalize(e); -(A * (z @ z.T)).sum()"),
    Contestant("all pairs selected", SelectedSimilarities, "z = F.normalize(e); -(z @ z.T)[A > 0].sum()"),
    Contestant("gathered ends", GatheredCosines, "z = F.normalize(e); -(z[i] * z[j]).sum()"),
]
_FORMATS = [
    Contestant(OURS, GraphDistanceLoss, "GraphDistanceLoss(A)(e)"),
    Contestant("dense", DenseGraphDistance, 'GraphDistanceLoss(A, format="dense")(e)'),
    Contestant("csr", RowsGraphDistance, 'GraphDistanceLoss(A, format="csr")(e)'),
]
_DENSE = ("all pairs masked", "all pairs selected")
_CLAIMS = (Claim("seconds", _DENSE, 40), Claim("peak_bytes", _DENSE, 25), *ahead("gathered ends"))
_DENSITIES = (0.001, 0.01, 0.1, 0.5)
_SMALL = {"N": 7, "D": 3}

CONTESTS = (
    contest(
        f"graph_distance, undirected, {DEGREE} neighbours a node",
        graph_distance.SPEC,
        _COSINES,
        module=__name__,
        name="graph_distance",
        small=_SMALL,
        sizes=[{"N": NODES, "D": 64}],
        claims=_CLAIMS,
        context={"adjacency": TensorSpec("N N", random_graph(DEGREE / NODES), torch.bool)},
    ),
    contest(
        f"graph_distance, directed, {DEGREE} edges out of a node",
        graph_distance.SPEC,
        _COSINES,
        module=__name__,
        name="graph_distance_directed",
        small=_SMALL,
        sizes=[{"N": NODES, "D": 64}],
        claims=_CLAIMS,
        context={"adjacency": TensorSpec("N N", random_graph(DEGREE / NODES, directed=True), torch.bool)},
    ),
    *(
        contest(
            f"graph_distance, formats at a density of {100 * density:g} %",
            graph_distance.SPEC,
            _FORMATS,
            module=__name__,
            name=f"graph_distance_formats_{density:g}",
            small=_SMALL,
            sizes=[{"N": 2048, "D": 64}, {"N": 4096, "D": 64}],
            claims=[Claim("seconds", ("dense", "csr"), most=1.1)],
            context={"adjacency": TensorSpec("N N", random_graph(density), torch.bool)},
            seconds=120,
        )
        for density in _DENSITIES
    ),
    contest(
        f"laplacian_smoothness, undirected, {DEGREE} neighbours a node",
        laplacian_smoothness.SPEC,
        [
            Contestant(OURS, LaplacianSmoothnessLoss, "LaplacianSmoothnessLoss(A)(e)"),
            Contestant("trace", Trace, "torch.trace(e.T @ L @ e)"),
            Contestant("gathered ends", GatheredDifferences, "(w * (e[i] - e[j]).square().sum(1)).sum() / 2"),
            Contestant(
                "torch_geometric",
                GeometricLaplacian,
                "L = to_torch_csr_tensor(*get_laplacian(edges)); (e * spmm(L, e)).sum()",
                package="torch-geometric",
                convention="it has the Laplacian and the product, and the quadratic form is written with them",
            ),
        ],
        module=__name__,
        name="laplacian_smoothness",
        small=_SMALL,
        sizes=[{"N": NODES, "D": 64}],
        claims=[*ahead("trace"), *ahead("gathered ends"), *ahead("torch_geometric")],
        context={"adjacency": TensorSpec("N N", random_graph(DEGREE / NODES))},
    ),
    contest(
        "laplacian_smoothness, every pair connected",
        laplacian_smoothness.SPEC,
        [
            Contestant(OURS, LaplacianSmoothnessLoss, "LaplacianSmoothnessLoss(A)(e)"),
            Contestant("trace", Trace, "torch.trace(e.T @ L @ e)"),
        ],
        module=__name__,
        name="laplacian_smoothness_dense",
        small=_SMALL,
        sizes=[{"N": 2048, "D": 64}],
        claims=ahead("trace"),
    ),
)
SPECS = [each.spec for each in CONTESTS]
