"""Runs one job to its end, however often its process dies, and says what became of every rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.isolation import events
from harness.isolation.events import Ended, Tell
from harness.isolation.limits import Limits
from harness.isolation.sandbox import Isolation
from harness.results.findings import Finding, Outcome, Status
from harness.results.rule_texts import rule_text
from harness.results.schema import CRASHED, LossRecord
from harness.runs.job import LOADING, VERIFY, Job, result

DEATHS = 3  # processes that one job may lose before what is left of it is given up
_DESCRIBE_S = 60.0
_SHORT_S = 300.0  # a target whose import never ends must end too


class ProcessLost(Exception):
    """What watches a process is gone, so that nothing is known of the loss: the job is to be handed out again."""


def conduct(sandbox: Isolation, job: Job, tell: Tell) -> str:
    """Run a job, tell its steps and results as they come, and report what its process does not survive.

    A rule whose check ends the process is reported as crashed or timed out, with the last input; the rules after it run in
    a new one.  So do those after a rule that has lost the device, which the process itself has reported.  After `DEATHS`
    processes, or one that cannot even load the loss, what is left is reported as not run.

    Args:
        sandbox: where processes come from.
        job: what to do.
        tell: takes each step and each result.

    Returns:
        Why steps that belong to no rule came to nothing; empty where none did.
    """
    if job.kind != VERIFY:
        ended = _process(sandbox, "measure", job, tell)
        return "" if ended.ok else f"timing it ended: {_reason(ended)}"
    for _ in range(DEATHS):
        ended, left = _round(sandbox, job, tell)
        if ended.ok and left.codes:
            job = left
            continue
        if ended.ok:
            return ""
        if not left.codes:
            return f"looking for laws to declare ended: {_reason(ended)}" if job.suggests else ""
        if ended.step == LOADING:
            return _give_up(left, ended, f"loading the loss ended: {_reason(ended)}", tell)
        if ended.step not in left.codes:  # between two checks
            ended = replace(ended, step=left.codes[0])
        _report(sandbox, left, ended, tell)
        job = left.without({ended.step})
        if not job.codes and not job.suggests:
            return ""
    return _leave(job, job.codes, f"not run, after {DEATHS} processes had ended", tell)


def _round(sandbox: Isolation, job: Job, tell: Tell) -> tuple[Ended, Job]:
    """One process: (how it ended, what is left to do)."""
    done: set[str] = set()

    def note(kind: str, data: Any) -> None:
        tell(kind, data)
        if kind == "result" and data["is_outcome"]:
            done.add(data["step"])

    ended = _process(sandbox, "verify", job, note)
    return ended, job.without(done)


def _process(sandbox: Isolation, function: str, job: Job, tell: Tell) -> Ended:
    """Perform a job in one process.

    Raises:
        ProcessLost: nobody can say how it ended.
    """
    ended = sandbox.run(f"harness.runs.perform:{function}", job.payload(), job.limits, tell)
    if ended.how == events.LOST:
        raise ProcessLost(ended.reason)
    return ended


def called(
    isolation: Isolation, function: str, payload: dict[str, Any], limits: Limits | None = None
) -> tuple[Any, str]:
    """Run a short function apart: (its result, or why there is none); ``step_s`` in its payload is the limit of a step."""
    heard: list[Any] = []
    ended = isolation.run(
        f"harness.runs.perform:{function}",
        payload,
        limits or Limits(step_s=payload.get("step_s") or _SHORT_S),
        hear=lambda kind, data: heard.append(data) if kind == "result" else None,
    )
    at = f", at {ended.step}" if ended.step not in ("", LOADING) else ""
    reason = "" if ended.ok else f"{ended.how}: {ended.reason}{at}" + (f"\n{ended.output}" if ended.output else "")
    return (heard[-1] if heard else None), reason


def _report(sandbox: Isolation, job: Job, ended: Ended, tell: Tell) -> None:
    """The rule that was being checked, as an outcome and a finding that can be replayed."""
    told = {
        "targets": list(job.targets),
        "loss": job.loss,
        "implementation": job.implementation,
        "code": ended.step,
        "device": job.device,
        "profile": job.request["profile"],
        "seed": job.request["seed"],
        "status": "timed out" if ended.how == events.TIMED_OUT else "crashed",
        "reason": _reason(ended),
        "output": ended.output,
    }
    for case in (ended.note, None):  # what makes the input may be what ended the process
        found, lost = called(sandbox, "stopped", told | {"case": case}, Limits(_DESCRIBE_S))
        if found is not None and not lost:
            tell("result", found)
            return
    tell("result", came_to_nothing(job, ended.step, _reason(ended), ended.output))


def _give_up(job: Job, ended: Ended, reason: str, tell: Tell) -> str:
    """The first rule that is left is reported, the others were never tried."""
    first, *others = job.codes
    tell("result", came_to_nothing(job, first, reason, ended.output))
    return _leave(job, others, f"not run: {reason}", tell)


def _leave(job: Job, codes: Sequence[str], reason: str, tell: Tell) -> str:
    """Rules that are not tried any more, and what would come after them."""
    for code in codes:
        outcome = Outcome(job.implementation, code, job.device, Status.SKIPPED, 0, reason)
        record = LossRecord(job.loss, "", "", (job.implementation,), outcomes=(outcome,))
        tell("result", result(code, record))
    return "looking for laws to declare did not run" if job.suggests else ""


def came_to_nothing(job: Job, code: str, reason: str, output: str = "") -> dict[str, Any]:
    """A rule that came to nothing, told without the loss: it cannot even be loaded, or not often enough."""
    crashed = rule_text(CRASHED)
    message = f"{job.loss} / {job.implementation} / {crashed.code} {crashed.title} / {job.device}\n  {code} = {reason}, expected a check that ends"
    what = (job.implementation, crashed.code, crashed.title, crashed.severity, job.device, message)
    finding = Finding(*what, {"aspect": code, "came": reason, "output": output})
    record = LossRecord(
        job.loss,
        "",
        "",
        (job.implementation,),
        outcomes=(Outcome(job.implementation, code, job.device, Status.CRASHED, 0, reason),),
        findings=(finding,),
    )
    return result(code, record)


def _reason(ended: Ended) -> str:
    return ended.how if not ended.reason else f"{ended.how}: {ended.reason}"
