"""A dask cluster of several processes gives the findings of one machine, whatever happens to its workers."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import Executor, Future
from pathlib import Path

import hostile_losses
import pytest
from fake_time import FakeTime
from test_jobs import findings

from harness.isolation.limits import Limits, descendants
from harness.results.findings import Outcome
from harness.results.schema import LossRecord, loss_dumps
from harness.runs import arrival
from harness.runs.arrival import WorkerError
from harness.runs.cluster import ClusterError, cluster
from harness.runs.driver import Driver
from harness.runs.executors import Local
from harness.runs.ledger import Planned, Request
from harness.runs.remote import Remote

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
from property_tests.helpers.clusters import Disturbed, cluster_of, pids, quick_losses  # noqa: E402

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="jobs are forked, which this system cannot"),
]

QUICK = Request(profile="quick", codes=("B01", "B05"))
JOBS = 200
PATIENCE_S = 900.0  # for what comes at once, on a machine that is slow or busy


@pytest.fixture(scope="module")
def dask_cluster(tmp_path_factory):
    with cluster_of(3, tmp_path_factory.mktemp("workers"), gpus=1) as made:
        yield made


@pytest.fixture
def shop(dask_cluster):
    made = cluster(dask_cluster.scheduler_address)
    yield made
    made.close()


def verified(targets, request, shop, **limits):
    driver = Driver(targets, request, shop, **limits)
    driver.verify()
    return driver


def test_a_cluster_finds_what_this_machine_finds(shop):
    targets, request = ["losses.focal", "losses.mahalanobis:SPEC"], Request(profile="quick", codes=("B", "P02"))
    with Local(1) as here:
        expected = findings(verified(targets, request, here).report())
    assert findings(verified(targets, request, shop).report()) == expected


def test_workers_that_are_killed_at_random_cost_nothing(shop, dask_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_cluster.scheduler, "allowed_failures", 0)  # each loss of a worker reaches the driver
    targets, request = [str(quick_losses(tmp_path / "quick.py", JOBS))], Request(profile="quick", codes=("B01",))
    with Local(2) as here:
        expected = verified(targets, request, here).report()
    disturbed = Disturbed(shop, lambda: pids(dask_cluster), after=(20, 90, 160), seed=1)
    report = verified(targets, request, disturbed).report()
    assert len(disturbed.killed) == 3
    assert disturbed.handed_out > JOBS
    assert sum(len(loss.outcomes) for loss in report.losses) == JOBS
    assert not any(loss.missing for loss in report.losses)
    assert {o.status for loss in report.losses for o in loss.outcomes} == {"passed"}
    assert findings(report) == findings(expected)


def test_a_loss_that_ends_its_process_costs_no_worker(shop, dask_cluster):
    before = pids(dask_cluster)
    targets = [f"{hostile_losses.__file__}"]
    report = verified(targets, QUICK, shop, allowed=Limits(step_s=10.0, memory_bytes=2 << 30)).report()
    stopped = {loss.name for loss in report.losses if any(o.status in ("crashed", "timed out") for o in loss.outcomes)}
    assert {"segfault", "leaves", "endless"} <= stopped
    assert not any(loss.missing for loss in report.losses)
    assert pids(dask_cluster) == before


def client_of(shop):
    return shop._executor.__self__.client


def worker_name():
    return distributed.get_worker().name


def meet(folder, together):
    """The name of the worker, once so many workers do this at a time."""
    (Path(folder) / worker_name()).touch()
    while len(list(Path(folder).iterdir())) < together:
        time.sleep(0.01)
    return worker_name()


def test_jobs_of_a_gpu_run_where_one_is_offered_and_others_anywhere(shop, tmp_path):
    on_gpu = [shop._executor("cuda:0").submit(worker_name) for _ in range(8)]
    assert {future.result(PATIENCE_S) for future in on_gpu} == {"worker-0"}
    client_of(shop).wait_for_workers(3)  # one that was killed may be starting
    on_cpu = [shop._executor("cpu").submit(meet, str(tmp_path), 3) for _ in range(3)]
    assert {future.result(PATIENCE_S) for future in on_cpu} == {"worker-0", "worker-1", "worker-2"}


class Noted(Executor):
    """Says for which devices it was asked, and does what it is given at once."""

    def __init__(self):
        self.devices = []

    def of(self, device):
        self.devices.append(device)
        return self

    def submit(self, function, /, *args):
        done = Future()
        done.set_result(json.dumps([{"devices": args[1]["request"]["devices"]}, ""]))
        return done


def test_the_devices_that_are_there_are_asked_of_a_worker_that_has_them():
    noted = Noted()
    Remote(noted.of, lambda: None).call("plan", {"targets": [], "request": {"devices": ["cpu", "cuda"]}})
    assert noted.devices == ["cuda"]


def test_nothing_outlives_a_worker(tmp_path):
    with cluster_of(2, tmp_path) as made:
        shop = cluster(made.scheduler_address)
        verified([str(quick_losses(tmp_path / "quick.py", 10))], QUICK, shop)
        killed, *_ = workers = pids(made)
        started = {pid: descendants(pid) for pid in workers}
        assert all(started.values())
        os.kill(killed, signal.SIGKILL)
        assert_gone(started[killed])
        shop.close()
    assert_gone([*workers, *(pid for left in started.values() for pid in left)])


def assert_gone(processes):
    until = time.monotonic() + PATIENCE_S
    while left := [pid for pid in processes if is_running(pid)]:
        assert time.monotonic() < until, f"{left} still run"
        time.sleep(0.1)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_address_where_nothing_answers_is_refused():
    with pytest.raises(ClusterError, match=r"no scheduler answers at 'tcp://127\.0\.0\.1:9' within 5 s"):
        cluster("tcp://127.0.0.1:9")


@pytest.fixture
def listener():
    """A socket whose connections are accepted by the system and never answered."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        yield made


