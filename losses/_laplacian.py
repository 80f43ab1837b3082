"""The quadratic form of a graph's Laplacian D - A, without the Laplacian, and what it needs of the adjacency A."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ._products import Matrix, assembled, multiply, parts, reverse_mode_alone, row_products


def smoothness(z: Tensor, degrees: Tensor, matrix: Matrix) -> Tensor:
    """Σ_i <z_i, d_i z_i - (A z)_i>, a scalar, of rows z ``N D``, degrees d ``N`` and a symmetric matrix A."""
    if not reverse_mode_alone():
        return (z * (degrees.unsqueeze(-1) * z - multiply(z, matrix))).sum()
    value: Tensor = _Smoothness.apply(z, degrees, *parts(matrix))[0]
    return value


class _Smoothness(Function):
    """The value and, from the same product, (D - A) z, which is half of the gradient."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, degrees: Tensor, *given: Tensor | None) -> tuple[Tensor, Tensor]:
        half = multiply(z, assembled(given)).neg_().addcmul_(z, degrees.unsqueeze(-1))
        # An output with a derivative of its own, so that the gradient made of it has one too.
        ctx.save_for_backward(half, degrees, *given)
        ctx.set_materialize_grads(False)
        return row_products(z, half).sum(), half

    @staticmethod
    def backward(ctx: Any, of_value: Tensor | None, of_half: Tensor | None) -> tuple[Tensor | None, ...]:
        half, degrees, *given = ctx.saved_tensors
        gradient = None if of_value is None else 2 * of_value * half
        if of_half is not None:  # in a second derivative
            through = degrees.unsqueeze(-1) * of_half - multiply(of_half, assembled(given))
            gradient = through if gradient is None else gradient + through
        return gradient, *[None] * (1 + len(given))


def divided_by_root(rows: Tensor, degrees: Tensor) -> Tensor:
    """e_i / √d_i of each row ``N D``, and 0 where the degree is 0."""
    degrees = degrees.to(rows.dtype)
    return rows * torch.where(degrees > 0, degrees, math.inf).rsqrt().unsqueeze(-1)
