"""The precision in which a loss computes is read off its values; what it takes is declared or tried."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from harness import LossSpec, TensorSpec, domains, verify
from harness.calls.evaluation import Precision
from harness.checking.session import PROFILES, Session
from harness.errors import DeclarationError
from harness.results.findings import Status

PAIRWISE = {
    "inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
    "output": TensorSpec(""),
}


def found(loss, seed=0, **declared):
    """The precision of a loss, as every rule sees it."""
    spec = LossSpec("loss", {"loss": loss}, **{**PAIRWISE, **declared})
    session = Session(spec, PROFILES["quick"], seed, "cpu")
    session.find_precision("loss")
    return session.cache["precision", "loss"]


def inside(dtype):
    def loss(predictions, labels):
        return (predictions.to(dtype) - labels.to(dtype)).square().mean().to(predictions.dtype)

    return loss


def one_summand(predictions, labels):
    """Wide but for a tenth of the value, which comes out of a kernel for float32."""
    return (predictions - labels).square().mean() + 0.1 * inside(torch.float32)(predictions, labels)


def hinge(predictions, labels):
    return (1 - predictions * labels.sign()).clamp(min=0).mean()


def cancelling(predictions, labels):
    """Numbers up to 1e6 meet in it; float64 all the same."""
    return ((predictions + 1e6) - (labels + 1e6)).square().mean()


CASES = {
    "float64": (inside(torch.float64), torch.float64),
    "float32": (inside(torch.float32), torch.float32),
    "bfloat16": (inside(torch.bfloat16), torch.bfloat16),
    "float16, which a few values do not tell from it": (inside(torch.float16), torch.bfloat16),
    "a summand": (one_summand, torch.float32),
    "hinge": (hinge, torch.float64),
    "cancelling": (cancelling, torch.float64),
    "l1": (F.l1_loss, torch.float64),
    "tiny": (lambda predictions, labels: 1e-12 * (predictions - labels).square().mean(), torch.float64),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_the_precision_of_a_value_is_seen(name, seed):
    loss, computes_in = CASES[name]
    if loss is F.l1_loss:
        loss = lambda predictions, labels: F.l1_loss(predictions, labels)  # noqa: E731
    assert found(loss, seed) == Precision(torch.float64, computes_in)


def by_row(predictions, labels):
    """A row at a time in float32, their mean in float64: the value is a number of float64 alone."""
    return (predictions.float() - labels.float()).square().mean(1).to(predictions.dtype).mean()


@pytest.mark.parametrize("loss", [inside(torch.float32), by_row], ids=["whole", "by row"])
def test_values_that_lie_on_a_line_by_luck_do_not_hide_their_rounding(loss):
    seen = [found(loss, seed).computes_in for seed in range(60)]
    assert seen == [torch.float32] * 60


def test_a_loss_whose_value_never_changes_is_taken_for_what_it_returns():
    assert found(lambda predictions, labels: 0 * predictions.sum()) == Precision()


def refusing(*dtypes):
    def loss(predictions, labels):
        if predictions.dtype in dtypes:
            raise TypeError(f"{predictions.dtype} is not supported")
        return (predictions - labels).square().mean()

    return loss


def test_what_refuses_float64_is_given_the_widest_dtype_that_it_takes():
    assert found(refusing(torch.float64)) == Precision(
        torch.float32, torch.float32, "TypeError: torch.float64 is not supported"
    )
    assert found(refusing(torch.float64, torch.float32, torch.float16)).takes == torch.bfloat16


def writes_into_float32(predictions, labels):
    """A buffer of the default dtype: of one element the assignment casts, of several it refuses another dtype."""
    losses = torch.zeros(len(predictions))
    losses[labels[:, 0] > -torch.inf] = (predictions - labels).square().mean(1)
    return losses.mean()


def test_what_takes_float64_in_some_cases_alone_refuses_it():
    assert torch.equal(writes_into_float32(*torch.ones(2, 1, 1).double()), torch.zeros(()))
    seen = found(writes_into_float32)
    assert (seen.takes, seen.computes_in) == (torch.float32, torch.float32)
    assert "dtypes match" in seen.refusal


def test_what_raises_whatever_it_is_given_refuses_nothing():
    assert found(refusing(torch.float64, torch.float32, torch.float16, torch.bfloat16)) == Precision()


def warned(**declared):
    """(rule, severity) of everything but notes that the rules about dtypes and gradients say."""
    loss = declared.pop("loss")
    verification = verify(LossSpec("loss", {"loss": loss}, **{**PAIRWISE, **declared}), rules=["B01", "D", "G", "L"])
    return [(f.rule, f.severity) for f in verification.findings if f.severity != "note"], verification


@pytest.mark.parametrize("loss", [refusing(torch.float64), inside(torch.float32)], ids=["refuses", "narrows"])
def test_a_loss_for_float32_gets_one_warning_and_its_gradient_is_checked(loss):
    said, verification = warned(loss=loss)
    assert said == [("D05", "warning")]
    passed = {o.rule for o in verification.outcomes if o.status is Status.PASSED}
    assert {"B01", "D01", "G01", "G02", "G05"} <= passed


def test_the_warning_names_the_line_and_the_line_silences_it():
    _, refused = warned(loss=refusing(torch.float64, torch.float16))
    assert (
        "LossSpec(..., dtypes=(torch.float32, torch.bfloat16))"
        in next(f for f in refused.findings if f.rule == "D05").message
    )
    assert warned(loss=refusing(torch.float64), dtypes=(torch.float32, torch.bfloat16))[0] == []
    _, narrows = warned(loss=inside(torch.float32))
    assert "computes_in=torch.float32" in next(f for f in narrows.findings if f.rule == "D05").message
    assert warned(loss=inside(torch.float32), computes_in=torch.float32)[0] == []


def single(predictions, labels):
    """Computed in float32 and returned so."""
    return (predictions.float() - labels.float()).square().mean()


def test_what_computes_in_float32_on_purpose_may_return_it():
    said, verification = warned(loss=single)
    assert ("D01", "error") in said
    assert "LossSpec(..., computes_in=torch.float32)" in next(f for f in verification.findings if f.rule == "D01").hint
    assert warned(loss=single, computes_in=torch.float32)[0] == []


def double(predictions, labels):
    """Computed in float64 and returned so, whatever it is given."""
    return (predictions.double() - labels.double()).square().mean()


def at_least_single(predictions, labels):
    """Float16 is widened, which no dtype to compute in says: float32 would loosen what is asked in float64."""
    dtype = torch.promote_types(predictions.dtype, torch.float32)
    return (predictions.to(dtype) - labels.to(dtype)).square().mean()


def test_what_widens_on_purpose_is_told_the_line_and_the_line_silences_it():
    said, verification = warned(loss=double)
    assert said == [("D01", "error")]
    hints = {f.hint for f in verification.findings if f.rule == "D01"}
    assert all(hint.endswith("declare LossSpec(..., computes_in=torch.float64)") for hint in hints)
    said, verification = warned(loss=double, computes_in=torch.float64)
    assert said == []
    assert "D01" not in {f.rule for f in verification.findings}


def test_what_widens_16_bits_alone_is_told_of_no_line_that_loosens_the_rest():
    said, verification = warned(loss=at_least_single)
    assert said == []
    hints = {f.hint for f in verification.findings if f.rule == "D01"}
    assert hints
    assert not any("LossSpec" in hint for hint in hints)


def in_range(predictions, labels):
    if predictions.dtype == torch.float64 or predictions.min() < 0 or predictions.max() > 1:
        raise ValueError("expected float32 in [0, 1]")
    return (predictions - labels).square().mean()


def test_no_step_leaves_the_domain_of_a_loss_for_float32_that_refuses_what_is_outside():
    inputs = {name: TensorSpec("B C", domains.probability()) for name in ("predictions", "labels")}
    verification = verify(LossSpec("loss", {"loss": in_range}, inputs=inputs), rules=["G01", "G02", "G05"])
    assert {o.status for o in verification.outcomes} == {Status.PASSED}, verification.outcomes


def test_what_is_coarser_than_declared_is_still_warned_of():
    assert ("D05", "warning") in warned(loss=inside(torch.bfloat16), computes_in=torch.float32)[0]


def test_a_declared_dtype_that_the_loss_refuses_is_an_error():
    assert ("D01", "error") in warned(loss=refusing(torch.bfloat16), dtypes=(torch.float32, torch.bfloat16))[0]


def test_a_dtype_of_an_annotation_is_held_to_no_other():
    def loss(predictions: Float32[Tensor, "B C"], labels: Float32[Tensor, "B C"]) -> Float32[Tensor, ""]:
        if predictions.dtype != torch.float32:
            raise TypeError(f"float32 only, but got {predictions.dtype}")
        return (predictions - labels).square().mean()

    verification = verify(LossSpec("loss", {"loss": loss}), rules=["B01", "D", "G"])
    assert [f.message for f in verification.findings if f.severity != "note"] == []
    outcomes = {o.rule: o.status for o in verification.outcomes}
    assert outcomes["D01"] is Status.PASSED
    assert outcomes["G01"] is Status.PASSED


def test_an_output_of_a_declared_dtype_has_that_one():
    def loss(predictions: Float[Tensor, "B C"], labels: Float[Tensor, "B C"]) -> Float32[Tensor, ""]:
        return (predictions - labels).float().square().mean()

    outcomes = {o.rule: o.status for o in verify(LossSpec("loss", {"loss": loss}), rules=["D01"]).outcomes}
    assert outcomes["D01"] is Status.PASSED


@pytest.mark.parametrize(
    "declared",
    [{"dtypes": torch.float32}, {"dtypes": ("float32",)}, {"dtypes": (torch.int64,)}, {"computes_in": "float32"}],
    ids=str,
)
def test_a_dtype_that_is_none_is_refused_with_those_that_are(declared):
    with pytest.raises(DeclarationError, match=r"torch\.float32"):
        LossSpec("loss", {"loss": hinge}, **PAIRWISE, **declared)


# --- what forgives a gradient


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, upstream):
        return 2 * upstream


def test_two_gradients_are_no_subgradients_because_the_slope_of_one_side_is_rounded():
    """At a smooth point left and right slope differ by rounding, which is no kink."""

    def reference(predictions, labels):
        return (predictions.float() - labels.float()).square().mean().to(predictions.dtype)

    def candidate(predictions, labels):
        return reference(_Twice.apply(predictions), labels)

    spec = LossSpec("twice", {"reference": reference, "candidate": candidate}, **PAIRWISE)
    assert any(f.rule == "E02" and f.severity == "error" for f in verify(spec, rules=["E02"]).findings)


def critic(*, cut):
    def loss(logp, value, returns):
        advantage = returns - value
        return (-logp * (advantage.detach() if cut else advantage) + advantage.square() / 2).mean()

    return loss


def test_a_missing_detach_is_seen_beside_a_reference_and_the_declared_one_is_not():
    declared = {
        "inputs": {name: TensorSpec("B") for name in ("logp", "value", "returns")},
        "output": TensorSpec(""),
        "differentiable": ("logp", "value"),
        "detaches": True,
    }
    spec = LossSpec(
        "critic", {"reference": critic(cut=True), "same": critic(cut=True), "not_cut": critic(cut=False)}, **declared
    )
    said = {
        (f.implementation, f.rule) for f in verify(spec, rules=["G01", "G02", "E"]).findings if f.severity == "error"
    }
    assert said == {("not_cut", "E02")}


def test_numbers_that_look_alike_are_shown_with_the_digits_that_differ():
    def candidate(predictions, labels):
        return (predictions - labels).square().mean() * (1 + 1e-5)

    def reference(predictions, labels):
        return (predictions - labels).square().mean()

    spec = LossSpec("alike", {"reference": reference, "candidate": candidate}, **PAIRWISE)
    for finding in verify(spec, rules=["E01", "E02"]).findings:
        assert finding.evidence["came"] != finding.evidence["should"]


def test_a_logarithm_of_softmax_has_no_finding_in_any_precision():
    def loss(logits, labels):
        return F.cross_entropy(logits.float(), labels).to(logits.dtype)

    spec = LossSpec(
        "cross_entropy",
        {"reference": lambda logits, labels: F.cross_entropy(logits, labels), "fused": loss},
        inputs={"logits": TensorSpec("B C", domains.logits()), "labels": TensorSpec("B", domains.index("C"))},
        output=TensorSpec(""),
    )
    errors = [f.message for f in verify(spec, rules=["G", "E", "B06", "D01"]).findings if f.severity == "error"]
    assert errors == []
