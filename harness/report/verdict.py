"""The verdict on each implementation: a pure function of what was found and measured.

From strongest to weakest: an error means *do not adopt*; a crash, a timeout, results that are missing or a speed that is
open at every size mean *inconclusive*; a warning, a waiver, a device where nothing ran or a size at which it is slower
mean *adopt with caveats*; else *adopt*.  The reference is held to correctness only and keeps the role *reference*;
a loss with one implementation has none, and nothing to be faster than.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import harness
from harness.causes import attributed, grouped
from harness.report.schema import (
    CRASHED,
    SCHEMA_VERSION,
    ComparisonRecord,
    CrossoverRecord,
    GrowthRecord,
    LossRecord,
    MeasurementRecord,
    OutcomeRecord,
    Report,
    VerdictRecord,
)
from harness.report.text import seconds_text
from harness.timing.variants import SUFFIX

ADOPT = "adopt"
CAVEATS = "adopt with caveats"
DO_NOT_ADOPT = "do not adopt"
INCONCLUSIVE = "inconclusive"
REFERENCE = "reference"

_RAN = ("passed", "failed", "waived", "crashed", "timed out")


def assemble(
    losses: Iterable[LossRecord],
    *,
    seed: int,
    profile: str,
    devices: Sequence[str],
    environment: Mapping[str, Any],
    seconds: Mapping[str, float],
    notes: Sequence[str] = (),
    made: str = "",
    command: str = "",
) -> Report:
    """A report of this version of the tool, with its verdicts."""
    return Report(
        schema=SCHEMA_VERSION,
        tool=harness.__version__,
        seed=seed,
        profile=profile,
        devices=tuple(devices),
        environment=dict(environment),
        losses=tuple(judged(loss) for loss in losses),
        notes=tuple(notes),
        seconds=dict(seconds),
        made=made,
        command=command,
    )


def judged(loss: LossRecord) -> LossRecord:
    """The same record with the causes of its findings and the verdict on each of its implementations."""
    loss = replace(loss, findings=attributed(loss.findings))
    return replace(loss, verdicts=tuple(judge(loss, name) for name in loss.implementations))


def judge(loss: LossRecord, implementation: str) -> VerdictRecord:
    """The verdict on one implementation, with its reasons, the decisive ones first."""
    wrong = _about(loss, implementation, "error", "fails")
    broken = _broken(loss, implementation)
    blind = _blind(loss, implementation)
    warned = _about(loss, implementation, "warning", "warns")
    caveats = [*warned, *_waived(loss, implementation), *_accepted(loss, implementation)]
    passed = [*_compiled(loss, implementation), *_passed(loss, implementation)]
    if implementation == loss.reference:
        return VerdictRecord(implementation, REFERENCE, (*wrong, *broken, *blind, *caveats, *passed))
    if wrong:
        return VerdictRecord(implementation, DO_NOT_ADOPT, (*wrong, *broken, *caveats))
    open_questions = [*broken, *blind, *_missing(loss), *_unmeasured(loss, implementation)]
    slow, other = _speed(loss, implementation)
    if _open_everywhere(loss, implementation):
        open_questions += other
        other = []
    if open_questions:
        return VerdictRecord(implementation, INCONCLUSIVE, (*open_questions, *slow, *caveats, *other, *passed))
    caveats = [*caveats, *_idle_devices(loss, implementation), *slow, *_untimed(loss, implementation)]
    return VerdictRecord(implementation, CAVEATS if caveats else ADOPT, (*caveats, *other, *passed))


def _about(loss: LossRecord, implementation: str, severity: str, verb: str) -> list[str]:
    """One sentence a rule; what follows from another finding is only named beside it."""
    reasons: dict[str, str] = {}
    groups = grouped(loss.of(implementation))
    causes = [
        (finding, followers)
        for finding, followers in groups
        if finding.severity == severity and finding.rule != CRASHED and not finding.accepted
    ]
    for finding, _ in causes:
        alike = [(f, followers) for f, followers in causes if f.rule == finding.rule]
        first = next(iter(finding.body.splitlines()), "").strip()
        first += f" (and {len(alike) - 1} more)" if len(alike) > 1 else ""
        codes = sorted({f.rule for _, followers in alike for f in followers})
        first += f"; {_listed(codes)} {'follows' if len(codes) == 1 else 'follow'}" if codes else ""
        where = _listed(list(dict.fromkeys(f.device for f, _ in alike)))
        reasons.setdefault(finding.rule, f"{finding.rule} {finding.title} {verb} on {where}: {first}")
    return list(reasons.values())


def _accepted(loss: LossRecord, implementation: str) -> list[str]:
    found = [f for f in loss.of(implementation) if f.accepted]
    return list(dict.fromkeys(f"{f.rule} {f.title} fails and is accepted by the baseline" for f in found))


def _outcomes(loss: LossRecord, implementation: str, *statuses: str) -> list[OutcomeRecord]:
    return [o for o in loss.outcomes if o.implementation == implementation and o.status in statuses]


def _broken(loss: LossRecord, implementation: str) -> list[str]:
    found = _outcomes(loss, implementation, "crashed", "timed out")
    return [f"{o.rule} {o.status} on {o.device}{': ' + o.reason if o.reason else ''}" for o in found]


def _blind(loss: LossRecord, implementation: str) -> list[str]:
    """An empty run looks clean; it must never read as a pass."""
    if _outcomes(loss, implementation, *_RAN):
        return []
    return [f"no rule ran{_why_not(_outcomes(loss, implementation, 'skipped', 'inapplicable'))}"]


def _idle_devices(loss: LossRecord, implementation: str) -> list[str]:
    ran = {outcome.device for outcome in _outcomes(loss, implementation, *_RAN)}
    idle = [device for device in loss.devices if device not in ran]
    return [
        f"no rule ran on {device}"
        + _why_not([o for o in _outcomes(loss, implementation, "skipped", "inapplicable") if o.device == device])
        for device in idle
    ]


def _why_not(outcomes: Sequence[OutcomeRecord]) -> str:
    reasons = list(dict.fromkeys(outcome.reason for outcome in outcomes if outcome.reason))
    return f": {reasons[0]}" if len(reasons) == 1 else ""


def _waived(loss: LossRecord, implementation: str) -> list[str]:
    return list(
        dict.fromkeys(
            f"{o.rule} fails and is waived: {o.reason}" if o.reason else f"{o.rule} fails and is waived"
            for o in _outcomes(loss, implementation, "waived")
        )
    )


def _missing(loss: LossRecord) -> list[str]:
    return [loss.missing] if loss.missing else []


def _passed(loss: LossRecord, implementation: str) -> list[str]:
    passed = _outcomes(loss, implementation, "passed")
    return [
        f"{count} {'rule' if count == 1 else 'rules'} passed on {device}"
        for device in loss.devices
        if (count := sum(outcome.device == device for outcome in passed))
    ]


def _unmeasured(loss: LossRecord, implementation: str) -> list[str]:
    mine = [m for m in loss.measurements if m.implementation == implementation]
    if mine and all(measurement.status == "failed" for measurement in mine):
        return [f"it failed at every size that was to be timed: {mine[0].reason}"]
    return []


def _untimed(loss: LossRecord, implementation: str) -> list[str]:
    failed = [m for m in loss.measurements if m.implementation == implementation and m.status == "failed"]
    reasons = [
        f"it failed when timed on {setting_text(m)} at {size_text(m.sizes, m.densities)}: {m.reason}" for m in failed
    ]
    if loss.reference and not any(c.implementation == implementation for c in loss.comparisons):
        mine = [m for m in loss.measurements if m.implementation == implementation]
        theirs = [m for m in loss.measurements if m.implementation == loss.reference]
        skipped = [m for m in (*mine, *theirs) if m.status != "measured" and m.reason]
        reasons.append(f"its speed is unknown{': ' + skipped[0].reason if skipped else ', nothing was timed'}")
    return list(dict.fromkeys(reasons))


def _open_everywhere(loss: LossRecord, implementation: str) -> bool:
    mine = [c for c in loss.comparisons if c.implementation == implementation]
    return bool(mine) and all(comparison.verdict == "inconclusive" for comparison in mine)


def _speed(loss: LossRecord, implementation: str) -> tuple[list[str], list[str]]:
    """Sentences on speed, one a setting and rival: those with a size at which it is slower, and the others."""
    groups: dict[tuple[str, str], list[ComparisonRecord]] = {}
    for comparison in loss.comparisons:
        if comparison.implementation == implementation:
            groups.setdefault((comparison.reference, setting_text(comparison)), []).append(comparison)
    slow: list[str] = []
    other: list[str] = []
    for group in groups.values():
        ordered = sorted(group, key=lambda c: _elements(c.sizes))
        is_slow = any(comparison.verdict == "slower" for comparison in ordered)
        (slow if is_slow else other).append(_sentence(ordered))
    return slow, [*other, *_uncompared(loss, implementation)]


def _compiled(loss: LossRecord, implementation: str) -> list[str]:
    """Sentences on the compiled variant, one a setting; it has no verdict of its own."""
    variant = implementation + SUFFIX
    mine = [m for m in loss.measurements if m.implementation == variant]
    failed = [m for m in mine if m.status == "failed"]
    reasons = [f"compiled, it failed on {setting_text(m)} at {_input(m)}: {m.reason}" for m in failed]
    groups: dict[str, list[ComparisonRecord]] = {}
    for comparison in loss.comparisons:
        if (comparison.implementation, comparison.reference) == (variant, implementation):
            groups.setdefault(setting_text(comparison), []).append(comparison)
    for setting, group in groups.items():
        taken = [m.compile_seconds for m in mine if setting_text(m) == setting and m.compile_seconds is not None]
        compile_s = f"; to compile took {seconds_text(max(taken))}" if taken else ""
        ordered = sorted(group, key=lambda c: _elements(c.sizes))
        reasons.append(f"compiled, against its eager form on {setting}: {_places(ordered)}{compile_s}")
    skipped = [m.reason for m in mine if m.status == "skipped" and m.reason]
    return list(dict.fromkeys(reasons or [f"its compiled form was not timed: {reason}" for reason in skipped[:1]]))


def _uncompared(loss: LossRecord, implementation: str) -> list[str]:
    """Sizes at which only the implementation was measured: what they cost is known, what they gain is not."""
    compared = {place_of(c) for c in loss.comparisons if c.implementation == implementation}
    if not compared:
        return []  # said once, as an unknown speed
    sizes: dict[str, list[str]] = {}
    for m in loss.measurements:
        if m.implementation == implementation and m.status == "measured" and place_of(m) not in compared:
            sizes.setdefault(setting_text(m), []).append(size_text(m.sizes, m.densities))
    return [f"not compared with {loss.reference} on {setting}: {_listed(found)}" for setting, found in sizes.items()]


def main_comparisons(loss: LossRecord) -> list[ComparisonRecord]:
    """Comparisons with the reference, or with what stands in for it where it is too slow.

    Those of compiled variants with their eager forms stand apart.
    """
    return [c for c in loss.comparisons if c.reference == loss.reference or c.implementation != c.reference + SUFFIX]


def place_of(record: ComparisonRecord | MeasurementRecord) -> tuple[str, str]:
    """Setting and input: what is compared is compared at one place."""
    return (setting_text(record), size_text(record.sizes, record.densities))


_OWN_CLOCK = {"cpu": "wall", "cuda": "events"}
_CLOCK_TEXT = {"wall": "wall clock of the host", "events": "events on the stream", "graph": "replay of a CUDA graph"}


def setting_text(record: ComparisonRecord | MeasurementRecord | GrowthRecord | CrossoverRecord) -> str:
    """How something was timed, such as ``cpu, float32, full pass``; cache and clock where they are not the usual ones."""
    parts = [record.device, record.dtype, f"{record.pass_name} pass"]
    if record.cache != "warm":
        parts.append(f"{record.cache} cache")
    if record.clock != _OWN_CLOCK.get(record.device.partition(":")[0], "wall"):
        parts.append(_CLOCK_TEXT.get(record.clock, record.clock))
    return ", ".join(parts)


def _sentence(ordered: Sequence[ComparisonRecord]) -> str:
    first = ordered[0]
    return f"against {first.reference} on {setting_text(first)}: {_places(ordered)}"


def _places(ordered: Sequence[ComparisonRecord]) -> str:
    """Where it is faster, slower and equally fast, in order of size."""
    by_verdict = {
        verdict: [c for c in ordered if c.verdict == verdict]
        for verdict in ("faster", "slower", "equivalent", "inconclusive")
    }
    words = {"faster": "faster", "slower": "slower", "equivalent": "equally fast", "inconclusive": "open"}
    parts = [
        f"{words[verdict]} at {_listed([_at(comparison) for comparison in found])}"
        for verdict, found in by_verdict.items()
        if found
    ]
    return f"{'; '.join(parts)}{_crossover(by_verdict)}"


def _crossover(by_verdict: Mapping[str, Sequence[ComparisonRecord]]) -> str:
    """Where one overtakes the other; both sequences are in order of size."""
    faster, slower = by_verdict["faster"], by_verdict["slower"]
    if not slower:
        return ""
    if not faster:
        return "; faster at no measured size"
    if _elements(slower[-1].sizes) < _elements(faster[0].sizes):
        return f"; it overtakes between {_input(slower[-1])} and {_input(faster[0])}"
    if _elements(faster[-1].sizes) < _elements(slower[0].sizes):
        return f"; it is overtaken between {_input(faster[-1])} and {_input(slower[0])}"
    return "; no single crossover"


def _at(comparison: ComparisonRecord) -> str:
    speedup = f" ({speedup_text(comparison.speedup)})" if comparison.speedup is not None else ""
    return f"{_input(comparison)}{speedup}"


def _input(record: ComparisonRecord | MeasurementRecord) -> str:
    return size_text(record.sizes, record.densities)


def _elements(sizes: Mapping[str, Any]) -> int:
    return prod(prod(size) if isinstance(size, (list, tuple)) else size for size in sizes.values())


def speedup_text(speedup: float | None) -> str:
    """A ratio to three significant digits, such as ``1.25×``; ``unknown`` where there is none."""
    if speedup is None:
        return "unknown"
    return f"{speedup:.0f}×" if speedup >= 100 else f"{speedup:.3g}×"


def size_text(sizes: Mapping[str, Any], densities: Mapping[str, Any] | None = None) -> str:
    """Sizes for a person, such as ``N=128, D=64, rest=2×3``, and ``1 % of mask`` where a tensor was thinned."""
    parts = [
        f"{name}={'×'.join(map(str, size)) or '()' if isinstance(size, (list, tuple)) else size}"
        for name, size in sizes.items()
    ]
    parts += [f"{100 * density:g} % of {name}" for name, density in (densities or {}).items()]
    return ", ".join(parts) or "scalar"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
