"""The losses of kornia, declared as their documentation says; most stand beside a short form of the documented formula.

Source: https://kornia.readthedocs.io/en/latest/losses.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require
from harness.declare.laws import Law

losses = require("kornia.losses")

SCALAR = TensorSpec("")
LOGITS = TensorSpec("B C H W", domains.logits())
LABELS = TensorSpec("B H W", domains.index("C"))
LABELS_OR_IGNORED = TensorSpec("B H W", domains.index("C", ignore=-100))
IMAGE = TensorSpec("B C H W", domains.interval(0.0, 1.0))

IMAGE_SIZES = {"H": 5, "W": 7}


def cauchy(img1: Tensor, img2: Tensor) -> Tensor:
    """Mean of log(1/2 (x - y)² + 1)."""
    return (0.5 * (img1 - img2) ** 2 + 1).log().mean()


def charbonnier(img1: Tensor, img2: Tensor) -> Tensor:
    """Mean of √((x - y)² + 1) - 1."""
    return (((img1 - img2) ** 2 + 1).sqrt() - 1).mean()


def geman_mcclure(img1: Tensor, img2: Tensor) -> Tensor:
    """Mean of 2 (x - y)² / ((x - y)² + 4)."""
    squares = (img1 - img2) ** 2
    return (2 * squares / (squares + 4)).mean()


def welsch(img1: Tensor, img2: Tensor) -> Tensor:
    """Mean of 1 - exp(-1/2 (x - y)²)."""
    return (1 - (-0.5 * (img1 - img2) ** 2).exp()).mean()


def focal(pred: Tensor, target: Tensor, weight: Tensor, alpha: float, gamma: float) -> Tensor:
    """Mean over all B · C · H · W elements of -w_t α_t (1 - p_t)^γ log p_t, where α_t is 1 - α for class 0."""
    kept = target != -100
    classes = target.where(kept, 0)
    log_p = pred.log_softmax(1).gather(1, classes[:, None])[:, 0]
    alpha_t = torch.where(classes == 0, 1 - alpha, alpha).to(pred.dtype)
    return -(kept * weight[classes] * alpha_t * (1 - log_p.exp()) ** gamma * log_p).sum() / pred.numel()


def binary_focal(
    pred: Tensor, target: Tensor, pos_weight: Tensor, weight: Tensor, alpha: float, gamma: float
) -> Tensor:
    """Mean of w_c (t α v_c (1 - p)^γ (-log p) + (1 - t) (1 - α) p^γ (-log (1 - p))), v the weight of positives."""
    v, w = pos_weight[:, None, None], weight[:, None, None]
    positive = alpha * v * torch.sigmoid(-pred) ** gamma * -torch.nn.functional.logsigmoid(pred)
    negative = (1 - alpha) * torch.sigmoid(pred) ** gamma * -torch.nn.functional.logsigmoid(-pred)
    return (w * (target * positive + (1 - target) * negative)).mean()


def one_hot(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax probabilities and one-hot targets, both zero at pixels that are ignored."""
    kept = (target != -100)[:, None]
    hot = torch.nn.functional.one_hot(target.clamp(min=0), pred.shape[1]).movedim(-1, 1)
    return pred.softmax(1) * kept, hot.to(pred.dtype) * kept


