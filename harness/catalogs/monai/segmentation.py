"""Segmentation: overlap and focal losses of class maps [B, N, H, W] against one-hot labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require
from harness.declare.laws import Law

losses = require("monai.losses")
unified = require("monai.losses.unified_focal_loss")

SCALAR = TensorSpec("")
PROBABILITIES = TensorSpec("B N H W", domains.probability())
LOGITS = TensorSpec("B N H W", domains.logits())
MULTICLASS = TensorSpec("B N+1 H W", domains.logits())  # a single channel is read as a binary problem
HOT = TensorSpec("B N H W", domains.binary())
SMOOTH = 1e-5
EPSILON = 1e-7


def overlaps(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Σ p t, Σ p (1 - t) and Σ (1 - p) t over the pixels of each sample and class: [B, N]."""
    return (
        (input * target).sum((2, 3)),
        (input * (1 - target)).sum((2, 3)),
        ((1 - input) * target).sum((2, 3)),
    )


def dice_by_class(input: Tensor, target: Tensor) -> Tensor:
    """1 - (2 Σ p t + s) / (Σ p + Σ t + s) of each sample and class."""
    total = input.sum((2, 3)) + target.sum((2, 3))
    return 1 - (2 * (input * target).sum((2, 3)) + SMOOTH) / (total + SMOOTH)


