"""Why an implementation gets its verdict: what was found, what did not run, what could not be timed; one sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.judging.speed import input_text, listed, setting_text, speedup_text
from harness.results.causes import grouped
from harness.results.findings import Finding, Outcome, in_order
from harness.results.measured import MARGIN
from harness.results.rule_texts import rule_text
from harness.results.schema import CRASHED, LossRecord
from harness.results.words import plural

DIFFERS = "differs from the reference"  # how `harness.timing.agreement` begins to say so
COSTS_ONLY = "only exact costs were asked for"  # how `harness.benchmark` says so
_GRAVEST = "EGLDCSBTPMX"  # groups of rules: a wrong number comes before a shape that is let in, and that before a cost
_RAN = ("passed", "failed", "waived", "crashed", "timed out")


def gravest_first(findings: Iterable[Finding]) -> list[Finding]:
    """In the order in which a reader has to know of them."""
    return sorted(findings, key=lambda finding: (finding.rule[:1] not in _GRAVEST, _GRAVEST.find(finding.rule[:1])))


def about(loss: LossRecord, implementation: str, severity: str, verb: str) -> list[str]:
    """One sentence a rule; what follows from another finding is only named beside it."""
    reasons = []
    by_rule: dict[str, list[tuple[Finding, tuple[Finding, ...]]]] = {}
    for finding, followers in grouped(in_order(loss.findings)):
        if (
            finding.implementation == implementation
            and finding.severity == severity
            and finding.rule != CRASHED
            and not finding.accepted
        ):
            by_rule.setdefault(finding.rule, []).append((finding, followers))
    for rule, alike in by_rule.items():
        first = alike[0][0].fact
        first += f" (and {len(alike) - 1} more)" if len(alike) > 1 else ""
        codes = sorted({f.rule for _, followers in alike for f in followers})
        first += f"; {listed(codes)} {'follows' if len(codes) == 1 else 'follow'}" if codes else ""
        where = listed(list(dict.fromkeys(f.device for f, _ in alike)))
        reasons.append(f"{rule} {alike[0][0].title} {verb} on {where}: {first}")
    return reasons


def accepted(loss: LossRecord, implementation: str) -> list[str]:
    """What fails and stands in the baseline."""
    found = [f for f in loss.of(implementation) if f.accepted]
    return list(dict.fromkeys(f"{f.rule} {f.title} fails and is accepted by the baseline" for f in found))


def outcomes(loss: LossRecord, implementation: str, *statuses: str) -> list[Outcome]:
    """Outcomes of one implementation that ended with one of the statuses."""
    return [o for o in loss.outcomes if o.implementation == implementation and o.status in statuses]


def broken(loss: LossRecord, implementation: str) -> list[str]:
    """Rules that crashed or timed out."""
    found = outcomes(loss, implementation, "crashed", "timed out")
    return [f"{o.rule} {o.status} on {o.device}{': ' + o.reason if o.reason else ''}" for o in found]


def blind(loss: LossRecord, implementation: str) -> list[str]:
    """An empty run looks clean; it must never read as a pass."""
    if outcomes(loss, implementation, *_RAN):
        return []
    return [f"no rule ran{_why_not(outcomes(loss, implementation, 'skipped', 'inapplicable'))}"]


def gradients_unchecked(loss: LossRecord, implementation: str) -> list[str]:
    """That no rule could measure a gradient: neither slopes nor a reference said anything of it on any device."""
    mine = [o for o in loss.outcomes if o.implementation == implementation and rule_text(o.rule).measures_gradient]
    if any(o.status in _RAN for o in mine):
        return []
    why = list(dict.fromkeys(f"{o.rule}: {o.reason}" for o in mine if o.unmeasured))
    return [f"no gradient could be checked: {why[0]}"] if why else []


def idle_devices(loss: LossRecord, implementation: str) -> list[str]:
    """Devices on which nothing ran, and why."""
    ran = {outcome.device for outcome in outcomes(loss, implementation, *_RAN)}
    idle = [device for device in loss.devices if device not in ran]
    return [
        f"no rule ran on {device}"
        + _why_not([o for o in outcomes(loss, implementation, "skipped", "inapplicable") if o.device == device])
        for device in idle
    ]


def _why_not(outcomes: Sequence[Outcome]) -> str:
    reasons = list(dict.fromkeys(outcome.reason for outcome in outcomes if outcome.reason))
    return f": {reasons[0]}" if len(reasons) == 1 else ""


def waived(loss: LossRecord, implementation: str) -> list[str]:
    """What fails and is waived by the declaration."""
    found = outcomes(loss, implementation, "waived")
    return list(dict.fromkeys(f"{o.rule} fails and is waived{': ' + o.reason if o.reason else ''}" for o in found))


def rules_passed(loss: LossRecord, implementation: str) -> list[str]:
    """How many rules passed on each device."""
    passed = outcomes(loss, implementation, "passed")
    return [
        f"{plural(count, 'rule')} passed on {device}"
        for device in loss.devices
        if (count := sum(outcome.device == device for outcome in passed))
    ]


def differing(loss: LossRecord, implementation: str) -> list[str]:
    """Inputs on which it was to be timed and is not the reference's function: an error that no drawn case showed.

    Of a reference that is wrong itself, nobody knows which of both it is.
    """
    if loss.is_wrong(loss.reference):
        return []
    mine = [m for m in loss.measurements if m.implementation == implementation and m.status == "failed"]
    found = [m for m in mine if m.reason.startswith(DIFFERS)]
    return list(dict.fromkeys(f"at {input_text(m)} on {m.device} in {m.dtype} it {m.reason}" for m in found))


def unmeasured(loss: LossRecord, implementation: str) -> list[str]:
    """Whether it failed wherever it was to be timed."""
    mine = [m for m in loss.measurements if m.implementation == implementation]
    if mine and all(measurement.status == "failed" for measurement in mine):
        return [f"it failed at every size that was to be timed: {mine[0].reason}"]
    return []


def untimed(loss: LossRecord, implementation: str) -> list[str]:
    """Where it failed when timed, though not everywhere."""
    failed = [m for m in loss.measurements if m.implementation == implementation and m.status == "failed"]
    return list(
        dict.fromkeys(f"it failed when timed on {setting_text(m)} at {input_text(m)}: {m.reason}" for m in failed)
    )


def slowness_open(loss: LossRecord, implementation: str) -> list[str]:
    """That it may be slower than the reference at some size, by more than the margin, though nowhere surely.

    Another run might be sure of it.  Where it seems as fast or faster, none would: that takes an estimate that is off by the
    margin and the width of the interval.
    """
    mine = [c for c in loss.comparisons if (c.implementation, c.reference) == (implementation, loss.reference)]
    if any(c.verdict == "slower" for c in mine):
        return []
    places = [
        f"{input_text(c)}, {setting_text(c)} ({speedup_text(c.low)} to {speedup_text(c.high)})"
        for c in mine
        if c.verdict == "inconclusive" and (c.speedup or 0.0) < 1 and (c.low or 0.0) < 1 / MARGIN
    ]
    return [f"whether it is slower than {loss.reference} is open: at {listed(places)}"] if places else []


def speed_unknown(loss: LossRecord, implementation: str) -> list[str]:
    """That it was to be timed and stands beside nothing; where no times were asked for, that is nobody's doubt."""
    if not loss.reference or any(c.implementation == implementation for c in loss.comparisons):
        return []
    mine = [m for m in loss.measurements if m.implementation == implementation]
    theirs = [m for m in loss.measurements if m.implementation == loss.reference]
    asked = [m for m in mine if m.reason != COSTS_ONLY]
    if not asked or unmeasured(loss, implementation):
        return []
    missing = [m.reason for m in (*asked, *theirs) if m.status != "measured" and m.reason]
    return [f"its speed is unknown{': ' + missing[0] if missing else ''}"]
