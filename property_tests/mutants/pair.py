"""A rule, a loss with exactly the defect that the rule is about, and its honest twin."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness import LossSpec, TensorSpec, Verification, verify

PAIRWISE: Mapping[str, Any] = {
    "inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
    "output": TensorSpec(""),
}


@dataclass(frozen=True)
class Pair:
    """One row of the table.

    Args:
        code: the rule that must catch the mutant.
        defect: what is wrong, in a few words; the test's id.
        mutant: the loss with the defect.
        twin: the loss without it, on which the rule must be silent.
        severity: of the finding on the mutant.
        aspect: part of the finding's aspect, where the rule has several.
        says: part of the finding's message.
        profile: of the verification; a defect that only some cases show needs more of them.
    """

    code: str
    defect: str
    mutant: LossSpec
    twin: LossSpec
    severity: str
    aspect: str
    says: str
    profile: str

    @property
    def name(self) -> str:
        return f"{self.code}-{self.defect.replace(' ', '_')}"


@functools.cache
def verified(row: Pair) -> Verification:
    """What the rule says of the mutant; once for all tests of a session."""
    return verify(row.mutant, profile=row.profile, rules=[row.code], implementations=["candidate"])


def pair(
    code: str,
    defect: str,
    mutant: Callable[..., Any],
    twin: Callable[..., Any],
    declared: Mapping[str, Any] = PAIRWISE,
    *,
    severity: str = "error",
    aspect: str = "",
    says: str = "",
    profile: str = "quick",
    reference: Callable[..., Any] | None = None,
    mutant_declares: Mapping[str, Any] | None = None,
    twin_declares: Mapping[str, Any] | None = None,
) -> Pair:
    """A row whose two losses have one declaration, but for what ``mutant_declares`` and ``twin_declares`` change."""

    def spec(kind: str, loss: Callable[..., Any], changes: Mapping[str, Any] | None) -> LossSpec:
        implementations = {"candidate": loss} if reference is None else {"reference": reference, "candidate": loss}
        return LossSpec(f"{kind}_{code}", implementations, **{**declared, **(changes or {})})

    bad, good = spec("mutant", mutant, mutant_declares), spec("twin", twin, twin_declares)
    return Pair(code, defect, bad, good, severity, aspect, says, profile)
