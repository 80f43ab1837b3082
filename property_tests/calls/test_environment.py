import getpass
import json
import os
import platform
import subprocess
import sys

import pytest
import torch
from fake_cuda import play

from harness.calls import environment
from harness.isolation.sandbox import Sandbox


def test_it_is_json_and_has_what_figures_depend_on():
    found = environment.describe()
    assert json.loads(json.dumps(found)) == found
    assert found["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert found["threads"] == torch.get_num_threads()
    assert found["cores"] == os.cpu_count()
    assert found["cpu"]
    assert found["gpu"] is None


def test_it_names_neither_the_machine_nor_the_user_nor_a_path(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "")
    texts = [value for value in _leaves(environment.describe()) if isinstance(value, str)]
    assert texts
    assert not any(text.startswith(("/", "~")) or os.getcwd() in text for text in texts)
    assert platform.node() not in texts
    assert getpass.getuser() not in texts


def _leaves(value):
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in _leaves(part)]
    return [leaf for part in value for leaf in _leaves(part)] if isinstance(value, list) else [value]


def test_allocator_settings_are_recorded_and_a_preloaded_library_by_its_name_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1024")
    monkeypatch.setenv("LD_PRELOAD", "/somewhere/private/libjemalloc.so.2:/other/libfoo.so")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    assert environment._allocator() == {
        "c_library": "glibc 2.36",
        "preloaded": ["libjemalloc.so.2", "libfoo.so"],
        "settings": {"MALLOC_TOP_PAD_": "1024"},
    }


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("570.1, 1980, 2619, 1980, 700.00\n", {"driver": "570.1", "sm_clock_mhz": 1980.0, "power_limit_w": 700.0}),
        ("570.1, [N/A], 2619, 1980, 700.00\n", {"driver": "570.1", "sm_clock_mhz": None, "memory_clock_mhz": 2619.0}),
        ("", {"driver": None, "sm_clock_mhz": None}),
        ("something else\n", {"driver": None, "sm_clock_mhz": None}),
    ],
)
def test_clocks_of_a_gpu_are_read_or_unknown(monkeypatch, answer, expected):
    completed = subprocess.CompletedProcess([], 0, stdout=answer)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: completed)
    found = environment._gpu_state("")
    assert {name: found[name] for name in expected} == expected


def test_a_gpu_without_its_tool_has_unknown_clocks(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", missing)
    assert set(environment._gpu_state("").values()) == {None}


def test_the_last_level_cache_is_the_largest_level_that_has_a_size(monkeypatch, tmp_path):
    real = environment.Path
    listed = {"index0": ("1", "48K"), "index1": ("1", "32K"), "index2": ("2", "2M"), "index3": ("3", "")}
    for name, (level, size) in listed.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "level").write_text(level + "\n")
        (tmp_path / name / "size").write_text(size + "\n")
    (tmp_path / "index4").mkdir()
    monkeypatch.setattr(environment, "Path", lambda place: tmp_path if "cpu0/cache" in place else real(place))
    assert environment.last_level_cache_bytes() == 2 * 2**20
    monkeypatch.setattr(environment, "Path", lambda place: tmp_path / "none")
    assert environment.last_level_cache_bytes() is None


def answers(monkeypatch, **by_field):
    """nvidia-smi as a table from the first field of a query to its answer; other queries fail."""

    def run(command, **_):
        for field, answer in by_field.items():
            if command[1].startswith(f"--query-gpu={field.replace('__', '.')}"):
                return subprocess.CompletedProcess(command, 0, stdout=answer)
        raise subprocess.CalledProcessError(2, command)

    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.parametrize("name", ["clocks_event_reasons__active", "clocks_throttle_reasons__active"])
def test_the_state_of_a_gpu_is_read_while_it_works_under_the_new_name_of_its_limits_and_the_old(monkeypatch, name):
    answers(monkeypatch, clocks__sm="1755, 2619, 83\n", **{name: "0x0000000000000044\n"})
    worked = []
    assert environment._state("", lambda: worked.append(0)) == {
        "sm_clock_mhz": 1755.0,
        "memory_clock_mhz": 2619.0,
        "temperature_c": 83.0,
        "limits": ["software power cap", "hardware thermal slowdown"],
    }


