"""Which implementation of a loss to take, and why: a pure function of its record.

Of those that may be adopted, and the reference where it has no error, the fastest is taken; of those that no interval tells
apart from it, the one with the best verdict, then the fewest warnings, then the least memory.  All speeds stand on one
baseline: the comparisons at one size and setting that hold most implementations, of these a full pass, and of these the
largest size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.judging import reasons, speed
from harness.results.measured import Comparison
from harness.results.schema import ADOPT, CAVEATS, DO_NOT_ADOPT, REFERENCE, LossRecord, Report, VerdictRecord
from harness.results.words import causes, plural

_BEST_FIRST = (ADOPT, CAVEATS, REFERENCE)


@dataclass(frozen=True)
class Option:
    """One implementation in the choice.

    Args:
        implementation: its name.
        verdict: its verdict.
        fact: what decides about it, in a few words.
        speedup: time of the baseline over its own, 1 for the baseline; ``None`` where unknown.
        low: lower end of the 95 % interval of the speedup.
        high: upper end.
        peak_bytes: its peak memory at the same place; ``None`` where unknown.
        warnings: how many causes of warnings it has.
    """

    implementation: str
    verdict: str
    fact: str
    speedup: float | None = None
    low: float | None = None
    high: float | None = None
    peak_bytes: float | None = None
    warnings: int = 0


@dataclass(frozen=True)
class Choice:
    """Which implementation to take; ``taken`` is ``None`` where none may be adopted.

    Args:
        loss: the name of the loss.
        taken: the recommended one.
        others: the rest, the fastest first and what is wrong at the end.
        baseline: what every speedup is over; empty where nothing was compared.
        place: setting and size of the speedups, such as ``cpu, float32, full pass at N=128``.
        checked: what was checked of the recommended one, or of all where there is none.
        unchecked: what was not, one sentence each.
    """

    loss: str
    taken: Option | None
    others: tuple[Option, ...]
    baseline: str
    place: str
    checked: str
    unchecked: tuple[str, ...]

    @property
    def options(self) -> tuple[Option, ...]:
        """All of them, the recommended one first."""
        return (*([self.taken] if self.taken else []), *self.others)

    @property
    def sentence(self) -> str:
        """The recommendation in one sentence."""
        if self.taken is None:
            reference = next((option for option in self.others if option.verdict == REFERENCE), None)
            why = f": {reference.implementation}, the reference, is {reference.fact}" if reference else ""
            return f"Take none of them yet{why}."
        if self.taken.verdict == REFERENCE and not self.others:
            return f"Only the reference {self.taken.implementation} is there."
        return f"Take {self.taken.implementation}: {self.taken.fact}."


def choose(loss: LossRecord) -> Choice:
    """The choice between the implementations of one judged loss."""
    group = _baseline(loss)
    options = [_option(loss, verdict, group) for verdict in loss.verdicts]
    free = [o for o in options if o.verdict in _BEST_FIRST and not loss.is_wrong(o.implementation)]
    taken = _best(free)
    others = sorted((o for o in options if o is not taken), key=_rank)
    return Choice(
        loss=loss.name,
        taken=taken,
        others=tuple(others),
        baseline=group[0].reference if group else "",
        place=f"{speed.setting_text(group[0])} at {speed.input_text(group[0])}" if group else "",
        checked=_checked(loss, taken.implementation if taken else ""),
        unchecked=_unchecked(loss, taken.implementation if taken else ""),
    )


def sentences(report: Report) -> dict[str, str]:
    """Loss -> its recommendation, where there is more than one implementation to choose from."""
    return {loss.name: choose(loss).sentence for loss in report.losses if len(loss.verdicts) > 1}


def _baseline(loss: LossRecord) -> Sequence[Comparison]:
    groups: dict[tuple[str, tuple[str, str]], list[Comparison]] = {}
    for c in loss.comparisons:
        if c.speedup is not None and c.implementation in loss.implementations:
            groups.setdefault((c.reference, speed.place_of(c)), []).append(c)
    return max(
        groups.values(),
        key=lambda g: (len(g), g[0].pass_name == "full", speed.elements(g[0].sizes), g[0].reference == loss.reference),
        default=(),
    )


def _option(loss: LossRecord, verdict: VerdictRecord, group: Sequence[Comparison]) -> Option:
    name = verdict.implementation
    found = next((c for c in group if c.implementation == name), None)
    is_baseline = bool(group) and group[0].reference == name
    place = speed.place_of(group[0]) if group else None
    here = (m for m in loss.measurements if m.implementation == name and speed.place_of(m) == place)
    peak = next((m.costs.get("peak_bytes") for m in here), None)
    bounds = (found.speedup, found.low, found.high) if found else (1.0, 1.0, 1.0) if is_baseline else (None,) * 3
    facts = {
        severity: [
            f.fact or f.title
            for f in reasons.gravest_first(f for f, _ in causes(loss, severity))
            if f.implementation == name
        ]
        for severity in ("error", "warning")
    }
    fact = _fact(loss, verdict, facts, _speed(found, is_reference=is_baseline or name == loss.reference))
    return Option(name, verdict.verdict, fact, *bounds, peak, len(facts["warning"]))


def _fact(loss: LossRecord, verdict: VerdictRecord, facts: Mapping[str, Sequence[str]], how: str) -> str:
    """What a reader has to know first: what is wrong, else how fast it is, with the gravest warning."""
    if facts["error"]:
        return f"wrong: {_first(facts['error'], 'error')}"
    if verdict.verdict == DO_NOT_ADOPT:
        return next(iter(reasons.differing(loss, verdict.implementation)), verdict.sentence)
    if verdict.verdict not in _BEST_FIRST:
        return verdict.sentence.removeprefix("Not decided: ").rstrip(".")
    if facts["warning"]:
        return f"{how}; {_first(facts['warning'], 'warning')}"
    passed = reasons.outcomes(loss, verdict.implementation, "passed")
    return f"{how}; {plural(len(passed), 'rule')} found nothing wrong"


def _first(facts: Sequence[str], severity: str) -> str:
    return facts[0] + (f" (and {plural(len(facts) - 1, severity)} more)" if facts[1:] else "")


def _speed(found: Comparison | None, *, is_reference: bool) -> str:
    if found is None:
        return "none without an error is known to be faster" if is_reference else "its speed was not compared"
    if found.verdict == "equivalent":
        return f"as fast as {found.reference}"
    low, high = speed.speedup_text(found.low).removesuffix("×"), speed.speedup_text(found.high)
    return f"{speed.speedup_text(found.speedup)} as fast as {found.reference} ({low} to {high})"


def _best(free: Sequence[Option]) -> Option | None:
    fastest = max((o.low for o in free if o.low is not None), default=0.0)
    near = [o for o in free if (o.high or 0.0) >= fastest] or list(free)
    return min(
        near, key=lambda o: (_BEST_FIRST.index(o.verdict), o.warnings, o.peak_bytes or float("inf")), default=None
    )


def _rank(option: Option) -> tuple[bool, bool, float]:
    return option.verdict == DO_NOT_ADOPT, option.verdict not in _BEST_FIRST, -(option.speedup or 0.0)


def _checked(loss: LossRecord, name: str) -> str:
    ran = [o for o in loss.outcomes if name in ("", o.implementation) and o.status in ("passed", "failed", "waived")]
    codes, devices = {o.rule for o in ran}, dict.fromkeys(o.device for o in ran)
    return f"{plural(len(codes), 'rule')} on {sum(o.examples for o in ran):,} inputs, {', '.join(devices) or 'nowhere'}"


def _unchecked(loss: LossRecord, name: str) -> tuple[str, ...]:
    """Devices on which nothing ran, what timed out or crashed, and that no reference held it."""
    lines = [line for who in loss.implementations if name in ("", who) for line in reasons.idle_devices(loss, who)]
    lines += [line for who in loss.implementations if name in ("", who) for line in reasons.broken(loss, who)]
    lines += [] if loss.reference else ["no reference: it is held to its declaration alone"]
    lines += [] if any(device.startswith("cuda") for device in loss.devices) else ["CUDA: nothing was run there"]
    lines += [loss.missing] if loss.missing else []
    return tuple(dict.fromkeys(lines))
