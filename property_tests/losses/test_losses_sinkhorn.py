"""Entropic transport: known plans, its limits, empty bins and rows, and exponents that are never made."""

from __future__ import annotations

import math

import pytest
import torch
from loss_examples import draw, evaluate, gradient

import losses
from harness.timing.costs.counting import peak_bytes
from losses import LogDomainSinkhornLoss, SinkhornLoss
from losses.sinkhorn import SPEC

each_implementation = pytest.mark.parametrize("implementation", SPEC.implementations)


def numbers(values):
    return torch.tensor(values, dtype=torch.float64)


@each_implementation
@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_two_equal_bins_on_both_sides_have_a_known_plan(implementation, epsilon):
    tensors = {"source": numbers([[0.5, 0.5]]), "target": numbers([[0.5, 0.5]]), "costs": numbers([[0, 1], [1, 0]])}
    moved = math.exp(-1 / epsilon)
    found = evaluate(SPEC, implementation, tensors, epsilon=epsilon)
    assert found.item() == pytest.approx(moved / (1 + moved))


@each_implementation
@pytest.mark.parametrize("iterations", [1, 4])
def test_costs_of_the_target_alone_are_paid_in_full_after_any_number_of_iterations(implementation, iterations):
    tensors = draw(SPEC)
    price = torch.linspace(0, 1, tensors["target"].shape[1], dtype=torch.float64)
    tensors["costs"] = price.expand_as(tensors["costs"])
    found = evaluate(SPEC, implementation, tensors, iterations=iterations, reduction="none")
    torch.testing.assert_close(found, tensors["target"] @ price)


@pytest.mark.parametrize("implementation", ["vectorized", "log_domain"])
def test_with_little_regularisation_and_many_iterations_it_is_the_distance_between_cumulated_histograms(implementation):
    tensors = draw(SPEC, B=5, N=6, M=6)
    place = torch.arange(6, dtype=torch.float64)
    tensors["costs"] = (place.unsqueeze(1) - place).abs()
    found = evaluate(SPEC, implementation, tensors, epsilon=0.02, iterations=3000, reduction="none")
    expected = (tensors["source"].cumsum(1) - tensors["target"].cumsum(1)).abs().sum(1)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("iterations", [1, 10])
@pytest.mark.parametrize("epsilon", [0.05, 1.0])
def test_products_with_a_kernel_give_what_sums_over_all_exponents_give(iterations, epsilon):
    options = {"iterations": iterations, "epsilon": epsilon}
    for seed in range(3):
        tensors = draw(SPEC, seed, B=3, N=9, M=5)
        found, expected = (evaluate(SPEC, name, tensors, **options) for name in ("vectorized", "log_domain"))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        found, expected = (gradient(SPEC, name, tensors, **options) for name in ("vectorized", "log_domain"))
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@each_implementation
def test_the_gradient_in_an_empty_bin_is_what_the_first_bit_of_mass_changes(implementation):
    tensors = draw(SPEC, B=1, N=3, M=4)
    tensors |= {"source": numbers([[0.25, 0.0, 0.75]]), "target": numbers([[0.5, 0.0, 0.2, 0.3]])}
    for name, place in (("source", 1), ("target", 1)):
        leaf = tensors[name].clone().requires_grad_()
        (found,) = torch.autograd.grad(evaluate(SPEC, implementation, tensors | {name: leaf}), leaf)
        step = torch.zeros_like(leaf)
        step[0, place] = 1e-7
        more = evaluate(SPEC, implementation, tensors | {name: tensors[name] + step})
        slope = (more - evaluate(SPEC, implementation, tensors)) / 1e-7
        assert found[0, place].item() == pytest.approx(slope.item(), rel=1e-5)


@each_implementation
@pytest.mark.parametrize("name", ["source", "target"])
def test_a_histogram_without_mass_costs_nothing_and_has_gradient_zero(implementation, name):
    tensors = draw(SPEC, B=3)
    tensors[name][1] = 0
    for input_name in ("source", "target"):
        leaf = tensors[input_name].clone().requires_grad_()
        losses = evaluate(SPEC, implementation, tensors | {input_name: leaf}, reduction="none")
        assert losses[1] == 0
        (found,) = torch.autograd.grad(losses.sum(), leaf)
        assert (found[1] == 0).all()
        assert found.isfinite().all()
        assert found[0].abs().max() > 0


