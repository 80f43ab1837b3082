"""The losses of ordered classes of coral-pytorch, declared as its documentation says, beside their formulas.

Source: https://raschka-research-group.github.io/coral-pytorch/
"""

from __future__ import annotations

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require

package = require("coral_pytorch.losses")

EACH = "levels[b, k] * softplus(-logits[b, k]) + (1 - levels[b, k]) * softplus(logits[b, k])"
CORAL = {"logits": TensorSpec("B K", domains.logits()), "levels": TensorSpec("B K", domains.label())}

SPECS = (
    LossSpec(
        "coral_pytorch.CoralLoss",
        {"coral_pytorch": package.CoralLoss},
        inputs=CORAL,
        output=TensorSpec(""),
        formula=f"sum({EACH} for b in B for k in K) / B",
        laws=(laws.mean_over("B"), laws.permutation("K"), laws.nonnegative()),
    ),
    LossSpec(
        "coral_pytorch.CoralLoss-weighted",
        {"coral_pytorch": package.CoralLoss},
        inputs=CORAL,
        context={"importance_weights": TensorSpec("K", domains.nonnegative())},
        output=TensorSpec(""),
        formula=f"sum(importance_weights[k] * ({EACH}) for b in B for k in K) / B",
        laws=(laws.mean_over("B"), laws.linear_in("importance_weights"), laws.nonnegative()),
    ),
    LossSpec(
        "coral_pytorch.CornLoss",
        {"coral_pytorch": package.CornLoss},
        inputs={"logits": TensorSpec("B K", domains.logits()), "y_train": TensorSpec("B", domains.index("K+1"))},
        output=TensorSpec(""),
        options={"num_classes": 5},
        fixed_sizes={"K": 4},
        formula="sum(softplus(-logits[b, k] if y_train[b] > k else logits[b, k]) for b in B for k in K if y_train[b] >= k) "
        "/ sum(1 for b in B for k in K if y_train[b] >= k)",
        laws=(laws.permutation("B"), laws.nonnegative()),
    ),
)
