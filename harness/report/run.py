"""A report under way: verify, then time, then judge; what is done can be shown at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness import rules
from harness.benchmark import benchmark
from harness.calibrate import GROUP_S, SHORT_PAIRS, calibrate
from harness.environment import describe, now
from harness.errors import HarnessError, nearest
from harness.meter import metered
from harness.report import records
from harness.report.baseline import Baseline, dumps, marked, unseen, updated
from harness.report.observer import Observer, Step
from harness.report.schema import CheckTimeRecord, LossRecord, Report, merged, plain
from harness.report.verdict import assemble
from harness.report.writer import write_text
from harness.scaling import swept
from harness.verify import plan, suggested, verify

if TYPE_CHECKING:
    from harness.spec import LossSpec
    from harness.timing.workload import Cache, ClockName, Pass

_UNSEEN = Observer()


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
        densities: see `harness.benchmark.benchmark`, as for ``passes``, ``dtypes`` (by name), ``caches``, ``clocks`` and ``compiled``.
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


def selected_codes(select: Sequence[str], ignore: Sequence[str]) -> tuple[str, ...] | None:
    """The codes that are selected and not ignored; ``None`` where nothing was said.

    Raises:
        HarnessError: a code or prefix that names no rule (with the nearest one), or nothing left.
    """
    if not select and not ignore:
        return None
    chosen = rules.select(select) if select else rules.BATTERY
    ignored = rules.select(ignore) if ignore else ()
    left = tuple(rule.code for rule in chosen if rule not in ignored)
    if not left:
        raise HarnessError(f"no rule is left: selected {list(select) or 'all'}, ignored {list(ignore)}")
    return left


def why_absent(device: str) -> str:
    """Why nothing can run on ``device`` here; empty where it can."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return ""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"{device}: torch sees {count} CUDA devices here" if int(index or 0) >= count else ""


