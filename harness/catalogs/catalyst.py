"""Losses of Catalyst, declared as its documentation says, beside their formulas.

Source: https://github.com/catalyst-team/catalyst
"""

from __future__ import annotations

from typing import Any

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require

package = require("catalyst.contrib.losses", "catalyst==22.4")  # pip 24.1 and later refuse its metadata

VECTORS = TensorSpec("B D")
SCORES = TensorSpec("B")
LABELS = TensorSpec("B", domains.index("C"))
MAPS: dict[str, Any] = {
    "outputs": TensorSpec("B C N", domains.probability()),
    "targets": TensorSpec("B C N", domains.label()),
}
NONNEGATIVE = (laws.nonnegative(),)


def spec(
    name: str,
    inputs: dict[str, TensorSpec],
    formula: str | None,
    variant: str = "",
    laws: tuple[Any, ...] = NONNEGATIVE,
    **more: Any,
) -> LossSpec:
    """One loss, which returns one number.

    Args:
        name: of its class.
        inputs: its tensors; the first is differentiable where nothing else is said.
        formula: the loss in one line.
        variant: what follows the name of the spec.
        laws: those that hold.
        more: of the `LossSpec`.
    """
    implementations = {"catalyst": getattr(package, name)}
    given = {"context": {}, "output": TensorSpec(""), "differentiable": (next(iter(inputs)),), **more}
    return LossSpec(f"catalyst.{name}{variant}", implementations, inputs=inputs, formula=formula, laws=laws, **given)


def pairs(name: str, formula: str, negative: str = "negative_score", dims: str = "B") -> LossSpec:
    """A loss of scores of positive and of negative items."""
    inputs = {"positive_score": SCORES, negative: TensorSpec(dims)}
    return spec(name, inputs, f"mean({formula} for b in B)", differentiable=tuple(inputs))


CONTRASTIVE = (
    "mean((1 - distance_true[b]) * d**2 + distance_true[b] * relu(margin - d)**2 for b in B for d in [{}]) / 2"
)
HUBER = "0.5 * min(a, 1)**2 + a - min(a, 1)"
FOCAL = "-((1 - p)**2 * log(p))"
OF_CLASS = "for p in [sigmoid(x) if t > 0.5 else sigmoid(-x)]"
BALANCED = f"(0.25 if t > 0.5 else 0.75) * {FOCAL}"
SIMILAR = (
    "for i in B for j in B if j > i and labels[i] {} labels[j] for s in [dot(normed_features[i], normed_features[j])]"
)
STATISTICS = (
    "for c in C for tp in [sum(outputs[{0}, c, n] * targets[{0}, c, n] {1} for n in N)] "
    "for fp in [sum(outputs[{0}, c, n] * (1 - targets[{0}, c, n]) {1} for n in N)] "
    "for fn in [sum((1 - outputs[{0}, c, n]) * targets[{0}, c, n] {1} for n in N)] "
    "for none in [1e-7 if tp + fp + fn == 0 else 0]"
)
OVERALL = STATISTICS.format("b", "for b in B")
TREVSKY = "(tp + none) / (tp + 0.7 * fp + 0.3 * fn + 1e-7)"

