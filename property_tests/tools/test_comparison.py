"""The comparison holds everyone to the loops, times who agrees, says who does not take part and why, and judges by targets."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fake_time import AMPLE_S
from torch import Tensor

from losses import weighted_mse
from property_tests.tools.comparison import __main__ as command
from property_tests.tools.comparison import copying, large_bank, report
from property_tests.tools.comparison.contest import OURS, Claim, Contestant, ahead, contest
from property_tests.tools.comparison.contests import classes, graphs, memory_bank, squared_errors, transport, vectors
from property_tests.tools.comparison.everyone import CONTESTS
from property_tests.tools.comparison.figure import Figure
from property_tests.tools.comparison.measure import Outcome, run, wrong


def squares(predictions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    return (mask * (predictions - labels) ** 2).mean()


def twice(predictions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    return 2 * squares(predictions, labels, mask)


def cut(predictions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    return squares(predictions, labels, mask) + 0 * squares(predictions.detach(), labels, mask) - _zero(predictions)


def _zero(predictions: Tensor) -> Tensor:
    return predictions.sum() - predictions.detach().sum()  # of no value, but with a gradient


def example(ours=weighted_mse.WeightedMSELoss):
    others = [
        Contestant("squares", squares, "(m * (p - y) ** 2).mean()"),
        Contestant("twice", twice, "2 * (m * (p - y) ** 2).mean()"),
        Contestant("another gradient", cut, "..."),
        Contestant("absent", squares, "absent.loss(p, y, m)", package="no-such-package"),
    ]
    return contest(
        "an example",
        weighted_mse.SPEC,
        [Contestant(OURS, ours, "WeightedMSELoss(m)(p, y)"), *others],
        module=__file__,
        name="example",
        small={"batch": (), "H": 2, "W": 3},
        sizes=[{"batch": (), "H": 16, "W": 16}],
        claims=[*ahead("squares"), *ahead("twice"), *ahead("absent"), Claim("peak_bytes", ("squares",), most=1e-3)],
        seconds=AMPLE_S,
    )


SPECS = [example().spec]  # where timing processes find it


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return run(example())


def test_whoever_differs_from_the_loops_in_value_or_gradient_is_not_timed(outcome):
    (cell,) = outcome.cells()
    assert set(cell) == {OURS, "squares"}
    assert "loss" in outcome.excluded["twice"]
    assert "differs from the reference" in outcome.excluded["twice"]
    assert "gradient" in outcome.excluded["another gradient"]


def test_a_package_that_is_not_there_is_skipped_with_its_reason(outcome):
    assert "package no-such-package is not installed" in outcome.excluded["absent"]


def test_there_is_a_figure_for_every_claim_and_those_about_the_excluded_are_not_measured(outcome):
    figures = outcome.figures()
    assert [figure.verdict == "not measured" for figure in figures] == [False] * 2 + [True] * 4 + [False]
    assert "differs" in figures[2].reason
    assert "not installed" in figures[4].reason


def test_everyone_who_was_timed_has_rounds_and_a_peak(outcome):
    (cell,) = outcome.cells()
    assert all(len(row.seconds_per_call) > 1 and row.costs["peak_bytes"] > 0 for row in cell.values())


def test_what_is_larger_than_its_target_is_not_reached(outcome):
    assert outcome.figures()[-1].verdict == "not reached"


def test_where_ours_is_wrong_nobody_is_timed():
    found = run(example(ours=twice))
    assert found.benchmark is None
    assert {figure.verdict for figure in found.figures()} == {"not measured"}


def test_the_report_has_a_row_for_everyone_every_raw_round_and_no_path(outcome, tmp_path):
    figures = outcome.figures()
    report.write(tmp_path, figures, [outcome], [], {"torch": torch.__version__, "packages": {"kornia": "1"}}, "command")
    text = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    for shown in ("| ours |", "| squares |", "**twice** was not timed", "**absent** was not timed", "not measured"):
        assert shown in text
    with (tmp_path / "rounds.csv").open(encoding="utf-8") as file:
        rounds = list(csv.DictReader(file))
    (cell,) = outcome.cells()
    assert len(rounds) == sum(len(row.seconds_per_call) for row in cell.values())
    with (tmp_path / "figures.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(figures)
    for path in tmp_path.iterdir():
        content = path.read_text(encoding="utf-8")
        assert str(Path.cwd()) not in content
        assert str(Path(__file__).parent) not in content


@pytest.mark.parametrize("kind", [squared_errors, graphs, classes, vectors, memory_bank, transport])
def test_the_usual_forms_of_each_kind_of_loss_agree_with_its_loops(kind):
    for each in (kind.CONTESTS[0], kind.CONTESTS[-1]):
        plain = [one.name for one in each.contestants if one.package is None]
        assert wrong(each, plain) == {}


def test_every_contest_has_a_name_of_its_own_and_somebody_to_be_compared_with():
    names = [each.name for each in CONTESTS]
    assert len(set(names)) == len(names)
    assert all(len(each.contestants) > 1 and each.claims for each in CONTESTS)


def test_a_claim_about_nobody_is_refused():
    with pytest.raises(ValueError, match=r"a claim is about \['stranger'\], but the others are \['squares'\]"):
        contest(
            "an example",
            weighted_mse.SPEC,
            [Contestant(OURS, squares, ""), Contestant("squares", squares, "")],
            module=__file__,
            name="refused",
            small={},
            sizes=[],
            claims=ahead("stranger"),
        )


@pytest.mark.parametrize(
    ("figure", "verdict", "is_open"),
    [
        (Figure("", 41.0, 40, low=40.5, high=43.0), "reached", False),
        (Figure("", 41.0, 40, low=39.0, high=43.0), "reached", True),
        (Figure("", 39.0, 40, low=38.0, high=41.0), "not reached", True),
        (Figure("", 40.0, 40), "reached", False),
        (Figure("", 1.0, 1, is_strict=True), "not reached", False),
        (Figure("", 2.9, 3, is_most=True, low=2.8, high=3.1), "reached", True),
        (Figure("", 3.2, 3, is_most=True, low=3.1, high=3.3), "not reached", False),
        (Figure("", None, 3), "not measured", False),
    ],
)
def test_a_figure_is_judged_by_its_target_and_says_what_its_interval_leaves_open(figure, verdict, is_open):
    assert (figure.verdict, figure.is_open) == (verdict, is_open)


def test_strict_fails_by_what_is_not_reached_and_the_usual_run_does_not(monkeypatch):
    monkeypatch.setattr(command, "BOUNDS", {"slow": lambda seed: (Figure("slow", 5.0, 3, is_most=True), [])})
    monkeypatch.setattr(command, "CONTESTS", ())
    monkeypatch.setattr(command, "NAMES", ("slow",))
    plain, strict = (CliRunner().invoke(command.main, arguments) for arguments in ([], ["--strict"]))
    assert "slow: 5x, target <= 3x: not reached" in plain.output
    assert (plain.exit_code, strict.exit_code) == (0, 1)


def test_the_contrastive_loss_agrees_with_two_passes_over_a_bank_of_many_chunks():
    found = large_bank.measure(rows=400_000, batch=4, features=8)
    assert found.wrong == ""
    assert 0 < found.peak_bytes < 400_000 * 4 * 4  # less than all similarities take


def test_another_value_or_gradient_than_that_of_two_passes_is_seen(monkeypatch):
    right = large_bank.two_passes
    monkeypatch.setattr(large_bank, "two_passes", lambda *given: (right(*given)[0] + 1, right(*given)[1]))
    assert "its value is" in large_bank.measure(rows=100, batch=4, features=8).wrong
    monkeypatch.setattr(large_bank, "two_passes", lambda *given: (right(*given)[0], 2 * right(*given)[1]))
    assert "its gradient is off by" in large_bank.measure(rows=100, batch=4, features=8).wrong


def test_a_copy_moves_the_bytes_that_it_was_told_to():
    destination = copying.copy_of(1024)()
    assert 2 * destination.numel() * destination.element_size() == 1024


@pytest.mark.parametrize("is_warm", [True, False])
def test_a_loss_and_a_copy_are_timed_in_turn(is_warm):
    spec = example().spec
    cell = asdict(copying.Cell({"batch": (), "H": 8, "W": 8}, "cpu", "float32", "full"))
    job = {"cell": cell, "implementation": OURS, "moved_bytes": 1024, "rounds": 3, "process": 0, "seed": 0}
    job["is_warm"] = is_warm
    found = copying.race(job, spec)
    assert {name: len(seconds) for name, seconds in found.items()} == {OURS: 3, copying.COPY: 3}
    assert all(second > 0 for seconds in found.values() for second in seconds)
