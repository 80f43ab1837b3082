"""Losses whose graph takes one backward only, since they free or overwrite what they keep for it: `LossSpec(once=True)`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fake_time import AMPLE_S
from torch import Tensor

from harness import DeclarationError, LossSpec, TensorSpec, verify
from harness.cli import cli
from harness.results.measured import PASSES, Cell
from harness.timing.admission import Patience, admit

ASKED = ["G", "E", "T02"]


class Frees(torch.autograd.Function):
    """mean (p - y)²; its backward frees what it keeps."""

    @staticmethod
    def forward(ctx, p: Tensor, y: Tensor) -> Tensor:
        ctx.kept = 2 * (p - y) / p.numel()
        return ((p - y) ** 2).mean()

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None]:
        kept = ctx.kept
        del ctx.kept
        return kept * upstream, None


class Overwrites(Frees):
    """The same; its backward writes over what it keeps."""

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.kept.mul_(upstream), None


class FreesElements(Frees):
    """(p - y)²; its backward frees what it keeps."""

    @staticmethod
    def forward(ctx, p: Tensor, y: Tensor) -> Tensor:
        ctx.kept = 2 * (p - y)
        return (p - y) ** 2


def squares(p: Tensor, y: Tensor) -> Tensor:
    return (p - y) ** 2


def mean_squares(p: Tensor, y: Tensor) -> Tensor:
    return squares(p, y).mean()


def spec(loss: type[torch.autograd.Function], **more) -> LossSpec:
    by_element = loss is FreesElements
    return LossSpec(
        "one_backward",
        {"usual": squares if by_element else mean_squares, "kernel": lambda p, y: loss.apply(p, y)},
        inputs={"p": TensorSpec("B C"), "y": TensorSpec("B C")},
        output=TensorSpec("B C" if by_element else ""),
        **more,
    )


@pytest.mark.parametrize("loss", [Frees, Overwrites, FreesElements])
def test_declared_nothing_asks_for_a_second_backward_and_what_is_left_out_says_why(loss) -> None:
    found = verify(spec(loss, once=True), rules=ASKED)
    assert [f for f in found.findings if f.severity != "note"] == []
    reasons = {o.rule: (str(o.status), o.reason) for o in found.outcomes if o.implementation == "kernel"}
    for code in ("G03", "G11", "E03"):
        assert reasons[code][0] == "inapplicable"
        assert "once=True" in reasons[code][1]
    assert reasons["G05"][0] == "passed"
    assert "once=True" in reasons["G05"][1]
    assert all(reasons[code][0] == "passed" for code in ("G01", "G02", "E01", "E02"))


@pytest.mark.parametrize("loss", [Frees, Overwrites, FreesElements])
def test_undeclared_one_finding_names_the_line_and_nothing_crashes(loss) -> None:
    found = verify(spec(loss), rules=["G", "E"], implementations=["kernel"])
    assert [f.rule for f in found.findings if "LossSpec(once=True)" in f.hint] == ["G05"]
    assert found.counts["crashed"] == 0


def test_a_wrong_gradient_of_such_a_loss_is_seen_all_the_same() -> None:
    class Wrong(Frees):
        @staticmethod
        def backward(ctx, upstream: Tensor) -> tuple[Tensor, None]:
            return ctx.kept.clone(), None  # whatever the upstream

    found = verify(spec(Wrong, once=True), profile="quick", rules=["G05"], implementations=["kernel"])
    assert [(f.rule, f.evidence["aspect"]) for f in found.findings] == [("G05", "scaled")]


def test_what_promises_a_second_derivative_takes_more_than_one_backward() -> None:
    with pytest.raises(DeclarationError, match=r"once=True and requires=\['G03'\]"):
        spec(Frees, once=True, requires={"g03"})


def test_the_backward_pass_is_not_timed_alone_and_the_others_are() -> None:
    declared = spec(Frees, once=True)
    cell = Cell({"B": 2, "C": 3}, "cpu", "float32", "full")
    trials = admit(declared, "kernel", cell, PASSES, {}, seed=0, patience=Patience(AMPLE_S))
    assert {name: trial.status for name, trial in trials.items()} == {
        "forward": "measured",
        "backward": "skipped",
        "full": "measured",
    }
    assert "once=True" in trials["backward"].reason


FILE = """
import torch

class Frees(torch.autograd.Function):
    @staticmethod
    def forward(ctx, p):
        ctx.kept = 2 * p
        return (p**2).sum()

    @staticmethod
    def backward(ctx, upstream):
        kept = ctx.kept
        del ctx.kept
        return kept * upstream

def loss(p):
    return Frees.apply(p)
"""


def test_the_command_line_says_it_too(tmp_path: Path) -> None:
    (tmp_path / "frees.py").write_text(FILE)
    words = ["verify", f"{tmp_path / 'frees.py'}:loss", "--inputs", "p: B", "--profile", "quick", "--select", "G05"]
    undeclared, declared = (CliRunner().invoke(cli, [*words, *more]) for more in ([], ["--once"]))
    assert "declare --once" in undeclared.output
    assert "G05" not in declared.output
    assert (undeclared.exit_code, declared.exit_code) == (0, 0)  # a second backward that raises is a warning
