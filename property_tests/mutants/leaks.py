"""Mutants of the rule about leaks: G09."""

from __future__ import annotations

import torch
from torch import nn

from harness import TensorSpec, domains
from mutants.pair import pair


def mean_squared(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def distillation_that_trains_the_teacher(student, teacher):
    return -(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1).mean()


def distillation(student, teacher):
    return distillation_that_trains_the_teacher(student, teacher.detach())


def distillation_beside_labels(student, teacher):
    return distillation_that_trains_the_teacher(student, teacher) - student.log_softmax(-1)[:, 0].mean()


def squares_of_both(student, teacher):
    return (student.softmax(-1) - teacher.softmax(-1)).square().sum(-1).mean() + student.logsumexp(-1).mean()


def preference(student, teacher):
    """Direct preference optimization: the second logits are those of the rejected answers, no teacher's."""
    chosen, rejected = (logits.log_softmax(-1)[:, 0] for logits in (student, teacher))
    return -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)).mean()


def ranking(student, teacher):
    return (1 - student + teacher).clamp(min=0).mean()


class KeepsItsLoss(nn.Module):
    def forward(self, predictions, labels):
        self.latest = mean_squared(predictions, labels)
        return self.latest


class KeepsItsValue(nn.Module):
    def forward(self, predictions, labels):
        value = mean_squared(predictions, labels)
        self.latest = value.detach()
        return value


HISTORY = []


def appended_to_a_list(predictions, labels):
    value = mean_squared(predictions, labels)
    HISTORY.append(value)
    del HISTORY[:-1]
    return value


class Running(nn.Module):
    """A running scale that carries the graph of every step before it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def forward(self, predictions, labels):
        if self.training:
            self.scale = 0.9 * self.scale + 0.1 * self.measure(predictions)
        return mean_squared(predictions, labels) / self.scale.detach()

    def measure(self, predictions):
        return predictions.square().mean()


class RunningDetached(Running):
    def measure(self, predictions):
        return predictions.detach().square().mean()


class RunningInTheLoss(Running):
    def forward(self, predictions, labels):
        if self.training:
            self.scale = 0.9 * self.scale + 0.1 * self.measure(predictions)
        return mean_squared(predictions, labels) / self.scale


TEACHER = {
    "inputs": {"student": TensorSpec("B C", domains.logits()), "teacher": TensorSpec("B C", domains.logits())},
}

PAIRS = (
    pair(
        "G09",
        "teacher is trained",
        distillation_that_trains_the_teacher,
        distillation,
        TEACHER,
        severity="warning",
        aspect="teacher is trained",
    ),
    pair("G09", "teacher is trained by squares", squares_of_both, preference, TEACHER, severity="warning"),
    pair("G09", "teacher is trained beside labels", distillation_beside_labels, ranking, TEACHER, severity="warning"),
    pair("G09", "loss kept on self", KeepsItsLoss, KeepsItsValue, severity="warning", says="self.latest"),
    pair("G09", "loss kept in a list", appended_to_a_list, mean_squared, severity="warning", aspect="graph kept"),
    pair("G09", "running scale attached", Running, RunningDetached, severity="warning", says="self.scale"),
    pair("G09", "second step fails", RunningInTheLoss, RunningDetached, severity="warning", aspect="second step"),
)
