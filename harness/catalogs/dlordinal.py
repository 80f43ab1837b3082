"""The ordinal losses of dlordinal, declared as its documentation says, beside their formulas.

Source: https://github.com/ayrna/dlordinal
"""

from __future__ import annotations

from typing import Any

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require

package = require("dlordinal.losses", "dlordinal")  # it takes torchvision with it

CLASSES = 5
LOGITS = TensorSpec("B C", domains.logits())
PROBABILITIES = TensorSpec("B C", domains.simplex(-1))


def spec(
    name: str,
    scores: TensorSpec,
    formula: str,
    variant: str = "",
    names: tuple[str, str] = ("input", "target"),
    mean: bool = True,
    **more: Any,
) -> LossSpec:
    """One loss of B scores of five classes that are in an order.

    Args:
        name: of its class.
        scores: what the model gives.
        formula: the loss in one line.
        variant: what follows the name of the spec.
        names: of the scores and of the true classes.
        mean: whether it is a mean over samples.
        more: of the `LossSpec`.
    """
    options = {"num_classes": CLASSES, **more.pop("options", {})}
    return LossSpec(
        f"dlordinal.{name}{variant}",
        {"dlordinal": getattr(package, name)},
        inputs={names[0]: scores, names[1]: TensorSpec("B", domains.index("C"))},
        output=TensorSpec(""),
        options=options,
        fixed_sizes={"C": CLASSES},
        formula=formula,
        laws=(laws.nonnegative(), *((laws.mean_over("B"),) if mean else ())),
        **{"context": {}, **more},
    )


PREDICTED = ("y_pred", "y_true")
SOFT = "softmax([-alpha * abs(j - target[b]) for j in C])[i]"
ERROR = "((1 if target[b] == c else 0) - {}[c])**2"


def kappa(distance: str) -> str:
    """Weighted kappa: the distance of what is predicted to what is true, over that to the truths of all samples."""
    pair = f"({distance})"
    observed = f"sum(input[b, i] * {pair.format('b')} for b in B for i in C)"
    chance = f"sum(input[b, i] * {pair.format('n')} for b in B for n in B for i in C)"
    return f"{observed} / ({chance} / B + 1e-10)"


SPECS = (
    spec(
        "EMDLoss",
        LOGITS,
        "mean(sum((sum(p[j] for j in range(i + 1)) - (1 if y_true[b] <= i else 0))**2 for i in C) "
        "for b in B for p in [softmax(y_pred[b])])",
        names=PREDICTED,
    ),
    spec(
        "CDWCELoss",
        LOGITS,
        "mean(-sum(log(1 - p[i]) * abs(i - y_true[b])**alpha for i in C if i != y_true[b]) "
        "for b in B for p in [softmax(y_pred[b])])",
        names=PREDICTED,
        options={"alpha": 1.0},
    ),
    spec("WKLoss", PROBABILITIES, kappa("(i - target[{}])**2 / 16"), mean=False),
    spec(
        "WKLoss",
        PROBABILITIES,
        kappa("abs(i - target[{}]) / 4"),
        "-linear",
        mean=False,
        options={"penalization_type": "linear"},
    ),
    spec("MCELoss", PROBABILITIES, f"mean({ERROR.format('input[b]')} for b in B for c in C)"),
    spec(
        "MCELoss",
        LOGITS,
        f"mean({ERROR.format('softmax(input[b])')} for b in B for c in C)",
        "-logits",
        options={"use_logits": True},
    ),
    spec(
        "MCELoss",
        PROBABILITIES,
        f"mean(weight[c] * {ERROR.format('input[b]')} for b in B for c in C)",
        "-weighted",
        context={"weight": TensorSpec("C", domains.nonnegative())},
    ),
    spec(
        "CORNLoss",
        TensorSpec("B C-1", domains.logits()),
        "mean(softplus(-z if y_true[b] > i else z) for b in B for i in range(C - 1) if y_true[b] >= i "
        "for z in [y_pred[b, i]])",
        names=PREDICTED,
        mean=False,
    ),
    spec(
        "SLACELoss",
        LOGITS,
        f"mean(-sum({SOFT} * log(sum(p[j] for j in C if abs(j - target[b]) <= abs(i - target[b])) + 1e-9) for i in C) "
        "for b in B for p in [softmax(input[b])])",
        options={"alpha": 1.0},
    ),
    spec(
        "SORDLoss",
        LOGITS,
        f"mean(-sum({SOFT} * log_softmax(input[b])[i] for i in C) for b in B)",
        options={"alpha": 1.0, "train_targets": None},
    ),
    spec(
        "OrdinalECOCDistanceLoss",
        TensorSpec("B C-1", domains.probability()),
        "sum((input[b, i] - (1 if target[b] > i else 0))**2 for b in B for i in range(C - 1))",
        mean=False,
    ),
)
