"""A table of losses with exactly one defect each, beside their honest twins: what every rule must catch and spare."""

from mutants import (
    broadcasting,
    context,
    costs,
    dtypes,
    equivalence,
    gradients,
    growth,
    history,
    laws,
    overflow,
    precision,
    shapes,
    sharing,
    state,
    weights,
)

PAIRS = (
    *broadcasting.PAIRS,
    *shapes.PAIRS,
    *dtypes.PAIRS,
    *precision.PAIRS,
    *overflow.PAIRS,
    *context.PAIRS,
    *weights.PAIRS,
    *sharing.PAIRS,
    *state.PAIRS,
    *history.PAIRS,
    *gradients.PAIRS,
    *equivalence.PAIRS,
    *laws.PAIRS,
    *costs.PAIRS,
    *growth.PAIRS,
)
