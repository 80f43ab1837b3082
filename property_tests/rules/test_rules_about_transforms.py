"""What the rules that load the compiler promise: quick leaves them out, nothing stays behind, no loss ends the process."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from harness import LossSpec, TensorSpec, verify
from harness.results.findings import Status

DECLARED = {"inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")}, "output": TensorSpec("")}
CODES = ["T01", "T02", "T03"]


def mean_squared(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def checked(loss, rules, profile="ci"):
    return verify(LossSpec("loss", {"candidate": loss}, **DECLARED), rules=rules, profile=profile)


@pytest.mark.parametrize(("profile", "status"), [("quick", Status.SKIPPED), ("ci", Status.PASSED)])
def test_only_the_quick_profile_leaves_the_compiler_out(profile, status):
    outcomes = checked(mean_squared, CODES, profile).outcomes
    assert [outcome.status for outcome in outcomes] == [status] * len(CODES)
    assert all(("compiler" in outcome.reason) is (status is Status.SKIPPED) for outcome in outcomes)


def test_the_compiler_leaves_no_caches_and_no_log_level_behind():
    from torch._dynamo.eval_frame import _debug_get_cache_entry_list

    from harness.rules.transforms import compiling

    before = logging.getLogger("torch._dynamo").level
    checked(mean_squared, ["T01"])
    assert _debug_get_cache_entry_list(compiling._call.__code__) == []
    assert logging.getLogger("torch._dynamo").level == before


class _Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, errors):
        ctx.save_for_backward(errors)
        return errors**2

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient * ctx.saved_tensors[0]


def switches_gradients_on(predictions, labels):
    torch.set_grad_enabled(True)
    weight = torch.ones((), dtype=predictions.dtype, device=predictions.device, requires_grad=True)
    return (weight * _Square.apply((predictions - labels).requires_grad_())).mean()


def penalises_its_gradient(predictions, labels):
    with torch.enable_grad():
        point = predictions.detach().requires_grad_()
        (slope,) = torch.autograd.grad(((point - labels) ** 2).sum(), point, create_graph=True)
    return ((predictions - labels) ** 2).mean() + slope.square().mean()


def transforms_itself(predictions, labels):
    slope = torch.func.grad(lambda point: ((point - labels) ** 2).sum())(predictions)
    return slope.square().mean()


class LearnsItsScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, predictions, labels):
        with torch.enable_grad():
            return (self.scale.to(predictions.dtype) * (predictions - labels) ** 2).mean()


@pytest.mark.parametrize(
    "loss", [switches_gradients_on, penalises_its_gradient, transforms_itself, LearnsItsScale], ids=lambda f: f.__name__
)
def test_fake_cuda_tensors_meet_no_autograd(loss):
    """Where torch has no CUDA, autograd ends the process at a fake CUDA tensor; nothing else would be reported."""
    found = checked(loss, ["T03"])
    assert found.outcomes[0].status is Status.PASSED
    assert torch.is_grad_enabled()
