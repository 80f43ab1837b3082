"""Special points of a case: every tensor at every special point of its domain, and tensors that coincide."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from harness.declare import dims
from harness.declare.domains import LARGE, Domain
from harness.declare.spec import LossSpec
from harness.drawing.case import NEAR, Case, Recipe
from harness.rules.tools.masking import broadcastable

NEAR_WAYS = 4  # whether a cancelled difference comes out negative is a toss of a coin for each row


def alike(spec: LossSpec) -> list[tuple[str, str]]:
    """Pairs of floating tensors with the same dims and domain, which may coincide."""
    floating = {name: tensor for name, tensor in spec.tensors.items() if tensor.is_floating}
    of_one_kind = {name: (tensor.dims, tensor.domain.text) for name, tensor in floating.items()}
    return [pair for pair in combinations(floating, 2) if of_one_kind[pair[0]] == of_one_kind[pair[1]]]


def pairs(spec: LossSpec, case: Case) -> list[tuple[str, str]]:
    """Those of a case that have elements."""
    return [(first, second) for first, second in alike(spec) if 0 not in case.shape(spec, first)]


def special_cases(spec: LossSpec, case: Case) -> Iterator[tuple[str, Case]]:
    """(description, case) for every tensor at every special point, and for every pair that coincides."""
    for name, tensor in spec.tensors.items():
        if 0 not in case.shape(spec, name):
            for point in tensor.domain.special:
                yield f"{name} at {point!r}", case.with_points({name: point})
    for first, second in _of_one_space(spec, case):
        exact = "one-hot" in spec.tensors[first].domain.special  # no rounding of a length hides an angle of 0
        yield (
            f"rows of {second} = rows of {first}{' at ' + repr('one-hot') if exact else ''}",
            (case.with_points({first: "one-hot"}) if exact else case).with_copy(second, first),
        )
    for first, second in (*pairs(spec, case), *_within(spec, case)):
        yield f"{second} = {first}", case.with_copy(second, first)
        if "extremes" in spec.tensors[first].domain.special:
            yield f"{second} = {first} at 'extremes'", case.with_points({first: "extremes"}).with_copy(second, first)


def _of_one_space(spec: LossSpec, case: Case) -> Iterator[tuple[str, str]]:
    """Pairs of which only the number of rows differs, such as samples and prototypes: a row of each may be one point."""
    axes = {name: dims.axes(t.dims, case.sizes) for name, t in spec.tensors.items() if t.is_floating}
    for first, second in combinations(axes, 2):
        one, other = axes[first], axes[second]
        alike = spec.tensors[first].domain.text == spec.tensors[second].domain.text
        of_rows = len(one) > 1 and len(other) > 1 and one[0] != other[0] and one[1:] == other[1:]
        if alike and of_rows and 0 not in (*case.shape(spec, first), *case.shape(spec, second)):
            yield first, second


def _within(spec: LossSpec, case: Case) -> Iterator[tuple[str, str]]:
    """Pairs of which the second may have any values of the first: probabilities that equal their labels."""
    floating = {name: t for name, t in spec.tensors.items() if t.is_floating and not t.domain.structured}
    for first, one in floating.items():
        for second, other in floating.items():
            bounded = math.isfinite(other.domain.low) and math.isfinite(other.domain.high)
            inside = other.domain.low <= one.domain.low and one.domain.high <= other.domain.high
            same = one.dims == other.dims and 0 not in case.shape(spec, first)
            if bounded and inside and same and not other.domain.whole and one.domain.text != other.domain.text:
                yield first, second


def far_cases(spec: LossSpec, case: Case) -> Iterator[tuple[str, Case]]:
    """(description, case) for every tensor of free values far from the origin and near each other, where spreads cancel."""
    for name, tensor in spec.tensors.items():
        count = math.prod(case.shape(spec, name))
        if tensor.domain.text in ("real()", "logits()") and count > 1:
            normal = random.Random(zlib.crc32(name.encode())).gauss
            values = Recipe(values=tuple(LARGE + NEAR * normal(0.0, 1.0) for _ in range(count)))
            yield (
                f"{name} with a mean of {LARGE:g} and a spread of {NEAR:g}",
                replace(case, tensors={**case.tensors, name: values}),
            )


def standardised_far(spec: LossSpec, case: Case) -> Iterator[tuple[str, Case]]:
    """(description, case) for every tensor of free values that is far out while all scales are at their declared lowest.

    There x / s is as large as the domain allows, and densities, exponentials and their logarithms leave the range first.
    """
    named = {name: t.domain for name, t in spec.tensors.items() if 0 not in case.shape(spec, name)}
    lowest = {name: "lowest" for name, domain in named.items() if "lowest" in domain.special and domain.low > 0}
    for name, domain in named.items() if lowest else ():
        if domain.text == "real()":
            yield f"{name} at 'large', {' and '.join(lowest)} at 'lowest'", case.with_points({name: "large", **lowest})


def near_cases(spec: LossSpec, case: Case, *, far: bool = True) -> Iterator[tuple[str, Case]]:
    """(description, case) for every pair that nearly coincides, where differences cancel, far from the origin where values may be.

    Without ``far``, only the pairs whose values may not: in float16 and bfloat16 what is far and that near is equal.
    """
    for first, second in pairs(spec, case):
        is_far = "large" in spec.tensors[first].domain.special
        if is_far and not far:
            continue
        moved = case.with_points({first: "large"}) if is_far else case
        for way in range(1, NEAR_WAYS + 1):
            yield f"{second} near {first}", moved.with_copy(second, first, near=way)


def nothing_counts(spec: LossSpec, case: Case, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a slice of what may leave elements out leaves all of them out: all-zero weights, all-ignored labels, all missing.

    There a mean is 0/0, which is a convention (NaN, as torch has it, or 0), not an error.  Labels are left out too where the
    weights of their classes are zero, and two tensors may leave all out together; one zero among other weights is no such slice.
    """
    out = _left_out(spec, case, tensors)
    axes = {name: dims.axes(spec.tensors[name].dims, case.sizes) for name in out}
    for name, one in out.items():
        if _all_of_a_slice(one, range(one.ndim)):
            return True
        for other, two in out.items():
            shared = axes[other]
            if (
                name != other
                and len({*shared}) == len(shared)
                and all(axes[name].count(label) == 1 for label in shared)
            ):
                both = one | broadcastable(two, shared, axes[name])
                if _all_of_a_slice(both, [axes[name].index(label) for label in shared]):
                    return True
    return False


