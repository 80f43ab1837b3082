"""Where processes cannot be forked, jobs run in the process that asks, one after the other, and are told of in the same way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.isolation import events, worker
from harness.isolation.sandbox import Here
from harness.runs.driver import Driver
from harness.runs.executors import Local
from harness.runs.ledger import Request
from property_tests.runs.test_jobs import findings

# The parts of the standard library that other systems lack; torch is loaded before, for this one knows that it has them.
WITHOUT_FORK = """
import os, sys, torch
sys.modules["resource"] = None
for name in ("fork", "pidfd_open", "sched_getaffinity", "setpgid", "setsid", "sysconf"):
    vars(os).pop(name, None)
from harness.cli import main
main()
"""

under_way: list[str] = []
most_at_once: list[int] = []


class WithoutWords(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def perform(payload, tell):
    tell("step", "first")
    worker.note('{"case": 7}')
    tell("result", {"folder": os.getcwd()})
    tell("step", "second")
    if payload is not None:
        raise {"words": ValueError("of the loss"), "none": WithoutWords()}[payload]


def take_a_while(payload, tell):
    under_way.append(payload)
    time.sleep(0.05)
    most_at_once.append(len(under_way))
    under_way.remove(payload)


def run(payload=None, **options):
    heard = []
    ended = Here().run(f"{__name__}:perform", payload, hear=lambda *event: heard.append(event), **options)
    return ended, heard


def test_steps_and_results_are_heard_in_their_order_and_nobody_asks_for_notes():
    ended, heard = run()
    assert ended.ok
    assert heard == [("step", "first"), ("result", {"folder": os.getcwd()}), ("step", "second")]


@pytest.mark.parametrize(("error", "told"), [("words", "ValueError: of the loss"), ("none", "WithoutWords")])
def test_an_error_of_the_job_is_its_end_and_says_in_which_step(error, told):
    ended, heard = run(error)
    assert (ended.how, ended.step) == (events.RAISED, "second")
    assert told in ended.reason
    assert len(heard) == 3


def test_a_job_has_the_folder_that_it_was_given_and_this_process_keeps_its_own(tmp_path):
    before = os.getcwd()
    _, heard = run("words", folder=str(tmp_path))
    assert heard[1] == ("result", {"folder": str(tmp_path)})
    assert os.getcwd() == before


def test_jobs_of_several_threads_take_turns():
    here = Here()
    most_at_once.clear()
    threads = [threading.Thread(target=here.run, args=(f"{__name__}:take_a_while", name)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most_at_once == [1, 1, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this compares with jobs that are forked")
def test_the_findings_are_those_of_processes_of_their_own():
    reports = []
    for box in (Here(), None):
        with Local(2, box) as shop:
            driver = Driver(["losses.focal:SPEC"], Request(profile="quick", codes=("B01", "B05")), shop)
            driver.verify()
            reports.append(findings(driver.report()))
    assert reports[0] == reports[1]


def test_the_commands_do_without_what_only_systems_that_fork_have():
    words = ["verify", "losses.focal:SPEC", "--profile", "quick", "--select", "B01"]
    path = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FORK, *words],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "0 errors" in done.stdout
