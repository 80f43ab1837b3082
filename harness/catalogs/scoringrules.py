"""The scoring rules of scoringrules on tensors, declared as its documentation says, beside their formulas.

Source: https://github.com/frazane/scoringrules
"""

from __future__ import annotations

from functools import partial
from typing import Any

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require

package = require("scoringrules")

SAMPLES = TensorSpec("B")
SCALES = TensorSpec("B", domains.interval(0.1, 5.0))
WAITS = TensorSpec("B", domains.interval(0.0, 5.0))
PROBABILITIES = TensorSpec("B", domains.interval(0.02, 0.98))
PI = "3.141592653589793"
STANDARD = "for b in B for w in [(obs[b] - mu[b]) / sigma[b]]"
LAPLACE = "for b in B for w in [abs(obs[b] - location[b]) / scale[b]]"
LOGARITHM = "for b in B for w in [(log(obs[b]) - mulog[b]) / sigmalog[b]]"


def spec(
    name: str, formula: str, variant: str = "", laws: tuple[Any, ...] = (), output: str = "B", **more: Any
) -> LossSpec:
    """One score of B forecasts; what was observed is no parameter of a forecast.

    Args:
        name: of the function.
        formula: one number for each forecast.
        variant: what follows the name of the spec.
        laws: those that hold.
        output: dims of what is returned.
        more: tensors by name, beside ``obs`` which is any real number where it is not among them; and constants.
    """
    tensors = {n: t for n, t in more.items() if isinstance(t, TensorSpec)}
    inputs = {"obs": SAMPLES, **tensors}
    return LossSpec(
        f"scoringrules.{name}{variant}",
        {"scoringrules": partial(getattr(package, name), backend="torch")},
        inputs=inputs,
        context={},
        output=TensorSpec(output),
        options={n: v for n, v in more.items() if n not in tensors},
        differentiable=[n for n in inputs if n not in ("obs", "alpha") and inputs[n].differentiable],
        formula=formula,
        laws=laws,
    )


NORMAL: dict[str, Any] = {"mu": SAMPLES, "sigma": SCALES}
LOCATED: dict[str, Any] = {"location": SAMPLES, "scale": SCALES}
LOGGED: dict[str, Any] = {"obs": TensorSpec("B", domains.interval(0.1, 5.0)), "mulog": SAMPLES, "sigmalog": SCALES}
ENSEMBLE: dict[str, Any] = {"fct": TensorSpec("B M")}
VECTORS: dict[str, Any] = {"obs": TensorSpec("B D"), "fct": TensorSpec("B M D")}
PAIRS = "abs(fct[b, m] - fct[b, n]) for m in M for n in M"
TO_OBSERVED = "mean(abs(fct[b, m] - obs[b]) for m in M)"
MEMBERS = (laws.permutation("M"),)
NONNEGATIVE = laws.nonnegative()

SPECS = (
    spec(
        "crps_normal",
        f"(sigma[b] * (w * erf(w / sqrt(2)) + sqrt(2 / {PI}) * exp(-w**2 / 2) - 1 / sqrt({PI})) {STANDARD})",
        laws=(NONNEGATIVE,),
        **NORMAL,
    ),
    spec(
        "crps_laplace",
        f"(scale[b] * (w + exp(-w) - 0.75) {LAPLACE})",
        laws=(NONNEGATIVE,),
        **LOCATED,
    ),
    spec(
        "crps_logistic",
        f"(sigma[b] * (w - 2 * logsigmoid(w) - 1) {STANDARD})",
        laws=(NONNEGATIVE,),
        **NORMAL,
    ),
    spec(
        "crps_exponential",
        "(obs[b] - 2 / rate[b] * (1 - exp(-rate[b] * obs[b])) + 1 / (2 * rate[b]) for b in B)",
        laws=(NONNEGATIVE,),
        obs=WAITS,
        rate=SCALES,
    ),
    spec(
        "quantile_score",
        "((alpha - (1 if obs[b] < fct[b] else 0)) * (obs[b] - fct[b]) for b in B)",
        fct=SAMPLES,
        alpha=0.3,
    ),
    spec(
        "interval_score",
        "(upper[b] - lower[b] + 20 * (relu(lower[b] - obs[b]) + relu(obs[b] - upper[b])) for b in B)",
        laws=(NONNEGATIVE,),
        lower=TensorSpec("B", domains.interval(-3.0, -1.0)),
        upper=TensorSpec("B", domains.interval(1.0, 3.0)),
        alpha=0.1,
    ),
    spec(
        "crps_ensemble",
        f"({TO_OBSERVED} - sum({PAIRS}) / (2 * M * M) for b in B)",
        "-nrg",
        (*MEMBERS, NONNEGATIVE),
        estimator="nrg",
        **ENSEMBLE,
    ),
    spec(
        "crps_ensemble",
        f"({TO_OBSERVED} - sum({PAIRS}) / (2 * M * M) for b in B)",
        "-qd",
        (*MEMBERS, NONNEGATIVE),
        estimator="qd",
        **ENSEMBLE,
    ),
    spec(
        "es_ensemble",
        "(mean(norm(fct[b, m] - obs[b]) for m in M) - sum(norm(fct[b, m] - fct[b, n]) for m in M for n in M) / (2 * M * M) "
        "for b in B)",
        laws=(*MEMBERS, NONNEGATIVE, laws.permutation("D")),
        **VECTORS,
    ),
    spec(
        "vs_ensemble",
        "(sum((abs(obs[b, i] - obs[b, j]) - mean(abs(fct[b, m, i] - fct[b, m, j]) for m in M))**2 for i in D for j in D) "
        "for b in B)",
        laws=(*MEMBERS, NONNEGATIVE, laws.permutation("D")),
        p=1.0,
        **VECTORS,
    ),
    spec(
        "logs_normal",
        f"(w**2 / 2 + log(sigma[b]) + log(2 * {PI}) / 2 {STANDARD})",
        **NORMAL,
    ),
    spec("logs_laplace", f"(w + log(2 * scale[b]) {LAPLACE})", **LOCATED),
    spec("logs_logistic", f"(-w + log(sigma[b]) - 2 * logsigmoid(-w) {STANDARD})", **NORMAL),
    spec("logs_exponential", "(rate[b] * obs[b] - log(rate[b]) for b in B)", obs=WAITS, rate=SCALES),
    spec(
        "logs_lognormal",
        f"(w**2 / 2 + log(sigmalog[b]) + log(obs[b]) + log(2 * {PI}) / 2 {LOGARITHM})",
        **LOGGED,
    ),
    spec(
        "logs_loglogistic",
        f"(-w + log(sigmalog[b]) + log(obs[b]) - 2 * logsigmoid(-w) {LOGARITHM})",
        **LOGGED,
    ),
    spec(
        "logs_gamma",
        "(lgamma(shape[b]) - shape[b] * log(rate[b]) - (shape[b] - 1) * log(obs[b]) + rate[b] * obs[b] for b in B)",
        obs=TensorSpec("B", domains.interval(0.1, 5.0)),
        shape=SCALES,
        rate=SCALES,
    ),
    spec("brier_score", "((fct[b] - obs[b])**2 for b in B)", obs=TensorSpec("B", domains.label()), fct=PROBABILITIES),
    spec(
        "log_score",
        "(-log(fct[b] if obs[b] > 0.5 else 1 - fct[b]) for b in B)",
        obs=TensorSpec("B", domains.label()),
        fct=PROBABILITIES,
    ),
)
