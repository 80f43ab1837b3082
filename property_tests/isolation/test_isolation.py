"""Whatever a job does to its process, that job is reported and nothing else is lost or changed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.isolation import events
from harness.isolation.limits import Limits
from harness.isolation.sandbox import Sandbox

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, which this system cannot")

PATIENCE_S = 900.0  # for what comes at once, on a machine that is slow or busy
LIMITS = Limits(step_s=PATIENCE_S, memory_bytes=300 << 20)
AFTER = [("step", "after"), ("result", {"done": "after"})]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(["torch"]) as made:
        yield made


def perform(sandbox, fault, limits=LIMITS, **payload):
    heard = []
    ended = sandbox.run(
        "isolation_faults:perform", {"fault": fault} | payload, limits, lambda kind, data: heard.append((kind, data))
    )
    return ended, heard


def is_alive(pid):
    """Whether a process runs; one that has ended and is not yet waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("fault", "how", "reason"),
    [
        ("segfault", events.KILLED, "Segmentation fault (signal 11)"),
        ("abort", events.KILLED, "Aborted (signal 6)"),
        ("leave", events.EXITED, "it ended the process with exit code 3 before it was done"),
        ("signal_group", events.KILLED, "Killed (signal 9); the system may have run out of memory"),
        ("leave_quietly", events.RAISED, "SystemExit: 5"),
        ("flood", events.RAISED, "ValueError: flooded"),
        ("big_children", events.OUT_OF_MEMORY, "but may take 300.0 MiB"),
        ("big_tensor", events.RAISED, "can't allocate memory"),
    ],
)
def test_a_job_that_ends_badly_says_how_where_and_on_what(sandbox, fault, how, reason):
    ended, heard = perform(sandbox, fault)
    assert ended.how == how
    assert reason in ended.reason
    assert (ended.step, ended.note) == (fault, {"case": 7})
    assert heard == [("step", fault), ("result", {"done": "before"})]
    assert not ended.ok


def test_an_endless_loop_is_ended_at_its_limit(sandbox):
    ended, _ = perform(sandbox, "loop", Limits(step_s=0.5))
    assert (ended.how, ended.reason) == (events.TIMED_OUT, "it was not done after 0.5 s")


@pytest.mark.parametrize(
    ("seconds", "hangs", "steps", "how"), [(1.0, False, 4, events.FINISHED), (2.0, True, 1, events.TIMED_OUT)]
)
def test_each_step_has_the_whole_time_and_what_was_told_before_its_end_is_heard(seconds, hangs, steps, how):
    heard = []
    payload = {"steps": steps, "seconds": seconds, "hangs": hangs}
    with Sandbox(["property_tests.helpers.isolation_steps"]) as made:
        ended = made.run(
            "property_tests.helpers.isolation_steps:perform",
            payload,
            Limits(step_s=1.5),
            lambda *event: heard.append(event),
        )
    assert (ended.how, ended.step) == (how, str(steps - 1) if hangs else "")
    assert heard == [
        event for step in range(steps) for event in (("step", str(step)), ("result", {"seconds": seconds}))
    ]


@pytest.mark.parametrize("fault", ["nothing", "copy", "deadlock", "close_everything"])
def test_what_does_no_harm_to_the_results_is_heard_once(sandbox, fault):
    ended, heard = perform(sandbox, fault)
    expected = [("step", fault), ("result", {"done": "before"})]
    assert heard == (expected if fault == "close_everything" else expected + AFTER)
    assert ended.ok == (fault != "close_everything")


@pytest.mark.parametrize("fault", ["daemon", "helper_process"])
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans to who asks for them")
def test_what_a_job_leaves_behind_is_ended_with_it(sandbox, tmp_path, fault):
    file = tmp_path / "pid"
    ended, _ = perform(sandbox, fault, file=str(file))
    assert ended.ok
    assert not is_alive(int(file.read_text()))


