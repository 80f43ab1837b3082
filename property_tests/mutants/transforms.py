"""Mutants of the rules about transforms, fake tensors and the compiler: T01, T02, T03; the profile ``quick`` skips them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from harness import TensorSpec, domains
from mutants.pair import pair


def mean_squared(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def mean_squared_if_finite(predictions, labels):
    predictions.detach().clone().numpy()
    return mean_squared(predictions, labels)


def mean_squared_of_positive_sums(predictions, labels):
    errors = predictions - labels
    if errors.sum() > 0:
        return (errors**2).mean()
    return (2 * errors**2).mean()


def mean_squared_by_where(predictions, labels):
    errors = predictions - labels
    return (torch.where(errors.sum() > 0, 1, 2) * errors**2).mean()


def half_of_it_when_compiled(predictions, labels):
    return mean_squared(predictions, labels) / (2 if torch.compiler.is_compiling() else 1)


def unrolled_over_samples(predictions, labels):
    return torch.stack([((p - y) ** 2).mean() for p, y in zip(predictions, labels, strict=True)]).mean()


class _SquareWithoutSetup(torch.autograd.Function):
    @staticmethod
    def forward(ctx, errors):
        ctx.save_for_backward(errors)
        return errors**2

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient * ctx.saved_tensors[0]


class _Square(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(errors):
        return errors**2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient * ctx.saved_tensors[0]


class _SquareOfTheFirst(_Square):
    generate_vmap_rule = False

    @staticmethod
    def vmap(info, in_dims, errors):
        return (errors.movedim(in_dims[0], 0)[:1] ** 2).expand(info.batch_size, *errors.shape[1:]), 0


def squares_without_setup(predictions, labels):
    return _SquareWithoutSetup.apply(predictions - labels).mean()


def squares_with_setup(predictions, labels):
    return _Square.apply(predictions - labels).mean()


def squares_of_the_first(predictions, labels):
    return _SquareOfTheFirst.apply(predictions - labels).mean()


def mean_of_the_chosen(predictions, labels, chosen):
    return ((predictions - labels)[chosen] ** 2).sum()


def mean_by_the_choice(predictions, labels, chosen):
    return (torch.where(chosen, predictions - labels, 0) ** 2).sum()


def without_the_diagonal_on_the_cpu(predictions, labels):
    kept = 1 - torch.eye(len(predictions), dtype=predictions.dtype)
    return (predictions @ labels.mT * kept).mean()


def without_the_diagonal(predictions, labels):
    kept = 1 - torch.eye(len(predictions), dtype=predictions.dtype, device=predictions.device)
    return (predictions @ labels.mT * kept).mean()


class _Scaled(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, predictions, labels):
        return (self.scale.to(predictions.dtype) * self.weights * (predictions - labels) ** 2).mean()


class ScaleAsAnAttribute(_Scaled):
    def __init__(self, weights):
        super().__init__(weights)
        self.scale = torch.ones(len(weights))


class ScaleAsABuffer(_Scaled):
    def __init__(self, weights):
        super().__init__(weights)
        self.register_buffer("scale", torch.ones(len(weights)))


class _Smoothed(nn.Module):
    def forward(self, predictions, labels):
        window = self.window.to(predictions.dtype)
        return nn.functional.conv1d((predictions - labels).unsqueeze(1), window, padding=1).square().mean()


class WindowAsAnAttribute(_Smoothed):
    def __init__(self):
        super().__init__()
        self.window = torch.tensor([[[0.25, 0.5, 0.25]]])


class WindowAsABuffer(_Smoothed):
    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.tensor([[[0.25, 0.5, 0.25]]]))


def weights_by_numpy(predictions, labels):
    weights = np.exp(-np.abs(labels.numpy()))
    return (torch.from_numpy(weights).to(predictions.dtype) * (predictions - labels) ** 2).mean()


def weights_by_torch(predictions, labels):
    return (torch.exp(-labels.abs()) * (predictions - labels) ** 2).mean()


PAIRWISE = {"inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")}, "output": TensorSpec("")}
CHOSEN = {"inputs": {**PAIRWISE["inputs"], "chosen": TensorSpec("B C", domains.boolean())}}
WEIGHTED = {"inputs": PAIRWISE["inputs"], "context": {"weights": TensorSpec("C", domains.positive())}}


def with_a_slope(predictions, labels):
    """Of p t**2 at the labels, taken on the way."""
    with torch.enable_grad():
        at = labels.detach().requires_grad_()
        (slope,) = torch.autograd.grad((predictions * at.square()).sum(), at, create_graph=True)
    return (slope - 1).square().mean()


def with_a_slope_written_out(predictions, labels):
    return (2 * predictions * labels - 1).square().mean()


def row(code, defect, mutant, twin, declared=PAIRWISE, severity="warning", aspect="", says=""):
    return pair(code, defect, mutant, twin, declared, severity=severity, aspect=aspect, says=says, profile="ci")


PAIRS = (
    row(
        "T02",
        "Function without setup_context",
        squares_without_setup,
        squares_with_setup,
        PAIRWISE,
        "note",
        "custom Function",
    ),
    row("T02", "branch under grad", mean_squared_if_finite, mean_squared, aspect="grad raises"),
    row("T02", "boolean indexing under vmap", mean_of_the_chosen, mean_by_the_choice, CHOSEN, aspect="vmap raises"),
    row("T02", "vmap rule of the first sample", squares_of_the_first, squares_with_setup, aspect="vmap"),
    row("T03", "constant on the CPU", without_the_diagonal_on_the_cpu, without_the_diagonal, aspect="device"),
    row("T03", "plain attribute on the CPU", ScaleAsAnAttribute, ScaleAsABuffer, WEIGHTED, aspect="device"),
    row("T03", "window on the CPU", WindowAsAnAttribute, WindowAsABuffer, aspect="device"),
    row("T03", "NumPy on the way", weights_by_numpy, weights_by_torch, aspect="raises"),
    row(
        "T01",
        "a gradient on the way",
        with_a_slope,
        with_a_slope_written_out,
        aspect="graph break",
        says="takes a gradient",
    ),
    row(
        "T02",
        "a gradient on the way",
        with_a_slope,
        with_a_slope_written_out,
        aspect="grad raises",
        says="takes a gradient",
    ),
    row("T01", "branch on a value", mean_squared_of_positive_sums, mean_squared_by_where, aspect="graph break"),
    row("T01", "another function when compiled", half_of_it_when_compiled, mean_squared, aspect="value"),
    row("T01", "unrolled over samples", unrolled_over_samples, mean_squared, severity="note", aspect="recompiled"),
)
