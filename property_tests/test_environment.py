import getpass
import json
import os
import platform
import subprocess
import sys

import pytest
import torch

from harness import environment


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


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_described():
    gpu = environment.describe("cuda")["gpu"]
    assert gpu["name"]
    assert gpu["memory_bytes"] > 0
    assert gpu["driver"]


def test_an_unknown_device_is_refused():
    with pytest.raises(RuntimeError, match="abacus"):
        environment.describe("abacus")


def test_this_interpreter_is_named():
    assert environment.describe()["implementation"].lower() == sys.implementation.name
