"""Rule about the gradient at larger sizes: G02."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.calls import tolerance
from harness.calls.evaluation import LossRaised, Precision
from harness.calls.watch import Calls, TooManyOperations
from harness.errors import NotApplicable
from harness.rules.dtypes.kept import short
from harness.rules.gradients.cut_off import (
    UNREACHED,
    element,
    generic_point,
    interior,
    needs_differentiable,
    slope_code,
    with_gradient,
)
from harness.rules.rule import Mismatch, Partly, Rule
from harness.rules.tools import slopes
from harness.rules.tools.compare import differing, same_output
from harness.rules.tools.detach import DetachTape, listed
from harness.rules.tools.made import directions, normal
from harness.rules.tools.remarks import lost_values
from harness.rules.tools.sizes import DOUBLINGS, growable, grown, is_too_much, one, resized, uniform
from harness.rules.trial import NUDGE, Trial, learned

DIRECTIONS = 4  # two errors that cancel along one direction of +-1 do so along the next with probability 1/2
LONG_DIRECTIONS = 2  # along a long axis, where an error is one of many elements, and an evaluation is dear
OPERATIONS = 500  # a loop over elements; the small cases of G01 are for it
AGREEMENT = 0.2  # of the gap, between steps: rounding grows as 1/h, what a crossed kink adds is gone at another step
VISIBLE = 1e-2  # of a typical element
GROWING = DOUBLINGS[:2]  # of that symbol before, which tell how much the long one takes: triplets of 1100 are 10 GB
LONG, SHORT = 1100, 3  # of one symbol, beyond a block of 1024; of the others
LEAST_SHARE = 1e-3  # of the step, for an input with a large gradient beside one with a small gradient


@dataclass(frozen=True)
class _Point:
    """A point with its gradient and the loss around it; what a module learns belongs to it.

    A gap is compared with ``typical``: the root of the mean squared gradient element, times the element's share of the
    step.  The shares make it the same for every input, so that a large gradient of one hides nothing in another.
    """

    given: dict[str, Tensor]
    parameters: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    shares: Mapping[str, float]
    typical: float
    scalar: float
    value: slopes.Value
    cuts: str
    precision: Precision
    most: float

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What moves, and what stands beside it."""
        return {**self.given, **self.parameters}

    @property
    def steps(self) -> tuple[float, float, float]:
        """At which a disagreement must be the same."""
        return tolerance.direction_steps(self.precision.eps)

    def gap(self, direction: Mapping[str, Tensor], step: float) -> float:
        """Measured minus analytic slope; the analytic one along the step that rounding has left."""
        up, down = (
            {name: self._moved(name, sign * step * along) for name, along in direction.items()} for sign in (1, -1)
        )
        analytic = sum(float((self.gradients[name] * (up[name] - down[name])).sum()) for name in direction)
        return (self.value(up) - self.value(down) - analytic) / (2 * step)

    def _moved(self, name: str, by: Tensor) -> Tensor:
        return (self.tensors[name] + by).to(self.precision.grid).to(by.dtype)

    def noise(self, step: float) -> float:
        """What rounding may do to a difference quotient; what intermediates add, other steps show."""
        return tolerance.slope_noise(step, abs(self.scalar), self.precision.eps)

    def allowed(self, step: float) -> float:
        """How far the two slopes of a right gradient may be apart."""
        return tolerance.DIRECTION_RELATIVE * self.typical + self.noise(step)

    def left_out(self) -> str:
        """What rounding hides along a direction; empty where one wrong element among many would show.

        Raises:
            NotApplicable: not even a gradient of other signs would.
        """
        noise, count = self.noise(self.steps[0]), sum(g.numel() for g in self.gradients.values())
        if noise <= self.typical or self.typical == 0:
            return ""
        why = f"values are rounded as in {short(self.precision.computes_in)}, so that a slope may be off by {noise:.2g}"
        wholes = [float(g.abs().sum()) for g in self.gradients.values()]
        shows_as_a_whole = all(2 * noise <= whole for whole in wholes if whole)  # twice the gradient would
        if noise > self.typical * math.sqrt(count) and not shows_as_a_whole:
            raise NotApplicable(
                f"no slope could be measured: {why}, and the gradient's is about {self.typical * math.sqrt(count):.2g}"
            )
        return f"{why}; one wrong element of {self.typical:.2g}, the usual size, would not show"

    def confirmed_gap(self, direction: Mapping[str, Tensor]) -> float | None:
        """The gap along a direction if it is too large, and the same at all steps; ``None`` otherwise."""
        step, *others = self.steps
        gap = self.gap(direction, step)
        if abs(gap) <= self.allowed(step):
            return None
        same = all(abs(self.gap(direction, other) - gap) <= AGREEMENT * abs(gap) for other in others)
        return gap if same else None

    def directions(self, generator: torch.Generator, count: int) -> Iterator[dict[str, Tensor]]:
        """Fresh directions of +-1, times each input's share of the step."""
        for _ in range(count):
            yield {name: self.shares[name] * directions(g, generator) for name, g in self.gradients.items()}


