"""The rule about accuracy in low precision: D02."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from harness.calls import tolerance, triton_interpreter
from harness.calls.evaluation import LossRaised
from harness.declare.domains import LARGE
from harness.errors import NotApplicable
from harness.rules.dtypes.kept import asked, has_float, short
from harness.rules.dtypes.vanishing import not_finite_in_low_precision
from harness.rules.rule import Mismatch, Partly, Rule
from harness.rules.tools.compare import differing, has_its_digits
from harness.rules.tools.made import directions
from harness.rules.tools.rounded import Rounded
from harness.rules.tools.slopes import element_index
from harness.rules.tools.special import far_cases, near_cases, special_cases
from harness.rules.trial import Intermediates, Run, Scale, Trial, is_finite

_ROUNDINGS = 8  # a tie that is seen one way in two escapes them one time in 256


def low_precision_is_as_accurate_as_the_condition_allows(trial: Trial) -> Iterator[Mismatch | Partly]:
    """In float32, bfloat16 and float16 the value is as near to the float64 run as its condition number allows.

        |L_low(x) - L_64(x)| <= c eps (|L| + sum_i |x_i dL/dx_i|)      x rounded to the low precision first

    A loss that refuses float64 is compared with its widest dtype.  Where the rounding of intermediates, eps
    max|intermediate|, explains the difference, it is a note.  Where all numbers of the wide run fit the low precision, the
    low-precision run must be finite too, and so must its gradient.  Among the points are tensors that nearly coincide, and
    values of one tensor with a large mean and a small spread, where rounding of the values themselves may explain the
    difference, that of their squares not: a spread can be had from differences.  Where the value has its digits, the
    gradient is held to the float64 one, as near as it stays where the inputs and the intermediates are rounded; beyond half of
    the digits of the dtype it is another gradient, an error, but where rounding moves it as much, or it grows with eps from float32 on.
    Source: Higham, Accuracy and Stability of Numerical Algorithms, section 1.6.
    """
    trial.base  # noqa: B018
    widest = tolerance.eps_of(trial.precision.takes)
    narrower = [dtype for dtype in asked(trial) if tolerance.eps_of(dtype) > widest]
    if not narrower:
        raise NotApplicable(f"the loss takes {', '.join(map(short, asked(trial)))} alone")
    points = [("generic values", trial.case)]
    if trial.exhaustive:
        points += special_cases(trial.spec, trial.case)
    for dtype in narrower:
        worst: dict[str, Mismatch] = {}
        asked_of = [(point, math.inf) for point in points]
        if trial.exhaustive:
            is_wide = dtype == torch.float32
            asked_of += [(point, math.inf) for point in near_cases(trial.spec, trial.case, far=is_wide)]
            asked_of += [(point, LARGE) for point in (far_cases(trial.spec, trial.case) if is_wide else ())]
        for (point, case), floor in asked_of:
            mismatch = _low_precision(trial.at(case), dtype, point, floor)
            if mismatch is not None and (mismatch.aspect not in worst or worst[mismatch.aspect].severity == "note"):
                worst[mismatch.aspect] = mismatch
        yield from worst.values()
    if triton_interpreter.is_on():
        yield Partly(triton_interpreter.BFLOAT16)


def _below_normal(trial: Trial, dtype: torch.dtype) -> bool:
    """Whether an input is so small that the dtype holds it with fewer bits, or not at all."""
    key = ("least", trial.case.key)
    if key not in trial.cache:
        sizes = [t[t != 0].abs() for t in trial.tensors().values() if t.is_floating_point()]
        trial.cache[key] = min((float(size.min()) for size in sizes if size.numel()), default=1.0)
    least: float = trial.cache[key]
    return least < torch.finfo(dtype).smallest_normal


def _low_precision(trial: Trial, dtype: torch.dtype, point: str, floor: float) -> Mismatch | None:
    """What is off in a dtype at a point; ``floor`` is the largest intermediate that may explain it."""
    tensors = trial.tensors(dtype)
    if _below_normal(trial, dtype):
        return None
    widened = trial.widened(tensors)
    # At ties, and where most elements are zero, any element of a gradient may be of the size of rounding.
    generic = all(recipe.point is None for recipe in trial.case.tensors.values())
    eps = max(tolerance.eps_of(dtype), trial.eps)
    try:
        run = trial.run(tensors)
        # Where it is as near to the value of the unrounded inputs, rounding them has only made it harder.
        if not generic and run.finite and has_its_digits(run.output, trial.value, eps):
            return None
        exact = trial.run(widened, wrt=None if generic or not run.finite else ())
    except LossRaised:
        return None
    if not is_finite(exact.output) or exact.output.shape != run.output.shape or not exact.output.numel():
        return None
    if run.finite and has_its_digits(run.output, exact.output, eps):  # the condition number could only allow more
        if not generic or not exact.finite:
            return None
        return _inaccurate_gradient(trial, run, exact, dtype, f"with {point} in {short(dtype)}", eps, widened)
    if not generic and run.finite:
        exact = trial.run(widened)
    if not exact.finite:
        return None
    scale = trial.measure_scale(widened)
    at_points = [name for name, recipe in trial.case.tensors.items() if recipe.point is not None]
    domains = [trial.spec.tensors[name].domain for name in at_points] if dtype == torch.float32 else []
    reaches_far = any(LARGE < max(abs(d.low), abs(d.high)) < math.inf for d in domains)
    # Logits may saturate there, and a plain exp of them overflows in float32 only.
    named = reaches_far or any(domain.text == "logits()" for domain in domains)
    if not named and _largest_met(trial, widened) * tolerance.RANGE_MARGIN > torch.finfo(dtype).max:
        return None
    where = f"with {point} in {short(dtype)}"
    found = (
        _not_finite(run, exact, dtype, where, reaches_far)
        if not run.finite
        else _inaccurate(run, exact, dtype, where, eps, scale, floor)
    )
    return None if found is None else replace(found, tensors=tensors, code=_PRECISION_CODE)


def _largest_met(trial: Trial, tensors: dict[str, Tensor]) -> float:
    """The largest number met on the way, whether it counts or stands for minus infinity."""
    recorder = Intermediates()
    trial.run(tensors, wrt=(), mode=recorder)
    return recorder.largest


def _not_finite(run: Run, exact: Run, dtype: torch.dtype, where: str, declared: bool) -> Mismatch | None:
    limit = torch.finfo(dtype)
    bad_value = not is_finite(run.output)
    theirs = [g for g in exact.gradients.values() if g is not None and g.numel()]
    needed = float(exact.output.abs().max()) if bad_value else max((float(g.abs().max()) for g in theirs), default=0.0)
    # The gradient of a mean may be made of that of the sum, which is as many times as large as there are elements.
    times = 0 if bad_value else max((g.numel() for g in theirs), default=0)
    found = Mismatch(
        f"loss {where}" if bad_value else f"gradient {where}",
        "NaN or infinite",
        "finite, as in float64",
        aspect=f"finite {short(dtype)}",
        kind="value" if bad_value else "gradient",
        finite=False,
        severity="error" if dtype == torch.float32 else "warning",
        hint=f"in {short(dtype)} what is above {limit.max:.2g} is infinite, what is below {limit.smallest_normal:.1g} may be 0, and differences of large numbers cancel",
    )
    if needed > limit.max and declared:
        return replace(
            found,
            should=f"{needed:.3g}, as in float64, which {short(dtype)} cannot hold",
            aspect=f"range of {short(dtype)}",
            severity=None,
            hint="declare the bounds of what the loss is given in training, or return the logarithm of such numbers",
        )
    return found if needed * max(tolerance.RANGE_MARGIN, times) <= limit.max else None


def _inaccurate(
    run: Run, exact: Run, dtype: torch.dtype, where: str, eps: float, scale: Scale, floor: float
) -> Mismatch | None:
    value, should = run.output.double().reshape(-1), exact.output.double().reshape(-1)
    off = (value - should).abs()
    largest, least = float(should.abs().max()), torch.finfo(dtype).smallest_normal
    allowed = tolerance.forward_error(eps, largest, scale.condition) + least
    worst = int(off.argmax())
    if float(off[worst]) <= allowed:
        return None
    explained = float(off[worst]) <= tolerance.forward_error(eps, min(scale.intermediate, floor), 0.0)
    return replace(
        differing(f"loss {where}", float(value[worst]), float(should[worst]), float(off[worst]), allowed),
        aspect=f"accuracy {short(dtype)}",
        severity="note" if explained else "warning",
        hint="accumulate in float32, subtract before squaring, and use logsumexp, log1p, softplus where they fit",
    )


def _inaccurate_gradient(
    trial: Trial, run: Run, exact: Run, dtype: torch.dtype, where: str, eps: float, widened: dict[str, Tensor]
) -> Mismatch | None:
    """A gradient that has lost digits where the value has not, by more than it moves where inputs and intermediates are rounded.

    That of a cosine with itself is a difference of equal numbers, and that of exp(z) is off by eps |z| of itself, however
    they are computed; what is lost in the backward alone is a defect.

    Elements are held to the largest one: what is small beside it, as 1 - p of a probability near 1, moves no weight.  Nor does
    what would change the loss by less than a rounding of float32 if x changed by as much as it is, |x_i| |error_i| <= c eps |L|:
    where terms of a gradient cancel in all cases, as of a cosine with itself, a backward in float32 leaves that much, and a
    kernel shows no intermediates that could be rounded.  Where all of the gradient cancels, in float64 as well, it has no digits
    to lose: the loss may be zero too, and a rounding of the largest intermediate in the dtype itself takes its place.
    """
    pairs = {n: (run.gradients.get(n), g) for n, g in exact.gradients.items() if g is not None and g.numel()}
    largest = max((float(g.abs().max()) for _, g in pairs.values()), default=0.0)
    off = {n: (g.double() if mine is None else mine.double() - g).abs() for n, (mine, g) in pairs.items()}
    name = max(off, key=lambda n: float(off[n].max()), default="")
    allowed = tolerance.forward_error(eps, largest, 0.0) + torch.finfo(dtype).smallest_normal
    if not name:
        return None
    size = float(widened[name].detach().abs().max())
    single = tolerance.forward_error(tolerance.eps_of(torch.float32), 1.0, 0.0) / size if size else 0.0
    allowed += single * float(exact.output.abs().sum())
    if float(off[name].max()) <= allowed:
        return None
    intermediate = trial.measure_scale(widened).intermediate
    if size and largest * size <= tolerance.same_intermediate(tolerance.EPS64) * intermediate:
        allowed += tolerance.forward_error(eps, 1.0, 0.0) / size * intermediate
    index = element_index(int(off[name].argmax()), off[name].shape)
    worst = float(off[name][index])
    moved = 0.0
    for change in _moved_by_rounding(trial, widened, exact, eps):
        moved = max(moved, tolerance.LOW_PRECISION_FACTOR * change)
        if worst <= allowed + moved:
            return None
    if _largest_met(trial, widened) * tolerance.RANGE_MARGIN > torch.finfo(dtype).max:
        return None  # the dtype cannot hold what is met on the way, as a product of sums at large sizes: no digits are lost
    mine, theirs = pairs[name]
    came = 0.0 if mine is None else float(mine[index])
    element = f"d loss / d {name}{list(index) if index else ''}"
    found = differing(f"{element} {where}", came, float(theirs[index]), worst, allowed + moved)
    half_of_its_digits = tolerance.same_gradient(eps) * largest
    is_another = moved <= half_of_its_digits < worst - moved
    is_another = is_another and not _comes_of_rounding(trial, dtype, name, worst)
    return replace(
        found,
        aspect=f"{'another gradient' if is_another else 'gradient'} {short(dtype)}",
        severity="error" if is_another else None,
        kind="gradient",
        tensor=name,
        tensors=trial.tensors(dtype),
        code=_PRECISION_CODE,
        hint=_IN_ONE_DTYPE.format(short(dtype)) if is_another else _CANCELS,
    )


_IN_ONE_DTYPE = "the value is right: look for what the backward does in {} alone, a branch or a kernel of its own"
_CANCELS = (
    "the value is right: look in the backward for a difference of large numbers, or for a square root or a quotient of "
    "what is nearly 0, and compute it in float32 or without the difference"
)


def _comes_of_rounding(trial: Trial, dtype: torch.dtype, name: str, off: float) -> bool:
    """Whether float32 is off too by as much less as it rounds less, as where a backward cancels; a branch on a dtype is not."""
    if dtype == torch.float32 or torch.float32 not in asked(trial):
        return dtype != torch.float32
    tensors = trial.tensors(torch.float32)
    try:
        came, should = trial.run(tensors).gradients[name], trial.run(trial.widened(tensors)).gradients[name]
    except LossRaised:
        return True
    if came is None or should is None:
        return True
    shown = float((came.double() - should).abs().nan_to_num(math.inf).max())
    times = tolerance.eps_of(dtype) / tolerance.eps_of(torch.float32)
    return tolerance.LOW_PRECISION_FACTOR * times * shown >= off


def _moved_by_rounding(trial: Trial, tensors: dict[str, Tensor], exact: Run, eps: float) -> Iterator[float]:
    """The most that an element of the gradient moves where inputs and intermediates are rounded, in one way after another."""
    for salt in range(81, 81 + 2 * _ROUNDINGS):
        generator = trial.generator(salt)
        intermediates = Rounded(eps, generator) if salt >= 81 + _ROUNDINGS else None
        rounded = {
            n: t * (1 + eps * directions(t, generator)) if t.is_floating_point() else t.clone()
            for n, t in tensors.items()
        }
        try:
            gradients = trial.run(rounded, mode=intermediates).gradients
        except LossRaised:
            yield math.inf  # a bound was passed
            return
        pairs = [(gradient, exact.gradients[name]) for name, gradient in gradients.items()]
        moved = [(g - before).abs() for g, before in pairs if g is not None and before is not None and g.numel()]
        yield max((float(torch.nan_to_num(m, math.inf).max()) for m in moved), default=0.0)


_PRECISION_CODE = """
    exact = {n: t.detach().double().requires_grad_(t.requires_grad) if t.is_floating_point() else t for n, t in tensors.items()}
    for given in (tensors, exact):
        value = total(loss(**given))
        value.backward()
        print(value.dtype, value.item(), [t.grad for t in given.values() if t.requires_grad])
"""


RULES = (
    Rule(
        code="D02",
        title="low precision is as accurate as the condition number allows",
        draws_anew="another dtype draws other numbers",
        group="dtypes",
        severity="warning",
        check=low_precision_is_as_accurate_as_the_condition_allows,
        applies=has_float,
        regimes={"distinct": 2, "unit": 1},
        smooth=True,
        remarks=(not_finite_in_low_precision,),
        comes_again=True,
        why="A loss that is right in float64 gives NaN or noise in the dtype in which it is trained.",
        example="d2 = (a * a).sum(-1) + (b * b).sum(-1) - 2 * (a * b).sum(-1)   # cancels, may be negative: sqrt gives NaN",
        mend="Use forms that do not cancel or overflow: (a - b) first, logsumexp, log1p, an epsilon that the dtype can hold.",
        source="Higham, Accuracy and Stability of Numerical Algorithms, chapters 1 to 3.",
    ),
)
