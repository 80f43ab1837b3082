"""Mutants of L15: losses that draw, and are on average something else than their reference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from harness import TensorSpec, domains, laws
from mutants.pair import PAIRWISE, pair

DRAWS = {**PAIRWISE, "stochastic": True, "laws": (laws.unbiased(),)}
SCORES = {
    "inputs": {"scores": TensorSpec("B C"), "labels": TensorSpec("B", domains.index("C"))},
    "stochastic": True,
    "laws": (laws.unbiased(2000),),
}


def mean_error(predictions, labels):
    return (predictions - labels).mean()


def mean_squared(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def with_a_dropout(predictions, labels):
    return mean_error(F.dropout(predictions, 0.3), labels)


def with_a_dropout_that_is_not_rescaled(predictions, labels):
    return mean_error(predictions * (torch.rand_like(predictions) >= 0.3), labels)


class Dropped(nn.Module):
    rescaled = True

    def forward(self, predictions, labels):
        if not self.training:
            return mean_error(predictions, labels)
        kept = torch.rand_like(predictions) >= 0.5
        return mean_error(predictions * kept * (2 if self.rescaled else 1), labels)


class DroppedInTraining(Dropped):
    rescaled = False


def of_one_row(predictions, labels, generator):
    row = int(torch.randint(len(labels), (), generator=generator))
    return mean_squared(predictions[row], labels[row])


def of_one_row_but_the_last(predictions, labels, generator):
    row = int(torch.randint(max(len(labels) - 1, 1), (), generator=generator))
    return mean_squared(predictions[row], labels[row])


def all_against_one(scores, labels):
    """sum over classes of softplus, less the score of the label"""
    return (F.softplus(scores).sum(-1) - scores[torch.arange(len(labels)), labels]).mean()


def _sampled(scores, labels, factor):
    drawn = torch.randint(scores.shape[-1], (2,))
    return (factor * F.softplus(scores[:, drawn]).sum(-1) - scores[torch.arange(len(labels)), labels]).mean()


def of_two_classes(scores, labels):
    return _sampled(scores, labels, scores.shape[-1] / 2)


def of_two_classes_without_correction(scores, labels):
    return _sampled(scores, labels, 1)


class _StraightThrough(torch.autograd.Function):
    """Stochastic rounding; the gradient goes through as that of the identity, times a factor."""

    @staticmethod
    def forward(ctx, values, factor):
        ctx.factor = factor
        return torch.floor(values + torch.rand_like(values))

    @staticmethod
    def backward(ctx, upstream):
        return upstream * ctx.factor, None


def rounded_at_random(predictions, labels):
    return mean_error(_StraightThrough.apply(predictions, 1.0), labels)


def rounded_with_half_the_gradient(predictions, labels):
    return mean_error(_StraightThrough.apply(predictions, 0.5), labels)


PAIRS = (
    pair("L15", "dropout not rescaled", with_a_dropout_that_is_not_rescaled, with_a_dropout, DRAWS, reference=mean_error, says="the mean of 1000 draws"),
    pair("L15", "dropout of a module", DroppedInTraining, Dropped, DRAWS, reference=mean_error, says="in train()"),
    pair("L15", "a row that is never drawn", of_one_row_but_the_last, of_one_row, DRAWS, reference=mean_squared, profile="ci"),
    pair("L15", "sampled classes", of_two_classes_without_correction, of_two_classes, SCORES, reference=all_against_one),
    pair("L15", "half the gradient", rounded_with_half_the_gradient, rounded_at_random, DRAWS, reference=mean_error, aspect="gradient"),
)  # fmt: skip