def gradient_matches_slopes_along_directions(trial: Trial) -> Mismatch | Partly | None:
    """Along random directions of +-1 the gradient of many elements is the slope that is measured.

        |<dL/dx, v> - (L(x + h v) - L(x - h v)) / 2h| <= 2e-5 rms(dL/dx) + rounding,   v_i = +-1,   4 directions

    An error d in one element shows as d along every such direction, however many elements there are: nine evaluations
    of the loss.  Where the loss computes in float32, rounding is what float32 rounds.  Only a disagreement costs more: a
    wrong gradient disagrees by the same amount at other steps, in other directions and at a generic point nearby, as a kink
    does not; bisection then finds the element.  In a coarser precision than float64, where rounding hides an element, the slope
    along the signs of an input's gradient is asked too: it is the sum of its absolute values, of which a tenth shows.  What a
    module learns belongs to x, of a loop at sizes of 3.  Without a reference, which E05 takes, one symbol after another is 1100
    and the others 3, along two directions, unless lengths of 4 and 8 tell that it would take too much.
    Source: Nocedal & Wright, Numerical Optimization, section 8.1; Rademacher directions as in Hutchinson, 1990.
    """
    try:
        point = _point(trial, interior(trial))
    except NotApplicable as reason:
        if not isinstance(reason.__cause__, LossRaised) or not learned(trial.candidate.build(trial.tensors())):
            raise
        small = trial.apart(case=resized(trial.spec, trial.case, uniform(trial.spec, SHORT)), exhaustive=False)
        return _wrong_element(small, _point(small, interior(small), most=math.inf)) or Partly(str(reason))
    if (found := _wrong_element(trial, point)) is not None:
        return found
    if (whole := _as_a_whole(trial, point)) is not None:
        return whole
    left_out = point.left_out()
    return _along_axes(trial) or (Partly(left_out) if left_out else None)


def _along_axes(trial: Trial) -> Mismatch | None:
    """The same where one axis is long, of a loss that no reference is beside; the first case stands for all."""
    if len(trial.spec.implementations) > 1:
        return None
    if trial.cache.setdefault(("long axes", trial.implementation), trial.case.key) != trial.case.key:
        return None
    for symbol in growable(trial.spec):
        try:
            made = grown(partial(_at, trial, symbol), trial.cache, GROWING)
            longer = _at(trial, symbol, LONG)
            if len(made) < len(GROWING) or is_too_much(longer, made, LONG):
                continue
            found = _wrong_element(longer, _point(longer, interior(longer)), LONG_DIRECTIONS)
        except (LossRaised, NotApplicable):
            continue  # raises, is a loop, or has no such size; B01 and E05 say more
        if found is not None:
            return replace(found, aspect=f"{symbol} is long", sizes=longer.case.sizes)
    return None


