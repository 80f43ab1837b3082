"""The segmentation losses of unified-focal-loss-pytorch, declared as its documentation says, beside their formulas.

Source: https://pypi.org/project/unified-focal-loss-pytorch
"""

from __future__ import annotations

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require

package = require("unified_focal_loss")

PIXELS = "for b in B for n in rest"
SUMS = (
    f"for c in C for tp in [sum(y_pred[b, c, n] {PIXELS} if y_true[b, n] == c)] "
    f"for fn in [sum(1 - y_pred[b, c, n] {PIXELS} if y_true[b, n] == c)] "
    f"for fp in [sum(y_pred[b, c, n] {PIXELS} if y_true[b, n] != c)]"
)
DICE = "(tp + 1e-8) / (tp + 0.5 * fn + 0.5 * fp + 1e-8)"
TVERSKY = "(tp + 1e-8) / (tp + 0.7 * fn + 0.3 * fp + 1e-8)"
TRUE = f"{PIXELS} for c in [y_true[b, n]] for p in [y_pred[b, c, n]]"
FOREGROUND = "0.7 * (1 - p)**0.75 if c > 0 else 0.3 * (1 - p + 1e-8)**0.75"

FORMULAS = {
    "DiceLoss": f"mean(1 - {DICE} {SUMS})",
    "TverskyLoss": f"mean(1 - {TVERSKY} {SUMS})",
    "FocalTverskyLoss": f"mean((1 - {TVERSKY})**0.75 {SUMS})",
    "FocalLoss": f"mean(-0.7 * (1 - p + 1e-8)**0.75 * log(p + 1e-8) {TRUE})",
    "ComboLoss": f"0.5 * mean(-log(p + 1e-8) {TRUE}) - 0.5 * mean({DICE} {SUMS})",
    "SymmetricFocalLoss": f"mean(-({FOREGROUND}) * log(p + 1e-8) {TRUE})",
    "AsymmetricFocalLoss": f"mean(-(0.7 if c > 0 else 0.3 * (1 - p + 1e-8)**0.75) * log(p + 1e-8) {TRUE})",
}

SPECS = tuple(
    LossSpec(
        f"unified_focal_loss.{name}",
        {"unified_focal_loss": getattr(package, name)},
        inputs={
            "y_pred": TensorSpec("B C *rest", domains.simplex(1)),
            "y_true": TensorSpec("B *rest", domains.index("C")),
        },
        context={},
        output=TensorSpec(""),
        formula=formula,
        laws=(laws.permutation("B"),),
    )
    for name, formula in FORMULAS.items()
)
