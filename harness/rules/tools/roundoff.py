"""The precision in which a loss computes, read off its values.

A fused kernel computes in float32 and returns the dtype that it was given, so that no dtype tells.  Its values do: along
a line they climb in steps of float32.  Everything that differs between neighbouring points, less what a smooth function
differs by, is rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from harness.calls import tolerance
from harness.calls.evaluation import LossRaised, Precision
from harness.declare.spec import LossSpec
from harness.errors import told_in_a_line
from harness.rules.tools.made import signs
from harness.rules.tools.slopes import Value
from harness.rules.trial import Trial

POINTS = 5  # along a line: two third differences
# Lengths of a step, tried until values change.  At the first, what is rounded as in float32 changes too, beside what is not,
# and a smooth function's third difference, 1e-18 L''', is below its rounding; what is rounded as in bfloat16 changes at 1e-2.
STEPS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
# Of what is rounded, one value in four steps lies on the numbers of a coarser dtype as if on a line, by luck; so the step is
# taken in three lengths, whose ratios no number of steps makes whole.
LENGTHS = (1.0, 1.618, 2.618)
MARGIN = 4.0  # between the step that two differences show and what many operations may add


def noise(value: Value, tensors: Mapping[str, Tensor], names: Sequence[str]) -> float | None:
    """The step by which values of a loss are rounded around a point; ``None`` where they never change.

        sigma^2 = (3!)^2 / 6! * (third difference)^2,   step^2 = 12 sigma^2

    A step that is as long as what moves the value hides what moves it by less, which is seen as no change at all.  Values
    that are all numbers of a coarser dtype are rounded to it, however straight they lie.

    Source: Hamming, Introduction to Applied Numerical Analysis, chapter 6; More & Wild, Estimating computational noise,
    SIAM Journal on Scientific Computing 33(3), 2011.
    """
    along, before = {name: _direction(tensors[name]) for name in names}, 0.0
    for step in STEPS:
        lines = [_along(value, tensors, names, along, step * length) for length in LENGTHS]
        values = [number for line in lines for number in line]
        if not all(map(math.isfinite, values)):
            return None
        if len(set(values)) > 1:
            jitter = max(abs(d) for line in lines for d in _differences(line, 3)) * math.sqrt(12 / 20)
            # Where shorter steps changed nothing, a change as small as one of them is hidden.
            hidden = max(abs(d) for d in _differences(lines[0], 1)) * before / step
            return max(jitter, hidden, _step_of(values))
        before = step
    return None


def _along(
    value: Value, tensors: Mapping[str, Tensor], names: Sequence[str], along: Mapping[str, Tensor], step: float
) -> list[float]:
    return [
        value({name: tensors[name] + position * step * along[name] for name in names})
        for position in range(-2, POINTS - 2)
    ]


def _step_of(values: Sequence[float]) -> float:
    """The step of the coarsest dtype that holds them all; 0 where only float64 does."""
    for eps in map(tolerance.eps_of, reversed(tolerance.TOLD_APART[1:])):
        if all((2 / eps * math.frexp(value)[0]).is_integer() for value in values):
            return eps * max(map(abs, values))
    return 0.0


def _direction(tensor: Tensor) -> Tensor:
    """Signs without a pattern, times the largest number: a step is a part of what the loss is given."""
    return signs(tensor).to(tensor.dtype) * (float(tensor.abs().max()) or 1.0)


def _differences(values: Sequence[float], order: int) -> list[float]:
    found = list(values)
    for _ in range(order):
        found = [b - a for a, b in pairwise(found)]
    return found


def precision(spec: LossSpec, trials: Sequence[Trial]) -> Precision:
    """The dtypes that an implementation works in: what is declared, else what it shows on generic cases.

    Args:
        spec: the declaration.
        trials: generic cases of the implementation.
    """
    takes, refusal = _widest(spec, trials)
    declared = spec.computes_in or takes
    finest: torch.dtype | None = None
    for trial in trials:  # one line may show nothing, or cross a kink
        shown = _shown(trial, takes)
        finest = min((dtype for dtype in (finest, shown) if dtype is not None), key=tolerance.eps_of, default=None)
        if finest is not None and tolerance.eps_of(finest) <= tolerance.eps_of(declared):
            break
    coarser = finest is not None and tolerance.eps_of(finest) > tolerance.eps_of(declared) and declared != torch.float16
    return Precision(takes, finest if finest is not None and coarser else declared, refusal)


def _widest(spec: LossSpec, trials: Sequence[Trial]) -> tuple[torch.dtype, str]:
    """(the widest dtype in which the loss runs on the most of the cases, what it raised in float64 where nothing is declared).

    One case does not tell: an assignment to a single element casts what it refuses of several.
    """
    if spec.dtypes:
        return min(spec.dtypes, key=tolerance.eps_of), ""
    refusal, runs = "", dict.fromkeys(tolerance.PRECISIONS, 0)
    for dtype in tolerance.PRECISIONS:
        for trial in trials:
            try:
                trial.run(trial.tensors(dtype))
            except LossRaised as raised:
                refusal = refusal or told_in_a_line(raised.error)
            else:
                runs[dtype] += 1
        if runs[dtype] == len(trials):
            break
    # The first of equals: float64 where it raises whatever it is given; see B01.
    widest = max(runs, key=runs.__getitem__)
    return widest, refusal if widest != torch.float64 else ""


def _shown(trial: Trial, takes: torch.dtype) -> torch.dtype | None:
    """The precision that values along a line through a case show; ``None`` where they show none."""
    tensors = trial.tensors(takes)
    names = [name for name in trial.spec.differentiable if tensors[name].numel()]
    try:
        value = trial.function(tensors)
        seen = noise(value, tensors, names)
        size = max(abs(value({})), *trial.measure(tensors))
    except (LossRaised, RuntimeError):  # a loss that edits its inputs leaves tensors that do not fit each other
        return None
    if seen is None:
        return None
    return max(tolerance.precision_of(seen / size if size else 0.0), takes, key=tolerance.eps_of)
