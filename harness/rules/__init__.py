"""The battery: every rule, the cheapest and most explanatory first."""

from __future__ import annotations

from collections.abc import Collection

from harness.errors import HarnessError, nearest, shown
from harness.rules import (
    broadcasting,
    compiling,
    context,
    costs,
    derivatives,
    directional,
    dtypes,
    equivalence,
    faking,
    finite_differences,
    formula,
    gradients,
    growth,
    history,
    laws,
    leaks,
    leftovers,
    lengths,
    measurement,
    modes,
    overflow,
    precision,
    removal,
    second_order,
    shapes,
    sharing,
    state,
    transforms,
    weights,
)
from harness.rules.crashes import X01
from harness.rules.rule import Mismatch, Rule

BATTERY: tuple[Rule, ...] = (
    *broadcasting.RULES,
    *shapes.RULES,
    *dtypes.RULES,
    *precision.RULES,
    *overflow.RULES,
    *context.RULES,
    *removal.RULES,
    *weights.RULES,
    *sharing.RULES,
    *state.RULES,
    *leftovers.RULES,
    *history.RULES,
    *gradients.RULES,
    *finite_differences.RULES,
    *derivatives.RULES,
    *directional.RULES,
    *second_order.RULES,
    *modes.RULES,
    *leaks.RULES,
    *equivalence.RULES,
    *formula.RULES,
    *lengths.RULES,
    *laws.RULES,
    *costs.RULES,
    *growth.RULES,
    *transforms.RULES,
    *faking.RULES,
    *compiling.RULES,
)
# Codes that a finding may have; those of times and X01 are found by running, not planned.
DOCUMENTED: tuple[Rule, ...] = (*BATTERY, *measurement.RULES, X01)


def find(code: str) -> Rule:
    """The rule of a code.

    Raises:
        HarnessError: no such rule; the message has the nearest code.
    """
    for rule in DOCUMENTED:
        if rule.code == code.upper():
            return rule
    codes = [rule.code for rule in DOCUMENTED]
    raise HarnessError(f"no rule {shown(code)}{nearest(code.upper(), codes)}; `loss-harness rules` lists them all")


def select(codes: Collection[str]) -> tuple[Rule, ...]:
    """Rules whose code is, or begins with, one of ``codes``, in the battery's order.

    Raises:
        HarnessError: a code that selects nothing.
    """
    given = list(codes) if isinstance(codes, Collection) and not isinstance(codes, (str, bytes)) else [codes]
    for code in given:
        if not isinstance(code, str) or not code:
            raise HarnessError(f"{shown(code)} came, but should be a code or prefix of rules, such as 'G01' or 'G'")
    wanted = [code.upper() for code in given]
    for code in wanted:
        if not any(rule.code.startswith(code) for rule in BATTERY):
            raise HarnessError(
                f"{shown(code)} selects no rule{nearest(code, [r.code for r in BATTERY])}; `loss-harness rules` lists them all"
            )
    return tuple(rule for rule in BATTERY if any(rule.code.startswith(code) for code in wanted))


__all__ = ["BATTERY", "DOCUMENTED", "X01", "Mismatch", "Rule", "find", "select"]