def test_a_state_that_cannot_be_read_is_unknown(monkeypatch):
    answers(monkeypatch)
    assert set(environment._state("", lambda: None).values()) == {None}
    answers(monkeypatch, clocks__sm="[N/A], 2619, 40\n", clocks_event_reasons__active="[N/A]\n")
    state = environment._state("", lambda: None)
    assert (state["sm_clock_mhz"], state["temperature_c"], state["limits"]) == (None, 40.0, None)


def test_an_idle_device_and_a_setting_hold_no_clock_down():
    assert environment._limits("0x0000000000000003") == []
    assert environment.gpu_states(["cpu"]) == {}


def test_a_change_of_speed_is_named_and_a_steady_or_an_unknown_one_is_not():
    steady = {"cuda:1": {"sm_clock_mhz": 1980.0, "memory_clock_mhz": 2619.0, "limits": []}}
    slower = {"cuda:1": {"sm_clock_mhz": 1755.0, "memory_clock_mhz": 2610.0, "limits": ["software power cap"]}}
    unknown = {"cuda:1": {"sm_clock_mhz": None, "memory_clock_mhz": None, "limits": None}}
    assert environment.unsteady(steady, steady) == environment.unsteady(steady, unknown) == []
    assert environment.unsteady({}, {}) == []
    assert environment.unsteady(steady, slower) == [
        "cuda:1 was held down after the timing: software power cap",
        "cuda:1: the clock of its processors went from 1980 to 1755 MHz",
    ]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_that_works_has_a_clock_and_a_temperature():
    state = environment.gpu_states(["cuda"])["cuda"]
    assert state["sm_clock_mhz"] > 0
    assert state["temperature_c"] > 0
    assert isinstance(state["limits"], list)


def test_a_gpu_is_described_with_its_cache_and_what_float32_is_computed_in_where_its_tool_is_missing(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError("nvidia-smi")

    play(monkeypatch, l2_bytes=50 * 2**20)
    monkeypatch.setattr(subprocess, "run", missing)
    gpu = environment.describe("cuda:1")["gpu"]
    assert json.loads(json.dumps(gpu)) == gpu
    assert (gpu["name"], gpu["capability"], gpu["l2_cache_bytes"]) == ("played", "9.0", 50 * 2**20)
    assert (gpu["driver"], gpu["power_limit_w"]) == (None, None)
    assert set(gpu["float32"]) == {
        "matmul_precision",
        "matmul_allow_tf32",
        "matmul_fp32_precision",
        "cudnn_allow_tf32",
        "cudnn_conv_fp32_precision",
        "cudnn_benchmark",
        "cudnn_deterministic",
    }


def tell_settings(code, tell):
    before = environment._float32_settings()
    exec(f"torch.backends.{code}")
    tell("result", [before, environment._float32_settings()])


@pytest.fixture(scope="module")
def box():
    """Whose forks have the settings with which torch starts."""
    with Sandbox(["torch", "harness.calls.environment"]) as made:
        yield made


@pytest.mark.parametrize(
    "code", ["cudnn.allow_tf32 = False", "cuda.matmul.allow_tf32 = True", "fp32_precision = 'tf32'"]
)
def test_a_setting_of_float32_is_recorded_as_it_was_made_or_unknown(box, code):
    heard = []
    ended = box.run(f"{__name__}:tell_settings", code, hear=lambda kind, data: kind == "result" and heard.append(data))
    assert ended.ok, ended
    before, after = heard[-1]
    assert before["matmul_precision"] == "highest"
    assert (before["matmul_allow_tf32"], before["cudnn_allow_tf32"]) == (False, True)
    assert after != before


def test_a_gpu_whose_memory_others_have_is_in_an_unknown_state(monkeypatch):
    play(monkeypatch, memory=2**20)
    state = environment.gpu_states(["cuda:1"])["cuda:1"]
    assert set(state) == {"sm_clock_mhz", "memory_clock_mhz", "temperature_c", "limits"}
    assert set(state.values()) == {None}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_described():
    gpu = environment.describe("cuda")["gpu"]
    assert gpu["name"]
    assert gpu["memory_bytes"] > gpu["l2_cache_bytes"] > 0
    assert gpu["driver"]


def test_an_unknown_device_is_refused():
    with pytest.raises(RuntimeError, match="abacus"):
        environment.describe("abacus")


def test_this_interpreter_is_named():
    assert environment.describe()["implementation"].lower() == sys.implementation.name
