"""The programs that compare speed: they time both in turn, and what is promised is held to the whole interval."""

import compare_clocks
import pytest
import side_by_side


def played(seconds, log):
    """Goes that take these seconds, one after the other and again."""

    def go():
        log.append(seconds)
        return seconds[len(log) % len(seconds)]

    return go


def pair(ours, theirs, **promised):
    log = []
    return side_by_side.Pair("ours", "theirs", played(ours, log), played(theirs, log), **promised), log


STEADY, DOUBLE, WIDE = (1.0, 1.01), (2.0, 2.02), (0.5, 4.0)


@pytest.mark.parametrize(
    ("ours", "promised", "kept"),
    [
        (DOUBLE, {"most": 2.5}, True),
        (DOUBLE, {"most": 1.5}, False),
        (DOUBLE, {"least": 1.5}, True),
        (DOUBLE, {"least": 3.0}, False),
        (DOUBLE, {"most": 1.5, "least": 1.0}, False),
        (WIDE, {"most": 2.0}, True),  # an interval that holds the limit decides nothing
    ],
)
def test_a_promise_is_broken_where_the_whole_interval_lies_beyond_it(ours, promised, kept):
    made, _ = pair(ours, STEADY, **promised)
    assert made.is_kept(made.ratio(12)) == kept


def test_both_go_in_every_round_in_random_order():
    made, log = pair(DOUBLE, STEADY)
    assert made.ratio(20).speedup == pytest.approx(2, rel=0.02)
    rounds = list(zip(log[2::2], log[3::2], strict=True))  # after one go of each, which is not counted
    assert set(rounds) == {(STEADY, DOUBLE), (DOUBLE, STEADY)}
    assert len(rounds) == 20


def test_what_is_promised_is_said():
    assert pair(STEADY, STEADY, most=3, least=1.5)[0].promise == "at most 3 and at least 1.5"


@pytest.mark.parametrize("subject", side_by_side.SUBJECTS)
def test_everyone_of_a_subject_can_be_timed(subject, tmp_path):
    for made in side_by_side.SUBJECTS[subject](tmp_path):
        assert made.ours() > 0
        assert made.theirs() > 0
        assert made.promise


def test_our_timer_and_torchs_take_turns_on_the_same_statement():
    found = compare_clocks.compare(compare_clocks.STATEMENTS[0], rounds=2)
    assert len(found.ours) == len(found.theirs) == 2
    assert min(*found.ours, *found.theirs) > 0
