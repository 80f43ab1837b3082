"""Settings of torch's backends: what a loss changes is seen once, put back, and TF32 is off while CUDA is verified."""

from __future__ import annotations

import pytest
import torch

from harness.calls import backends
from harness.calls.backends import full_float32
from harness.calls.process_state import preserve


def high():
    torch.set_float32_matmul_precision("high")


def medium():
    torch.set_float32_matmul_precision("medium")


def products_in_tf32():
    torch.backends.cuda.matmul.allow_tf32 = True


def products_in_the_newer_way():
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def convolutions_in_float32():
    torch.backends.cudnn.allow_tf32 = False


def convolutions_in_the_newer_way():
    torch.backends.cudnn.conv.fp32_precision = "ieee"


def everything_in_tf32():
    torch.backends.fp32_precision = "tf32"


def benchmark():
    torch.backends.cudnn.benchmark = True


def deterministic():
    torch.backends.cudnn.deterministic = True


def without_cudnn():
    torch.backends.cudnn.enabled = False


ONE_THING = (
    *(high, medium, products_in_tf32, products_in_the_newer_way, convolutions_in_float32),
    *(convolutions_in_the_newer_way, benchmark, deterministic, without_cudnn),
)


@pytest.mark.parametrize("change", [*ONE_THING, everything_in_tf32], ids=lambda change: change.__name__)
def test_what_changes_is_seen_and_put_back(change):
    before = backends.read()
    with preserve():
        change()
        found = [setting.name for setting, _, _ in backends.changed(before, backends.read())]
    assert len(found) == 1 or change is everything_in_tf32
    assert found
    assert backends.read() == before


def test_what_is_set_and_set_back_in_the_older_way_has_not_changed():
    with preserve():
        before = backends.read()
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cuda.matmul.allow_tf32 = False
        assert list(backends.changed(before, backends.read())) == []


def tf32():
    return [s.name for s, value in backends.read().items() if value in ("tf32", "bf16", True) and "32" in s.name]


@pytest.mark.parametrize("change", [lambda: None, high, medium, products_in_the_newer_way, everything_in_tf32])
def test_no_product_or_convolution_on_cuda_is_in_tf32_while_it_is_verified(change):
    with preserve():
        change()
        before = backends.read()
        with full_float32("cuda"):
            of_cuda = [name for name in tf32() if ".cuda" in name or ".cudnn" in name]
            assert of_cuda == []
        assert backends.read() == before


def test_on_the_cpu_nothing_is_changed():
    before = backends.read()
    with full_float32("cpu"):
        assert backends.read() == before
