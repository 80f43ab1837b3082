"""Rules that hold a candidate to the reference: E01, E02, E03, E04."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from harness.calls import tolerance
from harness.calls.evaluation import LossRaised
from harness.declare.spec import ONE_BACKWARD, LossSpec
from harness.errors import Hidden, NotApplicable
from harness.rules.dtypes.kept import asked, short
from harness.rules.gradients.cut_off import element, interior
from harness.rules.gradients.second_order import Curvature, Refused, curvature, off_its_differences
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools.compare import has_its_digits, same_gradients, same_output
from harness.rules.tools.cuts import who_cuts
from harness.rules.tools.remarks import beside_the_reference, lost_values
from harness.rules.tools.slopes import element_index
from harness.rules.tools.special import near_cases, special_cases, standardised_far
from harness.rules.trial import Run, Scale, Trial, describe, is_finite

LOW = (torch.float32, torch.bfloat16, torch.float16)
NEAR_POINTS = 2
STEPS = 2  # the second begins with what the first has kept


def _points(trial: Trial) -> Iterator[tuple[str, Trial]]:
    yield "", trial
    if trial.exhaustive:
        for point, case in special_cases(trial.spec, trial.case):
            yield f" with {point}", trial.at(case)


def _reference(trial: Trial) -> Trial:
    return trial.of(trial.spec.reference)


def scale_beside(trial: Trial) -> Scale:
    """What rounding may do to the reference, and to a candidate that computes in another precision."""
    return _reference(trial).scale.with_eps(trial.eps)


def _steps(trial: Trial) -> Iterator[tuple[str, Run, Run]]:
    """(which, what the reference gives, what the candidate gives) for steps in train() of an instance of each.

    Statistics that are kept on purpose act there, and in eval() they are what they began as.
    """
    both = (_reference(trial), trial)
    if not trial.spec.stateful or not all(one.candidate.is_module for one in both):
        return
    built = [one.candidate.build(one.tensors(), train=True) for one in both]
    for step in range(1, STEPS + 1):
        try:
            should, came = (one.run(one.tensors(), built=instance) for one, instance in zip(both, built, strict=True))
        except LossRaised:
            return  # S03 says so
        yield f" in train() mode, step {step} of one instance", should, came


def value_equals_the_reference(trial: Trial) -> Mismatch | None:
    """The value is that of the reference, up to the rounding that the condition number allows (float64).

    |L(x) - L_ref(x)| <= tol (|L_ref| + sum_i |x_i dL_ref/dx_i|)

    Where buffers keep running statistics on purpose, so are the first steps in train() of an instance of each.
    """
    for point, moved in _points(trial):
        reference = _reference(moved)
        try:
            should, came = reference.value, moved.value
        except LossRaised:
            if not point:
                raise
            continue
        if not is_finite(should):
            continue  # where the reference has no number, there is nothing to equal
        mismatch = same_output(came, should, scale_beside(moved))
        if mismatch is not None:
            return replace(
                mismatch,
                where=f"{mismatch.where}{point}",
                tensors=moved.tensors(),
                code="print('candidate:', loss(**tensors), ' reference:', reference(**tensors))",
                hint="one of the two is another function; compare both with the formula at this input",
            )
    for step, theirs, ours in _steps(trial):
        mismatch = same_output(ours.output, theirs.output, scale_beside(trial)) if theirs.finite else None
        if mismatch is not None:
            return replace(
                mismatch,
                where=f"{mismatch.where}{step}",
                aspect="train",
                tensors=trial.tensors(),
                code=_STEPS_CODE,
                hint="compare what each keeps, and whether it is read before or after it is brought up to date",
            )
    return None


_STEPS_CODE = f"""
    for made, called in ((build, call), (build_reference, call_reference)):
        instance = made(**tensors).train()
        for step in range({STEPS}):
            value = total(called(instance, **tensors))
            wrt = [t for t in tensors.values() if t.requires_grad]
            print(value, torch.autograd.grad(value, wrt, allow_unused=True) if value.requires_grad else None)
