"""Losses of rows of logits whose gradient is known beside their value, as one node of the autograd graph.

    value_and_gradient(logits, labels, table) -> (loss of each row, d loss of a row / d logits of that row)

Autograd keeps one tensor for every step of such a loss and makes one more for each on the way back.  Here the value and the
gradient come from the same pass, which may work in place; one tensor of the logits' size is kept, and backward scales it.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function

from ._products import reverse_mode_alone


class RowFormula(Protocol):
    """What `row_losses` needs of a loss: logits ``B C``, labels ``B``, and a table that all rows share."""

    def value(self, logits: Tensor, labels: Tensor, table: Tensor) -> Tensor:
        """Loss of each row by plain operations, for calls without a gradient, torch.compile, torch.func and forward mode."""

    def value_and_gradient(self, logits: Tensor, labels: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each row and its gradient; autograd is off, so what is made here may be overwritten."""

    def gradient(self, logits: Tensor, labels: Tensor, table: Tensor) -> Tensor:
        """The same gradient by operations that autograd can differentiate once more."""


def row_losses(formula: RowFormula, logits: Tensor, labels: Tensor, table: Tensor) -> Tensor:
    """Loss of each row, ``B``; labels and table take no gradient."""
    if not (logits.requires_grad and reverse_mode_alone()):
        return formula.value(logits, labels, table)
    losses: Tensor = _RowLosses.apply(formula, logits, labels, table)
    return losses


def wide(logits: Tensor) -> Tensor:
    """In float32 or wider: a probability in bfloat16 has three digits, and the logarithm of one near 1 has none."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class _RowLosses(Function):
    @staticmethod
    def forward(ctx: Any, formula: RowFormula, logits: Tensor, labels: Tensor, table: Tensor) -> Tensor:
        losses, gradient = formula.value_and_gradient(logits, labels, table)
        ctx.formula = formula
        ctx.save_for_backward(logits, labels, table, gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor, None, None]:
        logits, labels, table, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative may be asked for, and what was kept depends on nothing
            gradient = ctx.formula.gradient(logits, labels, table)
        return None, upstream.unsqueeze(-1) * gradient, None, None
