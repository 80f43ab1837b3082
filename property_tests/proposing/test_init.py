"""`loss-harness init`: the file that it writes runs as it is, and what it refuses says what to do."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness import TargetError, verify
from harness.cli.commands.init import init
from harness.declare.targets import load_specs
from harness.errors import DeclarationError
from harness.isolation.sandbox import Sandbox
from harness.proposing import process, worker
from harness.proposing.advice import with_advice
from harness.proposing.process import proposals

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


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """Where losses are called; one for all tests, since it imports torch when it starts."""
    with Sandbox(["harness.proposing.worker"]) as started:
        yield started


@pytest.fixture
def place(tmp_path: Path, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is not the repository, with one file of losses that declare nothing; the command calls them in `box`."""
    monkeypatch.setattr(process, "proposals", functools.partial(proposals, box=box))
    (tmp_path / "undeclared.py").write_text(LOSSES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(init, list(arguments))


def written_to(file: Path, text: str) -> str:
    file.write_text(text)
    return file.name


def test_the_written_file_is_formatted_and_runs_as_it_is(place: Path) -> None:
    ran = run("undeclared.py")
    assert ran.exit_code == 0, ran.output
    assert "left out: helper" in ran.output
    assert "next:    loss-harness report specs_undeclared.py" in ran.output
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--check", "specs_undeclared.py"]
    assert subprocess.run(ruff, capture_output=True, check=False).returncode == 0
    specs = {spec.name: spec for spec in load_specs(["specs_undeclared.py"])}
    assert set(specs) == {"WeightedLoss", "mahalanobis"}
    assert list(specs["WeightedLoss"].implementations) == ["naive_weighted", "WeightedLoss"]
    assert repr(specs["mahalanobis"].context["precision"].domain) == "custom(positive_definite)"
    for spec in specs.values():
        assert verify(spec, profile="quick", rules=["B01", "E01", "L"]).ok


THREE = """
def naive(predictions, labels):
    total = 0.0
    for p, y in zip(predictions, labels):
        total = total + ((p - y) ** 2).sum()
    return total / predictions.numel()


def fast(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def wrong(predictions, labels):
    return (predictions - labels).mean() ** 2
"""


def test_what_is_held_to_one_reference_is_one_loss(place: Path) -> None:
    ran = run(written_to(place / "three.py", THREE))
    assert "next:    loss-harness report specs_three.py" in ran.output, ran.output
    (spec,) = load_specs(["specs_three.py"])
    assert (spec.name, list(spec.implementations)) == ("three", ["naive", "fast", "wrong"])
    found = verify(spec, profile="quick", rules=["E01"]).findings
    assert {finding.implementation for finding in found} == {"wrong"}


SIBLINGS = """
import torch


def loop(est, keep, weights):
    return sum((row * w[:, None]).sum() for row, w in zip(est.square(), weights.expand(len(est), -1)))


def fast(est, keep, weights):
    weighted = torch.einsum("f,bft->bt", weights, est.square())
    return (weighted * keep).sum()


def told(est, keep, weights):
    \"\"\"Weighted squares.

    Args:
        est: of shape (B, F, T).
        keep: of shape (B, T).
        weights: of shape (F,).
    \"\"\"
    return (est.square() * weights[:, None] * keep[:, None]).sum()


def other(est, keep, weights):
    raise RuntimeError("no such kernel")
"""


def test_what_one_loss_takes_is_tried_first_for_its_siblings(place: Path) -> None:
    ran = run(written_to(place / "siblings.py", SIBLINGS))
    (spec,) = load_specs(["specs_siblings.py"])
    assert list(spec.implementations) == ["loop", "told", "fast"], ran.output
    assert "fast: tried 1 way to call it" in ran.output
    refused = ran.output.partition("left out: other: ")[2]
    assert "with what told takes, est: B F T; keep: B T boolean; weights: F nonnegative, calls ended with" in refused
    assert "RuntimeError: no such kernel" in refused
    assert "times)" not in refused


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
    assert re.search(r"WeightedLoss: tried \d+ ways? to call it", ran.stderr)
    assert "it ran so; usual for the name 'weight" in ran.stderr
    assert list(place.glob("specs_*")) == []


def test_a_file_elsewhere_finds_the_loss(place: Path) -> None:
    (place / "specs").mkdir()
    assert run("undeclared.py:mahalanobis", "--output", "specs/mine.py").exit_code == 0
    assert [spec.name for spec in load_specs(["specs/mine.py"])] == ["mahalanobis"]


def test_a_target_that_cannot_be_loaded_is_refused(place: Path, box: Sandbox) -> None:
    with pytest.raises(TargetError, match="importing it raised ModuleNotFoundError"):
        proposals(written_to(place / "broken.py", "import not_there\n"), box=box)
    with pytest.raises(TargetError, match="holds no loss"):
        proposals(written_to(place / "empty.py", "SIZE = 3\n"), box=box)
    with pytest.raises(TargetError, match="the process that loads it ended; exited"):
        proposals(written_to(place / "exits.py", "import os\nos._exit(3)\n"), box=box)


HANGS, EXITS, FILLS = "hangs", "exits", "fills"
KILLERS = f"""
import os
import signal
import time

import torch


def {HANGS}(x):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(3600)


def {EXITS}(x):
    os._exit(3)


def {FILLS}(x):
    return x.sum() + torch.empty(1 << 32).sum()


def squares(x):
    return x.square().sum()
"""


def test_a_loss_that_ends_its_process_has_the_others_looked_at(
    place: Path, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_SHARE", 0.005)  # five seconds for the one that hangs, and many times that for all
    answer = proposals(written_to(place / "killers.py", KILLERS), with_laws=False, limit_s=1000.0, box=box)
    assert "it was not done after 5 s" in answer.problems[HANGS]
    assert "exit code 3" in answer.problems[EXITS]
    assert "can't allocate memory" in answer.problems[FILLS]
    assert "squares" in {*answer.found, *answer.problems}


def test_after_the_limit_no_further_loss_is_looked_at(place: Path) -> None:
    told: list[tuple[str, Any]] = []
    job = {"target": "undeclared.py", "with_laws": False, "done": ["helper"], "found": {}, "limit_s": 0.0, "most": None}
    worker.work(job, lambda kind, data: told.append((kind, data)))
    assert [kind for kind, _ in told] == ["result", "result"]
    assert all("not looked at within the limit" in data["problem"] for _, data in told)


def test_a_loss_that_declares_nothing_ends_with_the_whole_command_line(place: Path, box: Sandbox) -> None:
    error = DeclarationError("nothing says what it is")
    advice = str(with_advice(error, ["undeclared.py:WeightedLoss"], "verify", box))
    assert (
        'loss-harness verify undeclared.py:WeightedLoss --inputs "predictions: B D; labels: B D" '
        '--context "weights: B nonnegative"' in advice
    )
    assert "loss-harness init undeclared.py:WeightedLoss" in advice


DOCUMENTED_ONCE = """
import torch


def loop(log_probs, targets, lengths):
    \"\"\"mean of -log p over the frames that count

    Args:
        log_probs: log-probabilities of the labels, shape (B, T, V).
        targets: labels, shape (B, T).
        lengths: how many frames of each sample count, shape (B,).
    \"\"\"
    rows = zip(log_probs, targets, lengths.tolist(), strict=True)
    return torch.stack([-row[torch.arange(n), labels[:n]].mean() for row, labels, n in rows]).mean()


def vectorized(log_probs, targets, lengths):
    B, T, V = log_probs.shape
    keep = torch.arange(T) < lengths[:, None]
    picked = log_probs.gather(2, targets[:, :, None])[:, :, 0]
    return -(torch.where(keep, picked, 0.0).sum(1) / lengths).mean()
"""


def test_a_docstring_of_the_reference_serves_whom_it_is_the_reference_of(place: Path) -> None:
    ran = run(written_to(place / "once.py", DOCUMENTED_ONCE))
    assert ran.exit_code == 0, ran.output
    (spec,) = load_specs(["specs_once.py"])
    assert list(spec.implementations) == ["loop", "vectorized"]
    assert {n: t.dims for n, t in spec.tensors.items()} == {"log_probs": "B T V", "targets": "B T", "lengths": "B"}
    assert spec.tensors["targets"].domain.symbol == "V"
    assert "verify will say" not in ran.output
