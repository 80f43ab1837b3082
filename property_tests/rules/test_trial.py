"""How large the numbers of an evaluation are: what was computed counts, memory that nobody has written does not.

And what of an evaluation is made once, and only where it is asked for.
"""

import math

import pytest
import torch
from rough_losses import mean_squared, spec
from torch.nn import functional

from harness.calls import process_state
from harness.calls.evaluation import LossRaised
from harness.calls.watch import Calls
from harness.checking.verify import open_session
from harness.rules import trial
from harness.rules.gradients.finite_differences import gradient_matches_finite_differences
from harness.rules.rule import Mismatch, Partly, mismatches
from harness.rules.trial import Intermediates, is_finite


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


def test_a_value_takes_no_gradient_and_is_that_of_the_shared_evaluation():
    graded = []

    def watched(predictions, labels):
        loss = mean_squared(predictions, labels)
        if loss.requires_grad:
            loss.register_hook(graded.append)
        return loss

    session = open_session(spec(watched))
    (case,) = session.pool("distinct", "smooth", 1)
    value = session.trial(session.spec.reference, case).value
    assert graded == []
    assert torch.equal(value, session.trial(session.spec.reference, case).base.output)
    assert len(graded) == 1
    assert session.trial(session.spec.reference, case).value is session.trial(session.spec.reference, case).base.output


@pytest.mark.parametrize("values", [[1.0, -2.0], [], [1.7e308, 1.7e308], [math.inf, -math.inf], [math.nan], [math.inf]])
def test_all_are_finite_where_each_is(values):
    tensor = torch.tensor(values, dtype=torch.float64)
    assert is_finite(tensor) == bool(tensor.isfinite().all())


def test_a_check_goes_no_further_than_it_is_asked():
    def check():
        yield Mismatch("loss", "1", "2")
        raise AssertionError("nobody asked")

    assert next(mismatches(check())).came == "1"
    left_out = []
    assert list(mismatches(Partly("too large"), left_out)) == []
    assert left_out == ["too large"]


def test_ties_beyond_the_first_cases_are_looked_at_along_directions():
    calls = []

    def counting(predictions, labels):
        calls.append(1)
        return mean_squared(predictions, labels)

    session = open_session(spec(counting))
    case = next(c for c in session.pool("distinct", None, 8) if c.tensors["predictions"].mode == "lattice")
    trial = session.trial(session.spec.reference, case, exhaustive=False)
    assert gradient_matches_finite_differences(trial) is None
    along = len(calls)
    calls.clear()
    assert gradient_matches_finite_differences(session.trial(session.spec.reference, case)) is None
    assert 2 * along < len(calls)


def iterates_without_gradients(predictions, labels):
    """As Sinkhorn's iterations do, off and on again in a pair of calls."""
    errors = (predictions - labels) ** 2
    torch.set_grad_enabled(False)
    scale = errors.mean()
    for _ in range(50):
        scale = (scale + 1) / 2
    torch.set_grad_enabled(True)
    return (errors / scale).mean()


def test_a_call_that_is_ended_without_gradients_leaves_those_of_the_next_call_on():
    session = open_session(spec(iterates_without_gradients))
    asked = session.trial("candidate", session.pool("distinct", "smooth", 1)[0])
    with process_state.settled():
        with pytest.raises(LossRaised):
            asked.run(asked.tensors(), mode=Calls(20))
        assert asked.run(asked.tensors()).connected
