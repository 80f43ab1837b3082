"""The verdict on each implementation: a pure function of what was found and measured.

From strongest to weakest: an error, or another value than the reference's where it was to be timed, means *do not adopt*; a
crash, a timeout, results that are missing, gradients that no rule could check, or a speed that is unknown, open at every size,
or open at one where it seems slower than the reference and is surely so at none, mean *inconclusive*; a warning, a waiver, a device where nothing ran or a size at which it is
slower than the reference mean *adopt with caveats*; else *adopt*.  That another implementation is faster is a recommendation, and
what nobody asked to be timed is no doubt.  The reference is held to correctness only and keeps the role *reference*;
a loss with one implementation has none, and nothing to be faster than.
"""

from __future__ import annotations

from dataclasses import replace

from harness.judging import advice, reasons, speed
from harness.judging.speed import listed
from harness.results.causes import attributed
from harness.results.findings import SEVERITIES
from harness.results.schema import (
    ADOPT,
    CAVEATS,
    CRASHED,
    DO_NOT_ADOPT,
    INCONCLUSIVE,
    REFERENCE,
    LossRecord,
    Report,
    Verdict,
    VerdictRecord,
)
from harness.results.words import causes, plural


def with_verdicts(report: Report) -> Report:
    """The same report with the verdicts on its losses."""
    return replace(report, losses=tuple(judged(loss) for loss in report.losses))


def judged(loss: LossRecord) -> LossRecord:
    """The same record with the causes of its findings and the verdict on each of its implementations."""
    loss = replace(loss, findings=attributed(loss.findings))
    return replace(loss, verdicts=tuple(judge(loss, name) for name in loss.implementations))


def judge(loss: LossRecord, implementation: str) -> VerdictRecord:
    """The verdict on one implementation, with its reasons, the decisive ones first."""
    verdict, why = _verdict(loss, implementation)
    return VerdictRecord(
        implementation,
        verdict,
        why,
        sentence=advice.sentence(loss, implementation, verdict),
        scope=advice.scope(loss, implementation),
        settle=advice.settle(loss, implementation, verdict),
    )


def correctness(loss: LossRecord, implementation: str) -> tuple[str, str]:
    """(what the rules say of it, why in a few words), whatever its speed: wrong, not decided, or no error found."""
    found = {s: sorted({f.rule for f, _ in causes(loss, s) if f.implementation == implementation}) for s in SEVERITIES}
    warned = (
        f"; {listed(found['warning'])} {'warns' if len(found['warning']) == 1 else 'warn'}" if found["warning"] else ""
    )
    if wrong := [code for code in found["error"] if code != CRASHED]:
        return "wrong", f"{listed(wrong)} {'fails' if len(wrong) == 1 else 'fail'}{warned}"
    missing = [loss.missing] if loss.missing else []
    ask = (reasons.broken, reasons.blind, reasons.gradients_unchecked)
    if unknown := [*missing, *(line for why in ask for line in why(loss, implementation))]:
        return "not decided", unknown[0] + warned
    passed = reasons.outcomes(loss, implementation, "passed")
    return "no error found", f"{plural(len(passed), 'rule')} passed{warned}"


def _verdict(loss: LossRecord, name: str) -> tuple[Verdict, tuple[str, ...]]:
    wrong = [*reasons.about(loss, name, "error", "fails"), *reasons.differing(loss, name)]
    broken, blind = reasons.broken(loss, name), reasons.blind(loss, name)
    caveats = [
        *reasons.about(loss, name, "warning", "warns"),
        *reasons.waived(loss, name),
        *reasons.accepted(loss, name),
    ]
    passed = [*speed.compiled_sentences(loss, name), *reasons.rules_passed(loss, name)]
    if name == loss.reference:
        return REFERENCE, (*wrong, *broken, *blind, *caveats, *passed)
    if wrong:
        return DO_NOT_ADOPT, (*wrong, *broken, *caveats)
    missing = [loss.missing] if loss.missing else []
    unchecked = reasons.gradients_unchecked(loss, name)
    unknown = [*reasons.unmeasured(loss, name), *reasons.speed_unknown(loss, name)]
    open_questions = [*broken, *blind, *missing, *unchecked, *unknown]
    slow, other = speed.speed_sentences(loss, name)
    if (slow or other) and loss.is_wrong(loss.reference):
        other.append(f"{loss.reference} has errors: it was timed where both agree")
    if speed.open_everywhere(loss, name):
        open_questions += other
        other = []
    else:
        open_questions += reasons.slowness_open(loss, name)
    if open_questions:
        return INCONCLUSIVE, (*open_questions, *slow, *caveats, *other, *passed)
    caveats = [*caveats, *reasons.idle_devices(loss, name), *slow, *reasons.untimed(loss, name)]
    return CAVEATS if caveats else ADOPT, (*caveats, *other, *passed)
