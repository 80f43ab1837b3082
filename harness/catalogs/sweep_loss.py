"""The misfits of sweep-loss for waveforms, declared as its documentation says, beside their formulas.

Source: https://pypi.org/project/sweep-loss/
"""

from __future__ import annotations

from harness import LossSpec, TensorSpec, laws
from harness.catalogs import require
from harness.declare.laws import Law

package = require("sweep_loss")

EACH = "for s in S for t in T for r in R"
RESIDUAL = f"{EACH} for d in [syn[s, t, r] - obs[s, t, r]]"
TRACES = (
    "for s in S for r in R for x in [[syn[s, t, r] for t in T]] for y in [[obs[s, t, r] for t in T]] "
    "for n in [max(norm(x), 1e-12)] for m in [max(norm(y), 1e-12)]"
)
NONNEGATIVE = laws.nonnegative()
ZERO = laws.zero_when_equal("syn", "obs")
OF_ELEMENTS = (laws.mean_over("S"), laws.mean_over("R"), laws.mean_over("T"), NONNEGATIVE, ZERO)
SYMMETRIC = laws.symmetric("syn", "obs")


def spec(name: str, formula: str, *further: Law, variant: str = "", **options: object) -> LossSpec:
    """One misfit of S shots, T steps of time and R receivers."""
    return LossSpec(
        f"sweep_loss.{name}{variant}",
        {"sweep_loss": getattr(package, name)},
        inputs={"syn": TensorSpec("S T R"), "obs": TensorSpec("S T R")},
        output=TensorSpec(""),
        options=options,
        formula=formula,
        laws=(laws.permutation("T"), *further),
    )


SPECS = (
    spec("L1Loss", f"mean(abs(d) {RESIDUAL})", *OF_ELEMENTS, SYMMETRIC),
    spec("L2Loss", f"mean(d**2 / 2 {RESIDUAL})", *OF_ELEMENTS, SYMMETRIC),
    spec(
        "HuberLoss",
        f"mean(d**2 / 2 if abs(d) <= delta else delta * (abs(d) - delta / 2) {RESIDUAL})",
        *OF_ELEMENTS,
        SYMMETRIC,
        delta=0.5,
    ),
    spec(
        "PseudoHuberLoss",
        f"mean(delta**2 * (sqrt(1 + (d / delta)**2) - 1) {RESIDUAL})",
        *OF_ELEMENTS,
        SYMMETRIC,
        delta=0.5,
    ),
    spec("CauchyLoss", f"mean(c**2 / 2 * log1p((d / c)**2) {RESIDUAL})", *OF_ELEMENTS, SYMMETRIC, c=0.5),
    spec(
        "TukeyLoss",
        f"mean(c**2 / 6 * (1 - (1 - (d / c)**2)**3 if abs(d) <= c else 1) {RESIDUAL})",
        *OF_ELEMENTS,
        SYMMETRIC,
        c=2.0,
    ),
    spec("GemanMcClureLoss", f"mean(c**2 * (d / c)**2 / (1 + (d / c)**2) {RESIDUAL})", *OF_ELEMENTS, SYMMETRIC, c=2.0),
    spec(
        "StudentTLoss",
        f"mean((nu + 1) / 2 * log1p((d / sigma)**2 / nu) {RESIDUAL})",
        *OF_ELEMENTS,
        SYMMETRIC,
        nu=3.0,
        sigma=0.5,
    ),
    spec(
        "StudentTLoss",
        f"mean((nu + 1) / 2 * log1p((d / sigma)**2 / nu) + lgamma(nu / 2) - lgamma((nu + 1) / 2) "
        f"+ log(3.141592653589793 * nu * sigma**2) / 2 {RESIDUAL})",
        laws.mean_over("S"),
        SYMMETRIC,
        variant="-full_nll",
        nu=3.0,
        sigma=0.5,
        full_nll=True,
    ),
    spec(
        "GlobalCorrelationLoss",
        f"mean(1 - dot(x, y) / (n * m) {TRACES})",
        laws.mean_over("S"),
        laws.mean_over("R"),
        SYMMETRIC,
    ),
    spec(
        "TraceNormalizedL2Loss",
        f"mean(sum((x[t] / n - y[t] / m)**2 for t in T) / (2 * T) {TRACES})",
        laws.mean_over("S"),
        NONNEGATIVE,
        ZERO,
        SYMMETRIC,
    ),
)
