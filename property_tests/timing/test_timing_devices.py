import subprocess
import sys

import pytest
import torch

from harness.calls.evaluation import is_out_of_memory
from harness.timing.devices import current, lost, release, unavailable, unusable

NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_the_cpu_is_available_and_what_is_not_says_why():
    assert unavailable("cpu") is None
    assert "no device 'abacus'" in unavailable("abacus")
    if not torch.cuda.is_available():
        assert "CUDA" in unavailable("cuda")


def test_a_device_of_another_kind_is_available_where_a_tensor_can_be_made_on_it():
    assert unavailable("meta") is None
    assert unavailable("xla").startswith("no tensor can be made on 'xla': ")


def test_the_cpu_is_never_lost():
    assert lost("cpu") is None
    with current("cpu"):
        release("cpu")


def raised(call):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        call()
    return caught.value


def test_an_allocation_that_no_memory_holds_is_told_from_other_errors():
    assert is_out_of_memory(raised(lambda: torch.empty(2**46)))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(raised(lambda: torch.ones(2) @ torch.ones(3)))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_a_device_that_fails_at_every_call_is_lost_and_says_why(monkeypatch):
    def fails(device):
        raise torch.AcceleratorError(f"CUDA error: device-side assert triggered on {device}\nmore")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", fails)
    expected = (
        "cuda:1 works no more in this process: AcceleratorError: CUDA error: device-side assert triggered on cuda:1"
    )
    assert lost("cuda:1") == expected


@pytest.mark.cuda
@NO_CUDA
def test_a_device_that_works_is_woken():
    assert unusable("cuda") is None
    assert torch.cuda.is_initialized()


@pytest.mark.cuda
@NO_CUDA
def test_a_device_beyond_the_last_is_not_available():
    assert "there are" in unavailable(f"cuda:{torch.cuda.device_count()}")


@pytest.mark.cuda
@NO_CUDA
def test_an_assertion_on_the_device_loses_it_for_the_process():
    code = (
        "import torch\n"
        "from harness.timing.devices import lost\n"
        "assert lost('cuda') is None\n"
        "try:\n"
        "    torch.zeros(3, device='cuda')[torch.tensor([5], device='cuda')].sum().item()\n"
        "except RuntimeError: pass\n"
        "print(lost('cuda'))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "works no more in this process" in ran.stdout
