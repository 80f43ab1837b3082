"""A device that is lost, generators of devices, and what a process that was forked may do.  Devices are played by patches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness import LossSpec, TensorSpec, verify
from harness.calls import devices
from harness.calls.process_state import preserve
from harness.checking.session import place
from harness.isolation.sandbox import Sandbox
from harness.results.findings import Status
from harness.rules import find
from harness.runs.driver import Driver
from harness.runs.executors import Local
from harness.runs.ledger import Request
from harness.runs.preload import ALL_RULES, COMPILER, PRELOAD, TIMING

GONE = "cuda works no more in this process: AcceleratorError: CUDA error: device-side assert triggered"
TENSORS = {"predictions": TensorSpec("B"), "labels": TensorSpec("B")}


def squares(predictions, labels):
    return (predictions - labels).square().mean()


def spec(**implementations):
    return LossSpec("squares", implementations or {"fast": squares}, inputs=TENSORS, output=TensorSpec(""))


@pytest.fixture
def losing(monkeypatch):
    """A device that works until the loss has run so many times."""

    def lose_after(calls):
        left = [calls]

        def loss(predictions, labels):
            left[0] -= 1
            return squares(predictions, labels)

        monkeypatch.setattr(devices, "lost", lambda device: GONE if left[0] <= 0 else None)
        return loss

    return lose_after


def test_the_rule_that_loses_the_device_has_crashed_and_names_its_last_input(losing):
    found = verify(spec(fast=losing(1)), profile="quick", rules=["B01", "D01", "G08"])
    assert [outcome.status for outcome in found.outcomes] == [Status.CRASHED, Status.SKIPPED, Status.SKIPPED]
    assert found.outcomes[0].reason == GONE
    assert found.outcomes[1].reason == f"not run: {GONE}"
    (finding,) = found.findings
    assert (finding.rule, finding.evidence["aspect"], finding.severity) == ("X01", "B01", "error")
    assert "the last input: B=" in finding.message
    assert "the last call that was made" in finding.reproduction
    assert not found.ok


def test_what_a_rule_found_before_it_lost_the_device_is_not_told_as_the_fault_of_the_loss(losing):
    loss = losing(1)

    def raising(predictions, labels):
        loss(predictions, labels)
        raise RuntimeError("CUDA error: device-side assert triggered")

    found = verify(spec(fast=raising), profile="quick", rules=["B01"])
    assert [finding.rule for finding in found.findings] == ["X01"]


def test_a_device_that_works_changes_nothing(losing):
    found = verify(spec(fast=losing(10**9)), profile="quick", rules=["B01"])
    assert found.outcomes == verify(spec(), profile="quick", rules=["B01"]).outcomes


LOSING = """
import torch

from harness import LossSpec, TensorSpec; from harness.calls import devices

GONE = []


def fast(predictions, labels):
    if labels.dtype == torch.float16:  # which D01 is the first to give; a new process has a device that works
        GONE.append("cuda works no more in this process")
    return (predictions - labels).square().mean()


