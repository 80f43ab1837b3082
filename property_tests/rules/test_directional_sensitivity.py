"""One percent in one of four thousand elements of a gradient is seen, named, and costs nine evaluations of a right loss."""

import functools
import math

import pytest
import torch
from torch.overrides import handle_torch_function, has_torch_function
from torch_losses import SPECS

from harness import LossSpec, TensorSpec, verify
from harness.calls.tolerance import EPS64, direction_steps
from harness.drawing import hypothesis_runs, strategies
from harness.drawing.case import Case, Recipe
from harness.rules.gradients.cut_off import element
from harness.rules.gradients.directional import (
    DIRECTIONS,
    _point,
    gradient_matches_slopes_along_directions,
)
from harness.rules.trial import Trial

ROWS, COLUMNS = 50, 80
STEP = direction_steps(EPS64)[0]


class _Scaled(torch.autograd.Function):
    """The identity, whose backward is off by a factor in one element."""

    @staticmethod
    def forward(ctx, x, position, factor):
        ctx.position, ctx.factor = position, factor
        return x.clone()

    @staticmethod
    def backward(ctx, upstream):
        gradient = upstream.clone()
        gradient.view(-1)[ctx.position] *= ctx.factor
        return gradient, None, None


class _Counted:
    """A loss that counts its evaluations, with one wrong element."""

    def __init__(self, loss, position=0, factor=1.0):
        self.loss, self.position, self.factor, self.calls = loss, position, factor, 0

    def __call__(self, predictions, labels):
        self.calls += 1
        return self.loss(_Scaled.apply(predictions, self.position, self.factor), labels)


def mean_squared(predictions, labels):
    return (predictions - labels).square().mean()


def mean_absolute(predictions, labels):
    return (predictions - labels).abs().mean()


def hinge(predictions, labels):
    return (1 - predictions * labels.sign()).clamp(min=0).mean()


def contrastive(predictions, labels):
    similarities = torch.nn.functional.normalize(predictions) @ torch.nn.functional.normalize(labels).mT
    return torch.nn.functional.cross_entropy(similarities / 0.1, torch.arange(len(predictions)))


def of_tiny_weight(predictions, labels):
    return 1e-6 * mean_squared(predictions, labels)


def trial_of(loss, seed):
    spec = LossSpec(
        "counted",
        {"loss": loss},
        inputs={"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
        output=TensorSpec(""),
    )
    recipes = {"predictions": Recipe(seed=2 * seed), "labels": Recipe(seed=2 * seed + 1)}
    return Trial(spec, "loss", Case("counted", {"B": ROWS, "C": COLUMNS}, recipes, regime="many"))


@pytest.mark.parametrize("loss", [mean_squared, mean_absolute, contrastive, of_tiny_weight])
def test_one_percent_in_one_of_four_thousand_elements_is_found_and_named(loss):
    for seed in range(10):
        position = 397 * seed + 11
        index = (position // COLUMNS, position % COLUMNS)
        found = gradient_matches_slopes_along_directions(trial_of(_Counted(loss, position, 1.01), seed))
        assert found is not None, (seed, index)
        assert found.where == element("predictions", index)
        assert found.difference == pytest.approx(abs(float(found.should)) / 100, rel=0.05)


@pytest.mark.parametrize("loss", [mean_squared, mean_absolute, hinge, contrastive, of_tiny_weight])
def test_a_right_gradient_costs_nine_evaluations_at_many_elements_and_seven_for_each_long_axis(loss):
    calls = []
    for seed in range(20):
        counted = _Counted(loss)
        assert gradient_matches_slopes_along_directions(trial_of(counted, seed)) is None
        calls.append(counted.calls)
    assert sorted(calls)[len(calls) // 2] == 9 + 2 * (2 + 5)  # two at short lengths, which tell what the long one takes
    assert max(calls) <= 3 * 30  # a kink between two points costs some more


def through_torch_function(predictions, labels, scale=1.0, *, passed_on):
    """A loss that can be overridden, as those of torch.nn.functional are; without ``passed_on`` the scale is lost on the way."""
    if has_torch_function((predictions, labels)):
        function = functools.partial(through_torch_function, passed_on=passed_on)
        kept = {"scale": scale} if passed_on else {}
        return handle_torch_function(function, (predictions, labels), predictions, labels, **kept)
    return scale * mean_squared(predictions, labels)


def test_a_loss_that_is_another_function_in_a_mode_is_not_said_to_have_a_wrong_gradient():
    loss = functools.partial(through_torch_function, scale=3.0, passed_on=False)
    found = gradient_matches_slopes_along_directions(trial_of(loss, 0))
    assert found is not None
    assert found.severity == "warning"
    assert found.where == "loss inside a TorchFunctionMode that changes nothing"
    assert float(found.should) == pytest.approx(3 * float(found.came), rel=1e-3)


def test_a_wrong_gradient_is_seen_in_a_loss_that_is_another_function_in_a_mode_too():
    loss = functools.partial(through_torch_function, scale=3.0, passed_on=False)
    found = gradient_matches_slopes_along_directions(trial_of(_Counted(loss, 123, 1.01), 0))
    assert found is not None
    assert found.where == element("predictions", (123 // COLUMNS, 123 % COLUMNS))


def test_a_loss_that_passes_its_arguments_on_is_right_in_a_mode():
    loss = functools.partial(through_torch_function, scale=3.0, passed_on=True)
    assert gradient_matches_slopes_along_directions(trial_of(loss, 0)) is None


def test_the_disagreement_is_there_after_ten_evaluations():
    """What comes later confirms it and names the element."""
    for seed in range(10):
        counted = _Counted(mean_squared, 123, 1.01)
        trial = trial_of(counted, seed)
        point = _point(trial, trial.tensors())
        gaps = [(point.gap(d, STEP), point.allowed(STEP)) for d in point.directions(trial.generator(), DIRECTIONS)]
        assert counted.calls == 9
        assert all(abs(gap) > 10 * allowed for gap, allowed in gaps)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_torchs_own_losses_have_no_wrong_element(spec):
    cases = []
    hypothesis_runs.run(
        strategies.cases(spec, regime="many", mode="smooth"), cases.append, examples=3, start=7, shrink=False
    )
    for case in cases:
        assert gradient_matches_slopes_along_directions(Trial(spec, spec.reference, case)) is None


def test_cases_with_many_elements_stay_within_their_limits():
    for spec in SPECS:
        cases = []
        hypothesis_runs.run(
            strategies.cases(spec, regime="many", mode="smooth"), cases.append, examples=5, start=3, shrink=False
        )
        for case in cases:
            count = sum(math.prod(case.shape(spec, name)) for name in spec.differentiable)
            assert 800 <= count <= strategies.MANY_DIFFERENTIABLE
            assert case.numel(spec) <= strategies.MANY_IN_ALL


given: list[int] = []


def of_all_triplets(embeddings):
    given.append(len(embeddings))
    pairs = torch.cdist(embeddings, embeddings) if len(embeddings) > 1 else embeddings.mT @ embeddings
    return (1 + pairs.unsqueeze(2) - pairs.unsqueeze(1)).square().mean()


def test_a_loss_over_triplets_is_not_given_a_long_axis():
    """1100 rows would have 1.3e9 triplets, 10 GB of them."""
    given.clear()
    spec = LossSpec(
        "triplets", {"all": of_all_triplets}, inputs={"embeddings": TensorSpec("B D")}, output=TensorSpec("")
    )
    verify(spec, profile="quick", rules=["G02", "G06"])
    assert 24 <= max(given) <= 128
