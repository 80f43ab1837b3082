"""What a job does, in its own process: loads what is the user's, checks or times it, and tells each result as it comes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from harness.calls import devices
from harness.calls.environment import describe
from harness.declare.spec import LossSpec
from harness.declare.targets import load_specs
from harness.errors import HarnessError, TargetError, shown
from harness.isolation.events import Tell
from harness.results.findings import Finding
from harness.results.observer import Observer, Step
from harness.results.schema import LossRecord, loss_loads, plain
from harness.runs import records
from harness.runs.job import LOADING, SUGGESTIONS, result
from harness.runs.ledger import Request
from harness.runs.run import LocalRun
from harness.runs.sources import code_digest
from harness.timing.cores import own_core


def plan(payload: Mapping[str, Any], tell: Tell) -> None:
    """Tell what is to be done about the losses that the targets name, or why the request is refused."""
    tell("step", LOADING)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            specs = load_specs(payload["targets"], lambda target: tell("step", f"target {shown(target)}"))
            tell("step", LOADING)
            run = LocalRun(specs, Request.from_json(payload["request"]))
        except HarnessError as error:
            tell("result", {"refused": str(error), "kind": type(error).__name__})
            return
    said = dict.fromkeys(str(warning.message) for warning in caught if issubclass(warning.category, UserWarning))
    present = [device for device in run.request.devices if device not in run.absent]
    told = {
        "plans": [made.to_json() for made in run.plans],
        "warnings": list(said),
        "absent": run.absent,
        "code": code_digest(run.specs.values()),
        "environment": {device: plain(describe(device)) for device in present},
    }
    tell("result", told)


class _Telling(LocalRun):
    """Tells what is found as soon as it is known; ``current`` is the step that it belongs to."""

    def __init__(self, specs: Sequence[LossSpec], request: Request, tell: Tell) -> None:
        super().__init__(specs, request)
        self.tell = tell
        self.current = LOADING

    def begin(self, step: str) -> None:
        self.current = step
        self.tell("step", step)

    def begin_on_a_device(self, step: str) -> None:
        for device in self.request.devices:
            if (gone := devices.lost(device)) is not None:
                raise _DeviceLost(gone)
        self.begin(step)

    def add(self, record: LossRecord, failures: Mapping[str, dict[str, Any]] | None = None) -> None:
        super().add(record, failures)
        self.tell("result", result(self.current, record, failures))


class _DeviceLost(Exception):
    """The device of the job works no more in this process."""


class _Steps(Observer):
    """Names the step before it begins, and begins none on a device that is lost."""

    def __init__(self, run: _Telling) -> None:
        self.run = run

    def begin(self, step: Step) -> None:
        """See `Observer`."""
        self.run.begin_on_a_device(step.kind)

    def found(self, loss: str, findings: Sequence[Finding]) -> None:
        """Told with the results."""


def verify(payload: Mapping[str, Any], tell: Tell) -> None:
    """Check the rules that the request names on its one implementation, then look for laws where that is asked for.

    Where a rule loses the device it is told of, and this ends with the others undone: they need another process.
    """
    run = _loaded(payload, tell)
    if payload["checks"]:
        try:
            run.verify(_Steps(run))
        except _DeviceLost:
            return
    if payload["suggests"]:
        run.begin_on_a_device(SUGGESTIONS)
        run.suggest(run.plans[0])


def measure(payload: Mapping[str, Any], tell: Tell) -> None:
    """Time a loss, of which it is known what is right."""
    run = _loaded(payload, tell)
    run.know(loss_loads(payload["verified"]))
    with own_core(lambda: tell("step", LOADING)) if payload["has_own_core"] else nullcontext():
        try:
            run.benchmark(_Steps(run))
        except HarnessError as error:
            tell("result", {"step": run.current, "refused": str(error)})
    tell("result", {"step": run.current, "environment": run.environment})


def stopped(payload: Mapping[str, Any], tell: Tell) -> None:
    """Tell, in the words of a finding, how a process ended that was checking a rule; nothing of the loss is run."""
    from harness.checking.stopped import verification

    tell("step", LOADING)
    spec = _named(payload)
    tell("result", result(payload["code"], *records.from_verification(spec, verification(spec, payload))))


def replay(payload: Mapping[str, Any], tell: Tell) -> None:
    """Run a stored failure again."""
    from harness.checking.replay import replay as again

    tell("step", LOADING)
    found = again(payload["failure"], target=payload["target"])
    tell("result", {"status": found.status, "message": found.message})


def _loaded(payload: Mapping[str, Any], tell: Tell) -> _Telling:
    tell("step", LOADING)
    return _Telling([_named(payload)], Request.from_json(payload["request"]), tell)


def _named(payload: Mapping[str, Any]) -> LossSpec:
    found = [spec for spec in load_specs(payload["targets"]) if spec.name == payload["loss"]]
    if not found:
        raise TargetError(f"the targets {payload['targets']} held a loss {payload['loss']!r} before, and no longer do")
    return found[0]
