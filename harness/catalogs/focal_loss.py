"""The focal loss of focal-loss-torch, declared as its documentation says, beside its formula.

Source: https://github.com/mathiaszinnen/focal_loss_torch
"""

from __future__ import annotations

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require

package = require("focal_loss.focal_loss")

INPUTS = {"x": TensorSpec("B C", domains.simplex(-1)), "target": TensorSpec("B", domains.index("C", ignore=-100))}
EACH = "(1 - x[b, target[b]])**2 * log(1e-16 + x[b, target[b]])"

SPECS = (
    LossSpec(
        "focal_loss.FocalLoss",
        {"focal_loss": package.FocalLoss},
        inputs=INPUTS,
        output=TensorSpec(""),
        options={"gamma": 2.0},
        formula=f"-mean({EACH} for b in B if target[b] != -100)",
        laws=(laws.permutation("B"), laws.nonnegative()),
    ),
    LossSpec(
        "focal_loss.FocalLoss-weighted",
        {"focal_loss": package.FocalLoss},
        inputs=INPUTS,
        context={"weights": TensorSpec("C", domains.positive())},
        output=TensorSpec(""),
        options={"gamma": 2.0},
        formula=f"-sum(weights[target[b]] * {EACH} for b in B if target[b] != -100) "
        "/ sum(weights[target[b]] for b in B if target[b] != -100)",
        laws=(laws.permutation("B"), laws.scale_invariant("weights"), laws.nonnegative()),
    ),
)
