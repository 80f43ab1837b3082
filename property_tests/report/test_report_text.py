import re

import pytest
import report_examples as examples

from harness.judging.verdict import correctness
from harness.report import text
from harness.results import words
from harness.results.schema import SourceRecord


def test_a_finding_has_the_one_form_that_all_messages_have():
    loss = examples.loss(sources=(SourceRecord("vectorized", "graph.py", 12, is_local=True, column=5),))
    assert text.finding_text(loss, examples.finding(), folder=".loss-harness/failures") == (
        "graph.py:12:5: G01 graph_distance / vectorized: d loss / d embeddings[0, 1] = -0.5599, expected -0.2799   "
        "(off by 0.28, allowed 1e-06)\n"
        "  gradient matches finite differences (float64, cpu)\n"
        "  N=2, D=2, adjacency=[[0, 1], [1, 0]]\n"
        "  repeat: loss-harness replay .loss-harness/failures/graph_distance-G01-3f2a.json"
    )


def test_a_finding_whose_line_nobody_knows_begins_with_the_target():
    loss = examples.loss(target="torch.nn:MSELoss")
    assert text.head_text(loss, examples.finding()).startswith(
        "torch.nn:MSELoss: G01 graph_distance / vectorized: d loss"
    )


def test_an_implementation_with_the_name_of_its_loss_is_named_once():
    loss = examples.loss(name="huber", implementations=("huber",))
    assert " G01 huber: d loss" in text.head_text(loss, examples.finding(implementation="huber"))


def test_concise_is_a_line_a_finding_and_grouped_puts_them_below_their_file():
    sources = (SourceRecord("vectorized", "a.py", 12, is_local=True), SourceRecord("naive", "b.py", 3, is_local=True))
    found = (examples.finding("warning", rule="B03"), examples.finding(), examples.finding(implementation="naive"))
    made = examples.report(examples.loss(findings=(*found, examples.finding("note")), sources=sources))
    concise = text.concise_text(made).splitlines()
    assert [re.sub(r" graph_distance / .*\[", " [", line) for line in concise] == [
        "a.py:12:1: G01 [error]",
        "b.py:3:1: G01 [error]",
        "a.py:12:1: B03 [warning]",
    ]
    assert [re.sub(r" graph_distance / .*\[", " [", line) for line in text.grouped_text(made).splitlines()] == [
        *("a.py:", "  12:1 G01 [error]", "  12:1 B03 [warning]", "", "b.py:", "  3:1 G01 [error]")
    ]
    assert len(text.concise_text(made, notes=True).splitlines()) == 4


def test_correctness_is_judged_whatever_the_speed():
    outcomes = (examples.outcome("naive"), examples.outcome("naive", "B01"), examples.outcome(status="failed"))
    loss = examples.loss(findings=(examples.finding(), examples.finding("warning", rule="B03")), outcomes=outcomes)
    assert correctness(loss, "vectorized") == ("wrong", "G01 fails; B03 warns")
    assert correctness(loss, "naive") == ("no error found", "2 rules passed")
    crashed = examples.loss(outcomes=(examples.outcome(status="crashed", reason="no memory"),))
    assert correctness(crashed, "vectorized") == ("not decided", "G01 crashed on cpu: no memory")
    assert correctness(examples.loss(outcomes=()), "naive") == ("not decided", "no rule ran")


def test_a_verbose_finding_ends_with_code_that_runs_as_printed():
    shown = text.finding_text(examples.loss(), examples.finding(), verbose=True)
    assert shown.endswith("\n\n    import torch\n\n    print(torch.ones(2))")


def test_a_hint_is_shown_once():
    hint = "narrow it with domains.positive()"
    assert text.finding_text(examples.loss(), examples.finding(hint=hint)).count(hint) == 1
    assert (
        text.finding_text(examples.loss(), examples.finding(hint=hint, message=f"x\n  wrong; {hint}")).count(hint) == 1
    )


def test_errors_come_first_and_notes_can_be_left_out():
    found = (examples.finding("note"), examples.finding("error"), examples.finding("warning"))
    made = examples.report(examples.loss(findings=found))
    headings = [line for line in text.findings_text(made).splitlines() if line[:1].isdecimal()]
    assert headings == ["1 error", "1 warning", "1 note"]
    assert "note" not in text.findings_text(made, notes=False)


