"""Images and their representations: registration, similarity, contrast, boxes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require

losses = require("monai.losses")

SCALAR = TensorSpec("")
IMAGE = TensorSpec("B N H W", domains.interval(0.0, 1.0))
VIEWS = {"input": TensorSpec("B F"), "target": TensorSpec("B F")}
SMOOTH = 1e-5


def bending_energy(pred: Tensor) -> Tensor:
    """Mean over inner pixels of f_yy² + f_xx² + 2 f_xy² of each component, by central differences."""
    rows, columns = pred[..., 1:-1, :], pred[..., :, 1:-1]
    yy = columns[..., 2:, :] - 2 * columns[..., 1:-1, :] + columns[..., :-2, :]
    xx = rows[..., 2:] - 2 * rows[..., 1:-1] + rows[..., :-2]
    xy = (pred[..., 2:, 2:] - pred[..., 2:, :-2] - pred[..., :-2, 2:] + pred[..., :-2, :-2]) / 4
    return (yy**2 + xx**2 + 2 * xy**2).mean()


def diffusion(pred: Tensor) -> Tensor:
    """Mean over inner pixels of f_y² + f_x² of each component, by central differences."""
    y = (pred[..., 2:, 1:-1] - pred[..., :-2, 1:-1]) / 2
    x = (pred[..., 1:-1, 2:] - pred[..., 1:-1, :-2]) / 2
    return (y**2 + x**2).mean()


def local_correlation(pred: Tensor, target: Tensor) -> Tensor:
    """Minus the mean over all 3 x 3 windows (zeros beyond the border) of cov² / (var var), variances at least s."""

    def total(image: Tensor) -> Tensor:
        return 9 * F.avg_pool2d(image, 3, stride=1, padding=1)

    covariance = total(pred * target) - total(pred) * total(target) / 9
    of_pred = (total(pred**2) - total(pred) ** 2 / 9).clamp(min=SMOOTH)
    of_target = (total(target**2) - total(target) ** 2 / 9).clamp(min=SMOOTH)
    return -(covariance**2 / (of_pred * of_target)).mean()


def barlow_twins(input: Tensor, target: Tensor, lambd: float) -> Tensor:
    """Σ_i (1 - C_ii)² + λ Σ_{i≠j} C_ij² with C the correlations between features over the batch (equations 1 and 2)."""
    a, b = input - input.mean(0), target - target.mean(0)
    lengths = (torch.linalg.vector_norm(a, dim=0) + 1e-6)[:, None] * (torch.linalg.vector_norm(b, dim=0) + 1e-6)
    correlation = a.T @ b / lengths
    target_matrix = torch.eye(len(correlation), dtype=input.dtype)
    weights = target_matrix + lambd * (1 - target_matrix)
    loss: Tensor = (weights * (correlation - target_matrix) ** 2).sum()
    return loss


def contrastive(input: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Mean over all 2B views of the cross-entropy that picks the other view of the same sample, by cosine similarity."""
    views = torch.cat([input, target])
    logits = F.cosine_similarity(views[:, None], views, dim=-1) / temperature
    logits = logits.masked_fill(torch.eye(len(views), dtype=torch.bool), -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(views)).roll(len(input)))


