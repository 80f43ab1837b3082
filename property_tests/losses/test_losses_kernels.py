"""The Triton kernels: what is said where Triton is not installed, and in its interpreter what they are and which defects show."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.declare.targets import load_specs
from harness.errors import TargetError

ROOT = Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed: pip install 'loss-harness[kernels]'"
)


def interpreted(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process that has not imported Triton yet, which asks for its interpreter then."""
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_without_triton_the_target_says_what_to_install(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "triton" else real(name, *more)
    )
    monkeypatch.delitem(sys.modules, "losses.kernels", raising=False)
    with pytest.raises(TargetError, match=r"'triton'[\s\S]*pip install 'loss-harness\[kernels\]'"):
        load_specs(["losses.kernels"])


EQUAL = """
import itertools, torch
from losses import kernels as k

random = torch.Generator().manual_seed(0)
def draw(*shape): return torch.randn(shape, generator=random, dtype=torch.float64)
for rows, columns in [(1, 1), (3, 1023), (2, 1025), (0, 4)]:
    for layout, reduction in itertools.product((lambda t: t, lambda t: t.T.contiguous().T), ("none", "mean", "sum")):
        results = []
        for loss in (k.WeightedCrossEntropyLoss, k.TritonWeightedCrossEntropyLoss):
            random.manual_seed(1)
            logits = layout(draw(rows, columns)).requires_grad_()
            labels = torch.randint(columns, (rows,), generator=random)
            labels[1:2] = -100
            value = loss(draw(columns).abs(), reduction=reduction)(logits, labels)
            upstream = draw(*value.shape)
            results.append((value, *torch.autograd.grad(value, logits, upstream)))
        torch.testing.assert_close(*results)
    for layout, reduction in itertools.product((lambda t: t, lambda t: t.T.contiguous().T), ("none", "mean", "weighted_mean")):
        results = []
        for loss in (k.WeightedMSELoss, k.TritonWeightedMSELoss):
            random.manual_seed(1)
            p, y = layout(draw(rows, columns)).requires_grad_(), draw(rows, columns).requires_grad_()
            value = loss(draw(columns).relu(), reduction=reduction, grid_axes=1)(p, y)
            results.append((value, *torch.autograd.grad(value, (p, y), draw(*value.shape))))
        torch.testing.assert_close(*results)
"""


@needs_triton
def test_a_kernel_is_the_usual_form_for_every_reduction_layout_and_tail():
    done = interpreted("-c", EQUAL)
    assert done.returncode == 0, done.stderr[-2000:]


@needs_triton
def test_each_planted_defect_is_seen_by_its_rule_which_spares_the_honest_twin():
    done = interpreted("-m", "property_tests.tools.kernel_defects", "--each")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