"""


def gradient_equals_the_reference(trial: Trial) -> Mismatch | None:
    """The gradient is that of the reference; at a kink both may be any subgradient (float64).

    dL/dx = dL_ref/dx

    In train() too where the value is asked there.
    """
    for point, moved in _points(trial):
        mismatch = _gradient_differs(moved, point)
        if mismatch is not None:
            return mismatch
    for step, should, came in _steps(trial):
        if not should.finite or same_output(came.output, should.output, scale_beside(trial)) is not None:
            break
        tensors, reference = trial.tensors(), _reference(trial)
        mismatch = same_gradients(came.gradients, should.gradients, tensors, reference, scale_beside(trial))
        if mismatch is not None:
            hint = "the value is right and the gradient is not: detach what is kept, and what it is brought up to date with"
            where = f"{mismatch.where}{step}"
            return replace(mismatch, where=where, aspect="train", tensors=tensors, code=_STEPS_CODE, hint=hint)
    return None


def _gradient_differs(trial: Trial, point: str) -> Mismatch | None:
    reference = _reference(trial)
    try:
        should, came = reference.base, trial.base
    except LossRaised:
        if not point:
            raise
        return None
    if not should.finite or not bool(came.output.isfinite().all()):
        return None
    if same_output(came.output, should.output, scale_beside(trial)) is not None:
        if point:
            return None
        raise Hidden("the values differ already; see E01")
    mismatch = gradients_off(trial, came, should)
    return mismatch and replace(
        mismatch,
        where=f"{mismatch.where}{point}",
        tensors=trial.tensors(),
        code="""
        for function in (loss, reference):
            value = total(function(**tensors))
            wrt = [t for t in tensors.values() if t.requires_grad]
            print(torch.autograd.grad(value, wrt, allow_unused=True) if value.requires_grad else None)
        """,
        hint="the values agree and the gradients do not: look for detach, no_grad, in-place edits or a custom backward in either",
    )


def gradients_off(trial: Trial, came: Run, should: Run) -> Mismatch | None:
    """Where the gradient is not the reference's, which is finite; what agrees nearby is two choices at a tie."""
    reference = _reference(trial)
    coarser = trial if trial.eps > reference.eps else reference
    mismatch = same_gradients(
        came.gradients, should.gradients, reference.tensors(), reference, scale_beside(trial), coarser
    )
    if mismatch is None or not came.finite:
        return mismatch
    nearby = trial.nudged(trial.tensors())
    wide = reference.widened(nearby)
    should, came = reference.run(wide), trial.run(nearby)
    scale = reference.measure_scale(wide).with_eps(trial.eps)
    again = same_gradients(came.gradients, should.gradients, wide, reference, scale, coarser)
    return None if again is None else mismatch


def second_derivative_equals_the_reference(trial: Trial) -> Mismatch | None:
    """The second derivative is that of the reference, where both have one (float64, generic points).

    H u = H_ref u,   u_i = +-1

    One that is not finite, beside a gradient that is, shows itself where it is taken, and is a warning.
    """
    tensors = interior(trial)
    mismatch = _curvatures_differ(trial, tensors)
    if mismatch is None or _curvatures_differ(trial, trial.nudged(tensors)) is None:
        return None
    reference = _reference(trial)
    if off_its_differences(reference, _curvature(reference, tensors)) is not None:
        raise NotApplicable("the reference's own second derivative is wrong; see G03")
    return mismatch


def _curvature(trial: Trial, tensors: Mapping[str, Tensor]) -> Curvature:
    try:
        return curvature(trial, {name: tensor.clone() for name, tensor in tensors.items()})
    except Refused as refused:
        raise NotApplicable(f"{trial.implementation} refuses a second derivative: {refused}") from refused


def _curvatures_differ(trial: Trial, tensors: Mapping[str, Tensor]) -> Mismatch | None:
    reference = _reference(trial)
    should, came = _curvature(reference, tensors), _curvature(trial, tensors)
    eps = max(trial.eps, reference.eps)
    rounding = tolerance.same_intermediate(eps) * max(1.0, reference.scale.intermediate)
    for name, theirs in should.gradients.items():
        largest = float(theirs.abs().max())
        if not bool(((came.gradients[name] - theirs).abs() <= tolerance.SLOPE_RELATIVE * largest + rounding).all()):
            raise Hidden("the gradients differ already; see E02")
    for name, theirs in should.products.items():
        off = torch.where(theirs.isfinite(), (came.products[name] - theirs).abs().nan_to_num(math.inf), 0.0)
        allowed = tolerance.SLOPE_RELATIVE * float(theirs.abs().nan_to_num(0, 0, 0).max()) + rounding
        index = element_index(int(off.argmax()), off.shape)
        if float(off[index]) > allowed:
            is_finite = bool(came.products[name].isfinite().all())
            return Mismatch(
                f"derivative of {element(name, index)} along a direction of +-1",
                describe(float(came.products[name][index])),
                describe(float(theirs[index])),
                float(off[index]),
                allowed,
                kind="gradient",
                tensor=name,
                tensors=tensors,
                code=_second_code(trial),
                hint=_SILENT if is_finite else _NOT_FINITE,
                severity=None if is_finite else "warning",
                finite=is_finite,
                note="" if came.on_graph else "the gradient is a constant to autograd",
            )
    return None


