"""The tolerances: what their derivations say holds on functions with known derivatives and known rounding."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from harness.calls import tolerance

EPS = torch.finfo(torch.float64).eps
CURVES = {
    "exp": (math.exp, math.exp),
    "sin": (math.sin, math.cos),
    "cube": (lambda x: x**3, lambda x: 3 * x**2),
    "log": (lambda x: math.log(x + 5), lambda x: 1 / (x + 5)),
    "tanh": (math.tanh, lambda x: 1 - math.tanh(x) ** 2),
}
POINTS = [-1.7, -0.4, 0.0, 0.3, 1.1, 2.9]


def one_sided(function, x, step):
    return (function(x + step) - function(x)) / ((x + step) - x)


@pytest.mark.parametrize("at", POINTS)
@pytest.mark.parametrize("name", CURVES)
def test_the_error_of_an_extrapolated_slope_is_below_what_is_allowed(name, at):
    function, derivative = CURVES[name]
    size = max(abs(derivative(at)), abs(function(at)), 1.0)
    step, ratio = tolerance.slope_step(EPS), tolerance.STEP_RATIO
    for large, small in ((ratio * step, step), (step, step / ratio)):
        slope = (ratio * one_sided(function, at, small) - one_sided(function, at, large)) / (ratio - 1)
        noise = 3 * tolerance.slope_noise(small, size)
        assert abs(slope - derivative(at)) < 0.1 * tolerance.SLOPE_RELATIVE * size + noise


@pytest.mark.parametrize("at", POINTS)
@pytest.mark.parametrize("name", CURVES)
def test_the_error_of_a_central_difference_is_below_what_gradcheck_allows(name, at):
    function, derivative = CURVES[name]
    step = tolerance.GRADCHECK_STEP
    central = (function(at + step) - function(at - step)) / ((at + step) - (at - step))
    allowed = tolerance.GRADCHECK_ABSOLUTE + tolerance.GRADCHECK_RELATIVE * abs(derivative(at))
    assert abs(central - derivative(at)) < 0.1 * allowed


@pytest.mark.parametrize("dtype", tolerance.PRECISIONS, ids=str)
def test_truncation_and_rounding_of_a_central_difference_balance_at_the_step(dtype):
    """Of a function whose value and third derivative are one: no step that is twice or half as long is much better."""
    eps = tolerance.eps_of(dtype)

    def error(step):
        return step**2 / 6 + eps / step

    step = tolerance.slope_step(eps)
    assert error(step) < 1.3 * min(error(step * 2.0**power) for power in range(-20, 21))


def test_rounding_belongs_to_the_precision_whose_eps_is_nearest():
    for dtype in tolerance.PRECISIONS:
        for factor in (0.5, 1.0, 2.0):
            wanted = torch.bfloat16 if dtype == torch.float16 else dtype  # a few values do not tell these apart
            assert tolerance.precision_of(factor * tolerance.eps_of(dtype)) == wanted
    assert tolerance.precision_of(0.0) == torch.float64
    assert tolerance.precision_of(1.0) == torch.bfloat16


def test_what_two_correct_gradients_may_differ_by_leaves_a_wrong_one_to_be_seen():
    allowed = [tolerance.same_gradient(tolerance.eps_of(dtype)) for dtype in tolerance.PRECISIONS]
    assert allowed == sorted(allowed)
    assert allowed[0] == pytest.approx(1e-6)
    assert allowed[1] < 0.02 / 10  # float32: two percent
    assert allowed[3] < 0.5  # bfloat16: half, twice, another sign


def test_one_percent_is_far_above_every_tolerance_on_a_slope_of_one():
    assert 5 * (tolerance.GRADCHECK_ABSOLUTE + tolerance.GRADCHECK_RELATIVE) < 0.01
    assert 50 * (tolerance.SLOPE_RELATIVE + tolerance.SLOPE_FLOOR) < 0.01
    assert 50 * tolerance.DIRECTION_RELATIVE < 0.01


@pytest.mark.parametrize("magnitude", [1e-3, 1.0, 1e6, 1e12])
@pytest.mark.parametrize("step", [2.4e-5, 6e-6, 1.5e-6])
def test_slope_noise_bounds_the_rounding_of_a_difference_quotient(magnitude, step):
    """x + M loses the digits of x below eps M; the quotient of the differences is off by that over the step."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(500, generator=generator, dtype=torch.float64)
    moved = points + step
    quotient = ((moved + magnitude) - (points + magnitude)) / (moved - points)
    error = float((quotient - 1).abs().max())
    assert error <= tolerance.slope_noise(step, magnitude + 1)
    if magnitude * EPS > step * 1e-9:
        assert error > 0.01 * tolerance.slope_noise(step, magnitude)


