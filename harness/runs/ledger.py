"""What is known of a run so far, and the report on it: planned, found, measured, missing."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import HarnessError, selected_codes
from harness.judging.baseline import Baseline, dumps, marked, unseen, updated
from harness.judging.verdict import with_verdicts
from harness.report.writer import now, write_text
from harness.results.observer import UNSEEN, Observer, Step
from harness.results.rule_texts import rule_texts
from harness.results.schema import CRASHED, LossRecord, Report, loss_dumps, loss_loads, merged, plain
from harness.results.words import plural

if TYPE_CHECKING:
    from harness.results.measured import Cache, ClockName, Pass

Phase = Literal["verify", "calibrate", "benchmark"]


@dataclass(frozen=True)
class Request:
    """What a run is asked for.

    Args:
        profile: quick, ci or thorough.
        seed: of the cases and of the order in which implementations are timed.
        devices: where to verify and time.
        codes: rules to run; those of the profile where ``None``.
        implementations: those to look at; all where ``None``.
        budget_s: seconds of timing, per loss.
        baseline: findings that are accepted.
        is_metered: whether to count where the time of the checks goes.
        is_timed: whether to time; else exact costs alone are taken.
        sizes: what to measure at; what a loss declares where ``None``.
        sweep: for each symbol, the sizes that it takes while the others have the first of ``sizes``.
        command: the command line that asks for it, as the report will show it.
        densities: see `harness.timing.benchmark.benchmark`, as for ``passes``, ``dtypes`` (by name), ``caches``, ``clocks`` and ``compiled``.
    """

    profile: str = "ci"
    seed: int = 0
    devices: tuple[str, ...] = ("cpu",)
    codes: tuple[str, ...] | None = None
    implementations: tuple[str, ...] | None = None
    budget_s: float = 30.0
    baseline: Baseline = frozenset()
    is_metered: bool = False
    is_timed: bool = True
    sizes: tuple[dict[str, Any], ...] | None = None
    sweep: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    densities: tuple[dict[str, float], ...] = ({},)
    passes: tuple[Pass, ...] = ("forward", "full")
    dtypes: tuple[str, ...] = ("float32",)
    caches: tuple[Cache, ...] | None = None
    clocks: tuple[ClockName, ...] | None = None
    compiled: bool = False
    command: str = ""

    def to_json(self) -> dict[str, Any]:
        """What another process needs to do a part of it; the baseline judges what comes back and stays here."""
        told = dict(vars(self))
        del told["baseline"]
        return {name: plain(value) for name, value in told.items()}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Request:
        """The request that `to_json` told."""
        return Request(**{name: _frozen(value) for name, value in data.items()})


def _frozen(value: Any) -> Any:
    """Lists are tuples everywhere in a request, in sizes of several axes too."""
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    if isinstance(value, dict):
        return {name: _frozen(item) for name, item in value.items()}
    return value


@dataclass(frozen=True)
class Planned:
    """What is to be done about one loss.

    Args:
        record: of which nothing is known yet; its implementations are those that are looked at.
        checks: (implementation, code of a rule), in their order.
        trusted: the reference, also where it is the only implementation.
    """

    record: LossRecord
    checks: tuple[tuple[str, str], ...]
    trusted: str

    @property
    def name(self) -> str:
        """Of the loss."""
        return self.record.name

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "record": loss_dumps(self.record),
            "checks": [list(pair) for pair in self.checks],
            "trusted": self.trusted,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Planned:
        """The plan that `to_json` told."""
        checks = tuple((implementation, code) for implementation, code in data["checks"])
        return Planned(loss_loads(data["record"]), checks, data["trusted"])


def chosen_codes(select: Sequence[str], ignore: Sequence[str]) -> tuple[str, ...] | None:
    """The codes that are selected and not ignored; ``None`` where nothing was said.

    Raises:
        HarnessError: a code or prefix that names no rule (with the nearest one), or nothing left.
    """
    if not select and not ignore:
        return None
    planned = [code for code in rule_texts() if code != CRASHED]
    chosen = selected_codes(select, planned) if select else planned
    ignored = selected_codes(ignore, planned) if ignore else ()
    left = tuple(code for code in chosen if code not in ignored)
    if not left:
        raise HarnessError(f"no rule is left: selected {list(select) or 'all'}, ignored {list(ignore)}")
    return left


def why_absent(device: str) -> str:
    """Why nothing can run on ``device`` here; empty where it can."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return ""
    import torch

    from harness.calls import devices

    if devices.is_barred():
        return f"{device}: this process is a fork of one that has used CUDA, and cannot use it"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"{device}: torch sees {count} CUDA devices here" if int(index or 0) >= count else ""


def check_step(loss: str, implementation: str, code: str) -> Step:
    """One check, for whoever looks on."""
    return Step(code, f"{loss} / {implementation} / {code}")


def timing_step(plan: Planned, request: Request) -> Step:
    """The timing of one loss, for whoever looks on."""
    what = "timing" if request.is_timed else "counting"
    text = f"{what} {plan.name}, {plural(len(plan.record.implementations), 'implementation')}"
    return Step(what, text, request.budget_s if request.is_timed else None)


def _calibration_step(request: Request) -> Step:
    from harness.timing.calibrate import GROUP_S

    return Step("calibration", "timing the harness against itself", min(request.budget_s, GROUP_S))


