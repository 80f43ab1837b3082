import json
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from fake_time import AMPLE_S
from timed_losses import SPECS, naive, vectorized, wrong_axis

from harness.results.measured import Cell
from harness.timing import cold, processes, worker
from harness.timing.constants import LEAST_PROCESS_S, WORKER_ENVIRONMENT
from harness.timing.design import Contestant, Heat
from harness.timing.processes import target_of, time_in_fresh_process

CELL = Cell({"B": 3, "C": 3}, "cpu", "float32", "forward")


def answer(spec, target=None, *, names=("naive",), left_s=AMPLE_S):
    heat = Heat(CELL, dict.fromkeys(names, Contestant(1e-3)), 2)
    return time_in_fresh_process(
        spec,
        target or target_of(spec)[0],
        [heat],
        device="cpu",
        left_s=left_s,
        process=2,
        processes=3,
        seed=0,
    )


def test_a_fresh_process_times_with_one_thread_and_a_quiet_allocator_whatever_is_printed():
    found = answer(SPECS[1], names=("naive", "talks"))
    assert found.broken == found.unloadable == ""
    assert {samples.implementation: samples.status for samples in found.samples} == {
        "naive": "measured",
        "talks": "measured",
    }
    assert all(len(samples.seconds_per_call) == 2 and min(samples.seconds_per_call) > 0 for samples in found.samples)
    assert found.environment["threads"] == 1
    settings = found.environment["allocator"]["settings"]
    assert settings == {name: value for name, value in WORKER_ENVIRONMENT.items() if name.startswith("MALLOC")}
    assert found.start_s > 0


def test_processes_are_forks_of_one_that_has_imported_torch_and_nothing_of_a_users(tmp_path):
    (tmp_path / "whose.py").write_text(
        "import os\n"
        "from harness import LossSpec, TensorSpec\n"
        "def whose(p):\n"
        "    raise ValueError(f'{os.getpid()} {os.getppid()}')\n"
        "SPEC = LossSpec('whose', {'whose': whose}, inputs={'p': TensorSpec('B C')}, context={})\n"
    )
    spec = worker.targets.load_specs([str(tmp_path / "whose.py")])[0]
    found = [answer(spec, names=("whose",)).samples[0].reason for _ in range(2)]
    assert found[0] != found[1]
    started = processes._box()._process.pid
    processes.wait()
    assert processes._box()._process.pid == started


def test_a_process_that_dies_keeps_what_it_had_measured_and_says_how_it_ended(tmp_path):
    (tmp_path / "dying.py").write_text(
        "import os\n"
        "from harness import LossSpec, TensorSpec\n"
        "def fine(p): return p.sum()\n"
        "def dies(p): os.abort()\n"
        "SPEC = LossSpec('dying', {'fine': fine, 'dies': dies}, inputs={'p': TensorSpec('B C')}, context={})\n"
    )
    spec = worker.targets.load_specs([str(tmp_path / "dying.py")])[0]
    heats = [Heat(CELL, {name: Contestant(1e-3)}, 2) for name in ("fine", "dies")]
    found = time_in_fresh_process(
        spec, str(spec.target), heats, device="cpu", left_s=AMPLE_S, process=2, processes=3, seed=0
    )
    assert [(samples.heat, samples.implementation) for samples in found.samples] == [(0, "fine")]
    assert "(signal 6)" in found.broken


