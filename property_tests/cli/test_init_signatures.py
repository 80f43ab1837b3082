"""What `init` makes of annotations: lists of tensors, choices, texts, dicts; of constants that it is told; of many axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from harness.checking.verify import verify
from harness.cli import cli
from harness.declare.targets import load_specs
from harness.proposing.propose import UnproposableError, propose
from property_tests.tools.proposals import specified


def deep(features: list[Tensor], target: Tensor) -> Tensor:
    return torch.stack([(feature - target).square().mean() for feature in features]).mean()


def pair(features: tuple[Tensor, Tensor], mode: Literal["near", "far"]) -> Tensor:
    assert mode in ("near", "far")
    first, second = features
    return (first - second).square().mean()


def chosen(prediction: Tensor, target: Tensor, how: str) -> Tensor:
    """A distance.

    Args:
        prediction: numbers.
        target: numbers.
        how: "squared" or "absolute".
    """
    distance = {"squared": torch.square, "absolute": torch.abs}[how]
    return distance(prediction - target).mean()


def volumes(prediction: Tensor, target: Tensor) -> Tensor:
    if prediction.ndim != 5 or prediction.shape != target.shape:
        raise ValueError("expected B C D H W")
    return (prediction - target).square().mean()


def keyed(prediction: Tensor, targets: dict[str, Tensor]) -> Tensor:
    return (prediction - targets["mask"]).square().mean()


def only(prediction: Tensor, target: Tensor, depth: int) -> Tensor:
    if depth != 7:
        raise ValueError("depth should be 7")
    return (prediction - target).square().mean() * depth


def read(loss: Any, **settings: Any) -> dict[str, str]:
    found = propose(loss.__name__, loss, with_laws=False, settings=settings)
    assert verify(specified(loss, found), profile="quick", rules=["B01"]).ok
    return {
        decision.name: decision.in_a_line if decision.dims is not None else decision.text
        for decision in found.decisions
    }


@pytest.mark.parametrize(
    ("loss", "name", "line"),
    [
        (deep, "features", "features[L]: B D"),
        (pair, "features", "features.0: B D; features.1: B D"),
        (pair, "mode", "'near'"),
        (chosen, "how", "'squared'"),
        (volumes, "prediction", "prediction: B C D H W"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_annotations_and_docstrings_say_what_a_parameter_is(loss: Any, name: str, line: str) -> None:
    assert read(loss)[name] == line


def test_a_constant_that_is_told_is_kept() -> None:
    assert read(only, depth=7)["depth"] == "7"
    with pytest.raises(UnproposableError, match=r"depth should be 7 .*(.|\n)*--set NAME=VALUE"):
        propose("only", only, with_laws=False)


def test_what_could_not_be_placed_is_named_and_nothing_that_has_failed_is_offered() -> None:
    with pytest.raises(UnproposableError) as refused:
        propose("keyed", keyed, with_laws=False)
    said = str(refused.value)
    assert "targets: a dict of tensors, and nothing says by which keys" in said
    assert '"targets": {"KEY": TensorSpec("DIMS")}' in said
    assert 'TensorSpec("B' not in said


def test_a_written_file_declares_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("parts.py").write_text(
        "import torch\nfrom torch import Tensor\n\n\n"
        "def parts(features: list[Tensor], target: Tensor, depth: int) -> Tensor:\n"
        "    if depth != 7:\n        raise ValueError('depth')\n"
        "    return torch.stack([(f - target).square().mean() for f in features]).mean()\n"
    )
    done = CliRunner().invoke(cli, ["init", "parts.py", "--set", "depth=7"])
    assert done.exit_code == 0, done.output
    assert 'several("L", TensorSpec("B D"))' in Path("specs_parts.py").read_text()
    (spec,) = load_specs(["specs_parts.py"])
    assert spec.options == {"depth": 7}
    assert spec.tensors["features"].dims == "L B D"


def over_all(features: Sequence[Tensor] | None, target: Tensor) -> Tensor:
    assert features is not None
    return deep(list(features), target)


def test_a_list_that_may_be_none_is_a_list() -> None:
    assert read(over_all)["features"] == "features[L]: B D"
