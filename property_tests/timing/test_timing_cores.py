"""Losses that are timed at a time have a core each, whichever processes ask."""

from __future__ import annotations

import os
import threading

import pytest

from harness.timing import cores
from harness.timing.cores import own_core, run_on

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to a core")


@pytest.fixture(autouse=True)
def free(monkeypatch):
    """Names of this test's own, so that runs beside it hold none of them."""
    monkeypatch.setattr(cores, "_NAME", f"loss-harness/test/{os.getpid()}/")


def never():
    raise AssertionError("there was a free core")


def test_a_block_has_one_core_and_then_all_of_them_again():
    before = os.sched_getaffinity(0)
    with own_core(never):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_a_core_is_one_of_those_that_the_process_may_use():
    before = sorted(os.sched_getaffinity(0))
    try:
        run_on(before[-1:])
        with own_core(never):
            assert os.sched_getaffinity(0) == {before[-1]}
    finally:
        run_on(before)


def test_who_finds_no_core_waits_until_one_is_given_back():
    holders = [cores._held(core)[1] for core in sorted(os.sched_getaffinity(0))]
    waits = []

    def wait():
        waits.append(len(waits))
        if len(waits) == 2:
            holders[-1].close()

    expected = sorted(os.sched_getaffinity(0))[-1]
    with own_core(wait):
        assert os.sched_getaffinity(0) == {expected}
    assert waits == [0, 1]
    for holder in holders:
        holder.close()


def test_a_core_that_is_held_is_given_to_nobody_else():
    with own_core(never):
        (core,) = os.sched_getaffinity(0)
        assert cores._held(core) is None
    with cores._held(core)[1]:
        pass


def test_the_core_of_a_process_that_was_killed_is_free():
    ready, release = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with own_core(never):
                os.write(release, str(*os.sched_getaffinity(0)).encode())
                threading.Event().wait()
        finally:
            os._exit(1)
    core = int(os.read(ready, 8))
    assert cores._held(core) is None
    os.kill(child, 9)
    os.waitpid(child, 0)
    with cores._held(core)[1]:
        pass
