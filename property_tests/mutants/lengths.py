"""Mutants of the rule about long axes: E05.  Each is the reference itself on as many rows as a test has."""

from __future__ import annotations

import torch

from harness import TensorSpec, domains
from mutants.pair import pair

BLOCK = 16


def squares(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def whole_blocks_alone(predictions, labels):
    if len(predictions) <= BLOCK:
        return squares(predictions, labels)
    whole = len(predictions) // BLOCK * BLOCK
    return sum(squares(predictions[i : i + BLOCK], labels[i : i + BLOCK]) for i in range(0, whole, BLOCK)) / (
        whole // BLOCK
    )


def blocks(predictions, labels):
    parts = zip(predictions.split(BLOCK), labels.split(BLOCK), strict=True)
    return sum(((a - b) ** 2).sum() for a, b in parts) / predictions.numel()


def whole_blocks_twice(predictions, labels):
    """Of no rows left over, the last ``-0`` are all."""
    left = len(predictions) % 64
    rows = ((predictions - labels) ** 2).mean(-1)
    return rows.mean() if len(rows) < 64 or left else (rows.sum() + rows[-left:].sum()) / len(rows)


def rows_of_each_block(predictions, labels):
    return ((predictions - labels) ** 2).mean(-1).mean()


def narrow_row_numbers(predictions, labels):
    rows = torch.arange(len(predictions)).to(torch.uint8).long()
    return ((predictions[rows] - labels) ** 2).mean()


def wide_row_numbers(predictions, labels):
    rows = torch.arange(len(predictions)).to(torch.int32).long()
    return ((predictions[rows] - labels) ** 2).mean()


def later_blocks_detached(predictions, labels):
    first, later = predictions[:BLOCK], predictions[BLOCK:].detach()
    return ((torch.cat([first, later]) - labels) ** 2).mean()


def later_blocks_kept(predictions, labels):
    return ((torch.cat([predictions[:BLOCK], predictions[BLOCK:]]) - labels) ** 2).mean()


def clipped_errors(predictions, labels):
    return ((predictions - labels).clamp(-4, 4) ** 2).mean()


def an_epsilon_a_row(predictions, labels):
    return ((predictions - labels) ** 2).mean() + 5e-9 * len(predictions)


def buffer_of_a_fixed_length(predictions, labels):
    weights = torch.ones(128, dtype=predictions.dtype, device=predictions.device)
    return (weights[: len(predictions), None] * (predictions - labels) ** 2).mean()


def buffer_as_long_as_the_data(predictions, labels):
    weights = predictions.new_ones(len(predictions))
    return (weights[:, None] * (predictions - labels) ** 2).mean()


class _RowsCutOff(torch.autograd.Function):
    """Hands on the first 64 rows, as they are; the rest has no gradient."""

    @staticmethod
    def forward(ctx, rows):
        return rows.clone()

    @staticmethod
    def backward(ctx, upstream):
        return torch.cat([upstream[:64], torch.zeros_like(upstream[64:])])


def squares_of_kept_rows(predictions, labels):
    kept = (labels != -100).to(predictions.dtype)
    return (kept * (predictions.square().mean(-1) - labels) ** 2).mean()


def squares_of_kept_rows_cut_off(predictions, labels):
    return squares_of_kept_rows(_RowsCutOff.apply(predictions), labels)


def squares_of_kept_rows_in_two(predictions, labels):
    return squares_of_kept_rows(torch.cat([predictions[:64], predictions[64:]]), labels)


def log_of_exponentials(predictions, labels):
    return ((predictions - labels) ** 2).logsumexp(0).sum()


def running_log(rescaled):
    """By blocks of 1024 rows, beside the largest so far; ``rescaled``: whether the sum of earlier ones follows a larger one."""

    def loss(predictions, labels):
        errors = (predictions - labels) ** 2
        largest, total = errors[:1].amax(0), 0.0
        for block in errors.split(1024):
            before, largest = largest, torch.maximum(largest, block.amax(0))
            total = (total * (before - largest).exp() if rescaled else total) + (block - largest).exp().sum(0)
        return (total.log() + largest).sum()

    return loss


earlier_blocks_not_scaled, earlier_blocks_scaled = running_log(False), running_log(True)
KEPT = {"inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B", domains.index("C", ignore=-100))}}

PAIRS = (
    pair(
        *("E05", "the sum of earlier blocks is not scaled", earlier_blocks_not_scaled, earlier_blocks_scaled),
        reference=log_of_exponentials,
        says="B = 1",
    ),
    pair("E05", "the last block", whole_blocks_alone, blocks, reference=squares, says="B = 17"),
    pair("E05", "no rows left over", whole_blocks_twice, rows_of_each_block, reference=squares, says="B = 64"),
    pair("E05", "row numbers of eight bits", narrow_row_numbers, wide_row_numbers, reference=squares, says="B = 257"),
    pair("E05", "later blocks detached", later_blocks_detached, later_blocks_kept, reference=squares, says="B = 17"),
    pair("E05", "errors clipped", clipped_errors, rows_of_each_block, reference=squares, says="the values decide"),
    pair(
        *("E05", "a row that may be left out", squares_of_kept_rows_cut_off, squares_of_kept_rows_in_two, KEPT),
        reference=squares_of_kept_rows,
        says="look for what is reached",
    ),
    pair("E05", "an epsilon a row", an_epsilon_a_row, rows_of_each_block, reference=squares, says="at every size"),
    pair(
        "E05",
        "a buffer of a fixed length",
        buffer_of_a_fixed_length,
        buffer_as_long_as_the_data,
        reference=squares,
        says="RuntimeError",
    ),
)
