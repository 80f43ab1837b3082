"""Memory does not grow with the number of examples, neither where they run nor where jobs are handed out."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from harness.isolation import events
from harness.isolation.events import Ended
from harness.isolation.sandbox import unheard
from harness.results.findings import Outcome
from harness.results.schema import LossRecord, loss_dumps
from harness.runs.driver import Driver
from harness.runs.executors import Local
from harness.runs.ledger import Planned, Request
from property_tests.tools.leaks import is_flat

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")

# Values, gradients, dtypes and laws, of which an example takes milliseconds.  `make leaks` runs all rules.
CODES = "B04,D01,D04,D05,E01,E02,L"
TEXT = 40_000


@pytest.fixture(scope="module")
def measured():
    """Of a process of its own, so that nothing else grows in it."""
    command = [sys.executable, "-m", "property_tests.tools.leaks", "--codes", CODES]
    command += ["--warm", "1000", "--examples", "2200", "--leaky", "400"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in told.splitlines()]


def test_examples_leave_memory_flat(measured):
    quiet = [each for each in measured if not each["kept"]]
    assert is_flat(quiet)


def test_five_kilobytes_kept_of_each_example_are_seen(measured):
    assert measured[-1]["kept"] == 5_000
    assert not is_flat(measured[-2:])


class Canned:
    """Answers every job at once with an outcome of many examples and a long text, of which nothing is to be kept."""

    def __init__(self, jobs):
        self.passed = 0
        records = [LossRecord(f"loss_{n}", "", "good", ("good",)) for n in range(jobs)]
        self.plans = [Planned(record, (("good", "B01"),), "good").to_json() for record in records]

    def run(self, function, payload, limits=None, hear=unheard, *, folder=None):
        if function.endswith(":plan"):
            hear("result", {"plans": self.plans, "warnings": [], "absent": {}, "code": "", "environment": {"cpu": {}}})
            return Ended(events.FINISHED)
        hear("step", "B01")
        outcome = Outcome("good", "B01", "cpu", "passed", 10**6, "")
        record = LossRecord(payload["loss"], "", "good", ("good",), outcomes=(outcome,))
        result = {"step": "B01", "record": loss_dumps(record), "failures": {}, "is_outcome": True}
        hear("result", result | {"passed on": "x" * TEXT})
        self.passed += TEXT
        return Ended(events.FINISHED)

    def stop(self):
        pass

    def close(self):
        pass


def handed_out(jobs):
    """(the answers' driver, bytes that it keeps, length of the texts that it was told beside results)."""
    canned = Canned(jobs)
    with Local(2, canned) as here:
        driver = Driver(["losses"], Request(codes=("B01",)), here)
        tracemalloc.start()  # what an allocator keeps for its threads is nobody's
        try:
            driver.verify()
            gc.collect()
            return driver, tracemalloc.get_traced_memory()[0], canned.passed
        finally:
            tracemalloc.stop()


def test_what_hands_out_jobs_keeps_their_results_and_nothing_else():
    driver, grown, passed = handed_out(1000)
    assert len(driver.report().losses) == 1000
    assert grown < 0.25 * passed
