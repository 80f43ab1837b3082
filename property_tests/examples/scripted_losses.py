"""Losses that last as long as is written here, also where a fresh process times them: the file brings its time along."""

import os
import random

from fake_time import FakeTime, install
from timed_losses import Module, naive, vectorized

from harness import LossSpec, TensorSpec, domains
from harness.timing.worker import MARK

TIME = FakeTime()
if MARK in os.environ:
    install(TIME)

_generator = random.Random(0)


def lasting(seconds, loss):
    """The loss, by the time of this file so long, with a scatter of 2 %."""

    def lasts(predictions, labels, weights):
        TIME.sleep(seconds * _generator.uniform(0.98, 1.02))
        return loss(predictions, labels, weights)

    return lasts


class LastingModule(Module):
    def forward(self, predictions, labels):
        TIME.sleep(1e-3 * _generator.uniform(0.98, 1.02))
        return super().forward(predictions, labels)


def _spec(name, **implementations):
    return LossSpec(
        name,
        implementations,
        inputs={"predictions": TensorSpec("B C"), "labels": TensorSpec("B C")},
        context={"weights": TensorSpec("B", domains.nonnegative())},
        output=TensorSpec(""),
        bench_sizes=({"B": 3, "C": 3},),
    )


FAR = _spec("far", naive=lasting(2e-2, naive), vectorized=lasting(1e-3, vectorized), module=LastingModule)
CLOSE = _spec("close", vectorized=lasting(1e-3, vectorized), module=LastingModule)
SPECS = [FAR, CLOSE]
