"""Rules that make an axis longer stop where a loss grows too fast for it, long before it never ends."""

from __future__ import annotations

import itertools

import pytest
import torch

from harness import LossSpec, TensorSpec, verify
from harness.results.findings import Status

MOST = 8  # 8! is 40320; of 16 rows no computer tries all orders


def loop_over_orders(predictions, labels):
    assert len(predictions) <= MOST, f"{len(predictions)} rows"
    pairs = [[(p - y).square().mean() for y in labels] for p in predictions]
    orders = itertools.permutations(range(len(pairs)))
    return torch.stack([sum(pairs[row][place] for row, place in enumerate(order)) for order in orders]).amin()


def all_orders(predictions, labels):
    assert len(predictions) <= MOST, f"{len(predictions)} rows"
    pairs = (predictions[:, None] - labels).square().mean(-1)
    orders = torch.tensor(list(itertools.permutations(range(len(predictions)))))
    return pairs[torch.arange(len(predictions)), orders].sum(-1).amin()


def spec_of(**implementations):
    tensors = {"predictions": TensorSpec("S T"), "labels": TensorSpec("S T")}
    return LossSpec("orders", implementations, inputs=tensors)


@pytest.mark.parametrize("rule", ["E05", "G06", "P01", "P03", "D03"])
def test_a_loss_over_all_orders_is_asked_with_few_rows(rule):
    found = verify(spec_of(loop=loop_over_orders, fast=all_orders), profile="quick", rules=[rule])
    assert [f.message for f in found.findings if "AssertionError" in f.message] == []
    assert [o.reason for o in found.outcomes if "AssertionError" in o.reason] == []
    assert any(o.status in (Status.PASSED, Status.FAILED) for o in found.outcomes)


def test_how_far_an_axis_was_made_longer_is_said():
    (outcome,) = verify(
        spec_of(loop=loop_over_orders, fast=all_orders), profile="quick", rules=["E05"], implementations=["fast"]
    ).outcomes
    assert outcome.status is Status.PASSED
    assert outcome.reason.startswith("compared along S up to ")


def test_operations_that_explode_are_a_loop():
    (finding,) = verify(spec_of(loop=loop_over_orders), profile="quick", rules=["P01"]).findings
    assert "-> more than 6000 as S doubles" in finding.message