def _all_of_a_slice(out: Tensor, axes: Sequence[int]) -> bool:
    if out.ndim == 0 or not out.numel():
        return bool(out.all())
    return any(bool(out.all(dim=axis).any()) for axis in axes)


def _left_out(spec: LossSpec, case: Case, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Which elements of each tensor count nothing; only tensors in which some do."""
    fixed = [name for name in spec.tensors if name not in spec.differentiable]
    out = {name: _counts_nothing(spec.tensors[name].domain, tensors[name]) for name in fixed}
    for name in fixed:
        symbol, labels = spec.tensors[name].domain.symbol, tensors[name]
        for other in fixed if symbol is not None else ():
            axes = dims.axes(spec.tensors[other].dims, case.sizes)
            if axes.count(str(symbol)) == 1 and bool(out[other].any()):
                of_class = out[other].movedim(axes.index(str(symbol)), 0)
                of_class = of_class.reshape(len(of_class), -1).all(1)
                out[name] = out[name] | of_class[labels.long().clamp(0, len(of_class) - 1)]
    return {name: elements for name, elements in out.items() if bool(elements.any())}


def _counts_nothing(domain: Domain, values: Tensor) -> Tensor:
    if domain.kind == "float" and domain.nan:
        return values.isnan()
    if domain.ignore is not None and domain.removes:
        return values == domain.ignore
    if domain.removes and domain.low == 0.0 and domain.symbol is None and domain.axis is None:
        return values == 0  # a row of a simplex counts as one
    return torch.zeros_like(values, dtype=torch.bool)


def with_everything_counted(spec: LossSpec, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with those of which some elements count nothing replaced by ones that count everything."""
    counted = dict(tensors)
    for name, tensor in spec.tensors.items():
        if name not in spec.differentiable and bool(_counts_nothing(tensor.domain, tensors[name]).any()):
            zero_counts = tensor.domain.ignore is not None or tensor.domain.nan
            counted[name] = tensors[name].new_full(tensors[name].shape, 0 if zero_counts else 1)
    return counted


def with_one_left_out(
    spec: LossSpec, tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]
) -> Iterator[dict[str, Tensor]]:
    """For each of the tensors that leaves something out, ``others``, in which everything counts but one element of that one."""
    counted = with_everything_counted(spec, others)
    for name, values in tensors.items():
        nothing = values[_counts_nothing(spec.tensors[name].domain, values)]
        if name not in spec.differentiable and len(nothing) and counted[name].numel():
            one = counted[name].clone()
            one[(0,) * one.ndim] = nothing[0]
            yield {**counted, name: one}
