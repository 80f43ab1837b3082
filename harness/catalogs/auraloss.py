"""The losses of auraloss in the time domain, declared as its documentation says, beside their formulas.

Source: https://github.com/csteinmetz1/auraloss
"""

from __future__ import annotations

from harness import LossSpec, TensorSpec, laws
from harness.catalogs import require
from harness.declare.laws import Law

package = require("auraloss.time")

EACH = "for b in B for c in C"
CENTRED = (
    f"{EACH} for x in [[input[b, c, t] - mean(input[b, c]) for t in T]] "
    "for y in [[target[b, c, t] - mean(target[b, c]) for t in T]]"
)
SCALED = CENTRED + " for s in [[y[t] * dot(x, y) / (dot(y, y) + 1e-8) for t in T]]"


def decibels(signal: str, noise: str, clauses: str) -> str:
    """-10 log10 of the energy of a signal over that of the noise, with the epsilon of the package in both places."""
    return f"-10 / log(10) * mean(log(dot({signal}, {signal}) / (dot({noise}, {noise}) + 1e-8) + 1e-8) {clauses})"


def spec(name: str, formula: str, *further: Law) -> LossSpec:
    """One loss of signals of C channels and T steps."""
    return LossSpec(
        f"auraloss.{name}",
        {"auraloss": getattr(package, name)},
        inputs={"input": TensorSpec("B C T"), "target": TensorSpec("B C T")},
        output=TensorSpec(""),
        formula=formula,
        laws=(laws.mean_over("B"), laws.mean_over("C"), laws.permutation("T"), *further),
    )


SPECS = (
    spec(
        "ESRLoss",
        f"mean(sum((target[b, c, t] - input[b, c, t])**2 for t in T) / (dot(target[b, c], target[b, c]) + 1e-8) {EACH})",
        laws.zero_when_equal("input", "target"),
    ),
    spec(
        "DCLoss",
        f"mean((mean(target[b, c]) - mean(input[b, c]))**2 / (dot(target[b, c], target[b, c]) / T + 1e-8) {EACH})",
        laws.zero_when_equal("input", "target"),
    ),
    spec(
        "LogCoshLoss",
        f"mean(log(cosh(input[b, c, t] - target[b, c, t]) + 1e-8) {EACH} for t in T)",
        laws.symmetric("input", "target"),
    ),
    spec("SNRLoss", decibels("y", "r", f"{CENTRED} for r in [x - y]")),
    spec("SISDRLoss", decibels("s", "r", f"{SCALED} for r in [x - s]")),
    spec("SDSDRLoss", decibels("s", "r", f"{SCALED} for r in [x - y]")),
)
