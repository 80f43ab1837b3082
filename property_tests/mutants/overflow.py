"""Mutants of the rules about the range of a dtype: D03."""

from __future__ import annotations

import numpy as np
import torch

from harness import TensorSpec, domains
from mutants.pair import pair


def sum_divided_by_the_count(predictions, labels):
    return ((predictions - labels) ** 2).sum() / predictions.numel()


def mean_of_squares(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def dot_product_divided_by_the_count(predictions):
    return predictions.flatten() @ predictions.flatten() / predictions.numel()


def mean_of_products(predictions):
    return (predictions * predictions).mean()


def rows_repeated_before_the_division(predictions, labels):
    """No sum is infinite before a row of it is multiplied."""
    rows = ((predictions - labels) ** 2).sum(-1) * len(predictions)
    return rows.sum() / max(predictions.numel() * len(predictions), 1)


class SumsInItsOwnKernel(torch.autograd.Function):
    """mean (p - y)², whose sum torch does not see: NumPy stands for a compiled kernel, which adds in the inputs' dtype."""

    sums_in: type[np.floating] | None = None

    @classmethod
    def forward(cls, ctx, predictions, labels):
        errors = predictions - labels
        ctx.save_for_backward(errors)
        with np.errstate(over="ignore"):
            squares = np.square(errors.detach().numpy())
            total = squares.sum(dtype=cls.sums_in or squares.dtype) / errors.numel()
        return errors.new_tensor(float(total))

    @staticmethod
    def backward(ctx, upstream):
        (errors,) = ctx.saved_tensors
        return 2 * upstream * errors / errors.numel(), None


class SumsWideInItsOwnKernel(SumsInItsOwnKernel):
    sums_in = np.float64


def sum_in_a_kernel(predictions, labels):
    return SumsInItsOwnKernel.apply(predictions, labels)


def wide_sum_in_a_kernel(predictions, labels):
    return SumsWideInItsOwnKernel.apply(predictions, labels)


POSITIVE = {"inputs": {"predictions": TensorSpec("B C", domains.positive())}}
PAIRS = (
    pair(
        "D03", "sum in a kernel", sum_in_a_kernel, wide_sum_in_a_kernel, severity="warning", says="a kernel of its own"
    ),
    pair("D03", "sum before the division", sum_divided_by_the_count, mean_of_squares, severity="warning"),
    pair(
        "D03",
        "dot product before the division",
        dot_product_divided_by_the_count,
        mean_of_products,
        POSITIVE,
        severity="warning",
        says="aten.dot",
    ),
    pair(
        *("D03", "rows repeated before the division", rows_repeated_before_the_division, mean_of_squares),
        severity="warning",
        says="fix: mul at overflow.py",
    ),
)
