"""The ordinal losses of deepordinal, declared as its documentation says, beside their formulas.

Source: https://github.com/nhirons/deepordinal
"""

from __future__ import annotations

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require

package = require("deepordinal.torch")

SCORES = {"logits": TensorSpec("B"), "targets": TensorSpec("B", domains.index("K"))}
THRESHOLDS = {"thresholds": TensorSpec("K-1", domains.sorted_along(0))}
PENALTIES = {
    "hinge": "relu(1 - z)",
    "smooth_hinge": "((0 if z >= 1 else (1 - z)**2 / 2) if z > 0 else 0.5 - z)",
    "modified_least_squares": "relu(1 - z)**2",
    "logistic": "softplus(-z)",
}
# f(theta - z) of thresholds at or above the class, f(z - theta) of those below it: of all, or of the two next to it.
CONSTRUCTIONS = {
    "all": "sum(sum({} for l in range(K - 1) for z in [(-1 if l < targets[b] else 1) * (thresholds[l] - logits[b])]) "
    "for b in B) / B",
    "immediate": "sum(sum({} for l in range(K - 1) if l == targets[b] or l + 1 == targets[b] "
    "for z in [(-1 if l < targets[b] else 1) * (thresholds[l] - logits[b])]) for b in B) / B",
}
ENERGY = "means[k] * logits[b] + {} - means[k]**2 / 2"


def ordistic(variant: str = "", prior: str = "0") -> LossSpec:
    """The ordistic loss of B scores under K classes, with the logarithms of priors where they are named."""
    inputs = {**SCORES, "means": TensorSpec("K")} | ({"log_priors": TensorSpec("K")} if variant else {})
    energies = f"[{ENERGY.format(prior)} for k in K]"
    return LossSpec(
        f"deepordinal.ordistic_loss{variant}",
        {"deepordinal": package.ordistic_loss},
        inputs=inputs,
        context={},
        output=TensorSpec(""),
        differentiable=[name for name in inputs if name != "targets"],
        formula=f"mean(logsumexp(e) - e[targets[b]] for b in B for e in [{energies}])",
        laws=(laws.nonnegative(), laws.mean_over("B")),
    )


SPECS = (
    *(
        LossSpec(
            f"deepordinal.ordinal_loss-{construction}_{penalty}",
            {"deepordinal": package.ordinal_loss},
            inputs={**SCORES, **THRESHOLDS},
            context={},
            output=TensorSpec(""),
            options={"construction": construction, "penalty": penalty},
            differentiable=("logits", "thresholds"),
            formula=formula.format(margin),
            laws=(laws.nonnegative(), laws.mean_over("B")),
        )
        for construction, formula in CONSTRUCTIONS.items()
        for penalty, margin in PENALTIES.items()
    ),
    ordistic(),
    ordistic("-priors", "log_priors[k]"),
)
