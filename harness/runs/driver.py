"""Plans jobs, hands them out, and keeps what they find; no code of the user's runs in this process."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from harness.errors import DeclarationError, HarnessError, TargetError
from harness.isolation.limits import Limits
from harness.judging.baseline import marked
from harness.results.findings import Finding
from harness.results.observer import UNSEEN, Observer, Step
from harness.results.schema import LossRecord, loss_dumps, loss_loads
from harness.runs import records
from harness.runs.conduct import came_to_nothing
from harness.runs.executors import Carried, Workshop
from harness.runs.job import LOADING, MEASURE, SUGGESTIONS, VERIFY, Job
from harness.runs.ledger import Ledger, Planned, Request, check_step, timing_step
from harness.runs.shelf import Shelf

_STARTING_S, _COMPILING_S = 120.0, 900.0
TRIES = 5  # how often a job is handed out whose worker is lost
_LOOK_S = 0.2  # how often an interrupt is looked for
_KINDS = {kind.__name__: kind for kind in (HarnessError, DeclarationError, TargetError)}


class Driver(Ledger):
    """One run over the losses that some targets name, all of which run elsewhere.

    Args:
        targets: where the losses are.
        request: what is asked for.
        workshop: carries out the jobs.
        allowed: what each of them may take.
        times_together: whether several losses are timed at a time, each on a core of its own.

    Raises:
        HarnessError: what the targets or the request say cannot be understood.
    """

    def __init__(
        self,
        targets: Sequence[str],
        request: Request,
        workshop: Workshop,
        *,
        allowed: Limits | None = None,
        times_together: bool = False,
    ) -> None:
        self.times_together = times_together
        self.targets = tuple(targets)
        self.workshop = workshop
        self.allowed = allowed or Limits()
        self.journal = Memory()  # a `harness.runs.journal.Journal` remembers
        told = _plan(workshop, self.targets, request, self.allowed.step_s)
        self.warnings: tuple[str, ...] = tuple(told["warnings"])
        self.code: str = told["code"]
        super().__init__([Planned.from_json(plan) for plan in told["plans"]], request, absent=told["absent"])
        self.environment |= told["environment"]
        self._lock = threading.Lock()
        self._asked = request.to_json()
        self._planned_for = {plan.name: plan for plan in self.plans}
        self._news: queue.SimpleQueue[Step | tuple[str, list[Finding]]] = queue.SimpleQueue()
        self._shelf = Shelf()
        self._refused: dict[str, str] = {}
        self._begun: dict[str, float] = {}

    def parts(self, plan: Planned) -> list[LossRecord]:
        """What is known of one loss, in the order of the plan, whichever job was done first."""
        found = self._shelf.of(plan.name)
        suggested = [(implementation, SUGGESTIONS) for implementation in plan.record.implementations]
        places = [
            (device, *each) for part in (plan.checks, suggested) for device in self.request.devices for each in part
        ]
        return [plan.record, *(record for place in [*places, (MEASURE,)] for record in found.get(place, ()))]

    def verify(self, observer: Observer = UNSEEN) -> None:
        """See `Ledger`."""
        self.is_verified = True
        for plan in self.plans:
            self._skip_absent(plan)
        self._carry_out([job for plan in self.plans for job in self._jobs(plan)], observer)

    def _skip_absent(self, plan: Planned) -> None:
        for device, reason in self.absent.items():
            for implementation, code in plan.checks:
                record = records.skipped(plan.record, implementation, code, device, reason)
                self._shelf.put(plan.name, (device, implementation, code), loss_dumps(record))

    def _jobs(self, plan: Planned) -> Iterator[Job]:
        for device in self.request.devices:
            for implementation in plan.record.implementations if device not in self.absent else ():
                codes = tuple(code for name, code in plan.checks if name == implementation)
                is_latest = (implementation, device) == (plan.record.implementations[-1], self.present)
                yield replace(
                    self._job(VERIFY, plan, device),
                    implementation=implementation,
                    codes=codes,
                    suggests=is_latest and self.request.codes is None,
                )

    def _job(self, kind: str, plan: Planned, device: str) -> Job:
        """A job that checks and times nothing yet."""
        own = plan.record.target  # of many files, a job loads its own
        return Job(
            kind=kind,
            targets=(own,) if own in self.targets else self.targets,
            loss=plan.name,
            implementation="",
            device=device,
            codes=(),
            suggests=False,
            request=self._asked,
            step_s=self.allowed.step_s,
            memory_bytes=self.allowed.memory_bytes if device == "cpu" else None,
        )

    def _recalled(self, job: Job) -> bool:
        """Whether a job was done by an earlier run, whose results are then kept."""
        carried = self.journal.recall(job)
        if carried is None:
            return False
        for result in carried.results:
            self._keep(job, result)
        self._done(job, carried)
        return True

    def _carry_out(self, jobs: Sequence[Job], observer: Observer) -> None:
        """Hand out the jobs that no earlier run has done; one whose worker is lost is handed out again."""
        new = [job for job in jobs if not self._recalled(job)]
        waiting: dict[Future[Carried], tuple[Job, int, float]] = {}
        ended: queue.SimpleQueue[Future[Carried]] = queue.SimpleQueue()

        def hand_out(job: Job, tries: int) -> None:
            future = self.workshop.submit(job, functools.partial(self._hear, job))
            waiting[future] = (job, tries, time.perf_counter())
            future.add_done_callback(ended.put)

        try:
            for job in new:
                hand_out(job, 1)
                while not ended.empty():  # what an executor has done by now is not held until all are handed out
                    self._take(ended.get(), waiting, hand_out)
            while waiting:
                self._show(observer)
                with contextlib.suppress(queue.Empty):
                    # Not `concurrent.futures.wait`, which looks at every job each time that one is done.
                    self._take(ended.get(timeout=_LOOK_S), waiting, hand_out)
            self._show(observer)
        except BaseException:  # an interrupt, most likely: what runs is not waited for
            self.workshop.close()
            raise

    def _take(
        self,
        future: Future[Carried],
        waiting: dict[Future[Carried], tuple[Job, int, float]],
        hand_out: Callable[[Job, int], None],
    ) -> None:
        job, tries, started = waiting.pop(future)
        error = future.exception()
        if isinstance(error, HarnessError):  # no other try would go better
            raise error
        if error is not None and tries < TRIES:
            hand_out(job, tries + 1)
            return
        carried = future.result() if error is None else self._give_up(job, error)
        self.journal.remember(job, carried)
        self._done(job, carried)
        name = f"{'verify' if job.kind == VERIFY else 'benchmark'} {job.loss}"
        if job.key not in self._begun:  # whoever carries it out elsewhere tells nothing before it is done
            self._begin(job, LOADING)
            self._begun[job.key] = started
        begun = self._begun.pop(job.key)  # it may have waited long for its turn
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun

    def _show(self, observer: Observer) -> None:
        """What threads have told goes to the observer in this one, which alone may be interrupted."""
        while not self._news.empty():
            news = self._news.get()
            if isinstance(news, Step):
                observer.begin(news)
            else:
                observer.found(*news)

    def _give_up(self, job: Job, error: BaseException) -> Carried:
        reason = f"its worker was lost {TRIES} times: {type(error).__name__}: {error}"
        results = [came_to_nothing(job, code, reason) for code in job.codes]
        for result in results:
            self._keep(job, result)
        return Carried(tuple(results), "" if job.codes else reason)

    def _hear(self, job: Job, kind: str, data: Any) -> None:
        """Take an event of a job, in whatever thread it comes."""
        if kind == "step":
            self._begin(job, data)
        else:
            self._keep(job, data)

    def _begin(self, job: Job, step: str) -> None:
        if job.kind == MEASURE and job.key not in self._begun:
            self._news.put(timing_step(self._planned_for[job.loss], self.request))
        self._begun.setdefault(job.key, time.perf_counter())
        if job.kind == VERIFY and step not in (LOADING, SUGGESTIONS):
            self._news.put(check_step(job.loss, job.implementation, step))

    def _keep(self, job: Job, result: Mapping[str, Any]) -> None:
        if "record" not in result:
            self._keep_measured(job, result)
            return
        record = loss_loads(result["record"])
        with self._lock:
            self.failures |= result["failures"]
            place = (MEASURE,) if job.kind == MEASURE else (job.device, job.implementation, result["step"])
            self._shelf.put(job.loss, place, result["record"])
            found = [finding for finding in marked(record, self.request.baseline).findings if not finding.accepted]
            if found:
                self._news.put((job.loss, found))

    def _keep_measured(self, job: Job, result: Mapping[str, Any]) -> None:
        with self._lock:
            if "refused" in result:
                self._refused[job.loss] = result["refused"]
                return
            timing = result["environment"].get("timing")
            if timing is not None:
                earlier = self.environment.get("timing", {}).get("timed_on_cores", [])
                used = sorted({*earlier, *timing.get("timed_on_cores", [])})
                self.environment["timing"] = timing | ({"timed_on_cores": used} if used else {})

    def _done(self, job: Job, carried: Carried) -> None:
        """Say what came to nothing beside the rules, which have outcomes of their own."""
        if job.kind == MEASURE:
            self.untimed.discard(job.loss)
        reason = carried.lost
        if not reason:
            return
        plan = self._planned_for[job.loss]
        note = replace(plan.record, notes=(f"{job.implementation or job.loss} on {job.device}: {reason}",))
        with self._lock:
            if job.kind == MEASURE:
                names, devices = plan.record.implementations, self.request.devices
                failed = [records.untimed(plan.record, name, devices, reason, status="failed") for name in names]
                for record in (*failed, note):
                    self._shelf.put(job.loss, (MEASURE,), loss_dumps(record))
            else:
                self._shelf.put(job.loss, (job.device, job.implementation, SUGGESTIONS), loss_dumps(note))

    def benchmark(self, observer: Observer = UNSEEN) -> None:
        """See `Ledger`; one loss at a time, for two would disturb each other where they share a core."""
        self.untimed = {plan.name for plan in self.plans}
        for plans in [self.plans] if self.times_together else [(plan,) for plan in self.plans]:
            self._carry_out([self._timing(plan) for plan in plans], observer)
        if self._refused and len(self._refused) == len(self.plans):
            raise HarnessError(next(iter(self._refused.values())))

    def _timing(self, plan: Planned) -> Job:
        job = self._job(MEASURE, plan, self.present)
        verified = loss_dumps(self.known(plan))
        # The timing ends itself at three times its budget; beyond that, and what starting and a compiler take, it hangs.
        longest = 4 * self.request.budget_s + (_COMPILING_S if self.request.compiled else _STARTING_S)
        return replace(job, verified=verified, step_s=longest, has_own_core=self.times_together)


class Memory:
    """Remembers nothing; see `harness.runs.journal` for what does."""

    def recall(self, job: Job) -> Carried | None:
        """What came of a job in an earlier run, if it was done."""

    def remember(self, job: Job, carried: Carried) -> None:
        """Keep what came of a job."""


def _plan(workshop: Workshop, targets: Sequence[str], request: Request, step_s: float | None) -> dict[str, Any]:
    told, reason = workshop.call("plan", {"targets": list(targets), "request": request.to_json(), "step_s": step_s})
    if told is None:
        raise TargetError(f"targets {list(targets)}: loading them ended the process, {reason}")
    if "refused" in told:
        raise _KINDS.get(told["kind"], HarnessError)(told["refused"])
    found: dict[str, Any] = told
    return found
