"""What it costs to hand out jobs, and what a second worker gains: ``python -m property_tests.tools.dispatch``.

Prints the overhead of a job that does nothing, on this machine and on a dask cluster of two processes, and the speedup of
two workers over one on many losses.  Rounds of what is compared take turns, and the load of the machine is said.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from harness.isolation.events import Tell
from harness.results.findings import Outcome
from harness.results.schema import LossRecord, loss_dumps
from harness.runs.cluster import cluster
from harness.runs.driver import Driver
from harness.runs.executors import Carried, Local, Workshop
from harness.runs.job import Job
from harness.runs.journal import Journal
from harness.runs.ledger import Planned, Request
from property_tests.helpers.clusters import cluster_of, quick_losses

REQUEST = Request(profile="quick", codes=("B01",))
BATTERY = Request(profile="quick", codes=("B", "D", "S"))


def planned(jobs: int) -> dict[str, Any]:
    """What a run over losses that do nothing is told of them."""
    records = [LossRecord(f"loss_{n}", "", "good", ("good",)) for n in range(jobs)]
    plans = [Planned(record, (("good", "B01"),), "good").to_json() for record in records]
    return {"plans": plans, "warnings": [], "absent": {}, "code": "", "environment": {"cpu": {}}}


def passed(loss: str) -> dict[str, Any]:
    outcome = Outcome("good", "B01", "cpu", "passed", 10, "")
    record = LossRecord(loss, "", "good", ("good",), outcomes=(outcome,))
    return {"step": "B01", "record": loss_dumps(record), "failures": {}, "is_outcome": True}


class Idle:
    """Threads that have the result at once: what is left is the driver, its journal and the way there and back."""

    def __init__(self, jobs: int) -> None:
        self.told = planned(jobs)
        self.threads = ThreadPoolExecutor(2)

    def submit(self, job: Job, tell: Tell) -> Future[Carried]:
        return self.threads.submit(self._do, job, tell)

    def _do(self, job: Job, tell: Tell) -> Carried:
        result = passed(job.loss)
        tell("result", result)
        return Carried((result,), "")

    def call(self, function: str, payload: dict[str, Any]) -> tuple[Any, str]:
        return self.told, ""

    def close(self) -> None:
        self.threads.shutdown()


def here_s(jobs: int, folder: Path, shop: Idle) -> float:
    """Seconds a job of the driver and the journal, beyond those of calling what does the jobs."""
    driver = Driver(["losses"], REQUEST, shop)
    with Journal(folder, ["losses"], REQUEST, code="", resume=False) as journal:
        driver.journal = journal
        started = time.perf_counter()
        driver.verify()
        took = time.perf_counter() - started
    started = time.perf_counter()
    for plan in driver.plans:
        passed(plan.name)
    return (took - (time.perf_counter() - started)) / jobs


def answer(text: str) -> str:
    """A job that does nothing, on a worker."""
    return json.dumps({"results": [], "lost": ""}) if text else ""


def dask_s(jobs: int, folder: Path) -> float:
    """Seconds a job of handing out and getting back, on two workers."""
    with cluster_of(2, folder) as made:
        shop = cluster(made.scheduler_address)
        executor = shop._executor("cpu")
        text = "x" * 1000  # about what a job takes
        [future.result() for future in [executor.submit(answer, text) for _ in range(50)]]
        started = time.perf_counter()
        [json.loads(future.result()) for future in [executor.submit(answer, text) for _ in range(jobs)]]
        took = time.perf_counter() - started
        shop.close()
    return took / jobs


def verify_s(targets: list[str], shop: Workshop) -> float:
    driver = Driver(targets, BATTERY, shop)
    started = time.perf_counter()
    driver.verify()
    return time.perf_counter() - started


def speedups(losses: int, rounds: int, folder: Path) -> list[float]:
    """Of two workers over one, a round after the other."""
    targets = [str(quick_losses(folder / "battery.py", losses, of_each=1))]
    with Local(1) as one, Local(2) as two:
        for shop in (one, two):
            shop.call("plan", {"targets": targets, "request": BATTERY.to_json()})
        return [verify_s(targets, one) / verify_s(targets, two) for _ in range(rounds)]


@click.command()
@click.option("--jobs", default=1000, help="Jobs that do nothing, on this machine and on dask.")
@click.option("--losses", default=50, help="Losses that one and two workers verify.")
@click.option("--rounds", default=3, help="Rounds of one worker and two.")
def main(jobs: int, losses: int, rounds: int) -> None:
    """Print what handing out costs."""
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shop = Idle(jobs)
        local = [here_s(jobs, folder / "journal", shop) for _ in range(3)]
        shop.close()
        print(f"overhead a job here, driver, journal and thread: {1e3 * statistics.median(local):.3f} ms (wanted: 0.2)")
        print(f"overhead a job on dask, two workers: {1e3 * dask_s(jobs, folder):.2f} ms (wanted: 3)")
        ratios = speedups(losses, rounds, folder)
        told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"two workers over one, {losses} losses: {statistics.median(ratios):.2f}x ({told}; wanted: 1.8)")
    print(f"load after: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
