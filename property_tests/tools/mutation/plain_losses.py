"""Correct losses of everyday kinds, written plainly: further material to make mutants of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness import LossSpec, TensorSpec, domains, laws


def _check_same_shape(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ValueError(f"shapes {list(first.shape)} and {list(second.shape)} differ; nothing is broadcast")


def _check_axes(tensor: Tensor, axes: int) -> None:
    if tensor.ndim != axes:
        raise ValueError(f"shape {list(tensor.shape)} came, but {axes} axes should")


def _check_length(tensor: Tensor, length: int) -> None:
    if tuple(tensor.shape) != (length,):
        raise ValueError(f"got shape {list(tensor.shape)}, expected [{length}]")


class WeightedCrossEntropy(nn.Module):
    """-Σ_b w[y_b] log softmax(x_b)[y_b] / Σ_b w[y_b], logits x ``B C``, labels y ``B``, class weights w ``C`` > 0."""

    class_weights: Tensor

    def __init__(self, class_weights: Tensor) -> None:
        super().__init__()
        _check_axes(class_weights, 1)
        self.register_buffer("class_weights", class_weights.detach().clone())

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        _check_axes(logits, 2)
        _check_length(labels, logits.shape[0])
        _check_length(self.class_weights, logits.shape[1])
        surprise = torch.logsumexp(logits, dim=1) - logits.gather(1, labels.unsqueeze(1)).squeeze(1)
        weights = self.class_weights.to(logits.dtype).index_select(0, labels)
        return (weights * surprise).sum() / weights.sum()


def masked_mean_squared_error(predictions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Σ (p - y)² over what the mask keeps, divided by their number; 0 where it keeps nothing.  All ``B S``."""
    _check_axes(predictions, 2)
    _check_same_shape(predictions, labels)
    _check_same_shape(predictions, mask)
    errors = (predictions - labels).masked_fill(~mask, 0).square()
    wide = torch.promote_types(errors.dtype, torch.float32)
    return (errors.sum(dtype=wide) / mask.sum().clamp(min=1)).to(errors.dtype)


