"""Laws that hold and are not declared are suggested, and nothing else is."""

import pytest
import torch
from mutants.laws import WEIGHTED, mean_squared, sum_of_squares, weights_applied, weights_normalised
from mutants.pair import PAIRWISE

from harness import LossSpec, TensorSpec, domains, laws, verify
from harness.declare.on_command_line import Declaration
from harness.declare.targets import load_declared
from harness.rules import BATTERY

EVERYTHING_BUT_ONE = sorted({rule.code for rule in BATTERY} - {"C02"})


def suggested(loss, declared=PAIRWISE, **more):
    spec = LossSpec("loss", {"loss": loss}, **{**declared, **more})
    return verify(spec, profile="quick", ignore=EVERYTHING_BUT_ONE).suggestions


def names(lines):
    return [line.partition("declare ")[2].partition(" to keep")[0] for line in lines]


def test_what_holds_is_suggested_with_the_line_to_write():
    lines = suggested(mean_squared)
    assert lines[0] == "declare laws.mean_over('B') to keep it checked (it held on 3 of 3 cases)"
    assert names(lines) == [
        "laws.mean_over('B')",
        "laws.mean_over('C')",
        "laws.zero_when_equal('predictions', 'labels')",
        "laws.symmetric('predictions', 'labels')",
        "laws.nonnegative()",
    ]


def test_what_the_command_line_declares_is_suggested_as_it_is_written_there():
    spec = load_declared(Declaration("torch.nn:MSELoss", "input: B; target: B"))
    lines = verify(spec, profile="quick", ignore=EVERYTHING_BUT_ONE).suggestions
    assert 'declare --law "symmetric(input, target)" to keep it checked (it held on 3 of 3 cases)' in lines


def test_what_is_declared_or_implied_is_not_suggested():
    lines = names(suggested(mean_squared, laws=(laws.mean_over("B"), laws.nonnegative())))
    assert "laws.mean_over('B')" not in lines
    assert "laws.permutation('B')" not in lines
    assert "laws.nonnegative()" not in lines
    assert "laws.mean_over('C')" in lines


def test_what_does_not_hold_is_not_suggested():
    assert "laws.mean_over('B')" not in names(suggested(sum_of_squares))
    assert "laws.sum_over('B')" in names(suggested(sum_of_squares))
    assert names(suggested(lambda predictions, labels: (predictions * labels.cumsum(0)).sum())) == [
        "laws.sum_over('C')"
    ]


def test_a_loss_that_is_negative_at_a_special_point_only_is_not_called_nonnegative():
    def likelihood(scale):
        return (scale.log() + 5).mean()

    lines = suggested(likelihood, {"inputs": {"scale": TensorSpec("B", domains.positive())}})
    assert "laws.nonnegative()" not in names(lines)


@pytest.mark.parametrize(
    ("loss", "first"),
    [
        (weights_applied, ["laws.zero_weight_removes('weights')", "laws.linear_in('weights')"]),
        (
            weights_normalised,
            ["laws.zero_weight_removes('weights')", "laws.scale_invariant('weights')", "laws.repeats('weights')"],
        ),
    ],
)
def test_the_meaning_of_weights_comes_first(loss, first):
    assert names(suggested(loss, WEIGHTED))[: len(first)] == first


def test_weights_that_follow_no_law_are_named():
    def shifted(predictions, labels, weights):
        return ((1 + weights.square()).unsqueeze(-1) * (predictions - labels) ** 2).mean()

    (line,) = [line for line in suggested(shifted, WEIGHTED) if line.startswith("weights")]
    assert "laws.linear_in('weights')" in line
    assert not [s for s in suggested(shifted, WEIGHTED, laws=(laws.linear_in("weights"),)) if s.startswith("weights")]


def one_more(predictions, labels, weights):
    return 1 + weights_applied(predictions, labels, weights)


def constant(predictions, labels, weights):
    return mean_squared(predictions, labels) + 0 * weights.sum()


def cancelled(predictions, labels, weights):
    return mean_squared(predictions, labels) * weights.sum() / weights.sum().clamp(min=1e-6)


def centred(predictions, labels, weights):
    """Linear in the weights, and what they leave out is still in the mean."""
    return weights_applied(predictions - predictions.mean(0), labels, weights)


def weighed_by(domain):
    return {**WEIGHTED, "context": {"weights": TensorSpec("B", domain)}}


OF_ZEROS = [domains.nonnegative(), domains.binary(), domains.boolean(), domains.probability()]


@pytest.mark.parametrize("domain", OF_ZEROS, ids=repr)
@pytest.mark.parametrize("loss", [constant, cancelled])
def test_weights_without_an_effect_get_no_law_but_are_named(loss, domain):
    lines = suggested(loss, weighed_by(domain))
    assert not [line for line in lines if line.startswith("declare") and "'weights'" in line]
    (line,) = [line for line in lines if line.startswith("weights")]
    assert "its zeros do not remove" in line
    assert ("TensorSpec('B', domains.label(" in line) == domain.whole


@pytest.mark.parametrize("domain", OF_ZEROS, ids=repr)
def test_an_affine_loss_is_not_called_linear(domain):
    of_weights = [name for name in names(suggested(one_more, weighed_by(domain))) if "'weights'" in name]
    assert of_weights == ["laws.zero_weight_removes('weights')"]


def test_of_an_interval_without_zero_an_affine_loss_is_not_called_linear():
    domain = weighed_by(domains.interval(0.5, 2.0))
    assert "laws.linear_in('weights')" not in names(suggested(one_more, domain))
    assert "laws.linear_in('weights')" in names(suggested(weights_applied, domain))


def test_that_zeros_do_not_remove_is_said_beside_a_law_that_holds():
    lines = suggested(centred, WEIGHTED)
    assert "laws.linear_in('weights')" in names(lines)
    assert [line for line in lines if line.startswith("weights may be weights, but its zeros do not remove; if")]


def test_a_mask_that_keeps_whole_samples_counts_copies():
    lines = names(suggested(weights_normalised, weighed_by(domains.binary())))
    assert lines[:2] == ["laws.zero_weight_removes('weights')", "laws.repeats('weights')"]


def test_a_loss_that_raises_gets_no_suggestion():
    def raises(predictions, labels):
        raise RuntimeError("no")

    assert suggested(raises) == ()


def test_chosen_rules_ask_for_no_suggestions():
    spec = LossSpec("loss", {"loss": mean_squared}, **PAIRWISE)
    assert verify(spec, profile="quick", rules=["C02"]).suggestions == ()


def test_at_most_eight_are_made():
    tensors = {name: TensorSpec("A B C D E F G") for name in ("predictions", "labels")}
    lines = suggested(mean_squared, {"inputs": tensors, "output": TensorSpec("")})
    assert len(lines) == 8


def test_backward_that_raises_is_no_crash():
    class Raises(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, upstream):
            raise ValueError("no backward")

    assert suggested(lambda predictions, labels: Raises.apply(predictions).sum()) == ()


def test_the_report_shows_them_unless_rules_are_chosen():
    from harness.runs.ledger import Request
    from harness.runs.run import LocalRun

    spec = LossSpec("loss", {"loss": mean_squared}, **PAIRWISE)
    whole, chosen = (
        LocalRun([spec], Request(profile="quick")),
        LocalRun([spec], Request(profile="quick", codes=("C02",))),
    )
    whole.plans = chosen.plans
    for run in (whole, chosen):
        run.verify()
    assert whole.report().losses[0].suggestions == suggested(mean_squared)
    assert chosen.report().losses[0].suggestions == ()
