"""What B01 says of a loss that raises or returns something else: the hint fits what happened."""

from __future__ import annotations

import pytest
import rough_losses
from mutants.shapes import WEIGHTED_SAMPLES, two_strings

from harness import LossSpec, verify


def returns_a_dict(predictions, labels):
    return {"loss": rough_losses.mean_squared(predictions, labels)}


def edits_what_backward_needs(predictions, labels):
    shares = predictions.sigmoid()
    shares *= labels
    return shares.sum()


def multiplies_matrices(predictions, labels):
    return (predictions @ labels).mean()


def views_as_three(predictions, labels):
    return (predictions - labels).view(-1, 3, 7).mean()


@pytest.mark.parametrize(
    ("loss", "sentence", "hint"),
    [
        (rough_losses.returns_a_tuple, "loss = a tuple, expected a tensor", "select=lambda returned: returned[0]"),
        (returns_a_dict, "loss = a dict, expected a tensor", "select=lambda returned: returned['loss']"),
        (rough_losses.returns_none, "loss = None, expected a tensor", "return the tensor itself"),
        (rough_losses.returns_a_number, "loss = an int, expected a tensor", "return the tensor itself"),
        (
            rough_losses.returns_an_integer_tensor,
            "loss = a tensor of torch.int64, expected a floating tensor",
            "in floating point",
        ),
        (edits_what_backward_needs, "modified by an inplace operation", "the out-of-place operation"),
        (rough_losses.edits_a_leaf, "in-place operation", "the out-of-place operation"),
        (multiplies_matrices, "shapes cannot be multiplied", "a number for a size that is fixed"),
        (views_as_three, "is invalid for input of size", "'N+1'"),
        (rough_losses.raises, "RuntimeError: no luck", "mend the loss, or narrow the declaration"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_hint_fits_what_the_loss_raised_or_returned(loss, sentence, hint):
    (finding,) = verify(rough_losses.spec(loss), profile="quick", rules=["B01"]).findings
    assert sentence in finding.message
    assert hint in finding.hint


def test_a_reduction_that_is_refused_as_any_unknown_word_is_no_defect():
    spec = LossSpec("two_strings", {"candidate": two_strings}, **WEIGHTED_SAMPLES)
    found = verify(spec, rules=["B07"], profile="quick")
    assert not found.findings
    assert "does not take the three strings" in found.outcomes[0].reason
