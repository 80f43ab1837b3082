"""torch's losses that are more than a loss: adaptive softmax and CTC's alignments.

Formulas are those of the documentation of torch.nn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs.torch_nn._shared import SAMPLEWISE, SCALAR, classes_along_axis_1, in_double, reduce, same_shape

GREATEST_LABEL = 3


@in_double
def connectionist_temporal(
    log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, reduction: str = "mean"
) -> Tensor:
    """-log of the probability of all alignments; the mean is over samples, each divided by the length of its target.

    The forward variables α of Graves et al., Connectionist Temporal Classification, 2006, section 4.1, as probabilities.
    """
    same_shape(log_probs[0, :, 0], targets[:, 0], input_lengths, target_lengths)
    if int(target_lengths.max()) > targets.shape[1]:
        raise ValueError(f"target_lengths={target_lengths.tolist()}, but targets has shape {list(targets.shape)}")
    errors = []
    for sample, (steps, length) in enumerate(zip(input_lengths.tolist(), target_lengths.tolist(), strict=True)):
        labels = [0] + [label for y in targets[sample, :length].tolist() for label in (y, 0)]
        probabilities = log_probs[:steps, sample].exp()
        nothing = torch.zeros_like(probabilities[0, 0])
        alpha = [probabilities[0, label] if place < 2 else nothing for place, label in enumerate(labels)]
        for step in range(1, steps):
            alpha = [
                probabilities[step, label]
                * (
                    alpha[place]
                    + (alpha[place - 1] if place > 0 else nothing)
                    + (alpha[place - 2] if place > 1 and label not in (0, labels[place - 2]) else nothing)
                )
                for place, label in enumerate(labels)
            ]
        errors.append(-(alpha[-1] + (alpha[-2] if length else nothing)).log())
    losses = torch.stack(errors)
    return (losses / target_lengths.clamp(min=1)).mean() if reduction == "mean" else reduce(losses, reduction)


def connectionist_temporal_of_logits(
    logits: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, reduction: str = "mean"
) -> Tensor:
    """`connectionist_temporal` of the logarithms of softmax, which depend on all logits of a step."""
    return connectionist_temporal(
        log_probs=logits.log_softmax(-1),
        targets=targets,
        input_lengths=input_lengths,
        target_lengths=target_lengths,
        reduction=reduction,
    )


class GuardedCTCLoss(nn.CTCLoss):
    """torch's loss, called only where every label is a class: it does not look, and writes beyond its tensors.

    Raises:
        ValueError: fewer classes than the labels of `sequences` need.
    """

    def forward(self, log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor) -> Tensor:
        """The loss of log-probabilities ``T B C``."""
        if log_probs.shape[-1] <= GREATEST_LABEL:
            raise ValueError(f"log_probs has {log_probs.shape[-1]} classes, but labels go up to {GREATEST_LABEL}")
        return super().forward(log_probs, targets, input_lengths, target_lengths)


class CTCLossOfLogits(GuardedCTCLoss):
    """The same after torch's log_softmax."""

    def forward(self, logits: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor) -> Tensor:
        """The loss of logits ``T B C``."""
        return super().forward(logits.log_softmax(-1), targets, input_lengths, target_lengths)


@in_double
def adaptive_log_softmax(
    input: Tensor, target: Tensor, head: Tensor, projection: Tensor, tail: Tensor, reduction: str = "mean"
) -> Tensor:
    """-log p(y): softmax of the head over the K frequent classes and one cluster, times softmax of the tail within it."""
    classes_along_axis_1(input, target)
    first, second = (input @ head.mT).log_softmax(1), (input @ projection.mT @ tail.mT).log_softmax(1)
    every = torch.cat([first[:, :-1], first[:, -1:] + second], dim=1)
    return reduce(-every.gather(1, target.unsqueeze(1)).squeeze(1), reduction)


def torch_adaptive_log_softmax(input: Tensor, target: Tensor, head: Tensor, projection: Tensor, tail: Tensor) -> Tensor:
    """The loss of `torch.nn.AdaptiveLogSoftmaxWithLoss`, with weights that are given instead of drawn."""
    frequent = len(head) - 1
    module = nn.AdaptiveLogSoftmaxWithLoss(
        input.shape[1],
        frequent + len(tail),
        [frequent],
        div_value=input.shape[1] / len(projection),
        device=torch.device("meta"),
    )
    weights = {"head.weight": head, "tail.0.0.weight": projection, "tail.0.1.weight": tail}
    loss: Tensor = torch.func.functional_call(module, weights, (input, target)).loss
    return loss


def log_probabilities(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Logarithms of a softmax along the last axis."""
    return torch.randn(shape, generator=generator, dtype=torch.float64).log_softmax(-1).to(dtype)


def sequences(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Labels from 1 up; 0 is the blank."""
    return torch.randint(1, GREATEST_LABEL + 1, shape, generator=generator).to(dtype)


def lengths_of_inputs(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Long enough for two labels with a blank between them."""
    return torch.randint(3, 7, shape, generator=generator).to(dtype)


def lengths_of_targets(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """One or two labels."""
    return torch.randint(1, 3, shape, generator=generator).to(dtype)


_SEQUENCES = {
    "targets": TensorSpec("B S", domains.custom(sequences), dtype=torch.int64),
    "input_lengths": TensorSpec("B", domains.custom(lengths_of_inputs), dtype=torch.int64),
    "target_lengths": TensorSpec("B", domains.custom(lengths_of_targets), dtype=torch.int64),
}
_SEQUENCE_SIZES = {"T": 6, "C": GREATEST_LABEL + 1, "S": 2}
CTC = LossSpec(
    "nn.CTCLoss",
    {"formula": connectionist_temporal, "torch": GuardedCTCLoss},
    inputs={"log_probs": TensorSpec("T B C", domains.custom(log_probabilities)), **_SEQUENCES},
    output=SCALAR,
    fixed_sizes=_SEQUENCE_SIZES,
    laws=(laws.permutation("B"),),
)
CTC_LOGITS = LossSpec(
    "nn.CTCLoss-logits",
    {"formula": connectionist_temporal_of_logits, "torch": CTCLossOfLogits},
    inputs={"logits": TensorSpec("T B C"), **_SEQUENCES},
    output=SCALAR,
    fixed_sizes=_SEQUENCE_SIZES,
    laws=(laws.permutation("B"),),
)
ADAPTIVE_LOG_SOFTMAX = LossSpec(
    "nn.AdaptiveLogSoftmaxWithLoss",
    {"formula": adaptive_log_softmax, "torch": torch_adaptive_log_softmax},
    inputs={
        "input": TensorSpec("B D"),
        "target": TensorSpec("B", domains.index("C")),
        "head": TensorSpec("K+1 D"),
        "projection": TensorSpec("H D"),
        "tail": TensorSpec("M H"),
    },
    output=SCALAR,
    differentiable=("input", "head", "projection", "tail"),
    fixed_sizes={"C": 5, "K": 2, "M": 3, "D": 4, "H": 2},
    laws=(laws.nonnegative(), *SAMPLEWISE),
)

SPECS = (CTC, CTC_LOGITS, ADAPTIVE_LOG_SOFTMAX)