class Ledger(ABC):
    """What is known of a run.

    Args:
        plans: what is to be done.
        request: what is asked for.
        absent: devices that are not where it runs, and why; by default those that this process lacks.

    Raises:
        HarnessError: none of the devices is there.
    """

    def __init__(self, plans: Sequence[Planned], request: Request, absent: Mapping[str, str] | None = None) -> None:
        self.request = request
        self.plans = tuple(plans)
        self.failures: dict[str, dict[str, Any]] = {}
        self.environment: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self.is_verified = False
        self.untimed: set[str] = set()
        if absent is None:  # else whoever runs the jobs has said so, and asking here might start CUDA in this process
            absent = {device: reason for device in request.devices if (reason := why_absent(device))}
        self.absent = dict(absent)
        if len(self.absent) == len(request.devices):
            raise HarnessError("; ".join(self.absent.values()))
        self._parts: dict[str, list[LossRecord]] = {plan.name: [plan.record] for plan in self.plans}

    @property
    def present(self) -> str:
        """The first device that is here."""
        return next(device for device in self.request.devices if device not in self.absent)

    def parts(self, plan: Planned) -> list[LossRecord]:
        """What is known of one loss, the same whatever came first."""
        return self._parts[plan.name]

    def known(self, plan: Planned) -> LossRecord:
        """The same as one record."""
        return merged(self.parts(plan))

    def expect(self, phases: Sequence[Phase]) -> list[Step]:
        """Say which phases are to run, and get their steps, in order.

        What does not come about of them is missing from the report, however early the run ends.
        """
        self.is_verified = "verify" in phases
        self.untimed = {plan.name for plan in self.plans} if "benchmark" in phases else set()
        return [step for phase in phases for step in self._planned(phase)]

    def _planned(self, phase: Phase) -> list[Step]:
        if phase == "verify":
            return [
                check_step(plan.name, *pair)
                for plan in self.plans
                for _ in self.request.devices
                for pair in plan.checks
            ]
        if phase == "benchmark":
            return [timing_step(plan, self.request) for plan in self.plans]
        return [_calibration_step(self.request)] if self.request.is_timed else []

    def perform(self, phase: Phase, observer: Observer = UNSEEN) -> None:
        """Run one phase to its end."""
        {"verify": self.verify, "calibrate": self.calibrate, "benchmark": self.benchmark}[phase](observer)

    @abstractmethod
    def verify(self, observer: Observer = UNSEEN) -> None:
        """Run every planned implementation x rule on every device."""

    @abstractmethod
    def benchmark(self, observer: Observer = UNSEEN) -> None:
        """Time what is right: an implementation with errors is not ranked, and nothing is ranked against one."""

    def calibrate(self, observer: Observer = UNSEEN) -> None:
        """Time a function against itself, on the first device that is here: what the machine scatters by just now.

        It takes no longer than one loss may; where that is too short, the report says so.
        """
        if not self.request.is_timed:
            return
        from harness.timing.calibrate import SHORT_PAIRS, calibrate

        observer.begin(_calibration_step(self.request))
        started = time.perf_counter()
        try:
            made = calibrate(
                SHORT_PAIRS, device=self.present, budget_s=self.request.budget_s, seed=self.request.seed, slowdowns=()
            )
            self.environment["calibration"] = plain(made.summary())
        except HarnessError as error:
            self.environment["calibration"] = {"levels": [], "notes": [str(error)]}
        self.seconds["calibration"] = time.perf_counter() - started

    def report(self) -> Report:
        """The report on what is done so far; a loss that is not finished says what is missing."""
        for device in self.request.devices:
            if device not in self.environment and device not in self.absent:
                from harness.calls.environment import describe

                self.environment[device] = plain(describe(device))
        known = Report(
            seed=self.request.seed,
            profile=self.request.profile,
            devices=self.request.devices,
            environment=dict(self.environment),
            losses=tuple(self._record(plan) for plan in self.plans),
            seconds=dict(self.seconds),
            made=now(),
            command=self.request.command,
        )
        made = with_verdicts(known)
        gone = [f"accepted, but no longer found: {e.text}" for e in unseen(self.request.baseline, made)]
        return replace(made, notes=(*made.notes, *gone))

    def _record(self, plan: Planned) -> LossRecord:
        record = marked(self.known(plan), self.request.baseline)
        record = replace(record, implementations=plan.record.implementations)
        planned = len(plan.checks) * len(self.request.devices)
        if self.is_verified and len(record.outcomes) < planned:
            return replace(record, missing=f"interrupted: {len(record.outcomes)} of {planned} planned checks ran")
        if plan.name in self.untimed:
            return replace(record, missing="interrupted before it was timed")
        return record

    def accept(self, path: Path) -> None:
        """Write a baseline that accepts what was found; entries of what was not checked stay.

        Raises:
            FolderError: the file cannot be written.
        """
        accepted = updated(self.request.baseline, self.report())
        write_text(path, dumps(accepted))
        self.request = replace(self.request, baseline=accepted)

    @property
    def has_results(self) -> bool:
        """Whether anything was checked or timed yet."""
        known = [part for plan in self.plans for part in self.parts(plan)]
        return any(part.outcomes or any(m.is_planned for m in part.measurements) for part in known)