def dice_micro(pred: Tensor, target: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Mean over samples of 1 - 2 Σ w_c |X_c ∩ Y_c| / (Σ w_c (|X_c| + |Y_c|) + ε)."""
    x, y = one_hot(pred, target)
    w = weight[:, None, None]
    return (1 - 2 * (w * x * y).sum((1, 2, 3)) / ((w * (x + y)).sum((1, 2, 3)) + eps)).mean()


def tversky_by_class(x: Tensor, y: Tensor, alpha: float, beta: float, eps: float) -> Tensor:
    """|PG| / (|PG| + α |P \\ G| + β |G \\ P| + ε) for each sample and class."""
    hit, false, missed = (x * y).sum((2, 3)), (x * (1 - y)).sum((2, 3)), ((1 - x) * y).sum((2, 3))
    return hit / (hit + alpha * false + beta * missed + eps)


def tversky(pred: Tensor, target: Tensor, alpha: float, beta: float, eps: float) -> Tensor:
    """Mean over samples of 1 - the mean of the Tversky index over the classes that are present in the sample."""
    x, y = one_hot(pred, target)
    present = (y.sum((2, 3)) > 0).to(pred.dtype)
    index = (tversky_by_class(x, y, alpha, beta, eps) * present).sum(1) / present.sum(1).clamp(min=1)
    return (1 - index).mean()


def dice_macro(pred: Tensor, target: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Mean over samples of Σ w_c (1 - Dice_c) / Σ w_c over the classes that are present in the sample; 1 where none is."""
    x, y = one_hot(pred, target)
    w = weight * (y.sum((2, 3)) > 0)
    loss = 1 - 2 * (x * y).sum((2, 3)) / ((x + y).sum((2, 3)) + eps)
    total = w.sum(1)
    return torch.where(total > 0, (w * loss).sum(1) / total.where(total > 0, 1), 1.0).mean()


def lovasz_extension(errors: Tensor, truth: Tensor) -> Tensor:
    """Σ_i e_(i) (Δ({1..i}) - Δ({1..i-1})) with errors in falling order and Δ the Jaccard loss of a set of mistakes."""
    order = errors.argsort(descending=True)
    missed, invented = truth[order].cumsum(0), (1 - truth[order]).cumsum(0)
    jaccard = 1 - (truth.sum() - missed) / (truth.sum() + invented)
    return (errors[order] * jaccard.diff(prepend=torch.zeros_like(jaccard[:1]))).sum()


def lovasz_hinge(pred: Tensor, target: Tensor) -> Tensor:
    """Mean over images of the Lovász extension of the Jaccard loss at the hinge errors max(0, 1 - z (2t - 1))."""
    truth = target.to(pred.dtype).flatten(1)
    errors = (1 - pred.flatten(1) * (2 * truth - 1)).relu()
    return torch.stack([lovasz_extension(e, t) for e, t in zip(errors, truth, strict=True)]).mean()


def lovasz_softmax(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over images and classes of w_c times the Lovász extension at the errors |softmax - one-hot|."""
    x, y = one_hot(pred, target)
    terms = [
        weight[c] * lovasz_extension((x[b, c] - y[b, c]).abs().flatten(), y[b, c].flatten())
        for b in range(len(x))
        for c in range(x.shape[1])
    ]
    return torch.stack(terms).mean()


def psnr(image: Tensor, target: Tensor, max_val: float) -> Tensor:
    """-10 log₁₀(max² / MSE)."""
    return -10 * (max_val**2 / ((image - target) ** 2).mean()).log10()


def total_variation(img: Tensor) -> Tensor:
    """Σ |∂_y I| + Σ |∂_x I| of each image and channel."""
    return img.diff(dim=-2).abs().sum((-2, -1)) + img.diff(dim=-1).abs().sum((-2, -1))


def kl_div(pred: Tensor, target: Tensor) -> Tensor:
    """Mean over images and channels of Σ t (log t - log p), 0 log 0 = 0."""
    divergence = torch.xlogy(target, target) - target * pred.log()
    return divergence.sum((-2, -1)).mean()


def js_div(pred: Tensor, target: Tensor) -> Tensor:
    """Half of KL(t ‖ m) + KL(p ‖ m) with m = (p + t) / 2."""
    middle = (pred + target) / 2
    return (kl_div(middle, target) + kl_div(middle, pred)) / 2


def depth_smoothness(idepth: Tensor, image: Tensor) -> Tensor:
    """Σ over x and y of mean |∂ d| exp(-mean_c |∂ I|), with forward differences."""
    loss = idepth.new_zeros(())
    for axis in (-1, -2):
        depth, edges = idepth.diff(dim=axis).abs(), image.diff(dim=axis).abs().mean(1, keepdim=True)
        loss = loss + (depth * (-edges).exp()).mean()
    return loss


def heatmaps(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Each image and channel is a distribution over H x W."""
    values = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1
    return (values / values.sum((-2, -1), keepdim=True)).to(dtype)


def pixelwise(name: str, formula: Callable[..., Tensor], function: Callable[..., Tensor]) -> LossSpec:
    """A robust loss of the residual, mean over all elements."""
    return LossSpec(
        name,
        {"formula": formula, "kornia": function},
        inputs={"img1": TensorSpec("B *rest"), "img2": TensorSpec("B *rest")},
        output=SCALAR,
        differentiable=("img1", "img2"),
        options={"reduction": "mean"},
        laws=(
            laws.nonnegative(),
            laws.zero_when_equal("img1", "img2"),
            laws.symmetric("img1", "img2"),
            laws.mean_over("B"),
        ),
    )


def segmentation(
    name: str,
    implementations: Mapping[str, Callable[..., Any]],
    *,
    target: TensorSpec = LABELS_OR_IGNORED,
    weighted: bool = True,
    further: tuple[Law, ...] = (),
    **options: object,
) -> LossSpec:
    """A loss of class logits and labels, of images that are independent of each other."""
    shared = (laws.nonnegative(), laws.mean_over("B"), laws.permutation("H"), laws.translation_invariant("pred"))
    return LossSpec(
        name,
        implementations,
        inputs={"pred": LOGITS, "target": target},
        context={"weight": TensorSpec("C", domains.positive())} if weighted else {},
        output=SCALAR,
        options=options,
        laws=shared + further,
    )


WEIGHTED_SUM = (laws.linear_in("weight"),)
WEIGHTED_MEAN = (laws.permutation("C"),)

SPECS = (
    pixelwise("kornia.cauchy_loss", cauchy, losses.cauchy_loss),
    pixelwise("kornia.charbonnier_loss", charbonnier, losses.charbonnier_loss),
    pixelwise("kornia.geman_mcclure_loss", geman_mcclure, losses.geman_mcclure_loss),
    pixelwise("kornia.welsch_loss", welsch, losses.welsch_loss),
    segmentation(
        "kornia.focal_loss",
        {"formula": focal, "kornia": losses.focal_loss},
        further=WEIGHTED_SUM,
        alpha=0.25,
        gamma=2.0,
        reduction="mean",
    ),
    LossSpec(
        "kornia.binary_focal_loss_with_logits",
        {"formula": binary_focal, "kornia": losses.binary_focal_loss_with_logits},
        inputs={"pred": LOGITS, "target": TensorSpec("B C H W", domains.probability())},
        context={
            "pos_weight": TensorSpec("C", domains.nonnegative()),
            "weight": TensorSpec("C", domains.nonnegative()),
        },
        output=SCALAR,
        options={"alpha": 0.25, "gamma": 2.0, "reduction": "mean"},
        laws=(
            laws.nonnegative(),
            laws.mean_over("B"),
            laws.mean_over("C"),
            laws.linear_in("weight"),
            laws.zero_weight_removes("weight"),
        ),
    ),
    segmentation(
        "kornia.dice_loss_micro",
        {"formula": dice_micro, "kornia": losses.dice_loss},
        further=WEIGHTED_MEAN,
        average="micro",
        eps=1e-8,
    ),
    segmentation(
        "kornia.dice_loss_macro",
        {"formula": dice_macro, "kornia": losses.dice_loss},
        further=(*WEIGHTED_MEAN, laws.scale_invariant("weight")),
        average="macro",
        eps=1e-8,
    ),
    segmentation(
        "kornia.tversky_loss",
        {"formula": tversky, "kornia": losses.tversky_loss},
        weighted=False,
        further=(laws.permutation("C"),),
        alpha=0.3,
        beta=0.7,
        eps=1e-8,
    ),
    LossSpec(
        "kornia.lovasz_hinge_loss",
        {"formula": lovasz_hinge, "kornia": losses.lovasz_hinge_loss},
        inputs={
            "pred": TensorSpec("B 1 H W", domains.logits()),
            "target": TensorSpec("B H W", domains.boolean(dtype=torch.int64)),
        },
        output=SCALAR,
        laws=(laws.nonnegative(), laws.mean_over("B"), laws.permutation("H")),
    ),
    segmentation(
        "kornia.lovasz_softmax_loss",
        {"formula": lovasz_softmax, "kornia": losses.lovasz_softmax_loss},
        target=LABELS,
        further=(*WEIGHTED_SUM, laws.permutation("C")),
    ).replace(fixed_sizes={"C": 3}),  # one class is refused
    LossSpec(
        "kornia.ssim_loss",
        {"kornia": losses.ssim_loss},
        inputs={"img1": IMAGE, "img2": IMAGE},
        output=SCALAR,
        differentiable=("img1", "img2"),
        options={"window_size": 3, "reduction": "mean"},
        fixed_sizes=IMAGE_SIZES,
        laws=(
            laws.nonnegative(),
            laws.symmetric("img1", "img2"),
            laws.mean_over("B"),
            laws.mean_over("C"),
        ),
    ),
    LossSpec(
        "kornia.ms_ssim_loss",
        {"kornia": losses.MS_SSIMLoss},
        inputs={"img1": IMAGE, "img2": IMAGE},
        output=SCALAR,
        differentiable=("img1", "img2"),
        options={"sigmas": (0.5, 1.0, 2.0), "reduction": "mean"},
        fixed_sizes=IMAGE_SIZES,
        laws=(
            laws.nonnegative(),
            laws.zero_when_equal("img1", "img2"),
            laws.symmetric("img1", "img2"),
            laws.mean_over("B"),
            laws.mean_over("C"),
        ),
    ),
    LossSpec(
        "kornia.psnr_loss",
        {"formula": psnr, "kornia": losses.psnr_loss},
        inputs={"image": TensorSpec("B *rest"), "target": TensorSpec("B *rest")},
        output=SCALAR,
        differentiable=("image", "target"),
        options={"max_val": 1.0},
        laws=(laws.symmetric("image", "target"), laws.permutation("B")),
        waivers={"G08": "documented: identical inputs give -inf"},
    ),
    LossSpec(
        "kornia.total_variation",
        {"formula": total_variation, "kornia": losses.total_variation},
        inputs={"img": TensorSpec("B C H W")},
        output=TensorSpec("B C"),
        laws=(laws.nonnegative(), laws.translation_invariant("img")),
    ),
    LossSpec(
        "kornia.kl_div_loss_2d",
        {"formula": kl_div, "kornia": losses.kl_div_loss_2d},
        inputs={
            "pred": TensorSpec("B N H W", domains.custom(heatmaps)),
            "target": TensorSpec("B N H W", domains.custom(heatmaps)),
        },
        output=SCALAR,
        differentiable=("pred", "target"),
        laws=(laws.nonnegative(), laws.zero_when_equal("pred", "target"), laws.mean_over("B"), laws.mean_over("N")),
    ),
    LossSpec(
        "kornia.js_div_loss_2d",
        {"formula": js_div, "kornia": losses.js_div_loss_2d},
        inputs={
            "pred": TensorSpec("B N H W", domains.custom(heatmaps)),
            "target": TensorSpec("B N H W", domains.custom(heatmaps)),
        },
        output=SCALAR,
        differentiable=("pred", "target"),
        laws=(
            laws.nonnegative(),
            laws.zero_when_equal("pred", "target"),
            laws.symmetric("pred", "target"),
            laws.mean_over("B"),
        ),
    ),
    LossSpec(
        "kornia.inverse_depth_smoothness_loss",
        {"formula": depth_smoothness, "kornia": losses.inverse_depth_smoothness_loss},
        inputs={
            "idepth": TensorSpec("B 1 H W", domains.positive()),
            "image": TensorSpec("B 3 H W", domains.probability()),
        },
        output=SCALAR,
        differentiable=("idepth", "image"),
        fixed_sizes=IMAGE_SIZES,
        laws=(laws.nonnegative(), laws.mean_over("B")),
    ),
    LossSpec(
        "kornia.hausdorff_er_loss",
        {"kornia": losses.HausdorffERLoss},
        inputs={
            "pred": TensorSpec("B C H W", domains.probability()),
            "target": TensorSpec("B 1 H W", domains.index("C")),
        },
        output=SCALAR,
        options={"k": 3},
        laws=(laws.nonnegative(), laws.mean_over("B")),
    ),
    LossSpec(
        "kornia.mutual_information_loss",
        {"kornia": losses.mutual_information_loss},
        inputs={"input": TensorSpec("B N"), "target": TensorSpec("B N")},
        output=TensorSpec("B"),
        differentiable=("input", "target"),
        options={"num_bins": 8},
        laws=(laws.symmetric("input", "target"), laws.permutation("N")),
    ),
)
