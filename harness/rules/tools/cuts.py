"""Which of two losses of one value takes numbers off the graph, where their gradients differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from harness.calls import tolerance
from harness.rules.rule import Mismatch
from harness.rules.tools.made import copied
from harness.rules.tools.slopes import Line, element_index, measure
from harness.rules.trial import Trial, is_finite

SHOWN = 3  # of the places where numbers leave the graph
_ELSE = "look for an in-place edit or a custom backward"


def who_cuts(trial: Trial, mismatch: Mismatch) -> Mismatch:
    """Where the gradient is another beside an equal value: whose is not the derivative of the value, and where it leaves the graph.

    What either holds fixed on purpose is not held here: a slope of the value itself is the judge.
    """
    if mismatch.kind != "gradient" or mismatch.aspect == "train" or mismatch.tensors is None or not mismatch.finite:
        return mismatch
    reference = trial.of(trial.spec.reference)
    tensors = trial.nudged(mismatch.tensors)
    ours, theirs = _gradient(trial, tensors, mismatch.tensor), _gradient(reference, tensors, mismatch.tensor)
    off = (ours - theirs).abs()
    if not off.numel() or not is_finite(off):
        return mismatch
    index = element_index(int(off.argmax()), off.shape)
    ours_is, theirs_is = _are_slopes(trial, tensors, mismatch.tensor, index, (float(ours[index]), float(theirs[index])))
    if ours_is and theirs_is:
        return mismatch  # nothing is told apart
    here, there = _places(trial, tensors), _places(reference, tensors)
    if ours_is:
        fixed = f"by {there}" if there else "or has a custom backward"
        hint = (
            f"the gradient here is the derivative of the value, and the reference's is not: the reference holds numbers fixed, "
            f"{fixed}; if that is meant, hold the same fixed here"
        )
    elif theirs_is:
        hint = "the value is right, and the gradient here is not its derivative: " + (
            f"it leaves the graph by {here}" if here else _ELSE
        )
    else:
        hint = (
            f"neither gradient is the derivative of the value: hold the same numbers fixed in both; the reference leaves the graph "
            f"by {there or 'a custom backward or an in-place edit'}, this one by {here or 'a custom backward or an in-place edit'}"
        )
    return replace(mismatch, hint=hint)


def _gradient(trial: Trial, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    gradient = trial.run(copied(tensors)).gradients.get(name)
    return torch.zeros_like(tensors[name], dtype=torch.float64) if gradient is None else gradient.double()


def _are_slopes(
    trial: Trial, tensors: Mapping[str, Tensor], name: str, index: tuple[int, ...], gradients: tuple[float, float]
) -> tuple[bool, bool]:
    """Whether each of two gradients may be the slope of the value along an element."""
    value, scale = trial.plain_function(tensors), trial.measure_scale(copied(tensors))
    start, rounding = value({}), tolerance.value_rounding(scale.intermediate, trial.eps)
    slope = measure(Line(value, tensors, [(name, index)], trial.values_in), start, rounding, trial.eps)
    floor = tolerance.SLOPE_FLOOR * max(map(abs, gradients))
    ours, theirs = (slope.misses(gradient, floor) is None for gradient in gradients)
    return ours, theirs


def _places(trial: Trial, tensors: Mapping[str, Tensor]) -> str:
    """Where numbers that have a gradient leave the graph."""
    found = list(dict.fromkeys(trial.cuts(tensors).places))
    return ", ".join(found[:SHOWN]) + (" and others" if len(found) > SHOWN else "")
