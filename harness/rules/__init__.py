"""The battery: every rule, the cheapest and most explanatory first."""

from __future__ import annotations

from collections.abc import Collection

from harness.errors import HarnessError, nearest, selected_codes, shown
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
    ranks,
    removal,
    second_order,
    shapes,
    sharing,
    state,
    transforms,
    unbiased,
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
    *ranks.RULES,
    *unbiased.RULES,
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
    chosen = selected_codes(codes, [rule.code for rule in BATTERY])
    return tuple(rule for rule in BATTERY if rule.code in chosen)


__all__ = ["BATTERY", "DOCUMENTED", "X01", "Mismatch", "Rule", "find", "select"]
