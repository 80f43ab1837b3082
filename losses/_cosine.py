"""Rows as directions, and sums of cosines over pairs of rows that a constant matrix weighs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ._products import Matrix, assembled, multiply, parts, reverse_mode_alone, row_products


def directions(embeddings: Tensor) -> Tensor:
    """Rows divided by their lengths, ``N D``; a zero row stays zero, with gradient zero of every order."""
    return _directions_and_lengths(embeddings)[0]


def similarity(embeddings: Tensor, matrix: Matrix) -> Tensor:
    """Σ_ij M_ij cos(e_i, e_j) of a symmetric ``N N`` M, a scalar in the dtype of embeddings ``N D``.

    With z the directions this is Σ_i <z_i, (M z)_i>, so that neither the N x N cosines nor the two ends of every entry
    are made.  Because M is symmetric, M z is all that the gradient needs too: one product, and one ``N D`` tensor saved.
    """
    if not (embeddings.requires_grad and reverse_mode_alone()):
        z = directions(embeddings)
        return (z * multiply(z, matrix)).sum()
    value: Tensor = _Similarity.apply(embeddings, *parts(matrix))[0]
    return value


def _largest(embeddings: Tensor) -> Tensor:
    """The largest element of each row, ``N 1``, and infinity for a zero row, by which every number becomes zero.

    Dividing by a constant changes no direction, and no square then overflows or vanishes.
    """
    largest = embeddings.detach().abs().amax(-1, keepdim=True)
    return largest.masked_fill(largest == 0, math.inf)


def _directions_and_lengths(embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(z, l, c) with e_i = z_i l_i c_i, where c is constant to autograd, and infinite for a zero row."""
    largest = _largest(embeddings)
    scaled = embeddings / largest
    length = scaled.square().sum(-1, keepdim=True).masked_fill(largest == math.inf, 1).sqrt()
    return scaled / length, length, largest


class _Similarity(Function):
    """The value and, from the same product, the gradient

    ∂/∂e_i Σ_ij M_ij <z_i, z_j> = 2 (h_i - z_i <z_i, h_i>) / |e_i|,     h = M z
    """

    @staticmethod
    def forward(embeddings: Tensor, *given: Tensor | None) -> tuple[Tensor, Tensor]:
        # In place, so that no more than two ``N D`` tensors live at once.
        largest = _largest(embeddings)
        z = embeddings / largest
        length = torch.linalg.vector_norm(z, dim=-1, keepdim=True).masked_fill(largest == math.inf, 1)
        z.div_(length)
        product = multiply(z, assembled(given))
        of_row = row_products(z, product)
        gradient = product.sub_(z.mul_(of_row)).mul_(2 / length).div_(largest)
        return of_row.sum(), gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(output[1], *inputs)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, of_value: Tensor | None, of_gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient, embeddings, *given = ctx.saved_tensors
        found = None if of_value is None else of_value * gradient
        if of_gradient is not None:  # in a second derivative, which is symmetric
            second = _change_of_gradient(embeddings, of_gradient, assembled(given))
            found = second if found is None else found + second
        return found, *[None] * len(given)


def _change_of_gradient(embeddings: Tensor, tangent: Tensor, matrix: Matrix) -> Tensor:
    """The gradient's derivative along a tangent t, by the product rule; ' stands for the derivative.

    z' = (t - z <z, t>) / |e|        |e|' = <z, t>        h' = M z'
    ½ gradient' = (h' - z' <z, h> - z (<z', h> + <z, h'>) - (h - z <z, h>) |e|' / |e|) / |e|
    """
    z, length, largest = _directions_and_lengths(embeddings)
    tangent = tangent / largest / length
    stretch = row_products(z, tangent)
    z_dot = tangent - z * stretch
    h, h_dot = multiply(z, matrix), multiply(z_dot, matrix)
    of_row = row_products(z, h)
    of_row_dot = row_products(z_dot, h) + row_products(z, h_dot)
    return 2 * (h_dot - z_dot * of_row - z * of_row_dot - (h - z * of_row) * stretch) / largest / length
