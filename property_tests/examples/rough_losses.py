"""Losses that misbehave: they raise, return something else, print, warn, or change what they were given."""

from __future__ import annotations

import random
import warnings

import numpy as np
import torch

from harness import LossSpec, TensorSpec

DECLARED = {
    "inputs": {"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
    "output": TensorSpec(""),
}


def spec(loss, name=None, **declared):
    """A loss of one implementation, declared on pairs of matrices."""
    return LossSpec(name or loss.__name__, {"candidate": loss}, **{**DECLARED, **declared})


def mean_squared(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def checks_shapes(predictions, labels):
    if predictions.shape != labels.shape or predictions.ndim != 2:
        raise ValueError(f"predictions {list(predictions.shape)} and labels {list(labels.shape)} should be one [B, C]")
    return ((predictions - labels) ** 2).mean()


def raises(predictions, labels):
    raise RuntimeError("no luck\non a second line")


def raises_without_words(predictions, labels):
    raise ValueError


def asserts(predictions, labels):
    assert predictions.shape == labels.T.shape, "never"
    return mean_squared(predictions, labels)


def recurses(predictions, labels):
    return recurses(predictions, labels)


def stops_iteration(predictions, labels):
    raise StopIteration


def returns_a_tuple(predictions, labels):
    return mean_squared(predictions, labels), {"accuracy": 1.0}


def returns_none(predictions, labels):
    mean_squared(predictions, labels)


def returns_a_number(predictions, labels):
    return 3


def returns_an_integer_tensor(predictions, labels):
    return torch.tensor(3)


def returns_a_complex_tensor(predictions, labels):
    return mean_squared(predictions, labels) + 0j


def returns_a_sparse_tensor(predictions, labels):
    return (predictions - labels).to_sparse()


def returns_an_empty_tensor(predictions, labels):
    return predictions.new_zeros(0)


def returns_a_tensor_elsewhere(predictions, labels):
    return torch.zeros((), device="meta")


def returns_nan(predictions, labels):
    return mean_squared(predictions, labels) * float("nan")


def backward_raises(predictions, labels):
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sum()

        @staticmethod
        def backward(ctx, upstream):
            raise RuntimeError("no backward")

    return Broken.apply(predictions - labels)


def goes_backward_itself(predictions, labels):
    value = mean_squared(predictions, labels)
    value.backward()
    return value


def edits_a_leaf(predictions, labels):
    predictions -= labels
    return predictions.square().mean()


def overwrites_everything(predictions, labels):
    value = mean_squared(predictions, labels)
    predictions.data.zero_()
    labels.zero_()
    return value


def resizes_its_labels(predictions, labels):
    value = mean_squared(predictions, labels)
    labels.resize_(0)
    return value


def prints(predictions, labels):
    print("a loss that talks")
    return mean_squared(predictions, labels)


def warns(predictions, labels):
    warnings.warn("careful", stacklevel=2)
    return mean_squared(predictions, labels)


def changes_warning_filters(predictions, labels):
    warnings.simplefilter("error")
    return mean_squared(predictions, labels)


def changes_every_global(predictions, labels):
    value = mean_squared(predictions, labels) + torch.rand(()) + random.random() + np.random.rand()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.use_deterministic_algorithms(True)
    torch.autograd.set_detect_anomaly(True)
    return value


def changes_every_global_and_raises(predictions, labels):
    changes_every_global(predictions, labels)
    raise ValueError("after the fact")


FAILING = (
    raises,
    raises_without_words,
    asserts,
    recurses,
    stops_iteration,
    returns_a_tuple,
    returns_none,
    returns_a_number,
    returns_an_integer_tensor,
    returns_a_complex_tensor,
    returns_a_sparse_tensor,
    returns_an_empty_tensor,
    returns_a_tensor_elsewhere,
    returns_nan,
    backward_raises,
    goes_backward_itself,
    edits_a_leaf,
    overwrites_everything,
    resizes_its_labels,
)
NOISY = (prints, warns, changes_warning_filters)
