"""Cross-entropy with a cost matrix: which row costs what, the strength, saturated logits, and what is kept for backward."""

from __future__ import annotations

import math

import pytest
import torch
from loss_examples import IMPLEMENTATIONS, draw, evaluate, gradient
from torch.nn import functional

from harness.timing.costs.counting import peak_bytes
from losses import CostMatrixCrossEntropyLoss
from losses.cost_matrix_cross_entropy import SPEC

each_implementation = pytest.mark.parametrize("implementation", SPEC.implementations)
COSTS = torch.tensor([[0, 1, 5], [2, 0, 0], [9, 9, 0]], dtype=torch.float64)
SHARES = torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]], dtype=torch.float64)


def example(**changed):
    return {"logits": SHARES.log(), "labels": torch.tensor([0, 1]), "costs": COSTS, **changed}


@each_implementation
def test_the_row_of_the_true_class_weighs_the_probabilities(implementation):
    found = evaluate(SPEC, implementation, example(), strength=2.0, reduction="none")
    expected = [-math.log(0.7) + 2 * (1 * 0.2 + 5 * 0.1), -math.log(0.25) + 2 * (2 * 0.25)]
    assert found.tolist() == pytest.approx(expected, rel=1e-15)


@each_implementation
def test_the_gradient_is_that_of_the_formula(implementation):
    found = gradient(SPEC, implementation, example(), strength=2.0, reduction="sum")
    expected = torch.tensor([0.7, 0.2, 0.1]) * (1 + 2 * (torch.tensor([0.0, 1.0, 5.0]) - 0.7)) - torch.tensor([1, 0, 0])
    torch.testing.assert_close(found[0], expected.double(), rtol=1e-6, atol=0)


@each_implementation
@pytest.mark.parametrize("changed", [{"strength": 0.0}, {"costs": torch.zeros(3, 3)}], ids=["strength", "costs"])
def test_without_costs_it_is_torchs_cross_entropy(implementation, changed):
    options = {name: value for name, value in changed.items() if name == "strength"}
    tensors = draw(SPEC, 1, C=3) | {name: value for name, value in changed.items() if name == "costs"}
    expected = functional.cross_entropy(tensors["logits"], tensors["labels"])
    torch.testing.assert_close(evaluate(SPEC, implementation, tensors, **options), expected)


@each_implementation
def test_saturated_logits_give_the_margin_and_the_cost_of_the_sure_mistake(implementation):
    tensors = example(logits=torch.tensor([[-100.0, 100.0, -100.0]]), labels=torch.tensor([2]))
    assert evaluate(SPEC, implementation, tensors).item() == pytest.approx(200 + 9)
    assert gradient(SPEC, implementation, tensors).isfinite().all()


@each_implementation
@pytest.mark.parametrize("label", [3, -1])
def test_a_label_outside_the_classes_is_refused_and_never_counts_from_the_end(implementation, label):
    with pytest.raises((IndexError, RuntimeError), match=r"index|out of bounds|expected in|should be in"):
        evaluate(SPEC, implementation, example(labels=torch.tensor([0, label])))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_labels_may_be_int32(implementation):
    narrow = example(labels=torch.tensor([0, 1], dtype=torch.int32))
    assert evaluate(SPEC, implementation, narrow) == evaluate(SPEC, implementation, example())


@each_implementation
@pytest.mark.parametrize("strength", [-0.5, math.nan, math.inf])
def test_a_strength_that_is_no_finite_number_from_zero_up_is_refused(implementation, strength):
    with pytest.raises(ValueError, match=r"strength=.*, expected a finite number from zero up"):
        evaluate(SPEC, implementation, example(), strength=strength)


@each_implementation
def test_costs_of_other_classes_are_refused_with_both_shapes(implementation):
    with pytest.raises(ValueError, match=r"costs has shape \[2, 2\], but logits has shape \[2, 3\]"):
        evaluate(SPEC, implementation, example(costs=COSTS[:2, :2]))


def test_every_backward_pass_gives_the_same_gradient_with_and_without_a_graph():
    loss = CostMatrixCrossEntropyLoss(COSTS)
    logits = SHARES.log().requires_grad_()
    value = loss(logits, torch.tensor([0, 1]))
    first, second = (torch.autograd.grad(value, logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(torch.autograd.grad(value, logits, create_graph=True)[0], first)


def test_at_most_two_tensors_of_the_logits_size_live_at_once():
    rows, classes = 256, 512
    logits = torch.randn(rows, classes, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels, costs = torch.zeros(rows, dtype=torch.int64), torch.rand(classes, classes, generator=torch.Generator())
    loss, usual = CostMatrixCrossEntropyLoss(costs), SPEC.implementations["two_softmaxes"]
    peaks = [
        peak_bytes(lambda call=call: torch.autograd.grad(call(), logits), "cpu") / logits.nbytes
        for call in (lambda: loss(logits, labels), lambda: usual(logits, labels, costs))
    ]
    assert peaks[0] < 2.1
    assert peaks[1] > 4
