"""Which rules of the harness catch a mutant that they do not find in the original."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from unittest.mock import patch

import torch

from harness import LossSpec, verify
from harness.checking.session import PROFILES
from harness.results.findings import Status

from .equivalence import Comparison
from .mutants import Mutant
from .subjects import Subject, find

# All cases of the profile ``ci``; that a finding is made smaller afterwards changes nothing about its being made, and takes
# three quarters of the time.
PROFILE = "mutation"
UNSHRUNK = {PROFILE: replace(PROFILES["ci"], shrinks=0)}

CRASH = "X01"  # a rule that crashes has caught nothing; the crash is shown

BATCH = 6  # mutants of one loss in a task: the original's answers are kept from one to the next

Signature = tuple[str, str]  # rule and aspect of a finding of severity error or warning


@dataclass(frozen=True)
class Result:
    """What became of one mutant.

    Args:
        mutant: the mutant.
        kind: ``scored``, or ``equivalent`` or ``invalid`` with the reason.
        reason: why it is not scored, or the first question whose answer shows that it is another loss.
        with_reference: rules that catch it with the reference beside it and all laws.
        alone: rules that catch it with nothing declared but its tensors.
        noted: rules that only say a note about it.
        crashed: rules that crashed on it.
    """

    mutant: Mutant
    kind: str
    reason: str
    with_reference: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    noted: tuple[str, ...] = ()
    crashed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verified:
    """Findings of severity error or warning of one verification, its notes, and the rules that crashed."""

    found: frozenset[Signature]
    noted: frozenset[Signature]
    crashed: tuple[str, ...]


def verified(spec: LossSpec, profile: str = PROFILE) -> Verified:
    """Verify the implementation called ``mutant`` of a declaration."""
    with patch.dict(PROFILES, UNSHRUNK):
        verification = verify(spec, profile=profile, implementations=["mutant"])
    broken = (Status.CRASHED, Status.TIMED_OUT)
    findings = [f for f in verification.findings if f.rule != CRASH]
    signatures = [((f.rule, str(f.evidence.get("aspect", ""))), f.severity == "note") for f in findings]
    return Verified(
        frozenset(signature for signature, note in signatures if not note),
        frozenset(signature for signature, note in signatures if note),
        tuple(o.rule for o in verification.outcomes if o.status in broken),
    )


@cache
def originally(name: str) -> tuple[Verified, Verified]:
    """What the harness finds in the unmutated loss: with the reference, and alone."""
    subject = find(name)
    original = subject.original.load()
    return verified(subject.with_reference(original)), verified(subject.alone(original))


@cache
def _comparison(name: str) -> Comparison:
    return Comparison(find(name))


def result(mutant: Mutant) -> Result:
    """Set a mutant aside, or verify it with the reference and alone."""
    subject = find(mutant.loss)
    try:
        loss = mutant.program.load()
    except Exception as error:
        return Result(mutant, "invalid", f"does not import: {type(error).__name__}: {error}")
    try:
        verdict = _comparison(mutant.loss).verdict(loss)
        if verdict.kind != "different":
            return Result(mutant, verdict.kind, verdict.reason)
        return _verify(mutant, subject, loss, verdict.reason)
    finally:
        mutant.program.forget()


def _verify(mutant: Mutant, subject: Subject, loss: Any, reason: str) -> Result:
    before = originally(mutant.loss)
    after = verified(subject.with_reference(loss)), verified(subject.alone(loss))
    caught = [_rules(now.found - then.found) for now, then in zip(after, before, strict=True)]
    noted = _rules(signature for now, then in zip(after, before, strict=True) for signature in now.noted - then.noted)
    crashed = tuple(sorted({rule for now in after for rule in now.crashed}))
    return Result(mutant, "scored", reason, caught[0], caught[1], noted, crashed)


def _rules(signatures: Iterable[Signature]) -> tuple[str, ...]:
    return tuple(sorted({rule for rule, _ in signatures}))


def _batch(mutants: Sequence[Mutant]) -> list[Result]:
    torch.set_num_threads(1)
    return [result(mutant) for mutant in mutants]


def results(mutants: Sequence[Mutant], workers: int) -> Iterator[Result]:
    """Results in the order of the mutants, whatever the number of worker processes."""
    batches = list(_batches(mutants))
    if workers <= 1:
        for batch in batches:
            yield from _batch(batch)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for done in pool.map(_batch, batches):
            yield from done


def _batches(mutants: Sequence[Mutant]) -> Iterator[list[Mutant]]:
    batch: list[Mutant] = []
    for mutant in mutants:
        if batch and (len(batch) == BATCH or batch[0].loss != mutant.loss):
            yield batch
            batch = []
        batch.append(mutant)
    if batch:
        yield batch


def share(results: Iterable[Result], *, alone: bool = False) -> float:
    """The part of the scored mutants that are caught; 1 where there are none."""
    scored = [r for r in results if r.kind == "scored"]
    caught = [r for r in scored if (r.alone if alone else r.with_reference)]
    return len(caught) / len(scored) if scored else 1.0
