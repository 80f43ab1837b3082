"""What a loss knows of its weights: right while they stay, and forgotten when they do not."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

from losses import DynamicWeightedLoss, WeightedMSELoss
from losses._known_weights import KnownWeights


def known(*values, dtype=torch.float32):
    weights = torch.tensor(values, dtype=dtype)
    return KnownWeights(weights), weights


@pytest.mark.parametrize(
    ("values", "dtype", "zero"),
    [
        ([1.0, 2.0], torch.float32, False),
        ([1.0, -2.0], torch.float64, False),
        ([1.0, 0.0], torch.float32, True),
        ([1.0, -0.0], torch.float32, True),
        ([math.nan, 1.0], torch.float32, True),
        ([True, True], torch.bool, False),
        ([True, False], torch.bool, True),
        ([3, 1], torch.int64, False),
        ([3, 0], torch.uint8, True),
        ([], torch.float32, False),
    ],
)
def test_it_knows_whether_a_weight_is_zero_and_takes_nan_for_unknown(values, dtype, zero):
    found, weights = known(*values, dtype=dtype)
    assert found.may_be_zero(weights, torch.float32) is zero


def test_a_weight_that_another_dtype_rounds_to_zero_may_be_zero_there():
    found, weights = known(1.0, 1e-9)
    assert not found.may_be_zero(weights, torch.float32)
    assert found.may_be_zero(weights, torch.float16)


def test_weights_that_are_edited_swapped_or_cannot_be_read_may_be_zero():
    found, weights = known(1.0, 2.0)
    assert found.may_be_zero(weights.clone(), torch.float32)
    weights[0] = 3
    assert found.may_be_zero(weights, torch.float32)
    meta = torch.ones(2, device="meta")
    assert KnownWeights(meta).may_be_zero(meta, torch.float32)
    with torch.inference_mode():
        untracked = torch.ones(2)
        assert KnownWeights(untracked).may_be_zero(untracked, torch.float32)


LOSSES = [lambda weights: WeightedMSELoss(weights, grid_axes=1), DynamicWeightedLoss]
each_loss = pytest.mark.parametrize("make", LOSSES, ids=["mask", "weights"])


def zeros(loss):
    return loss._zeros(torch.float32)


@each_loss
@pytest.mark.parametrize("change", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.double()])
def test_a_loss_that_is_copied_pickled_or_moved_looks_at_its_weights_again(make, change):
    assert not zeros(change(make(torch.ones(3))))
    assert zeros(change(make(torch.zeros(3))))


@each_loss
def test_a_loss_that_loads_a_state_looks_at_its_weights_again(make):
    loss, other = make(torch.ones(3)), make(torch.tensor([1.0, 0.0, 1.0]))
    loss.load_state_dict(other.state_dict())
    assert zeros(loss)
    loss.load_state_dict(make(torch.ones(3)).state_dict())
    assert not zeros(loss)


@each_loss
def test_a_weight_that_is_set_to_zero_afterwards_removes_all_the_same(make):
    loss = make(torch.ones(3))
    (weights,) = loss.buffers()
    weights[1] = 0
    assert loss(torch.tensor([1.0, math.nan, 1.0]), torch.zeros(3)) == pytest.approx(2 / 3)


@each_loss
def test_a_copy_whose_weights_are_edited_does_not_trust_what_the_original_knew(make):
    loss = make(torch.ones(3))
    loss.load_state_dict(loss.state_dict())  # counts as one change of the original
    other = copy.deepcopy(loss)
    (weights,) = other.buffers()
    weights[1] = 0  # and this as one of the copy
    assert zeros(other)


@each_loss
def test_weights_given_for_one_call_are_not_taken_for_those_that_are_known(make):
    loss = make(torch.ones(3))
    ((name, _),) = loss.named_buffers()
    inputs = torch.tensor([1.0, math.nan, 1.0]), torch.zeros(3)
    found = torch.func.functional_call(loss, {name: torch.tensor([1.0, 0.0, 1.0])}, inputs)
    assert found == pytest.approx(2 / 3)
