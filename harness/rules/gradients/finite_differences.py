"""Rule that measures the gradient element by element: G01."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from harness.calls import tolerance
from harness.calls.evaluation import LossRaised, Precision
from harness.drawing.case import Recipe
from harness.errors import NotApplicable
from harness.rules.dtypes.kept import short
from harness.rules.gradients.cut_off import (
    element,
    generic_point,
    interior,
    needs_differentiable,
    on_grid,
    slope_code,
    with_gradient,
)
from harness.rules.gradients.directional import agrees_along_directions
from harness.rules.rule import Mismatch, Partly, Rule
from harness.rules.tools import roundoff, slopes
from harness.rules.tools.compare import differing
from harness.rules.tools.detach import DetachTape, listed
from harness.rules.tools.made import copied
from harness.rules.tools.remarks import lost_values, with_note
from harness.rules.tools.symbols import symbol_axes
from harness.rules.trial import Run, Scale, Trial, contract

GRADCHECK_ELEMENTS = 200  # a slow gradcheck of N elements costs 2N + 2 evaluations
TIED_PLACES = 6  # of those that tie or are zero, spread over them all
AT_A_TIE = "at a tie only"
AROUND = 48  # points near a tie: the eight orders of two equal values and a third are among them
SEVERAL = 3  # elements, of which most are hardly all beside a kink

Place = tuple[slopes.Element, ...]  # one element, or equal ones that move together


def gradient_matches_finite_differences(trial: Trial) -> Mismatch | Partly | None:
    """The gradient that autograd gives is the slope that is measured.

        dL/dx_i = (L(x + h e_i) - L(x - h e_i)) / 2h + O(h^2),   h = eps^(1/3)

    eps is that of the precision in which the loss computes.  At a kink any slope between the left and the right one is
    right; ties and zeros are made on purpose, since a loss may be right everywhere else.  The first cases are looked at
    element by element, on further ones all elements at once, along random directions of +-1.  Where rounding may change a slope by a tenth of the largest one, nothing is measured, and the rule says so.
    Source: `torch.autograd.gradcheck`; Nocedal & Wright, Numerical Optimization, section 8.1.
    """
    tensors = interior(trial)
    generic = all(recipe.mode == "smooth" and recipe.point is None for recipe in trial.case.tensors.values())
    if not trial.exhaustive and agrees_along_directions(trial, copied(tensors), 23):
        return None
    off, left_out = _off_its_slopes(trial, tensors, checks=generic, most=generic, as_drawn=_is_as_drawn(trial))
    if off is None and trial.exhaustive:
        off = _off_at_a_tie(trial)
        tensors = tensors if off is None else dict(off.mismatch.tensors or {})
    if off is not None:
        alone: list[Place] = [(element,) for element in off.place]
        nearby = generic_point(trial, tensors)
        where = [] if off.is_one_of_most else alone
        if _off_its_slopes(trial, nearby, where, off.usual, most=off.is_one_of_most)[0] is not None:
            return off.mismatch
        if off.is_one_of_most:
            return None
        floor = tolerance.SLOPE_FLOOR * _largest(trial.run(nearby))  # at a point of symmetry all slopes may be zero
        if (off.mismatch.difference or math.inf) <= floor:
            return None
        return off.at_a_tie()
    return Partly(left_out) if left_out else None


def _is_as_drawn(trial: Trial) -> bool:
    """Whether `interior` changes nothing, since no domain has a boundary and no number is rounded."""
    free = all(trial.spec.inputs[name].domain.unbounded for name in trial.spec.differentiable)
    return free and trial.precision.grid == trial.precision.takes


def among_gradients_around(trial: Trial, mismatch: Mismatch) -> Mismatch:
    """Where points around a tie, on whichever side of it, have smaller and larger gradients: autograd chose a mean of theirs.

    The slopes along one coordinate do not tell them: where the larger of two equal values counts, and the smaller one another
    way, each may move alone at one slope.  Points at a tenth of the distance have the same, or the loss is bent too much for
    any of them to stand for this one.  Source: Clarke, Optimization and Nonsmooth Analysis, theorem 2.5.1.
    """
    if mismatch.aspect != AT_A_TIE or mismatch.tensors is None:
        return mismatch
    tensors = {name: tensor.detach() for name, tensor in mismatch.tensors.items()}
    gradients = trial.run(copied(tensors)).gradients
    came = _gradient_at(gradients, mismatch.place)
    around, nearer = (_gradients_around(trial, tensors, mismatch.place, part) for part in (1.0, 0.1))
    bent = max(abs(far - near) for far, near in zip(around, nearer, strict=True))
    slack = tolerance.MEASURABLE * (mismatch.difference or 0.0)
    if bent > tolerance.MEASURABLE * (max(around) - min(around)):
        return mismatch
    if not min(around) - slack <= came <= max(around) + slack:
        return mismatch
    return with_note(mismatch, "it is a mean of the gradients around, as autograd may choose at a tie")


def _gradient_at(gradients: Mapping[str, Tensor | None], place: Place) -> float:
    """The gradient element, or the sum of those that move together."""
    found = ((gradients[name], index) for name, index in place)
    return sum(0.0 if gradient is None else float(gradient[index]) for gradient, index in found)


def _gradients_around(trial: Trial, tensors: dict[str, Tensor], place: Place, part: float) -> list[float]:
    """The gradient at points around, at a part of the distance of `Trial.nudged`."""
    found = []
    for salt in range(AROUND):
        near = generic_point(trial, tensors, 41 + salt)
        moved = {n: on_grid(trial, tensors[n] + part * (near[n] - tensors[n])) for n in trial.spec.differentiable}
        found.append(_gradient_at(trial.run({**near, **moved}).gradients, place))
    return found


def _off_at_a_tie(trial: Trial) -> _Off | None:
    """A place that is outside its slopes where two slices of generic values tie, or some of them are zero."""
    first = int(trial.case.digest, 16) % 2**30
    recipes = {
        name: Recipe(seed=first + position)
        for position, (name, tensor) in enumerate(trial.spec.tensors.items())
        if tensor.domain.make is None
    }
    drawn = trial.at(replace(trial.case, tensors={**trial.case.tensors, **recipes}))
    tensors = interior(drawn)
    try:
        usual = _largest(drawn.run(interior(drawn)))  # the loss may edit what it is given
    except LossRaised:
        return None
    for tied, where in (*_ties(drawn, tensors), *_zeros(drawn, tensors)):
        try:
            if agrees_along_directions(drawn, copied(tied), 29):
                continue
            off, _ = _off_its_slopes(drawn, copied(tied), where, usual)
        except (NotApplicable, LossRaised):
            continue  # what is not finite there is G08's, and what raises there
        if off is not None:
            return off
    return None


def _ties(trial: Trial, tensors: dict[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], list[Place]]]:
    """Along each axis of the inputs two slices are equal; places are pairs that tie, moved together, and each alone.

    Moved together they stay tied, so that a loss is smooth there, and a gradient that every one of them gets whole shows.
    """
    spec = trial.spec
    for symbol in (*spec.symbols, *spec.variadic):
        try:
            axes = symbol_axes(spec, trial.case, symbol)
        except NotApplicable:
            continue
        tied, pairs = dict(tensors), []
        for name, (axis, *_) in axes.items():
            domain = spec.tensors[name].domain
            if name in spec.context or domain.kind != "float" or domain.structured or tensors[name].shape[axis] < 2:
                continue
            tied[name] = _with_equal_slices(tensors[name], axis)
            if name in spec.differentiable:
                firsts = [index for _, index in slopes.coordinates(tied, [name]) if index[axis] == 0]
                pairs += [((name, index), (name, (*index[:axis], 1, *index[axis + 1 :]))) for index in firsts]
        if pairs:
            chosen = _spread(pairs)
            yield tied, [*chosen, *((element,) for pair in chosen[::2] for element in pair)]


def _with_equal_slices(tensor: Tensor, axis: int) -> Tensor:
    equal = tensor.clone()
    equal.select(axis, 1).copy_(tensor.select(axis, 0))
    return equal


def _zeros(trial: Trial, tensors: dict[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], list[Place]]]:
    """Every second element of an input is zero, above or below all others."""
    for name in trial.spec.differentiable:
        domain = trial.spec.inputs[name].domain
        if domain.structured or not domain.low < 0 < domain.high or -domain.low != domain.high:
            continue
        for sign in (-1, 1):
            zeroed = sign * tensors[name].abs()
            zeroed.view(-1)[::2] = 0
            places: list[Place] = [(element,) for element in slopes.coordinates({name: zeroed}, [name])]
            yield {**tensors, name: zeroed}, _spread(places[::2])


def _spread(places: Sequence[Place]) -> list[Place]:
    return list(places[:: max(1, -(-len(places) // TIED_PLACES))])


def _largest(run: Run) -> float:
    """The largest finite gradient element."""
    return max(
        [float(g.nan_to_num(0, 0, 0).abs().max()) for g in run.gradients.values() if g is not None and g.numel()],
        default=0.0,
    )


@dataclass(frozen=True)
class _Off:
    """A place whose gradient is outside its slopes, or off their mean as most are; ``usual`` is the largest slope there."""

    place: Place
    usual: float
    slope: slopes.Slope
    mismatch: Mismatch
    is_one_of_most: bool = False

    def at_a_tie(self) -> Mismatch:
        """What is said where a generic point nearby has the right gradient."""
        there = "is at a kink, where any slope between the two sides is right" if self.slope.kinked else "shows no kink"
        return replace(
            self.mismatch,
            aspect=AT_A_TIE,
            severity="warning",
            hint="look at what happens to equal values, or to zeros: amax, topk, scatter_reduce, relu, abs or a comparison",
            note=f"a generic point nearby has the right gradient; here, where values tie or are zero, the loss {there}",
        )


def _off_its_slopes(
    trial: Trial,
    tensors: Mapping[str, Tensor],
    where: Sequence[Place] = (),
    usual: float = 0.0,
    *,
    checks: bool = False,
    most: bool = False,
    as_drawn: bool = False,
) -> tuple[_Off | None, str]:
    """(the place, of all elements or of ``where``, that is furthest outside its measured slopes; what could not be measured).

    Args:
        trial: the loss.
        tensors: the point.
        where: which places to look at.
        usual: the size of slopes nearby.
        checks: whether gradcheck may answer for all elements.
        most: whether what most elements are off their means by counts, as at a point where nothing ties.
        as_drawn: whether the point is the case's own, whose evaluation other rules share.

    Raises:
        NotApplicable: there is no gradient, or no slope could be measured.
    """
    names = tuple(n for n in trial.spec.differentiable if tensors[n].numel())
    if sum(tensors[n].numel() for n in names) > GRADCHECK_ELEMENTS:
        raise NotApplicable(f"more than {GRADCHECK_ELEMENTS} elements; a slow gradcheck would be too long")
    base = with_gradient(trial.base if as_drawn else trial.run(tensors))
    point = _Point(trial, tensors, base, names, trial.scale if as_drawn else trial.measure_scale(tensors))
    if checks and point.passes_gradcheck():
        return None, ""
    return point.worst(where or [(element,) for element in slopes.coordinates(tensors, names)], usual, most=most)


class _Point:
    """A point with its gradient, its value and the slopes around it."""

    def __init__(
        self, trial: Trial, tensors: Mapping[str, Tensor], base: Run, names: tuple[str, ...], scale: Scale
    ) -> None:
        self.trial, self.tensors, self.base, self.names = trial, tensors, base, names
        self.value = trial.function(tensors, self.tape if trial.spec.detaches else None)
        self.step = tolerance.slope_step(trial.eps)
        # Of a kernel all that is seen.
        given = max((float(tensors[name].detach().abs().max()) for name in names), default=0.0)
        self.magnitude = max(abs(base.scalar), scale.intermediate, given)
        self.rounding = tolerance.value_rounding(self.magnitude, trial.eps)
        self.gradient_rounding = tolerance.slope_noise(1.0, self.magnitude, trial.eps)

    @cached_property
    def tape(self) -> DetachTape:
        """What the loss takes off the graph here."""
        return self.trial.cuts(self.tensors)

    def analytic(self, place: Place) -> float:
        """The gradient that autograd gives."""
        return _gradient_at(self.base.gradients, place)

    def refine(self, largest: float) -> None:
        """Look at how values are really rounded, where the largest number met leaves no slope to be measured."""
        if self.rounding / self.step > tolerance.MEASURABLE * largest:
            seen = roundoff.noise(self.value, self.tensors, self.names)
            if seen is not None:
                least = 2 * self.trial.eps * abs(self.base.scalar)
                self.rounding = min(self.rounding, max(roundoff.MARGIN * seen, least))

    def passes_gradcheck(self) -> bool:
        """Whether torch's own check passes, in float64, where rounding leaves it something to see."""
        largest = _largest(self.base)
        noise = self.rounding / tolerance.GRADCHECK_STEP
        if self.trial.precision != Precision() or noise >= tolerance.GRADCHECK_RELATIVE * largest:
            return False
        if self.trial.spec.once:
            return False  # gradcheck goes back twice; the slopes decide

        def scaled(*leaves: Tensor) -> Tensor:
            given = {**self.tensors, **dict(zip(self.names, leaves, strict=True))}
            mode = DetachTape(replay=self.tape) if self.trial.spec.detaches else None
            return contract(self.trial.output(given, mode=mode)).to(torch.float64) / largest

        try:
            return bool(
                torch.autograd.gradcheck(
                    scaled,
                    tuple(self.tensors[name].detach().clone().requires_grad_() for name in self.names),
                    eps=tolerance.GRADCHECK_STEP,
                    atol=tolerance.GRADCHECK_ABSOLUTE + noise / largest,
                    rtol=tolerance.GRADCHECK_RELATIVE,
                    nondet_tol=tolerance.GRADCHECK_ABSOLUTE,
                    check_undefined_grad=False,
                    raise_exception=False,
                )
            )
        except Exception:
            # gradcheck goes back twice, which breaks a loss that edits its inputs or frees what it keeps; the slopes decide
            return False

    def worst(self, where: Sequence[Place], usual: float, *, most: bool) -> tuple[_Off | None, str]:
        """What `_off_its_slopes` gives.

        Every place costs two evaluations, and four more where the central difference is not the gradient.  ``usual`` is the
        size of slopes nearby, beside which those at a point of symmetry are rounding.
        """
        grid = self.trial.precision.grid
        lines = {at: slopes.Line(self.value, self.tensors, at, grid) for at in where}
        central = {at: line.central(self.step) for at, line in lines.items()}
        sizes = [abs(number) for at in lines for number in (self.analytic(at), central[at])]
        largest = max((size for size in (usual, *sizes) if math.isfinite(size)), default=0.0)
        self.refine(largest)
        unseen = all(abs(central[at]) * line.unit <= self.rounding / self.step for at, line in lines.items())
        if unseen and all(largest * line.unit <= self.gradient_rounding for line in lines.values()):
            return None, ""  # every slope is zero, and the gradient but for its rounding
        found: _Off | None = None
        suspects: list[_Off] = []  # off the mean of both sides, but not off each with its own error
        unmeasured = {}
        for at, line in lines.items():
            error = self.rounding / (self.step * line.unit)
            if self._agrees(self.analytic(at), central[at], largest, error):
                continue
            slope = slopes.measure(line, self.base.scalar, self.rounding, self.trial.eps)
            off = slope.misses(self.analytic(at), tolerance.SLOPE_FLOOR * largest)
            if off is None and most and slope.smooth is not None:
                mean = slope.smooth.misses(self.analytic(at), tolerance.SLOPE_FLOOR * largest)
                made = None if mean is None else self._mismatch(at, slope.smooth, mean, largest)
                suspects += [] if made is None else [_Off(at, largest, slope.smooth, made, is_one_of_most=True)]
            if off is None and not slope.is_measured(largest):
                unmeasured[at] = slope.error
            elif off is not None and (found is None or off > (found.mismatch.difference or 0.0)):
                found = _Off(at, largest, slope, self._mismatch(at, slope, off, largest))
        if found is None and SEVERAL <= len(lines) < 2 * len(suspects):
            found = max(suspects, key=lambda suspect: suspect.mismatch.difference or 0.0)
        if found is None and len(unmeasured) == len(lines):
            raise NotApplicable(f"no slope could be measured: {self._why(unmeasured.values(), largest)}")
        left_out = f"{len(unmeasured)} of {len(lines)} slopes could not be measured" if unmeasured else ""
        return found, f"{left_out}: {self._why(unmeasured.values(), largest)}" if left_out else ""

    @staticmethod
    def _agrees(analytic: float, central: float, largest: float, error: float) -> bool:
        """Whether the central difference measures the gradient, and finds it: no more need be asked."""
        size = max(abs(analytic), abs(central))
        allowed = tolerance.GRADCHECK_RELATIVE * size + tolerance.GRADCHECK_ABSOLUTE * largest + error
        return abs(analytic - central) <= allowed and error < tolerance.MEASURABLE * largest

    def _why(self, errors: Collection[float], largest: float) -> str:
        finite = [error for error in errors if math.isfinite(error)]
        if len(finite) < len(errors):
            return "difference quotients at several steps disagree, as they do at a jump or within a step of a kink"
        return (
            f"values are rounded as in {short(self.trial.precision.computes_in)}, so that a slope may be off by "
            f"{max(finite, default=0.0):.2g}, where the largest is {largest:.2g}"
        )

    def _mismatch(self, place: Place, slope: slopes.Slope, off: float, largest: float) -> Mismatch:
        analytic, cuts = self.analytic(place), listed(self.tape.places)
        note = ""
        if cuts and not self.trial.spec.detaches:
            line = self.trial.spec.line_that_says("detaches")
            note = f"the gradient is cut by {cuts}; if that is meant, declare {line}"
        allowed = slope.allowed(analytic, tolerance.SLOPE_FLOOR * largest)
        name, index = place[0]
        where = element(name, index) if len(place) == 1 else f"d loss / d ({' = '.join(map(_shown, place))})"
        found = differing(where, analytic, slope.nearest(analytic), off, allowed)
        sides = f"in [{min(slope.left, slope.right):.4g}, {max(slope.left, slope.right):.4g}]"
        return replace(
            found,
            kind="gradient",
            tensor=name,
            size=self.magnitude / self.step,
            should=sides if slope.kinked else found.should,
            tensors=self.tensors,
            code=slope_code(place, self.step),
            place=place,
            hint="mend the backward (or the detach) that gives this element",
            note=note,
        )


def _shown(at: slopes.Element) -> str:
    name, index = at
    return f"{name}{list(index) if index else ''}"


RULES = (
    Rule(
        code="G01",
        title="gradient matches finite differences",
        group="gradients",
        severity="error",
        check=gradient_matches_finite_differences,
        applies=needs_differentiable,
        regimes={"distinct": 5, "coincident": 2, "unit": 1},
        measures_gradient=True,
        remarks=(lost_values, among_gradients_around),
        why="A hand-written backward, a detach or an in-place edit gives a gradient of another function; training converges to something else.",
        example="""
            def backward(ctx, g):
                x, y = ctx.saved_tensors
                return g * (x - y), None                # the forward divides by the batch size, this does not
        """,
        mend="Derive the backward again, or let autograd do it; compare the named element with the formula.",
        source="torch.autograd.gradcheck; pytorch/pytorch#114234 on kinks; Nocedal & Wright, section 8.1.",
    ),
)
