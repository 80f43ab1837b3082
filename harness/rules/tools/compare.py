"""Comparing two evaluations that should be the same number: value and gradient, with tolerances from the condition."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from harness.calls import tolerance
from harness.calls.evaluation import LossRaised
from harness.errors import NotApplicable
from harness.rules.rule import Mismatch
from harness.rules.tools import sides, slopes
from harness.rules.tools.made import copied, signs
from harness.rules.trial import Scale, Trial, describe, is_finite

Function = Callable[[Mapping[str, Tensor]], Tensor]


def same_output(came: Tensor, should: Tensor, scale: Scale) -> Mismatch | None:
    """Compare two outputs elementwise; NaN equals NaN and an infinity itself."""
    if came.shape != should.shape:
        return Mismatch("loss.shape", str(list(came.shape)), str(list(should.shape)), kind="shape")
    a, b = came.detach().double(), should.detach().double()
    if a.ndim == 0:  # as nearly all are, and without the dozen operations that tell where tensors differ
        number, right = float(a), float(b)
        if number == right or abs(number - right) <= tolerance.same_relative(scale.eps) * abs(right) < math.inf:
            return None
    off = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
    off = torch.where(off.isnan(), math.inf, off)
    finite = torch.where(b.isfinite(), b.abs(), 0.0)
    allowed = tolerance.same_relative(scale.eps) * finite
    if not bool((off > allowed).any()):
        return None
    largest = float(finite.max()) if finite.numel() else 0.0
    allowed = allowed.clamp(min=scale.same(largest))
    if not bool((off > allowed).any()):
        return None
    index = slopes.element_index(int((off - allowed).argmax()), off.shape)
    where = f"loss{list(index)}" if index else "loss"
    found = differing(where, float(a[index]), float(b[index]), float(off[index]), float(allowed[index]))
    return replace(found, size=abs(float(b[index])) + scale.condition + scale.intermediate)


def has_its_digits(output: Tensor, exact: Tensor, eps: float) -> bool:
    """Whether a low-precision output has its digits, whatever the condition number."""
    if output.shape != exact.shape or not exact.numel() or not is_finite(exact):
        return False
    allowed = tolerance.forward_error(eps, float(exact.abs().max()), 0.0)
    return float((output.double() - exact).abs().max()) <= allowed


def differing(where: str, came: float, should: float, off: float, allowed: float) -> Mismatch:
    """Two values that should be one, with as many digits as it takes to tell them apart."""
    shown = describe(came), describe(should)
    for digits in range(5, 18):
        if shown[0] != shown[1]:
            break
        shown = f"{came:.{digits}g}", f"{should:.{digits}g}"
    return Mismatch(where, *shown, off, allowed, kind="value", finite=math.isfinite(came))


def same_gradients(
    came: Mapping[str, Tensor | None],
    should: Mapping[str, Tensor | None],
    tensors: Mapping[str, Tensor],
    judge: Trial,
    scale: Scale,
    coarser: Trial | None = None,
) -> Mismatch | None:
    """Compare two gradients elementwise; at a kink any two subgradients are both right.

    So are two that differ by no more than the gradient moves where all inputs do by a few roundings.

    Args:
        came: the gradients under test.
        should: the gradients to match.
        tensors: where both were taken.
        judge: the loss that ``should`` belongs to; its slopes are measured where the two disagree.
        scale: what rounding may do there.
        coarser: the other loss, where it computes in a coarser precision.

    Raises:
        NotApplicable: rounding may change the largest element by as much as it is.
    """
    found = [(n, came.get(n), should.get(n)) for n in judge.spec.differentiable if n in tensors]
    largest = max(
        [float(torch.nan_to_num(g).abs().max()) for _, a, b in found for g in (a, b) if g is not None and g.numel()],
        default=0.0,
    )
    for name, a, b in found:
        if a is None and b is None:
            continue
        left = torch.zeros_like(tensors[name], dtype=torch.float64) if a is None else a.double()
        right = torch.zeros_like(tensors[name], dtype=torch.float64) if b is None else b.double()
        mismatch = _element_off(name, left, right, largest, tensors, judge, scale)
        if mismatch is not None:
            off, rounded = mismatch.difference or 0.0, _moved_by_rounding(name, tensors, coarser or judge)
            if math.isfinite(off) and off <= rounded:
                continue
            return replace(mismatch, came="None") if a is None else mismatch
    return None


def _moved_by_rounding(name: str, tensors: Mapping[str, Tensor], loss: Trial) -> float:
    """The most that an element of a gradient moves where all inputs move by 8 roundings; 0 where that cannot be asked.

    They move together, and each in a direction of its own: differences of equal numbers, as of constant columns, follow those alone.
    """

    def gradient(step: float, apart: bool) -> Tensor | None:
        moved = {
            n: (t * (1 + step * (signs(t) if apart else 1))).to(t.dtype) if t.is_floating_point() else t.clone()
            for n, t in tensors.items()
        }
        return loss.run(moved).gradients.get(name)

    step = 8 * loss.eps
    try:
        here, *there = (gradient(*way) for way in ((0.0, False), *product((-step, step), (False, True))))
    except LossRaised:
        return 0.0
    moved = [float((g.double() - here.double()).abs().max()) for g in there if g is not None and here is not None]
    return max(moved, default=0.0)


def _element_off(
    name: str,
    left: Tensor,
    right: Tensor,
    largest: float,
    tensors: Mapping[str, Tensor],
    judge: Trial,
    scale: Scale,
) -> Mismatch | None:
    # Where the other side is not finite it is no measure.
    off = torch.where(right.isfinite(), (left - right).abs(), 0.0)
    off = torch.where(off.isnan(), math.inf, off)
    allowed = tolerance.same_gradient(scale.eps) * largest
    if not bool((off > allowed).any()):
        return None
    allowed += tolerance.same_intermediate(scale.eps) * scale.intermediate
    if allowed >= largest:
        raise NotApplicable(
            f"rounding at {scale.eps:.1g} of numbers up to {scale.intermediate:.3g} may change every gradient element by "
            f"{allowed:.2g}, and none is larger than {largest:.2g}"
        )
    for flat in torch.argsort(off.reshape(-1), descending=True).tolist():
        index = slopes.element_index(flat, off.shape)
        if not float(off[index]) > allowed:
            return None
        ours, theirs = float(left[index]), float(right[index])
        if not _both_may_be_right(name, index, (ours, theirs), largest, tensors, judge, scale):
            where = f"d loss / d {name}{list(index) if index else ''}"
            found = differing(where, ours, theirs, float(off[index]), allowed)
            return replace(found, kind="gradient", tensor=name, size=largest + scale.intermediate)
    return None


def _both_may_be_right(
    name: str,
    index: tuple[int, ...],
    gradients: tuple[float, float],
    largest: float,
    tensors: Mapping[str, Tensor],
    judge: Trial,
    scale: Scale,
) -> bool:
    """Whether the loss has a kink here and both numbers are between its slopes, or has no slope that could be measured and
    a gradient that moves as far as the two are apart where the inputs move by less than what would measure it.
    """
    if not all(map(math.isfinite, gradients)):
        return False
    try:
        value = judge.function(tensors)
        line = slopes.Line(value, tensors, [(name, index)], judge.precision.grid)
        start = value({})
        rounding = tolerance.value_rounding(max(abs(start), scale.intermediate), judge.eps)
        slope = slopes.measure(line, start, rounding, judge.eps)
        if math.isfinite(slope.error):
            floor = tolerance.SLOPE_FLOOR * largest
            # Beside the size of the loss both may be nothing, as the derivative of a constant is in two ways of writing it.
            nothing = slope.error <= tolerance.SLOPE_FLOOR * max(abs(start), scale.intermediate)
            between = all(slope.misses(gradient, floor) is None for gradient in gradients)
            return between and (slope.kinked or nothing)
        return abs(gradients[0] - gradients[1]) <= _moved_nearby(name, index, tensors, judge)
    except LossRaised:
        return False


def _moved_nearby(name: str, index: tuple[int, ...], tensors: Mapping[str, Tensor], judge: Trial) -> float:
    """How far a gradient element moves within the rounding of all inputs, and within the step that would measure it."""

    def element(moved: Mapping[str, Tensor]) -> float:
        gradient = judge.run(moved).gradients.get(name)
        return 0.0 if gradient is None else float(gradient[index])

    step = tolerance.slope_step(judge.eps) * max(1.0, abs(float(tensors[name][index])))
    here, there = element(copied(tensors)), []
    for sign in (-1, 1):
        scale = 1 + 8 * sign * judge.eps
        there.append({n: t * scale if t.is_floating_point() else t.clone() for n, t in tensors.items()})
        there.append(copied(tensors))
        there[-1][name][index] += sign * step
    return max(abs(element(moved) - here) for moved in there)


def relation(
    trial: Trial, other: Function, tensors: Mapping[str, Tensor], what: str, other_code: Callable[[], str] = str
) -> Iterator[Mismatch]:
    """The loss and ``other`` are the same function of the tensors, in value and in gradient.

    Args:
        trial: the loss under test.
        other: another way to the same number; differentiable, called with leaves.
        tensors: the point.
        what: names the other side in messages.
        other_code: gives the lines that define ``other(tensors)`` in plain PyTorch (`harness.rules.tools.sides`), for the
            reproduction; by default none.

    Raises:
        NotApplicable: either side is not finite here (G08 says so), or rounding leaves no gradient to compare.
        LossRaised: either side raises.
    """
    found = _relation_at(trial, other, tensors)
    if found is not None and found.kind == "gradient" and _relation_at(trial, other, trial.nudged(tensors)) is None:
        return  # at a tie of several kinks autograd's choice may depend on the order of the elements
    if found is not None:
        names = [name for name in trial.spec.differentiable if tensors[name].numel()]
        code = sides.compared(other_code(), found, names, trial.run(copied(tensors), wrt=()).output.ndim)
        yield replace(found, where=f"{found.where} {what}", tensors=tensors, code=code)


def _relation_at(trial: Trial, other: Function, tensors: Mapping[str, Tensor]) -> Mismatch | None:
    base = trial.run(copied(tensors))
    leaves = trial.leaves(copied(tensors))
    result = other(leaves)
    names = [n for n in trial.spec.differentiable if leaves[n].numel()]
    if not is_finite(base.output):
        raise NotApplicable("the value is not finite; see G08")
    scale = trial.measure_scale(tensors)
    mismatch = same_output(result.detach(), base.output, scale)
    if mismatch is not None:
        return replace(mismatch, aspect="value")
    if not result.requires_grad or not base.connected or result.ndim:
        return None
    found = trial.differentiated(result, [leaves[n] for n in names])
    theirs = dict(zip(names, found, strict=True))
    mismatch = same_gradients(theirs, base.gradients, tensors, trial, scale)
    return None if mismatch is None else replace(mismatch, aspect="gradient")
