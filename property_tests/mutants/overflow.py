"""Mutants of the rules about the range of a dtype: D03."""

from __future__ import annotations

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


POSITIVE = {"inputs": {"predictions": TensorSpec("B C", domains.positive())}}

PAIRS = (
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
)
