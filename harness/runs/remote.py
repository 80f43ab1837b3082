"""Jobs in an executor of the standard library's kind, which may be on another machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from harness.isolation.events import Tell
from harness.runs import arrival
from harness.runs.executors import Carried
from harness.runs.job import VERIFY, Job


class Remote:
    """Jobs in any `concurrent.futures.Executor`, in this machine or another: what it is given and gives back is text.

    The workers must have the same versions, and files that targets name under the same path; else a future holds a
    `harness.runs.arrival.WorkerError`, which ends the run.

    Args:
        executor: for jobs of a device; asked anew for each.
        close: what ends it.
    """

    def __init__(self, executor: Callable[[str], Executor], close: Callable[[], None]) -> None:
        self._executor = executor
        self._close = close
        self._origin = arrival.origin()

    def submit(self, job: Job, tell: Tell) -> Future[Carried]:
        """See `Workshop`; results come when the job is done."""
        carried: Future[Carried] = Future()
        # What times a loss does so on all devices.
        device = job.device if job.kind == VERIFY else _neediest(job.request["devices"])
        running = self._executor(device).submit(arrival.carry_out, job.dumps(), self._origin)

        def finish(done: Future[str]) -> None:
            if not carried.set_running_or_notify_cancel():
                return
            try:
                data = json.loads(done.result())
            except BaseException as error:
                carried.set_exception(error)
                return
            for result in data["results"]:
                tell("result", result)
            carried.set_result(Carried(tuple(data["results"]), data["lost"]))

        running.add_done_callback(finish)
        return carried

    def call(self, function: str, payload: dict[str, Any]) -> tuple[Any, str]:
        """See `Workshop`."""
        # Which devices are there is said by a worker that has them.
        device = _neediest(payload.get("request", {}).get("devices", ()))
        told = self._executor(device).submit(arrival.call, function, payload, self._origin).result()
        answer: tuple[Any, str] = tuple(json.loads(told))
        return answer

    def close(self) -> None:
        """See `Workshop`."""
        self._close()


def _neediest(devices: Sequence[str]) -> str:
    return next((device for device in devices if device != "cpu"), "cpu")
