import json

import pytest
import report_examples as examples
from hypothesis import given
from hypothesis import strategies as st

from harness.judging import baseline
from harness.judging.baseline import BaselineError, Entry

words = st.text(max_size=8)
entries = st.frozensets(st.builds(Entry, words, words, words, words), max_size=6)


@given(entries)
def test_what_is_written_is_read_back(some):
    assert baseline.loads(baseline.dumps(some)) == some


def test_the_file_is_sorted_and_has_one_entry_a_line():
    some = [Entry("b", "x", "G01", ""), Entry("a", "x", "G08", "value"), Entry("a", "x", "B01", "raises")]
    first, *lines, last = baseline.dumps(some).splitlines()
    assert [json.loads(line.rstrip(","))["rule"] for line in lines] == ["B01", "G08", "G01"]
    assert baseline.dumps(reversed(some)) == baseline.dumps(some)
    assert (first, last) == ('{"schema": 1, "accepted": [', "]}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a baseline"),
        ("[]", "lacks the list `accepted`"),
        ('{"schema": 1}', "lacks the list `accepted`"),
        ('{"schema": 2, "accepted": []}', "schema 2 came, but this version reads schema 1"),
        ('{"schema": 1, "accepted": [{"loss": "a"}]}', "expected the texts"),
        ('{"schema": 1, "accepted": [{"loss": 1, "implementation": "", "rule": "", "aspect": ""}]}', "the entry"),
    ],
)
def test_what_is_no_baseline_is_refused(tmp_path, text, message):
    file = tmp_path / "accepted.json"
    file.write_text(text)
    with pytest.raises(BaselineError, match=message) as caught:
        baseline.read(file)
    assert str(file) in str(caught.value)


def report(*findings, accepted=frozenset(), **changes):
    record = examples.loss(findings=findings, **changes)
    return examples.report(baseline.marked(record, accepted))


G01 = Entry("graph_distance", "vectorized", "G01", "")
FAILED = (examples.outcome(status="failed"),)


def test_an_accepted_error_fails_nothing_and_is_a_caveat():
    made = report(examples.finding(), accepted={G01}, outcomes=(examples.outcome("naive"), *FAILED))
    assert made.ok
    (_, verdict) = made.losses[0].verdicts
    assert verdict.verdict == "adopt with caveats"
    assert "G01 gradient matches finite differences fails and is accepted by the baseline" in verdict.reasons


def test_numbers_do_not_matter_and_the_aspect_does():
    other = examples.finding(evidence={"aspect": "", "came": "12345"}, message="another / text\n  x = 2")
    assert report(other, accepted={G01}).ok
    assert not report(examples.finding(evidence={"aspect": "another thing"}), accepted={G01}).ok


@pytest.mark.parametrize("change", [{"implementation": "naive"}, {"rule": "G02"}])
def test_what_is_not_accepted_still_fails(change):
    assert not report(examples.finding(**change), accepted={G01}).ok


def test_a_crash_is_never_accepted():
    made = report(examples.finding(rule="X01"), examples.finding("note"))
    assert baseline.updated((), made) == frozenset()


def test_an_entry_that_no_longer_occurs_is_named_only_where_its_rule_was_checked():
    kept = {Entry("another loss", "x", "G01", ""), Entry("graph_distance", "vectorized", "G02", "")}
    made = report(outcomes=(examples.outcome(), examples.outcome(rule="G02", status="skipped")))
    assert baseline.unseen({G01, *kept}, made) == [G01]
    assert baseline.updated({G01, *kept}, made) == kept


def test_an_update_accepts_errors_and_warnings():
    made = report(examples.finding(), examples.finding("warning", rule="B03"), examples.finding("note", rule="P02"))
    assert {entry.rule for entry in baseline.updated((), made)} == {"G01", "B03"}
