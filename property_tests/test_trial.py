"""How large the numbers of an evaluation are: what was computed counts, memory that nobody has written does not."""

import pytest
import torch
from torch.nn import functional

from harness.rules import trial
from harness.rules.trial import Intermediates


@pytest.fixture
def looked_at(monkeypatch):
    """Shapes of the tensors whose values were looked at."""
    shapes = []
    largest_finite = trial._largest_finite

    def recording(values):
        shapes.append(tuple(values.shape))
        return largest_finite(values)

    monkeypatch.setattr(trial, "_largest_finite", recording)
    return shapes


@pytest.mark.parametrize(
    "allocate",
    [
        lambda like: torch.empty(5),
        lambda like: torch.empty_like(like),
        lambda like: like.new_empty(5),
        lambda like: torch.empty_strided((5,), (1,)),
    ],
    ids=["empty", "empty_like", "new_empty", "empty_strided"],
)
def test_memory_that_nobody_has_written_is_no_intermediate(looked_at, allocate):
    like = torch.ones(5)
    with Intermediates():
        allocate(like)
    assert looked_at == []


def test_the_table_of_alignments_that_ctc_fills_only_in_part_is_no_intermediate(looked_at):
    log_probabilities = torch.zeros(6, 2, 4).log_softmax(-1)
    with Intermediates() as recorder:
        losses = functional.ctc_loss(
            log_probabilities, torch.ones(2, 2, dtype=torch.long), (3, 6), (1, 2), reduction="none"
        )
    assert set(looked_at) == {(2,)}
    assert recorder.largest == pytest.approx(float(losses.max()))


def test_what_is_written_counts():
    with Intermediates() as recorder:
        torch.empty(5).fill_(1e6).mean()
    assert recorder.largest == pytest.approx(1e6)
