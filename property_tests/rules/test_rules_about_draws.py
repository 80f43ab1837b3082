"""Losses that draw random numbers: what is compared at which draws, and how often a correct one is reported."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from mutants import unbiased as losses
from mutants.pair import PAIRWISE
from torch import nn

from harness import DeclarationError, LossSpec, cli, laws, verify
from harness.calls import tolerance
from harness.rules.laws.unbiased import _farthest

KEPT = torch.Generator().manual_seed(0)  # nothing seeds it


def noisy(predictions, labels):
    return ((predictions + 0.1 * torch.randn_like(predictions) - labels) ** 2).mean()


def noisy_by_a_generator(predictions, labels, *, rng: torch.Generator):
    noise = torch.randn(predictions.shape, generator=rng, dtype=predictions.dtype, device=predictions.device)
    return ((predictions + 0.1 * noise - labels) ** 2).mean()


def noisy_beside_its_generator(predictions, labels, generator):
    return noisy_by_a_generator(predictions, labels, rng=generator) + noisy(predictions, labels)


def noisy_by_one_that_nobody_seeds(predictions, labels):
    return noisy_by_a_generator(predictions, labels, rng=KEPT)


class Noisy(nn.Module):
    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def forward(self, predictions, labels):
        return noisy_by_a_generator(predictions, labels, rng=self.generator)


def of_a_row(predictions, labels):
    return ((predictions - labels) ** 2)[random.randrange(len(labels))].mean()


def of_a_column(predictions, labels):
    return ((predictions - labels) ** 2)[:, int(np.random.randint(labels.shape[1]))].mean()


class DropsInTraining(nn.Module):
    def forward(self, predictions, labels):
        return ((F.dropout(predictions, 0.5, self.training) - labels) ** 2).mean()


def spec(loss, **changes):
    return LossSpec("drawn", {"candidate": loss}, **{**PAIRWISE, "stochastic": True, **changes})


def said(found, severity="error"):
    return [(f.rule, f.message) for f in found.findings if f.severity == severity]


@pytest.mark.parametrize("loss", [noisy, noisy_by_a_generator, Noisy, of_a_row, of_a_column, DropsInTraining])
def test_a_loss_that_is_declared_to_draw_is_right_under_every_rule(loss):
    found = verify(spec(loss), profile="quick")
    assert said(found) == []
    assert {f.rule for f in found.findings} <= {"B03", "B05"}  # which its twin that draws nothing gets, too


@pytest.mark.parametrize("loss", [noisy, of_a_row, of_a_column])
def test_a_loss_that_declares_nothing_gets_one_error_that_names_the_line_to_write(loss):
    found = verify(spec(loss, stochastic=False), profile="quick", ignore=["B03", "B05"])
    (cause,) = (f for f in found.findings if not f.follows)
    assert (cause.rule, cause.severity) == ("S01", "error")
    assert "declare LossSpec(stochastic=True)" in cause.hint
    assert {f.follows for f in found.findings} == {"", "S01"}


@pytest.mark.parametrize(
    ("loss", "rule", "words"),
    [
        (noisy_by_one_that_nobody_seeds, "S01", "the same state of every generator"),
        (noisy_beside_its_generator, "S02", "draw from the generator that it is given"),
    ],
)
def test_draws_that_do_not_begin_where_they_are_told_to_are_found(loss, rule, words):
    (finding,) = verify(spec(loss), profile="quick", rules=["S01", "S02"]).findings
    assert (finding.rule, words in finding.message) == (rule, True), finding.message


def test_draws_in_training_alone_are_a_note_that_names_the_line():
    (finding,) = verify(spec(DropsInTraining, stochastic=False), profile="quick", rules=["S"]).findings
    assert (finding.severity, finding.hint) == ("note", "where draws are meant, declare LossSpec(stochastic=True)")


def test_a_generator_that_nothing_declares_is_refused_with_the_line_to_write():
    with pytest.raises(DeclarationError, match=r"LossSpec\(\.\.\., stochastic=True\)"):
        spec(noisy_by_a_generator, stochastic=False)


@pytest.mark.parametrize(
    ("changes", "words"), [({"stochastic": False}, "--stochastic"), ({}, "a first implementation that draws nothing")]
)
def test_a_law_about_draws_needs_draws_and_a_reference(changes, words):
    with pytest.raises(DeclarationError, match=words):
        spec(noisy, laws=(laws.unbiased(),), **changes)


def test_too_few_draws_are_refused():
    with pytest.raises(DeclarationError, match="draws=10, expected a whole number of at least 100"):
        laws.unbiased(10)


def test_the_reference_is_compared_by_the_law_and_without_it_at_the_same_draws():
    both = {"reference": noisy, "candidate": noisy}
    assert verify(LossSpec("drawn", both, **PAIRWISE, stochastic=True), profile="quick", rules=["E01", "E02"]).ok
    found = verify(
        LossSpec("drawn", both, **PAIRWISE, stochastic=True, laws=(laws.unbiased(200),)),
        profile="quick",
        rules=["E01", "L15"],
        implementations=["candidate"],
    )
    assert [(o.rule, o.status.value) for o in found.outcomes] == [("E01", "inapplicable"), ("L15", "passed")]


@pytest.mark.parametrize("seed", range(6))
def test_an_honest_loss_is_not_reported_whatever_the_seed(seed):
    honest = {"reference": losses.mean_error, "candidate": losses.with_a_dropout}
    declared = {**losses.DRAWS, "laws": (laws.unbiased(200),)}
    assert verify(LossSpec("honest", honest, **declared), profile="quick", rules=["L15"], seed=seed).ok


def skewed(part, count):
    return lambda shape, generator: (torch.rand(shape, generator=generator, dtype=torch.float64) < part).double() / part


DISTRIBUTIONS = {
    "normal": lambda shape, generator: 1 + torch.randn(shape, generator=generator, dtype=torch.float64),
    "one in ten": skewed(0.1, 10),
    "one in thirty": skewed(1 / 30, 30),
    "exponential": lambda shape, generator: -torch.log1p(-torch.rand(shape, generator=generator, dtype=torch.float64)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_mean_is_beyond_chance_as_often_as_is_stated(monkeypatch, name):
    """4000 means of 500 draws at a rate of 1 %: 40 are expected, and more than 70 come once in 100,000 times."""
    monkeypatch.setattr(tolerance, "FALSE_ALARM", 0.01)
    limit, generator = tolerance.chance(500, 1), torch.Generator().manual_seed(1)
    values, wanted = DISTRIBUTIONS[name]((500, 4000), generator), torch.ones(1, 1, dtype=torch.float64)
    beyond = sum(_farthest(column, wanted, limit, 0.0) is not None for column in values.unsqueeze(-1).unbind(1))
    assert beyond <= 70


def test_the_bias_that_the_law_states_is_seen():
    """At 8 / sqrt(n) deviations nearly always; at 1 / sqrt(n), as chance gives every third time, never."""
    generator, wanted = torch.Generator().manual_seed(2), torch.zeros(1, 1, dtype=torch.float64)
    limit = tolerance.chance(1000, 1)
    values = torch.randn((200, 1000, 1), generator=generator, dtype=torch.float64)
    seen = [sum(_farthest(v + b / math.sqrt(1000), wanted, limit, 0.0) is not None for v in values) for b in (1, 8)]
    assert seen[0] == 0
    assert seen[1] >= 195


FILE = """
import torch


def noisy(predictions, labels):
    return ((predictions + 0.1 * torch.randn_like(predictions) - labels) ** 2).mean()


def exact(predictions, labels):
    return ((predictions - labels) ** 2).mean() + 0.01
"""


def test_the_command_line_says_what_to_add_and_takes_it(tmp_path, monkeypatch):
    (tmp_path / "noisy.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    arguments = ["verify", "noisy.py:noisy", "--inputs", "predictions: B C; labels: B C", "--profile", "quick"]
    ran = CliRunner().invoke(cli.cli, [*arguments, "--select", "S"])
    assert (ran.exit_code, "declare --stochastic" in ran.output) == (1, True), ran.output
    law = ["--stochastic", "--law", "unbiased(500)", "--reference", "noisy.py:exact", "--select", "S,L15"]
    ran = CliRunner().invoke(cli.cli, [*arguments, *law])
    assert ran.exit_code == 0, ran.output
