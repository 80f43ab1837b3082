"""Who may be timed: an implementation runs once, is held to the reference, and has its exact costs taken."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.evaluation import LossRaised
from harness.spec import LossSpec
from harness.timing import costs
from harness.timing.constants import AGREEMENT
from harness.timing.costs import Costs, TookTooLong
from harness.timing.workload import Cell, Workload, inputs

Status = Literal["measured", "skipped", "failed"]


@dataclass(frozen=True)
class Trial:
    """What one untimed run of an implementation showed.

    Args:
        status: ``measured`` means that it may be timed.
        reason: why not, or what is unknown.
        seconds: about how long one call takes (more than when it is timed: the calls were counted).
        costs: exact costs of a second call; ``None`` where they are unknown.
        values: loss and gradients, in float64 on the CPU, to hold others to.
    """

    status: Status
    reason: str = ""
    seconds: float = 0.0
    costs: Costs | None = None
    values: tuple[Tensor, ...] = ()


def admit(spec: LossSpec, name: str, cell: Cell, reference: Trial | None, *, seed: int, seconds: float) -> Trial:
    """Run an implementation on the input that will be timed, and compare it with the reference.

    A loss in bfloat16 or float16 is compared in float32 on the same rounded values, for two results in low precision
    differ without either being wrong; its own value must only be finite.

    Args:
        spec: the declaration.
        name: the implementation.
        cell: the input and the pass.
        reference: the reference's trial, or ``None`` for the reference itself and where it has no values.
        seed: of the input.
        seconds: a call that takes longer is stopped at its next ATen call.
    """
    until = time.perf_counter() + seconds
    try:
        tensors = inputs(spec, cell, seed)
        workload = Workload(spec, name, tensors)
        begin = time.perf_counter()
        with costs.deadline(seconds):
            loss = workload.call(cell.pass_name)()
        first = time.perf_counter() - begin
        values = _values(workload, loss, cell)
        if not all(bool(value.isfinite().all()) for value in values):
            return Trial("failed", f"a loss or gradient that is not finite came: {_show(values)}", first)
        if getattr(torch, cell.dtype) not in AGREEMENT:
            values = _values_in_float32(spec, name, cell, seed, until - time.perf_counter())
    except TookTooLong:
        return Trial(
            "skipped", f"one call takes longer than {seconds:.2g} s, all that the budget had left for it", seconds
        )
    except LossRaised as raised:
        return Trial("failed", _first_line(raised.error))
    except Exception as error:  # whatever a user's loss raises, running out of memory included
        return Trial("failed", _first_line(error))
    difference = None if reference is None else _difference(values, reference.values, tensors, cell)
    if difference is not None:
        return Trial("failed", difference, first)
    return _with_costs(workload, cell, Trial("measured", "", first, None, values), until)


def _with_costs(workload: Workload, cell: Cell, trial: Trial, until: float) -> Trial:
    """Costs of a second call, for the first one may fill caches; that call is the better estimate of the time too."""
    left = until - time.perf_counter()
    begin = time.perf_counter()
    try:
        found = costs.count(workload.call(cell.pass_name), cell.device, left)
    except TookTooLong:
        return Trial(
            "measured", "exact costs unknown: no time was left to count them", trial.seconds, None, trial.values
        )
    except Exception as error:  # it ran without being counted, so it may be timed
        unknown = f"exact costs unknown: {_first_line(error)}"
        return Trial("measured", unknown, trial.seconds, None, trial.values)
    return Trial("measured", "", min(time.perf_counter() - begin, trial.seconds), found, trial.values)


def _values(workload: Workload, loss: Tensor, cell: Cell) -> tuple[Tensor, ...]:
    leaves = workload.leaves if cell.pass_name == "full" else []
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    return tuple(value.detach().double().cpu() for value in (loss, *gradients))


def _values_in_float32(spec: LossSpec, name: str, cell: Cell, seed: int, seconds: float) -> tuple[Tensor, ...]:
    workload = Workload(spec, name, inputs(spec, cell, seed, torch.float32))
    with costs.deadline(seconds):
        loss = workload.call(cell.pass_name)()
    return _values(workload, loss, cell)


def _difference(
    values: tuple[Tensor, ...], expected: tuple[Tensor, ...], tensors: Mapping[str, Tensor], cell: Cell
) -> str | None:
    """What differs from the reference, or ``None``; allowed is a fraction of |L| + sum |x dL/dx|, and of max |dL/dx|."""
    dtype: torch.dtype = getattr(torch, cell.dtype)
    relative = AGREEMENT.get(dtype, AGREEMENT[torch.float32])
    leaves = [tensor.detach().double().cpu() for tensor in tensors.values() if tensor.requires_grad]
    condition = sum(float((leaf * slope).abs().sum()) for leaf, slope in zip(leaves, expected[1:], strict=False))
    for position, (value, wanted) in enumerate(zip(values, expected, strict=True)):
        what = "gradient" if position else "loss"
        if value.shape != wanted.shape:
            return f"{what} has shape {list(value.shape)}, but the reference's has {list(wanted.shape)}"
        scale = float(wanted.abs().max()) if wanted.numel() else 0.0
        allowed = relative * (scale + (0.0 if position else condition))
        off = float((value - wanted).abs().max()) if wanted.numel() else 0.0
        if not off <= allowed:
            return (
                f"differs from the reference on the timed input: {what} {_show((value,))}, but should be "
                f"{_show((wanted,))} (off by {off:.3g}, allowed {allowed:.3g})"
            )
    return None


def _show(values: tuple[Tensor, ...]) -> str:
    first = values[0]
    return f"{float(first):.6g}" if first.numel() == 1 else f"a tensor of shape {list(first.shape)}"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
