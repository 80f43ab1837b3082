"""The mutation operators do what they say, originals are clean, and a sample of mutants is caught."""

from __future__ import annotations

import functools

import pytest
import torch
from mutation import plain_losses
from mutation.equivalence import Comparison, Verdict
from mutation.mutants import Mutant, diff, mutants, selected
from mutation.operators import OPERATORS
from mutation.program import program
from mutation.score import result, results, share, verified
from mutation.subjects import SUBJECTS, find
from mutation.table import score_line

from losses import DynamicWeightedLoss


@functools.cache
def all_mutants() -> tuple[Mutant, ...]:
    return tuple(mutant for subject in SUBJECTS for mutant in mutants(subject))


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)
def test_an_operator_says_its_mistake_and_changes_some_loss(operator):
    assert operator.sentence.endswith(".")
    assert any(mutant.operator == operator.name for mutant in all_mutants())


def test_operators_have_names_of_their_own():
    assert len({operator.name for operator in OPERATORS}) == len(OPERATORS)


def test_no_two_mutants_of_a_loss_are_one_text():
    for subject in SUBJECTS:
        texts = [mutant.program.text for mutant in all_mutants() if mutant.loss == subject.name]
        assert len(set(texts)) == len(texts)
        assert subject.original.text not in texts


def test_a_mutant_shows_the_lines_in_which_it_differs_from_its_original():
    for mutant in all_mutants()[::20]:
        assert mutant.diff == diff(find(mutant.loss).original.text, mutant.program.text)
    assert all(1 <= len(mutant.diff) <= 12 for mutant in all_mutants())


def test_mutants_are_made_in_the_same_order_every_time():
    subject = find("contrastive")
    assert [m.name for m in mutants(subject)] == [m.name for m in mutants(subject)]


def test_a_program_is_the_loss_with_all_that_it_uses_from_its_package():
    loaded = program(DynamicWeightedLoss).load()
    assert loaded is not DynamicWeightedLoss
    weights, ones = torch.tensor([1.0, 3.0]), torch.ones(2)
    assert loaded(weights)(ones, torch.zeros(2)) == DynamicWeightedLoss(weights)(ones, torch.zeros(2)) == 2
    with pytest.raises(ValueError, match="labels has shape"):
        loaded(weights)(ones, torch.zeros(2, 1))


def test_few_mutants_of_an_operator_are_spread_over_its_places():
    chosen = [m.number for m in selected(find("dynamic_weighted"), 2) if m.operator == "detach"]
    every = [m.number for m in mutants(find("dynamic_weighted")) if m.operator == "detach"]
    assert len(chosen) == 2
    assert chosen[0] <= len(every) // 2 < chosen[1]


PLAIN = [subject for subject in SUBJECTS if subject.spec in plain_losses.SPECS]  # the others: test_properties.py


@pytest.mark.parametrize("subject", PLAIN, ids=lambda subject: subject.name)
def test_an_unmutated_loss_has_no_error_and_no_warning(subject):
    found = verified(subject.with_reference(subject.original.load()), "quick")
    assert not found.found
    assert not found.crashed


def chosen(name: str) -> Mutant:
    return next(mutant for mutant in all_mutants() if mutant.name == name)


def test_a_loss_is_equivalent_to_itself_and_to_a_harmless_rewriting():
    comparison = Comparison(find("masked_mean_squared_error"))
    original = find("masked_mean_squared_error").original.load()
    assert comparison.verdict(original).kind == "equivalent"

    def once(predictions, labels, mask):
        return 1.0 * original(predictions, labels, mask)

    def one_part_in_a_million(predictions, labels, mask):
        return original(predictions, labels, mask) * (1 + 1e-6)

    assert comparison.verdict(once).kind == "equivalent"
    assert comparison.verdict(one_part_in_a_million).kind == "different"


def test_a_mutant_that_raises_on_every_legal_input_is_invalid_and_not_scored():
    def refuses(predictions, labels, mask):
        raise ValueError("no")

    verdict = Comparison(find("masked_mean_squared_error")).verdict(refuses)
    assert verdict == Verdict("invalid", "raises on every legal input: ValueError")


SAMPLE = ("cosine_distance/scale-gradient/1", "cosine_distance/invert-mask/1", "cosine_distance/swap-axis/1")


def test_a_sample_of_mutants_is_caught_with_the_reference_beside_them():
    found = list(results([chosen(name) for name in SAMPLE], workers=1))
    assert [r.mutant.name for r in found if not r.with_reference] == []
    assert share(found) == 1
    assert score_line(found).startswith("caught with the reference 100.0%")


def test_the_same_mutant_has_the_same_result_twice():
    mutant = chosen("cosine_distance/drop-check/1")
    assert result(mutant) == result(mutant)