class Run:
    """One run over some losses.

    Args:
        specs: the losses.
        request: what is asked for.

    Raises:
        HarnessError: no rule is planned for a loss, an implementation that no loss has, or none of the devices is here.
    """

    def __init__(self, specs: Sequence[LossSpec], request: Request) -> None:
        self.request = request
        self.chosen = _chosen_implementations(specs, request.implementations)
        self.specs = [spec for spec in specs if self.chosen[spec.name]]
        self.plans = {
            spec.name: plan(spec, rules=request.codes, implementations=self.chosen[spec.name]) for spec in self.specs
        }
        self.parts: dict[str, list[LossRecord]] = {
            spec.name: [records.empty(spec, self.chosen[spec.name])] for spec in self.specs
        }
        self.failures: dict[str, dict[str, Any]] = {}
        self.frames: list[Any] = []
        self.environment: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self.absent = {device: reason for device in request.devices if (reason := why_absent(device))}
        if len(self.absent) == len(request.devices):
            raise HarnessError("; ".join(self.absent.values()))
        self.is_verified = False
        self.untimed: set[str] = set()
        self.refused: dict[str, HarnessError] = {}

    def planned(self, phase: Callable[[Observer], None]) -> list[Step]:
        """The steps of ``verify``, ``calibrate`` or ``benchmark`` of this run; none of anything else."""
        if phase == self.verify:
            pairs = [
                (spec, *pair) for spec in self.specs for _ in self.request.devices for pair in self.plans[spec.name]
            ]
            return [self._check(*pair) for pair in pairs]
        if phase == self.benchmark:
            return [self._timing(spec) for spec in self.specs]
        return [self._calibration] if phase == self.calibrate and self.request.is_timed else []

    def _check(self, spec: LossSpec, implementation: str, code: str) -> Step:
        return Step(code, f"{spec.name} / {implementation} / {code}")

    def _timing(self, spec: LossSpec) -> Step:
        what = "timing" if self.request.is_timed else "counting"
        count = len(self.chosen[spec.name])
        text = f"{what} {spec.name}, {count} implementation{'s' if count > 1 else ''}"
        return Step(what, text, self.request.budget_s if self.request.is_timed else None)

    @property
    def _calibration(self) -> Step:
        return Step("calibration", "timing the harness against itself", min(self.request.budget_s, GROUP_S))

    def verify(self, observer: Observer = _UNSEEN) -> None:
        """Run every planned implementation x rule on every device."""
        self.is_verified = True
        for spec in self.specs:
            started = time.perf_counter()
            for device in self.request.devices:
                for implementation, code in self.plans[spec.name]:
                    observer.begin(self._check(spec, implementation, code))
                    self._verify_one(spec, implementation, code, device)
                    found = marked(self.parts[spec.name][-1], self.request.baseline).findings
                    if new := [finding for finding in found if not finding.accepted]:
                        observer.found(spec.name, new)
            if self.request.codes is None:
                self._suggest(spec)
            self.seconds[f"verify {spec.name}"] = time.perf_counter() - started

    def _verify_one(self, spec: LossSpec, implementation: str, code: str, device: str) -> None:
        if device in self.absent:
            self.parts[spec.name].append(records.skipped(spec, implementation, code, device, self.absent[device]))
            return
        with self._timed(spec, implementation, code, device):
            verification = verify(
                spec,
                profile=self.request.profile,
                rules=[code],
                implementations=[implementation],
                device=device,
                seed=self.request.seed,
            )
            record, failures = records.from_verification(spec, verification)
        self.parts[spec.name].append(record)
        self.failures |= failures

    @contextmanager
    def _timed(self, spec: LossSpec, implementation: str, code: str, device: str) -> Iterator[None]:
        """Record where the time of the block goes, where that is asked for."""
        if not self.request.is_metered:
            yield
            return
        started = time.perf_counter()
        with metered() as meter:
            yield
        inside = (meter.evaluations, meter.loss_seconds, meter.autograd_seconds, meter.watched_seconds)
        spent = CheckTimeRecord(implementation, code, device, time.perf_counter() - started, *inside)
        self.parts[spec.name].append(replace(records.empty(spec, [implementation]), check_times=(spent,)))

    def _suggest(self, spec: LossSpec) -> None:
        """What the latest implementation could declare, on the first device that is here."""
        device = next(device for device in self.request.devices if device not in self.absent)
        profile, seed = self.request.profile, self.request.seed
        latest = self.chosen[spec.name][-1]
        with self._timed(spec, latest, "suggestions", device):
            found = suggested(spec, latest, profile=profile, device=device, seed=seed)
        self.parts[spec.name].append(replace(records.empty(spec, self.chosen[spec.name]), suggestions=found))

    def benchmark(self, observer: Observer = _UNSEEN) -> None:
        """Time what is right: an implementation with errors is not ranked, and nothing is ranked against one."""
        self.untimed = {spec.name for spec in self.specs}
        for spec in self.specs:
            observer.begin(self._timing(spec))
            started = time.perf_counter()
            self.parts[spec.name] += self._benchmark_one(spec)
            self.untimed.discard(spec.name)
            self.seconds[f"benchmark {spec.name}"] = time.perf_counter() - started
        self._refuse_if_nobody_can()

    def calibrate(self, observer: Observer = _UNSEEN) -> None:
        """Time a function against itself, on the first device that is here: what the machine scatters by just now.

        It takes no longer than one loss may; where that is too short, the report says so.
        """
        if not self.request.is_timed:
            return
        observer.begin(self._calibration)
        started = time.perf_counter()
        device = next(device for device in self.request.devices if device not in self.absent)
        try:
            made = calibrate(
                SHORT_PAIRS, device=device, budget_s=self.request.budget_s, seed=self.request.seed, slowdowns=()
            )
            self.environment["calibration"] = plain(made.summary())
        except HarnessError as error:
            self.environment["calibration"] = {"levels": [], "notes": [str(error)]}
        self.seconds["calibration"] = time.perf_counter() - started

    def _refuse_if_nobody_can(self) -> None:
        """A request that no loss can honour is a mistake of whoever asks; one that some cannot is a row of theirs."""
        if self.refused and len(self.refused) == len(self.specs):
            raise next(iter(self.refused.values()))

    def _benchmark_one(self, spec: LossSpec) -> list[LossRecord]:
        verified = merged(self.parts[spec.name])
        names = self.chosen[spec.name]
        wrong = [name for name in names if verified.is_wrong(name)]
        if verified.reference in wrong:
            why = f"not timed: the reference {spec.reference} has errors, so a speedup over it would mean nothing"
            return [records.untimed(spec, name, self.request.devices, why) for name in names]
        left_out = [records.untimed(spec, name, self.request.devices, "not timed: it has errors") for name in wrong]
        right = [name for name in names if name not in wrong]
        if not right:
            return left_out
        try:
            timed = benchmark(
                spec,
                sizes=self._sizes(spec),
                densities=self.request.densities,
                devices=self.request.devices,
                dtypes=[getattr(torch, name) for name in self.request.dtypes],
                passes=self.request.passes,
                caches=self.request.caches,
                clocks=self.request.clocks,
                compiled=self.request.compiled,
                implementations=list(dict.fromkeys([spec.reference, *right])),
                budget_s=self.request.budget_s,
                seed=self.request.seed,
                timed=self.request.is_timed,
            )
        except HarnessError as error:
            self.refused[spec.name] = error
            return [*left_out, *(records.untimed(spec, n, self.request.devices, f"not timed: {error}") for n in right)]
        self.frames.append(timed.frame())
        if timed.environment:
            self.environment["timing"] = plain(timed.environment)
        return [*left_out, records.from_benchmark(spec, timed)]

    def _sizes(self, spec: LossSpec) -> Sequence[dict[str, Any]] | None:
        """What to measure a loss at; of the symbols that are swept, those that it has."""
        if not self.request.sweep:
            return self.request.sizes
        base = self.request.sizes[0] if self.request.sizes else None
        symbols = (*spec.symbols, *spec.variadic)
        return swept(
            spec, {s: v for s, v in self.request.sweep.items() if s in symbols} or self.request.sweep, base=base
        )

    def report(self) -> Report:
        """The report on what is done so far; a loss that is not finished says what is missing."""
        for device in self.request.devices:
            if device not in self.environment and device not in self.absent:
                self.environment[device] = plain(describe(device))
        made = assemble(
            [self._record(spec) for spec in self.specs],
            seed=self.request.seed,
            profile=self.request.profile,
            devices=self.request.devices,
            environment=self.environment,
            seconds=self.seconds,
            made=now(),
            command=self.request.command,
        )
        gone = [f"accepted, but no longer found: {e.text}" for e in unseen(self.request.baseline, made)]
        return replace(made, notes=(*made.notes, *gone))

    def accept(self, path: Path) -> None:
        """Write a baseline that accepts what was found; entries of what was not checked stay.

        Raises:
            FolderError: the file cannot be written.
        """
        accepted = updated(self.request.baseline, self.report())
        write_text(path, dumps(accepted))
        self.request = replace(self.request, baseline=accepted)

    def _record(self, spec: LossSpec) -> LossRecord:
        record = merged(self.parts[spec.name])
        record = marked(record, self.request.baseline)
        record = replace(record, implementations=tuple(self.chosen[spec.name]))
        planned = len(self.plans[spec.name]) * len(self.request.devices)
        if self.is_verified and len(record.outcomes) < planned:
            return replace(record, missing=f"interrupted: {len(record.outcomes)} of {planned} planned checks ran")
        if spec.name in self.untimed:
            return replace(record, missing="interrupted before it was timed")
        return record

    @property
    def has_results(self) -> bool:
        """Whether anything was checked or timed yet."""
        return bool(self.frames) or any(part.outcomes for parts in self.parts.values() for part in parts)

    @property
    def timings(self) -> str | None:
        """All measurements as CSV, units in the column names; ``None`` where nothing was timed."""
        if not self.frames:
            return None
        import pandas as pd

        return str(pd.concat(self.frames, ignore_index=True).to_csv(index=False))


def _chosen_implementations(specs: Sequence[LossSpec], asked: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    if asked is None:
        return {spec.name: tuple(spec.implementations) for spec in specs}
    known = list(dict.fromkeys(name for spec in specs for name in spec.implementations))
    for name in asked:
        if name not in known:
            raise HarnessError(f"no loss has an implementation {name!r}; there are {known}{nearest(name, known)}")
    return {spec.name: tuple(name for name in spec.implementations if name in asked) for spec in specs}
