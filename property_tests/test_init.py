"""`loss-harness init`: the file that it writes runs as it is, and what it refuses says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness import TargetError, verify
from harness.commands.init import init
from harness.errors import DeclarationError
from harness.locate import load_specs
from harness.starting.advice import with_advice
from harness.starting.process import proposals

LOSSES = """
import torch


def naive_weighted(predictions, labels, weights):
    total = 0.0
    for p, y, w in zip(predictions, labels, weights):
        total = total + w * ((p - y) ** 2).sum()
    return total / predictions.numel()


class WeightedLoss(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, predictions, labels):
        print("noise")
        return (self.weights[:, None] * (predictions - labels) ** 2).mean()


def mahalanobis(x, mean, precision):
    return ((x - mean) @ precision * (x - mean)).sum(-1).mean()


def helper(x):
    return x ** 2
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is not the repository, with one file of losses that declare nothing."""
    (tmp_path / "undeclared.py").write_text(LOSSES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(init, list(arguments))


def test_the_written_file_is_formatted_and_runs_as_it_is(place: Path) -> None:
    ran = run("undeclared.py")
    assert ran.exit_code == 0, ran.output
    assert "left out: helper" in ran.output
    assert "next:    loss-harness verify specs_undeclared.py" in ran.output
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--check", "specs_undeclared.py"]
    assert subprocess.run(ruff, capture_output=True, check=False).returncode == 0
    specs = {spec.name: spec for spec in load_specs(["specs_undeclared.py"])}
    assert set(specs) == {"WeightedLoss", "mahalanobis"}
    assert list(specs["WeightedLoss"].implementations) == ["naive_weighted", "WeightedLoss"]
    assert repr(specs["mahalanobis"].context["precision"].domain) == "custom(positive_definite)"
    for spec in specs.values():
        assert verify(spec, profile="quick", rules=["B01", "E01", "L"]).ok


def test_a_file_that_is_there_is_not_overwritten(place: Path) -> None:
    (place / "specs_undeclared.py").write_text("mine")
    ran = run("undeclared.py")
    assert ran.exit_code == 2
    assert "--force overwrites it" in ran.output
    assert (place / "specs_undeclared.py").read_text() == "mine"


def test_stdout_writes_nothing_and_keeps_the_reasons_apart(place: Path) -> None:
    ran = run("undeclared.py:WeightedLoss", "--stdout")
    assert ran.exit_code == 0
    assert ran.stdout.startswith('"""')
    assert "readings tried" in ran.stderr
    assert list(place.glob("specs_*")) == []


def test_a_file_elsewhere_finds_the_loss(place: Path) -> None:
    (place / "specs").mkdir()
    assert run("undeclared.py:mahalanobis", "--output", "specs/mine.py").exit_code == 0
    assert [spec.name for spec in load_specs(["specs/mine.py"])] == ["mahalanobis"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import not_there\n", "importing it raised ModuleNotFoundError"),
        ("SIZE = 3\n", "holds no loss"),
        ("import os\ndef loss(x):\n    os._exit(3)\n", "ended with code 3"),
    ],
)
def test_a_file_without_a_loss_that_can_be_called_is_refused(place: Path, text: str, said: str) -> None:
    (place / "broken.py").write_text(text)
    ran = run("broken.py")
    assert ran.exit_code != 0
    assert said in (str(ran.exception) if isinstance(ran.exception, TargetError) else ran.output)


def test_a_loss_that_hangs_ends_with_the_limit(place: Path) -> None:
    (place / "hangs.py").write_text(
        "import signal, time\ndef loss(x):\n    signal.signal(signal.SIGALRM, signal.SIG_IGN)\n    time.sleep(1000)\n"
    )
    answer = proposals("hangs.py", limit_s=15.0)
    assert "had not ended after 15 s" in answer.problems["loss"]


def test_a_loss_that_declares_nothing_ends_with_the_whole_command_line(place: Path) -> None:
    advice = str(with_advice(DeclarationError("nothing says what it is"), ["undeclared.py:WeightedLoss"], "verify"))
    assert (
        'loss-harness verify undeclared.py:WeightedLoss --inputs "predictions: B D; labels: B D" '
        '--context "weights: B nonnegative"' in advice
    )
    assert "loss-harness init undeclared.py:WeightedLoss" in advice
