"""The losses of pytorch-metric-learning, declared as its documentation says; most stand beside the documented formula.

Source: https://kevinmusgrave.github.io/pytorch-metric-learning/losses/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require
from harness.declare.laws import Law

losses = require("pytorch_metric_learning.losses")

SCALAR = TensorSpec("")
CLASSES, FEATURES = 3, 4


def pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs are positive and which negative; a sample is no pair with itself: both [B, B]."""
    same = labels[:, None] == labels
    return same & ~torch.eye(len(labels), dtype=torch.bool), ~same


def cosines(embeddings: Tensor) -> Tensor:
    """Cosine similarity of all pairs: [B, B]."""
    unit = F.normalize(embeddings)
    return unit @ unit.T


def distances(embeddings: Tensor) -> Tensor:
    """Euclidean distance of all pairs of normalised embeddings: [B, B]."""
    unit = F.normalize(embeddings)
    return torch.cdist(unit, unit)


def mean_of_positive(values: Tensor) -> Tensor:
    """Mean over the values above zero; 0 where there is none."""
    return values.relu().sum() / (values > 0).sum().clamp(min=1)


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the elements that the mask selects; 0 where it selects none."""
    return values.where(mask, 0).sum() / mask.sum().clamp(min=1)


def contrastive(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Mean of positive [d_p]₊ over positive pairs + mean of positive [1 - d_n]₊ over negative pairs."""
    positive, negative = pairs(labels)
    d = distances(embeddings)
    return mean_of_positive(d.where(positive, 0)) + mean_of_positive((1 - d).where(negative, 0))