def scale(loss, tensors):
    """Value, sum |x dL/dx| and the gradient of a loss in float64."""
    leaves = [t.detach().double().requires_grad_() for t in tensors]
    value = loss(*leaves)
    gradients = torch.autograd.grad(value, leaves)
    condition = sum(float((g * t.detach()).abs().sum()) for g, t in zip(gradients, leaves, strict=True))
    return float(value.detach()), condition


LOSSES = {
    "sum": lambda p, y: (p + y).sum(),
    "mean squared": lambda p, y: (p - y).square().mean(),
    "cross entropy": lambda p, y: -(p.log_softmax(-1) * y.softmax(-1)).sum(-1).mean(),
    "cosine": lambda p, y: F.cosine_similarity(p, y, dim=-1).mean(),
    "log cosh": lambda p, y: (F.softplus(2 * (p - y)) - (p - y)).mean(),
    "products": lambda p, y: (p @ y.mT).logsumexp(-1).sum(),
}


def drawn(seed, rows=16, columns=8, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [spread * torch.randn(rows, columns, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_correct_losses_stay_within_the_forward_error_of_their_precision(name, dtype, seed):
    loss, tensors = LOSSES[name], [t.to(dtype) for t in drawn(seed)]
    value, condition = scale(loss, tensors)
    came = float(loss(*tensors).double())
    assert abs(came - value) <= tolerance.forward_error(torch.finfo(dtype).eps, value, condition)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_cancellation_is_outside_the_forward_error(dtype):
    """A variance as a difference of two large means, against the same in two passes."""

    def one_pass(x, _):
        return x.square().mean() - x.mean().square()

    def two_passes(x, _):
        return (x - x.mean()).square().mean()

    tensors = [(t + 300).to(dtype) for t in drawn(0)]
    eps = torch.finfo(dtype).eps
    exact = [t.double() for t in tensors]
    value = float(two_passes(*exact))
    centred = (exact[0] - exact[0].mean()).abs()
    condition = float((2 * centred**2).mean())  # sum |x dL/dx| with x measured from the mean, as two passes do
    assert abs(float(one_pass(*tensors).double()) - value) > 2 * tolerance.forward_error(eps, value, condition)


@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e3])
def test_two_orders_of_summation_are_the_same_number(spread):
    apart = []
    for seed in range(5):
        p, y = drawn(seed, 64, 64, spread)
        errors = (p - y).square().flatten()
        forth, back = float(errors.cumsum(0)[-1]), float(errors.flip(0).cumsum(0)[-1])
        value, condition = scale(lambda a, b: (a - b).square().sum(), [p, y])
        apart.append(abs(forth - back) / tolerance.same(value, condition))
    assert 0 < max(apart) < 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_a_hundred_thousandth_more_is_another_number(name):
    value, condition = scale(LOSSES[name], drawn(0))
    assert 1e-5 * (abs(value) + condition) > 50 * tolerance.same(value, condition)


def test_tolerances_grow_with_what_they_depend_on_and_vanish_with_it():
    assert tolerance.same(0.0, 0.0) == 0.0
    assert tolerance.forward_error(EPS, 0.0, 0.0) == 0.0
    assert tolerance.slope_noise(1e-6, 0.0) == 0.0
    assert tolerance.same(1.0, 2.0) < tolerance.same(1.0, 3.0) < tolerance.same(1.0, 3.0, 1e9)
    assert tolerance.same(-1.0, 0.0) == tolerance.same(1.0, 0.0)
    assert tolerance.slope_noise(1e-6, 1.0) > tolerance.slope_noise(1e-5, 1.0)
    assert tolerance.forward_error(1e-3, 1.0, 1.0) == 2 * tolerance.forward_error(1e-3, 1.0, 0.0)


@pytest.mark.parametrize(
    ("off", "allowed", "shown"),
    [
        (0.28, 1e-6, ("0.28", "1e-06")),
        (2.8e-6, 2.6e-6, ("2.8e-06", "2.6e-06")),
        (2.8e-6, 2.79e-6, ("2.8e-06", "2.79e-06")),
        (1.0001e-5, 1e-5, ("1.0001e-05", "1e-05")),
        (math.inf, 0.0, ("inf", "0")),
        (math.nan, 0.02, ("nan", "0.02")),
    ],
)
def test_what_is_off_by_more_than_is_allowed_reads_so(off, allowed, shown):
    assert tolerance.told_apart(off, allowed) == shown


def test_numbers_that_are_neighbours_read_apart():
    for allowed in (2.6e-6, 1 / 3, 1e-300, 5e300):
        off, may = map(float, tolerance.told_apart(math.nextafter(allowed, math.inf), allowed))
        assert off > may
