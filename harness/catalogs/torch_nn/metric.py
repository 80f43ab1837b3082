"""torch's losses with margins, and those between embeddings: hinges, rankings, triplets, cosines and distances.

Formulas are those of the documentation of torch.nn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs.torch_nn._shared import (
    CLASSES,
    SAMPLEWISE,
    SCALAR,
    classes_along_axis_1,
    in_double,
    reduce,
    same_shape,
)

_PAIR = {"input1": TensorSpec("B D"), "input2": TensorSpec("B D"), "target": TensorSpec("B", domains.sign())}
_RANKS = {"input1": TensorSpec("B"), "input2": TensorSpec("B"), "target": TensorSpec("B", domains.sign())}
_TRIPLET = {"anchor": TensorSpec("B D"), "positive": TensorSpec("B D"), "negative": TensorSpec("B D")}
_SIGNED = {"input": TensorSpec("B *rest", domains.logits()), "target": TensorSpec("B *rest", domains.sign())}
_LABELS = {"input": TensorSpec("B C", domains.logits()), "target": TensorSpec("B C", domains.binary())}
_VECTORS = {"x1": TensorSpec("B D"), "x2": TensorSpec("B D")}


@in_double
def hinge_embedding(input: Tensor, target: Tensor, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """x where y = 1, max(0, margin - x) where y = -1."""
    same_shape(input, target)
    return reduce(torch.where(target == 1, input, (margin - input).clamp(min=0)), reduction)


@in_double
def cosine_embedding(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """1 - cos(a, b) where y = 1, max(0, cos(a, b) - margin) where y = -1."""
    similarity = cosine_similarity(x1=input1, x2=input2)
    same_shape(similarity, target)
    return reduce(torch.where(target == 1, 1 - similarity, (similarity - margin).clamp(min=0)), reduction)


@in_double
def margin_ranking(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """max(0, -y (a - b) + margin)."""
    same_shape(input1, input2, target)
    return reduce((margin - target * (input1 - input2)).clamp(min=0), reduction)


@in_double
def multi_margin(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """w_y / C Σ_{i != y} max(0, margin - x_y + x_i)^p."""
    classes_along_axis_1(input, target, weight)
    violations = (margin - input.gather(1, target.unsqueeze(1)) + input).clamp(min=0) ** p
    others = functional.one_hot(target, input.shape[1]) == 0
    errors = (violations * others).mean(1)
    return reduce(errors if weight is None else weight[target] * errors, reduction)


@in_double
def multilabel_margin(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """1/C Σ_j Σ_i max(0, 1 - (x[y_j] - x_i)): j over the labels before the first -1, i over the classes that are no label."""
    same_shape(input, target)
    errors = []
    for scores, padded in zip(input, target.tolist(), strict=True):
        labels = padded[: padded.index(-1)] if -1 in padded else padded
        rest = [c for c in range(len(padded)) if c not in labels]
        hinges = [(1 - (scores[label] - scores[c])).clamp(min=0) for label in labels for c in rest]
        errors.append(sum(hinges, 0 * scores.sum()) / len(padded))
    return reduce(torch.stack(errors), reduction)


@in_double
def multilabel_soft_margin(
    input: Tensor, target: Tensor, weight: Tensor | float = 1.0, reduction: str = "mean"
) -> Tensor:
    """-1/C Σ_c w_c (y log σ(x) + (1 - y) log σ(-x))."""
    same_shape(input, target)
    if isinstance(weight, Tensor):
        same_shape(weight, input[0])
    errors = target * functional.softplus(-input) + (1 - target) * functional.softplus(input)
    return reduce((weight * errors).mean(-1), reduction)


@in_double
def soft_margin(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """log(1 + exp(-y x))."""
    same_shape(input, target)
    return reduce(functional.softplus(-target * input), reduction)


@in_double
def triplet_margin(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """max(0, d(a, p) - d(a, n) + margin); with ``swap`` the smaller of d(a, n) and d(p, n) stands for d(a, n)."""
    same_shape(anchor, positive, negative)
    to_negative = pairwise_distance(x1=anchor, x2=negative, p=p)
    if swap:
        to_negative = torch.minimum(to_negative, pairwise_distance(x1=positive, x2=negative, p=p))
    return reduce((pairwise_distance(x1=anchor, x2=positive, p=p) - to_negative + margin).clamp(min=0), reduction)


@in_double
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6) -> Tensor:
    """‖a - b + ε‖_p along the last axis."""
    same_shape(x1, x2)
    distances: Tensor = torch.linalg.vector_norm(x1 - x2 + eps, p, dim=-1)
    return distances


@in_double
def cosine_similarity(x1: Tensor, x2: Tensor, eps: float = 1e-8) -> Tensor:
    """a · b / (max(|a|, ε) max(|b|, ε)) along the last axis."""
    same_shape(x1, x2)
    first, second = (torch.linalg.vector_norm(x, dim=-1).clamp(min=eps) for x in (x1, x2))
    cosines: Tensor = (x1 * x2).sum(-1) / (first * second)
    return cosines


def padded_labels(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Different classes, as many as half of them, then -1."""
    labels = torch.rand(shape, generator=generator).argsort(-1)
    counted = torch.arange(shape[-1]).expand(shape) < max(shape[-1] // 2, 1)
    return labels.where(counted, -1).to(dtype)


HINGE_EMBEDDING = LossSpec(
    "nn.HingeEmbeddingLoss",
    {"formula": hinge_embedding, "torch": nn.HingeEmbeddingLoss},
    inputs={"input": TensorSpec("B *rest"), "target": TensorSpec("B *rest", domains.sign())},
    output=SCALAR,
    laws=SAMPLEWISE,
)
COSINE_EMBEDDING = LossSpec(
    "nn.CosineEmbeddingLoss",
    {"formula": cosine_embedding, "torch": nn.CosineEmbeddingLoss},
    inputs=_PAIR,
    output=SCALAR,
    differentiable=("input1", "input2"),
    laws=(
        laws.symmetric("input1", "input2"),
        laws.scale_invariant("input1"),
        laws.scale_invariant("input2"),
        laws.nonnegative(),
        laws.permutation("D"),
        *SAMPLEWISE,
    ),
)
COSINE_EMBEDDING_MARGIN = COSINE_EMBEDDING.replace(name="nn.CosineEmbeddingLoss-margin", options={"margin": 0.3})
# Near zero, where the epsilon of torch's cosine shows.
_NEAR_ZERO = TensorSpec("B D", domains.interval(-1e-5, 1e-5))
COSINE_EMBEDDING_NEAR_ZERO = COSINE_EMBEDDING.replace(
    name="nn.CosineEmbeddingLoss-near_zero", inputs={**_PAIR, "input1": _NEAR_ZERO, "input2": _NEAR_ZERO}
)
MARGIN_RANKING = LossSpec(
    "nn.MarginRankingLoss",
    {"formula": margin_ranking, "torch": nn.MarginRankingLoss},
    inputs=_RANKS,
    output=SCALAR,
    differentiable=("input1", "input2"),
    laws=(laws.translation_invariant("input1", "input2"), laws.nonnegative(), *SAMPLEWISE),
)
MARGIN_RANKING_MARGIN = MARGIN_RANKING.replace(name="nn.MarginRankingLoss-margin", options={"margin": 0.5})
MULTI_MARGIN = LossSpec(
    "nn.MultiMarginLoss",
    {"formula": multi_margin, "torch": nn.MultiMarginLoss},
    inputs={**CLASSES, "input": TensorSpec("B C")},
    output=SCALAR,
    laws=(laws.translation_invariant("input"), laws.nonnegative(), laws.permutation("C"), *SAMPLEWISE),
)
MULTI_MARGIN_SQUARED = MULTI_MARGIN.replace(name="nn.MultiMarginLoss-squared", options={"p": 2, "margin": 0.5})
MULTI_MARGIN_WEIGHTED = MULTI_MARGIN.replace(
    name="nn.MultiMarginLoss-weighted",
    context={"weight": TensorSpec("C", domains.nonnegative())},
    laws=(*MULTI_MARGIN.laws, laws.linear_in("weight")),
)
MULTILABEL_MARGIN = LossSpec(
    "nn.MultiLabelMarginLoss",
    {"formula": multilabel_margin, "torch": nn.MultiLabelMarginLoss},
    inputs={
        "input": TensorSpec("B C"),
        "target": TensorSpec("B C", domains.custom(padded_labels), dtype=torch.int64),
    },
    output=SCALAR,
    laws=(laws.translation_invariant("input"), laws.nonnegative(), *SAMPLEWISE),
)
MULTILABEL_SOFT_MARGIN = LossSpec(
    "nn.MultiLabelSoftMarginLoss",
    {"formula": multilabel_soft_margin, "torch": nn.MultiLabelSoftMarginLoss},
    inputs=_LABELS,
    output=SCALAR,
    laws=(laws.nonnegative(), laws.permutation("C"), *SAMPLEWISE),
)
MULTILABEL_SOFT_MARGIN_WEIGHTED = MULTILABEL_SOFT_MARGIN.replace(
    name="nn.MultiLabelSoftMarginLoss-weighted",
    context={"weight": TensorSpec("C", domains.nonnegative())},
    laws=(*MULTILABEL_SOFT_MARGIN.laws, laws.linear_in("weight"), laws.zero_weight_removes("weight")),
)
SOFT_MARGIN = LossSpec(
    "nn.SoftMarginLoss",
    {"formula": soft_margin, "torch": nn.SoftMarginLoss},
    inputs=_SIGNED,
    output=SCALAR,
    laws=(laws.nonnegative(), *SAMPLEWISE),
)
TRIPLET_MARGIN = LossSpec(
    "nn.TripletMarginLoss",
    {"formula": triplet_margin, "torch": nn.TripletMarginLoss},
    inputs=_TRIPLET,
    output=SCALAR,
    differentiable=tuple(_TRIPLET),
    laws=(
        laws.translation_invariant("anchor", "positive", "negative"),
        laws.nonnegative(),
        laws.permutation("D"),
        *SAMPLEWISE,
    ),
)
TRIPLET_MARGIN_SWAP = TRIPLET_MARGIN.replace(name="nn.TripletMarginLoss-swap", options={"swap": True})
TRIPLET_MARGIN_L1 = TRIPLET_MARGIN.replace(name="nn.TripletMarginLoss-l1", options={"p": 1.0, "margin": 0.5})
TRIPLET_MARGIN_DISTANCE = TRIPLET_MARGIN.replace(
    name="nn.TripletMarginWithDistanceLoss",
    implementations={"formula": triplet_margin, "torch": nn.TripletMarginWithDistanceLoss},
)
PAIRWISE_DISTANCE = LossSpec(
    "nn.functional.pairwise_distance",
    {"formula": pairwise_distance, "torch": functional.pairwise_distance},
    inputs=_VECTORS,
    output=TensorSpec("B"),
    differentiable=("x1", "x2"),
    laws=(laws.translation_invariant("x1", "x2"), laws.nonnegative(), laws.permutation("D")),
)
COSINE_SIMILARITY = LossSpec(
    "nn.functional.cosine_similarity",
    {"formula": cosine_similarity, "torch": functional.cosine_similarity},
    inputs=_VECTORS,
    output=TensorSpec("B"),
    differentiable=("x1", "x2"),
    laws=(laws.symmetric("x1", "x2"), laws.permutation("D")),
)

SPECS = (
    HINGE_EMBEDDING,
    COSINE_EMBEDDING,
    COSINE_EMBEDDING_MARGIN,
    COSINE_EMBEDDING_NEAR_ZERO,
    MARGIN_RANKING,
    MARGIN_RANKING_MARGIN,
    MULTI_MARGIN,
    MULTI_MARGIN_SQUARED,
    MULTI_MARGIN_WEIGHTED,
    MULTILABEL_MARGIN,
    MULTILABEL_SOFT_MARGIN,
    MULTILABEL_SOFT_MARGIN_WEIGHTED,
    SOFT_MARGIN,
    TRIPLET_MARGIN,
    TRIPLET_MARGIN_SWAP,
    TRIPLET_MARGIN_L1,
    TRIPLET_MARGIN_DISTANCE,
    PAIRWISE_DISTANCE,
    COSINE_SIMILARITY,
)
