"""Two reports of the same losses: exact costs must not grow, nothing may break; times are evidence.

Exact costs of the same call under the same torch differ by nothing, so that any growth is the code's.  Times of two runs
are not paired, so that they decide nothing here: they stand beside, and where both runs timed a reference in paired rounds
with an implementation, so does what became of the speedup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, nearest
from harness.judging.speed import main_comparisons, place_of
from harness.results.measured import Comparison, Measurement
from harness.results.schema import LossRecord, Report, ReportError, json_text, loads

# What must be equal for exact costs to be comparable: torch chooses the calls, the machine and the device its kernels.
_COSTS_REST_ON = ("torch", "machine", "default_dtype")
_TIMES_REST_ON = ("cpu", "threads", "allocator", "timed_in", "python")

# How much of a call no formula for FLOPs is known for: it says what `flops` leaves out, and is no cost itself.
_LEFT_OUT = "flops_left_out_calls"
# Taken by further calls, which slow calls are spared: unknown on a slower machine, and no sign of a worse loss.
_OF_FURTHER_CALLS = ("peak_bytes", "kernel_launches", "host_syncs")

Place = tuple[str, str, str, str]  # loss, implementation, setting, input
_Environment = Mapping[str, Any]


class NotComparableError(HarnessError, ValueError):
    """Two reports that cannot be held against each other."""


@dataclass(frozen=True)
class CostChange:
    """One exact cost of one call that is not what it was."""

    place: Place
    metric: str
    old: int
    new: int
    allowed: float = 0.0

    @property
    def is_regression(self) -> bool:
        """Whether it grew by more than the part that is allowed."""
        return self.new > self.old * (1 + self.allowed)


@dataclass(frozen=True)
class TimeChange:
    """Median seconds per call in both runs, and the speedups over the reference, each paired within its own run."""

    place: Place
    old_seconds: float
    new_seconds: float
    old_speedup: Comparison | None = None
    new_speedup: Comparison | None = None

    @property
    def is_shifted(self) -> bool:
        """Whether the intervals of the two speedups have nothing in common: evidence that the code changed its speed."""
        old, new = self.old_speedup, self.new_speedup
        if old is None or new is None or None in (old.low, old.high, new.low, new.high):
            return False
        return bool(new.high < old.low or new.low > old.high)  # type: ignore[operator]


@dataclass(frozen=True)
class Difference:
    """What changed between two reports.

    Args:
        compared: number of exact costs that both have.
        costs: those that changed.
        times: of everything that was timed in both; empty where the times are not comparable.
        times_apart: why they are not.
        broken: what worked before and fails now, has a new error, or has no exact costs any more: one sentence each.
        mended: the reverse.
        gone: what only the old report has.
        added: what only the new report has.
    """

    compared: int
    costs: tuple[CostChange, ...]
    times: tuple[TimeChange, ...] = ()
    times_apart: str = ""
    broken: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    @property
    def regressions(self) -> tuple[CostChange, ...]:
        """Costs that grew by more than is allowed."""
        return tuple(change for change in self.costs if change.is_regression)

    @property
    def ok(self) -> bool:
        """Whether no exact cost grew and nothing broke."""
        return not self.regressions and not self.broken

    def to_json(self) -> str:
        """The difference as JSON text."""
        data = {"ok": self.ok, "regressions": [asdict(change) for change in self.regressions], **asdict(self)}
        return json_text(data)


def read(path: Path) -> Report:
    """The report in a file, or in the `report.json` of a folder.

    Raises:
        NotComparableError: there is none, or it cannot be read.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        return loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ReportError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise NotComparableError(
            f"{file}: {reason}; `loss-harness report` writes report.json, `loss-harness bench TARGET --save FILE` a file "
            f"of measurements alone"
        ) from error


