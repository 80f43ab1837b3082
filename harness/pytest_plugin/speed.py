"""Benchmarks of specs under pytest-benchmark: one test per spec, size, device, pass and implementation.

    @harness.parametrize_with_benchmarks(SPECS)
    def test_speed(benchmark, speed):
        speed(benchmark)

The tests of one input stand in one group, exact costs in ``extra_info``, and everything that pytest-benchmark does with its
tests, such as ``--benchmark-autosave`` and ``--benchmark-compare``, it does with these.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import pytest
import torch
from torch import Tensor

from harness.declare.spec import LossSpec
from harness.errors import HarnessError
from harness.results.measured import Cell, Pass, axes_text
from harness.timing.admission import Patience, Trials, admit
from harness.timing.clocks import waiting_for
from harness.timing.costs.counting import completed, count
from harness.timing.devices import unavailable
from harness.timing.workload import Workload, checked_sizes, elements, inputs

F = TypeVar("F", bound=Callable[..., Any])

# A block of 1 ms is much longer than the clock's resolution; 50 ms of them give a median, and who is faster is not decided here.
OPTIONS = {"min_time": 1e-3, "max_time": 0.05, "min_rounds": 5, "warmup": True, "warmup_iterations": 3}
# A loop over elements on a large input is timed once, and not counted, which would take ten times as long.
SLOW_S = 0.1
# A loop over so many elements takes seconds, over a thousand times as many an hour.
LOOPED_ELEMENTS = 100_000
# Every test of an implementation runs the reference once for the right result; what takes longer is not waited for.
HELD_S = 1.0


@dataclass(frozen=True)
class Speed:
    """One implementation on one input; call it with pytest-benchmark's fixture.

    Args:
        spec: the declaration.
        implementation: its name.
        cell: the input and the pass.
    """

    spec: LossSpec
    implementation: str
    cell: Cell

    @property
    def group(self) -> str:
        """What is compared: the loss, its sizes, the device and the pass."""
        sizes = "-".join(f"{symbol}{axes_text(size)}" for symbol, size in self.cell.sizes.items())
        return f"{self.spec.name}-{sizes}-{self.cell.device}-{self.cell.pass_name}"

    def __call__(self, benchmark: Any) -> None:
        """Hold it to the reference, count it and time it; what takes more than 0.1 s a call is timed once and not counted.

        Loss and gradients are compared with the reference's, as before any timing.  Where the reference is too slow for that,
        because of more than 100,000 elements or 1 s for a counted call, ``extra_info["not_held"]`` says so.

        Args:
            benchmark: pytest-benchmark's fixture.

        Raises:
            AssertionError: a loss or a gradient that differs from the reference's or is not finite, or no gradient.
        """
        not_held = self._held()
        if not_held:
            benchmark.extra_info["not_held"] = not_held
        workload = Workload(self.spec, self.implementation, inputs(self.spec, self.cell, seed=0))
        call = workload.call(self.cell.pass_name)
        benchmark.group = self.group
        waited = self._waited(call)
        begin = time.perf_counter()
        waited()
        if time.perf_counter() - begin > SLOW_S:
            loss = benchmark.pedantic(waited, rounds=1, iterations=1)
        else:
            benchmark.extra_info.update(self._costs(workload, call))
            loss = benchmark(waited)
        assert bool(loss.isfinite().all()), f"{self.group} / {self.implementation}: loss={loss}, expected finite"
        if self.cell.pass_name != "forward":
            for leaf in workload.leaves:
                assert leaf.grad is not None, f"{self.group} / {self.implementation}: no gradient came"
                assert bool(leaf.grad.isfinite().all()), f"{self.group} / {self.implementation}: gradient is not finite"

    def _held(self) -> str:
        """Why it was not held to the reference; empty where it was, or is the reference."""
        if self.implementation == self.spec.reference or len(self.spec.implementations) == 1:
            return ""
        number = elements(self.spec, self.cell.sizes)
        if number > LOOPED_ELEMENTS:
            return f"{number} elements are more than {LOOPED_ELEMENTS}, and the reference may be a loop over them"
        passes = (self.cell.pass_name,)
        reference = _reference(
            self.spec, tuple(self.cell.sizes.items()), self.cell.device, self.cell.dtype, self.cell.pass_name
        )
        found = {self.spec.reference: reference[self.cell.pass_name]}
        if found[self.spec.reference].status == "measured":
            mine = admit(
                self.spec, self.implementation, self.cell, passes, reference, seed=0, patience=Patience(HELD_S)
            )
            found[self.implementation] = mine[self.cell.pass_name]
        for name, trial in found.items():
            assert trial.status != "failed", f"{self.group} / {name}: was not timed, for it failed: {trial.reason}"
        return "; ".join(f"{name}: {trial.reason}" for name, trial in found.items() if trial.status == "skipped")

    def _costs(self, workload: Workload, call: Callable[[], Tensor]) -> dict[str, int]:
        """The exact costs that are known on this device."""
        counted = count(call)
        workload.reset()
        found = asdict(completed(counted, call, self.cell.device))
        return {name: value for name, value in found.items() if value is not None}

    def _waited(self, call: Callable[[], Tensor]) -> Callable[[], Tensor]:
        wait = waiting_for(torch.device(self.cell.device))
        if wait is None:
            return call

        def waited() -> Tensor:
            loss = call()
            wait()
            return loss

        return waited


@functools.lru_cache(maxsize=4)  # the passes of one input
def _reference(
    spec: LossSpec, sizes: tuple[tuple[str, int | tuple[int, ...]], ...], device: str, dtype: str, pass_name: str
) -> Trials:
    """What the reference gives on an input: once for the tests of all implementations, which follow each other."""
    cell = Cell(dict(sizes), device, dtype, pass_name)
    return admit(spec, spec.reference, cell, (pass_name,), {}, seed=0, patience=Patience(HELD_S))


def parametrize_with_benchmarks(
    specs: LossSpec | Sequence[LossSpec],
    *,
    devices: Sequence[str] = ("cpu",),
    passes: Sequence[Pass] = ("forward", "full"),
    sizes: Literal["all", "first"] = "all",
) -> Callable[[F], F]:
    """Decorate a test function so that it runs once per spec, size, device, pass and implementation.

    The function takes ``benchmark`` and ``speed`` and calls ``speed(benchmark)``.  Ids such as
    ``graph_distance-N16-D16-cpu-full-vectorized`` are stable.  Before it is timed, an implementation must give the
    loss and gradients of the reference, where that is quick enough to ask.  The reference is timed at the first size only, for
    it may be a loop, and skipped where that size has more than 100,000 elements.  So is a device that is not there.

    Args:
        specs: one spec, or several.
        devices: such as ``("cpu", "cuda")``.
        passes: of ``forward``, ``backward`` and ``full``.
        sizes: ``all`` of the spec's ``bench_sizes``, or the ``first``.

    Raises:
        HarnessError: no spec, or other sizes.
    """
    if sizes not in ("all", "first"):
        raise HarnessError(f"sizes={sizes!r} came, but it should be 'all' or 'first'; others belong in bench_sizes")
    chosen = [specs] if isinstance(specs, LossSpec) else list(specs)
    if not chosen:
        raise HarnessError("parametrize_with_benchmarks([]): needs at least one LossSpec; no test would run")
    params = [
        pytest.param(speed, id=f"{speed.group}-{speed.implementation}", marks=_skipped(speed))
        for speed in _speeds(chosen, devices, passes, None if sizes == "all" else 1)
    ]

    def decorate(function: F) -> F:
        marked: F = pytest.mark.benchmark(**OPTIONS)(pytest.mark.parametrize("speed", params)(function))
        return marked

    return decorate


def _speeds(
    specs: Sequence[LossSpec], devices: Sequence[str], passes: Sequence[Pass], most: int | None
) -> Iterator[Speed]:
    for spec in specs:
        for rung, sizes in enumerate(checked_sizes(spec, None)[:most]):
            for name in spec.implementations:
                if name == spec.reference and rung > 0:
                    continue
                for device in devices:
                    yield from (Speed(spec, name, Cell(sizes, device, "float32", passed)) for passed in passes)


def _skipped(speed: Speed) -> tuple[pytest.MarkDecorator, ...]:
    reason = unavailable(speed.cell.device)
    number = elements(speed.spec, speed.cell.sizes)
    if reason is None and speed.implementation == speed.spec.reference and number > LOOPED_ELEMENTS:
        reason = (
            f"{number} elements are more than {LOOPED_ELEMENTS}, and the reference may be a loop, which would take seconds; "
            f"add a smaller bench size in front"
        )
    return () if reason is None else (pytest.mark.skip(reason=reason),)
