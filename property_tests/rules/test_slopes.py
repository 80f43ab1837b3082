"""Measured slopes tell a kink from a wrong gradient: no false alarm on kinks, and one percent in one element is seen."""

from __future__ import annotations

import math

import kinked_losses
import pytest
import torch
import torch.nn.functional as F
from kinked_losses import absolute_with_backward

from harness import LossSpec, TensorSpec, domains, verify
from harness.calls.tolerance import eps_of, slope_step, value_rounding
from harness.results.findings import Status
from harness.rules.tools import slopes
from harness.rules.tools.detach import DetachTape

# --- one coordinate


def measured(function, at, magnitude=None, dtype=torch.float64):
    """The slopes of a function of one number, which computes in a dtype."""
    tensors = {"x": torch.tensor([at], dtype=torch.float64)}

    def value(changes):
        return float(function(changes.get("x", tensors["x"]))[0])

    size = abs(value({})) + abs(value({"x": tensors["x"] + 1}))
    line = slopes.Line(value, tensors, [("x", (0,))], dtype)
    return slopes.measure(
        line, value({}), value_rounding(size if magnitude is None else magnitude, eps_of(dtype)), eps_of(dtype)
    )


SMOOTH = {
    "square": (torch.square, lambda x: 2 * x),
    "exponential": (torch.exp, math.exp),
    "sine": (torch.sin, math.cos),
    "fifth power": (lambda x: x**5, lambda x: 5 * x**4),
    "softplus": (F.softplus, lambda x: 1 / (1 + math.exp(-x))),
    "tiny": (lambda x: 1e-9 * torch.sin(x), lambda x: 1e-9 * math.cos(x)),
    "huge": (lambda x: 1e9 * torch.sin(x), lambda x: 1e9 * math.cos(x)),
}


@pytest.mark.parametrize("at", [-2.0, -0.3, 0.0, 0.7, 3.0])
@pytest.mark.parametrize("name", SMOOTH)
def test_both_slopes_of_a_smooth_function_are_its_derivative(name, at):
    function, derivative = SMOOTH[name]
    slope = measured(function, at)
    scale = max(abs(derivative(at)), abs(derivative(at + 1)))
    assert slope.left == pytest.approx(derivative(at), rel=1e-6, abs=1e-6 * scale)
    assert slope.right == pytest.approx(derivative(at), rel=1e-6, abs=1e-6 * scale)
    assert slope.misses(derivative(at), 1e-6 * scale) is None


@pytest.mark.parametrize("off", [1.01, 0.99, -1.0, 0.0])
@pytest.mark.parametrize("name", SMOOTH)
def test_a_gradient_that_is_one_percent_off_misses_a_smooth_slope(name, off):
    function, derivative = SMOOTH[name]
    slope = measured(function, 0.7)
    missed = slope.misses(off * derivative(0.7), 0.0)
    assert missed == pytest.approx(abs(1 - off) * abs(derivative(0.7)), rel=1e-2)


KINKS = {
    "absolute": (torch.abs, 0.0, -1.0, 1.0),
    "relu": (F.relu, 0.0, 0.0, 1.0),
    "hinge": (lambda x: F.relu(1 - x), 1.0, -1.0, 0.0),
    "clamp above": (lambda x: x.clamp(max=2), 2.0, 1.0, 0.0),
    "maximum of two lines": (lambda x: torch.maximum(3 * x, -x), 0.0, -1.0, 3.0),
    "concave": (lambda x: -x.abs(), 0.0, 1.0, -1.0),
}


@pytest.mark.parametrize("name", KINKS)
def test_a_kink_has_two_slopes_and_every_gradient_between_them_is_right(name):
    function, at, left, right = KINKS[name]
    slope = measured(function, at)
    assert slope.kinked
    assert (slope.left, slope.right) == (pytest.approx(left, abs=1e-8), pytest.approx(right, abs=1e-8))
    for share in (0.0, 0.25, 0.5, 1.0):
        assert slope.misses(left + share * (right - left), 0.0) is None
    low, high = min(left, right), max(left, right)
    assert slope.misses(low - 0.02, 0.0) == pytest.approx(0.02, rel=1e-3)
    assert slope.misses(high + 0.02, 0.0) == pytest.approx(0.02, rel=1e-3)
    assert slope.misses(math.nan, 0.0) is not None


