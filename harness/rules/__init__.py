"""The battery: every rule, the cheapest and most explanatory first."""

from __future__ import annotations

from collections.abc import Collection

from harness.errors import HarnessError, nearest, selected_codes, shown
from harness.rules import measurement
from harness.rules.context import following, removal, sharing, weights
from harness.rules.costs import growth, host_reads
from harness.rules.crashes import X01
from harness.rules.dtypes import accuracy, kept, mixed, overflow
from harness.rules.gradients import (
    cut_off,
    derivatives,
    directional,
    finite_differences,
    leaks,
    modes,
    second_order,
    special_points,
)
from harness.rules.laws import declared, ranks, sign, unbiased
from harness.rules.reference import equivalence, formula, lengths
from harness.rules.rule import Mismatch, Rule
from harness.rules.shapes import broadcasting, legal_sizes
from harness.rules.state import global_state, history, leftovers
from harness.rules.transforms import compiling, faking, functional

BATTERY: tuple[Rule, ...] = (
    *broadcasting.RULES,
    *legal_sizes.RULES,
    *kept.RULES,
    *accuracy.RULES,
    *mixed.RULES,
    *overflow.RULES,
    *following.RULES,
    *removal.RULES,
    *weights.RULES,
    *sharing.RULES,
    *global_state.RULES,
    *leftovers.RULES,
    *history.RULES,
    *cut_off.RULES,
    *special_points.RULES,
    *finite_differences.RULES,
    *derivatives.RULES,
    *directional.RULES,
    *second_order.RULES,
    *modes.RULES,
    *leaks.RULES,
    *equivalence.RULES,
    *formula.RULES,
    *lengths.RULES,
    *declared.RULES,
    *ranks.RULES,
    *unbiased.RULES,
    *sign.RULES,
    *host_reads.RULES,
    *growth.RULES,
    *functional.RULES,
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