def _at(trial: Trial, symbol: str, size: int) -> Trial:
    """The case with one symbol at a size, and the others short."""
    case = resized(trial.spec, trial.case, {**uniform(trial.spec, SHORT), **one(trial.spec, symbol, size)})
    return trial.apart(case=case, exhaustive=False)


def _wrong_element(trial: Trial, point: _Point, count: int = DIRECTIONS) -> Mismatch | None:
    """What is wrong where slopes and gradient disagree at a point, and at a generic one nearby."""
    if _disagreement(point, trial.generator(21), count) is None:
        return None
    nudged = generic_point(trial, point.given)
    point = _point(trial, nudged, most=point.most)
    direction = _disagreement(point, trial.generator(22))
    if direction is None:
        return None
    changed = _changed_by_a_mode(trial, nudged)
    if changed is not None:  # then the gradient above was one of another function
        point = _point(trial, nudged, watched=False, most=point.most)
        direction = _disagreement(point, trial.generator(22))
    return changed if direction is None else _in_one_element(trial, point, direction)


def _as_a_whole(trial: Trial, point: _Point) -> Mismatch | None:
    """Another sign or factor of most of an input's gradient, which shows along its own signs where no element does."""
    if point.precision.eps <= tolerance.EPS64:
        return None
    for name in point.gradients:
        if _gap_along_signs(point, name) is None:
            continue
        near = _point(trial, generic_point(trial, point.given), most=point.most)
        gap = _gap_along_signs(near, name)
        if gap is None:
            continue
        size, step = float(near.gradients[name].abs().sum()), near.steps[0]
        found = differing(f"sum |d loss / d {name}|", size, size + gap, abs(gap), near.noise(step))
        return replace(
            found,
            aspect="as a whole",
            kind="gradient",
            tensor=name,
            tensors=near.given,
            should=f"{found.should}, the slope of the loss along its signs",
            code=_code_of_parameter(name, None, step)
            if name in near.parameters
            else _CODE_OF_SIGNS.format(name=name, step=step),
            hint="mend the sign or the factor of the backward: most of the gradient is not the slope, at three steps",
        )
    return None


def _gap_along_signs(point: _Point, name: str) -> float | None:
    """Measured minus analytic slope, where that is a tenth of the analytic one at least."""
    gradient = point.gradients[name]
    gap = point.confirmed_gap({name: gradient.sign()})
    return gap if gap is not None and abs(gap) > tolerance.MEASURABLE * float(gradient.abs().sum()) else None


def _code_of_parameter(name: str, index: tuple[int, ...] | None, step: float) -> str:
    """Lines that print an element of a parameter's gradient, or the sum of its absolute values, beside the measured slope."""
    along = "p.grad.sign()" if index is None else f"torch.zeros_like(p.grad)\n        along[{index}] = 1"
    return f"""
        module = build(**tensors)
        total(call(module, **tensors)).backward()
        p = dict(module.named_parameters())[{name.removeprefix("parameter ")!r}]
        along = {along}
        h = {step:.1g}

        def moved(by):
            p.data += by * along
            value = total(call(module, **tensors)).item()
            p.data -= by * along
            return value

        print("autograd:", float((p.grad * along).sum()), "measured:", (moved(h) - moved(-h)) / (2 * h))
    """


_CODE_OF_SIGNS = """
(gradient,) = torch.autograd.grad(total(loss(**tensors)), [tensors[{name!r}]])
above, below = ({{**tensors, {name!r}: tensors[{name!r}].detach() + by * gradient.sign()}} for by in ({step!r}, -{step!r}))
print(float(gradient.abs().sum()), float(total(loss(**above)) - total(loss(**below))) / (2 * {step!r}))
"""


