"""Where jobs run: beside this process; `remote` hands them to others."""

from __future__ import annotations

import functools
import json
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.isolation.events import Ended, Tell
from harness.isolation.limits import Limits
from harness.isolation.sandbox import Here, Isolation, Sandbox, unheard
from harness.runs.conduct import ProcessLost, called, conduct
from harness.runs.job import Job
from harness.runs.preload import ALL_RULES, COMPILER, PRELOAD, TIMING

_AGAIN_S = 0.1


@dataclass(frozen=True)
class _Leased:
    """Isolation until it is taken back: a job whose process was ended then asks for no other.

    Args:
        isolation: that is lent.
        ended: set when it is taken back.
        folder: working directory of what runs; by default that of this process.
    """

    isolation: Isolation
    ended: threading.Event = field(default_factory=threading.Event)
    folder: str | None = None

    def run(
        self,
        function: str,
        payload: Any,
        limits: Limits | None = None,
        hear: Tell = unheard,
        *,
        folder: str | None = None,
    ) -> Ended:
        """See `Isolation`."""
        if self.ended.is_set():
            raise ProcessLost("the run has ended")
        return self.isolation.run(function, payload, limits, hear, folder=folder or self.folder)

    def stop(self) -> None:
        """See `Isolation`."""
        self.isolation.stop()

    def close(self) -> None:
        """See `Isolation`."""
        self.isolation.close()


@dataclass(frozen=True)
class Carried:
    """What came of one job: its results in their order, and why some steps came to nothing."""

    results: tuple[dict[str, Any], ...]
    lost: str


class Workshop(Protocol):
    """Whoever carries out jobs."""

    def submit(self, job: Job, tell: Tell) -> Future[Carried]:
        """Carry out a job; its steps and results are told from any thread, as they come or when it is done."""

    def call(self, function: str, payload: dict[str, Any]) -> tuple[Any, str]:
        """(the result of a short function of `harness.runs.perform`, or why there is none)."""

    def close(self) -> None:
        """End what runs, and take no more."""


def isolation() -> Isolation:
    """Processes of their own where this system can fork; else this one."""
    return Sandbox((*PRELOAD, *ALL_RULES, *COMPILER, *TIMING)) if hasattr(os, "fork") else Here()


class Local:
    """Jobs beside this process: a thread for each that runs, which only waits for the process that does it.

    Args:
        workers: how many at a time.
        box: where they run; one of its own by default.
    """

    def __init__(self, workers: int, box: Isolation | None = None) -> None:
        self._is_own = box is None
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._running: set[Future[Carried]] = set()
        self._isolation = isolation() if box is None else box
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="job")

    def submit(self, job: Job, tell: Tell) -> Future[Carried]:
        """See `Workshop`."""
        leased = _Leased(self._isolation, self._closed)
        running = self._threads.submit(_carried, leased, job, tell)
        with self._lock:
            self._running.add(running)
        running.add_done_callback(self._forget)
        return running

    def _forget(self, done: Future[Carried]) -> None:
        with self._lock:
            self._running.discard(done)

    def call(self, function: str, payload: dict[str, Any]) -> tuple[Any, str]:
        """See `Workshop`."""
        return called(self._isolation, function, payload)

    def close(self) -> None:
        """See `Workshop`."""
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        while True:  # a job may be about to start its process when the others are ended
            with self._lock:
                left = set(self._running)
            if not left:
                break
            self._isolation.stop()
            wait(left, timeout=_AGAIN_S)
        self._threads.shutdown(wait=True)
        if self._is_own:
            self._isolation.close()

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _carried(isolation: Isolation, job: Job, tell: Tell) -> Carried:
    results: list[dict[str, Any]] = []

    def note(kind: str, data: Any) -> None:
        if kind == "result":
            results.append(data)
        tell(kind, data)

    lost = conduct(isolation, job, note)
    return Carried(tuple(results), lost)


_STARTING = threading.Lock()


def carry_out(text: str, folder: str) -> str:
    """Carry out a job wherever this is called; its process is a child of a process that serves all jobs of this one."""
    job = Job.loads(text)
    carried = _carried(_Leased(_own(), folder=folder), job, unheard)
    return json.dumps(vars(carried))


def call_there(function: str, payload: dict[str, Any], folder: str) -> str:
    """Call a short function wherever this is called."""
    return json.dumps(called(_Leased(_own(), folder=folder), function, payload))


def _own() -> Isolation:
    with _STARTING:
        return isolation_of(os.getpid())


@functools.cache
def isolation_of(process: int) -> Isolation:
    """That of a process which carries out jobs; a fork of it has another."""
    return isolation()
