"""Jobs: the same findings wherever and in whatever order they run, and nothing lost to what one of them does."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import hostile_losses
import pytest
from fake_time import AMPLE_S, FakeTime

from harness.declare.targets import load_specs
from harness.errors import DeclarationError, HarnessError, TargetError
from harness.isolation.limits import Limits
from harness.isolation.sandbox import Sandbox, unheard
from harness.report import csv
from harness.results import schema
from harness.results.observer import Observer
from harness.runs.driver import Driver
from harness.runs.executors import Local
from harness.runs.job import Job
from harness.runs.ledger import Request
from harness.runs.preload import PRELOAD
from harness.runs.remote import Remote
from harness.runs.run import LocalRun
from harness.timing.cores import cores as own_cores
from property_tests.tools.test_leaks import Canned

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="jobs are forked, which this system cannot")

CODES = ("B01", "B05", "E01", "G05")
FEW = ("B01", "B05")
MEMORY = 2 << 30
LIMIT_S = 5.0  # of what hangs; a check that does not takes a fiftieth of it
HOSTILE = [f"{hostile_losses.__file__}:ENDING"]
ENDLESS = [f"{hostile_losses.__file__}:ENDLESS"]
QUICK = Request(profile="quick", codes=CODES)


@pytest.fixture(scope="module")
def box():
    with Sandbox(PRELOAD) as made:
        yield made


@pytest.fixture(scope="module")
def shop(box):
    with Local(2, box) as made:
        yield made


@pytest.fixture(scope="module")
def hostile(shop):
    driver = Driver(HOSTILE, QUICK, shop, allowed=Limits(step_s=AMPLE_S, memory_bytes=MEMORY))
    driver.verify()
    return driver


@pytest.fixture(scope="module")
def endless(shop):
    driver = Driver(ENDLESS, Request(profile="quick", codes=FEW), shop, allowed=Limits(LIMIT_S, MEMORY))
    driver.verify()
    return driver


def findings(report):
    """The part of a report that is the same for the same seed, as text."""
    data = json.loads(schema.dumps(report))
    return json.dumps(
        [{key: loss[key] for key in ("name", "outcomes", "findings", "suggestions")} for loss in data["losses"]]
    )


def of(report, name):
    return next(loss for loss in report.losses if loss.name == name)


@pytest.mark.parametrize(
    ("loss", "status", "reason"),
    [
        ("segfault", "crashed", "killed by a signal: Segmentation fault (signal 11)"),
        ("endless", "timed out", "timed out: it was not done after 5 s"),
        ("leaves", "crashed", "exited: it ended the process with exit code 0 before it was done"),
    ],
)
def test_a_loss_that_ends_its_process_is_reported_with_the_last_input(request, loss, status, reason):
    driver = request.getfixturevalue("endless" if loss == "endless" else "hostile")
    record = of(driver.report(), loss)
    stopped = [o for o in record.outcomes if o.implementation == loss and o.status == status and reason in o.reason]
    assert stopped
    found = [f for f in record.of(loss) if f.rule == "X01" and f.case is not None]
    assert found
    assert found[0].case["sizes"]["B"] == 1
    assert "the last input: B=1" in found[0].message
    assert "import torch" in found[0].reproduction
    assert not record.ok


@pytest.mark.parametrize("loss", ["forks", "deadlocks", "prints", "poisons"])
def test_a_loss_that_only_harms_its_surroundings_is_checked_to_the_end(hostile, loss, capfd):
    record = of(hostile.report(), loss)
    assert not any(o.status in ("crashed", "timed out") for o in record.outcomes if o.implementation == loss)
    assert "noise" not in "".join(capfd.readouterr())


def test_a_loss_that_takes_too_much_memory_is_told_so_and_the_rest_goes_on(hostile):
    record = of(hostile.report(), "bomb")
    assert "can't allocate memory" in json.dumps([f.message for f in record.of("bomb")])


@pytest.mark.parametrize(("fixture", "targets", "codes"), [("hostile", HOSTILE, CODES), ("endless", ENDLESS, FEW)])
def test_nothing_else_is_lost_or_changed(request, fixture, targets, codes):
    report = request.getfixturevalue(fixture).report()
    alone = LocalRun(load_specs(targets), Request(profile="quick", codes=codes, implementations=("good",)))
    alone.verify()
    for loss in alone.report().losses:
        mine = of(report, loss.name)
        assert [o for o in mine.outcomes if o.implementation == "good"] == list(loss.outcomes)
        assert mine.of("good") == loss.findings
        assert not mine.missing
        assert len(mine.outcomes) == 2 * len(codes)


def test_a_process_that_dies_again_and_again_is_given_up_and_says_so(hostile):
    record = of(hostile.report(), "leaves")
    reasons = [o.reason for o in record.outcomes if o.implementation == "leaves"]
    assert len(reasons) == len(CODES)


def test_jobs_find_what_a_run_in_this_process_finds(shop):
    request = Request(profile="quick", codes=("B", "C", "G05", "L"))
    driver = Driver(["losses.dynamic_weighted"], request, shop)
    driver.verify()
    run = LocalRun(load_specs(["losses.dynamic_weighted"]), request)
    run.verify()
    assert findings(driver.report()) == findings(run.report())
    assert driver.failures.keys() == run.failures.keys()


class TakesTurns(Canned):
    """Each job takes ten seconds, and begins when the driver has taken in the one before."""

    def __init__(self, jobs, fake):
        super().__init__(jobs)
        self.time, self.done, self.driver = fake, 0, None

    def run(self, function, payload, limits=None, hear=unheard, *, folder=None):
        if function.endswith(":plan"):
            return super().run(function, payload, limits, hear, folder=folder)

        def takes_long(kind, data):
            hear(kind, data)
            self.time.sleep(10 if kind == "step" else 0)

        while sum(self.driver.seconds.values()) < 10 * self.done:
            time.sleep(1e-3)
        self.done += 1
        return super().run(function, payload, limits, takes_long, folder=folder)


def test_a_job_that_waits_for_its_turn_takes_no_longer_for_it(monkeypatch):
    fake = FakeTime()
    monkeypatch.setattr("harness.runs.driver.time", fake)
    played = TakesTurns(3, fake)
    with Local(1, played) as one:
        played.driver = driver = Driver(["losses"], Request(codes=("B01",)), one)
        driver.verify()
    assert list(driver.seconds.values()) == [10, 10, 10]


class Shuffled(Local):
    """Hands jobs on in another order, all of a run at once."""

    def __init__(self, workers, seed, box):
        super().__init__(workers, box)
        self.random = random.Random(seed)
        self.held = []

    def submit(self, job, tell):
        told = Future()
        self.held.insert(self.random.randrange(len(self.held) + 1), (job, tell, told))
        if len(self.held) == self.count:
            for held_job, held_tell, held_told in self.held:
                running = super().submit(held_job, held_tell)
                running.add_done_callback(lambda done, told=held_told: told.set_result(done.result()))
        return told


def verified(shop, targets, codes):
    driver = Driver(targets, Request(profile="quick", codes=codes), shop)
    driver.verify()
    return driver


TWO, TWO_CODES = ["losses.focal:SPEC", "losses.mahalanobis:SPEC"], ("B", "P", "E01")


@pytest.fixture(scope="module")
def two(shop):
    return findings(verified(shop, TWO, TWO_CODES).report())


@pytest.mark.parametrize(("workers", "seed"), [(1, 1), (4, 2)])
def test_the_findings_do_not_depend_on_the_number_of_workers_or_the_order(two, box, workers, seed):
    with Shuffled(workers, seed, box) as other:
        driver = Driver(TWO, Request(profile="quick", codes=TWO_CODES), other)
        other.count = sum(len(list(driver._jobs(plan))) for plan in driver.plans)
        driver.verify()
    assert findings(driver.report()) == two


FOCAL = ["losses.focal:SPEC"]


@pytest.fixture(scope="module")
def focal(shop):
    return findings(verified(shop, FOCAL, ("B",)).report())


def test_another_process_with_another_hash_seed_finds_the_same(shop, tmp_path):
    driver = verified(shop, FOCAL, ("B", "P02"))
    file = tmp_path / "report.json"
    code = (
        "import sys\n"
        "from harness.isolation.sandbox import Sandbox\n"
        "from harness.runs.driver import Driver\n"
        "from harness.runs.executors import Local\n"
        "from harness.runs.preload import PRELOAD\n"
        "from harness.results import schema\n"
        "from harness.runs.ledger import Request\n"
        "with Sandbox(PRELOAD) as box, Local(1, box) as shop:\n"
        "    driver = Driver(['losses.focal:SPEC'], Request(profile='quick', codes=('B', 'P02')), shop)\n"
        "    driver.verify()\n"
        "    open(sys.argv[1], 'w').write(schema.dumps(driver.report()))\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "17", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code, str(file)], env=environment, check=True)
    assert findings(schema.loads(file.read_text())) == findings(driver.report())


def test_any_executor_of_the_standard_library_will_do(focal):
    with ProcessPoolExecutor(2) as pool:
        driver = verified(Remote(lambda device: pool, lambda: None), FOCAL, ("B",))
    assert findings(driver.report()) == focal


class Unreliable(Remote):
    """Loses the worker of every job a few times."""

    def __init__(self, shop, losses):
        super().__init__(lambda device: None, lambda: None)
        self.shop, self.losses, self.tries = shop, losses, {}

    def submit(self, job, tell):
        tries = self.tries[job.key] = self.tries.get(job.key, 0) + 1
        if tries <= self.losses:
            lost = Future()
            lost.set_exception(BrokenProcessPool("a worker was killed"))
            return lost
        return self.shop.submit(job, tell)

    def call(self, function, payload):
        return self.shop.call(function, payload)


def test_a_job_whose_worker_is_lost_is_handed_out_again(shop, focal):
    assert findings(verified(Unreliable(shop, 2), FOCAL, ("B",)).report()) == focal


def test_a_job_whose_workers_are_always_lost_is_reported_rule_by_rule(shop):
    (loss,) = verified(Unreliable(shop, 99), FOCAL, ("B01", "B02")).report().losses
    assert {o.status for o in loss.outcomes} == {"crashed"}
    assert "its worker was lost 5 times: BrokenProcessPool: a worker was killed" in loss.outcomes[0].reason
    assert not loss.missing


def test_timing_runs_elsewhere_too(shop):
    asked = Request(codes=("B01",), is_timed=False, sizes=({"B": 3, "C": 4},), budget_s=AMPLE_S)
    driver = Driver(["losses.focal:SPEC"], asked, shop)
    driver.verify()
    driver.benchmark()
    (loss,) = driver.report().losses
    assert all(m.costs["aten_calls"] > 0 for m in loss.measurements if m.implementation == "vectorized")
    assert csv.render(driver.report()).startswith("loss,")
    in_process = LocalRun(load_specs(["losses.focal:SPEC"]), asked)
    in_process.benchmark()
    assert costs(loss) == costs(in_process.report().losses[0])


def costs(loss):
    return {(m.implementation, m.pass_name, str(m.sizes)): m.costs for m in loss.measurements}


def test_losses_that_are_timed_together_have_a_core_each_and_no_other_rows(shop):
    targets = ["losses.focal:SPEC", "losses.logit_adjustment:SPEC"]
    asked = Request(codes=("B01",), sizes=({"B": 3, "C": 4},), passes=("forward",), budget_s=AMPLE_S)
    reports, heard = [], Steps()
    for together in (False, True):
        driver = Driver(targets, asked, shop, times_together=together)
        driver.benchmark(heard)
        reports.append(driver.report())
    rows = [[(m.implementation, m.cell, m.status) for loss in r.losses for m in loss.measurements] for r in reports]
    assert rows[0] == rows[1]
    assert {status for _, _, status in rows[0]} == {"measured"}
    assert [step.kind for step in heard.steps] == ["timing"] * 4
    cores = [r.environment["timing"].get("timed_on_cores") for r in reports]
    assert cores[0] is None
    assert set(cores[1] or own_cores()) <= set(own_cores())  # none where the system binds no process to a core
    assert bool(cores[1]) is (len(own_cores()) > 1)
    assert not any(loss.missing for r in reports for loss in r.losses)


class Steps(Observer):
    def __init__(self):
        self.steps = []

    def begin(self, step):
        self.steps.append(step)


def test_a_loss_that_dies_while_it_is_timed_fails_alone(shop, tmp_path):
    file = tmp_path / "timed.py"
    file.write_text(
        "import os\nfrom hostile_losses import good\nfrom harness import LossSpec\n"
        "def leaves(predictions, labels):\n    os._exit(7)\n"
        "SIZES = ({'B': 8, 'C': 4},)\n"
        "SPECS = [LossSpec('dies', {'good': good, 'leaves': leaves}, bench_sizes=SIZES),\n"
        "         LossSpec('lives', {'good': good, 'again': lambda predictions, labels: good(predictions, labels)}, bench_sizes=SIZES)]\n"
    )
    driver = Driver([str(file)], Request(codes=("B01",), is_timed=False), shop)
    driver.benchmark()
    report = driver.report()
    assert {m.status for m in of(report, "dies").measurements} == {"failed"}
    assert "exit code 7" in of(report, "dies").measurements[0].reason
    assert all(m.costs["aten_calls"] > 0 for m in of(report, "lives").measurements)


def test_a_loss_that_was_stopped_when_it_was_checked_is_not_timed(shop, tmp_path):
    file = tmp_path / "stopped.py"
    file.write_text(
        "from hostile_losses import good, endless\nfrom harness import LossSpec\n"
        "SPECS = [LossSpec('stopped', {'good': good, 'endless': endless}, bench_sizes=({'B': 1, 'C': 4},))]\n"
    )
    driver = Driver(
        [str(file)], Request(profile="quick", codes=("B05",), is_timed=False), shop, allowed=Limits(LIMIT_S)
    )
    driver.verify()
    driver.benchmark()
    (loss,) = driver.report().losses
    (left_out,) = [m for m in loss.measurements if m.implementation == "endless"]
    assert (left_out.status, left_out.reason) == ("skipped", "not timed: it crashed or hung when it was checked")
    assert any(m.costs for m in loss.measurements if m.implementation == "good")


def test_rules_that_were_never_tried_are_skipped_and_counted(hostile):
    record = of(hostile.report(), "leaves")
    mine = [o for o in record.outcomes if o.implementation == "leaves"]
    assert all(o.reason for o in mine if o.status == "skipped")
    assert len(mine) == len(CODES)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("import os\nos._exit(4)\n", TargetError, "exit code 4"),
        ("import ctypes\nctypes.string_at(0)\n", TargetError, "Segmentation fault"),
        ("def loss(p):\n    return p\n", DeclarationError, "annotat"),
        ("raise ValueError('broken')\n", TargetError, "ValueError: broken"),
    ],
)
def test_a_target_that_cannot_be_loaded_is_refused(shop, tmp_path, text, kind, message):
    file = tmp_path / "target.py"
    file.write_text(text)
    with pytest.raises(kind, match=message):
        Driver([str(file)], QUICK, shop)


def test_an_impossible_request_is_refused_before_anything_runs(shop):
    with pytest.raises(HarnessError, match="no loss has an implementation 'vectorised'"):
        Driver(["losses.focal"], Request(implementations=("vectorised",)), shop)


def test_a_job_is_text_and_back():
    job = Job("verify", ("losses",), "focal", "naive", "cpu", ("G01",), True, {"profile": "ci"}, step_s=2.0)
    assert Job.loads(job.dumps()) == job


def test_a_target_that_never_loads_ends_at_the_limit_of_a_check_and_is_named(shop, tmp_path):
    (tmp_path / "hangs.py").write_text("while True:\n    pass\n")
    targets = ["losses.focal", str(tmp_path / "hangs.py")]
    with pytest.raises(TargetError, match=r"not done after 5 s, at target '.*hangs\.py'"):
        Driver(targets, Request(), shop, allowed=Limits(step_s=LIMIT_S))
