"""What a verdict means for whoever has to decide: one sentence, where it holds, and what would settle what is open."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from math import ceil
from statistics import median

from harness.judging import reasons, speed
from harness.judging.speed import listed
from harness.results.findings import Finding
from harness.results.measured import Comparison
from harness.results.schema import ADOPT, CAVEATS, CRASHED, DO_NOT_ADOPT, REFERENCE, LossRecord
from harness.results.words import plural

_LONGER_S = 120
# A trial may take a quarter of the budget, and is counted, which takes up to twice as long; two rounds take less.
_CALLS = 8


def sentence(loss: LossRecord, implementation: str, verdict: str) -> str:
    """The verdict in one sentence."""
    errors = _found(loss, implementation, "error")
    if verdict == REFERENCE:
        if errors:
            return f"The reference has an error: {_failing(errors)}; mend it first, for the others are held to it."
        warned = _warned(loss, implementation)
        return f"The reference, to which the others are held: {'; '.join(warned) or _passed(loss, implementation)}."
    if verdict == DO_NOT_ADOPT:
        return f"Do not adopt it: {_failing(errors) if errors else _differing(loss, implementation)}."
    if verdict == ADOPT:
        return f"Adopt it: {_passed(loss, implementation)}{_gain(loss, implementation)}."
    if verdict == CAVEATS:
        return f"Adopt it if you can live with this: {'; '.join(_caveats(loss, implementation))}."
    return f"Not decided: {'; '.join(_open(loss, implementation))}."


def scope(loss: LossRecord, implementation: str) -> tuple[str, ...]:
    """On which devices, dtypes and sizes the verdict stands, and at which sizes the order changes."""
    lines = []
    for device in loss.devices:
        ran = [o for o in reasons.outcomes(loss, implementation, "passed", "failed", "waived") if o.device == device]
        examples = sum(outcome.examples for outcome in ran)
        lines += [f"checked on {device}: {plural(len(ran), 'rule')} on {examples:,} drawn inputs"] if ran else []
    mine = [m for m in loss.measurements if (m.implementation, m.status) == (implementation, "measured")]
    for device, dtype in dict.fromkeys((m.device, m.dtype) for m in mine):
        here = [m for m in mine if (m.device, m.dtype) == (device, dtype)]
        passes = listed(list(dict.fromkeys(m.pass_name for m in here)))
        inputs = list(
            dict.fromkeys(speed.input_text(m) for m in sorted(here, key=lambda record: speed.elements(record.sizes)))
        )
        sizes = inputs[0] if len(inputs) == 1 else f"{inputs[0]} to {inputs[-1]} ({len(inputs)} sizes)"
        lines.append(f"timed on {device} in {dtype}, {passes} pass: {sizes}")
    lines += speed.order_changes(loss, implementation)
    if lines and not any(device.startswith("cuda") for device in loss.devices):
        lines.append("says nothing of CUDA, where nothing was run")
    return tuple(lines)


def settle(loss: LossRecord, implementation: str, verdict: str) -> tuple[str, ...]:
    """What to mend, declare or measure next, the decisive first; empty where nothing is open."""
    steps = [*_mend(loss, implementation), *_run_again(loss, implementation)]
    steps += [] if verdict in (REFERENCE, DO_NOT_ADOPT) else _measure(loss, implementation)
    if verdict != REFERENCE:
        steps += _accept(loss, implementation)
        if not loss.reference:
            steps.append(
                "declare a reference: put a loop that one can check against the formula first in `implementations`; without "
                "one, a loss that is consistently wrong passes"
            )
    if implementation == loss.implementations[-1]:  # the one that they were tried on
        steps += loss.suggestions
    return tuple(dict.fromkeys(steps))


def _found(loss: LossRecord, implementation: str, severity: str) -> list[Finding]:
    """Causes alone, the gravest first; what follows from one is mended with it."""
    return reasons.gravest_first(
        finding
        for finding in loss.of(implementation, severity)
        if not finding.accepted and not finding.follows and finding.rule != CRASHED
    )


def _rules(findings: Iterable[Finding]) -> list[Finding]:
    """The first finding of each rule."""
    return list({finding.rule: finding for finding in reversed(list(findings))}.values())[::-1]


def _failing(errors: Sequence[Finding]) -> str:
    rules = _rules(errors)
    if not rules:
        return "a rule found an error"
    more = f", and so {'does' if len(rules) == 2 else 'do'} {listed([f.rule for f in rules[1:]])}" if rules[1:] else ""
    return f"{rules[0].fact or rules[0].title} ({rules[0].rule} fails{more})"


def _differing(loss: LossRecord, implementation: str) -> str:
    places = [text.partition(" it ")[0] for text in reasons.differing(loss, implementation)]
    return f"it is another function than {loss.reference} {listed(places)}, where it was to be timed"


def _passed(loss: LossRecord, implementation: str) -> str:
    codes = {outcome.rule for outcome in reasons.outcomes(loss, implementation, "passed")}
    if not codes:
        return "no rule was checked yet" if loss.missing else "no rule applied"
    return f"{plural(len(codes), 'rule')} found nothing"


def _gain(loss: LossRecord, implementation: str) -> str:
    """How it stands against the reference, and how against those that stand in for it."""
    if not loss.reference:
        return "; it has no reference, so its declaration is all that it was held to"
    mine = [c for c in loss.comparisons if c.implementation == implementation]
    parts = []
    against = [c for c in mine if c.reference == loss.reference and c.speedup is not None]
    faster = [c.speedup for c in against if c.verdict == "faster" and c.speedup is not None]
    if faster and len(faster) == len(against):
        low, high = (speed.speedup_text(value) for value in (min(faster), max(faster)))
        parts.append(f"{low if low == high else f'{low} to {high}'} as fast as {loss.reference}")
    elif against and all(c.verdict == "equivalent" for c in against):
        parts.append(f"as fast as {loss.reference}")
    elif faster:
        parts.append(
            f"faster than {loss.reference} at {len(faster)} of {len(against)} sizes and passes, slower at none"
        )
    rivals = list(dict.fromkeys(c.reference for c in mine if c.reference != loss.reference and c.verdict == "faster"))
    parts += [f"faster than {listed(rivals)} where {loss.reference} is too slow to be timed"] if rivals else []
    return f", and it is {' and '.join(parts)}" if parts else ""


def _warned(loss: LossRecord, implementation: str) -> list[str]:
    """What was found, rule by rule, as a fact rather than by the rule's title."""
    return [
        f"{finding.fact or finding.title} ({finding.rule})"
        for finding in _rules(_found(loss, implementation, "warning"))
    ]


