"""torch.nn's losses and further forms of the functional ones, declared as their documentation says."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from harness import LossSpec, TensorSpec, domains, laws

SCALAR = TensorSpec("")
REAL = {"input": TensorSpec("B *rest"), "target": TensorSpec("B *rest")}
CLASSES = {"input": TensorSpec("B C", domains.logits()), "target": TensorSpec("B", domains.index("C"))}
IGNORED = {"input": TensorSpec("B C", domains.logits()), "target": TensorSpec("B", domains.index("C", ignore=-100))}
LABELS = {"input": TensorSpec("B C", domains.logits()), "target": TensorSpec("B C", domains.binary())}
SIGNS = {"input1": TensorSpec("B D"), "input2": TensorSpec("B D"), "target": TensorSpec("B", domains.sign())}
TRIPLET = {"anchor": TensorSpec("B D"), "positive": TensorSpec("B D"), "negative": TensorSpec("B D")}


def spec(loss: Any, inputs: dict[str, TensorSpec], name: str | None = None, **more: Any) -> LossSpec:
    """One implementation under its own name, with a scalar output."""
    label = name or loss.__name__
    return LossSpec(label, {label: loss}, inputs=inputs, **{"output": SCALAR, **more})


def _labels_without_blank(shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
    return torch.randint(1, 4, shape, generator=generator).to(dtype)


def _multilabels(shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
    """Distinct class indices, then -1: the form of multilabel_margin_loss."""
    labels = torch.rand(shape, generator=generator).argsort(-1)
    position = torch.arange(shape[-1]).expand(shape)
    return torch.where(position < max(shape[-1] // 2, 1), labels, -1).to(dtype)


def ctc_loss(log_probs: Tensor, targets: Tensor) -> Tensor:
    """All sequences at full length."""
    steps, batch, _ = log_probs.shape
    lengths = (torch.full((batch,), steps), torch.full((batch,), targets.shape[1]))
    return F.ctc_loss(log_probs.log_softmax(-1), targets.long(), *lengths, zero_infinity=True)


def multilabel_margin_loss(input: Tensor, target: Tensor) -> Tensor:
    return F.multilabel_margin_loss(input, target.long())


MODULES = (
    spec(nn.MSELoss, REAL, laws=(laws.symmetric("input", "target"), laws.mean_over("B"))),
    spec(nn.L1Loss, REAL, laws=(laws.symmetric("input", "target"),)),
    spec(nn.SmoothL1Loss, REAL, options={"beta": 0.5}),
    spec(nn.HuberLoss, REAL, options={"delta": 1.5}),
    spec(
        nn.CrossEntropyLoss,
        CLASSES,
        context={"weight": TensorSpec("C", domains.positive())},
        laws=(laws.scale_invariant("weight"),),
    ),
    spec(nn.NLLLoss, {**CLASSES, "input": TensorSpec("B C")}, context={"weight": TensorSpec("C", domains.positive())}),
    spec(
        nn.PoissonNLLLoss,
        {"log_input": TensorSpec("B"), "target": TensorSpec("B", domains.nonnegative())},
        name="PoissonNLLLoss",
    ),
    spec(
        nn.GaussianNLLLoss,
        {"input": TensorSpec("B D"), "target": TensorSpec("B D"), "var": TensorSpec("B D", domains.positive())},
        differentiable=("input", "var"),
    ),
    spec(
        nn.KLDivLoss,
        {"input": TensorSpec("B C"), "target": TensorSpec("B C", domains.simplex(axis=1))},
        options={"reduction": "batchmean"},
    ),
    spec(
        nn.BCELoss, {"input": TensorSpec("B C", domains.probability()), "target": TensorSpec("B C", domains.binary())}
    ),
    spec(
        nn.BCEWithLogitsLoss,
        LABELS,
        context={"pos_weight": TensorSpec("C", domains.positive())},
        laws=(laws.mean_over("B"),),
    ),
    spec(
        nn.MarginRankingLoss,
        {**SIGNS, "input1": TensorSpec("B"), "input2": TensorSpec("B")},
        differentiable=("input1", "input2"),
    ),
    spec(nn.HingeEmbeddingLoss, {"input": TensorSpec("B"), "target": TensorSpec("B", domains.sign())}),
    spec(nn.SoftMarginLoss, {"input": TensorSpec("B"), "target": TensorSpec("B", domains.sign())}),
    spec(nn.MultiLabelSoftMarginLoss, LABELS),
    spec(
        nn.CosineEmbeddingLoss, SIGNS, differentiable=("input1", "input2"), laws=(laws.symmetric("input1", "input2"),)
    ),
    spec(nn.MultiMarginLoss, CLASSES, laws=(laws.nonnegative(),)),
    spec(nn.TripletMarginLoss, TRIPLET, differentiable=tuple(TRIPLET), laws=(laws.nonnegative(),)),
    spec(nn.TripletMarginWithDistanceLoss, TRIPLET, differentiable=tuple(TRIPLET)),
)

FUNCTIONAL = (
    spec(F.mse_loss, REAL, name="mse_loss_sum", options={"reduction": "sum"}, laws=(laws.sum_over("B"),)),
    spec(F.mse_loss, REAL, name="mse_loss_none", options={"reduction": "none"}, output=TensorSpec("B *rest")),
    spec(F.l1_loss, REAL, name="l1_loss_none", options={"reduction": "none"}, output=TensorSpec("B *rest")),
    spec(F.mse_loss, REAL, name="mse_loss_weight", context={"weight": TensorSpec("B *rest", domains.nonnegative())}),
    spec(F.huber_loss, REAL, name="huber_loss_sum", options={"reduction": "sum"}, laws=(laws.sum_over("B"),)),
    spec(
        F.cross_entropy,
        CLASSES,
        name="cross_entropy_plain",
        laws=(laws.mean_over("B"), laws.translation_invariant("input")),
    ),
    spec(
        F.cross_entropy,
        CLASSES,
        name="cross_entropy_smoothed",
        options={"label_smoothing": 0.1},
        laws=(laws.mean_over("B"),),
    ),
    spec(F.cross_entropy, CLASSES, name="cross_entropy_sum", options={"reduction": "sum"}, laws=(laws.sum_over("B"),)),
    spec(F.cross_entropy, CLASSES, name="cross_entropy_none", options={"reduction": "none"}, output=TensorSpec("B")),
    spec(
        F.cross_entropy,
        IGNORED,
        name="cross_entropy_ignored_weighted",
        context={"weight": TensorSpec("C", domains.positive())},
        laws=(laws.permutation("B"),),
    ),
    spec(
        F.nll_loss, {"input": TensorSpec("B C S"), "target": TensorSpec("B S", domains.index("C"))}, name="nll_loss_2d"
    ),
    spec(
        F.kl_div,
        {"input": TensorSpec("B C"), "target": TensorSpec("B C")},
        name="kl_div_log_target",
        options={"reduction": "sum", "log_target": True},
        laws=(laws.sum_over("B"),),
    ),
    spec(
        F.poisson_nll_loss,
        {"input": TensorSpec("B", domains.positive()), "target": TensorSpec("B", domains.nonnegative())},
        name="poisson_nll_rate",
        options={"log_input": False},
    ),
    spec(
        F.poisson_nll_loss,
        {"input": TensorSpec("B"), "target": TensorSpec("B", domains.nonnegative())},
        name="poisson_nll_full",
        options={"full": True},
    ),
    spec(F.smooth_l1_loss, REAL, name="smooth_l1_wide", options={"beta": 2.0}, laws=(laws.mean_over("B"),)),
    spec(
        F.binary_cross_entropy_with_logits,
        LABELS,
        name="bce_with_logits_weighted",
        context={"weight": TensorSpec("B C", domains.nonnegative())},
        laws=(laws.linear_in("weight"), laws.zero_weight_removes("weight")),
    ),
    spec(F.multi_margin_loss, CLASSES, name="multi_margin_squared", options={"p": 2}),
    spec(F.triplet_margin_loss, TRIPLET, name="triplet_swap", options={"swap": True}, differentiable=tuple(TRIPLET)),
    spec(
        multilabel_margin_loss, {"input": TensorSpec("B C"), "target": TensorSpec("B C", domains.custom(_multilabels))}
    ),
    spec(
        ctc_loss,
        {"log_probs": TensorSpec("T B C"), "targets": TensorSpec("B S", domains.custom(_labels_without_blank))},
        fixed_sizes={"T": 7, "C": 4, "S": 2},
        laws=(laws.permutation("B"),),
    ),
    spec(
        F.cosine_similarity,
        {"x1": TensorSpec("B D"), "x2": TensorSpec("B D")},
        output=TensorSpec("B"),
        differentiable=("x1", "x2"),
    ),
    spec(
        F.pairwise_distance,
        {"x1": TensorSpec("B D"), "x2": TensorSpec("B D")},
        output=TensorSpec("B"),
        differentiable=("x1", "x2"),
    ),
)

SPECS = (*MODULES, *FUNCTIONAL)