def _changed_by_a_mode(trial: Trial, tensors: dict[str, Tensor]) -> Mismatch | None:
    """Another value where torch's functions are overridden by what changes nothing.

    A function that passes its arguments on wrongly there computes something else for everyone who uses such a mode or a
    subclass of Tensor, and while this rule looks for stop-gradients; it says nothing of the gradient.
    """
    plain, again = trial.run(tensors, wrt=()), trial.run(tensors, wrt=())
    if same_output(again.output, plain.output, trial.scale) is not None:
        return None  # random, see S01
    mismatch = same_output(trial.run(tensors, wrt=(), mode=DetachTape()).output, plain.output, trial.scale)
    if mismatch is None:
        return None
    return replace(
        mismatch,
        where=f"{mismatch.where} inside a TorchFunctionMode that changes nothing",
        aspect="function mode",
        severity="warning",
        tensors=tensors,
        code=_CODE_OF_A_MODE,
        hint="a function called here loses an argument on its way through __torch_function__; call it without that argument, "
        "or write out what it computes",
    )


_CODE_OF_A_MODE = """
from torch.overrides import TorchFunctionMode


class Unchanged(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


print("plain:", loss(**tensors))
with Unchanged():
    print("in a mode that changes nothing:", loss(**tensors))
"""


def agrees_along_directions(trial: Trial, tensors: dict[str, Tensor], salt: int) -> bool:
    """Whether the gradient at a point is the slope along directions, where a percent of one usual element would show."""
    try:
        point = _point(trial, tensors)
    except NotApplicable:
        return False
    resolved = point.allowed(point.steps[0]) <= VISIBLE * point.typical
    return resolved and _disagreement(point, trial.generator(salt)) is None


def _in_one_element(trial: Trial, point: _Point, direction: Mapping[str, Tensor]) -> Mismatch | None:
    """The disagreement along a direction as one of an element, where that element alone shows it at all steps too."""
    alone = _bisected(point, direction)
    gap = point.confirmed_gap(alone)
    if gap is None:
        return None
    name = next(name for name, along in alone.items() if bool(along.any()))
    index = tuple(int(i) for i in alone[name].nonzero()[0])
    analytic, along = float(point.gradients[name][index]), float(alone[name][index])
    off = abs(gap / along)
    line = slopes.Line(point.value, point.tensors, [(name, index)], point.precision.grid)
    rounding = tolerance.value_rounding(abs(point.scalar), point.precision.eps)
    slope = slopes.measure(line, point.scalar, rounding, point.precision.eps)
    if slope.kinked and slope.misses(analytic, off / 10) is None:
        return None  # a kink that no generic point is off
    count = sum(g.numel() for g in point.gradients.values())
    cut = f"; the gradient is cut by {point.cuts}" if point.cuts and not trial.spec.detaches else ""
    allowed, step = point.allowed(point.steps[0]) / abs(along), tolerance.slope_step(point.precision.eps)
    return replace(
        differing(element(name, index), analytic, analytic + gap / along, off, allowed),
        kind="gradient",
        tensor=name,
        size=abs(point.scalar) / abs(point.steps[0] * along),
        tensors=point.given,
        code=_code_of_parameter(name, index, step) if name in point.parameters else slope_code([(name, index)], step),
        hint="mend the backward (or the detach) that gives this element",
        note=f"one of {count} elements, found by bisection along a direction of +-1{cut}",
    )


def _point(trial: Trial, tensors: dict[str, Tensor], *, watched: bool = True, most: float = OPERATIONS) -> _Point:
    tape, built = DetachTape(), trial.candidate.build(tensors)
    parameters = _off_their_start(learned(built), trial.generator(23))
    names = [*(name for name in trial.spec.differentiable if tensors[name].numel()), *parameters]
    mode = _Both(Calls(most), tape) if watched else Calls(most)
    try:
        if parameters:
            leaves = trial.leaves(tensors)
            base = trial.backward({**leaves, **parameters}, trial.output(leaves, mode=mode, built=built))
        else:
            base = trial.run(tensors, mode=mode)
    except LossRaised as raised:
        if isinstance(raised.error, TooManyOperations):
            many = f"one forward has more than {OPERATIONS} operations at these sizes; see G01 for small ones"
            raise NotApplicable(many) from raised
        raise
    if not names:
        raise NotApplicable(UNREACHED)
    found = with_gradient(base).gradients
    moved = {name: parameter.detach() for name, parameter in parameters.items()}
    at = {**tensors, **moved}
    gradients = {n: torch.zeros_like(at[n]) if (g := found[n]) is None else g for n in names}
    sizes = {name: float(g.square().mean().sqrt()) for name, g in gradients.items()}
    typical = min((size for size in sizes.values() if size > 0), default=0.0)
    return _Point(
        given=tensors,
        parameters=moved,
        gradients=gradients,
        shares={name: max(typical / size, LEAST_SHARE) if size > 0 else 1.0 for name, size in sizes.items()},
        typical=typical,
        scalar=base.scalar,
        value=_with_parameters(trial.function(tensors, tape), moved),
        cuts=listed(tape.places),
        precision=trial.precision,
        most=most,
    )


