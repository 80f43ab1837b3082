"""The losses of Liger-Kernel, which are Triton kernels, declared as its documentation says, beside the formula.

Without a GPU they run in Triton's interpreter: ``loss-harness verify harness.catalogs.liger_kernel --triton-interpret``.  A kernel
reads as many labels as there are rows and looks at no shape, so that each is called only where those are there.

Source: https://github.com/linkedin/Liger-Kernel
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs import require
from harness.catalogs.torch_nn._shared import in_double, reduce
from harness.declare.laws import Law

package = require("liger_kernel.transformers.functional", "'loss-harness[kernels]'")
fused_ce_tvd = require("liger_kernel.transformers.fused_ce_tvd", "'loss-harness[kernels]'").LigerFusedCETVDLoss()

LOG_PROBABILITIES = domains.interval(-20.0, 0.0)
DISTRIBUTIONS = {"input": TensorSpec("B C", LOG_PROBABILITIES), "target": TensorSpec("B C", LOG_PROBABILITIES)}
CLASSES = {"input": TensorSpec("B C", domains.logits()), "target": TensorSpec("B", domains.index("C"))}
LINEAR = {
    "input": TensorSpec("B D"),
    "weight": TensorSpec("C D"),
    "target": TensorSpec("B", domains.index("C")),
}
TEACHER = {
    "student_input": TensorSpec("B D"),
    "student_weight": TensorSpec("C D"),
    "teacher_input": TensorSpec("B E"),
    "teacher_weight": TensorSpec("C E"),
}
SAME_FOR_ALL_CLASSES = laws.permutation("C")


def same_lengths(**lengths: int) -> None:
    """Refuse tensors of which a kernel would read more than there is.

    Raises:
        ValueError: different lengths; the message names them.
    """
    if len(set(lengths.values())) > 1:
        raise ValueError(f"lengths {lengths}, but all of them should be equal")


@in_double
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    lse_square_scale: float = 0.0,
    softcap: float | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The cross-entropy of s tanh(x / s), plus z (logsumexp)² for each row."""
    logits = input if softcap is None else softcap * (input / softcap).tanh()
    loss = F.cross_entropy(logits, target, weight, label_smoothing=label_smoothing, reduction=reduction)
    return loss + reduce(lse_square_scale * logits.logsumexp(1) ** 2, reduction)


def liger_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    lse_square_scale: float = 0.0,
    softcap: float | None = None,
    reduction: str = "mean",
) -> Any:
    """`cross_entropy`, its gradient written over the logits."""
    same_lengths(rows=len(input), labels=target.numel(), axes=target.ndim * len(input))
    return package.liger_cross_entropy(
        input,
        target,
        weight,
        label_smoothing=label_smoothing,
        lse_square_scale=lse_square_scale,
        softcap=softcap,
        reduction=reduction,
    )


@in_double
def jsd(input: Tensor, target: Tensor, beta: float) -> Tensor:
    """β KL(P | M) + (1 - β) KL(Q | M) with M = β P + (1 - β) Q, of log Q and log P; KL(P | Q) for β = 0, KL(Q | P) for β = 1."""
    p, q = target.exp(), input.exp()
    if beta in (0.0, 1.0):
        terms = p * (target - input) if beta == 0.0 else q * (input - target)
    else:
        middle = (beta * p + (1 - beta) * q).log()
        terms = beta * p * (target - middle) + (1 - beta) * q * (input - middle)
    return terms.sum() / len(input)


def liger_jsd(input: Tensor, target: Tensor, beta: float) -> Any:
    """`jsd`."""
    same_lengths(inputs=input.numel(), targets=target.numel(), columns=target.shape[-1] * len(input))
    return package.liger_jsd(input, target, beta=beta)


@in_double
def kl_div(input: Tensor, target: Tensor, log_target: bool = False, reduction: str = "batchmean") -> Tensor:
    """KL(P | Q) of log Q and P, or log P."""
    return F.kl_div(input, target, reduction=reduction, log_target=log_target)