_SILENT = "value and gradient are right: the backward is a number, or a function of something saved without a graph"
_NOT_FINITE = (
    "value and gradient are right and finite, so that only gradient penalties and Hessians meet this: torch's own second "
    "derivative of logaddexp is NaN beside a stand-in for -inf such as -1e30, that of a norm at 0"
)


def _second_code(trial: Trial) -> str:
    return f"""
        for function in (loss, reference):
            wrt = [tensors[name] for name in {list(trial.spec.differentiable)!r}]
            first = torch.autograd.grad(total(function(**tensors)), wrt, create_graph=True, materialize_grads=True)
            slope = sum((g * torch.arange(1, g.numel() + 1).double().square().sin().sign().reshape(g.shape)).sum() for g in first)
            print(torch.autograd.grad(slope, wrt, materialize_grads=True) if slope.requires_grad else "constant")
    """


def low_precision_is_no_less_accurate_than_the_reference(trial: Trial) -> Iterator[Mismatch]:
    """In float32, bfloat16 and float16 the value is as near to the float64 one as the reference's, up to a few times.

        |L_low(x) - L_64(x)| <= 4 |L_ref,low(x) - L_64(x)| + c eps (|L| + sum_i |x_i dL/dx_i| + max|intermediate of L_ref|)

    x is rounded to the low precision first.  Special points are tried too, where a rewrite leaves the range of a dtype and the
    reference stays far within: exp(-w^2/2) is 0 in float32 where w = x / s is 15, and log(0) is not finite; so are two inputs
    that nearly coincide, where |x|^2 + |y|^2 - 2 x y for |x - y|^2 loses its digits.
    Source: Higham, Accuracy and Stability of Numerical Algorithms, section 1.6.
    """
    points = [("generic values", trial.case)]
    if trial.exhaustive:
        points += standardised_far(trial.spec, trial.case)
        points += special_cases(trial.spec, trial.case)
        points += islice(near_cases(trial.spec, trial.case), NEAR_POINTS)
    for dtype in (d for d in LOW if d in asked(trial)):
        for point, case in points:
            mismatch = _less_accurate(trial.at(case), dtype, point)
            if mismatch is not None:
                yield mismatch
                break


def _less_accurate(trial: Trial, dtype: torch.dtype, point: str) -> Mismatch | None:
    reference, limit = _reference(trial), torch.finfo(dtype)
    if reference.eps > limit.eps:
        return None  # it is no measure of digits that it does not have itself
    tensors = trial.tensors(dtype)
    widened = {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}
    eps = max(limit.eps, trial.eps)  # of what it computes in, where that is coarser: see D05
    try:
        ours, own = trial.run(tensors, wrt=()).output, trial.run(trial.widened(tensors), wrt=()).output
        if has_its_digits(ours, own, eps):
            return None  # and so needs no measure; that the wide value is the reference's is E01's
        exact, theirs = reference.run(widened, wrt=()).output, reference.run(tensors, wrt=()).output
    except LossRaised:
        return None  # a loss that raises in a precision is D01's
    if exact.shape != ours.shape or not bool(exact.isfinite().all()) or not exact.numel():
        return None
    off, theirs_off = (float((run.double() - exact).abs().max()) for run in (ours, theirs))
    if not math.isfinite(theirs_off) or off <= tolerance.LESS_ACCURATE * theirs_off:
        return None  # where the reference has no number either, it is no measure
    scale = reference.measure_scale(widened)
    size = float(exact.abs().max())
    allowed = tolerance.LESS_ACCURATE * theirs_off + limit.smallest_normal
    allowed += tolerance.forward_error(eps, size + scale.intermediate, scale.condition)
    if off <= allowed or same_output(own, exact, scale.with_eps(trial.eps)) is not None:
        return None  # where the two differ in float64 they are two functions; see E01
    if not math.isfinite(off) and scale.intermediate * tolerance.RANGE_MARGIN > limit.max:
        return None  # the reference is near the end of the range itself
    worst = int((ours.double() - exact).abs().nan_to_num(math.inf).argmax())
    return Mismatch(
        f"loss with {point} in {short(dtype)}",
        describe(float(ours.double().reshape(-1)[worst])),
        f"{float(exact.reshape(-1)[worst]):.6g}, from which the reference is {theirs_off:.2g} off",
        off,
        allowed,
        aspect=f"accuracy {short(dtype)}",
        kind="value",
        size=size + scale.intermediate + scale.condition,
        finite=math.isfinite(off),
        tensors=tensors,
        code="""
        exact = {n: t.detach().double() if t.is_floating_point() else t for n, t in tensors.items()}
        print("float64:", reference(**exact), " reference:", reference(**tensors), " candidate:", loss(**tensors))
        """,
        hint="subtract before squaring, accumulate in float32 or wider, use logsumexp, log1p, softplus where they fit",
    )