def address_of(listener):
    return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def test_a_port_that_never_speaks_is_refused(listener):
    with pytest.raises(ClusterError, match="no scheduler answers"):
        cluster(address_of(listener))


def test_a_port_that_speaks_something_else_is_refused(listener):
    def speak():
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    speaking = threading.Thread(target=speak)
    speaking.start()
    with pytest.raises(ClusterError, match="no scheduler answers"):
        cluster(address_of(listener))
    speaking.join()


@pytest.mark.parametrize("address", ["what:ever:this", "tcp://127.0.0.1:9"])
def test_a_client_that_cannot_connect_leaves_nothing_to_the_garbage_collector(address):
    threads = threading.active_count()
    with pytest.raises(ClusterError) as refused:
        cluster(address)
    assert threading.active_count() == threads
    assert {client.status for client in gc.get_objects() if type(client).__name__ == "Released"} == {"closed"}
    assert refused.value.__cause__ is not None  # whose frames hold the client until here


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ClusterError, match="write the address that it prints"):
        cluster("what:ever:this")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"pip install 'loss-harness\[cluster\]'"):
        cluster("tcp://127.0.0.1:9")


def test_other_versions_on_the_workers_are_refused_with_both(dask_cluster, monkeypatch):
    here = arrival.versions() | {"torch": "1.0"}
    monkeypatch.setattr(arrival, "versions", lambda: here)
    with pytest.raises(ClusterError, match=r"has torch 2\.\S+, but this run torch 1\.0; .* install the same on both"):
        cluster(dask_cluster.scheduler_address)


def test_a_worker_that_comes_later_with_other_versions_ends_the_run(shop):
    shop._origin["versions"]["torch"] = "1.0"
    with pytest.raises(WorkerError, match=r"a worker has torch 2\.\S+, but this run torch 1\.0"):
        Driver(["losses.focal"], QUICK, shop)


def test_a_file_that_the_workers_lack_is_refused(shop, tmp_path, monkeypatch):
    shop._origin["folder"] = "/no/such/folder"
    with pytest.raises(WorkerError, match=r"target 'mine/loss\.py': no such file on a worker"):
        Driver(["mine/loss.py"], QUICK, shop)


def test_a_cluster_without_gpus_or_workers_is_refused_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.runs.cluster.time", FakeTime())  # the while is over as soon as it is waited for
    with cluster_of(1, tmp_path) as made:
        shop = cluster(made.scheduler_address)
        with pytest.raises(ClusterError, match=r"cuda: none of the 1 workers at \S+ offers a GPU"):
            Driver(["losses.focal"], Request(devices=("cpu", "cuda")), shop)
        shop.close()
    with (
        cluster_of(0, tmp_path) as empty,
        pytest.raises(ClusterError, match=r"no worker came to the scheduler at \S+ within"),
    ):
        cluster(empty.scheduler_address, patience_s=0.5)


def test_a_scheduler_that_is_lost_ends_the_run(tmp_path):
    with cluster_of(1, tmp_path) as made:
        shop = cluster(made.scheduler_address)
    until = time.monotonic() + PATIENCE_S
    while client_of(shop).status == "running" and time.monotonic() < until:
        time.sleep(0.05)
    with pytest.raises(ClusterError, match="was lost; what was found is kept"):
        Driver(["losses.focal"], QUICK, shop)
    shop.close()


class Canned(Executor):
    """Answers every job at once with one outcome and a long text, of which nothing is to be kept."""

    def __init__(self):
        records = [LossRecord(f"loss_{n}", "", "good", ("good",)) for n in range(2000)]
        self.plans = [Planned(record, (("good", "B01"),), "good").to_json() for record in records]

    def submit(self, function, /, text, *args):
        done = Future()
        told = {"plans": self.plans, "warnings": [], "absent": {}, "code": "", "environment": {"cpu": {}}}
        done.set_result(json.dumps([told, ""] if function is arrival.call else self.carried(json.loads(text)["loss"])))
        return done

    def carried(self, loss):
        outcome = Outcome("good", "B01", "cpu", "passed", 10**6, "")
        record = LossRecord(loss, "", "good", ("good",), outcomes=(outcome,))
        result = {"step": "B01", "record": loss_dumps(record), "failures": {}, "is_outcome": True}
        return {"results": [result | {"passed on": "x" * 40_000}], "lost": ""}


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_the_driver_keeps_results_and_nothing_else():
    canned = Canned()
    driver = Driver(["losses"], Request(codes=("B01",)), Remote(lambda device: canned, lambda: None))
    before = resident_bytes()
    driver.verify()
    grown = resident_bytes() - before
    assert len(driver.report().losses) == 2000
    assert grown < 0.25 * 2000 * 40_000  # of what has passed through
