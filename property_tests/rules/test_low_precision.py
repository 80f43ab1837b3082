"""What D02 and E04 say of low precision: what is rounding, or beyond the range of a dtype, is no loss of digits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from harness import LossSpec, TensorSpec, domains, verify
from harness.checking.verify import open_session
from harness.drawing.case import Recipe
from harness.rules.dtypes.accuracy import low_precision_is_as_accurate_as_the_condition_allows
from harness.rules.reference.equivalence import low_precision_is_no_less_accurate_than_the_reference
from harness.rules.rule import mismatches
from harness.rules.tools.sizes import resized


def triplets(embeddings, labels):
    """How much nearer another class is than the own; few labels make no triplet.  Zeros have no direction in float16."""
    units = functional.normalize(embeddings)
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(labels), dtype=torch.bool)
    distances = 1 - units @ units.T
    nearer = (0.2 + distances[:, :, None] - distances[:, None])[positive[:, :, None] & ~same[:, None]]
    return torch.where(nearer > 0, nearer, nearer * 0).nan_to_num().mean() if len(nearer) else embeddings.sum() * 0


@pytest.mark.parametrize("seed", [0, 3])
def test_a_gradient_that_is_rounding_in_float64_too_has_no_digits_to_lose(seed):
    """With one axis a direction is a sign, which does not change."""
    inputs = {"embeddings": TensorSpec("B D"), "labels": TensorSpec("B", domains.index("C"))}
    found = verify(
        LossSpec("triplets", {"triplets": triplets}, inputs=inputs), rules=["D02"], profile="thorough", seed=seed
    )
    assert {finding.evidence["aspect"] for finding in found.findings} <= {"finite float16"}


@pytest.mark.parametrize("seed", [3, 7])
def test_special_points_are_tried_where_something_counts(seed):
    inputs = {"embeddings": TensorSpec("B D"), "labels": TensorSpec("B", domains.index("C"))}
    found = verify(
        LossSpec("triplets", {"triplets": triplets}, inputs=inputs), rules=["D02"], profile="thorough", seed=seed
    )
    assert [finding.evidence["aspect"] for finding in found.findings] == ["finite float16"]


def correlation(predictions, labels):
    """100 less Matthews' coefficient of probabilities, whose denominator is a product of four sums."""
    right, wrong = (predictions * labels).sum(), (predictions * (1 - labels)).sum()
    missed, rest = ((1 - predictions) * labels).sum(), ((1 - predictions) * (1 - labels)).sum()
    product = (right + wrong) * (right + missed) * (rest + wrong) * (rest + missed)
    return 100 - (right * rest - wrong * missed) / (product.sqrt() + 1e-3)


@pytest.mark.parametrize("size", [3, 8])
def test_what_passes_the_range_of_a_dtype_on_the_way_is_no_loss_of_digits(size):
    inputs = {"predictions": TensorSpec("B C", domains.probability()), "labels": TensorSpec("B C", domains.binary())}
    session = open_session(LossSpec("correlation", {"correlation": correlation}, inputs=inputs))
    asked = session.trial("correlation", session.pool("distinct", "smooth", 1)[0], exhaustive=False)
    larger = asked.at(resized(asked.spec, asked.case, {"B": size, "C": size}))
    larger.exhaustive = False
    assert list(mismatches(low_precision_is_as_accurate_as_the_condition_allows(larger))) == []


def test_the_element_that_is_shown_is_the_one_that_is_off():
    def bare(w):
        return (1 + w.exp()).log()

    spec = LossSpec(
        "softplus", {"torch": lambda w: functional.softplus(w), "bare": bare}, inputs={"w": TensorSpec("B")}
    )
    session = open_session(spec)
    case = replace(
        session.pool("distinct", "smooth", 1)[0],
        sizes={"B": 3},
        layouts={},
        tensors={"w": Recipe(values=(1.0, 2.0, 20.0))},
    )
    asked = session.trial("bare", case, exhaustive=False)
    (found, *_) = mismatches(low_precision_is_no_less_accurate_than_the_reference(asked))
    assert (found.came, found.should.split(",")[0]) == ("inf", "20")


def lost_for_some(share):
    """An epsilon that float16 does not have, for a part of all values that no one can name."""

    def loss(predictions, labels):
        off = (predictions - labels).square()
        is_rare = (7919 * predictions.detach().double().sum()).sin() > math.cos(math.pi * share)
        scale = torch.where(is_rare, 1e-9, 1.0).to(off.dtype)
        return (off * scale / scale).mean()

    return LossSpec("rare", {"candidate": loss}, inputs={n: TensorSpec("B") for n in ("predictions", "labels")})


@pytest.mark.parametrize(("share", "severity"), [(0.05, "note"), (0.5, "warning")])
def test_what_few_values_show_is_a_note_so_that_the_seed_does_not_decide(share, severity):
    spec = lost_for_some(share)
    found = [f for seed in (3, 4, 11) for f in verify(spec, rules=["D02"], profile="thorough", seed=seed).findings]
    assert [f.severity for f in found] == [severity] * 3
    assert all(("draws of other values" in f.message) is (severity == "note") for f in found)