@pytest.mark.parametrize(
    ("function", "at"),
    [
        (torch.sign, 0.0),
        (torch.floor, 1.0),
        (lambda x: x.abs().sqrt(), 0.0),
        (lambda x: (x - 3e-6).abs(), 0.0),
        (lambda x: x.abs() + torch.sin(x / 1e-5), 0.0),
    ],
    ids=["jump", "step", "cusp", "kink within the step", "oscillation"],
)
def test_where_no_slope_can_be_measured_nothing_is_said(function, at):
    slope = measured(function, at)
    assert not slope.is_measured(1e9)
    assert not slope.kinked
    assert slope.misses(1e9, 0.0) is None


def in_float32(function):
    """A function that computes in float32, whatever it is given."""
    return lambda x: function(x.float()).double()


@pytest.mark.parametrize("name", SMOOTH)
def test_a_slope_of_float32_values_is_measured_and_shows_what_is_off_by_two_percent(name):
    function, derivative = SMOOTH[name]
    scale = max(abs(derivative(0.7)), abs(derivative(1.7)))
    slope = measured(in_float32(function), 0.699999988079071, dtype=torch.float32)
    assert slope.is_measured(scale)
    assert not slope.kinked
    assert slope.misses(derivative(0.7), 1e-6 * scale) is None
    for off in (0.98, 1.02, -1.0):
        assert slope.misses(off * derivative(0.7), 0.0) == pytest.approx(abs(1 - off) * abs(derivative(0.7)), rel=0.1)


@pytest.mark.parametrize("name", KINKS)
def test_a_kink_of_float32_values_is_a_kink(name):
    function, at, left, right = KINKS[name]
    slope = measured(in_float32(function), at, dtype=torch.float32)
    assert slope.kinked
    assert (slope.left, slope.right) == (pytest.approx(left, abs=1e-3), pytest.approx(right, abs=1e-3))


STEP = slope_step(eps_of(torch.float32))
NOISE = value_rounding(1.0, eps_of(torch.float32)) / STEP  # of a central difference of numbers up to 1


def bent(beyond, jump):
    """0.2 x, and by ``jump`` steeper from a distance above 0.5 on."""
    return in_float32(lambda x: 0.2 * x + jump * NOISE * F.relu(x - (0.5 + beyond * STEP)))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("jump", [1.5, 2.5, 4.0, 6.0, 10.0, -2.5, -6.0])
@pytest.mark.parametrize("beyond", [0.0, 0.1, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0])
def test_a_kink_too_weak_to_show_beside_rounding_makes_no_right_slope_wrong(beyond, jump, mirrored):
    """The central difference is the mean of two slopes there, and its own error is less than half of what they differ by."""
    sign = -1 if mirrored else 1
    function, right = bent(beyond, jump), [0.2] if beyond else [0.2, 0.2 + jump * NOISE]
    slope = measured(lambda x: function(1 - x if mirrored else x), 0.5, magnitude=1.0, dtype=torch.float32)
    for gradient in right:
        assert slope.misses(sign * gradient, 0.0) is None
    for off in (-20 * NOISE, 20 * NOISE):
        assert slope.misses(sign * 0.2 + off, 0.0) is not None


def test_steps_that_disagree_are_no_proof_of_rounding():
    """With a bend on either side both sides are off by the same; only what their steps disagree by tells that they are."""
    function = in_float32(lambda x: 0.2 * x + 3 * NOISE * (F.relu(x - 0.5 - STEP / 2) - F.relu(0.5 - STEP / 2 - x)))
    slope = measured(function, 0.5, magnitude=1.0, dtype=torch.float32)
    assert slope.misses(0.2, 0.0) is None


def test_rounding_of_a_large_number_beside_the_loss_is_allowed_for():
    offset = 1e8
    slope = measured(lambda x: x + offset, 0.5, magnitude=offset)
    assert slope.misses(1.0, 0.0) is None
    assert slope.allowed(1.0, 0.0) > abs(slope.left - 1.0)


