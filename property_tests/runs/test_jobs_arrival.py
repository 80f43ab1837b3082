"""A worker refuses what it could not carry out as it was meant, and says what to mend."""

from __future__ import annotations

import os

import pytest

from harness.runs import arrival, executors
from harness.runs.arrival import WorkerError, origin
from harness.runs.ledger import Request

REQUEST = Request(profile="quick", codes=("B01",)).to_json()


def plan(came_from, *targets):
    return arrival.call("plan", {"targets": list(targets), "request": REQUEST}, came_from)


def test_other_versions_are_refused_with_both_and_the_way_to_mend_it():
    there = origin()
    there["versions"] = {**there["versions"], "torch": "1.0", "hypothesis": "2.0"}
    with pytest.raises(WorkerError) as refused:
        plan(there, "losses.focal:SPEC")
    here = arrival.versions()
    assert str(refused.value) == (
        f"a worker has torch {here['torch']}, hypothesis {here['hypothesis']}, but this run torch 1.0, hypothesis 2.0; "
        "findings depend on it: install the same on both"
    )


def test_a_package_that_a_worker_lacks_is_named():
    told = arrival.differing("the scheduler", {"loss-harness": "1"}, {"loss-harness": "1", "torch": "2.0"})
    assert told.startswith("the scheduler has torch (not installed), but this run torch 2.0")


def test_a_file_that_no_worker_sees_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(
        WorkerError, match=r"target 'mine/loss\.py': no such file on a worker, in .*; put it into a folder"
    ):
        plan(origin() | {"folder": str(tmp_path)}, "mine/loss.py:SPEC")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="jobs are forked, which this system cannot")
def test_a_worker_without_the_folder_of_the_run_looks_in_its_own(tmp_path, monkeypatch):
    executors.isolation_of.cache_clear()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("SPEC = 1\n")
    try:
        assert "mine.py" in plan(origin() | {"folder": "/nowhere/at/all"}, "mine.py:SPEC")
    finally:
        executors.isolation_of(os.getpid()).close()
        executors.isolation_of.cache_clear()
