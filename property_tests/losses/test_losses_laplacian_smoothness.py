"""Smoothness over a graph: which pairs count and how much, degrees, sparse graphs, some nodes, and what is never made."""

from __future__ import annotations

import warnings

import pytest
import torch
from loss_examples import IMPLEMENTATIONS, draw, evaluate, gradient
from torch.autograd import gradcheck, gradgradcheck

from harness.timing.costs.counting import peak_bytes
from losses import LaplacianSmoothnessLoss
from losses.laplacian_smoothness import SPEC, SPEC_INDEXED, SPEC_NORMALIZED

each_implementation = pytest.mark.parametrize("implementation", SPEC.implementations)
each_reduction = pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
each_layout = pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
LINE = torch.tensor([[0.0, 2.0, 0.0], [2.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
PLACES = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)


def example(**changed):
    return {"embeddings": PLACES, "adjacency": LINE, **changed}


def sparse(adjacency, layout):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return adjacency.to_sparse(layout=layout)


@each_implementation
def test_an_edge_adds_its_weight_times_the_squared_distance_of_its_ends(implementation):
    assert evaluate(SPEC, implementation, example()).item() == pytest.approx(2 * 1 + 1 * 4, rel=1e-15)
    shares = evaluate(SPEC, implementation, example(), reduction="none")
    assert shares.tolist() == pytest.approx([1.0, 3.0, 2.0], rel=1e-15)


@each_implementation
def test_the_gradient_is_twice_the_laplacian_times_the_embeddings(implementation):
    found = gradient(SPEC, implementation, example())
    torch.testing.assert_close(found, torch.tensor([[-4.0], [0.0], [4.0]], dtype=torch.float64))


@each_implementation
def test_it_is_the_trace_with_the_laplacian_of_a_symmetric_graph(implementation):
    tensors = draw(SPEC, 1)
    symmetric = tensors["adjacency"] + tensors["adjacency"].T
    laplacian = torch.diag(symmetric.sum(1)) - symmetric
    embeddings = tensors["embeddings"]
    expected = torch.trace(embeddings.T @ laplacian @ embeddings)
    torch.testing.assert_close(evaluate(SPEC, implementation, tensors | {"adjacency": symmetric}), expected)


@each_implementation
def test_one_direction_of_an_edge_counts_half_and_adds_to_the_share_of_its_source(implementation):
    one = example(adjacency=LINE.triu())
    assert evaluate(SPEC, implementation, one).item() == pytest.approx(3.0)
    assert evaluate(SPEC, implementation, one, reduction="none").tolist() == pytest.approx([1.0, 2.0, 0.0])


@each_implementation
def test_a_self_loop_adds_nothing_but_to_the_degree(implementation):
    loops = example(adjacency=LINE + torch.diag(torch.tensor([2.0, 0.0, 0.0])))
    torch.testing.assert_close(evaluate(SPEC, implementation, loops), evaluate(SPEC, implementation, example()))
    first, second, third = 0 / 4**0.5, 1 / 3**0.5, 3 / 1**0.5
    expected = 2 * (first - second) ** 2 + (second - third) ** 2
    assert evaluate(SPEC_NORMALIZED, implementation, loops).item() == pytest.approx(expected)


@each_implementation
@pytest.mark.parametrize("spec", [SPEC, SPEC_NORMALIZED], ids=lambda spec: spec.name)
def test_a_node_without_edges_has_no_gradient(spec, implementation):
    alone = example(adjacency=LINE * torch.tensor([1.0, 1.0, 0.0]) * torch.tensor([[1.0], [1.0], [0.0]]))
    found = gradient(spec, implementation, alone)
    assert found[2] == 0
    assert found[:2].abs().min() > 0


@each_layout
@each_reduction
@pytest.mark.parametrize("spec", [SPEC, SPEC_NORMALIZED, SPEC_INDEXED], ids=lambda spec: spec.name)
def test_a_sparse_graph_gives_what_the_dense_one_gives(spec, layout, reduction):
    tensors = draw(spec, 2)
    given = tensors | {"adjacency": sparse(tensors["adjacency"], layout)}
    for of in (evaluate, gradient):
        found, expected = (of(spec, "vectorized", t, reduction=reduction) for t in (given, tensors))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("implementation", ["naive", "vectorized", "edge_gather"])
def test_entries_that_coo_holds_twice_are_added(implementation):
    there, values = torch.tensor([[0, 0, 1, 1, 2], [1, 1, 0, 2, 1]]), torch.tensor([0.5, 1.5, 2.0, 1.0, 1.0])
    listed = torch.sparse_coo_tensor(there, values, (3, 3), check_invariants=True)
    assert evaluate(SPEC, implementation, example(adjacency=listed)).item() == pytest.approx(6.0)


@pytest.mark.parametrize("format", ["dense", "csr"])
@pytest.mark.parametrize("normalized", [False, True])
def test_each_format_has_first_and_second_derivatives(format, normalized):
    tensors = draw(SPEC, 3, N=4)
    loss = LaplacianSmoothnessLoss(tensors["adjacency"], normalized=normalized, format=format)
    assert loss.graph.format == format
    embeddings = tensors["embeddings"].requires_grad_()
    assert gradcheck(loss, embeddings)
    assert gradgradcheck(loss, embeddings)


@pytest.mark.parametrize("implementation", SPEC_INDEXED.implementations)
@each_reduction
def test_nodes_are_the_graph_sliced_by_hand_also_where_they_repeat(implementation, reduction):
    tensors = draw(SPEC_INDEXED, 4) | {"nodes": torch.tensor([5, 0, 5, 2])}
    chosen = tensors["adjacency"][[5, 0, 5, 2]][:, [5, 0, 5, 2]]
    sliced = {"embeddings": tensors["embeddings"], "adjacency": chosen}
    found = evaluate(SPEC_INDEXED, implementation, tensors, reduction=reduction)
    torch.testing.assert_close(found, evaluate(SPEC, "naive", sliced, reduction=reduction))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_some_nodes_have_the_degrees_of_the_whole_graph(implementation):
    given = example(embeddings=PLACES[:2], nodes=torch.tensor([0, 1]))
    found = evaluate(SPEC_INDEXED, implementation, given, normalized=True)
    assert found.item() == pytest.approx(2 * (0 - 1 / 3**0.5) ** 2)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("node", [6, -1])
def test_a_node_outside_the_graph_is_refused_and_never_counts_from_the_end(implementation, node):
    tensors = draw(SPEC_INDEXED) | {"nodes": torch.tensor([0, 1, 2, node])}
    with pytest.raises((IndexError, RuntimeError), match=r"index|INDICES|expected in|should be in"):
        evaluate(SPEC_INDEXED, implementation, tensors)


@pytest.mark.parametrize("format", ["dense", "csr"])
def test_what_all_nodes_have_in_common_costs_no_digits(format):
    tensors = draw(SPEC, 5, dtype=torch.float32, N=16)
    near = (tensors["embeddings"] * 64).round() / 64  # so that the sum below is exact
    exact = evaluate(SPEC, "naive", tensors | {"embeddings": near})
    loss = LaplacianSmoothnessLoss(tensors["adjacency"], format=format)
    torch.testing.assert_close(loss(near + 4096), exact, rtol=1e-5, atol=0)
    assert loss(torch.full((16, 3), 4097.3)) >= 0


def test_bfloat16_autocast_does_not_round_the_products():
    tensors = draw(SPEC, 6, dtype=torch.float32)
    loss = LaplacianSmoothnessLoss(tensors["adjacency"], format="dense")
    expected = loss(tensors["embeddings"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(tensors["embeddings"]), expected)


def test_neither_the_laplacian_nor_the_ends_of_edges_are_made():
    generator = torch.Generator().manual_seed(0)
    nodes, features, degree = 1024, 16, 8
    source, target = torch.arange(nodes).repeat(degree), torch.randint(nodes, (nodes * degree,), generator=generator)
    ones = torch.ones(nodes * degree)
    adjacency = torch.sparse_coo_tensor(torch.stack([source, target]), ones, (nodes, nodes), check_invariants=True)
    embeddings = torch.randn(nodes, features, generator=generator).requires_grad_()
    loss = LaplacianSmoothnessLoss(adjacency)
    assert loss.graph.format == "csr"
    peak = peak_bytes(lambda: torch.autograd.grad(loss(embeddings), embeddings), "cpu")
    assert peak < 2.5 * embeddings.nbytes
    assert peak < nodes * degree * features * embeddings.itemsize
    assert peak < nodes**2 * embeddings.itemsize