def test_all_coordinates_of_all_tensors_are_visited():
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(()), "c": torch.zeros(4)}
    visited = list(slopes.coordinates(tensors, ("a", "b")))
    assert visited[:2] == [("a", (0, 0)), ("a", (0, 1))]
    assert len(set(visited)) == 7
    assert ("b", ()) in visited


# --- kinks under the rules


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("spec", kinked_losses.SPECS, ids=lambda spec: spec.name)
def test_correct_losses_with_kinks_raise_no_alarm(spec, seed):
    found = verify(spec, profile="quick", rules=["G01", "E01", "E02", "L"], seed=seed)
    assert [f.message for f in found.findings] == []
    passed = {(o.implementation, o.rule) for o in found.outcomes if o.status is Status.PASSED}
    laws = {law.code for law in spec.laws}
    assert passed == {("fast", "E01"), ("fast", "E02")} | {
        (name, code) for name in ("naive", "fast") for code in ("G01", *laws)
    }


def found_by_g01(spec, **given):
    return [(f.severity, f.evidence["aspect"]) for f in verify(spec, profile="quick", rules=["G01"], **given).findings]


@pytest.mark.parametrize("at_zero", [-1.0, -0.3, 0.0, 1.0])
def test_any_subgradient_at_the_kink_is_right(at_zero):
    assert found_by_g01(absolute_with_backward(at_zero=at_zero)) == []


@pytest.mark.parametrize("at_zero", [-3.0, 1.5])
def test_a_wrong_number_at_the_kink_alone_is_a_warning(at_zero):
    assert found_by_g01(absolute_with_backward(at_zero=at_zero)) == [("warning", "at a tie only")]


@pytest.mark.parametrize("factor", [1.01, 0.99, 0.0, -1.0])
def test_a_kink_hides_no_wrong_gradient_elsewhere(factor):
    assert ("error", "") in found_by_g01(absolute_with_backward(factor))


class _Averaged(torch.autograd.Function):
    """The average with a weight for each rank, the largest first, in float32 alone; its backward takes a factor."""

    @staticmethod
    def forward(ctx, x, factor):
        order = x.reshape(-1).argsort(descending=True, stable=True)
        weights = 1 / torch.arange(1, 1 + len(order)).float() / len(order)
        ctx.save_for_backward(torch.empty_like(weights).scatter(0, order, weights).reshape(x.shape))
        ctx.factor = factor
        return torch.dot(x.reshape(-1)[order], weights)

    @staticmethod
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        return ctx.factor * upstream * gradient, None


def by_rank(factor):
    """A convex loss of straight pieces, with a kink wherever two values tie, and a gradient that is off by a factor."""

    def loss(x):
        return _Averaged.apply(x, factor)

    return LossSpec("by_rank", {"loss": loss}, inputs={"x": TensorSpec("B C")}, dtypes=(torch.float32,))


@pytest.mark.parametrize("seed", range(3))
def test_kinks_between_ranks_raise_no_alarm_in_float32(seed):
    found = verify(by_rank(1.0), profile="ci", rules=["G01", "G02"], seed=seed)
    assert [f.message for f in found.findings if f.severity != "note"] == []
    assert Status.PASSED in {o.status for o in found.outcomes if o.rule == "G01"}


@pytest.mark.parametrize("factor", [0.9, 1.2, 0.0, -1.0])
def test_kinks_between_ranks_hide_no_wrong_gradient_in_float32(factor):
    assert ("error", "") in found_by_g01(by_rank(factor))


# --- the sensitivity that G01 promises


class _WrongInOneElement(torch.autograd.Function):
    """The identity, whose backward multiplies one element of the gradient."""

    @staticmethod
    def forward(ctx, x, position, factor):
        ctx.position, ctx.factor = position, factor
        return x.clone()

    @staticmethod
    def backward(ctx, upstream):
        changed = upstream.clone()
        changed.view(-1)[ctx.position % max(changed.numel(), 1)] *= ctx.factor
        return changed, None, None