def test_what_a_reference_takes_is_one_line_beside_its_candidates():
    made = [
        examples.finding("warning", rule=rule, implementation=name, message=f"{name} {rule} {number}")
        for name in ("naive", "vectorized")
        for number, rule in enumerate(("B03", "B03", "C03", "D02"))
    ]
    report = examples.report(examples.loss(findings=tuple(made)))
    shown = text.findings_text(report)
    assert shown.count("/ vectorized: ") == 4
    assert "D02 graph_distance / naive: " in shown
    assert "graph_distance / naive: 3 warnings of the reference itself (B03, C03); -v shows them" in shown.splitlines()
    assert "B03 graph_distance / naive" not in shown
    assert text.findings_text(report, verbose=True).count(" / naive: ") == 4


def test_a_message_cannot_rewrite_the_screen():
    shown = text.finding_text(
        examples.loss(), examples.finding(message="x\x1b[2J / G01\n  a\x1b[31mred\x1b[0m\rb\x07\n  next")
    )
    assert "\x1b" not in shown
    assert "\r" not in shown
    assert ": aredb\n" in shown
    assert shown.endswith("\n  next")


def test_a_path_with_a_space_is_quoted_for_the_shell():
    assert "replay 'my reports/" in text.finding_text(examples.loss(), examples.finding(), folder="my reports")


def test_the_table_of_counts_adds_up():
    record = examples.loss(
        outcomes=(examples.outcome(), examples.outcome(rule="B01", status="failed"), examples.outcome("naive"))
    )
    header, *rows = [line.split() for line in text.counts_text(examples.report(record)).splitlines()]
    assert header == ["loss", "implementation", "device", "planned", "passed", "failed", "examples"]
    by_name = {row[1]: list(map(int, row[3:])) for row in rows}
    assert by_name == {"naive": [1, 1, 0, 12], "vectorized": [2, 1, 1, 24]}


def test_the_last_line_says_what_became_of_everything_planned():
    record = examples.loss(
        outcomes=(examples.outcome(), examples.outcome(status="timed out")), findings=(examples.finding(),)
    )
    assert text.totals_text(examples.report(record)) == (
        "1 error, 0 warnings, 0 notes; 2 planned = 1 passed + 1 timed out"
    )


def test_rules_with_one_reason_share_a_line():
    skipped = [examples.outcome(rule=rule, status="skipped", reason="no CUDA device") for rule in ("C01", "D06")]
    made = examples.report(examples.loss(outcomes=tuple(skipped)))
    assert (
        text.reasons_text(made, ["skipped"]) == "graph_distance / vectorized / C01, D06 skipped / cpu: no CUDA device"
    )
    assert text.reasons_text(made, ["crashed"]) == ""


def test_verdicts_stand_below_their_loss_in_one_sentence_each():
    heading, reference, adopted, _, total = text.verdicts_text(examples.report()).splitlines()
    assert heading == "graph_distance"
    assert re.fullmatch(r"  naive       reference  The reference, .*\.", reference)
    assert re.fullmatch(r"  vectorized  adopt      Adopt it: .*\.", adopted)
    assert total == "1 loss: 1 adopt"


def test_verbose_verdicts_have_reasons_scope_and_next_steps():
    lines = text.verdicts_text(examples.report(), verbose=True).splitlines()
    assert "  - 1 rule passed on cpu" in lines
    assert any(line.startswith("  - holds: checked on cpu") for line in lines)


def test_what_is_quiet_says_errors_crashes_and_what_is_missing_alone():
    found = (examples.finding("warning"), examples.finding("error"))
    crash = examples.outcome(status="crashed", reason="RuntimeError: no")
    record = examples.loss(findings=found, outcomes=(crash,), missing="interrupted: 1 of 9 planned checks ran")
    shown = text.errors_text(examples.report(record))
    assert re.match(r"1 error\n\n\S+: G01 graph_distance / vectorized: ", shown)
    assert "warning" not in shown
    assert "crashed / cpu: RuntimeError: no" in shown
    assert shown.endswith("graph_distance: interrupted: 1 of 9 planned checks ran")
    assert text.errors_text(examples.report()) == ""


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, ""), (2.0, "2 s"), (0.0123, "12.3 ms"), (0.00099996, "1 ms"), (4.5e-6, "4.5 µs"), (3e-10, "0.3 ns")],
)
def test_times_have_units(seconds, shown):
    assert words.seconds_text(seconds) == shown
