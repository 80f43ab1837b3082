"""Dask clusters of several processes on this machine, and losses to hand out on them."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Nanny, Scheduler, SpecCluster

from harness.isolation.events import Tell
from harness.runs.executors import Carried
from harness.runs.job import Job
from harness.runs.remote import Remote

QUIET = {"distributed.admin.system-monitor.gil.enabled": False, "logging.distributed": "critical"}


@contextmanager
def cluster_of(workers: int, folder: Path, *, gpus: int = 0) -> Iterator[SpecCluster]:
    """Workers in processes of their own, of which the first ``gpus`` say that they have a GPU; loopback only, no dashboard."""
    common = {
        "nthreads": 1,
        "silence_logs": "CRITICAL",
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "local_directory": str(folder),
    }
    resources = [{"GPU": 1} if number < gpus else {} for number in range(workers)]
    made = {
        f"worker-{number}": {"cls": Nanny, "options": common | {"resources": has}}
        for number, has in enumerate(resources)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"},
    }
    with dask.config.set(QUIET), SpecCluster(workers=made, scheduler=scheduler, silence_logs="CRITICAL") as cluster:
        yield cluster


def pids(cluster: SpecCluster) -> list[int]:
    """Of the processes that work now; one that was killed is started again."""
    return [nanny.pid for nanny in cluster.workers.values() if nanny.pid]


def quick_losses(file: Path, jobs: int, *, of_each: int = 10) -> Path:
    """A file whose losses make so many jobs, each done in a moment; every job loads the file, so that few losses have them."""
    file.write_text(
        "from jaxtyping import Float\nfrom torch import Tensor\nfrom harness import LossSpec\n\n"
        'def good(predictions: Float[Tensor, "B C"], labels: Float[Tensor, "B C"]) -> Float[Tensor, ""]:\n'
        "    return ((predictions - labels) ** 2).mean()\n\n"
        f"IMPLEMENTATIONS = {{f'number_{{n}}': good for n in range({of_each})}}\n"
        f"SPECS = [LossSpec(f'loss_{{n:03}}', IMPLEMENTATIONS) for n in range({jobs // of_each})]\n"
    )
    return file


class Disturbed:
    """A workshop whose workers are killed at random, one after each of some numbers of jobs."""

    def __init__(self, shop: Remote, workers: Callable[[], list[int]], *, after: tuple[int, ...], seed: int) -> None:
        self.shop, self.workers = shop, workers
        self.after, self.random = after, random.Random(seed)
        self.handed_out = self.done = 0
        self.killed: list[int] = []

    def submit(self, job: Job, tell: Tell) -> Any:
        self.handed_out += 1
        future = self.shop.submit(job, tell)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future: Any) -> None:
        if future.exception() is not None:
            return
        assert isinstance(future.result(), Carried)
        self.done += 1
        if self.done in self.after:
            pid = self.random.choice(self.workers())
            os.kill(pid, signal.SIGKILL)
            self.killed.append(pid)

    def call(self, function: str, payload: dict[str, Any]) -> tuple[Any, str]:
        return self.shop.call(function, payload)

    def close(self) -> None:
        self.shop.close()