BASES = {
    "squared": lambda p, y: (p - y).square().mean(),
    "absolute": lambda p, y: (p - y).abs().mean(),
    "cross_entropy": lambda p, y: -(p.log_softmax(-1) * y).sum(-1).mean(),
    "cosine": lambda p, y: 1 - F.cosine_similarity(p, y + 3, dim=-1, eps=1e-3).mean(),
    "log_cosh": lambda p, y: (F.softplus(2 * (p - y)) - (p - y)).mean(),
    "tiny": lambda p, y: 1e-6 * (p - y).square().mean(),
    "very_tiny": lambda p, y: 1e-12 * (p - y).square().mean(),
    "huge": lambda p, y: 1e9 * (p - y).square().mean(),
    "no_reduction": lambda p, y: (p - y).square(),
}


def with_one_element(base, position, factor):
    """The loss with one element of its gradient multiplied."""

    def loss(predictions, labels):
        return BASES[base](_WrongInOneElement.apply(predictions, position, factor), labels)

    return LossSpec(
        f"one_element_of_{base}",
        {"candidate": loss},
        inputs={"predictions": TensorSpec("B C"), "labels": TensorSpec("B C", domains.real())},
        output=TensorSpec("B C" if base == "no_reduction" else ""),
    )


# Below 1e-4 of the numbers that were met on the way, a hundredth of a slope is no more than their rounding may be.
@pytest.mark.parametrize("base", [base for base in BASES if "tiny" not in base])
def test_a_percent_in_one_element_is_found(base):
    for position in (0, 5):
        assert ("error", "") in found_by_g01(with_one_element(base, position, 1.01)), position


@pytest.mark.parametrize("base", [base for base in BASES if base != "very_tiny"])
def test_a_wrong_sign_in_one_element_is_found(base):
    assert ("error", "") in found_by_g01(with_one_element(base, 2, -1.0))


@pytest.mark.parametrize("base", BASES)
def test_the_right_gradient_is_not_found(base):
    assert found_by_g01(with_one_element(base, 2, 1.0)) == []


@pytest.mark.parametrize("weight", [1.0, 1e-3, 1e-6, 1e-7])
def test_a_wrong_sign_under_small_weights_is_found(weight):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, error):
            ctx.save_for_backward(error)
            return weight * error.square().mean()

        @staticmethod
        def backward(ctx, upstream):
            (error,) = ctx.saved_tensors
            return -upstream * 2 * weight * error / error.numel()

    def loss(predictions, labels):
        return Wrong.apply(predictions - labels)

    assert found_by_g01(LossSpec("wrong_sign", {"candidate": loss}, **kinked_losses.REGRESSION)) == [("error", "")]


# --- stop-gradients


def test_a_custom_function_is_not_taken_for_a_cut():
    """Its forward runs without grad by nature; the hint to declare a detach would lead astray."""
    (finding,) = verify(with_one_element("squared", 0, 1.5), profile="quick", rules=["G01"]).findings
    assert "detaches" not in finding.message
    assert "no_grad" not in finding.message


class _Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.detach() / 2

    @staticmethod
    def backward(ctx, upstream):
        return upstream / 2