def allowances(given: tuple[str, ...], *reports: Report) -> dict[str, float]:
    """``("peak_bytes=5",)`` -> ``{"peak_bytes": 0.05}``: by what part a cost may grow.

    Raises:
        NotComparableError: not of that form, or a cost that no report has.
    """
    known = sorted({name for report in reports for _, m in _measurements(report) for name in m.costs})
    allowed = {}
    for text in given:
        name, _, percent = text.partition("=")
        try:
            part = float(percent) / 100
        except ValueError:
            part = -1.0
        if name not in known or not 0 <= part < float("inf"):
            raise NotComparableError(
                f"got --allow {text!r}, expected COST=PERCENT with a percentage that is not negative and a cost out of "
                f"{known}{nearest(name, known)}"
            )
        allowed[name] = part
    return allowed


def compare(old: Report, new: Report, *, allowed: Mapping[str, float] | None = None) -> Difference:
    """Hold a report against an earlier one.

    Args:
        old: the earlier one.
        new: the later one.
        allowed: by what part a cost may grow, by its name; nothing may by default.

    Raises:
        NotComparableError: other inputs (seed), another torch, machine, default dtype or GPU, or nothing in common.
    """
    reasons = _apart(old, new)
    if reasons:
        raise NotComparableError(f"exact costs are not comparable: {'; '.join(reasons)}; make both reports alike")
    before, after = dict(_measurements(old)), dict(_measurements(new))
    common = [place for place in after if place in before]
    counts = {place: (_known(before[place]), _known(after[place])) for place in common}
    known = sorted((place, metric) for place, (was, now) in counts.items() for metric in was.keys() & now.keys())
    checked = _checks(old).keys() & _checks(new).keys()
    if not known and not checked:
        raise NotComparableError(
            f"the reports have nothing in common: the old one is about {_contents(old)}, the new one about {_contents(new)}"
        )
    costs = [
        CostChange(place, metric, was[metric], now[metric], (allowed or {}).get(metric, 0.0))
        for place, metric in known
        for was, now in (counts[place],)
        if was[metric] != now[metric]
    ]
    times_apart = _times_apart(old, new)
    return Difference(
        compared=len(known),
        costs=tuple(costs),
        times=() if times_apart else tuple(_times(old, new, before, after)),
        times_apart=times_apart,
        broken=(*_broken(old, new), *_uncounted(old, new)),
        mended=(*_broken(new, old), *_uncounted(new, old)),
        gone=tuple(" / ".join(place) for place in before if place not in after),
        added=tuple(" / ".join(place) for place in after if place not in before),
    )


def _measurements(report: Report) -> Iterator[tuple[Place, Measurement]]:
    for loss in report.losses:
        for measurement in loss.measurements:
            if measurement.is_planned:
                yield (loss.name, measurement.implementation, *place_of(measurement)), measurement


def _known(measurement: Measurement) -> dict[str, int]:
    """Costs that are known as a number; unknown is not zero, and FLOPs are unknown where calls are left out of them."""
    left_out = {_LEFT_OUT, "flops"} if measurement.costs.get(_LEFT_OUT) else {_LEFT_OUT}
    return {name: value for name, value in measurement.costs.items() if value is not None and name not in left_out}


def _uncounted(old: Report, new: Report) -> Iterator[str]:
    """What has lost its exact costs: it became too slow to be counted, or does not fit any more.

    References are loops that a slower machine has no time for, and are left out.
    """
    references = {(loss.name, loss.reference) for loss in new.losses}
    before = dict(_measurements(old))
    for place, measurement in _measurements(new):
        if place not in before or place[:2] in references or measurement.status == "failed":
            continue
        lost = _known(before[place]).keys() - _known(measurement) - {"flops", *_OF_FURTHER_CALLS}
        if lost:
            why = f": {measurement.reason}" if measurement.reason else ""
            yield f"{' / '.join(place)}: {len(lost)} exact costs that were known are not any more{why}"


def _contents(report: Report) -> str:
    return ", ".join(loss.name for loss in report.losses) or "no loss"


