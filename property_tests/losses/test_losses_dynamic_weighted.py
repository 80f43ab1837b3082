"""The sample-weighted mean squared error: trailing axes, weights of a data set, and weights that are not there."""

from __future__ import annotations

import pytest
import torch
from loss_examples import draw, evaluate, generator, gradient
from torch.nn import functional

from losses import DynamicWeightedLoss, dynamic_weighted
from losses.dynamic_weighted import SPEC, SPEC_INDEXED, ElementwiseDynamicWeightedLoss

each_form = pytest.mark.parametrize("form", ["naive", "vectorized", "elementwise"])
REDUCTIONS = ("none", "mean", "sum", "weighted_mean")


@each_form
def test_every_element_of_a_sample_has_the_weight_of_the_sample(form):
    tensors = {
        "predictions": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "labels": torch.zeros(2, 2),
        "weights": torch.tensor([0.5, 2.0]),
    }
    # 0.5 * (1 + 4) + 2 * (9 + 16) = 52.5, over 4 elements or over weights of 2 * 2.5
    assert evaluate(SPEC, form, tensors).item() == pytest.approx(52.5 / 4)
    assert evaluate(SPEC, form, tensors, reduction="weighted_mean").item() == pytest.approx(52.5 / 5)
    assert evaluate(SPEC, form, tensors, reduction="none").tolist() == [[0.5, 2.0], [18.0, 32.0]]
    assert gradient(SPEC, form, tensors).tolist() == [[0.25, 0.5], [3.0, 4.0]]


@each_form
@pytest.mark.parametrize("rest", [(), (1,), (4,), (4, 2), (2, 4, 1, 3)])
def test_the_weights_lie_along_the_first_axis_whatever_follows_it(form, rest):
    tensors = draw(SPEC, B=4, rest=rest)
    error = (tensors["predictions"] - tensors["labels"]) ** 2
    expected = sum(w * e.sum() for w, e in zip(tensors["weights"], error, strict=True)) / error.numel()
    torch.testing.assert_close(evaluate(SPEC, form, tensors), expected)


@each_form
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_weights_are_weights_of_one(form, reduction):
    tensors = draw(SPEC)
    ones = tensors | {"weights": torch.ones(4, dtype=torch.float64)}
    none = tensors | {"weights": None}
    found = evaluate(SPEC, form, none, reduction=reduction)
    torch.testing.assert_close(found, evaluate(SPEC, form, ones, reduction=reduction))
    torch.testing.assert_close(
        gradient(SPEC, form, none, reduction=reduction), gradient(SPEC, form, ones, reduction=reduction)
    )


def test_a_loss_without_weights_fits_batches_of_every_size():
    loss = DynamicWeightedLoss(None)
    for size in (1, 3, 8):
        predictions = torch.rand(size, 2, generator=generator(size))
        torch.testing.assert_close(loss(predictions, -predictions), functional.mse_loss(predictions, -predictions))
    assert "weights=None" in repr(loss)
    assert not loss.state_dict()


@each_form
def test_indices_without_weights_are_refused(form):
    tensors = draw(SPEC_INDEXED) | {"weights": None}
    with pytest.raises(ValueError, match="indices came, but weights=None"):
        evaluate(SPEC_INDEXED, form, tensors)


@pytest.mark.parametrize("form", ["naive", "vectorized"])
def test_a_sample_of_weight_zero_counts_in_the_mean_and_not_in_the_weighted_mean(form):
    tensors = draw(SPEC, B=3)
    tensors["weights"] = torch.tensor([2.0, 0.0, 1.0])
    kept = {name: tensor[[0, 2]] for name, tensor in tensors.items()}
    for reduction, share in (("mean", 2 / 3), ("weighted_mean", 1)):
        found = evaluate(SPEC, form, tensors, reduction=reduction)
        torch.testing.assert_close(found, share * evaluate(SPEC, form, kept, reduction=reduction))


@pytest.mark.parametrize("form", ["naive", "vectorized"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_batch_whose_samples_all_weigh_nothing_gives_zero_though_the_data_set_has_weights(form, reduction):
    weights = torch.tensor([1.0, 0.0, 2.0, 0.0], dtype=torch.float64)
    tensors = draw(SPEC_INDEXED, N=4) | {"weights": weights, "indices": torch.tensor([1, 3, 3, 1])}
    assert not evaluate(SPEC_INDEXED, form, tensors, reduction=reduction).any()
    assert not gradient(SPEC_INDEXED, form, tensors, reduction=reduction).any()


def test_the_usual_form_keeps_what_a_weight_of_zero_should_remove():
    weights, labels = torch.tensor([0.0, 1.0]), torch.tensor([float("inf"), 0.0])
    assert not ElementwiseDynamicWeightedLoss(weights)(torch.ones(2), labels).isfinite()
    assert DynamicWeightedLoss(weights)(torch.ones(2), labels) == 0.5


def test_every_declaration_of_the_module_is_among_those_that_are_tested():
    from losses import SPECS

    assert {spec for name, spec in vars(dynamic_weighted).items() if name.startswith("SPEC")} <= set(SPECS)
