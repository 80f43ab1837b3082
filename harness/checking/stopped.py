"""A rule whose check ended its process or its device: what is said of it, as the outcome and finding of a verification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.declare.spec import LossSpec
from harness.drawing.case import Case
from harness.errors import HarnessError
from harness.results.findings import Finding, Outcome, Status, Verification
from harness.results.schema import plain
from harness.rules import X01, find
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools.reproduce import script, shown
from harness.rules.tools.sizes import growable


def verification(spec: LossSpec, told: Mapping[str, Any]) -> Verification:
    """The outcome and the finding of one rule on one implementation that a process did not survive.

    Args:
        spec: the declaration.
        told: ``implementation``, ``code``, ``device``, ``profile``, ``seed``, ``status``, ``reason``, ``case`` (JSON of the last
            one that ran, or ``None``) and ``output``, the end of what was printed.
    """
    rule, case = find(told["code"]), None if told["case"] is None else Case.from_json(told["case"])
    place = (told["implementation"], rule.code, told["device"])
    outcome = Outcome(*place, Status(told["status"]), 0, told["reason"])
    return Verification(
        loss=spec.name,
        profile=told["profile"],
        seed=told["seed"],
        device=told["device"],
        reference=spec.reference,
        implementations=(told["implementation"],),
        outcomes=(outcome,),
        findings=(unfinished(spec, rule, outcome, case, told["output"]),),
    )


def unfinished(spec: LossSpec, rule: Rule, outcome: Outcome, case: Case | None, output: str = "") -> Finding:
    """The finding of a rule that was not checked to its end, with the last case that ran."""
    mismatch = Mismatch(
        where=f"{rule.code} {rule.title}",
        came=outcome.reason,
        should="checked to its end",
        aspect=rule.code,
        tensors=None if case is None else _tensors(spec, case),
        code="print(loss(**tensors))  # the last call that was made" if case is not None else "",
    )
    lines = [
        f"{spec.name} / {outcome.implementation} / {X01.code} {X01.title} / {outcome.device}",
        f"  {mismatch.sentence}",
    ]
    if case is not None:
        lines.append(f"  the last input: {shown(case.sizes, mismatch.tensors or {}) or 'a scalar'}")
    return Finding(
        rule=X01.code,
        severity=X01.severity,
        implementation=outcome.implementation,
        message="\n".join(lines),
        evidence={"aspect": rule.code, "came": outcome.reason, "output": output},
        case=None if case is None else plain(case.to_json()),
        reproduction=script(spec, outcome.implementation, mismatch) if mismatch.tensors else "",
        hint=f"fix: run the last call by itself; -v and the report show it as plain PyTorch{_size(spec, outcome)}",
        title=X01.title,
        device=outcome.device,
    )


def _size(spec: LossSpec, outcome: Outcome) -> str:
    """Where a check took too long: how to bound an axis, which a loss over all orders or subsets of it needs."""
    symbols = growable(spec) if outcome.status is Status.TIMED_OUT else ()
    if not symbols:
        return ""
    sizes = ", ".join(symbols)
    return f"; if time explodes with one of {sizes}, as over all orders of an axis, fix it, as in fixed_sizes={{{symbols[0]!r}: 3}}"


def _tensors(spec: LossSpec, case: Case) -> Mapping[str, Any] | None:
    try:
        return case.materialize(spec)
    except (HarnessError, RuntimeError, MemoryError):
        return None  # a domain of the user's may be what ended the process
