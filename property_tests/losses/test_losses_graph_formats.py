"""A graph as a list of edges, dense and by rows: the same loss in every mode, its state, and what is never made."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from loss_examples import draw, generator
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from losses import GraphDistanceLoss
from losses.graph_distance import SPEC, SPEC_INDEXED, SPEC_WEIGHTED, naive_graph_distance

# ---- formats -----------------------------------------------------------------------------------------------------------


def graph(nodes, degree, seed=0):
    """Edges of a graph as ``2 E``, with neither loops nor repeats."""
    steps = torch.arange(1, degree + 1)
    start = torch.randperm(nodes, generator=generator(seed))
    return torch.stack(
        [start.repeat_interleave(degree), start[(torch.arange(nodes).unsqueeze(1) + steps) % nodes].flatten()]
    )


def dense_of(edges, nodes):
    adjacency = torch.zeros(nodes, nodes, dtype=torch.bool)
    adjacency[edges[0], edges[1]] = True
    return adjacency


@pytest.fixture(params=[0, 1e9], ids=["spread", "lists"])
def way(request, monkeypatch):
    """Of multiplying by some rows of a csr matrix: the batch spread over all nodes, or lists of neighbours in the batch."""
    monkeypatch.setattr("losses._graph.LISTED_SHARE", request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("node", [12, -1])
def test_both_ways_refuse_a_node_outside_the_graph(node):
    loss = GraphDistanceLoss.from_edges(graph(12, 3), 12, format="csr")
    with pytest.raises((IndexError, RuntimeError), match="index"):
        loss(torch.ones(2, 3), torch.tensor([1, node]))


@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("form", ["similarity", "distance"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("nodes", [None, [5, 0, 5, 2, 1]])
@pytest.mark.parametrize("format", ["dense", "csr"])
def test_every_format_gives_the_loops_of_every_graph(format, nodes, reduction, form, weighted, directed):
    adjacency = draw(SPEC_WEIGHTED, N=6)["adjacency"]
    adjacency[0, 1:3] = -1
    adjacency = adjacency if directed else adjacency + adjacency.t()
    options = {"reduction": reduction, "weighted": weighted, "form": form}
    chosen = None if nodes is None else torch.tensor(nodes)
    loss = GraphDistanceLoss(adjacency, format=format, **options)
    embeddings = draw(SPEC, N=6)["embeddings"][: None if nodes is None else 5].requires_grad_()
    found, expected = loss(embeddings, chosen), naive_graph_distance(embeddings, adjacency, chosen, **options)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value.sum(), embeddings) for value in (found, expected)))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize("nodes", [[], [7], [7, 3, 11, 3, 0, 8], list(range(12))])
def test_both_ways_of_comparing_some_nodes_give_the_loops(nodes, reduction, weighted):
    source, target = graph(12, 3)
    adjacency = torch.zeros(12, 12, dtype=torch.float64)
    adjacency[source, target] = torch.linspace(0.5, 2, 36, dtype=torch.float64)
    chosen = torch.tensor(nodes, dtype=torch.int64)
    embeddings = draw(SPEC, N=12)["embeddings"][: len(nodes)].requires_grad_()
    options = {"reduction": reduction, "weighted": weighted, "form": "distance"}
    loss = GraphDistanceLoss(adjacency, format="csr", **options)
    found, expected = loss(embeddings, chosen), naive_graph_distance(embeddings, adjacency, chosen, **options)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value.sum(), embeddings) for value in (found, expected)))
    if len(nodes) in (1, 6):
        assert gradgradcheck(lambda e: loss(e, chosen), embeddings)


@pytest.mark.parametrize(("edges", "format"), [(4, "csr"), (40, "dense")])
def test_the_format_follows_the_density_and_can_be_seen_and_overridden(edges, format):
    adjacency = torch.zeros(7, 7).view(-1).scatter(0, torch.arange(edges), 1.0).view(7, 7)
    other = {"csr": "dense", "dense": "csr"}[format]
    for given in (adjacency, adjacency.to_sparse()):
        assert GraphDistanceLoss(given).graph.format == format
        assert f"GraphMatrix([7, 7], format={format!r}" in repr(GraphDistanceLoss(given))
        assert GraphDistanceLoss(given, format=other).graph.format == other


def test_a_boolean_symmetric_graph_is_kept_as_one_copy_of_its_indices():
    adjacency = dense_of(graph(50, 2), 50)
    loss = GraphDistanceLoss(adjacency | adjacency.t())
    assert {name: buffer.dtype for name, buffer in loss.named_buffers()} == {
        "graph.offsets": torch.int32,
        "graph.indices": torch.int32,
    }


@pytest.mark.parametrize("format", ["auto", "dense", "csr"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_every_format_has_derivatives_of_second_order_in_every_mode(format, reduction):
    tensors = draw(SPEC, N=4)
    loss = GraphDistanceLoss(tensors["adjacency"], reduction, format=format)
    point = tensors["embeddings"].requires_grad_()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".torch.jit.script. is deprecated")
        assert gradcheck(loss, point, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
        assert gradgradcheck(loss, point, check_fwd_over_rev=True, check_rev_over_rev=True)


@pytest.mark.parametrize("format", ["dense", "csr"])
@pytest.mark.parametrize("outer", [torch.func.jacfwd, torch.func.jacrev])
@pytest.mark.parametrize("inner", [torch.func.jacfwd, torch.func.jacrev])
def test_nested_transforms_give_the_second_derivative_of_autograd(inner, outer, format):
    tensors = draw(SPEC, N=4)
    loss = GraphDistanceLoss(tensors["adjacency"], format=format)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".torch.jit.script. is deprecated")
        found = outer(inner(loss))(tensors["embeddings"])
    torch.testing.assert_close(found, torch.autograd.functional.hessian(loss, tensors["embeddings"]))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("format", ["dense", "csr"])
def test_nodes_that_differ_by_slice_are_mapped_in_every_format(format):
    draws = [draw(SPEC_INDEXED, seed) for seed in range(3)]
    loss = GraphDistanceLoss(draws[0]["adjacency"], format=format)
    stacked = [torch.stack([tensors[name] for tensors in draws]) for name in ("embeddings", "nodes")]
    expected = torch.stack([loss(tensors["embeddings"], tensors["nodes"]) for tensors in draws])
    torch.testing.assert_close(torch.vmap(loss)(*stacked), expected)
    torch.testing.assert_close(
        torch.vmap(torch.func.grad(loss))(*stacked),
        torch.stack([torch.func.grad(loss)(*pair) for pair in zip(*stacked, strict=True)]),
    )


@pytest.mark.parametrize("format", ["dense", "csr"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_over_many_edges_do_not_stall_in_low_precision(format, dtype):
    nodes = 300
    loss = GraphDistanceLoss(torch.ones(nodes, nodes), reduction="mean", format=format)
    embeddings = torch.ones(nodes, 2, dtype=dtype)
    assert loss(embeddings).item() == pytest.approx(-nodes, rel=torch.finfo(dtype).eps)


# ---- edge lists --------------------------------------------------------------------------------------------------------


def test_a_list_of_edges_gives_what_the_adjacency_gives():
    edges = graph(9, 3)
    embeddings = draw(SPEC, N=9)["embeddings"]
    expected = GraphDistanceLoss(dense_of(edges, 9))(embeddings)
    torch.testing.assert_close(GraphDistanceLoss.from_edges(edges, 9)(embeddings), expected)
    twice = torch.cat([edges, edges], 1)
    torch.testing.assert_close(GraphDistanceLoss.from_edges(twice, 9)(embeddings), expected)
    distances = GraphDistanceLoss.from_edges(edges.int(), 9, form="distance", reduction="none", format="dense")
    torch.testing.assert_close(distances(embeddings).sum(), edges.shape[1] + expected)


def test_weights_of_edges_that_are_listed_twice_are_added():
    edges, weights = torch.tensor([[0, 0, 1], [1, 1, 0]]), torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    found = GraphDistanceLoss.from_edges(edges, 2, weights)(embeddings)
    assert found.item() == pytest.approx(-1.75 * 0.5**0.5)


def test_a_graph_without_edges_is_an_empty_list():
    loss = GraphDistanceLoss.from_edges(torch.zeros(2, 0, dtype=torch.int64), 3)
    embeddings = torch.ones(3, 2, requires_grad=True)
    loss(embeddings).backward()
    assert torch.equal(embeddings.grad, torch.zeros(3, 2))
    assert loss(embeddings[:2], torch.tensor([2, 0])) == 0


@pytest.mark.parametrize(
    ("edges", "weights", "exception", "message"),
    [
        ([[0.0], [1.0]], None, TypeError, "edges has dtype torch.float32, expected an int64 tensor"),
        ([[0, 1, 2]], None, ValueError, r"edges has shape \[1, 3\], expected shape \[2, 3\]: the two ends"),
        ([[0], [3]], None, ValueError, r"edges holds nodes from 0 to 3, expected in \[0, 3\)"),
        ([[-1], [2]], None, ValueError, r"edges holds nodes from -1 to 2, expected in \[0, 3\)"),
        ([[0], [1]], [1.0, 2.0], ValueError, r"weights has shape \[2\], but edges has shape \[2, 1\]"),
    ],
)
def test_edges_that_are_no_list_of_nodes_are_refused(edges, weights, exception, message):
    weights = None if weights is None else torch.tensor(weights)
    with pytest.raises(exception, match=message):
        GraphDistanceLoss.from_edges(torch.tensor(edges), 3, weights)


# ---- state -------------------------------------------------------------------------------------------------------------

GRAPHS = {
    "dense": torch.ones(5, 5),
    "symmetric": torch.eye(5),
    "directed": torch.eye(5).roll(1, 0),
    "weighted": torch.eye(5).roll(2, 1) * 0.5,
    "empty": torch.zeros(5, 5),
}
each_graph = pytest.mark.parametrize("name", GRAPHS)


@each_graph
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_a_graph_survives_state_dict_pickle_and_deepcopy(name, reduction):
    loss = GraphDistanceLoss(GRAPHS[name], reduction, weighted=True)
    embeddings, nodes = draw(SPEC, N=5)["embeddings"], torch.tensor([4, 0])
    for before in GRAPHS.values():
        loaded = GraphDistanceLoss(before, reduction, weighted=True)
        loaded.load_state_dict(loss.state_dict())
        for other in (loaded, pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
            assert torch.equal(other(embeddings), loss(embeddings))
            assert torch.equal(other(embeddings[:2], nodes), loss(embeddings[:2], nodes))
            assert repr(other) == repr(loss)


def test_the_state_of_a_graph_of_another_size_is_refused():
    with pytest.raises(RuntimeError, match=r"graph.offsets"):
        GraphDistanceLoss(torch.eye(5)).load_state_dict(GraphDistanceLoss(torch.eye(4)).state_dict())


def test_loading_a_graph_does_not_write_into_the_tensor_that_was_given():
    given = torch.ones(3, 3)
    loss = GraphDistanceLoss(given)
    loss.load_state_dict(GraphDistanceLoss(torch.zeros(3, 3), format="dense").state_dict())
    assert loss(torch.ones(3, 2)) == 0
    assert given.sum() == 9


@each_graph
def test_a_graph_follows_to(name):
    loss = GraphDistanceLoss(GRAPHS[name], weighted=True)
    embeddings = draw(SPEC, N=5, dtype=torch.float32)["embeddings"]
    expected = loss(embeddings)
    for dtype in (torch.float64, torch.float16):
        moved = copy.deepcopy(loss).to(dtype)
        assert all(buffer.dtype == dtype for buffer in moved.buffers() if buffer.is_floating_point())
        torch.testing.assert_close(moved(embeddings), expected)
    assert loss.to("meta")(embeddings.to("meta")).is_meta


def test_a_loaded_graph_keeps_the_dtype_of_the_loss_that_loads_it():
    loss = GraphDistanceLoss(GRAPHS["weighted"], weighted=True).double()
    loss.load_state_dict(GraphDistanceLoss(GRAPHS["weighted"] * 2, weighted=True).state_dict())
    assert loss.graph.values.dtype == torch.float64


def test_a_graph_without_values_is_kept_dense_and_csr_is_refused():
    without = torch.zeros(3, 3, device="meta")
    assert GraphDistanceLoss(without).graph.format == "dense"
    with pytest.raises(ValueError, match="format='csr' needs values, which a matrix on meta has not"):
        GraphDistanceLoss(without, format="csr")


@pytest.mark.parametrize("format", ["dense", "csr"])
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_autocast_takes_no_digits(format, reduction):
    tensors = draw(SPEC, N=6, dtype=torch.float32)
    loss = GraphDistanceLoss(tensors["adjacency"], reduction, format=format)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(tensors["embeddings"])
    assert torch.equal(inside, loss(tensors["embeddings"]))


# ---- cost --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["dense", "csr"])
def test_value_and_gradient_come_from_one_product_and_one_saved_tensor_as_large_as_the_embeddings(format):
    nodes, features = 64, 4
    embeddings = draw(SPEC, N=nodes, D=features)["embeddings"].requires_grad_()
    edges = dense_of(graph(nodes, 3), nodes)
    loss = GraphDistanceLoss(edges.double(), format=format)
    kept = {tensor.untyped_storage().data_ptr() for tensor in (*loss.buffers(), embeddings)}
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t), Products() as products:
        loss(embeddings).backward()
    assert products.count == 1
    made = {tensor.untyped_storage().data_ptr(): tensor.numel() for tensor in saved}
    assert sorted(n for storage, n in made.items() if storage not in kept) == [nodes * features]


class Products(TorchDispatchMode):
    """Counts products with a matrix, and holds every tensor that is made to no more than the embeddings and the entries."""

    def __init__(self):
        super().__init__()
        self.count = 0
        self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function._opname in ("mm", "_embedding_bag", "_embedding_bag_forward_only")
        returned = function(*args, **(kwargs or {}))
        made = [
            item
            for item in (returned if isinstance(returned, tuple) else (returned,))
            if isinstance(item, torch.Tensor)
        ]
        self.largest = max([self.largest, *(tensor.untyped_storage().nbytes() for tensor in made)])
        return returned


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_nothing_larger_than_the_embeddings_is_made(reduction):
    nodes, features, degree = 512, 16, 64
    loss = GraphDistanceLoss.from_edges(graph(nodes, degree), nodes, reduction=reduction, form="distance")
    embeddings = draw(SPEC, N=nodes, D=features, dtype=torch.float32)["embeddings"].requires_grad_()
    with Products() as seen:
        loss(embeddings).sum().backward()
    assert seen.largest <= nodes * features * 4


def test_a_batch_of_a_large_graph_makes_nothing_larger_than_one_integer_for_each_node():
    nodes, batch, features, degree = 4096, 16, 8, 4
    loss = GraphDistanceLoss.from_edges(graph(nodes, degree), nodes)
    embeddings = draw(SPEC, N=batch, D=features, dtype=torch.float32)["embeddings"].requires_grad_()
    with Products() as seen:
        loss(embeddings, torch.arange(batch)).backward()
    assert seen.largest <= nodes * 4