def _apart(old: Report, new: Report) -> list[str]:
    """Why exact costs cannot be held against each other."""
    found = [] if old.seed == new.seed else [f"seed {old.seed} against {new.seed}, so the inputs differ"]
    for device in (device for device in new.devices if device in old.devices):
        if device not in old.environment or device not in new.environment:
            continue  # the device is absent in one of them, and so are its measurements
        before, after = old.environment[device], new.environment[device]
        if not isinstance(before, Mapping) or not isinstance(after, Mapping):
            found.append(f"what {device} was measured under is not recorded in one of them")
            continue
        found += [_unequal(name, before, after) for name in _COSTS_REST_ON if before.get(name) != after.get(name)]
        before_gpu, after_gpu = before.get("gpu") or {}, after.get("gpu") or {}
        if before_gpu.get("name") != after_gpu.get("name"):
            found.append(f"{device} is {before_gpu.get('name')} against {after_gpu.get('name')}")
    return list(dict.fromkeys(found))


def _times_apart(old: Report, new: Report) -> str:
    before, after = old.environment.get("timing") or {}, new.environment.get("timing") or {}
    if not before or not after:
        return "nothing was timed in the old report" if not before else "nothing was timed in the new report"
    names = [name for name in _TIMES_REST_ON if before.get(name) != after.get(name)]
    return "; ".join(_unequal(name, before, after) for name in names)


def _unequal(name: str, old: _Environment, new: _Environment) -> str:
    return f"{name} {old.get(name)} against {new.get(name)}"


def _times(
    old: Report, new: Report, before: Mapping[Place, Measurement], after: Mapping[Place, Measurement]
) -> Iterator[TimeChange]:
    old_speedups, new_speedups = dict(_comparisons(old)), dict(_comparisons(new))
    for place, measurement in after.items():
        earlier = before[place].median_seconds if place in before else None
        if earlier is not None and measurement.median_seconds is not None:
            speedups = (old_speedups.get(place), new_speedups.get(place))
            if None not in speedups and speedups[0].reference != speedups[1].reference:  # type: ignore[union-attr]
                speedups = (None, None)
            yield TimeChange(place, earlier, measurement.median_seconds, *speedups)


def _comparisons(report: Report) -> Iterator[tuple[Place, Comparison]]:
    for loss in report.losses:
        for comparison in main_comparisons(loss):
            yield (loss.name, comparison.implementation, *place_of(comparison)), comparison


def _checks(report: Report) -> dict[tuple[str, str, str, str], str]:
    """(loss, implementation, rule, device) -> status of the check."""
    return {(loss.name, o.implementation, o.rule, o.device): o.status for loss in report.losses for o in loss.outcomes}


def _broken(old: Report, new: Report) -> Iterator[str]:
    """What is wrong in the new report and was not in the old one, as far as both looked at it."""
    before = _errors(old)
    looked_at = set(_checks(old))
    for key, text in _errors(new).items():
        if key not in before and key in looked_at:
            yield text
    measured = dict(_measurements(old))
    for place, measurement in _measurements(new):
        earlier = measured.get(place)
        if measurement.status == "failed" and earlier is not None and earlier.status != "failed":
            yield f"{' / '.join(place)}: failed, but was {earlier.status}: {measurement.reason}"


def _errors(report: Report) -> dict[tuple[str, str, str, str], str]:
    found: dict[tuple[str, str, str, str], str] = {}
    for loss in report.losses:
        for finding in loss.findings:
            if finding.severity == "error" and not finding.accepted:
                key = (loss.name, finding.implementation, finding.rule, finding.device)
                found.setdefault(key, f"{finding.header}: {finding.fact}")
        for outcome in loss.outcomes:
            if outcome.status in ("crashed", "timed out"):
                key = (loss.name, outcome.implementation, outcome.rule, outcome.device)
                found.setdefault(key, f"{' / '.join(key)}: {outcome.status}: {outcome.reason}")
    return found


def only(report: Report, losses: tuple[str, ...]) -> Report:
    """The report on some of its losses.

    Raises:
        NotComparableError: a loss that it has not.
    """
    known = [loss.name for loss in report.losses]
    for name in losses:
        if name not in known:
            raise NotComparableError(f"no loss {name!r} in the report, which is about {known}{nearest(name, known)}")
    kept: tuple[LossRecord, ...] = tuple(loss for loss in report.losses if not losses or loss.name in losses)
    return replace(report, losses=kept)
