"""Rule about a reference that is a formula: E06."""

from __future__ import annotations

from dataclasses import replace

from harness.declare.formulas import Formula
from harness.declare.formulas.evaluating import Evaluator
from harness.declare.formulas.loops import Loops
from harness.declare.formulas.vectors import Vectors
from harness.declare.spec import LossSpec
from harness.errors import NotApplicable
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools.compare import same_gradients, same_output
from harness.rules.trial import Run, Trial


def vectorized_formula_equals_its_loops(trial: Trial) -> Mismatch | None:
    """The form in which a formula is evaluated at large sizes has the value and gradient of the loops that it says.

    vectors(x) = loops(x),   d vectors / dx_i = d loops / dx_i
    """
    formula, options = trial.candidate.implementation, trial.candidate.call_options
    assert isinstance(formula, Formula)

    def run(how: type[Evaluator]) -> Run:
        return trial.run(trial.tensors(), built=lambda **given: formula.evaluated({**given, **options}, how))

    loops, vectors = run(Loops), run(Vectors)
    if not loops.finite:
        raise NotApplicable("the value or gradient is not finite; see G08")
    scale = trial.scale
    found = same_output(vectors.output, loops.output, scale) or same_gradients(
        vectors.gradients, loops.gradients, trial.tensors(), trial, scale
    )
    return found and replace(
        found,
        tensors=trial.tensors(),
        code="print(loss(**tensors))",
        hint="this is a fault of loss-harness; until it is mended, write the reference as a function of loops",
    )


def _is_none(spec: LossSpec, name: str) -> str | None:
    return None if isinstance(spec.implementations[name], Formula) else "it is no formula"


RULES = (
    Rule(
        code="E06",
        title="a formula's vectorized form equals its loops",
        group="equivalence",
        severity="error",
        check=vectorized_formula_equals_its_loops,
        applies=_is_none,
        regimes={"distinct": 4, "coincident": 2, "unit": 1},
        why="A reference that is another function at the sizes where it is timed measures nothing.",
        example="sum(w[b] * p[b] for b in B)                 # with LossSpec(formula=...)",
        mend="Report it, with the formula; write the reference as a function of loops until then.",
        source="Differential testing: McKeeman, Digital Technical Journal 10(1), 1998.",
    ),
)
