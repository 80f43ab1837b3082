"""What a law compares a loss at is legal, for every domain."""

import pytest
import torch

from harness import LossSpec, TensorSpec, domains, laws, verify
from harness.checking.session import PROFILES, Session
from harness.errors import NotApplicable
from harness.results.findings import Status
from harness.rules.laws.declared import CHECKS
from harness.rules.tools import inside
from harness.rules.trial import Trial

DOMAINS = [
    domains.real(),
    domains.logits(),
    domains.positive(),
    domains.nonnegative(),
    domains.probability(),
    domains.interval(-1.0, 3.0),
    domains.interval(0.5, 2.0),
    domains.interval(-4.0, -1.0),
    domains.binary(),
    domains.boolean(),
    domains.sign(),
    domains.simplex(-1),
    domains.unit_norm(-1),
    domains.adjacency(symmetric=True),
    domains.custom(lambda shape, generator, dtype: torch.rand(shape, generator=generator, dtype=dtype)),
]
LAWS = [laws.linear_in("w"), laws.scale_invariant("w"), laws.translation_invariant("w"), laws.repeats("w")]


def legal(domain, values):
    slack = 1e-12  # of what is between the bounds, rounding is no way out
    inside_bounds = bool(((values >= domain.low - slack) & (values <= domain.high + slack)).all())
    whole = not domain.whole or torch.equal(values.double(), values.double().round())
    return inside_bounds and whole and torch.allclose(domain.project(values.double()), values.double())


def trials(domain, seed=0, dims="N N"):
    def loss(x, w):
        return (x * w).sum()

    spec = LossSpec("loss", {"loss": loss}, inputs={"x": TensorSpec(dims)}, context={"w": TensorSpec(dims, domain)})
    return spec, Session(spec, PROFILES["quick"], seed, "cpu").pool("distinct", None, 3)


@pytest.mark.parametrize("domain", DOMAINS, ids=repr)
@pytest.mark.parametrize("seed", range(4))
def test_no_law_leaves_the_domain_of_its_tensor(domain, seed):
    seen = []

    def loss(x, w):
        seen.append(w.detach().clone())
        return (x * w).sum()

    for dims in ("N N",) if domain.square else ("N N", "N"):
        spec, cases = trials(domain, seed, dims)
        spec = LossSpec("loss", {"loss": loss}, inputs=spec.inputs, context=spec.context)
        for law in LAWS:
            for case in cases:
                try:
                    list(CHECKS[law.code](Trial(spec, "loss", case), law))
                except NotApplicable:
                    continue
    assert all(legal(domain, values) for values in seen)


@pytest.mark.parametrize("domain", [d for d in DOMAINS if "custom" not in d.text], ids=repr)
def test_sums_of_parts_are_the_tensor(domain):
    spec, cases = trials(domain)
    for case in cases:
        trial = Trial(spec, "loss", case)
        combined, parts, _ = inside.parts(trial, "w", trial.tensors()["w"])
        total = sum(a * of(combined).double() for a, of in parts)
        assert torch.allclose(total, combined.double())
        assert all(legal(domain, of(combined)) for _, of in parts)


def test_what_has_no_other_legal_multiple_is_inapplicable_with_the_reason():
    def loss(x, w):
        return (x * w).sum()

    spec = LossSpec(
        "loss",
        {"loss": loss},
        inputs={"x": TensorSpec("B")},
        context={"w": TensorSpec("B", domains.binary())},
        laws=(laws.scale_invariant("w"),),
    )
    (outcome,) = verify(spec, profile="quick", rules=["C05"]).outcomes
    assert outcome.status is Status.INAPPLICABLE
    assert "no multiple of w is known to be in binary()" in outcome.reason


def test_a_value_that_is_nearly_right_is_no_multiple_of_the_reference() -> None:
    def right(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return ((p - y) ** 2).sum()

    def rounded(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return right(p, y) * (1 + 9e-7)

    tensors = {"p": TensorSpec("B"), "y": TensorSpec("B")}
    spec = LossSpec("rounded", {"right": right, "rounded": rounded}, inputs=tensors, context={})
    (found,) = verify(spec, profile="quick", rules=["E01"], implementations=["rounded"]).findings
    assert "a constant or a step in float32" in found.message
    assert "times the reference" not in found.message
