"""A stored failure, run again: FIXED, FAILED or ERROR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from harness.calls.evaluation import RNG_SEED, LossRaised, begin_draws
from harness.checking.session import PROFILES, Session, message
from harness.checking.verify import quietly, verify
from harness.declare.on_command_line import Declaration
from harness.declare.spec import LossSpec
from harness.declare.targets import load_specs
from harness.declare.trust import stranger
from harness.drawing.case import Case
from harness.errors import DeclarationError, HarnessError, NotApplicable, TargetError, shown, told
from harness.results.findings import Finding, Verification
from harness.rules import X01, find
from harness.rules.rule import mismatches
from harness.rules.tools.remarks import remarked

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Replay:
    """What became of a stored failure: it no longer shows (FIXED), it still does (FAILED), or it cannot run (ERROR)."""

    status: Literal["FIXED", "FAILED", "ERROR"]
    message: str


def failure_record(spec: LossSpec, verification: Verification, finding: Finding) -> dict[str, Any]:
    """A finding as JSON types: what `replay` needs to run it again, on any machine that has the loss."""
    return {
        "schema": SCHEMA_VERSION,
        "target": spec.target or spec.source.file,
        "loss": spec.name,
        "implementation": finding.implementation,
        "rule": finding.rule,
        "aspect": finding.evidence.get("aspect", ""),
        "profile": verification.profile,
        "seed": verification.seed,
        "device": verification.device,
        "case": finding.case,
        "message": finding.message,
    }


def replay(failure: Mapping[str, Any], *, target: str | None = None) -> Replay:
    """Run a stored failure again: only the loss that it names, only its rule, only its case.

    A failure that rests on many cases together (no single one shows it) is verified again with the same seed.

    Args:
        failure: what `failure_record` made, as read from JSON.
        target: the loss, as the user names it.  Without it the target that the failure names is imported only where it is
            the user's own or known to be harmless (see `harness.declare.trust`), for the file may come from somebody else.
    """
    try:
        return _replay(failure, target)
    except (HarnessError, NotApplicable, LossRaised) as error:
        return Replay("ERROR", str(error))
    except Exception as error:  # the loss is other people's code
        return Replay("ERROR", told(error))


def _replay(failure: Mapping[str, Any], named: str | None) -> Replay:
    if failure.get("schema") != SCHEMA_VERSION:
        raise DeclarationError(
            f"a failure of schema {failure.get('schema')!r} came, but this version reads schema {SCHEMA_VERSION}"
        )
    missing = [key for key in ("target", "loss", "implementation", "rule") if not isinstance(failure.get(key), str)]
    if missing:
        raise DeclarationError(f"not a failure file: {missing} is missing; `loss-harness verify` writes them")
    target = failure["target"] if named is None else _renamed(failure["target"], named)
    name, implementation = failure["loss"], failure["implementation"]
    if (named is None or target != named) and (unknown := stranger(target)):
        raise TargetError(
            f"the file asks to import {shown(unknown)}, which is not in the working directory {Path.cwd()}; importing runs it.  "
            f"If you trust it, name the loss yourself: loss-harness replay FAILURE --target TARGET"
        )
    specs = [spec for spec in load_specs([target]) if spec.name == name]
    if not specs:
        raise DeclarationError(f"target {target!r} holds no loss {name!r} any more")
    spec = specs[0]
    if implementation not in spec.implementations:
        raise DeclarationError(
            f"loss {name!r} has no implementation {implementation!r} any more; it has {list(spec.implementations)}"
        )
    rule = find(failure["rule"])
    aspect = str(failure.get("aspect", ""))
    if rule.check is None or failure.get("case") is None:
        return _verify_again(spec, failure, aspect)
    device = str(failure.get("device", "cpu"))
    session = Session(spec, PROFILES["ci"], failure.get("seed", 0), device)
    with quietly(session):
        session.find_precision(implementation)
        trial = session.trial(implementation, Case.from_json(failure["case"]), rule)
        begin_draws(RNG_SEED)
        found = [remarked(rule, trial, m) for m in mismatches(rule.check(trial)) if m.aspect == aspect]
    if not found:
        again = _verify_again(spec, failure, aspect) if rule.check_all is not None else None
        return again or Replay(
            "FIXED", f"{name} / {implementation} / {rule.code} {rule.title}: the case no longer shows it"
        )
    return Replay("FAILED", message(rule, trial, found[0]))


def _renamed(target: str, named: str) -> str:
    """What the user names; where the failure carries a declaration of the loss, that declaration of it."""
    if not target.startswith("{") or named.startswith("{"):
        return named
    return replace(Declaration.from_target(target), target=named).as_target


def _verify_again(spec: LossSpec, failure: Mapping[str, Any], aspect: str) -> Replay:
    crashed = failure["rule"] == X01.code
    verification = verify(
        spec,
        profile=str(failure.get("profile", "ci")),
        rules=[aspect if crashed else failure["rule"]],  # the aspect of a crash is the rule that could not be checked
        implementations=[failure["implementation"]],
        device=str(failure.get("device", "cpu")),
        seed=failure.get("seed", 0),
    )
    for finding in verification.findings:
        if finding.evidence.get("aspect", "") == aspect and (finding.rule == X01.code) == crashed:
            return Replay("FAILED", finding.message)
    return Replay(
        "FIXED", f"{spec.name} / {failure['implementation']} / {failure['rule']}: the rule no longer finds it"
    )