def triplets(matrix: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What stands at (anchor, positive), what at (anchor, negative), and which triplets there are: [B, B, B]."""
    positive, negative = pairs(labels)
    return matrix[:, :, None], matrix[:, None, :], positive[:, :, None] & negative[:, None, :]


def triplet(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Mean of positive [d_ap - d_an + margin]₊ over all triplets."""
    near, far, valid = triplets(distances(embeddings), labels)
    return mean_of_positive((near - far + margin).where(valid, 0))


def margin_loss(embeddings: Tensor, labels: Tensor, margin: float, beta: float) -> Tensor:
    """Sum over triplets of [d_ap - β + m]₊ + [β - d_an + m]₊, divided by the number of positive terms."""
    near, far, valid = triplets(distances(embeddings), labels)
    terms = torch.stack([(near - beta + margin).relu() * valid, (beta - far + margin).relu() * valid])
    return terms.sum() / (terms > 0).sum().clamp(min=1)


def ntxent(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Mean over positive pairs of -log(exp(s_ap / τ) / (exp(s_ap / τ) + Σ_n exp(s_an / τ)))."""
    positive, negative = pairs(labels)
    s = cosines(embeddings) / temperature
    others = s.masked_fill(~negative, -torch.inf).logsumexp(1, keepdim=True)
    return mean_where(torch.logaddexp(s, others) - s, positive)


def supcon(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Mean over anchors with a positive of -1/|P| Σ_p log(exp(s_ap / τ) / Σ_{i≠a} exp(s_ai / τ)) (equation 2)."""
    positive, negative = pairs(labels)
    s = cosines(embeddings) / temperature
    log_p = s - s.masked_fill(~(positive | negative), -torch.inf).logsumexp(1, keepdim=True)
    return mean_of_positive(-log_p.where(positive, 0).sum(1) / positive.sum(1).clamp(min=1))


def softplus_sum(exponents: Tensor, mask: Tensor) -> Tensor:
    """log(1 + Σ exp x) over the selected elements of each row."""
    return F.pad(exponents.masked_fill(~mask, -torch.inf), (0, 1)).logsumexp(1)


def multi_similarity(embeddings: Tensor, labels: Tensor, alpha: float, beta: float, base: float) -> Tensor:
    """Mean over anchors of 1/α log(1 + Σ_p exp(-α (s - λ))) + 1/β log(1 + Σ_n exp(β (s - λ)))."""
    positive, negative = pairs(labels)
    s = cosines(embeddings) - base
    return (softplus_sum(-alpha * s, positive) / alpha + softplus_sum(beta * s, negative) / beta).mean()


def circle(embeddings: Tensor, labels: Tensor, m: float, gamma: float) -> Tensor:
    """Mean of positive log(1 + Σ_n exp(γ [s + m]₊ (s - m)) Σ_p exp(-γ [1 + m - s]₊ (s - 1 + m))), weights held fixed."""
    positive, negative = pairs(labels)
    s = cosines(embeddings)
    of_positive = -gamma * (1 + m - s.detach()).relu() * (s - 1 + m)
    of_negative = gamma * (s.detach() + m).relu() * (s - m)
    total = of_positive.masked_fill(~positive, -torch.inf).logsumexp(1)
    total = total + of_negative.masked_fill(~negative, -torch.inf).logsumexp(1)
    return mean_of_positive(F.softplus(total.where(positive.any(1) & negative.any(1), -torch.inf)))


def nca(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Mean over anchors with a positive of -log Σ_p softmax_{i≠a}(-d²), the mean being over these anchors alone."""
    positive, negative = pairs(labels)
    unit = F.normalize(embeddings)
    logits = -(torch.cdist(unit, unit) ** 2)
    total = logits.masked_fill(~(positive | negative), -torch.inf).logsumexp(1)
    of_same = logits.masked_fill(~positive, -torch.inf).logsumexp(1)
    return mean_where(total - of_same, positive.any(1))


def lifted_structure(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Mean over positive pairs (i, j) of 1/2 [log Σ_{n of i or j} exp(1 - d) + d_ij]₊², summing over both ends' negatives."""
    positive, negative = pairs(labels)
    d = distances(embeddings)
    of_one = (1 - d).masked_fill(~negative, -torch.inf).logsumexp(1)
    bound = torch.logaddexp(of_one[:, None], of_one) + d
    return mean_where((bound.relu() ** 2 / 2).where(negative.any(1)[:, None], 0), positive & negative.any())


def n_pairs_of(weights: Tensor, embeddings: Tensor, labels: Tensor, scale: float, margin: float) -> Tensor:
    """Cross-entropy of scale (cos θ_j - margin at the label) between embeddings and class weights [D, C]."""
    cosine = F.normalize(embeddings) @ F.normalize(weights, dim=0)
    hot = F.one_hot(labels, weights.shape[1])
    return F.cross_entropy(scale * (cosine - margin * hot), labels)


def cosface(weights: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of 64 (cos θ_j - 0.35 at the label)."""
    return n_pairs_of(weights, embeddings, labels, 64, 0.35)


def normalized_softmax(weights: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of cos θ_j / 0.05."""
    return n_pairs_of(weights, embeddings, labels, 20, 0)


def proxy_anchor(weights: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
    """1/|P⁺| Σ_p log(1 + Σ_{x⁺} exp(-α (s - δ))) + 1/|P| Σ_p log(1 + Σ_{x⁻} exp(α (s + δ))), α = 32, δ = 0.1."""
    s = F.normalize(weights.T) @ F.normalize(embeddings).T
    same = torch.arange(len(s))[:, None] == labels
    near, far = softplus_sum(-32 * (s - 0.1), same), softplus_sum(32 * (s + 0.1), ~same)
    return near.sum() / same.any(1).sum() + far.mean()


def vicreg(embeddings: Tensor, ref_emb: Tensor) -> Tensor:
    """25 mean (z - z')² + 25 [v(z) + v(z')] + c(z) + c(z'): v = mean [1 - √(Var + 1e-4)]₊, c = Σ_{i≠j} Cov_ij² / D."""
    loss = 25 * F.mse_loss(embeddings, ref_emb)
    for z in (embeddings, ref_emb):
        covariance = (z - z.mean(0)).T @ (z - z.mean(0)) / (len(z) - 1)
        variances = covariance.diagonal()
        loss = loss + 25 * (1 - (variances + 1e-4).sqrt()).relu().mean()
        loss = loss + ((covariance**2).sum() - (variances**2).sum()) / z.shape[1]
    return loss


class WithClassWeights(nn.Module):
    """A loss with one learned vector per class, which is given here, so that a case says all of it.

    Args:
        weights: [D, C].
    """

    kind: Callable[..., Any]
    attribute: str  # where the loss keeps its vectors: W is [D, C], proxies is [C, D]

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.loss = self.kind(num_classes=weights.shape[1], embedding_size=weights.shape[0])
        vectors = weights.T if self.attribute == "proxies" else weights
        setattr(self.loss, self.attribute, nn.Parameter(vectors.detach().clone()))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Any:
        """The loss of embeddings [B, D] and labels [B]."""
        return self.loss(embeddings, labels)


class CosFace(WithClassWeights):
    """`CosFaceLoss` with given class vectors."""

    kind, attribute = losses.CosFaceLoss, "W"


class ArcFace(WithClassWeights):
    """`ArcFaceLoss` with given class vectors."""

    kind, attribute = losses.ArcFaceLoss, "W"


class NormalizedSoftmax(WithClassWeights):
    """`NormalizedSoftmaxLoss` with given class vectors."""

    kind, attribute = losses.NormalizedSoftmaxLoss, "W"


class ProxyAnchor(WithClassWeights):
    """`ProxyAnchorLoss` with given class vectors."""

    kind, attribute = losses.ProxyAnchorLoss, "proxies"


LABELLED = {"embeddings": TensorSpec("B D"), "labels": TensorSpec("B", domains.index("C"))}


def pairwise(
    name: str,
    implementations: Mapping[str, Callable[..., Any]],
    further: tuple[Law, ...] = (laws.nonnegative(),),
    detaches: bool = False,
    **options: object,
) -> LossSpec:
    """A loss of labelled embeddings, over all pairs or triplets of the batch."""
    return LossSpec(
        f"metric_learning.{name}",
        implementations,
        inputs=LABELLED,
        output=SCALAR,
        options=options,
        detaches=detaches,
        laws=(laws.permutation("B"), laws.permutation("D"), *further),
    )


def with_classes(kind: type[WithClassWeights], **formula: Callable[..., Any]) -> LossSpec:
    """A loss with one learned vector per class, of embeddings that are compared with these vectors alone."""
    return LossSpec(
        f"metric_learning.{kind.__name__}Loss",
        {**formula, "metric_learning": kind},
        inputs=LABELLED,
        context={"weights": TensorSpec("D C")},
        output=SCALAR,
        fixed_sizes={"C": CLASSES, "D": FEATURES},
        laws=(laws.nonnegative(), laws.permutation("B")),
    )


SPECS = (
    pairwise("ContrastiveLoss", {"formula": contrastive, "metric_learning": losses.ContrastiveLoss}),
    pairwise("TripletMarginLoss", {"formula": triplet, "metric_learning": losses.TripletMarginLoss}, margin=0.2),
    pairwise("MarginLoss", {"formula": margin_loss, "metric_learning": losses.MarginLoss}, margin=0.25, beta=1.25),
    pairwise("NTXentLoss", {"formula": ntxent, "metric_learning": losses.NTXentLoss}, temperature=0.07),
    pairwise("SupConLoss", {"formula": supcon, "metric_learning": losses.SupConLoss}, temperature=0.1),
    pairwise(
        "MultiSimilarityLoss",
        {"formula": multi_similarity, "metric_learning": losses.MultiSimilarityLoss},
        alpha=2,
        beta=50,
        base=0.5,
    ),
    pairwise("CircleLoss", {"formula": circle, "metric_learning": losses.CircleLoss}, detaches=True, m=0.4, gamma=8),
    pairwise("NCALoss", {"formula": nca, "metric_learning": losses.NCALoss}),
    pairwise("LiftedStructureLoss", {"formula": lifted_structure, "metric_learning": losses.LiftedStructureLoss}),
    pairwise("GeneralizedLiftedStructureLoss", {"metric_learning": losses.GeneralizedLiftedStructureLoss}),
    pairwise("AngularLoss", {"metric_learning": losses.AngularLoss}),
    pairwise("TupletMarginLoss", {"metric_learning": losses.TupletMarginLoss}),
    pairwise("IntraPairVarianceLoss", {"metric_learning": losses.IntraPairVarianceLoss}),
    pairwise("FastAPLoss", {"metric_learning": losses.FastAPLoss}, further=()),
    pairwise("SignalToNoiseRatioContrastiveLoss", {"metric_learning": losses.SignalToNoiseRatioContrastiveLoss}),
    with_classes(CosFace, formula=cosface),
    with_classes(ArcFace),
    with_classes(NormalizedSoftmax, formula=normalized_softmax),
    with_classes(ProxyAnchor, formula=proxy_anchor),
    LossSpec(
        "metric_learning.VICRegLoss",
        {"formula": vicreg, "metric_learning": losses.VICRegLoss},
        inputs={"embeddings": TensorSpec("B+1 D"), "ref_emb": TensorSpec("B+1 D")},
        output=SCALAR,
        differentiable=("embeddings", "ref_emb"),
        laws=(laws.nonnegative(), laws.symmetric("embeddings", "ref_emb"), laws.permutation("D")),
    ),
)
