"""Where jobs run: beside this process, in any executor of the standard library's kind, or on a dask cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from harness.isolation.sandbox import Here, Isolation, Sandbox
from harness.jobs.conduct import PRELOAD, Conducted, Keep, conduct
from harness.jobs.job import Job

Begin = Callable[[str], None]


@dataclass(frozen=True)
class Carried:
    """What came of one job: its results in their order, and why some steps came to nothing."""

    results: tuple[dict[str, Any], ...]
    lost: str


class Workshop(Protocol):
    """Whoever carries out jobs."""

    def submit(self, job: Job, keep: Keep, begin: Begin) -> Future[Carried]:
        """Carry out a job; ``keep`` and ``begin`` may be called from any thread, or never."""

    def call(self, function: str, payload: dict[str, Any]) -> tuple[Any, str]:
        """(the result of a short function of `harness.jobs.perform`, or why there is none)."""

    def close(self) -> None:
        """End what runs, and take no more."""


def isolation() -> Isolation:
    """Processes of their own where this system can fork; else this one."""
    return Sandbox(PRELOAD) if hasattr(os, "fork") else Here()


class Local:
    """Jobs beside this process: a thread for each that runs, which only waits for the process that does it.

    Args:
        workers: how many at a time.
    """

    def __init__(self, workers: int) -> None:
        self._isolation = isolation()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="job")

    def submit(self, job: Job, keep: Keep, begin: Begin) -> Future[Carried]:
        """See `Workshop`."""
        return self._threads.submit(_carried, self._isolation, job, keep, begin)

    def call(self, function: str, payload: dict[str, Any]) -> tuple[Any, str]:
        """See `Workshop`."""
        return called(self._isolation, function, payload)

    def close(self) -> None:
        """See `Workshop`."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._isolation.close()
        self._threads.shutdown(wait=True)

    def __enter__(self) -> Local:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Remote:
    """Jobs in any `concurrent.futures.Executor`, in this machine or another: what it is given and gives back is text.

    Args:
        executor: for jobs of a device.
        close: what ends it.
    """

    def __init__(self, executor: Callable[[str], Executor], close: Callable[[], None]) -> None:
        self._executor = executor
        self._close = close

    def submit(self, job: Job, keep: Keep, begin: Begin) -> Future[Carried]:
        """See `Workshop`; results come when the job is done."""
        told: Future[Carried] = Future()
        running = self._executor(job.device).submit(carry_out, job.dumps())

        def finish(done: Future[str]) -> None:
            if not told.set_running_or_notify_cancel():
                return
            try:
                data = json.loads(done.result())
            except BaseException as error:
                told.set_exception(error)
                return
            for result in data["results"]:
                keep(result)
            told.set_result(Carried(tuple(data["results"]), data["lost"]))

        running.add_done_callback(finish)
        return told

    def call(self, function: str, payload: dict[str, Any]) -> tuple[Any, str]:
        """See `Workshop`."""
        answer: tuple[Any, str] = tuple(
            json.loads(self._executor("cpu").submit(call_there, function, payload).result())
        )
        return answer

    def close(self) -> None:
        """See `Workshop`."""
        self._close()


def _carried(isolation: Isolation, job: Job, keep: Keep, begin: Begin) -> Carried:
    results: list[dict[str, Any]] = []

    def both(result: dict[str, Any]) -> None:
        results.append(result)
        keep(result)

    conducted: Conducted = conduct(isolation, job, both, begin)
    return Carried(tuple(results), conducted.lost)


def called(isolation: Isolation, function: str, payload: dict[str, Any]) -> tuple[Any, str]:
    """Run a short function apart: (its result, or why there is none)."""
    heard: list[Any] = []
    ended = isolation.run(
        f"harness.jobs.perform:{function}",
        payload,
        hear=lambda kind, data: heard.append(data) if kind == "result" else None,
    )
    reason = "" if ended.ok else f"{ended.how}: {ended.reason}" + (f"\n{ended.output}" if ended.output else "")
    return (heard[-1] if heard else None), reason


_there: list[Isolation] = []


def carry_out(text: str) -> str:
    """Carry out a job wherever this is called; its process is a child of a process that serves all jobs of this one."""
    carried = _carried(_own(), Job.loads(text), lambda result: None, lambda step: None)
    return json.dumps({"results": list(carried.results), "lost": carried.lost})


def call_there(function: str, payload: dict[str, Any]) -> str:
    """Call a short function wherever this is called."""
    return json.dumps(called(_own(), function, payload))


def _own() -> Isolation:
    if not _there:
        _there.append(isolation())
    return _there[0]