@each_implementation
def test_a_constant_on_all_costs_changes_no_plan(implementation):
    tensors = draw(SPEC)
    dearer = tensors | {"costs": tensors["costs"] + 3}
    expected = evaluate(SPEC, implementation, tensors) + 3
    torch.testing.assert_close(evaluate(SPEC, implementation, dearer), expected)


def test_costs_that_span_too_many_epsilons_are_refused_with_what_to_do():
    costs = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(
        ValueError, match=r"costs span 1000 times epsilon=0\.001, .* at most 300 .*; raise epsilon, or use"
    ) as caught:
        SinkhornLoss(costs, epsilon=1e-3)
    other = getattr(losses, str(caught.value).rpartition("losses.")[2])
    with pytest.raises(ValueError, match="costs span inf times epsilon"):
        SinkhornLoss(costs.masked_fill(costs == 0, math.inf))
    half = torch.tensor([[0.5, 0.5]])
    assert other(costs, epsilon=1e-3)(half, half) == 0
    assert SinkhornLoss(costs, epsilon=1 / 299)(half, half) == pytest.approx(0)


def test_loaded_costs_that_span_too_many_epsilons_give_nan_and_no_number():
    loss, half = SinkhornLoss(torch.eye(2)), torch.tensor([[0.5, 0.5]])
    loss.load_state_dict({"costs": 1e3 * torch.eye(2)})
    assert loss(half, half).isnan()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_sums_over_all_exponents_take_any_finite_costs(value):
    costs, half = torch.tensor([[0.0, 1e4], [1e4, 0.0]]), torch.tensor([[0.5, 0.5]])
    assert LogDomainSinkhornLoss(costs)(half, half) == 0
    with pytest.raises(ValueError, match=rf"costs\[0, 1\] is {value}, expected finite$"):
        LogDomainSinkhornLoss(costs.masked_fill(costs > 0, value))


@each_implementation
def test_a_source_counts_as_if_its_sum_were_one_and_a_target_multiplies_the_cost_by_its_sum(implementation):
    tensors = draw(SPEC)
    expected = evaluate(SPEC, implementation, tensors)
    found = evaluate(SPEC, implementation, tensors | {"source": 4 * tensors["source"]})
    torch.testing.assert_close(found, expected)
    found = evaluate(SPEC, implementation, tensors | {"target": 4 * tensors["target"]})
    torch.testing.assert_close(found, 4 * expected)


def test_elements_below_zero_are_not_looked_at_and_give_nan_where_a_sum_is_not_above_zero():
    costs = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    half = torch.tensor([[0.5, 0.5]])
    assert SinkhornLoss(costs)(torch.tensor([[-0.5, 1.5]]), half).isnan()


@pytest.mark.parametrize("epsilon", [1 / 250, 1.0])
def test_the_widest_span_that_is_allowed_loses_no_digits(epsilon):
    tensors = draw(SPEC, B=3, N=5, M=6)
    tensors["source"][0] = numbers([1, 0, 0, 0, 0])
    tensors["target"][0] = numbers([0, 0, 0, 0, 0, 1])
    found, expected = (evaluate(SPEC, name, tensors, epsilon=epsilon) for name in ("vectorized", "log_domain"))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert gradient(SPEC, "vectorized", tensors, epsilon=epsilon).isfinite().all()


def test_no_exponents_of_all_pairs_are_made():
    pairs, bins = 16, 64
    tensors = draw(SPEC, dtype=torch.float32, B=pairs, N=bins, M=bins)
    source = tensors["source"].requires_grad_()
    peaks = [
        peak_bytes(lambda module=module: torch.autograd.grad(module(source, tensors["target"]), source), "cpu")
        for module in (loss(tensors["costs"], iterations=10) for loss in (SinkhornLoss, LogDomainSinkhornLoss))
    ]
    exponents = 4 * pairs * bins * bins
    assert peaks[0] < 4 * exponents
    assert peaks[1] > 20 * exponents
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        SinkhornLoss(tensors["costs"], iterations=10)(source, tensors["target"])
    assert max(tensor.numel() for tensor in saved) <= bins * bins


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 0.0}, "epsilon=0.0, expected above zero"),
        ({"iterations": 0}, "iterations=0, expected a whole number from 1 up"),
        ({"costs": torch.ones(0, 2)}, r"costs has shape \[0, 2\], expected \[N, M\] with N and M >= 1"),
    ],
)
def test_what_no_loss_can_be_built_from_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SinkhornLoss(**{"costs": torch.eye(2), **arguments})
