"""Medians of our block timer beside those of `torch.utils.benchmark`, on the same statements, threads and settings.

    python -m property_tests.tools.compare_clocks [--rounds 30]

Both run in this process, in turn, block by block of the same number of calls; a block that another process interrupts is
repeated for both alike.  Exit code 1 where two medians differ by more than 3 %.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import benchmark as torch_benchmark

from harness import LossSpec, TensorSpec
from harness.results.measured import Cell, Pass
from harness.timing.clocks import clock_for
from harness.timing.constants import WORKER_ENVIRONMENT
from harness.timing.design import calibrate
from harness.timing.quiet import Quiet
from harness.timing.workload import Workload, inputs

ALLOWED = 0.03


@dataclass(frozen=True)
class Statement:
    """A loss on one size, in one pass."""

    name: str
    loss: Callable[..., Tensor]
    sizes: dict[str, int]
    pass_name: Pass


def weighted_mse(predictions: Tensor, labels: Tensor) -> Tensor:
    return (labels * (predictions - labels) ** 2).mean()


def similarity(predictions: Tensor, labels: Tensor) -> Tensor:
    return (torch.nn.functional.normalize(predictions) @ torch.nn.functional.normalize(labels).T).sum()


def loop(predictions: Tensor, labels: Tensor) -> Tensor:
    total = predictions.new_zeros(())
    for p, y in zip(predictions, labels, strict=True):
        total = total + ((p - y) ** 2).mean()
    return total


STATEMENTS = (
    Statement("weighted MSE", weighted_mse, {"B": 4, "D": 8}, "forward"),
    Statement("weighted MSE", weighted_mse, {"B": 8, "D": 64}, "full"),
    Statement("weighted MSE", weighted_mse, {"B": 256, "D": 1024}, "forward"),
    Statement("weighted MSE", weighted_mse, {"B": 1024, "D": 1024}, "full"),
    Statement("similarity matrix", similarity, {"B": 64, "D": 64}, "forward"),
    Statement("similarity matrix", similarity, {"B": 1024, "D": 256}, "full"),
    Statement("loop over samples", loop, {"B": 16, "D": 32}, "forward"),
    Statement("loop over samples", loop, {"B": 256, "D": 32}, "full"),
)


@dataclass(frozen=True)
class Compared:
    """Seconds per call by both, one a round."""

    statement: Statement
    calls: int
    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def difference(self) -> float:
        """How much longer our median is, relative to theirs."""
        return statistics.median(self.ours) / statistics.median(self.theirs) - 1


def compare(statement: Statement, rounds: int) -> Compared:
    """Time a statement by both, in turn."""
    spec = LossSpec(
        "statement",
        {"loss": statement.loss},
        inputs={"predictions": TensorSpec("B D"), "labels": TensorSpec("B D")},
        context={},
    )
    cell = Cell(statement.sizes, "cpu", "float32", statement.pass_name)
    tensors = inputs(spec, cell, seed=0)
    clock, call = clock_for(cell), Workload(spec, "loss", tensors).call(statement.pass_name)
    timer = torch_benchmark.Timer(
        "loss(predictions=predictions, labels=labels)"
        if statement.pass_name == "forward"
        else "predictions.grad = None; loss(predictions=predictions, labels=labels).backward()",
        globals={"loss": statement.loss, **tensors},
        num_threads=1,
    )
    clock.warm_up(call)
    calls = calibrate(clock, call)
    ours, theirs = [], []
    quiet = Quiet()
    for _ in range(rounds):
        ours.append(quiet.run(lambda: clock.block(call, calls), call) / calls)
        theirs.append(quiet.run(lambda: timer.timeit(calls).raw_times[0], call) / calls)
    return Compared(statement, calls, tuple(ours), tuple(theirs))


def _lines(found: list[Compared]) -> Iterator[str]:
    yield f"{'statement':<20}{'size':<18}{'pass':<9}{'calls':>6}{'ours':>12}{'torch':>12}{'difference':>12}"
    for one in found:
        sizes = ", ".join(f"{symbol}={size}" for symbol, size in one.statement.sizes.items())
        ours, theirs = (f"{1e6 * statistics.median(times):.1f} µs" for times in (one.ours, one.theirs))
        name, pass_name = one.statement.name, one.statement.pass_name
        yield f"{name:<20}{sizes:<18}{pass_name:<9}{one.calls:>6}{ours:>12}{theirs:>12}{one.difference:>+12.1%}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args(arguments).rounds
    torch.set_num_threads(1)
    found = [compare(statement, rounds) for statement in STATEMENTS]
    print("\n".join(_lines(found)))
    return int(any(abs(one.difference) > ALLOWED for one in found))


def _with_quiet_allocator() -> None:
    """Start again with the settings of the timing processes, which are read at the start of a process."""
    settings: dict[str, Any] = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
    if settings != WORKER_ENVIRONMENT:
        command = [sys.executable, "-m", "property_tests.tools.compare_clocks", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **WORKER_ENVIRONMENT})


if __name__ == "__main__":
    _with_quiet_allocator()
    sys.exit(main(sys.argv[1:]))