def test_a_fresh_process_finds_what_this_one_does_though_a_checkout_has_the_name_too(tmp_path, monkeypatch):
    """Beside `harness` lies a `noxfile`, and the process is told where `harness` is."""
    (tmp_path / "noxfile.py").write_text(
        "from harness import LossSpec, TensorSpec\n"
        "def naive(p): return p.sum()\n"
        "SPEC = LossSpec('theirs', {'naive': naive}, inputs={'p': TensorSpec('B C')}, context={})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = answer(worker.targets.load_specs(["noxfile"])[0])
    monkeypatch.delitem(sys.modules, "noxfile")
    assert (found.broken, found.unloadable, len(found.samples)) == ("", "", 1)


def test_a_process_that_outlives_the_budget_is_killed(tmp_path, monkeypatch):
    (tmp_path / "hanging.py").write_text(
        "import time\n"
        "from harness import LossSpec, TensorSpec\n"
        "def hangs(p): time.sleep(3600)\n"
        "SPEC = LossSpec('hanging', {'hangs': hangs}, inputs={'p': TensorSpec('B C')}, context={})\n"
    )
    monkeypatch.setattr(processes, "GRACE_S", 0.1)
    spec = worker.targets.load_specs([str(tmp_path / "hanging.py")])[0]
    found = answer(spec, names=("hangs",), left_s=3.0)
    assert found.broken.startswith("it was killed")
    assert found.samples == ()


def job(spec, **changes):
    made = {
        "target": target_of(spec)[0],
        "fingerprint": worker.fingerprint(spec),
        "path": list(sys.path),
        "heats": [asdict(Heat(CELL, {"naive": Contestant(1e-3)}, 2))],
        "device": "cpu",
        "left_s": AMPLE_S,
        "process": 0,
        "processes": 1,
        "seed": 0,
        "started": worker.time.time(),
    }
    return json.loads(json.dumps({**made, **changes}))


def lines(given):
    found = []
    worker.run(given, found.append)
    return json.loads(json.dumps(found))


def test_answers_are_json_and_the_first_says_what_they_were_taken_under():
    loaded, samples, finished = lines(job(SPECS[0]))
    assert loaded["event"] == "loaded"
    assert "torch" in loaded["environment"]
    assert samples["event"] == "samples"
    assert len(worker.read_samples(samples).seconds_per_call) == 2
    assert finished.pop("spent_s") > 0
    assert finished == {"event": "finished", "environment": {"gpu_states": {"before": {}, "after": {}}}}


def test_what_it_takes_to_load_the_compiler_is_told_apart_and_is_no_part_of_the_start(monkeypatch, fake_time):
    monkeypatch.setattr(worker, "time", fake_time)
    monkeypatch.setattr(worker, "unavailable_compiler", lambda device: fake_time.sleep(3.0))
    monkeypatch.setattr(worker, "measure", lambda *_, **__: None)
    heat = Heat(CELL, dict.fromkeys(("naive", "naive (compiled)"), Contestant(1e-3)), 2)
    loaded, _ = lines(job(SPECS[0], heats=[asdict(heat)], started=-2.0))
    assert (loaded["tools_s"], loaded["start_s"]) == (3.0, 2.0)
    loaded, _ = lines(job(SPECS[0], started=fake_time.now - 2.0))
    assert (loaded["tools_s"], loaded["start_s"]) == (0.0, 2.0)


def test_so_is_what_it_takes_to_have_the_memory_that_empties_caches(monkeypatch, fake_time):
    monkeypatch.setattr(worker, "time", fake_time)
    monkeypatch.setattr(cold.Flush, "__call__", lambda self: fake_time.sleep(3.0))
    monkeypatch.setattr(worker, "measure", lambda *_, **__: None)
    heats = [Heat(replace(CELL, cache="cold"), {"naive": Contestant(1e-3)}, 2)] * 2
    loaded, _ = lines(job(SPECS[0], heats=[asdict(heat) for heat in heats], started=-2.0))
    assert (loaded["tools_s"], loaded["start_s"]) == (3.0, 2.0)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (SPECS[0].replace(name="stranger"), "not 'stranger'"),
        (SPECS[0].replace(implementations={"naive": naive, "vectorized": wrong_axis}), "other implementations"),
        (SPECS[0].replace(differentiable=("labels",)), "other differentiable"),
    ],
)
def test_a_spec_that_is_another_one_in_the_file_is_not_timed_in_its_place(spec, reason):
    [line] = lines(job(spec))
    assert line["event"] == "unloadable"
    assert reason in line["reason"]


def test_a_file_that_cannot_be_loaded_is_said_so(tmp_path):
    broken = tmp_path / "broken_when_loaded.py"
    broken.write_text("raise RuntimeError('not today')\n")
    [line] = lines(job(SPECS[0], target=str(broken)))
    assert line["event"] == "unloadable"
    assert "RuntimeError: not today" in line["reason"]


def test_a_device_that_nothing_can_run_on_is_said_so_before_anything_is_timed(monkeypatch):
    monkeypatch.setattr(worker, "unusable", lambda device: f"{device} is there, but nothing can run on it: busy")
    assert lines(job(SPECS[0])) == [{"event": "unloadable", "reason": "cpu is there, but nothing can run on it: busy"}]


def test_to_wake_a_device_and_to_read_its_clocks_is_part_of_the_start_and_leaves_time_to_read_them_again(monkeypatch):
    now, given = [1000.0], {}

    def takes(seconds, result=None):
        return lambda *_: now.__setitem__(0, now[0] + seconds) or result

    monkeypatch.setattr(worker, "time", SimpleNamespace(time=lambda: now[0], perf_counter=lambda: now[0]))
    monkeypatch.setattr(worker, "unusable", takes(4.0))
    monkeypatch.setattr(worker.environment, "gpu_states", takes(3.0, {}))
    monkeypatch.setattr(worker, "measure", lambda *_, **arguments: given.update(arguments))
    loaded, _ = lines(job(SPECS[0], left_s=20.0, started=1000.0))
    assert loaded["start_s"] == pytest.approx(7.0)
    assert given["seconds"] == pytest.approx(20 - 7 - 3)


def test_a_fingerprint_tells_functions_and_declarations_apart():
    same = worker.fingerprint(SPECS[0])
    assert same == worker.fingerprint(SPECS[0].replace())
    for changes in (
        {"implementations": {"naive": naive, "vectorized": vectorized, "module": naive}},
        {"differentiable": ("labels",)},
        {"select": len},
    ):
        assert worker.fingerprint(SPECS[0].replace(**changes)) != same


def test_a_spec_that_is_in_no_file_has_no_target():
    namespace = {}
    code = (
        "from harness import LossSpec, TensorSpec\n"
        "SPEC = LossSpec('typed', {'typed': lambda p: p.sum()}, inputs={'p': TensorSpec('B')}, context={})\n"
    )
    exec(compile(code, "<stdin>", "exec"), namespace)
    target, reason = target_of(namespace["SPEC"])
    assert target is None
    assert "Python file" in reason


def test_every_process_gets_an_equal_part_after_its_start():
    assert worker.seconds_here(30.0, 3, 2.0) == pytest.approx(8.0)
    assert worker.seconds_here(22.0, 2, 3.0) == pytest.approx(8.0)


def test_a_budget_that_starts_would_fill_goes_to_fewer_processes_and_is_never_overdrawn():
    assert worker.seconds_here(4.0, 3, 2.0) == pytest.approx(LEAST_PROCESS_S)
    assert worker.seconds_here(2.05, 3, 2.0) == pytest.approx(0.05)
    assert worker.seconds_here(1.0, 3, 2.0) == 0.0
