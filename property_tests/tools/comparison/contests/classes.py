"""Losses of logits: costs of decisions, priors, a stored teacher, and focal losses of third-party packages."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from harness import domains
from harness.declare.tensor_spec import TensorSpec
from losses import cost_matrix_cross_entropy, distillation, focal, logit_adjustment
from losses.cost_matrix_cross_entropy import CostMatrixCrossEntropyLoss
from losses.distillation import DistillationLoss
from losses.focal import FocalLoss
from losses.logit_adjustment import LogitAdjustmentLoss
from property_tests.tools.comparison.contest import OURS, Contestant, ahead, contest

GAMMA = 2.0
TEMPERATURE = 2.0


def two_softmaxes(logits: Tensor, labels: Tensor, costs: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels) + (costs[labels] * logits.softmax(1)).sum(1).mean()


def added_priors(logits: Tensor, labels: Tensor, priors: Tensor) -> Tensor:
    return functional.cross_entropy(logits + priors.log(), labels)


def kl_div(logits: Tensor, indices: Tensor, teacher_logits: Tensor) -> Tensor:
    mine = (logits / TEMPERATURE).log_softmax(1)
    theirs = (teacher_logits[indices] / TEMPERATURE).softmax(1)
    return functional.kl_div(mine, theirs, reduction="batchmean") * TEMPERATURE**2


def faded_cross_entropy(logits: Tensor, labels: Tensor, alpha: Tensor) -> Tensor:
    cross_entropy = functional.cross_entropy(logits, labels, reduction="none")
    return (alpha[labels] * (1 - torch.exp(-cross_entropy)) ** GAMMA * cross_entropy).mean()


def one_hot(logits: Tensor, labels: Tensor, alpha: Tensor) -> Tensor:
    log_p = logits.log_softmax(1)
    chosen = functional.one_hot(labels, logits.shape[1])
    return -(chosen * alpha * (1 - log_p.exp()) ** GAMMA * log_p).sum(1).mean()


class KorniaFocal(nn.Module):
    def __init__(self, alpha: Tensor) -> None:
        super().__init__()
        from kornia.losses import focal_loss

        self.alpha, self._focal_loss = alpha, focal_loss

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        total = self._focal_loss(logits, labels, alpha=None, gamma=GAMMA, reduction="sum", weight=self.alpha)
        return total / len(logits)


class KorniaFocalUnweighted(KorniaFocal):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self._focal_loss(logits, labels, alpha=None, gamma=GAMMA, reduction="sum") / len(logits)


class MonaiFocal(nn.Module):
    def __init__(self, alpha: Tensor) -> None:
        super().__init__()
        from monai.losses import FocalLoss as Theirs

        self.loss = Theirs(to_onehot_y=True, use_softmax=True, gamma=GAMMA, weight=alpha)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.loss(logits, labels.unsqueeze(1)) * logits.shape[1]


class TorchFocal(nn.Module):
    def __init__(self, alpha: Tensor) -> None:
        super().__init__()
        from focal_loss.focal_loss import FocalLoss as Theirs

        self.loss = Theirs(gamma=GAMMA, weights=alpha, reduction="sum")

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.loss(logits.softmax(1), labels) / len(logits)


def _ones(shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
    del generator
    return torch.ones(shape, dtype=dtype)


_KORNIA = "it divides the mean by B C, so that its sum is divided by B; its own alpha is one number, weight= is ours"
_FOCAL_SIZES = [{"B": 8192, "C": 128}]

CONTESTS = (
    contest(
        "cost_matrix_cross_entropy",
        cost_matrix_cross_entropy.SPEC,
        [
            Contestant(OURS, CostMatrixCrossEntropyLoss, "CostMatrixCrossEntropyLoss(K)(o, y)"),
            Contestant("two softmaxes", two_softmaxes, "F.cross_entropy(o, y) + (K[y] * o.softmax(1)).sum(1).mean()"),
        ],
        module=__name__,
        name="cost_matrix_cross_entropy",
        small={"B": 4, "C": 3},
        sizes=[{"B": 4096, "C": 1000}],
        claims=ahead("two softmaxes"),
    ),
    contest(
        "logit_adjustment",
        logit_adjustment.SPEC,
        [
            Contestant(OURS, LogitAdjustmentLoss, "LogitAdjustmentLoss(priors)(z, y)"),
            Contestant("added", added_priors, "F.cross_entropy(z + priors.log(), y)"),
        ],
        module=__name__,
        name="logit_adjustment",
        small={"B": 4, "C": 3},
        sizes=[{"B": 512, "C": 8142}],
        claims=ahead("added"),
        context={"priors": TensorSpec("C", domains.positive())},
    ),
    contest(
        "distillation from a stored table",
        distillation.SPEC,
        [
            Contestant(OURS, DistillationLoss, "DistillationLoss(t, temperature=T)(z, indices)"),
            Contestant(
                "kl_div",
                kl_div,
                'F.kl_div((z / T).log_softmax(1), (t[indices] / T).softmax(1), reduction="batchmean") * T**2',
            ),
        ],
        module=__name__,
        name="distillation",
        small={"B": 4, "C": 3, "N": 6},
        sizes=[{"B": 256, "C": 1000, "N": 10_000}, {"B": 256, "C": 32_000, "N": 512}],
        claims=ahead("kl_div"),
        options={"temperature": TEMPERATURE},
    ),
    contest(
        "focal with class weights",
        focal.SPEC,
        [
            Contestant(OURS, FocalLoss, "FocalLoss(alpha)(z, y)"),
            Contestant(
                "cross_entropy",
                faded_cross_entropy,
                'ce = F.cross_entropy(z, y, reduction="none"); (alpha[y] * (1 - exp(-ce)) ** 2 * ce).mean()',
            ),
            Contestant(
                "one_hot",
                one_hot,
                "-(F.one_hot(y, C) * alpha * (1 - z.softmax(1)) ** 2 * z.log_softmax(1)).sum(1).mean()",
            ),
            Contestant(
                "kornia",
                KorniaFocal,
                'focal_loss(z, y, alpha=None, weight=alpha, reduction="sum") / B',
                package="kornia",
                convention=_KORNIA,
            ),
            Contestant(
                "monai",
                MonaiFocal,
                "FocalLoss(to_onehot_y=True, use_softmax=True, weight=alpha)(z, y[:, None]) * C",
                package="monai",
                convention="it divides the mean by B C, so that this is multiplied by C",
            ),
            Contestant(
                "focal-loss-torch",
                TorchFocal,
                'FocalLoss(gamma=2, weights=alpha, reduction="sum")(z.softmax(1), y) / B',
                package="focal-loss-torch",
                convention="it takes probabilities and divides the mean by the weights, so that a softmax is taken before and its sum is divided by B",
            ),
        ],
        module=__name__,
        name="focal",
        small={"B": 4, "C": 3},
        sizes=_FOCAL_SIZES,
        claims=[
            *ahead(
                "cross_entropy",
                why_slower="its log-softmax and its choice of a logit are two fused kernels forward and two backward, and torch has none for the focal factor",
            ),
            *(claim for other in ("one_hot", "kornia", "monai", "focal-loss-torch") for claim in ahead(other)),
        ],
    ),
    contest(
        "focal without class weights",
        focal.SPEC,
        [
            Contestant(OURS, FocalLoss, "FocalLoss(torch.ones(C))(z, y)"),
            Contestant(
                "kornia",
                KorniaFocalUnweighted,
                'focal_loss(z, y, alpha=None, reduction="sum") / B',
                package="kornia",
                convention="without weights it computes the label's probability alone; " + _KORNIA,
            ),
        ],
        module=__name__,
        name="focal_unweighted",
        small={"B": 4, "C": 3},
        sizes=_FOCAL_SIZES,
        claims=ahead(
            "kornia",
            why_larger="kornia goes over the batch in parts and holds no softmax of all of it beside the gradient",
        ),
        context={"alpha": TensorSpec("C", domains.custom(_ones))},
    ),
)
SPECS = [each.spec for each in CONTESTS]
