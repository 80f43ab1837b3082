"""The rule that value and gradient are finite at special points: G08."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from harness.calls.evaluation import LossRaised
from harness.declare import domains, inline
from harness.drawing.case import Case
from harness.errors import NotApplicable, told_in_a_line
from harness.rules.gradients.cut_off import gradient_code
from harness.rules.rule import Kind, Mismatch, Rule
from harness.rules.shapes.broadcasting import unit_symbols
from harness.rules.tools.remarks import first_not_finite
from harness.rules.tools.sizes import equally_sized
from harness.rules.tools.special import nothing_counts, special_cases, with_everything_counted, with_one_left_out
from harness.rules.trial import Trial, describe, is_finite

# What is left of a domain without the points at which logarithms, roots and quotients of it are singular.
_WITHOUT_ENDS = {
    "real()": domains.positive(),
    "nonnegative()": domains.positive(),
    "probability()": domains.interval(0.01, 0.99),
}


def special_points_are_finite(trial: Trial) -> Iterator[Mismatch]:
    """Value and gradient are finite wherever the domains allow the inputs to be.

        |L(x)| < inf and |dL/dx_i| < inf   at zeros, ties, one-hot, constant, saturated, empty, ...

    Where a mask, weight or ignored label leaves nothing to count, 0/0 is a convention and a warning only; where it leaves one
    element out and others count, it is none.
    """
    if unit_symbols(trial.spec, trial.case) and not trial.base.finite:
        raise NotApplicable("not finite on a size of one; see B05")
    yield from _finite_at(trial, "a generic case", trial.case)
    if trial.case.regime == "distinct" and not trial.exhaustive:
        return
    for point, case in special_cases(trial.spec, trial.case):
        yield from _finite_at(trial, point, case)


def _finite_at(trial: Trial, point: str, case: Case) -> Iterator[Mismatch]:
    moved = trial.at(case)
    try:
        run = moved.base
    except LossRaised as raised:
        if point != "a generic case" and not _nothing_counted(moved):
            yield _raises_at(moved, point, raised)
        return
    if run.finite:
        return
    convention = _nothing_counted(moved)
    name = next((n for n, g in run.gradients.items() if g is not None and not is_finite(g)), None)
    kind: Kind = "gradient" if is_finite(run.output) else "value"
    came = run.output if kind == "value" else run.gradients[str(name)]
    assert came is not None
    worst = came.reshape(-1)[~came.reshape(-1).isfinite()][0]
    yield Mismatch(
        f"{'loss' if kind == 'value' else f'd loss / d {name}'} with {point}",
        describe(float(worst)),
        "finite",
        aspect="nothing counted" if convention else kind,
        kind=kind,
        tensor=name or "",
        finite=False,
        severity="warning" if convention else None,
        tensors=moved.tensors(),
        code=gradient_code(name or next(iter(trial.spec.differentiable), "")),
        hint=_finite_hint(moved, convention),
    )


def _finite_hint(moved: Trial, convention: bool) -> str:
    if convention:
        return "nothing is counted here: return 0 with a zero gradient, or require it with LossSpec(requires={'G08'}) once mended"
    # Of two that are equal, neither domain is too wide.
    at_point = [name for name, recipe in moved.case.tensors.items() if recipe.point]
    line = next(filter(None, (_narrower(moved, name) for name in at_point)), "")
    narrow = f"; if this input is not legal, narrow the domain: {line}" if line else ""
    return f"keep the argument of sqrt, log, pow or / off its singular point before the operation, not after it{narrow}"


def _narrower(moved: Trial, name: str) -> str:
    """The tensor's declaration without the ends of its domain, where the loss is finite inside; empty where that is no help."""
    spec, tensors = moved.spec, moved.tensors()
    domain = _WITHOUT_ENDS.get(spec.tensors[name].domain.text)
    if domain is None:
        return ""
    try:
        if not moved.run({**tensors, name: domain.interior(tensors[name])}).finite:
            return ""
    except LossRaised:
        return ""
    tensor = replace(spec.tensors[name], domain=domain)
    return f'"{name}: {inline.tensor_text(tensor)}"' if spec.is_inline else f"{name!r}: {tensor!r}"


def _raises_at(trial: Trial, point: str, raised: LossRaised) -> Mismatch:
    return Mismatch(
        f"loss with {point}",
        told_in_a_line(raised.error),
        "a number",
        error=raised.error,
        aspect="raises",
        tensors=trial.tensors(),
        code="print(loss(**tensors))",
        hint="if this input is not legal, narrow its domain in the declaration",
    )


def _nothing_counted(trial: Trial) -> bool:
    """Whether the trouble goes away when the tensors that leave all of some slice out count everything.

    Nor may it be there where others count beside one that is left out: at the zero of a target whose logarithm is taken nothing
    is missing.
    """
    spec, tensors = trial.spec, trial.tensors()
    if not nothing_counts(spec, trial.case, tensors):
        return False
    try:
        if not trial.run(with_everything_counted(spec, tensors)).finite:
            return False
        with contextlib.suppress(NotApplicable):
            larger = equally_sized(trial, 3)
            return all(
                larger.run(one).finite
                for one in with_one_left_out(spec, tensors, larger.tensors())
                if not nothing_counts(spec, larger.case, one)
            )
    except LossRaised:
        return False
    return True


RULES = (
    Rule(
        code="G08",
        title="value and gradient are finite at every special point",
        group="gradients",
        severity="error",
        check=special_points_are_finite,
        regimes={"distinct": 4, "coincident": 1, "unit": 2},
        remarks=(first_not_finite,),
        why="One zero row or tie gives NaN gradients, the optimizer writes NaN into every weight, and training is lost.",
        example="distance = ((a - b) ** 2).sum(-1).sqrt()    # derivative 1/(2 sqrt(0)) * 0 = NaN where a = b",
        mend="Guard the argument (the 'double where'): `safe = torch.where(d2 > 0, d2, 1)`, then sqrt, then where again.",
        source="pytorch/pytorch#4132; 'Nan gradients and the double-where trick', TensorFlow issue 2540.",
    ),
)