def dice(input: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over samples and classes of w_c (1 - Dice)."""
    return (weight * dice_by_class(input, target)).mean()


def jaccard(input: Tensor, target: Tensor) -> Tensor:
    """Mean over samples and classes of 1 - (2 Σ p t + s) / (2 |p ∪ t| + s), the smoothing being that of the Dice loss."""
    hit, false, missed = overlaps(input, target)
    return (1 - (2 * hit + SMOOTH) / (2 * (hit + false + missed) + SMOOTH)).mean()


def masked_dice(input: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """The Dice loss of input and target, both zero where the mask is."""
    return dice_by_class(input * mask, target * mask).mean()


def dice_ce(input: Tensor, target: Tensor) -> Tensor:
    """The Dice loss of the softmax plus the cross-entropy of the logits."""
    cross_entropy = -(target * input.log_softmax(1)).sum(1).mean()
    return dice_by_class(input.softmax(1), target).mean() + cross_entropy


def focal_by_pixel(input: Tensor, target: Tensor) -> Tensor:
    """(1 - p_t)^2 (-log p_t) of the sigmoid probability p_t of what the target says."""
    logits = torch.where(target == 1, input, -input)
    return torch.sigmoid(-logits) ** 2 * -F.logsigmoid(logits)


def focal(input: Tensor, target: Tensor) -> Tensor:
    """Mean over all elements of (1 - p_t)^2 (-log p_t)."""
    return focal_by_pixel(input, target).mean()


def focal_softmax(input: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over all elements of w_c t (1 - p)^2 (-log p) with p the softmax over the classes."""
    log_p = input.log_softmax(1)
    return (weight[:, None, None] * target * (1 - log_p.exp()) ** 2 * -log_p).mean()


def dice_focal(input: Tensor, target: Tensor) -> Tensor:
    """The Dice loss of the sigmoid plus the focal loss of the logits."""
    return dice_by_class(input.sigmoid(), target).mean() + focal_by_pixel(input, target).mean()


def generalized_dice(input: Tensor, target: Tensor) -> Tensor:
    """1 - (2 Σ_c w_c Σ p t + s) / (Σ_c w_c (Σ p + Σ t) + s), w_c = 1 / (Σ t)²; that of an absent class is the largest."""
    volume = target.sum((2, 3))
    weights = torch.where(volume > 0, volume.clamp(min=1) ** -2, 0)
    weights = torch.where(volume > 0, weights, weights.amax(1, keepdim=True))
    hit, total = (input * target).sum((2, 3)), (input + target).sum((2, 3))
    return (1 - (2 * (weights * hit).sum(1) + SMOOTH) / ((weights * total).sum(1) + SMOOTH)).mean()


def tversky(input: Tensor, target: Tensor, alpha: float, beta: float) -> Tensor:
    """Mean over samples and classes of 1 - (Σ p t + s) / (Σ p t + α Σ p (1 - t) + β Σ (1 - p) t + s)."""
    hit, false, missed = overlaps(input, target)
    return (1 - (hit + SMOOTH) / (hit + alpha * false + beta * missed + SMOOTH)).mean()


def asymmetric_unified_focal(y_pred: Tensor, y_true: Tensor) -> Tensor:
    """Half of the asymmetric focal loss plus half of the asymmetric focal Tversky loss, of the sigmoid of the logits."""
    p = y_pred.sigmoid().clamp(EPSILON, 1 - EPSILON)
    delta, gamma = 0.7, 0.5
    cross_entropy = -y_true * p.log()
    focal_terms = torch.stack([(1 - delta) * (1 - p[:, 0]) ** gamma * cross_entropy[:, 0], delta * cross_entropy[:, 1]])
    hit, false, missed = overlaps(p, y_true)
    tversky_terms = 1 - (hit + EPSILON) / (hit + delta * missed + (1 - delta) * false + EPSILON)
    return (focal_terms.mean() + (tversky_terms[:, 0] + tversky_terms[:, 1] ** (1 - gamma)).mean() / 2) / 2


def mcc(input: Tensor, target: Tensor) -> Tensor:
    """Mean over samples and classes of 1 - (TP TN - FP FN) / √((TP+FP)(TP+FN)(TN+FP)(TN+FN) + s)."""
    hit, false, missed = overlaps(input, target)
    true = ((1 - input) * (1 - target)).sum((2, 3))
    product = (hit + false) * (hit + missed) * (true + false) * (true + missed)
    return (1 - (hit * true - false * missed) / (product + SMOOTH).sqrt()).mean()


def nacl(inputs: Tensor, targets: Tensor, classes: int, alpha: float) -> Tensor:
    """Cross-entropy + α mean |logits - share of each class in the 3 x 3 neighbourhood|."""
    hot = F.one_hot(targets, classes).movedim(-1, 1).to(inputs.dtype)
    shares = F.avg_pool2d(hot, 3, stride=1, padding=1)
    return F.cross_entropy(inputs, targets) + alpha * (shares - inputs).abs().mean()


class DeeplySupervisedDice(nn.Module):
    """`DeepSupervisionLoss` around the Dice loss, of two levels with the weights 1 and 1/2."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = losses.DeepSupervisionLoss(losses.DiceLoss())

    def forward(self, fine: Tensor, coarse: Tensor, target: Tensor) -> Any:
        """The loss of both levels against one target."""
        return self.loss([fine, coarse], target)


def deep_dice(fine: Tensor, coarse: Tensor, target: Tensor) -> Tensor:
    """The Dice loss at full size plus half of that at half size, the target being sampled down to it."""
    return dice_by_class(fine, target).mean() + dice_by_class(coarse, target[..., 1::2, 1::2]).mean() / 2


def overlap(
    name: str,
    implementations: Mapping[str, Callable[..., Any]],
    *,
    logits: bool = False,
    weighted: bool = False,
    further: tuple[Law, ...] = (),
    **options: object,
) -> LossSpec:
    """A segmentation loss of images that are independent of each other: B N H W against one-hot labels."""
    return LossSpec(
        f"monai.{name}",
        implementations,
        inputs={"input": LOGITS if logits else PROBABILITIES, "target": HOT},
        context={"weight": TensorSpec("N", domains.nonnegative())} if weighted else {},
        output=SCALAR,
        options=options,
        laws=(laws.nonnegative(), laws.mean_over("B"), laws.permutation("H"), *further),
    )


BY_CLASS = (laws.mean_over("N"),)
WEIGHTED = (laws.linear_in("weight"),)

SPECS = (
    overlap("DiceLoss", {"formula": dice, "monai": losses.DiceLoss}, weighted=True, further=WEIGHTED),
    overlap("DiceLoss-jaccard", {"formula": jaccard, "monai": losses.DiceLoss}, further=BY_CLASS, jaccard=True),
    overlap("DiceCELoss", {"formula": dice_ce, "monai": losses.DiceCELoss}, logits=True, softmax=True).replace(
        inputs={"input": MULTICLASS, "target": TensorSpec("B N+1 H W", domains.simplex(axis=1))}
    ),
    overlap("DiceFocalLoss", {"formula": dice_focal, "monai": losses.DiceFocalLoss}, logits=True, sigmoid=True),
    overlap("GeneralizedDiceLoss", {"formula": generalized_dice, "monai": losses.GeneralizedDiceLoss}),
    overlap(
        "FocalLoss",
        {"formula": focal, "monai": losses.FocalLoss},
        logits=True,
        further=BY_CLASS,
        reduction="mean",
    ),
    overlap(
        "FocalLoss-softmax",
        {"formula": focal_softmax, "monai": losses.FocalLoss},
        logits=True,
        further=WEIGHTED,
        weighted=True,
        use_softmax=True,
    ).replace(
        inputs={"input": MULTICLASS, "target": TensorSpec("B N+1 H W", domains.binary())},
        context={"weight": TensorSpec("N+1", domains.nonnegative())},
    ),
    overlap(
        "TverskyLoss",
        {"formula": tversky, "monai": losses.TverskyLoss},
        further=BY_CLASS,
        alpha=0.3,
        beta=0.7,
    ),
    overlap("MCCLoss", {"formula": mcc, "monai": losses.MCCLoss}, further=BY_CLASS),
    overlap("SoftclDiceLoss", {"monai": losses.SoftclDiceLoss}).replace(laws=(laws.nonnegative(), laws.mean_over("B"))),
    LossSpec(
        "monai.MaskedDiceLoss",
        {"formula": masked_dice, "monai": losses.MaskedDiceLoss},
        inputs={"input": PROBABILITIES, "target": HOT, "mask": TensorSpec("B 1 H W", domains.binary())},
        output=SCALAR,
        laws=(laws.nonnegative(), laws.mean_over("B"), laws.zero_weight_removes("mask")),
    ),
    LossSpec(
        "monai.DeepSupervisionLoss",
        {"formula": deep_dice, "monai": DeeplySupervisedDice},
        inputs={"fine": PROBABILITIES, "coarse": TensorSpec("B N h w", domains.probability()), "target": HOT},
        output=SCALAR,
        differentiable=("fine", "coarse"),
        fixed_sizes={"H": 4, "W": 6, "h": 2, "w": 3},
        laws=(laws.nonnegative(), laws.mean_over("B")),
    ),
    LossSpec(
        "monai.AsymmetricUnifiedFocalLoss",
        {"formula": asymmetric_unified_focal, "monai": losses.AsymmetricUnifiedFocalLoss},
        inputs={
            "y_pred": TensorSpec("B 2 H W", domains.logits()),
            "y_true": TensorSpec("B 2 H W", domains.binary()),
        },
        output=SCALAR,
        laws=(laws.nonnegative(), laws.permutation("B")),
    ),
    LossSpec(
        "monai.AsymmetricFocalTverskyLoss",
        {"monai": unified.AsymmetricFocalTverskyLoss},
        inputs={
            "y_pred": TensorSpec("B 2 H W", domains.probability()),
            "y_true": TensorSpec("B 2 H W", domains.binary()),
        },
        output=SCALAR,
        laws=(laws.nonnegative(), laws.mean_over("B")),
    ),
    LossSpec(
        "monai.NACLLoss",
        {"formula": nacl, "monai": losses.NACLLoss},
        inputs={"inputs": TensorSpec("B C H W", domains.logits()), "targets": TensorSpec("B H W", domains.index("C"))},
        output=SCALAR,
        options={"classes": 3, "dim": 2, "alpha": 0.1},
        fixed_sizes={"C": 3},
        laws=(laws.nonnegative(), laws.mean_over("B")),
    ),
)
