"""The estimators of robust-loss-playground on torch, declared as its documentation says, beside their formulas.

Source: https://pypi.org/project/robust-loss-playground
"""

from __future__ import annotations

from harness import LossSpec, TensorSpec, laws
from harness.catalogs import require

package = require("robust_loss.torch")

U = "for i in batch for u in [residual[i] / scale]"
FORMULAS = {
    "Cauchy": f"mean(scale**2 / 2 * log1p(u**2) {U})",
    "Tukey": f"mean(scale**2 * 4.685**2 / 6 * (1 - (1 - (u / 4.685)**2)**3 if abs(u) <= 4.685 else 1) {U})",
    "Huber": f"mean(scale**2 * (u**2 / 2 if abs(u) <= 1 else abs(u) - 0.5) {U})",
    "Charbonnier": f"mean(scale**2 * (sqrt(u**2 + 1e-6) - 1e-3) {U})",
}

SPECS = tuple(
    LossSpec(
        f"robust_loss.{name}",
        {"robust_loss": getattr(package, name)},
        inputs={"residual": TensorSpec("*batch")},
        context={},
        output=TensorSpec(""),
        options={"scale": 0.5},
        formula=formula,
        laws=(laws.nonnegative(),),
    )
    for name, formula in FORMULAS.items()
)
