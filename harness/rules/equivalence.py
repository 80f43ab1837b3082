"""Rules that hold a candidate to the reference: E01, E02."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from harness.errors import NotApplicable
from harness.evaluation import LossRaised
from harness.rules.compare import same_gradients, same_output
from harness.rules.rule import Mismatch, Rule
from harness.rules.special import special_cases
from harness.rules.trial import Trial
from harness.spec import LossSpec


def _points(trial: Trial) -> Iterator[tuple[str, Trial]]:
    yield "", trial
    if trial.exhaustive:
        for point, case in special_cases(trial.spec, trial.case):
            yield f" with {point}", trial.at(case)


def _reference(trial: Trial) -> Trial:
    return trial.of(trial.spec.reference)


def value_equals_the_reference(trial: Trial) -> Mismatch | None:
    """The value is that of the reference, up to the rounding that the condition number allows (float64).

    |L(x) - L_ref(x)| <= tol (|L_ref| + sum_i |x_i dL_ref/dx_i|)
    """
    for point, moved in _points(trial):
        reference = _reference(moved)
        try:
            should, came = reference.base, moved.base
        except LossRaised:
            if not point:
                raise
            continue
        if not bool(should.output.isfinite().all()):
            continue  # where the reference has no number, there is nothing to equal
        mismatch = same_output(came.output, should.output, *reference.scale)
        if mismatch is not None:
            return replace(
                mismatch,
                where=f"{mismatch.where}{point}",
                tensors=moved.tensors(),
                code="print('candidate:', loss(**tensors), ' reference:', reference(**tensors))",
                hint="one of the two is another function; compare both with the formula at this input",
            )
    return None


def gradient_equals_the_reference(trial: Trial) -> Mismatch | None:
    """The gradient is that of the reference; at a kink both may be any subgradient (float64).

    dL/dx = dL_ref/dx
    """
    for point, moved in _points(trial):
        mismatch = _gradient_differs(moved, point)
        if mismatch is not None:
            return mismatch
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
    if same_output(came.output, should.output, *reference.scale) is not None:
        if point:
            return None
        raise NotApplicable("the values differ already; see E01")
    tensors = trial.tensors()
    mismatch = _gradients_at(trial, tensors)
    if mismatch is None or (should.finite and came.finite and _gradients_at(trial, trial.nudged(tensors)) is None):
        return None  # what agrees at a generic point nearby is two choices at a tie
    return replace(
        mismatch,
        where=f"{mismatch.where}{point}",
        tensors=tensors,
        code="""
        for function in (loss, reference):
            value = total(function(**tensors))
            wrt = [t for t in tensors.values() if t.requires_grad]
            print(torch.autograd.grad(value, wrt, allow_unused=True) if value.requires_grad else None)
        """,
        hint="the value is right and the gradient is not: look for detach, no_grad, in-place edits or a custom backward",
    )


def _gradients_at(trial: Trial, tensors: dict[str, Tensor]) -> Mismatch | None:
    reference = _reference(trial)
    should, came = reference.run(tensors), trial.run(tensors)
    function, intermediate = reference.function(tensors), reference.measure_scale(tensors)[1]
    return same_gradients(trial, came.gradients, should.gradients, tensors, function, intermediate)


def _is_candidate(spec: LossSpec, name: str) -> str | None:
    if spec.role(name) == "reference":
        return "it is the reference"
    return None if len(spec.implementations) > 1 else "there is no reference implementation"


RULES = (
    Rule(
        code="E01",
        title="value equals the reference",
        group="equivalence",
        severity="error",
        check=value_equals_the_reference,
        applies=_is_candidate,
        regimes={"distinct": 8, "coincident": 3, "unit": 4, "large": 2},
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
        applies=_is_candidate,
        regimes={"distinct": 8, "coincident": 3, "unit": 4, "large": 2},
        why="The values agree and the training does not.",
        example="z = z / z.norm(dim=-1, keepdim=True).detach()",
        mend="Find the detach, in-place edit or custom backward.",
        source="Differential testing: McKeeman, Digital Technical Journal 10(1), 1998.",
    ),
)
