"""The Mahalanobis distance: precision and covariance, which matrices are refused, accuracy, and what is kept for backward."""

from __future__ import annotations

import pytest
import torch
from loss_examples import draw, evaluate, gradient

from harness.timing.costs.counting import peak_bytes
from losses import MahalanobisLoss, MahalanobisProductLoss, naive_mahalanobis
from losses.mahalanobis import SPEC

each_implementation = pytest.mark.parametrize("implementation", SPEC.implementations)
PRECISION = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)


def example(**changed):
    vectors = torch.tensor([[2.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    means = torch.tensor([[1.0, 2.0], [0.0, 2.0]], dtype=torch.float64)
    return {"vectors": vectors, "means": means, "precision": PRECISION, **changed}


@each_implementation
def test_it_is_half_the_square_under_the_precision(implementation):
    found = evaluate(SPEC, implementation, example(), reduction="none")
    assert found.tolist() == pytest.approx([(2 - 2 + 3) / 2, 3 * 4 / 2], rel=1e-15)
    assert evaluate(SPEC, implementation, example()).item() == pytest.approx(3.75, rel=1e-15)


@each_implementation
def test_the_gradient_is_the_precision_times_the_difference(implementation):
    found = gradient(SPEC, implementation, example(), reduction="sum")
    torch.testing.assert_close(found, torch.tensor([[1.0, -2.0], [-2.0, -6.0]], dtype=torch.float64))


@each_implementation
def test_the_means_have_the_opposite_gradient(implementation):
    tensors = example()
    tensors["means"].requires_grad_()
    (found,) = torch.autograd.grad(evaluate(SPEC, implementation, tensors), tensors["means"])
    torch.testing.assert_close(found, -gradient(SPEC, implementation, example()))


@each_implementation
def test_differences_are_those_of_the_log_likelihood_of_torchs_multivariate_normal(implementation):
    tensors = draw(SPEC, 1, D=4)
    normal = torch.distributions.MultivariateNormal(tensors["means"], precision_matrix=tensors["precision"])
    expected = normal.log_prob(tensors["means"]) - normal.log_prob(tensors["vectors"])
    torch.testing.assert_close(evaluate(SPEC, implementation, tensors, reduction="none"), expected)


def test_a_covariance_gives_what_its_inverse_gives_as_precision():
    tensors = draw(SPEC, 2, D=5)
    loss = MahalanobisLoss(covariance=torch.linalg.inv(tensors["precision"]))
    expected = evaluate(SPEC, "naive", tensors)
    torch.testing.assert_close(loss(tensors["vectors"], tensors["means"]), expected)


@each_implementation
def test_only_the_symmetric_part_has_an_effect(implementation):
    twisted = example(precision=PRECISION + torch.tensor([[0.0, 5.0], [-5.0, 0.0]]))
    torch.testing.assert_close(evaluate(SPEC, implementation, twisted), evaluate(SPEC, implementation, example()))
    expected = gradient(SPEC, implementation, example())
    torch.testing.assert_close(gradient(SPEC, implementation, twisted), expected)


@pytest.mark.parametrize("matrix", [[[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]], ids=["indefinite", "singular"])
@pytest.mark.parametrize("name", ["precision", "covariance"])
def test_a_matrix_that_is_not_positive_definite_is_refused_with_what_to_do(matrix, name):
    with pytest.raises(ValueError, match=rf"{name} is not positive definite: .* multiple of the identity"):
        MahalanobisLoss(**{name: torch.tensor(matrix)})


def test_a_feature_that_counts_nothing_is_allowed_as_a_product():
    precision = torch.tensor([[2.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    found = evaluate(SPEC, "product", example(precision=precision), reduction="none")
    assert found.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("given", [{}, {"precision": PRECISION, "covariance": PRECISION}], ids=["none", "both"])
def test_exactly_one_matrix_is_asked_for(given):
    with pytest.raises(ValueError, match="either precision or covariance"):
        MahalanobisLoss(**given)


@each_implementation
def test_means_are_not_broadcast(implementation):
    with pytest.raises(ValueError, match=r"means has shape \[2\], but vectors has shape \[2, 2\]"):
        evaluate(SPEC, implementation, example(means=torch.zeros(2)))


@each_implementation
def test_vectors_of_other_features_are_refused_with_both_shapes(implementation):
    with pytest.raises(ValueError, match=r"vectors has shape \[2, 3\], but precision has shape \[2, 2\]"):
        evaluate(SPEC, implementation, example(vectors=torch.zeros(2, 3), means=torch.zeros(2, 3)))


def test_whitening_keeps_more_digits_of_an_ill_conditioned_precision_than_the_product():
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))
    precision = basis @ torch.diag(torch.logspace(0, 7, 8, dtype=torch.float64)) @ basis.T
    vectors = torch.randn(64, 1, generator=generator, dtype=torch.float64) * basis[:, 0]  # where it is the least
    means = torch.zeros_like(vectors)
    exact = naive_mahalanobis(vectors, means, precision)
    errors = []
    for kind in (MahalanobisLoss, MahalanobisProductLoss):
        found = kind(precision)(vectors.float(), means.float())
        errors.append(abs(found.double() / exact - 1).item())
    assert errors[0] < 1e-2
    assert errors[0] < errors[1] / 10


def test_no_value_is_negative_however_ill_conditioned_the_precision():
    precision = torch.ones(4, 4) + 1e-3 * torch.eye(4)
    vectors = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    vectors = vectors - vectors.mean(1, keepdim=True)
    found = MahalanobisLoss(precision)(vectors * 1e-3, torch.zeros(256, 4))
    each = MahalanobisLoss(precision, reduction="none")(vectors * 1e-3, torch.zeros(256, 4))
    assert found >= 0
    assert (each >= 0).all()


@pytest.mark.parametrize("implementation", ["vectorized", "product"])
def test_about_two_tensors_of_the_vectors_size_live_at_once_where_the_usual_way_has_four(implementation):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(2048, 16, generator=generator).requires_grad_()
    tensors = {"vectors": vectors, "means": torch.zeros(2048, 16), "precision": torch.eye(16)}
    mine, usual = (
        peak_bytes(lambda name=name: torch.autograd.grad(evaluate(SPEC, name, tensors), vectors), "cpu")
        for name in (implementation, "bilinear")
    )
    assert mine < 2.3 * vectors.nbytes
    assert usual > 3.9 * vectors.nbytes