SPECS = (
    spec(
        "ContrastiveEmbeddingLoss",
        {
            "embeddings_left": VECTORS,
            "embeddings_right": VECTORS,
            "distance_true": TensorSpec("B", domains.label()),
        },
        CONTRASTIVE.format("norm(embeddings_left[b] - embeddings_right[b])"),
        differentiable=("embeddings_left", "embeddings_right"),
        options={"margin": 1.0},
    ),
    spec(
        "ContrastiveDistanceLoss",
        {"distance_pred": TensorSpec("B", domains.nonnegative()), "distance_true": TensorSpec("B", domains.label())},
        CONTRASTIVE.format("distance_pred[b]"),
        options={"margin": 1.0},
    ),
    spec(
        "ContrastivePairwiseEmbeddingLoss",
        {"embeddings_pred": VECTORS, "embeddings_true": VECTORS},
        "mean(logsumexp([dot(embeddings_pred[i], embeddings_true[j]) for j in B]) "
        "- dot(embeddings_pred[i], embeddings_true[i]) for i in B)",
        differentiable=("embeddings_pred", "embeddings_true"),
    ),
    spec(
        "TripletPairwiseEmbeddingLoss",
        {"embeddings_pred": VECTORS, "embeddings_true": VECTORS},
        "mean(relu(margin - dot(embeddings_pred[i], embeddings_true[i]) "
        "+ max(dot(embeddings_pred[i], embeddings_true[j]) for j in B if j != i)) for i in B)",
        differentiable=("embeddings_pred", "embeddings_true"),
        options={"margin": 0.3},
        fixed_sizes={"B": 4},
    ),
    spec(
        "CircleLoss",
        {"normed_features": TensorSpec("B D", domains.unit_norm(-1)), "labels": TensorSpec("B", domains.index(3))},
        "softplus(logsumexp(gamma * relu(detach(s) + margin) * (s - margin) "
        f"{SIMILAR.format('!=')}) + logsumexp(gamma * relu(1 + margin - detach(s)) * (1 - margin - s) "
        f"{SIMILAR.format('==')}))",
        options={"margin": 0.25, "gamma": 4.0},
        detaches=True,
        fixed_sizes={"B": 6},
    ),
    pairs(
        "BPRLoss",
        "-log(1e-10 + sigmoid(positive_score[b] - negative_score[b]))",
    ),
    pairs("LogisticLoss", "1 - sigmoid(positive_score[b]) + sigmoid(negative_score[b])"),
    pairs("HingeLoss", "relu(1 - positive_score[b] + negative_score[b])"),
    pairs(
        "AdaptiveHingeLoss",
        "relu(1 - positive_score[b] + max(negative_scores[n, b] for n in N))",
        "negative_scores",
        "N B",
    ),
    spec(
        "HuberLossV0",
        {"output": VECTORS, "target": VECTORS},
        f"mean({HUBER} for b in B for d in D for a in [abs(output[b, d] - target[b, d])])",
        laws=(*NONNEGATIVE, laws.zero_when_equal("output", "target")),
    ),
    spec(
        "CategoricalRegressionLoss",
        {name: TensorSpec("B 3") for name in ("logits_t", "logits_tp1", "atoms_target_t")},
        "mean(sum(-q * log_softmax(logits_t[b])[i] for i in range(3) for q in "
        "[sum(clamp(1 - abs(clamp(atoms_target_t[b, j], -1, 1) - (i - 1)), 0, 1) * softmax(logits_tp1[b])[j] "
        "for j in range(3))]) for b in B)",
        options={"num_atoms": 3, "v_min": -1, "v_max": 1},
    ),
    spec(
        "QuantileRegressionLoss",
        {"outputs": TensorSpec("B 4"), "targets": TensorSpec("B 4")},
        "mean(abs((2 * i + 1) / 8 - (1 if targets[b, j] < outputs[b, i] else 0)) / 4 "
        f"* ({HUBER}) for b in B for i in range(4) for j in range(4) for a in [abs(targets[b, j] - outputs[b, i])])",
        options={"num_atoms": 4},
    ),
    spec(
        "RSquareLoss",
        {"outputs": TensorSpec("B"), "targets": TensorSpec("B")},
        None,
        laws=(laws.zero_when_equal("outputs", "targets"),),
    ),
    spec(
        "WingLoss",
        {"outputs": VECTORS, "targets": VECTORS},
        "mean(5 * log(1 + 2 * a) if a < 5 else a - 5 + 5 * log(11) for b in B for d in D "
        "for a in [abs(outputs[b, d] - targets[b, d])])",
        laws=(*NONNEGATIVE, laws.zero_when_equal("outputs", "targets")),
    ),
    spec(
        "NaiveCrossEntropyLoss",
        {"input_": TensorSpec("B C", domains.logits()), "target": TensorSpec("B C", domains.simplex(-1))},
        "-sum(target[b, c] * log_softmax(input_[b])[c] for b in B for c in C) / B",
    ),
    spec(
        "SymmetricCrossEntropyLoss",
        {"input_": TensorSpec("B C", domains.simplex(-1)), "target": LABELS},
        "mean(sum(-t * log(p) - p * log(t) for c in C for p in [clamp(input_[b, c], 1e-7, 1)] "
        "for t in [1 if c == target[b] else 1e-4]) for b in B)",
    ),
    spec(
        "MaskCrossEntropyLoss",
        {"logits": TensorSpec("B C", domains.logits()), "target": LABELS},
        "mean(logsumexp(logits[b]) - logits[b, target[b]] for b in B if mask[b] > 0)",
        context={"mask": TensorSpec("B", domains.boolean())},
    ),
    spec(
        "FocalLossBinary",
        {"logits": TensorSpec("B N", domains.logits()), "targets": TensorSpec("B N", domains.label())},
        f"mean({BALANCED} for b in B for n in N for x in [logits[b, n]] for t in [targets[b, n]] {OF_CLASS})",
    ),
    spec(
        "FocalLossBinary",
        {"logits": TensorSpec("B N", domains.logits()), "targets": TensorSpec("B N", domains.label())},
        "mean(-(4 * (1 - p)**2 if p >= 0.5 else 1) * log(p) "
        f"for b in B for n in N for x in [logits[b, n]] for t in [targets[b, n]] {OF_CLASS})",
        "-reduced",
        options={"reduced": True},
    ),
    spec(
        "FocalLossMultiClass",
        {"logits": TensorSpec("B C", domains.logits()), "targets": LABELS},
        f"sum({BALANCED} for b in B for c in C for x in [logits[b, c]] for t in [1 if targets[b] == c else 0] {OF_CLASS}) / B",
    ),
    spec(
        "FocalLossMultiClass",
        {"logits": TensorSpec("B C N", domains.logits()), "targets": TensorSpec("B N", domains.index("C"))},
        f"sum({BALANCED} for b in B for n in N for c in C for x in [logits[b, c, n]] "
        f"for t in [1 if targets[b, n] == c else 0] {OF_CLASS}) / (B * N)",
        "-grid",
    ),
    spec("DiceLoss", MAPS, f"mean(1 - (2 * tp + none) / (2 * tp + fp + fn + 1e-7) {OVERALL})"),
    spec("IoULoss", MAPS, f"mean(1 - (tp + none) / (tp + fp + fn + 1e-7) {OVERALL})"),
    spec("TrevskyLoss", MAPS, f"mean(1 - {TREVSKY} {OVERALL})", options={"alpha": 0.3}),
    spec(
        "FocalTrevskyLoss",
        MAPS,
        f"mean(mean(1 - {TREVSKY} {STATISTICS.format('b', '')})**(4 / 3) for b in B)",
        options={"alpha": 0.3},
    ),
    spec(
        "SmoothingDiceLoss",
        MAPS,
        "mean(1 - 2 * sum(outputs[b, c, n] * targets[b, c, n] for b in B for n in N) "
        "/ (sum(outputs[b, c, n]**2 + targets[b, c, n]**2 for b in B for n in N) + 1e-7) for c in C)",
    ),
)
