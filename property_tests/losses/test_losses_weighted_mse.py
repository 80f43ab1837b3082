"""The weighted mean squared error: grids of any number of axes, masks that broadcast, crops, and what it costs."""

from __future__ import annotations

import itertools

import pytest
import torch
from loss_examples import draw, evaluate, generator, gradient
from torch.nn import functional

from losses import WeightedMSELoss, weighted_mse
from losses.weighted_mse import (
    SPEC,
    SPEC_BROADCAST,
    SPEC_CROPPED,
    SPEC_WEIGHTED_MEAN,
    ElementwiseWeightedMSELoss,
    LibraryWeightedMSELoss,
    naive_weighted_mse,
)

each_form = pytest.mark.parametrize("form", ["naive", "vectorized", "elementwise", "library"])


def numbers(*shape, seed=0):
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


@each_form
def test_the_mean_divides_by_all_elements_and_the_weighted_mean_by_the_weights(form):
    tensors = {
        "predictions": torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]),
        "labels": torch.zeros(1, 2, 2),
        "mask": torch.tensor([[1.0, 0.0], [2.0, 0.5]]),
    }
    # 1 * 1 + 0 * 4 + 2 * 9 + 0.5 * 16 = 27, over 4 elements or over weights of 3.5
    assert evaluate(SPEC, form, tensors).item() == pytest.approx(27 / 4)
    assert evaluate(SPEC, form, tensors, reduction="sum").item() == 27
    assert evaluate(SPEC, form, tensors, reduction="weighted_mean").item() == pytest.approx(27 / 3.5)
    assert evaluate(SPEC, form, tensors, reduction="none").flatten().tolist() == [1, 0, 18, 8]


@each_form
def test_the_gradient_is_twice_the_weighted_difference_over_the_number_of_elements(form):
    tensors = {
        "predictions": torch.tensor([[1.0, 2.0]], dtype=torch.float64),
        "labels": torch.tensor([[0.0, 4.0]], dtype=torch.float64),
        "mask": torch.tensor([[3.0, 0.5]], dtype=torch.float64),
    }
    assert gradient(SPEC, form, tensors).tolist() == [[3.0, -1.0]]


@pytest.mark.parametrize("axes", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_a_mask_lies_over_the_last_axes_of_a_grid_of_any_number_of_axes(axes, batch):
    grid = (2, 3, 1, 2, 3)[:axes]
    predictions, labels, mask = numbers(*batch, *grid), numbers(*batch, *grid, seed=1), numbers(*grid, seed=2)
    expected = (mask.expand(*batch, *grid) * (predictions - labels) ** 2).mean()
    found = WeightedMSELoss(mask, grid_axes=axes)(predictions, labels)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(naive_weighted_mse(predictions, labels, mask, grid_axes=axes), expected)


@pytest.mark.parametrize("loss", [WeightedMSELoss, lambda mask, **o: naive_weighted_mse(mask, mask, mask, **o)])
def test_a_mask_of_another_number_of_axes_is_refused_with_what_to_write(loss):
    with pytest.raises(ValueError, match=r"mask has shape \[2, 3, 4\], expected grid_axes=2 axes; .* grid_axes=3"):
        loss(torch.ones(2, 3, 4))
    with pytest.raises(ValueError, match="grid_axes=0, expected 1 for a series"):
        loss(torch.ones(()), grid_axes=0)


@each_form
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 3, 1), (1, 3, 5), (1, 1, 1), (4, 3, 5)])
def test_an_axis_of_size_one_is_one_weight_for_all_positions_where_that_is_declared(form, shape):
    tensors = draw(SPEC_BROADCAST, C=4) | {"mask": numbers(*shape)}
    whole = tensors | {"mask": tensors["mask"].expand(4, 3, 5)}
    for reduction in ("none", "mean", "sum", "weighted_mean"):
        found = evaluate(SPEC_BROADCAST, form, tensors, reduction=reduction)
        torch.testing.assert_close(found, evaluate(SPEC_BROADCAST, "naive", whole, reduction=reduction))
    torch.testing.assert_close(
        gradient(SPEC_BROADCAST, form, tensors), gradient(SPEC_BROADCAST, "naive", whole), rtol=1e-12, atol=0
    )


@each_form
def test_a_mask_that_does_not_fit_is_refused_also_where_it_may_broadcast(form):
    tensors = draw(SPEC_BROADCAST, C=4) | {"mask": torch.ones(1, 2, 1)}
    with pytest.raises(ValueError, match=r"mask has shape \[1, 2, 1\], but predictions has shape \[2, 4, 3, 5\]"):
        evaluate(SPEC_BROADCAST, form, tensors)


def test_an_axis_of_size_one_that_is_not_declared_to_broadcast_is_refused_with_what_to_write():
    with pytest.raises(ValueError, match="for axes of size one that hold one weight for all positions broadcast=True"):
        WeightedMSELoss(torch.ones(1, 3))(torch.ones(2, 3), torch.ones(2, 3))


@pytest.mark.parametrize("form", ["naive", "vectorized"])
@pytest.mark.parametrize("corner", list(itertools.product([0, 2], [0, 1], [0, 3])))
def test_a_crop_of_a_volume_is_the_mask_sliced_by_hand(form, corner):
    mask, predictions, labels = numbers(4, 3, 5), numbers(7, 2, 2, 2, seed=1), numbers(7, 2, 2, 2, seed=2)
    sliced = mask[tuple(slice(first, first + 2) for first in corner)]
    tensors = {"predictions": predictions, "labels": labels, "mask": mask, "corner": torch.tensor(corner)}
    found = evaluate(SPEC_CROPPED, form, tensors, grid_axes=3)
    torch.testing.assert_close(found, WeightedMSELoss(sliced, grid_axes=3)(predictions, labels))


@pytest.mark.parametrize("form", ["naive", "vectorized"])
def test_a_crop_takes_all_of_an_axis_that_broadcasts_wherever_its_corner_is(form):
    mask, images = numbers(4, 1), numbers(2, 3, seed=1)
    tensors = {"predictions": images, "labels": 0 * images, "mask": mask, "corner": torch.tensor([1, 9])}
    expected = (mask[1:3] * images**2).mean()
    torch.testing.assert_close(evaluate(SPEC_CROPPED, form, tensors, broadcast=True), expected)


@pytest.mark.parametrize("form", ["naive", "vectorized"])
def test_it_is_torchs_own_weighted_mean(form):
    tensors = draw(SPEC_WEIGHTED_MEAN)
    mask = tensors["mask"].expand_as(tensors["predictions"])
    expected = functional.mse_loss(tensors["predictions"], tensors["labels"], weight=mask)
    torch.testing.assert_close(evaluate(SPEC_WEIGHTED_MEAN, form, tensors), expected)


@pytest.mark.parametrize("loss", [ElementwiseWeightedMSELoss, LibraryWeightedMSELoss])
def test_the_usual_forms_keep_what_a_weight_of_zero_should_remove(loss):
    mask, labels = torch.tensor([[0.0, 1.0]]), torch.tensor([[float("nan"), 0.0]])
    assert loss(mask)(torch.ones(1, 2), labels).isnan()
    assert WeightedMSELoss(mask)(torch.ones(1, 2), labels) == 0.5


def test_every_declaration_of_the_module_is_among_those_that_are_tested():
    from losses import SPECS

    assert {spec for name, spec in vars(weighted_mse).items() if name.startswith("SPEC")} <= set(SPECS)
