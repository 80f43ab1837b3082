"""A small spec that fresh processes can load, for the tests of the measurement."""

import torch

from harness import LossSpec, TensorSpec, domains


def naive(predictions, labels, weights):
    total = predictions.new_zeros(())
    for row in range(predictions.shape[0]):
        for column in range(predictions.shape[1]):
            total = total + weights[row] * (predictions[row, column] - labels[row, column]) ** 2
    return total / predictions.numel()


def vectorized(predictions, labels, weights):
    return (weights[:, None] * (predictions - labels) ** 2).mean()


def wrong_axis(predictions, labels, weights):
    return (weights[None, :] * (predictions - labels) ** 2).mean()


def wrong_gradient(predictions, labels, weights):
    half = (predictions + predictions.detach()) / 2
    return (weights[:, None] * (half - labels) ** 2).mean()


def not_finite(predictions, labels, weights):
    return vectorized(predictions, labels, weights) / 0


def raises(predictions, labels, weights):
    raise ValueError("no such thing\nand more")


def endless(predictions, labels, weights):
    total = predictions.sum()
    while True:
        total = total + weights[0]


def talks(predictions, labels, weights):
    print("{not json")
    return vectorized(predictions, labels, weights)


class Module(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, predictions, labels):
        return (self.weights[:, None] * (predictions - labels) ** 2).mean()


def spec_of(name, reference="naive", **implementations):
    return LossSpec(
        name,
        implementations if reference in implementations else {reference: naive, **implementations},
        inputs={"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
        context={"weights": TensorSpec("B", domains.nonnegative())},
        output=TensorSpec(""),
        bench_sizes=({"B": 3, "C": 3},),
    )


SPECS = [
    spec_of("timed", vectorized=vectorized, module=Module),
    spec_of("talking", talks=talks),
    spec_of("close", "vectorized", vectorized=vectorized, module=Module),
]
