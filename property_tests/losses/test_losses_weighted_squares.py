"""Weighted squares in place: the number of the formula, derivatives in every mode, and what is never made."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from loss_examples import generator
from torch.autograd import gradcheck, gradgradcheck

from harness.checking.verify import verify
from harness.timing.costs.allocator import cpu_peak_bytes
from losses import WeightedMSELoss, _weighted_squares, dynamic_weighted, weighted_mse
from losses._weighted_squares import removed, weighted_squared_error

SHAPES = [((2, 3), (2, 3)), ((4, 2, 3), (2, 3)), ((4, 2, 3), (4, 1, 1)), ((2, 3), (1, 3)), ((5,), (5,)), ((), ())]
each_shape = pytest.mark.parametrize(("shape", "weights_shape"), SHAPES, ids=str)
each_zeros = pytest.mark.parametrize("zeros", [True, False])
# torch scripts its own formulas when forward mode is first used, and warns about it.
forward_mode = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
REDUCTIONS = ("mean", "sum", "weighted_mean")
MIB = 2**20


@pytest.fixture
def in_place(monkeypatch):
    """Tensors of every size take the way that large ones take."""
    monkeypatch.setattr(_weighted_squares, "IN_PLACE_FROM", 0)


def made(shape, weights_shape, zeros=True, dtype=torch.float64):
    source = generator(len(shape))
    predictions, labels = (torch.randn(shape, generator=source, dtype=dtype) for _ in range(2))
    weights = torch.rand(weights_shape, generator=source, dtype=dtype) + 0.5
    if zeros:
        weights.view(-1)[0] = 0
    return predictions, labels, weights


def formula(predictions, labels, weights, reduction):
    errors = weights * (predictions - labels) ** 2
    total_weight = weights.expand_as(errors).sum()
    return errors.sum() / {"mean": errors.numel(), "sum": 1, "weighted_mean": total_weight.clamp_min(1e-300)}[reduction]


@forward_mode
@each_shape
@each_zeros
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.usefixtures("in_place")
def test_it_is_the_formula_with_derivatives_of_two_orders_forward_backward_and_batched(
    shape, weights_shape, zeros, reduction
):
    predictions, labels, weights = made(shape, weights_shape, zeros)
    loss = partial(weighted_squared_error, weights=weights, reduction=reduction, zeros=zeros)
    torch.testing.assert_close(loss(predictions, labels), formula(predictions, labels, weights, reduction))
    point = predictions.requires_grad_(), labels.requires_grad_()
    assert gradcheck(loss, point, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
    assert gradgradcheck(loss, point, check_batched_grad=True, check_fwd_over_rev=True, check_rev_over_rev=True)


@forward_mode
@each_zeros
@pytest.mark.usefixtures("in_place")
def test_the_hessian_is_twice_the_weights_on_the_diagonal_however_it_is_taken(zeros):
    predictions, labels, weights = made((2, 3), (2, 3), zeros)
    loss = partial(weighted_squared_error, labels=labels, weights=weights, reduction="sum", zeros=zeros)
    expected = torch.diag(2 * weights.flatten())
    for hessian in (torch.func.hessian, lambda f: torch.func.jacrev(torch.func.jacrev(f))):
        torch.testing.assert_close(hessian(loss)(predictions).reshape(6, 6), expected)


@pytest.mark.usefixtures("in_place")
def test_weights_that_are_trained_have_the_squares_as_their_derivative():
    predictions, labels, weights = made((4, 3), (3,))
    expected = ((predictions - labels) ** 2).sum(0)
    loss = partial(weighted_squared_error, predictions, labels, reduction="sum")
    kept = weights != 0
    for found in (
        torch.autograd.grad(loss(trained := weights.clone().requires_grad_()), trained)[0],
        torch.func.grad(loss)(weights),
    ):
        torch.testing.assert_close(found[kept], expected[kept])


@pytest.mark.parametrize(
    "spec", [weighted_mse.SPEC, weighted_mse.SPEC_BROADCAST, dynamic_weighted.SPEC], ids=lambda spec: spec.name
)
@pytest.mark.usefixtures("in_place")
def test_the_battery_has_nothing_to_say_of_what_large_tensors_take(spec):
    torch.set_num_threads(1)
    found = verify(spec, profile="quick", implementations=["vectorized"])
    assert found.of("vectorized") == ()
    assert found.ok


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("missing", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.usefixtures("in_place")
def test_what_has_weight_zero_is_removed_and_what_has_not_is_seen(dtype, missing):
    labels = torch.tensor([missing, 1.0, 1.0], dtype=dtype)
    predictions = torch.zeros(3, dtype=dtype, requires_grad=True)
    for weights, kept in (([0.0, 1.0, 2.0], True), ([-0.0, 1.0, 2.0], True), ([1.0, 1.0, 2.0], False)):
        loss = weighted_squared_error(predictions, labels, torch.tensor(weights), "sum")
        (gradient,) = torch.autograd.grad(loss, predictions)
        assert bool(loss == 3) is kept
        assert bool(gradient[0] == 0) is kept
        assert gradient[1:].tolist() == [-2, -4]


def test_removing_selects_and_does_not_multiply():
    values = torch.tensor([math.nan, math.inf, 2.0, math.nan, -3.0])
    weights = torch.tensor([0.0, -0.0, 1e-45, 1.0, -1.0])
    assert torch.equal(removed(values, weights).nan_to_num(nan=7), torch.tensor([0, 0, 2, 7, -3.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.usefixtures("in_place")
def test_a_mean_in_low_precision_has_no_intermediate_that_overflows_where_it_does_not(dtype):
    predictions = torch.zeros(4096, dtype=dtype)
    predictions[0] = 1024.0
    predictions.requires_grad_()
    loss = weighted_squared_error(predictions, torch.zeros(4096), torch.ones(4096), "mean")
    assert loss == 1024.0**2 / 4096
    assert torch.autograd.grad(loss, predictions)[0][0] == 0.5


def test_sums_of_many_elements_lose_no_precision():
    count = 2**22
    predictions = torch.rand(count, generator=generator()) + 0.5
    found = weighted_squared_error(predictions, torch.zeros(count), torch.ones(1), "mean").double()
    assert found == pytest.approx(predictions.double().square().mean().item(), rel=2e-7)


def costs(loss, *inputs):
    """Peak bytes above the inputs and bytes saved for backward of a pass forward and backward."""
    saved = {}
    storage = lambda tensor: tensor.untyped_storage().data_ptr()  # noqa: E731
    given = {storage(tensor) for tensor in (*inputs, *loss.buffers())}

    def keep(tensor):
        saved[storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(*inputs)
    peak = cpu_peak_bytes(lambda: torch.autograd.grad(loss(*inputs), inputs[0]))
    return peak, sum(size for address, size in saved.items() if address not in given)


def images(*shape):
    source = generator()
    predictions, labels = (torch.rand(shape, generator=source) for _ in range(2))
    return predictions.requires_grad_(), labels


@each_zeros
def test_a_pass_makes_one_tensor_at_a_time_and_keeps_none(zeros):
    mask = torch.ones(512, 512)
    mask[0, 0] = 0 if zeros else 1
    peak, saved = costs(WeightedMSELoss(mask), *images(512, 512))
    assert peak < 1.01 * MIB
    assert saved < 100


@pytest.mark.parametrize("form", ["elementwise", "library"])
def test_the_usual_forms_take_twice_the_memory_or_more(form):
    loss = weighted_mse.SPEC.implementations[form](torch.ones(512, 512))
    peak, _ = costs(loss, *images(512, 512))
    assert peak >= 2 * MIB


@pytest.mark.parametrize("shape", [(1, 64, 64), (16, 1, 1), (1, 1, 64)])
def test_a_mask_that_broadcasts_is_not_expanded(shape):
    loss = WeightedMSELoss(torch.ones(shape), grid_axes=3, broadcast=True)
    peak, saved = costs(loss, *images(4, 16, 64, 64))
    assert peak < 1.05 * MIB
    assert saved < 20_000


def test_the_weights_of_a_data_set_are_read_at_the_batch_and_nowhere_else():
    loss = dynamic_weighted.DynamicWeightedLoss(torch.ones(1_000_000))
    predictions, labels = images(256, 1024)
    indices = torch.arange(256) * 3000
    peak = cpu_peak_bytes(lambda: torch.autograd.grad(loss(predictions, labels, indices), predictions))
    assert peak < 1.05 * MIB