def _caveats(loss: LossRecord, implementation: str) -> list[str]:
    parts = _warned(loss, implementation)
    known = list(dict.fromkeys(outcome.rule for outcome in reasons.outcomes(loss, implementation, "waived")))
    parts += [f"{listed(known)} waived"] if known else []
    accepted = list(dict.fromkeys(finding.rule for finding in loss.of(implementation) if finding.accepted))
    parts += [f"{listed(accepted)} accepted by the baseline"] if accepted else []
    parts += _heads(reasons.idle_devices(loss, implementation))
    against = [c for c in loss.comparisons if (c.implementation, c.reference) == (implementation, loss.reference)]
    if slower := [c for c in against if c.verdict == "slower"]:
        where = "wherever both were timed" if against == slower else f"at {len(slower)} of {len(against)} timings"
        worst = speed.speedup_text(min((c.speedup for c in slower if c.speedup), default=None))
        parts.append(f"slower than {loss.reference} {where} (down to {worst} of its speed)")
    return parts + _heads(reasons.untimed(loss, implementation))


def _heads(sentences: Iterable[str]) -> list[str]:
    """What each says before its colon."""
    return [text.partition(":")[0] for text in sentences]


def _open(loss: LossRecord, implementation: str) -> list[str]:
    parts = [
        f"{outcome.rule} {outcome.status}" for outcome in reasons.outcomes(loss, implementation, "crashed", "timed out")
    ]
    parts += _heads(reasons.blind(loss, implementation))
    parts += [loss.missing] if loss.missing else []
    for ask in (reasons.gradients_unchecked, reasons.unmeasured, reasons.speed_unknown):
        parts += _heads(ask(loss, implementation))
    if speed.open_everywhere(loss, implementation):
        parts.append("whether it is faster or slower is open at every size that was timed")
    else:
        parts += _heads(reasons.slowness_open(loss, implementation))
    return list(dict.fromkeys(parts))


def _mend(loss: LossRecord, implementation: str) -> list[str]:
    steps = []
    for finding in _rules(_found(loss, implementation, "error")):
        again = f"; then replay {finding.failure}" if finding.failure else ""
        steps.append(
            f"mend {finding.rule} ({finding.title}): {finding.hint.strip() or 'see its smallest input'}{again}"
        )
    if reasons.differing(loss, implementation):
        target = shlex.quote(loss.target)
        steps.append(
            f"mend what differs only at larger sizes; look closer: loss-harness verify {target} --select E --profile thorough"
        )
    return steps