def test_the_last_output_is_kept_and_the_rest_is_not(sandbox):
    ended, _ = perform(sandbox, "flood")
    assert "the last words" in ended.output
    assert len(ended.output) <= 4000


def test_a_crash_shows_the_line_that_ran(sandbox):
    ended, _ = perform(sandbox, "segfault")
    assert "isolation_faults.py" in ended.output


def test_what_one_job_changes_no_other_sees(sandbox, tmp_path):
    file = tmp_path / "seen"
    assert perform(sandbox, "change_surroundings")[0].ok
    assert perform(sandbox, "report_surroundings", file=str(file))[0].ok
    assert file.read_text() == f"torch.float32 True False {os.getcwd()}"


def test_jobs_run_beside_each_other(sandbox, tmp_path):
    """Each ends when all are there."""
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(perform(sandbox, "meet", folder=str(tmp_path), together=3)[0].how))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [events.FINISHED] * 3


def test_a_closed_sandbox_leaves_no_process(tmp_path):
    made = Sandbox()
    file = tmp_path / "pid"
    thread = threading.Thread(target=lambda: perform(made, "helper_process", Limits(), file=str(file)))
    assert perform(made, "nothing")[0].ok
    process = made._process
    thread.start()
    thread.join()
    made.close()
    assert process.poll() is not None
    assert not is_alive(int(file.read_text()))
    with pytest.raises(RuntimeError, match="closed"):
        perform(made, "nothing")


def test_no_job_outlives_whoever_asked_for_it(tmp_path):
    """Killed outright, the asking process can tell nobody."""
    code = (
        "import os, sys, threading, time\n"
        "from harness.isolation.sandbox import Sandbox\n"
        "made = Sandbox()\n"
        "ask = lambda: made.run('isolation_faults:perform', {'fault': 'sleeper', 'file': sys.argv[1]})\n"
        "threading.Thread(target=ask, daemon=True).start()\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    file = tmp_path / "pid"
    path = os.pathsep.join([str(Path(__file__).parents[1] / "helpers"), str(Path(__file__).parents[2])])
    subprocess.run(
        [sys.executable, "-c", code, str(file)], env=os.environ | {"PYTHONPATH": path}, check=False, timeout=PATIENCE_S
    )
    pid = int(file.read_text())
    deadline = time.monotonic() + PATIENCE_S
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(pid)


def test_a_process_that_starts_jobs_is_replaced_when_it_is_lost(sandbox):
    assert perform(sandbox, "nothing")[0].ok
    sandbox._process.kill()
    sandbox._process.wait()
    assert perform(sandbox, "nothing")[0].ok


def test_the_copy_of_a_process_that_a_loss_forks_ends_with_the_call():
    """It would go on as a second run, with the first one's files and descriptors."""
    code = (
        "import os\nimport torch\nfrom harness import LossSpec, TensorSpec\nfrom harness.calls.evaluation import Candidate\n"
        "def forks(x):\n    os.fork()\n    return x.sum()\n"
        "spec = LossSpec('forks', {'forks': forks}, inputs={'x': TensorSpec('B')})\n"
        "print(float(Candidate(spec, 'forks')({'x': torch.ones(3)})), flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert done.stdout == "3.0\n"


def test_what_a_worker_looks_at_is_the_last_that_it_wrote_whole():
    note = events.Note()
    assert note.read() is None
    note.write('{"case": 7, "of": "ü"}')
    assert note.read() == {"case": 7, "of": "ü"}
    note.write("8")
    assert note.read() == 8
    note.write("9" * (2 << 20))
    assert note.read() is None


@pytest.mark.parametrize(
    ("fault", "note"), [("segfault_in_the_next_step", None), ("segfault_after_a_fork", {"case": 7})]
)
def test_a_note_belongs_to_its_step_and_to_no_copy_of_the_worker(sandbox, fault, note):
    ended, _ = perform(sandbox, fault)
    assert (ended.how, ended.note) == (events.KILLED, note)
