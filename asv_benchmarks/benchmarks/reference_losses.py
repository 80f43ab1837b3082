"""One benchmark class per spec in `losses.SPECS`: time, and exact costs that do not drift.

The naive implementations are measured at the smallest size only; asv shows ``n/a`` for them elsewhere.
"""

from __future__ import annotations

import torch

from harness import LossSpec
from harness.timing import costs
from harness.timing.workload import Cell, Workload, checked_sizes, inputs
from losses import SPECS


def _label(sizes: dict[str, int | tuple[int, ...]]) -> str:
    parts = (
        f"{symbol}={'x'.join(map(str, size)) if isinstance(size, tuple) else size}" for symbol, size in sizes.items()
    )
    return " ".join(parts)


class _Loss:
    """Forward, and forward with backward, of one implementation at one size; float32 on the CPU, one thread."""

    spec: LossSpec
    param_names = ("implementation", "size")
    timeout = 120
    rounds = 4  # of both commits in turn, so that a busy minute of the machine hits both

    def setup(self, implementation: str, size: str) -> None:
        torch.set_num_threads(1)
        sizes = {_label(sizes): sizes for sizes in checked_sizes(self.spec, None)}
        if implementation == self.spec.reference and size != next(iter(sizes)):
            raise NotImplementedError("a loop over elements would take all the time there is")
        tensors = inputs(self.spec, Cell(sizes[size], "cpu", "float32", "full"), seed=0)
        self.workload = Workload(self.spec, implementation, tensors)

    def time_forward(self, implementation: str, size: str) -> None:
        self.workload.forward()

    def time_full(self, implementation: str, size: str) -> None:
        self.workload.full()

    def track_aten_calls(self, implementation: str, size: str) -> int:
        return costs.count(self.workload.full).aten_calls

    def track_saved_bytes(self, implementation: str, size: str) -> int:
        return costs.count(self.workload.full).saved_bytes

    track_aten_calls.unit = "calls"  # type: ignore[attr-defined]
    track_saved_bytes.unit = "bytes"  # type: ignore[attr-defined]


def _benchmarks(spec: LossSpec) -> type[_Loss]:
    sizes = [_label(sizes) for sizes in checked_sizes(spec, None)]
    return type(
        spec.name, (_Loss,), {"spec": spec, "params": (list(spec.implementations), sizes), "__doc__": _Loss.__doc__}
    )


globals().update({spec.name: _benchmarks(spec) for spec in SPECS})
