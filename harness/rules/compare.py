"""Comparing two evaluations that should be the same number: value and gradient, with tolerances from the condition."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from harness import tolerance
from harness.errors import NotApplicable
from harness.evaluation import LossRaised
from harness.rules import sides, slopes
from harness.rules.rule import Mismatch
from harness.rules.trial import Trial, describe

Function = Callable[[Mapping[str, Tensor]], Tensor]


def same_output(came: Tensor, should: Tensor, condition: float, intermediate: float) -> Mismatch | None:
    """Compare two outputs elementwise; NaN equals NaN and an infinity itself."""
    if came.shape != should.shape:
        return Mismatch("loss.shape", str(list(came.shape)), str(list(should.shape)))
    a, b = came.detach().double(), should.detach().double()
    off = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
    off = torch.where(off.isnan(), math.inf, off)
    finite = torch.where(b.isfinite(), b.abs(), 0.0)
    allowed = torch.maximum(
        tolerance.SAME_RELATIVE * finite,
        torch.tensor(
            tolerance.same(float(finite.max()) if finite.numel() else 0.0, condition, intermediate),
            dtype=torch.float64,
            device=b.device,
        ),
    )
    if not bool((off > allowed).any()):
        return None
    index = slopes.element_index(int((off - allowed).argmax()), off.shape)
    where = f"loss{list(index)}" if index else "loss"
    return Mismatch(
        where,
        describe(float(a[index])),
        describe(float(b[index])),
        float(off[index]),
        float(allowed[index] if allowed.ndim else allowed),
    )


def same_gradients(
    trial: Trial,
    came: Mapping[str, Tensor | None],
    should: Mapping[str, Tensor | None],
    tensors: Mapping[str, Tensor],
    function: slopes.Value,
    intermediate: float,
) -> Mismatch | None:
    """Compare two gradients elementwise; at a kink any two subgradients are both right.

    Args:
        trial: names the differentiable inputs.
        came: the gradients under test.
        should: the gradients to match.
        tensors: where both were taken.
        function: the loss that ``should`` belongs to, as a number, to measure slopes at a disagreement.
        intermediate: the largest number met, for the rounding of those slopes.
    """
    found = [(n, came.get(n), should.get(n)) for n in trial.spec.differentiable if n in tensors]
    largest = max(
        [float(torch.nan_to_num(g).abs().max()) for _, a, b in found for g in (a, b) if g is not None and g.numel()],
        default=0.0,
    )
    for name, a, b in found:
        if a is None and b is None:
            continue
        left = torch.zeros_like(tensors[name]) if a is None else a.double()
        right = torch.zeros_like(tensors[name]) if b is None else b.double()
        mismatch = _element_off(name, left, right, largest, tensors, function, intermediate)
        if mismatch is not None:
            return replace(mismatch, came="None") if a is None else mismatch
    return None


def _element_off(
    name: str,
    left: Tensor,
    right: Tensor,
    largest: float,
    tensors: Mapping[str, Tensor],
    function: slopes.Value,
    intermediate: float,
) -> Mismatch | None:
    allowed = 10 * tolerance.SAME_RELATIVE * largest + tolerance.SAME_INTERMEDIATE * intermediate
    off = torch.where(
        right.isfinite(), (left - right).abs(), 0.0
    )  # where the other side is not finite it is no measure
    off = torch.where(off.isnan(), math.inf, off)
    for flat in torch.argsort(off.reshape(-1), descending=True).tolist():
        index = slopes.element_index(flat, off.shape)
        if not float(off[index]) > allowed:
            return None
        if _both_are_subgradients(name, index, float(left[index]), largest, tensors, function, intermediate):
            continue
        where = f"d loss / d {name}{list(index) if index else ''}"
        return Mismatch(where, describe(float(left[index])), describe(float(right[index])), float(off[index]), allowed)
    return None


def _both_are_subgradients(
    name: str,
    index: tuple[int, ...],
    analytic: float,
    largest: float,
    tensors: Mapping[str, Tensor],
    function: slopes.Value,
    intermediate: float,
) -> bool:
    """At a kink, or where no slope can be measured, two gradients may differ and both be right."""
    if not math.isfinite(analytic):
        return False
    try:
        slope = slopes.measure(function, tensors, name, index, intermediate)
    except LossRaised:
        return False
    return not slope.reliable or (
        slope.left != slope.right and slope.misses(analytic, tolerance.SLOPE_FLOOR * largest) is None
    )


def relation(
    trial: Trial, other: Function, tensors: Mapping[str, Tensor], what: str, other_code: Callable[[], str] = str
) -> Iterator[Mismatch]:
    """The loss and ``other`` are the same function of the tensors, in value and in gradient.

    Args:
        trial: the loss under test.
        other: another way to the same number; differentiable, called with leaves.
        tensors: the point.
        what: names the other side in messages.
        other_code: gives the lines that define ``other(tensors)`` in plain PyTorch (`harness.rules.sides`), for the
            reproduction; by default none.

    Raises:
        NotApplicable: either side is not finite here (G08 says so) or raises.
    """
    found = _relation_at(trial, other, tensors)
    if found is not None and found.aspect == "gradient" and _relation_at(trial, other, trial.nudged(tensors)) is None:
        return  # at a tie of several kinks autograd's choice may depend on the order of the elements
    if found is not None:
        names = [name for name in trial.spec.differentiable if tensors[name].numel()]
        again = {name: tensor.clone() for name, tensor in tensors.items()}
        code = sides.compared(other_code(), found, names, trial.run(again, wrt=()).output.ndim)
        yield replace(found, where=f"{found.where} {what}", tensors=tensors, code=code)


def _relation_at(trial: Trial, other: Function, tensors: Mapping[str, Tensor]) -> Mismatch | None:
    base = trial.run({name: tensor.clone() for name, tensor in tensors.items()})  # the loss may edit them
    leaves = trial.leaves({name: tensor.clone() for name, tensor in tensors.items()})
    result = other(leaves)
    names = [n for n in trial.spec.differentiable if leaves[n].numel()]
    if not bool(base.output.isfinite().all()):
        raise NotApplicable("the value is not finite; see G08")
    condition, intermediate = trial.measure_scale(tensors)
    mismatch = same_output(result.detach(), base.output, condition, intermediate)
    if mismatch is not None:
        return replace(mismatch, aspect="value")
    if not result.requires_grad or not base.connected or result.ndim:
        return None
    try:
        found = torch.autograd.grad(result, [leaves[n] for n in names], allow_unused=True)
    except Exception as error:
        raise LossRaised(error) from error
    theirs = dict(zip(names, found, strict=True))
    mismatch = same_gradients(trial, theirs, base.gradients, tensors, trial.function(tensors), intermediate)
    return None if mismatch is None else replace(mismatch, aspect="gradient")