def _run_again(loss: LossRecord, implementation: str) -> list[str]:
    target = shlex.quote(loss.target)
    stopped = reasons.outcomes(loss, implementation, "crashed", "timed out")
    steps = []
    if stopped:
        codes = ",".join(dict.fromkeys(outcome.rule for outcome in stopped))
        steps.append(f"find out why: loss-harness verify {target} --select {codes} -v")
    if reasons.gradients_unchecked(loss, implementation):
        steps.append(
            "make its gradient measurable: declare a reference in float64, which needs no slopes, or compute in a wider "
            f"dtype; what was tried: loss-harness verify {target} --select G01,G02 -v"
        )
    if loss.missing:
        steps.append(f"let it finish: loss-harness report {target}")
    for device in loss.devices:
        ran = reasons.outcomes(loss, implementation, "passed", "failed", "waived", "crashed", "timed out")
        if device.startswith("cuda") and not any(outcome.device == device for outcome in ran):
            steps.append(f"run it where there is such a device: loss-harness report {target} --device {device}")
    return steps


def _measure(loss: LossRecord, implementation: str) -> list[str]:
    target = shlex.quote(loss.target)
    mine = [c for c in loss.comparisons if c.implementation == implementation]
    steps = []
    if any(c.verdict == "inconclusive" for c in mine) or reasons.speed_unknown(loss, implementation):
        steps.append(f"time it longer: loss-harness bench {target} --budget {_budget(loss, implementation)}")
    for rival in dict.fromkeys(c.reference for c in mine):
        theirs = [c for c in mine if c.reference == rival]
        pairs = {(c.overtaking, c.overtaken) for c in loss.crossovers}
        is_known = not pairs.isdisjoint({(implementation, rival), (rival, implementation)})
        if {"faster", "slower"} <= {c.verdict for c in theirs} and not is_known and (symbol := _sweep(theirs)):
            steps.append(f"find where {rival} is overtaken: loss-harness bench {target} --sweep {symbol}")
    failed = reasons.outcomes(loss, implementation, "failed")
    is_untried = not (mine or loss.measurements or loss.missing or failed)
    if loss.reference and is_untried and implementation in loss.implementations:
        steps.append(f"time it: declare bench_sizes, or loss-harness bench {target} --sizes B=256")
    return steps


def _budget(loss: LossRecord, implementation: str) -> int:
    """Seconds in which it and the reference can be timed at the size where that is quickest, as far as their times are known."""
    needed: dict[tuple[str, str], dict[str, float]] = {}
    for m in loss.measurements:
        known = m.estimated_seconds or (median(m.seconds_per_call) if m.seconds_per_call else None)
        if known is not None:
            needed.setdefault(speed.place_of(m), {})[m.implementation] = known
    both = [sum(found.get(name, 0.0) for name in (implementation, loss.reference)) for found in needed.values()]
    return max(_LONGER_S, 10 * ceil(_CALLS * min(both, default=0.0) / 10))


def _sweep(comparisons: Sequence[Comparison]) -> str:
    """Four sizes from the smallest to the largest that was timed, of the symbol that grows most; empty where none does."""
    sizes: dict[str, list[int]] = {}
    for comparison in comparisons:
        for symbol, size in comparison.sizes.items():
            if isinstance(size, int) and size > 0:
                sizes.setdefault(symbol, []).append(size)
    ranges = {symbol: (min(found), max(found)) for symbol, found in sizes.items() if min(found) < max(found)}
    if not ranges:
        return ""
    symbol, (low, high) = max(ranges.items(), key=lambda item: item[1][1] / item[1][0])
    steps = [round(low * (high / low) ** (i / 3)) for i in range(4)]
    return f"{symbol}={','.join(map(str, dict.fromkeys(steps)))}"


def _accept(loss: LossRecord, implementation: str) -> list[str]:
    """Ways out of a warning: mend it, narrow what is legal, or say that it is meant."""
    codes = [finding.rule for finding in _rules(_found(loss, implementation, "warning"))]
    if not codes:
        return []
    waivers = ", ".join(f'"{code}": "..."' for code in codes)
    return [f"mend {listed(codes)}, narrow the domains, or say why it is meant: waivers={{{waivers}}}"]