def giou(input: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 - IoU + (hull - union) / hull over pairs of boxes (x1, y1, x2, y2)."""

    def area(low: Tensor, high: Tensor) -> Tensor:
        return (high - low).clamp(min=0).prod(1)

    low, high = torch.minimum(input, target)[:, :2], torch.maximum(input, target)[:, 2:]
    inner = area(torch.maximum(input, target)[:, :2], torch.minimum(input, target)[:, 2:])
    union = area(input[:, :2], input[:, 2:]) + area(target[:, :2], target[:, 2:]) - inner
    hull = area(low, high)
    return (1 - inner / union + (hull - union) / hull).mean()


def boxes(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Boxes (x1, y1, x2, y2) with sides between 1 and 5 in a field of 10 x 10."""
    corner, side = torch.rand((2, shape[0], 2), generator=generator, dtype=torch.float64)
    return torch.cat([5 * corner, 5 * corner + 1 + 4 * side], dim=1).to(dtype)


def jukebox(input: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of the magnitudes of the orthonormal Fourier transforms over all axes but the first."""
    of_input, of_target = (torch.fft.fftn(image, dim=(1, 2, 3), norm="ortho").abs() for image in (input, target))
    return F.mse_loss(of_input, of_target)


SPECS = (
    LossSpec(
        "monai.BendingEnergyLoss",
        {"formula": bending_energy, "monai": losses.BendingEnergyLoss},
        inputs={"pred": TensorSpec("B 2 H W")},
        output=SCALAR,
        fixed_sizes={"H": 4, "W": 5},
        laws=(laws.nonnegative(), laws.mean_over("B"), laws.translation_invariant("pred")),
    ),
    LossSpec(
        "monai.DiffusionLoss",
        {"formula": diffusion, "monai": losses.DiffusionLoss},
        inputs={"pred": TensorSpec("B 2 H W")},
        output=SCALAR,
        fixed_sizes={"H": 4, "W": 5},
        laws=(laws.nonnegative(), laws.mean_over("B"), laws.translation_invariant("pred")),
    ),
    LossSpec(
        "monai.LocalNormalizedCrossCorrelationLoss",
        {"formula": local_correlation, "monai": losses.LocalNormalizedCrossCorrelationLoss},
        inputs={"pred": IMAGE, "target": IMAGE},
        output=SCALAR,
        differentiable=("pred", "target"),
        options={"spatial_dims": 2},
        laws=(laws.symmetric("pred", "target"), laws.mean_over("B"), laws.mean_over("N")),
    ),
    LossSpec(
        "monai.GlobalMutualInformationLoss",
        {"monai": losses.GlobalMutualInformationLoss},
        inputs={"pred": IMAGE, "target": IMAGE},
        output=SCALAR,
        differentiable=("pred", "target"),
        options={"num_bins": 5},
        laws=(laws.symmetric("pred", "target"), laws.mean_over("B")),
    ),
    LossSpec(
        "monai.GlobalMutualInformationLoss-b-spline",
        {"monai": losses.GlobalMutualInformationLoss},
        inputs={"pred": IMAGE, "target": IMAGE},
        output=SCALAR,
        options={"num_bins": 8, "kernel_type": "b-spline"},
        laws=(laws.permutation("H"),),
    ),
    LossSpec(
        "monai.SSIMLoss",
        {"monai": losses.SSIMLoss},
        inputs={"input": IMAGE, "target": IMAGE},
        output=SCALAR,
        differentiable=("input", "target"),
        options={"spatial_dims": 2, "win_size": 3},
        fixed_sizes={"H": 4, "W": 5},
        laws=(
            laws.nonnegative(),
            laws.zero_when_equal("input", "target"),
            laws.symmetric("input", "target"),
            laws.mean_over("B"),
        ),
    ),
    LossSpec(
        "monai.BarlowTwinsLoss",
        {"formula": barlow_twins, "monai": losses.BarlowTwinsLoss},
        inputs=VIEWS,
        output=SCALAR,
        differentiable=("input", "target"),
        options={"lambd": 5e-3},
        fixed_sizes={"B": 4},
        laws=(laws.nonnegative(), laws.symmetric("input", "target"), laws.permutation("F")),
    ),
    LossSpec(
        "monai.ContrastiveLoss",
        {"formula": contrastive, "monai": losses.ContrastiveLoss},
        inputs=VIEWS,
        output=SCALAR,
        differentiable=("input", "target"),
        options={"temperature": 0.5},
        laws=(laws.nonnegative(), laws.symmetric("input", "target"), laws.permutation("B"), laws.permutation("F")),
    ),
    LossSpec(
        "monai.BoxGIoULoss",
        {"formula": giou, "monai": losses.BoxGIoULoss},
        inputs={
            "input": TensorSpec("B 4", domains.custom(boxes)),
            "target": TensorSpec("B 4", domains.custom(boxes)),
        },
        output=SCALAR,
        differentiable=("input", "target"),
        laws=(
            laws.nonnegative(),
            laws.zero_when_equal("input", "target"),
            laws.symmetric("input", "target"),
            laws.mean_over("B"),
        ),
    ),
    LossSpec(
        "monai.JukeboxLoss",
        {"formula": jukebox, "monai": losses.JukeboxLoss},
        inputs={"input": TensorSpec("B C H W"), "target": TensorSpec("B C H W")},
        output=SCALAR,
        differentiable=("input", "target"),
        options={"spatial_dims": 2},
        laws=(
            laws.nonnegative(),
            laws.zero_when_equal("input", "target"),
            laws.symmetric("input", "target"),
            laws.mean_over("B"),
        ),
    ),
)
