"""Logit adjustment: priors as shares or counts, classes that are removed, a larger table, and what is kept for backward."""

from __future__ import annotations

import math

import pytest
import torch
from loss_examples import IMPLEMENTATIONS, draw, evaluate, gradient
from torch.nn import functional

from harness.timing.costs.counting import peak_bytes
from losses import LogitAdjustmentLoss
from losses.logit_adjustment import SPEC, SPEC_INDEXED

each_implementation = pytest.mark.parametrize("implementation", SPEC.implementations)
WEIGHTS = torch.tensor([[1.0, 2.0, 4.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
PRIORS = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)


def example(**changed):
    return {"logits": WEIGHTS.log(), "labels": torch.tensor([0, 2]), "priors": PRIORS, **changed}


@each_implementation
def test_exponentials_of_logits_are_multiplied_by_powers_of_the_priors(implementation):
    found = evaluate(SPEC, implementation, example(), reduction="none")
    assert found.tolist() == pytest.approx([-math.log(0.5 / 2), -math.log(0.25 / 1)], rel=1e-14)
    squared = evaluate(SPEC, implementation, example(), tau=2.0, reduction="none")
    assert squared.tolist() == pytest.approx([-math.log(0.25 / 0.625), -math.log(0.0625 / 0.375)], rel=1e-14)


@each_implementation
def test_it_is_torchs_cross_entropy_of_logits_plus_tau_log_prior(implementation):
    tensors = draw(SPEC, 1, B=5, C=4)
    adjusted = tensors["logits"] + 0.7 * tensors["priors"].log()
    expected = functional.cross_entropy(adjusted, tensors["labels"])
    torch.testing.assert_close(evaluate(SPEC, implementation, tensors, tau=0.7), expected)


@each_implementation
def test_counts_give_what_shares_give(implementation):
    counts = example(priors=torch.tensor([1_000_000, 500_000, 500_000]))
    torch.testing.assert_close(evaluate(SPEC, implementation, counts), evaluate(SPEC, implementation, example()))


def test_counts_that_pass_the_range_of_float16_survive_a_module_in_float16():
    loss = LogitAdjustmentLoss(torch.tensor([1_000_000.0, 500_000.0, 500_000.0])).half()
    found = loss(WEIGHTS.log().half(), torch.tensor([0, 2]))
    assert found.item() == pytest.approx(math.log(4), rel=1e-2)


@each_implementation
def test_a_class_of_prior_zero_is_removed_from_every_sum(implementation):
    tensors = example(priors=torch.tensor([0.5, 0.0, 0.25]).double())
    without = {"logits": WEIGHTS.log()[:, [0, 2]], "labels": torch.tensor([0, 1]), "priors": torch.tensor([0.5, 0.25])}
    torch.testing.assert_close(evaluate(SPEC, implementation, tensors), evaluate(SPEC, implementation, without))
    assert (gradient(SPEC, implementation, tensors)[:, 1] == 0).all()


@each_implementation
def test_a_sample_of_a_removed_class_counts_zero_and_stays_in_the_number_of_samples(implementation):
    tensors = example(priors=torch.tensor([0.5, 0.5, 0.0]).double())
    found = evaluate(SPEC, implementation, tensors, reduction="none")
    assert found.tolist() == pytest.approx([-math.log(0.5 / 1.5), 0])
    assert evaluate(SPEC, implementation, tensors).item() == pytest.approx(found[0].item() / 2)
    assert (gradient(SPEC, implementation, tensors)[1] == 0).all()


@each_implementation
def test_where_every_class_is_removed_value_and_gradient_are_zero(implementation):
    tensors = example(priors=torch.zeros(3))
    assert evaluate(SPEC, implementation, tensors) == 0
    assert torch.equal(gradient(SPEC, implementation, tensors), torch.zeros(2, 3, dtype=torch.float64))


@each_implementation
def test_saturated_logits_give_the_margin(implementation):
    tensors = example(logits=torch.tensor([[100.0, -100.0, -100.0]]), labels=torch.tensor([1]), priors=torch.ones(3))
    assert evaluate(SPEC, implementation, tensors).item() == pytest.approx(200)


@each_implementation
def test_classes_are_the_priors_sliced_by_hand_also_where_they_repeat(implementation):
    tensors = draw(SPEC_INDEXED, C=4, N=6) | {"classes": torch.tensor([5, 0, 5, 2])}
    sliced = {k: v for k, v in tensors.items() if k != "classes"} | {"priors": tensors["priors"][[5, 0, 5, 2]]}
    assert evaluate(SPEC_INDEXED, implementation, tensors) == evaluate(SPEC, implementation, sliced)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("name", "position"), [("classes", 6), ("classes", -1), ("labels", 4), ("labels", -1)])
def test_a_position_outside_is_refused_and_never_counts_from_the_end(implementation, name, position):
    tensors = draw(SPEC_INDEXED, C=4, N=6)
    tensors[name] = torch.tensor([0, 1, 2, position])
    with pytest.raises((IndexError, RuntimeError), match=r"index|INDICES|out of bounds|expected in|should be in"):
        evaluate(SPEC_INDEXED, implementation, tensors)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_labels_and_classes_may_be_int32(implementation):
    tensors = draw(SPEC_INDEXED)
    narrow = tensors | {name: tensors[name].int() for name in ("labels", "classes")}
    assert evaluate(SPEC_INDEXED, implementation, narrow) == evaluate(SPEC_INDEXED, implementation, tensors)


@each_implementation
@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan, math.inf])
def test_a_tau_that_is_not_above_zero_and_finite_is_refused(implementation, tau):
    with pytest.raises(ValueError, match=r"tau=.*, expected a finite number above zero"):
        evaluate(SPEC, implementation, example(), tau=tau)


@each_implementation
def test_priors_of_other_classes_are_refused_with_what_to_pass(implementation):
    with pytest.raises(ValueError, match=r"priors has shape \[2\], but logits has shape \[2, 3\].* pass classes"):
        evaluate(SPEC, implementation, example(priors=torch.ones(2)))


def test_at_most_two_tensors_of_the_logits_size_live_at_once():
    logits = torch.randn(64, 4096, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels, priors = torch.zeros(64, dtype=torch.int64), torch.ones(4096)
    loss, usual = LogitAdjustmentLoss(priors), SPEC.implementations["added"]
    peaks = [
        peak_bytes(lambda call=call: torch.autograd.grad(call(), logits), "cpu") / logits.nbytes
        for call in (lambda: loss(logits, labels), lambda: usual(logits, labels, priors))
    ]
    assert peaks[0] < 2.1
    assert peaks[1] > 2.9
