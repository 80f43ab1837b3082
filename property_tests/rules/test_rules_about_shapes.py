"""What B01 says of a loss that raises or returns something else: the hint fits what happened."""

from __future__ import annotations

import pytest
import rough_losses
import torch
from mutants.shapes import WEIGHTED_SAMPLES, two_strings

from harness import LossSpec, TensorSpec, domains, verify


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


def returns_a_dict_of_other_keys(predictions, labels):
    return {"total": rough_losses.mean_squared(predictions, labels)}


def looks_up_what_is_not_there(predictions, labels):
    return predictions.gather(1, torch.full((len(predictions), 1), 99)).mean()


def imports_what_is_not_there(predictions, labels):
    import no_such_package  # type: ignore[import-not-found]

    return no_such_package.distance(predictions, labels)


def frees_the_graph_that_it_goes_through(predictions, labels):
    leaf = labels.detach().requires_grad_()
    product = (predictions * leaf).square().sum()
    (slope,) = torch.autograd.grad(product, leaf)
    return product + slope.sum()


@pytest.mark.parametrize(
    ("loss", "sentence", "hint"),
    [
        (returns_a_dict_of_other_keys, "loss = a dict, expected a tensor", "LossSpec(select='total'), or --pick total"),
        (looks_up_what_is_not_there, "is out of bounds for dimension", "narrow the domain"),
        (rough_losses.returns_a_tuple, "loss = a tuple, expected a tensor", "LossSpec(select=0), or --pick 0"),
        (returns_a_dict, "loss = a dict, expected a tensor", "LossSpec(select='loss'), or --pick loss"),
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
        (imports_what_is_not_there, "No module named 'no_such_package'", "install what the loss imports"),
        (frees_the_graph_that_it_goes_through, "a second time", "create_graph=True"),
        (rough_losses.raises, "RuntimeError: no luck", "mend the loss, or narrow the declaration"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_hint_fits_what_the_loss_raised_or_returned(loss, sentence, hint):
    (finding,) = verify(rough_losses.spec(loss), profile="quick", rules=["B01"]).findings
    assert sentence in finding.message
    assert hint in finding.hint


def logarithm(p):
    return -p.log().sum()


def spread(p):
    return ((p - p.mean()) ** 2).sum().sqrt()


@pytest.mark.parametrize(
    ("loss", "domain", "line"),
    [
        (logarithm, domains.probability(), "'p': TensorSpec('B C', domains.interval(0.01, 0.99))"),
        (logarithm, domains.nonnegative(), "'p': TensorSpec('B C', domains.positive())"),
        (spread, domains.probability(), ""),  # it is as singular at equal numbers anywhere
        (spread, domains.nonnegative(), ""),
    ],
    ids=["logarithm-probability", "logarithm-nonnegative", "spread-probability", "spread-nonnegative"],
)
def test_the_hint_narrows_the_domain_where_that_helps(loss, domain, line):
    spec = LossSpec("loss", {"loss": loss}, inputs={"p": TensorSpec("B C", domain)})
    hints = [f.hint for f in verify(spec, rules=["G08"], profile="quick").findings]
    assert hints
    assert all(line in hint if line else "narrow" not in hint for hint in hints), hints


class _Doubled(torch.autograd.Function):
    """x, with twice its gradient."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, upstream):
        return 2 * upstream


def twice_the_gradient(predictions, labels, reduction="mean"):
    each = _Doubled.apply((predictions - labels) ** 2)
    return each if reduction == "none" else getattr(each, reduction)()


def test_a_gradient_that_is_wrong_by_every_reduction_is_no_finding_about_reductions():
    spec = rough_losses.spec(twice_the_gradient, output=None)
    assert {f.rule for f in verify(spec, rules=["B07", "G02"], profile="quick").findings} == {"G02"}


def test_a_reduction_that_is_refused_as_any_unknown_word_is_no_defect():
    spec = LossSpec("two_strings", {"candidate": two_strings}, **WEIGHTED_SAMPLES)
    found = verify(spec, rules=["B07"], profile="quick")
    assert not found.findings
    assert "does not take the three strings" in found.outcomes[0].reason


class AssertsInItsConstructor(torch.nn.Module):
    """As asteroid's SingleSrcNegSDR, whose assertion carries no words."""

    def __init__(self, reduction="mean"):
        assert reduction != "sum", NotImplementedError
        super().__init__()
        self.reduction = reduction

    def forward(self, predictions, labels):
        return _two_reductions(predictions, labels, self.reduction)


def _two_reductions(predictions, labels, reduction):
    each = (predictions - labels) ** 2
    return each.mean() if reduction == "mean" else each


def refusing(error):
    """A function that refuses one of the strings by this error, and takes any other."""

    def loss(predictions, labels, reduction="mean"):
        if reduction == "sum":
            raise error
        return _two_reductions(predictions, labels, reduction)

    return loss


class FailsInItsConstructor(AssertsInItsConstructor):
    def __init__(self, reduction="mean"):
        super().__init__(reduction={"mean": "mean", "none": "none", "sum": None}[reduction].lower())


@pytest.mark.parametrize(
    ("loss", "is_right"),
    [
        (AssertsInItsConstructor, True),
        (refusing(ValueError("reduction must be none or mean")), True),
        (refusing(NotImplementedError("'sum' has no meaning here")), True),
        (refusing(ValueError("sum is not supported")), True),
        (refusing(ValueError("choose one of: none, mean")), True),
        (FailsInItsConstructor, False),
        (refusing(ValueError("the weights must sum to 1")), False),
        (refusing(RuntimeError("view size is not compatible")), False),
    ],
)
def test_a_loss_may_refuse_a_reduction_in_words_of_its_own(loss, is_right):
    found = verify(rough_losses.spec(loss, output=None), rules=["B07"], profile="quick")
    assert [f.evidence["aspect"] for f in found.findings] == ([] if is_right else ["sum raises"])


def test_what_raises_at_some_values_says_how_tensors_that_depend_on_others_are_declared():
    def loss(x, lengths):
        alpha = [x.sum()] * int(lengths.min()) + [None]
        return -alpha[1]

    tensors = {"x": TensorSpec("B T"), "lengths": TensorSpec("B", domains.lengths("T"))}
    (found, *_) = verify(LossSpec("alpha", {"alpha": loss}, inputs=tensors), profile="quick", rules=["B01"]).findings
    assert "loss-harness explain custom" in found.hint