def contrastive(anchors: Tensor, positives: Tensor) -> Tensor:
    """InfoNCE: cross-entropy of every anchor's cosines to all positives, its own one being right.  Both ``B D``.

    Source: van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018.
    """
    _check_axes(anchors, 2)
    _check_same_shape(anchors, positives)
    a = anchors / (anchors.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    b = positives / (positives.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    similarities = (a @ b.T) / 0.5
    return (torch.logsumexp(similarities, dim=1) - similarities.diagonal()).mean()


class WeightedHuber(nn.Module):
    """1/n Σ_{b,d} w_b h(p - y), h(e) = e²/2 up to |e| = 0.7, then linear; p and y ``B D``, sample weights w ``B`` >= 0."""

    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        _check_axes(weights, 1)
        self.register_buffer("weights", weights.detach().clone())

    def forward(self, predictions: Tensor, labels: Tensor) -> Tensor:
        _check_axes(predictions, 2)
        _check_same_shape(predictions, labels)
        _check_length(self.weights, predictions.shape[0])
        weights = self.weights.to(predictions.dtype).unsqueeze(-1)
        error = (predictions - labels).masked_fill(weights == 0, 0)
        distance = error.abs()
        huber = torch.where(distance <= 0.7, 0.5 * error.square(), 0.7 * (distance - 0.35))
        return (weights * huber).mean()


def distillation(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """T² KL(softmax(t / T) | softmax(x / T)), averaged over samples, T = 2; both ``B C``.  The teacher learns nothing.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015.
    """
    _check_axes(logits, 2)
    _check_same_shape(logits, teacher_logits)
    student = torch.log_softmax(logits / 2.0, dim=-1)
    teacher = torch.log_softmax(teacher_logits.detach() / 2.0, dim=-1)
    return 4.0 * (teacher.exp() * (teacher - student)).sum(-1).mean()


def cosine_distance(predictions: Tensor, labels: Tensor) -> Tensor:
    """1 - cos(p_b, y_b), averaged over samples; both ``B D``.  A zero row has cosine 0."""
    _check_axes(predictions, 2)
    _check_same_shape(predictions, labels)
    norms = predictions.square().sum(-1) * labels.square().sum(-1)
    zero = norms == 0
    cosine = (predictions * labels).sum(-1) / norms.masked_fill(zero, 1).sqrt()
    return (1 - cosine.masked_fill(zero, 0)).mean()


class PairwiseDistance(nn.Module):
    """Mean over pairs (|e_i - e_j| - d_p)², embeddings e ``N D``, pairs p = (i, j) as indices ``P``, target distances d ``P`` > 0."""

    distances: Tensor

    def __init__(self, distances: Tensor) -> None:
        super().__init__()
        _check_axes(distances, 1)
        self.register_buffer("distances", distances.detach().clone())

    def forward(self, embeddings: Tensor, first: Tensor, second: Tensor) -> Tensor:
        _check_axes(embeddings, 2)
        _check_length(first, self.distances.shape[0])
        _check_length(second, self.distances.shape[0])
        squared = (embeddings.index_select(0, first) - embeddings.index_select(0, second)).square().sum(-1)
        same = squared == 0
        distance = squared.masked_fill(same, 1).sqrt().masked_fill(same, 0)
        return (distance - self.distances.to(embeddings.dtype)).square().mean()


class CenterLoss(nn.Module):
    """½ |e_b - c[y_b]|², averaged over samples; embeddings e ``B D``, labels y ``B``, centers c ``C D``.

    Source: Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, 2016.
    """

    centers: Tensor

    def __init__(self, centers: Tensor) -> None:
        super().__init__()
        _check_axes(centers, 2)
        self.register_buffer("centers", centers.detach().clone())

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        _check_axes(embeddings, 2)
        _check_length(labels, embeddings.shape[0])
        centers = self.centers.to(embeddings.dtype).index_select(0, labels)
        _check_same_shape(embeddings, centers)
        return 0.5 * (embeddings - centers).square().sum(-1).mean()


SCALAR = TensorSpec("")
_PAIR = {"predictions": TensorSpec("B D"), "labels": TensorSpec("B D")}

SPECS = (
    LossSpec(
        "weighted_cross_entropy",
        {"plain": WeightedCrossEntropy},
        inputs={"logits": TensorSpec("B C", domains.logits()), "labels": TensorSpec("B", domains.index("C"))},
        context={"class_weights": TensorSpec("C", domains.positive())},
        output=SCALAR,
        laws=(
            laws.nonnegative(),
            laws.permutation("B"),
            laws.permutation("C"),
            laws.translation_invariant("logits"),
            laws.scale_invariant("class_weights"),
        ),
    ),
    LossSpec(
        "masked_mean_squared_error",
        {"plain": masked_mean_squared_error},
        inputs={"predictions": TensorSpec("B S"), "labels": TensorSpec("B S")},
        context={"mask": TensorSpec("B S", domains.boolean())},
        output=SCALAR,
        laws=(
            laws.zero_weight_removes("mask"),
            laws.permutation("B"),
            laws.permutation("S"),
            laws.zero_when_equal("predictions", "labels"),
            laws.nonnegative(),
        ),
    ),
    LossSpec(
        "contrastive",
        {"plain": contrastive},
        inputs={"anchors": TensorSpec("B D"), "positives": TensorSpec("B D")},
        output=SCALAR,
        differentiable=("anchors", "positives"),
        laws=(laws.permutation("B"), laws.permutation("D"), laws.nonnegative()),
    ),
    LossSpec(
        "weighted_huber",
        {"plain": WeightedHuber},
        inputs=_PAIR,
        context={"weights": TensorSpec("B", domains.nonnegative())},
        output=SCALAR,
        laws=(
            laws.mean_over("B"),
            laws.mean_over("D"),
            laws.linear_in("weights"),
            laws.zero_weight_removes("weights"),
            laws.symmetric("predictions", "labels"),
            laws.translation_invariant("predictions", "labels"),
        ),
    ),
    LossSpec(
        "distillation",
        {"plain": distillation},
        inputs={
            "logits": TensorSpec("B C", domains.logits()),
            "teacher_logits": TensorSpec("B C", domains.logits()),
        },
        output=SCALAR,
        laws=(
            laws.mean_over("B"),
            laws.permutation("C"),
            laws.zero_when_equal("logits", "teacher_logits"),
            laws.translation_invariant("logits"),
        ),
    ),
    LossSpec(
        "cosine_distance",
        {"plain": cosine_distance},
        inputs=_PAIR,
        output=SCALAR,
        laws=(
            laws.mean_over("B"),
            laws.permutation("D"),
            laws.symmetric("predictions", "labels"),
            laws.scale_invariant("predictions"),
        ),
    ),
    LossSpec(
        "pairwise_distance",
        {"plain": PairwiseDistance},
        inputs={
            "embeddings": TensorSpec("N D"),
            "first": TensorSpec("P", domains.index("N")),
            "second": TensorSpec("P", domains.index("N")),
        },
        context={"distances": TensorSpec("P", domains.positive())},
        output=SCALAR,
        laws=(
            laws.nonnegative(),
            laws.mean_over("P"),
            laws.permutation("D"),
            laws.symmetric("first", "second"),
            laws.translation_invariant("embeddings"),
        ),
    ),
    LossSpec(
        "center_loss",
        {"plain": CenterLoss},
        inputs={"embeddings": TensorSpec("B D"), "labels": TensorSpec("B", domains.index("C"))},
        context={"centers": TensorSpec("C D")},
        output=SCALAR,
        laws=(
            laws.mean_over("B"),
            laws.permutation("B"),
            laws.permutation("D"),
            laws.translation_invariant("embeddings", "centers"),
        ),
    ),
)