class _HalfWithSetup(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x / 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.size = float(inputs[0].detach().sum())

    @staticmethod
    def backward(ctx, upstream):
        return upstream / 2


class _HalfUnderAutocast(_Half):
    forward = staticmethod(torch.amp.custom_fwd(_Half.forward, device_type="cpu"))


@pytest.mark.parametrize("half", [_Half, _HalfWithSetup, _HalfUnderAutocast])
def test_no_part_of_a_custom_function_is_taken_for_a_cut_and_what_stands_beside_it_is(half):
    x = torch.ones(3, requires_grad=True)
    with DetachTape() as tape:
        half.apply(x)
    assert tape.recorded == []
    with DetachTape() as tape:
        half.apply(x).detach()
    assert [place.split(" at ")[0] for place in tape.places] == ["detach()"]


def test_ties_at_the_bound_of_a_domain_are_ties_too():
    """relu(d) - relu(-d) is d, and autograd gives 0 at d = 0; what is nudged must not be cut off into a tie again."""

    def loss(predictions):
        above = predictions.unsqueeze(0) - predictions.unsqueeze(1)
        steps = torch.arange(1.0, 1 + len(predictions), dtype=predictions.dtype)
        return (steps * (above.relu() - (-above).relu()).sum(1)).mean()

    unit = {"inputs": {"predictions": TensorSpec("B", domains.probability())}, "output": TensorSpec("")}
    spec = LossSpec("tied", {"candidate": loss}, **unit)
    for seed in range(3):
        assert verify(spec, profile="quick", rules=["G01"], seed=seed).ok


def test_reading_what_has_no_graph_is_not_taken_for_a_cut():
    def loss(predictions, labels):
        axes = torch.arange(predictions.ndim).tolist()
        return (_WrongInOneElement.apply(predictions, 0, 1.5) - labels).square().mean(axes)

    (finding,) = verify(LossSpec("axes", {"candidate": loss}, **kinked_losses.REGRESSION), rules=["G01"]).findings
    assert "is cut by" not in finding.message


def detached_scale(predictions, labels):
    with torch.no_grad():
        scale = (predictions - labels).abs().amax() + 1
    return (predictions - labels).square().mean() / scale + (predictions * labels.detach().exp()).mean()


def test_a_cut_is_an_error_that_names_its_line_unless_it_is_declared():
    declared = {"candidate": detached_scale}, kinked_losses.REGRESSION
    (finding,) = verify(LossSpec("cut", declared[0], **declared[1]), profile="quick", rules=["G01"]).findings
    line = detached_scale.__code__.co_firstlineno + 2
    assert f"no_grad() at test_slopes.py:{line}" in finding.message
    assert "LossSpec(detaches=True)" in finding.message
    assert found_by_g01(LossSpec("cut", declared[0], **declared[1], detaches=True)) == []


def towards_a_target(online, target):
    return 2 - 2 * F.cosine_similarity(online, target.detach(), dim=-1).mean()


@pytest.mark.parametrize("detaches", [False, True])
def test_an_input_that_is_cut_whole_is_left_out_and_one_that_is_left_in_is_asked_for_a_gradient(detaches):
    inputs = {"online": TensorSpec("B D"), "target": TensorSpec("B D")}

    def found(loss, *differentiable):
        declared = LossSpec("views", {"views": loss}, inputs=inputs, differentiable=differentiable, detaches=detaches)
        findings = verify(declared, rules=["G06", "G01", "G09"]).findings
        return {finding.evidence["tensor"] for finding in findings if finding.rule == "G06"}, len(findings)

    assert found(towards_a_target, "online") == (set(), 0)
    assert found(towards_a_target, "online", "target")[0] == {"target"}
    assert found(lambda online, target: towards_a_target(target, online), "online")[0] == {"online"}


def test_a_declared_cut_hides_no_other_error():
    def loss(predictions, labels):
        wrong = _WrongInOneElement.apply(predictions, 0, 1.01)
        return (wrong - labels).square().mean() / (predictions.detach().abs().amax() + 1)

    spec = LossSpec("cut_and_wrong", {"candidate": loss}, **kinked_losses.REGRESSION, detaches=True)
    assert ("error", "") in found_by_g01(spec)


def test_a_gradient_at_a_tie_that_is_a_mean_of_those_around_is_said_to_be_one():
    """Sorted quantiles: along one coordinate the loss is flat on both sides of a tie, and rises or falls along both."""
    levels = domains.sorted_along(-1, 0.0, 1.0, strict=True)
    inputs = {"quantiles": TensorSpec("B Q"), "labels": TensorSpec("B")}

    def pinball(quantiles, labels, levels):
        errors = labels[:, None] - quantiles.sort(1).values
        return torch.maximum(levels * errors, (levels - 1) * errors).mean()

    spec = LossSpec("sorted", {"pinball": pinball}, inputs=inputs, context={"levels": TensorSpec("Q", levels)})
    (found,) = verify(spec, rules=["G01"]).findings
    assert found.severity == "warning"
    assert "it is a mean of the gradients around, as autograd may choose at a tie" in found.message
