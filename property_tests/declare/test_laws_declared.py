"""Laws as data: the call that makes each is its text, and impossible ones are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch.nn.functional as F

from harness import DeclarationError, laws

EVERY = (
    laws.mean_over("B"),
    laws.sum_over("B"),
    laws.permutation("N"),
    laws.linear_in("weights"),
    laws.scale_invariant("embeddings"),
    laws.translation_invariant("logits", "labels"),
    laws.symmetric("a", "b"),
    laws.nonnegative(),
    laws.zero_when_equal("a", "b"),
    laws.reduces_to(F.mse_loss, weights=1.0),
    laws.zero_weight_removes("weights"),
    laws.repeats("weights"),
    laws.inert("labels"),
    laws.data_parallel("B", worlds=(1, 2)),
    laws.unbiased(500),
)


def test_every_law_has_a_code_of_its_own_in_order() -> None:
    assert [law.code for law in EVERY] == [f"L{number:02d}" for number in range(1, 16)]


@pytest.mark.parametrize("law", EVERY, ids=repr)
def test_the_text_of_a_law_is_the_call_that_makes_it(law: laws.Law) -> None:
    assert eval(repr(law), {"laws": laws, "mse_loss": F.mse_loss}) == law


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: laws.translation_invariant(), r"e.g. translation_invariant\('logits'\)"),
        (lambda: laws.reduces_to(F.mse_loss), r"e.g. reduces_to\(F.mse_loss, weights=1.0\)"),
        (lambda: laws.reduces_to("mse", weights=1.0), "needs a function of the remaining tensors"),  # type: ignore[arg-type]
        (lambda: laws.reduces_to(F.mse_loss, weights="1"), r"weights='1', expected a number"),  # type: ignore[arg-type]
        (lambda: laws.mean_over(0), r"such as mean_over\('B'\)"),  # type: ignore[arg-type]
        (lambda: laws.linear_in(None), r"such as linear_in\('weights'\)"),  # type: ignore[arg-type]
    ],
)
def test_an_impossible_law_is_refused_with_the_line_to_write(make: Callable[[], laws.Law], line: str) -> None:
    with pytest.raises(DeclarationError, match=line):
        make()
