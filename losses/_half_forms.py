"""Half a quadratic form of each row, whose gradient is a tensor that the value needs anyway, so that no other is made.

½ <x_i, x_i>        gradient x_i
½ <x_i, M x_i>      gradient M x_i, for a symmetric M
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function

from ._products import reverse_mode_alone, row_products


def half_squares(x: Tensor) -> Tensor:
    """½ |x_i|² of each row, ``*batch`` of ``*batch D``."""
    if not reverse_mode_alone():
        return x.square().sum(-1) / 2
    value: Tensor = _HalfSquares.apply(x)
    return value


def half_quadratic_forms(x: Tensor, matrix: Tensor) -> Tensor:
    """½ <x_i, M x_i> of each row, ``*batch`` of ``*batch D``, for a symmetric M ``D D`` that takes no gradient."""
    if not reverse_mode_alone():
        return (x * (x @ matrix)).sum(-1) / 2
    value: Tensor = _HalfQuadraticForms.apply(x, matrix)[0]
    return value


class _HalfSquares(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return row_products(x, x).squeeze(-1) / 2

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gradient: Tensor = x * upstream.unsqueeze(-1)
        return gradient


class _HalfQuadraticForms(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        product = x @ matrix
        # The product is an output with a derivative of its own, so that the gradient made of it has one too.
        ctx.save_for_backward(matrix, product)
        ctx.set_materialize_grads(False)
        return row_products(x, product).squeeze(-1) / 2, product

    @staticmethod
    def backward(ctx: Any, of_value: Tensor | None, of_product: Tensor | None) -> tuple[Tensor | None, None]:
        matrix, product = ctx.saved_tensors
        gradient = None if of_value is None else product * of_value.unsqueeze(-1)
        if of_product is not None:
            through = of_product @ matrix
            gradient = through if gradient is None else gradient + through
        return gradient, None