def liger_kl_div(input: Tensor, target: Tensor, log_target: bool = False, reduction: str = "batchmean") -> Any:
    """`kl_div`."""
    same_lengths(inputs=input.numel(), targets=target.numel(), columns=target.shape[-1] * len(input))
    return package.liger_kl_div(input, target, log_target=log_target, reduction=reduction)


@in_double
def tvd(input: Tensor, target: Tensor) -> Tensor:
    """1/2 sum |P - Q| / B."""
    return (input - target).abs().sum() / (2 * len(input))


def liger_tvd(input: Tensor, target: Tensor) -> Any:
    """`tvd`."""
    same_lengths(inputs=input.numel(), targets=target.numel(), columns=target.shape[-1] * len(input))
    return package.liger_tvd(input, target, reduction="batchmean")


@in_double
def ce_tvd(student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
    """The cross-entropy of each row plus half of the absolute differences of its softmax."""
    distance = (student_logits.softmax(1) - teacher_logits.softmax(1)).abs().sum(1) / 2
    return F.cross_entropy(student_logits, target, reduction="none") + distance


def liger_ce_tvd(student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Any:
    """`ce_tvd`."""
    same_lengths(
        students=student_logits.numel(), teachers=teacher_logits.numel(), columns=len(target) * student_logits.shape[1]
    )
    entropy, distance = fused_ce_tvd(student_logits, teacher_logits, target)
    return entropy + distance


@in_double
def linear_cross_entropy(
    input: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """The cross-entropy of x Wᵀ + b."""
    return F.cross_entropy(F.linear(input, weight, bias), target, reduction=reduction)


def liger_linear_cross_entropy(
    input: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None = None, reduction: str = "mean"
) -> Any:
    """`linear_cross_entropy`, in chunks of rows."""
    same_lengths(rows=len(input), labels=target.numel(), axes=target.ndim * len(input))
    same_lengths(classes=len(weight), biases=len(weight) if bias is None else bias.numel())
    return package.liger_fused_linear_cross_entropy(input, weight, target, bias, reduction=reduction)


@in_double
def linear_jsd(
    student_input: Tensor, student_weight: Tensor, teacher_input: Tensor, teacher_weight: Tensor, temperature: float
) -> Tensor:
    """`jsd` of the softmax of the student's and of the teacher's logits over the temperature."""
    student = (student_input @ student_weight.T / temperature).log_softmax(1)
    teacher = (teacher_input @ teacher_weight.T / temperature).log_softmax(1)
    return jsd(input=student, target=teacher, beta=0.5)


def liger_linear_jsd(
    student_input: Tensor, student_weight: Tensor, teacher_input: Tensor, teacher_weight: Tensor, temperature: float
) -> Any:
    """`linear_jsd`, in chunks of rows."""
    same_lengths(students=len(student_input), teachers=len(teacher_input))
    same_lengths(students=len(student_weight), teachers=len(teacher_weight))
    return package.liger_fused_linear_jsd(
        student_input, student_weight, teacher_input, teacher_weight, temperature=temperature
    )


@in_double
def linear_kl_div(student_input: Tensor, student_weight: Tensor, target: Tensor) -> Tensor:
    """KL(P | softmax(x Wᵀ))."""
    return F.kl_div((student_input @ student_weight.T).log_softmax(1), target, reduction="batchmean")


def liger_linear_kl_div(student_input: Tensor, student_weight: Tensor, target: Tensor) -> Any:
    """`linear_kl_div`, in chunks of rows."""
    same_lengths(
        classes=len(student_weight), targets=target.shape[-1], rows=target.numel() // max(1, len(student_input))
    )
    return package.liger_fused_linear_kl_div(student_input, student_weight, target)


def spec(
    name: str,
    formula: Callable[..., Tensor],
    loss: Callable[..., Any],
    inputs: Mapping[str, TensorSpec],
    *further: Law,
    context: Mapping[str, TensorSpec] | None = None,
    differentiable: tuple[str, ...] | None = None,
    output: str = "",
    **options: Any,
) -> LossSpec:
    """One loss; a kernel computes in float32, whatever it is given."""
    return LossSpec(
        f"liger.{name}",
        {"formula": formula, "liger": loss},
        inputs=inputs,
        context=context or {},
        output=TensorSpec(output),
        differentiable=differentiable or tuple(inputs)[:1],
        options=options,
        computes_in=torch.float32,
        laws=(laws.permutation("B"), SAME_FOR_ALL_CLASSES, *further),
    )


def entropy(name: str, *further: Law, context: Mapping[str, TensorSpec] | None = None, **options: Any) -> LossSpec:
    """One form of the cross-entropy of classes."""
    return spec(
        name, cross_entropy, liger_cross_entropy, CLASSES, laws.nonnegative(), *further, context=context, **options
    )


MEAN = laws.mean_over("B")
IGNORED = {**CLASSES, "target": TensorSpec("B", domains.index("C", ignore=-100))}
PROBABILITIES = {
    "input": TensorSpec("B C", domains.simplex(axis=1)),
    "target": TensorSpec("B C", domains.simplex(axis=1)),
}

SPECS = (
    entropy("cross_entropy", MEAN),
    spec("cross_entropy-ignored", cross_entropy, liger_cross_entropy, IGNORED, laws.nonnegative()),
    entropy("cross_entropy-smoothed", MEAN, label_smoothing=0.1),
    entropy("cross_entropy-weighted", context={"weight": TensorSpec("C", domains.positive())}),
    entropy("cross_entropy-softcap", MEAN, softcap=30.0),
    entropy("cross_entropy-z_loss", MEAN, lse_square_scale=1e-2),
    entropy("cross_entropy-written_over", MEAN).replace(writes_gradient_into="input"),
    spec("jsd", jsd, liger_jsd, DISTRIBUTIONS, MEAN, beta=0.5),
    spec("jsd-forward", jsd, liger_jsd, DISTRIBUTIONS, MEAN, beta=0.0),
    spec("jsd-reverse", jsd, liger_jsd, DISTRIBUTIONS, MEAN, beta=1.0),
    spec("kl_div", kl_div, liger_kl_div, {**DISTRIBUTIONS, "target": TensorSpec("B C", domains.simplex(axis=1))}, MEAN),
    spec("kl_div-log_target", kl_div, liger_kl_div, DISTRIBUTIONS, MEAN, log_target=True),
    spec("tvd", tvd, liger_tvd, PROBABILITIES, MEAN, laws.symmetric("input", "target")),
    spec(
        "ce_tvd",
        ce_tvd,
        liger_ce_tvd,
        {
            "student_logits": TensorSpec("B C", domains.logits()),
            "teacher_logits": TensorSpec("B C", domains.logits()),
            "target": TensorSpec("B", domains.index("C")),
        },
        laws.nonnegative(),
        output="B",
    ),
    spec(
        "linear_cross_entropy",
        linear_cross_entropy,
        liger_linear_cross_entropy,
        LINEAR,
        MEAN,
        laws.permutation("D"),
        differentiable=("input", "weight"),
    ),
    spec(
        "linear_cross_entropy-bias",
        linear_cross_entropy,
        liger_linear_cross_entropy,
        {**LINEAR, "bias": TensorSpec("C")},
        MEAN,
        differentiable=("input", "weight", "bias"),
    ),
    spec(
        "linear_jsd",
        linear_jsd,
        liger_linear_jsd,
        TEACHER,
        MEAN,
        laws.nonnegative(),
        differentiable=("student_input", "student_weight"),
        temperature=2.0,
    ),
    spec(
        "linear_kl_div",
        linear_kl_div,
        liger_linear_kl_div,
        {
            **{k: v for k, v in TEACHER.items() if k.startswith("student")},
            "target": TensorSpec("B C", domains.simplex(axis=1)),
        },
        MEAN,
        laws.nonnegative(),
        differentiable=("student_input", "student_weight"),
    ),
)
