"""The focal loss: its value, what it is for two classes and without focus, certainty, and classes of weight zero."""

from __future__ import annotations

import math

import pytest
import torch
from loss_examples import draw, evaluate, generator, gradient
from torch.nn import functional

from harness import verify
from harness.timing.costs.counting import peak_bytes
from losses import FocalLoss
from losses.focal import SPEC, CrossEntropyFocalLoss

each_implementation = pytest.mark.parametrize("implementation", SPEC.implementations)
ours = pytest.mark.parametrize("implementation", ["naive", "vectorized"])


@each_implementation
def test_it_is_the_cross_entropy_times_what_is_missing_to_certainty_to_the_power_gamma(implementation):
    tensors = {
        "logits": torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0]]).double(),
        "labels": torch.tensor([0, 1]),
        "alpha": torch.tensor([0.5, 2.0]).double(),
    }
    expected = [-0.5 * 0.25**2 * math.log(0.75), -2.0 * 0.75**2 * math.log(0.25)]
    assert evaluate(SPEC, implementation, tensors, reduction="none").tolist() == pytest.approx(expected)


@each_implementation
@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_for_two_classes_it_is_the_form_with_a_sigmoid(implementation, gamma):
    score = torch.randn(7, generator=generator(), dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 1])
    p = torch.where(labels == 1, score.sigmoid(), 1 - score.sigmoid())
    share = torch.where(labels == 1, 0.25, 0.75)
    expected = -share * (1 - p) ** gamma * p.log()
    tensors = {
        "logits": torch.stack([torch.zeros_like(score), score], 1),
        "labels": labels,
        "alpha": torch.tensor([0.75, 0.25]).double(),
    }
    torch.testing.assert_close(evaluate(SPEC, implementation, tensors, gamma=gamma, reduction="none"), expected)


@each_implementation
def test_without_focus_it_is_torchs_weighted_cross_entropy(implementation):
    tensors = draw(SPEC)
    known = functional.cross_entropy(tensors["logits"], tensors["labels"], tensors["alpha"], reduction="sum")
    torch.testing.assert_close(evaluate(SPEC, implementation, tensors, gamma=0.0, reduction="sum"), known)
    known = functional.cross_entropy(tensors["logits"], tensors["labels"], tensors["alpha"])
    torch.testing.assert_close(evaluate(SPEC, implementation, tensors, gamma=0.0, reduction="weighted_mean"), known)


@ours
@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_certainty_about_the_label_gives_zero_and_gradient_zero(implementation, gamma, dtype):
    tensors = {
        "logits": torch.tensor([[1e3, -1e3, 0.0]], dtype=dtype),
        "labels": torch.tensor([0]),
        "alpha": torch.ones(3, dtype=dtype),
    }
    assert evaluate(SPEC, implementation, tensors, gamma=gamma) == 0
    assert (gradient(SPEC, implementation, tensors, gamma=gamma) == 0).all()


def test_the_usual_form_has_no_gradient_at_certainty_where_gamma_is_below_one():
    tensors = {"logits": torch.tensor([[1e3, 0.0]]), "labels": torch.tensor([0]), "alpha": torch.ones(2)}
    assert gradient(SPEC, "cross_entropy", tensors, gamma=0.5).isnan().all()


@each_implementation
def test_certainty_about_another_class_gives_the_cross_entropy(implementation):
    tensors = {"logits": torch.tensor([[1e3, 0.0]]), "labels": torch.tensor([1]), "alpha": torch.ones(2)}
    assert evaluate(SPEC, implementation, tensors) == 1e3
    assert gradient(SPEC, implementation, tensors).tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize("gamma", [0.5, 1.5])
def test_a_gamma_that_is_no_whole_number_holds_the_battery(gamma):
    found = verify(SPEC.replace(options={"gamma": gamma}), profile="quick", implementations=["naive", "vectorized"])
    assert [f.message for f in found.findings if f.severity != "note"] == []


@ours
@pytest.mark.parametrize("missing", [math.nan, math.inf])
@pytest.mark.parametrize("reduction", ["sum", "mean", "weighted_mean"])
def test_a_sample_whose_class_weighs_nothing_is_removed_whatever_its_logits_are(implementation, missing, reduction):
    tensors = draw(SPEC, B=3, C=3)
    tensors |= {"labels": torch.tensor([2, 0, 1]), "alpha": torch.tensor([0.0, 1.0, 3.0]).double()}
    dirty = tensors | {"logits": tensors["logits"].clone()}
    dirty["logits"][1] = missing

    def value(logits):
        return evaluate(SPEC, implementation, dirty | {"logits": logits}, reduction=reduction)

    assert value(dirty["logits"]) == evaluate(SPEC, implementation, tensors, reduction=reduction)
    found = gradient(SPEC, implementation, dirty, reduction=reduction)
    torch.testing.assert_close(found, gradient(SPEC, implementation, tensors, reduction=reduction))
    assert (found[1] == 0).all()
    hessian = torch.autograd.functional.hessian(value, dirty["logits"])
    assert hessian.isfinite().all()
    assert (hessian[1] == 0).all()


def test_logits_that_are_nan_in_a_sample_that_counts_are_not_hidden():
    logits = torch.tensor([[math.nan, 0.0], [0.0, 0.0]]).requires_grad_()
    value = FocalLoss(torch.ones(2))(logits, torch.tensor([0, 1]))
    assert value.isnan()
    assert torch.autograd.grad(value, logits)[0][0].isnan().all()


@each_implementation
def test_weights_that_are_all_zero_give_zero_with_gradient_zero(implementation):
    tensors = draw(SPEC)
    tensors["alpha"] = torch.zeros_like(tensors["alpha"])
    for reduction in ("mean", "weighted_mean"):
        assert evaluate(SPEC, implementation, tensors, reduction=reduction) == 0
        assert (gradient(SPEC, implementation, tensors, reduction=reduction) == 0).all()


def test_two_tensors_of_the_size_of_the_logits_are_enough():
    tensors = draw(SPEC, dtype=torch.float32, B=512, C=1000)
    logits = tensors["logits"].requires_grad_()
    peaks = [
        peak_bytes(lambda module=module: torch.autograd.grad(module(logits, tensors["labels"]), logits), "cpu")
        / logits.nbytes
        for module in (loss(tensors["alpha"]) for loss in (FocalLoss, CrossEntropyFocalLoss))
    ]
    assert peaks[0] < 2.1
    assert peaks[1] > 2.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": -1.0}, r"gamma=-1.0, expected from zero up"),
        ({"gamma": math.nan}, r"gamma=nan, expected from zero up"),
        ({"alpha": torch.tensor(0.25)}, r"alpha has shape \[\], expected one axis, \[C\]: one weight per class"),
    ],
)
def test_what_no_loss_can_be_built_from_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FocalLoss(**{"alpha": torch.ones(2), **arguments})
