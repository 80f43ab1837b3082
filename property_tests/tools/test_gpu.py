"""What `make gpu` does around its commands; they need a GPU, which is played or left out here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import fake_cuda
import pytest
import torch

from property_tests.tools import gpu
from property_tests.tools.gpu import Done, Step

REPORT = {
    "environment": {"cuda": {"gpu": {"name": "H", "driver": "575.1", "float32": {}}}},
    "losses": [
        {
            "name": "squares",
            "measurements": [
                {
                    "implementation": "fast",
                    "device": "cuda",
                    "sizes": {"B": 8},
                    "pass_name": "forward",
                    "status": "measured",
                    "seconds_per_call": [2e-6, 1e-6, 4e-6],
                    "costs": {"kernel_launches": 3, "peak_bytes": 2048},
                    "cache": cache,
                    "clock": "graph",
                    "bound_bytes": 1_000_000,
                }
                for cache in ("warm", "cold")
            ],
        }
    ],
}


def verification(path: Path, status: str) -> None:
    outcomes = [{"implementation": "fast", "rule": code, "status": status} for code in ("G01", "E01")]
    path.write_text(json.dumps({"losses": [{"name": "squares", "outcomes": outcomes}]}))


def test_without_a_device_it_says_so_and_runs_nothing(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "run", lambda *_: pytest.fail("a step was run"))
    assert gpu.main([]) == gpu.NO_DEVICE
    assert "make gpu: not run, " in capsys.readouterr().err


def test_the_bandwidth_is_that_of_the_device_that_is_played(monkeypatch):
    fake_cuda.play(monkeypatch)
    assert gpu.bandwidth(torch.device("cuda", 0)) == pytest.approx(2e12, rel=0.1)


def test_the_share_of_the_bandwidth_is_told_of_cold_caches_alone():
    warm, cold = list(gpu.shares(REPORT, 1e12))[2:]
    assert warm.endswith("| warm | graph | 2.0 | 3 | 2 |  |")
    assert cold.endswith("| cold | graph | 2.0 | 3 | 2 | 50% |")


@pytest.mark.parametrize(("on_cuda", "said"), [("passed", 0), ("failed", 2)])
def test_what_the_device_says_otherwise_is_listed(tmp_path, on_cuda, said):
    verification(tmp_path / "cuda.json", on_cuda)
    verification(tmp_path / "cpu.json", "passed")
    found = gpu.differences(tmp_path)
    assert len(found) == said
    assert all("failed on cuda, passed on the CPU" in text for text in found)


def test_nothing_to_compare_is_no_agreement(tmp_path):
    verification(tmp_path / "cpu.json", "passed")
    assert gpu.differences(tmp_path) == ["nothing to compare: no result on cuda"]


def test_a_step_that_does_not_end_is_stopped_at_its_limit():
    words = (sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(600)")
    done = gpu.run(Step("endless", 5, words), limit=600)
    assert (done.code, done.status, done.last) == (None, "stopped at its limit", "begun")


@pytest.mark.parametrize(("code", "exit_code"), [(0, 0), (1, 1), (None, 1)])
def test_the_page_tells_of_every_step_and_a_gate_that_fails_is_the_exit_code(tmp_path, monkeypatch, code, exit_code):
    fake_cuda.play(monkeypatch)
    (tmp_path / "report.json").write_text(json.dumps(REPORT))

    def run(step: Step, limit: float) -> Done:
        if "--output" in step.words:
            verification(Path(step.words[step.words.index("--output") + 1]), "passed")
        return Done(step, code if step.is_gate else 1, 1.0, "the last line")

    monkeypatch.setattr(gpu, "run", run)
    assert gpu.main(["--out", str(tmp_path)]) == exit_code
    page = (tmp_path / "device.md").read_text()
    assert "name H, driver 575.1" in page
    assert "All are equal." in page
    for name in ("tests", "verify cuda", "lost device", "calibration", "report"):
        assert f"| {name} | " in page