devices.lost = lambda device: GONE[0] if GONE else None
TENSORS = {"predictions": TensorSpec("B"), "labels": TensorSpec("B")}
SPEC = LossSpec("squares", {"fast": fast}, inputs=TENSORS, output=TensorSpec(""))
"""


def test_a_job_goes_on_in_a_new_process_where_a_rule_has_lost_the_device(tmp_path):
    target = tmp_path / "losing.py"
    target.write_text(LOSING)
    with Local(1) as shop:
        driver = Driver([f"{target}:SPEC"], Request(profile="quick", codes=("B01", "D01", "G08")), shop)
        driver.verify()
        (loss,) = driver.report().losses
    assert {o.rule: o.status for o in loss.outcomes} == {"B01": "passed", "D01": "crashed", "G08": "passed"}
    (finding,) = loss.findings
    assert finding.rule == "X01"
    assert "D01 output and gradient keep" in finding.message
    assert "the last input: B=" in finding.message


def test_the_reference_is_asked_on_the_cpu_and_candidates_on_the_device():
    both = spec(loop=squares, fast=squares)
    where, why = place(both, "loop", find("G01"), "cuda:1")
    assert where == "cpu"
    assert why.startswith("asked on the CPU: it is the reference")
    assert place(both, "fast", find("G01"), "cuda:1") == ("cuda:1", "")
    assert place(spec(), "fast", find("G01"), "cuda:1") == ("cuda:1", "")  # the only one is a candidate
    assert place(both, "loop", find("G01"), "cpu") == ("cpu", "")


@pytest.mark.parametrize("code", ["B03", "C09"])
def test_inputs_that_a_loss_should_refuse_stay_off_the_device(code):
    where, why = place(spec(), "fast", find(code), "cuda")
    assert where == "cpu"
    assert "would end the device" in why
    assert f"Asked on the CPU, whatever the device: {find(code).on_the_cpu}." in find(code).explain()


@pytest.fixture
def one_cuda_generator(monkeypatch):
    generator = torch.Generator()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "default_generators", (generator,), raising=False)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    return generator


def test_generators_of_devices_are_seeded_and_put_back(one_cuda_generator):
    before = one_cuda_generator.get_state()
    with preserve():
        devices.seed(5)
        first = torch.rand(3, generator=one_cuda_generator)
        devices.seed(5)
        assert torch.equal(torch.rand(3, generator=one_cuda_generator), first)
    assert torch.equal(one_cuda_generator.get_state(), before)


def test_a_loss_that_draws_from_the_generator_of_a_device_is_found_by_its_name(one_cuda_generator):
    def noisy(predictions, labels):
        torch.rand((), generator=one_cuda_generator)
        return squares(predictions, labels)

    found = verify(spec(fast=noisy), profile="quick", rules=["S02"])
    (finding,) = found.findings
    assert finding.evidence["aspect"] == "the global generator of cuda:0"
    assert "device='cuda:0'" in finding.reproduction
    assert verify(spec(), profile="quick", rules=["S02"]).findings == ()


def test_no_generator_of_a_device_is_asked_for_before_the_process_uses_it():
    assert torch.cuda.is_initialized() or list(devices.generators()) == ["torch's global generator"]


def test_a_fork_of_a_process_that_has_used_cuda_says_that_it_cannot(monkeypatch):
    from harness.runs.ledger import why_absent

    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    assert why_absent("cuda") == "cuda: this process is a fork of one that has used CUDA, and cannot use it"
    assert why_absent("cpu") == ""


ASKED = f"""
import importlib, sys, torch
asked = []
torch.backends.cuda.is_built = lambda: True  # as where there may be a device
for owner, name in ((torch.cuda, "is_available"), (torch.cuda, "device_count"), (torch.cuda, "_lazy_init"),
                    (torch._C, "_cuda_getDeviceCount")):
    def record(*given, name=name, **named):
        asked.append(name)
        return 0
    if hasattr(owner, name):  # a torch without CUDA lacks some
        setattr(owner, name, record)
for name in {(*PRELOAD, *ALL_RULES, *COMPILER, *TIMING)!r}:
    importlib.import_module(name)
print(asked, torch.cuda.is_initialized())
"""


def test_what_is_imported_before_jobs_are_forked_does_not_ask_for_cuda():
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASKED], capture_output=True, text=True, check=True, cwd=root
    )
    assert ran.stdout.strip() == "[] False"


def tell_of_cuda(payload, tell):
    import os

    checked = os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK")
    tell("result", [checked, devices.is_barred(), torch.cuda.is_initialized()])


def test_jobs_ask_for_devices_by_nvml_and_are_forked_from_a_process_that_has_not_used_cuda():
    heard = []
    with Sandbox(PRELOAD) as box:
        ended = box.run(f"{__name__}:tell_of_cuda", None, hear=lambda kind, data: heard.append(data))
    assert ended.ok
    assert heard == [["1", False, False]]
