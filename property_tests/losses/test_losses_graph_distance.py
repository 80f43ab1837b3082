"""The graph distance: which pairs count and how much, zero rows, sparse adjacencies, and the distance form."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from loss_examples import IMPLEMENTATIONS, draw, evaluate, gradient
from torch.nn import functional

from losses import GraphDistanceLoss
from losses.graph_distance import SPEC, SPEC_DISTANCE, SPEC_INDEXED, SPEC_WEIGHTED

each_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
each_layout = pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])


def sparse(adjacency, layout):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return adjacency.to_sparse(layout=layout)


@each_implementation
def test_it_is_minus_the_sum_of_torchs_cosine_over_the_edges(implementation):
    tensors = draw(SPEC, N=7, D=4)
    embeddings, adjacency = tensors["embeddings"], tensors["adjacency"]
    pairs = [(i, j) for i, j in itertools.product(range(7), repeat=2) if adjacency[i, j]]
    expected = -sum(functional.cosine_similarity(embeddings[i], embeddings[j], dim=0) for i, j in pairs)
    torch.testing.assert_close(evaluate(SPEC, implementation, tensors), expected)


@each_implementation
def test_only_entries_above_zero_are_edges_and_their_size_does_not_matter(implementation):
    tensors = draw(SPEC, N=3)
    edges = evaluate(SPEC, implementation, {**tensors, "adjacency": torch.tensor([[0, 1, 0], [0, 0, 0], [1, 0, 0]])})
    weighted = torch.tensor([[-1.0, 0.1, 0.0], [-5.0, 0.0, -0.2], [7.0, 0.0, 0.0]])
    assert evaluate(SPEC, implementation, {**tensors, "adjacency": weighted}) == edges


@each_implementation
def test_a_self_loop_counts_one(implementation):
    tensors = {"embeddings": draw(SPEC, N=4)["embeddings"], "adjacency": torch.eye(4)}
    assert evaluate(SPEC, implementation, tensors).item() == pytest.approx(-4)
    assert gradient(SPEC, implementation, tensors).abs().max() < 1e-14


@each_implementation
def test_each_direction_of_an_edge_counts_once(implementation):
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    for adjacency, edges in (([[0, 1], [0, 0]], 1), ([[0, 1], [1, 0]], 2)):
        loss = evaluate(SPEC, implementation, {"embeddings": embeddings, "adjacency": torch.tensor(adjacency)})
        assert loss.item() == pytest.approx(-edges * 0.5**0.5)


@each_implementation
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_a_graph_without_edges_has_gradient_zero_and_not_none(implementation, reduction):
    tensors = draw(SPEC, N=4)
    tensors["adjacency"] = torch.zeros(4, 4)
    assert torch.equal(gradient(SPEC, implementation, tensors, reduction=reduction), torch.zeros(4, 3).double())


@each_implementation
def test_an_isolated_node_has_gradient_zero_and_share_zero(implementation):
    tensors = draw(SPEC, N=4)
    tensors["adjacency"] = torch.ones(4, 4)
    tensors["adjacency"][1, :] = tensors["adjacency"][:, 1] = 0
    assert (gradient(SPEC, implementation, tensors)[1] == 0).all()
    assert evaluate(SPEC, implementation, tensors, reduction="none")[1] == 0


@each_implementation
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_zero_row_has_similarity_zero_and_gradient_zero(implementation, dtype):
    tensors = draw(SPEC, N=4, dtype=dtype)
    tensors["adjacency"] = torch.ones(4, 4)
    tensors["embeddings"][2] = 0
    without = {"embeddings": tensors["embeddings"][[0, 1, 3]], "adjacency": torch.ones(3, 3)}
    torch.testing.assert_close(evaluate(SPEC, implementation, tensors), evaluate(SPEC, implementation, without))
    found = gradient(SPEC, implementation, tensors)
    assert (found[2] == 0).all()
    torch.testing.assert_close(found[[0, 1, 3]], gradient(SPEC, implementation, without))


@each_implementation
def test_a_zero_row_has_a_finite_second_derivative(implementation):
    tensors = draw(SPEC, N=4)
    tensors["adjacency"] = torch.ones(4, 4)
    tensors["embeddings"][2] = 0

    def loss(embeddings):
        return evaluate(SPEC, implementation, {**tensors, "embeddings": embeddings})

    hessian = torch.autograd.functional.hessian(loss, tensors["embeddings"])
    assert torch.isfinite(hessian).all()
    assert hessian.abs().max() > 0
    assert (hessian[2] == 0).all()


@each_implementation
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (torch.float16, 1e4),
        (torch.float16, 1e-5),
        (torch.float32, 1e30),
        (torch.float32, 1e-30),
        (torch.float64, 1e200),
    ],
)
def test_lengths_whose_squares_overflow_or_vanish_do_not_change_the_loss(implementation, dtype, scale):
    tensors = draw(SPEC, N=4)
    tensors["embeddings"] = tensors["embeddings"].clamp(-2, 2)
    expected = evaluate(SPEC, implementation, tensors)
    scaled = {**tensors, "embeddings": (tensors["embeddings"] * scale).to(dtype)}
    rounding = 1e-2 if scale == 1e-5 else 16 * torch.finfo(dtype).eps  # 1e-5 is subnormal in float16
    assert evaluate(SPEC, implementation, scaled).item() == pytest.approx(expected.item(), rel=rounding, abs=rounding)


@each_layout
@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32, torch.float64, torch.bfloat16])
@each_implementation
def test_a_sparse_adjacency_gives_what_the_dense_one_gives(layout, kind, implementation):
    tensors = draw(SPEC, N=6)
    dense = tensors["adjacency"].to(kind)
    given = {**tensors, "adjacency": sparse(dense, layout)}
    torch.testing.assert_close(evaluate(SPEC, implementation, given), evaluate(SPEC, implementation, tensors))
    torch.testing.assert_close(gradient(SPEC, implementation, given), gradient(SPEC, implementation, tensors))


@each_layout
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_a_sparse_adjacency_gives_what_the_dense_one_gives_for_some_nodes(layout, reduction):
    tensors = draw(SPEC_INDEXED, 3, B=5)
    given = {**tensors, "adjacency": sparse(tensors["adjacency"], layout)}
    values = [evaluate(SPEC_INDEXED, "vectorized", t, reduction=reduction) for t in (given, tensors)]
    torch.testing.assert_close(*values)
    gradients = [gradient(SPEC_INDEXED, "vectorized", t, reduction=reduction) for t in (given, tensors)]
    torch.testing.assert_close(*gradients)


@each_implementation
def test_sparse_entries_that_are_zero_negative_or_listed_twice_are_summed_before_they_are_compared(implementation):
    indices = torch.tensor([[0, 0, 1, 1, 2], [1, 1, 2, 0, 0]])
    values = torch.tensor([2.0, -3.0, 0.0, 1.0, -1.0])
    given = {"embeddings": draw(SPEC, N=3)["embeddings"]}
    listed = torch.sparse_coo_tensor(indices, values, (3, 3), check_invariants=True)
    only = torch.zeros(3, 3)
    only[1, 0] = 1
    found = evaluate(SPEC, implementation, {**given, "adjacency": listed})
    torch.testing.assert_close(found, evaluate(SPEC, implementation, {**given, "adjacency": only}))


# ---- forms and weights -------------------------------------------------------------------------------------------------


@each_implementation
def test_the_distance_is_one_minus_the_cosine_of_each_edge(implementation):
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, -2.0]], dtype=torch.float64)
    adjacency = torch.tensor([[0, 1, 1], [0, 0, 1], [0, 0, 0]])
    tensors = {"embeddings": embeddings, "adjacency": adjacency}
    half = 0.5**0.5
    shares = evaluate(SPEC_DISTANCE, implementation, tensors, reduction="none")
    torch.testing.assert_close(shares, torch.tensor([1 - half + 1, 1 + half, 0]).double())


@each_implementation
def test_a_zero_row_is_at_distance_one(implementation):
    embeddings = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    tensors = {"embeddings": embeddings, "adjacency": torch.ones(2, 2)}
    assert evaluate(SPEC_DISTANCE, implementation, tensors).item() == pytest.approx(3)
    assert torch.equal(gradient(SPEC_DISTANCE, implementation, tensors), torch.zeros(2, 2).double())


@pytest.mark.parametrize("format", ["dense", "csr"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_rows_of_one_direction_are_at_no_distance_below_zero_and_keep_their_second_derivative(reduction, format):
    row = torch.tensor([0.1, 0.7, -0.3, 0.9])
    embeddings = row.expand(40, 4).clone()
    loss = GraphDistanceLoss(torch.ones(40, 40), reduction, form="distance", format=format)
    assert (loss(embeddings) >= 0).all()
    few = GraphDistanceLoss(torch.ones(3, 3), reduction, form="distance", format=format)
    hessian = torch.autograd.functional.hessian(lambda e: few(e).sum(), embeddings[:3])
    assert hessian.abs().max() > 0.1


@each_implementation
def test_a_weight_multiplies_the_cosine_of_its_edge_and_none_below_zero_counts(implementation):
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    tensors = {"embeddings": embeddings, "adjacency": torch.tensor([[0.25, 3.0], [-2.0, 0.0]])}
    assert evaluate(SPEC_WEIGHTED, implementation, tensors).item() == pytest.approx(-0.25 - 3 * 0.5**0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_that_differ_by_direction_are_not_rounded_where_they_are_averaged(dtype):
    adjacency = torch.tensor(
        [[0.0, 1.0], [0.0078125, 0.0]], dtype=dtype
    )  # the mean needs one bit more than bfloat16 has
    embeddings = torch.tensor([[2.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert GraphDistanceLoss(adjacency, weighted=True)(embeddings).item() == -1.0078125


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "angle"}, r"form='angle', expected one of \['similarity', 'distance'\]"),
        ({"format": "coo"}, r"format='coo', expected one of \['auto', 'dense', 'csr'\]"),
    ],
)
def test_an_unknown_form_or_format_is_refused_with_those_that_exist(options, message):
    with pytest.raises(ValueError, match=message):
        GraphDistanceLoss(torch.eye(2), **options)


@each_implementation
def test_an_adjacency_with_nodes_of_another_graph_is_refused(implementation):
    tensors = {"embeddings": torch.ones(3, 2), "adjacency": torch.ones(4, 4)}
    with pytest.raises(ValueError, match="for some nodes of a larger graph pass nodes, one for each row"):
        evaluate(SPEC, implementation, tensors)
