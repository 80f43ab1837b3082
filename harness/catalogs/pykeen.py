"""The losses of PyKEEN that compare scores element by element, declared as its documentation says, beside their formulas.

Source: https://github.com/pykeen/pykeen
"""

from __future__ import annotations

from typing import Any

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require

package = require("pykeen.losses")

EACH = "for b in B for n in N"
PAIRS = {"pos_scores": TensorSpec("B N"), "neg_scores": TensorSpec("B N")}
POINTS = {"x": TensorSpec("B N", domains.logits()), "target": TensorSpec("B N", domains.label())}
SIGNED = f"{EACH} for t in [2 * target[b, n] - 1]"
PROBABILITY = f"{EACH} for p in [sigmoid(x[b, n]) if target[b, n] > 0.5 else sigmoid(-x[b, n])]"


def spec(name: str, formula: str, variant: str = "", **options: Any) -> LossSpec:
    """One loss of B rows of N scores: of pairs where the formula names them, else of scores with their truth."""
    pairs = "pos_scores" in formula
    return LossSpec(
        f"pykeen.{name}{variant}",
        {"pykeen": getattr(package, name)},
        inputs=PAIRS if pairs else POINTS,
        context={},
        output=TensorSpec(""),
        options=options,
        differentiable=tuple(PAIRS) if pairs else ("x",),
        formula=f"mean({formula})",
        laws=(laws.mean_over("B"), laws.mean_over("N"), laws.nonnegative()),
    )


SPECS = (
    spec("MarginRankingLoss", f"relu(neg_scores[b, n] - pos_scores[b, n] + margin) {EACH}", margin=0.5),
    spec("SoftMarginRankingLoss", f"softplus(neg_scores[b, n] - pos_scores[b, n] + margin) {EACH}", margin=0.5),
    spec("PairwiseLogisticLoss", f"softplus(neg_scores[b, n] - pos_scores[b, n]) {EACH}"),
    spec(
        "DoubleMarginLoss",
        "target[b, n] * relu(positive_margin - x[b, n]) / 2 "
        f"+ (1 - target[b, n]) * relu(negative_margin + x[b, n]) / 2 {EACH}",
        positive_margin=1.0,
        negative_margin=0.25,
    ),
    spec("PointwiseHingeLoss", f"relu(margin - t * x[b, n]) {SIGNED}", margin=0.5),
    spec("SoftPointwiseHingeLoss", f"softplus(margin - t * x[b, n]) {SIGNED}", margin=0.5),
    spec("SoftplusLoss", f"softplus(-t * x[b, n]) {SIGNED}"),
    spec("BCEAfterSigmoidLoss", f"softplus(-t * x[b, n]) {SIGNED}"),
    spec("FocalLoss", f"-(1 - p)**gamma * log(p) {PROBABILITY}", gamma=2.0),
    spec(
        "FocalLoss",
        f"-(alpha if target[b, n] > 0.5 else 1 - alpha) * (1 - p)**gamma * log(p) {PROBABILITY}",
        "-alpha",
        gamma=2.0,
        alpha=0.25,
    ),
)
