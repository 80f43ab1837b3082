"""How much of a verification is the user's loss and autograd, for a loss whose forward takes about a millisecond.

python property_tests/tools/measure_loss_share.py [profile]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from harness import LossSpec, TensorSpec
from harness.report.check_times import check_times_text, loss_share
from harness.runs.ledger import Request
from harness.runs.run import LocalRun

POINTS = 20_000


def smooth(predictions: Tensor, labels: Tensor) -> Tensor:
    """The mean squared error, read off a curve of many points: eight elementwise operations of about 0.1 ms."""
    curve = torch.linspace(0.5, 1, POINTS, dtype=predictions.dtype) * ((predictions - labels) ** 2).mean()
    for _ in range(8):
        curve = torch.tanh(curve)
    return curve.mean()


def seconds_of(call: Callable[[], object]) -> float:
    """The median of some calls."""
    found = []
    for _ in range(30):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return sorted(found)[len(found) // 2]


def spec() -> LossSpec:
    """The loss alone, nothing declared but its tensors."""
    tensors = {"predictions": TensorSpec("B D"), "labels": TensorSpec("B D")}
    return LossSpec("smooth", {"only": smooth}, inputs=tensors, output=TensorSpec(""))


def main() -> None:
    """Print the cost of one forward, the table and the share, without what is loaded once."""
    torch.set_num_threads(1)
    profile = sys.argv[1] if len(sys.argv) > 1 else "ci"
    LocalRun([spec()], Request(profile=profile)).verify()  # loads what torch and Hypothesis load on first use
    x = torch.rand(3, 4, dtype=torch.float64)
    print(f"one forward: {1e3 * seconds_of(lambda: smooth(x, x + 1)):.2f} ms")
    run = LocalRun([spec()], Request(profile=profile, is_metered=True))
    run.verify()
    report = run.report()
    print(check_times_text(report))
    print(f"share {loss_share(report.losses[0].check_times):.3f}")


if __name__ == "__main__":
    main()
