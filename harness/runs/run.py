"""A run in this process: verify, then time, then judge; what is done can be shown at any moment."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from harness.calls.meter import metered
from harness.checking.session import Session
from harness.checking.verify import checked, open_session, suggested
from harness.checking.verify import plan as planned_checks
from harness.errors import HarnessError, nearest
from harness.judging.baseline import marked
from harness.judging.reasons import outcomes
from harness.results.observer import UNSEEN, Observer
from harness.results.schema import CheckTimeRecord, LossRecord, plain
from harness.runs import records
from harness.runs.ledger import Ledger, Planned, Request, check_step, timing_step

if TYPE_CHECKING:
    from harness.declare.spec import LossSpec


class LocalRun(Ledger):
    """One run over some losses, in this process.

    Args:
        specs: the losses.
        request: what is asked for.

    Raises:
        HarnessError: no rule is planned for a loss, an implementation that no loss has, or none of the devices is here.
    """

    def __init__(self, specs: Sequence[LossSpec], request: Request) -> None:
        chosen = _chosen_implementations(specs, request.implementations)
        self.specs = {spec.name: spec for spec in specs if chosen[spec.name]}
        super().__init__([_planned(spec, request, chosen[name]) for name, spec in self.specs.items()], request)
        self.refused: dict[str, HarnessError] = {}
        self._latest: Session | None = None

    def add(self, record: LossRecord, failures: Mapping[str, dict[str, Any]] | None = None) -> None:
        """Keep what was found about a loss."""
        self.know(record)
        self.failures |= failures or {}

    def know(self, record: LossRecord) -> None:
        """Begin with what another run has found about a loss."""
        self._parts[record.name].append(record)

    def verify(self, observer: Observer = UNSEEN) -> None:
        """Run every planned implementation x rule on every device."""
        self.is_verified = True
        for plan in self.plans:
            started = time.perf_counter()
            for device in self.request.devices:
                for implementation, code in plan.checks:
                    observer.begin(check_step(plan.name, implementation, code))
                    self._verify_one(self.specs[plan.name], implementation, code, device)
                    found = marked(self.parts(plan)[-1], self.request.baseline).findings
                    if new := [finding for finding in found if not finding.accepted]:
                        observer.found(plan.name, new)
            if self.request.codes is None:
                self.suggest(plan)
            self.seconds[f"verify {plan.name}"] = time.perf_counter() - started

    def _verify_one(self, spec: LossSpec, implementation: str, code: str, device: str) -> None:
        if device in self.absent:
            self.add(records.skipped(self._parts[spec.name][0], implementation, code, device, self.absent[device]))
            return
        with self._timed(spec, implementation, code, device):
            verification = checked(self._session(spec, device), rules=[code], implementations=[implementation])
            record, failures = records.from_verification(spec, verification)
        self.add(record, failures)

    def _session(self, spec: LossSpec, device: str) -> Session:
        """One for all rules of a loss on a device, which share cases and evaluations."""
        if self._latest is None or self._latest.spec is not spec or self._latest.device != device:
            self._latest = open_session(spec, profile=self.request.profile, device=device, seed=self.request.seed)
        return self._latest

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
        self.add(replace(records.empty(spec, [implementation]), check_times=(spent,)))

    def suggest(self, plan: Planned) -> None:
        """What the latest implementation could declare, on the first device that is here."""
        spec, latest = self.specs[plan.name], plan.record.implementations[-1]
        with self._timed(spec, latest, "suggestions", self.present):
            found = suggested(self._session(spec, self.present), latest)
        self.add(replace(plan.record, suggestions=found))

    def benchmark(self, observer: Observer = UNSEEN) -> None:
        """Time what is right: an implementation with errors is not ranked.

        A reference with errors is timed all the same: whoever agrees with it on the timed inputs is compared with it there.
        """
        self.untimed = {plan.name for plan in self.plans}
        for plan in self.plans:
            observer.begin(timing_step(plan, self.request))
            started = time.perf_counter()
            for record in self._benchmark_one(plan):
                self.add(record)
            self.untimed.discard(plan.name)
            self.seconds[f"benchmark {plan.name}"] = time.perf_counter() - started
        # A request that no loss can honour is a mistake of whoever asks; one that some cannot is a row of theirs.
        if self.refused and len(self.refused) == len(self.plans):
            raise next(iter(self.refused.values()))

    def _benchmark_one(self, plan: Planned) -> list[LossRecord]:
        spec, verified, devices = self.specs[plan.name], self.known(plan), self.request.devices
        names = plan.record.implementations
        wrong = [name for name in names if verified.is_wrong(name) and name != verified.reference]
        left_out = [records.untimed(plan.record, name, devices, "not timed: it has errors") for name in wrong]
        # Who ended its process, or had to be ended, would do so when it is timed, for as long as that may take.
        stopped = [n for n in names if n not in wrong and outcomes(verified, n, "crashed", "timed out")]
        why = "not timed: it crashed or hung when it was checked"
        left_out += [records.untimed(plan.record, name, devices, why) for name in stopped]
        right = [name for name in names if name not in wrong and name not in stopped]
        if not right or plan.trusted in stopped:
            why = f"not timed: {plan.trusted}, which it is held to, crashed or hung when it was checked"
            return [*left_out, *(records.untimed(plan.record, name, devices, why) for name in right)]
        from harness.timing.benchmark import benchmark

        try:
            timed = benchmark(
                spec,
                sizes=self._sizes(spec),
                densities=self.request.densities,
                devices=devices,
                dtypes=[getattr(torch, name) for name in self.request.dtypes],
                passes=self.request.passes,
                caches=self.request.caches,
                clocks=self.request.clocks,
                compiled=self.request.compiled,
                implementations=list(dict.fromkeys([plan.trusted, *right])),
                budget_s=self.request.budget_s,
                seed=self.request.seed,
                timed=self.request.is_timed,
            )
        except HarnessError as error:
            self.refused[spec.name] = error
            return [*left_out, *(records.untimed(plan.record, name, devices, f"not timed: {error}") for name in right)]
        if timed.environment:
            self.environment["timing"] = plain(timed.environment)
        return [*left_out, records.from_benchmark(spec, timed)]

    def _sizes(self, spec: LossSpec) -> Sequence[dict[str, Any]] | None:
        """What to measure a loss at; of the symbols that are swept, those that it has."""
        if not self.request.sweep:
            return self.request.sizes
        from harness.timing.growth import swept

        base = self.request.sizes[0] if self.request.sizes else None
        symbols = (*spec.symbols, *spec.variadic)
        return swept(
            spec, {s: v for s, v in self.request.sweep.items() if s in symbols} or self.request.sweep, base=base
        )


def _planned(spec: LossSpec, request: Request, chosen: tuple[str, ...]) -> Planned:
    checks = planned_checks(spec, rules=request.codes, implementations=chosen)
    return Planned(records.empty(spec, chosen), checks, spec.reference)


def _chosen_implementations(specs: Sequence[LossSpec], asked: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    if asked is None:
        return {spec.name: tuple(spec.implementations) for spec in specs}
    known = list(dict.fromkeys(name for spec in specs for name in spec.implementations))
    for name in asked:
        if name not in known:
            raise HarnessError(f"no loss has an implementation {name!r}; there are {known}{nearest(name, known)}")
    return {spec.name: tuple(name for name in spec.implementations if name in asked) for spec in specs}
