"""The sign of a loss that measures how far two tensors are apart: L16."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.declare import laws
from harness.declare.spec import LossSpec
from harness.errors import NotApplicable
from harness.rules.laws.declared import CHECKS, below_zero, declared
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools.special import alike, pairs
from harness.rules.trial import Trial


def equal_is_not_the_highest(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """Where a loss is zero for equal tensors, it is not negative for all others: a step down its gradient drives them apart.

    L(a, a) = 0  and  L(a, b) <= 0 for all cases  imply  L = 0
    """
    usable = [trial for trial in trials if trial.base.finite and trial.base.output.numel()]
    apart = [pair for trial in usable[:1] for pair in _apart(usable, trial)]
    if not apart:
        raise NotApplicable("it is not zero where two of its tensors are equal")
    if any(float(trial.base.output.max()) > trial.scale.same(float(trial.base.output.max())) for trial in usable):
        return
    negative = [found for trial in usable if (found := below_zero(trial)) is not None]
    if negative:
        first, second = apart[0]
        yield replace(
            max(negative, key=lambda found: found.difference or 0.0),
            should=f">= 0, for it is 0 where {first} = {second}",
            aspect="",
            hint=(
                f"turn its sign: it is 0 where they are equal and negative in all {len(usable)} cases, so that training drives "
                f"{first} and {second} apart; where that is meant, ignore L16"
            ),
        )


def _apart(usable: Sequence[Trial], trial: Trial) -> list[tuple[str, str]]:
    """Pairs of tensors of which one is trained, where the loss is zero if they are equal, on every case."""
    spec = trial.spec
    return [
        (first, second)
        for first, second in pairs(spec, trial.case)
        if {first, second} & set(spec.differentiable)
        and all(not any(CHECKS["L09"](each, laws.zero_when_equal(first, second))) for each in usable)
    ]


def _applies(spec: LossSpec, implementation: str) -> str | None:
    if declared(spec, "L08"):
        return "checked as L08"
    if not any({*pair} & {*spec.differentiable} for pair in alike(spec)):
        return "no two of its tensors, one of them differentiable, have the same dims and domain"
    return None


RULES = (
    Rule(
        code="L16",
        title="equal is not the worst",
        group="laws",
        severity="warning",
        check_all=equal_is_not_the_highest,
        applies=_applies,
        regimes={"distinct": 5},
        why="A sign that is turned has the right gradient of the wrong function: training maximises the distance.",
        example="-(predictions - labels).square().mean()",
        mend="Turn the sign; a reward is maximised by minimising what is below it.  Where driving apart is meant, ignore the rule.",
        source="A distance is not negative: the first axiom of a metric.",
    ),
)