def is_candidate(spec: LossSpec, name: str) -> str | None:
    """Why an implementation is held to no reference; ``None`` where it is."""
    if spec.role(name) == "reference":
        return "it is the reference"
    if len(spec.implementations) < 2:
        return "there is no reference implementation"
    unbiased = any(law.code == "L15" for law in spec.laws)
    return "laws.unbiased() is declared: L15 holds its mean over the draws to the reference" if unbiased else None


RULES = (
    Rule(
        code="E01",
        title="value equals the reference",
        group="equivalence",
        severity="error",
        check=value_equals_the_reference,
        applies=is_candidate,
        regimes={"distinct": 8, "coincident": 3, "unit": 4, "large": 2},
        remarks=(beside_the_reference, lost_values),
        why="A 'vectorized' rewrite is not the same function.",
        example="(weights * error).mean()      # the loop divided by weights.sum()",
        mend="Compare both with the formula at the smallest input shown.",
        source="Differential testing: McKeeman, Digital Technical Journal 10(1), 1998.",
    ),
    Rule(
        code="E02",
        title="gradient equals the reference",
        group="equivalence",
        severity="error",
        check=gradient_equals_the_reference,
        applies=is_candidate,
        regimes={"distinct": 8, "coincident": 3, "unit": 4, "large": 2},
        measures_gradient=True,
        remarks=(who_cuts, lost_values),
        why="The values agree and the training does not.",
        example="z = z / z.norm(dim=-1, keepdim=True).detach()",
        mend="Find the detach, in-place edit or custom backward.",
        source="Differential testing: McKeeman, Digital Technical Journal 10(1), 1998.",
    ),
    Rule(
        code="E03",
        title="second derivative equals the reference",
        group="equivalence",
        severity="error",
        check=second_derivative_equals_the_reference,
        applies=lambda spec, name: is_candidate(spec, name) or (ONE_BACKWARD if spec.once else None),
        regimes={"distinct": 1, "coincident": 1},
        smooth=True,
        why="A fast backward gives the right gradient, and a gradient penalty through it trains on something else.",
        example="ctx.save_for_backward(gradient)      # computed in forward: backward returns a constant",
        mend="Compute the gradient in backward from saved inputs, or refuse by `@once_differentiable`.",
        source="PyTorch, 'Double Backward with Custom Functions'.",
    ),
    Rule(
        code="E04",
        title="in low precision no less accurate than the reference",
        draws_anew="another dtype draws other numbers",
        group="equivalence",
        severity="warning",
        check=low_precision_is_no_less_accurate_than_the_reference,
        applies=is_candidate,
        regimes={"distinct": 2, "large": 1},
        smooth=True,
        comes_again=True,
        why="The rewrite is the same function on paper, and noise in the precision in which it is trained.",
        example="d2 = (x * x).sum(-1) + (y * y).sum(-1) - 2 * (x * y).sum(-1)      # for ((x - y) ** 2).sum(-1)",
        mend="Keep the order of operations that does not cancel, or do that part in float32 or float64.",
        source="Higham, Accuracy and Stability of Numerical Algorithms, section 1.6.",
    ),
)