def _off_their_start(parameters: Mapping[str, Tensor], generator: torch.Generator) -> Mapping[str, Tensor]:
    """Parameters moved to a generic point: at a 1 or a 0, from which many begin, a wrong power or product does not show."""
    for parameter in parameters.values():
        parameter.data = parameter.data + NUDGE * normal(parameter, generator, torch.float64).to(parameter.dtype)
    return parameters


def _with_parameters(value: slopes.Value, parameters: Mapping[str, Tensor]) -> slopes.Value:
    return (lambda changes: value({**parameters, **changes})) if parameters else value


class _Both(AbstractContextManager[None]):
    """Two modes; unlike a generator's, it may be entered again, as where a gradient is asked for in another way."""

    def __init__(self, calls: Calls, tape: DetachTape) -> None:
        self._modes = (calls, tape)
        self._entered = ExitStack()

    def __enter__(self) -> None:
        for mode in self._modes:
            self._entered.enter_context(mode)

    def __exit__(self, *raised: Any) -> bool | None:
        return self._entered.__exit__(*raised)


def _disagreement(point: _Point, generator: torch.Generator, count: int = DIRECTIONS) -> dict[str, Tensor] | None:
    """A direction along which measured and analytic slope differ."""
    return next((d for d in point.directions(generator, count) if point.confirmed_gap(d) is not None), None)


def _bisected(point: _Point, direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The direction narrowed to one element by repeated halving, each time to the half with the larger gap."""
    step = point.steps[0]
    chosen = dict(direction)
    whole = point.gap(chosen, step)
    while (count := sum(int(along.count_nonzero()) for along in chosen.values())) > 1:
        first = _first_half(chosen, count // 2)
        gap = point.gap(first, step)
        second = {name: along - first[name] for name, along in chosen.items()}
        chosen, whole = (first, gap) if abs(gap) >= abs(whole - gap) else (second, whole - gap)
    return chosen


def _first_half(direction: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """The direction with all but its first ``count`` nonzero elements set to zero."""
    kept: dict[str, Tensor] = {}
    left = count
    for name, part in direction.items():
        rank = (part != 0).reshape(-1).cumsum(0).reshape(part.shape)
        kept[name] = torch.where(rank <= left, part, 0.0)
        left -= int(kept[name].count_nonzero())
    return kept


RULES = (
    Rule(
        code="G02",
        title="gradient matches slopes along directions at larger sizes",
        group="directional",
        severity="error",
        check=gradient_matches_slopes_along_directions,
        applies=needs_differentiable,
        regimes={"many": 2},
        smooth=True,
        measures_gradient=True,
        remarks=(lost_values,),
        why=(
            "A kernel's last block, an index that overflows or a chunk that is dropped is wrong at a thousand elements "
            "and right at six; an element-wise check of a thousand elements takes two thousand evaluations."
        ),
        example="""
            for start in range(0, n - n % 256, 256):      # the last chunk gets no gradient
                grad[start:start + 256] = 2 * (p - y)[start:start + 256] / n
        """,
        mend="Compare the named element with the formula; look at the edges of blocks, chunks and index ranges.",
        source="Nocedal & Wright, Numerical Optimization, section 8.1; Hutchinson, 1990, on directions of +-1.",
    ),
)
