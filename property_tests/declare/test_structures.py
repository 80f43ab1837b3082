"""Losses of any signature: what is declared, drawn, given to the loss, told of it, and seen in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from structured_losses import (
    DeepSupervision,
    Losses,
    Prediction,
    detection,
    over_images,
    twice,
    wrong_without_weight,
)
from torch import Tensor

from harness import Case, DeclarationError, LossSpec, TensorSpec, cases, domains, laws, scalar, several, verify
from harness.calls.evaluation import Candidate
from harness.declare import inline
from harness.declare.on_command_line import Declaration
from harness.declare.spec import Selected
from harness.declare.targets import load_declared

B4 = TensorSpec("B 4")
LABELS = TensorSpec("B", domains.index("C"))
DETECTION = LossSpec(
    "detection",
    {"detection": detection},
    inputs={
        "prediction": Prediction(TensorSpec("B C"), B4),  # type: ignore[arg-type]
        "targets": {"labels": LABELS, "boxes": B4},
        "gamma": scalar(domains.interval(1.0, 3.0)),
    },
    context={"weight": TensorSpec("B", domains.nonnegative(), optional=True)},
    differentiable=("prediction.logits", "prediction.boxes"),
    select="total",
    laws=(laws.linear_in("weight"), laws.permutation("B")),
)
IMAGES = LossSpec(
    "over_images",
    {"over_images": over_images},
    inputs={"images": several("L", {"points": TensorSpec("N 2")}), "centre": TensorSpec("K 2")},
    options={"distance": torch.cdist},
)


@pytest.mark.parametrize("spec", [DETECTION, IMAGES], ids=lambda spec: spec.name)
def test_a_right_loss_of_any_signature_has_no_error(spec: LossSpec) -> None:
    checked = verify(spec, profile="quick")
    assert checked.ok, [finding.message for finding in checked.findings if finding.severity == "error"]
    gradients = next(outcome for outcome in checked.outcomes if outcome.rule == "G01")
    assert gradients.status == "passed"
    assert gradients.examples


def test_tensors_have_flat_names() -> None:
    assert list(DETECTION.inputs) == [
        "prediction.logits",
        "prediction.boxes",
        "targets.labels",
        "targets.boxes",
        "gamma",
    ]
    assert IMAGES.tensors["images.points"].dims == "L N 2"
    assert IMAGES.symbols[-1] == "L"


@settings(max_examples=20, deadline=None)
@given(case=cases(DETECTION))
def test_a_case_is_json_and_leaves_optional_tensors_out(case: Case) -> None:
    again = Case.from_json(case.to_json())
    tensors = again.materialize(DETECTION)
    assert again == case
    assert ("weight" in tensors) == ("weight" in case.tensors)
    positional, named = Candidate(DETECTION, "detection").arguments(tensors)
    assert isinstance(positional[0], Prediction)
    assert positional[1].keys() == {"labels", "boxes"}
    assert isinstance(named["gamma"], float)
    assert (named["weight"] is None) == ("weight" not in tensors)


def test_a_list_is_made_of_the_slices_of_one_tensor() -> None:
    tensors = {"images.points": torch.rand(3, 5, 2), "centre": torch.rand(4, 2)}
    _, named = Candidate(IMAGES, "over_images").arguments(tensors)
    assert len(named["images"]) == 3
    assert torch.equal(named["images"][1]["points"], tensors["images.points"][1])
    assert named["distance"] is torch.cdist


def test_what_overrides_call_is_called_so_and_built_by_position() -> None:
    spec = LossSpec(
        "deep",
        {"deep": DeepSupervision},
        inputs={"features": [TensorSpec("B C"), TensorSpec("B C")], "target": TensorSpec("B C")},
        context={"first": scalar(domains.positive()), "second": scalar(domains.positive())},
    )
    assert verify(spec, profile="quick", rules=["B01", "G01", "C01"]).ok


def test_a_defect_that_shows_only_where_none_is_given_is_found() -> None:
    inputs = {"logits": TensorSpec("B C"), "labels": LABELS}
    always = LossSpec("l", {"l": wrong_without_weight}, inputs=inputs, context={"weight": TensorSpec("B")})
    assert verify(always, profile="quick", rules=["G01"]).ok
    sometimes = always.replace(context={"weight": TensorSpec("B", optional=True)})
    found = verify(sometimes, rules=["G01"]).findings
    assert found
    assert found[0].case is not None
    assert "weight" not in found[0].case["tensors"]


@pytest.mark.parametrize(("select", "rules"), [(0, set()), ((0, 1), {"G01"})])
def test_one_result_is_checked_or_each(select: Any, rules: set[str]) -> None:
    def pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        first, more = twice(x, y)
        return first, more["aux"]

    spec = LossSpec(
        "pair",
        {"pair": pair},
        inputs={"x": TensorSpec("B"), "y": TensorSpec("B")},
        differentiable=("x",),
        select=select,
    )
    found = verify(spec, profile="quick", rules=["G01"]).findings
    assert {finding.rule for finding in found} == rules


def test_a_part_is_picked_by_key_position_or_attribute() -> None:
    result = Losses(torch.ones(()), torch.zeros(()))
    assert Selected("total")(result) == 1
    assert Selected("a")({"a": 2}) == 2
    assert Selected(-1)((1, 3)) == 3
    assert Selected(("total", "boxes"))(result).tolist() == [1, 0]
    with pytest.raises(KeyError, match=r"returned Losses, it has .*did you mean 'total'"):
        Selected("totl")(result)


def test_the_printed_code_of_a_structured_loss_runs(tmp_path: Path) -> None:
    from harness.rules.rule import Mismatch
    from harness.rules.tools.reproduce import script

    tensors = next(iter(_drawn(DETECTION, 1))).materialize(DETECTION)
    code = script(DETECTION, "detection", Mismatch("loss", "1", "2", tensors=tensors))
    file = tmp_path / "shown.py"
    file.write_text(code)
    folder = Path(__file__).parents[1] / "examples"
    ran = subprocess.run(
        [sys.executable, str(file)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(folder)},
        check=False,
    )
    assert ran.returncode == 0, code + ran.stderr
    shown = float(ran.stdout.partition("(")[2].partition(",")[0])
    assert shown == pytest.approx(float(Candidate(DETECTION, "detection")(tensors)), rel=1e-3)


def _drawn(spec: LossSpec, count: int) -> list[Case]:
    from harness.drawing import hypothesis_runs

    found: list[Case] = []
    hypothesis_runs.run(cases(spec, regime="distinct"), found.append, examples=count, start=0, shrink=False)
    return found


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"x": []}, r"x: got an empty list, expected one with at least one TensorSpec"),
        ({"x": {"a b": B4}}, r"got the key 'a b', expected letters"),
        ({"x": [3]}, r"x\.0=3, expected a TensorSpec"),
        ({"x": several("L", scalar(domains.positive()))}, "write a list of fixed length"),
        ({"x": TensorSpec("B", optional=True)}, "every input is optional"),
    ],
)
def test_a_structure_that_cannot_be_understood_gets_the_line_to_write(inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        LossSpec("l", {"l": lambda x: x}, inputs=inputs)


def test_numbers_that_are_tied_together_are_refused() -> None:
    with pytest.raises(DeclarationError, match="expected single numbers"):
        scalar(domains.simplex(-1))
    with pytest.raises(DeclarationError, match="expected the name of a size"):
        several("2", B4)


def test_the_command_line_declares_structures() -> None:
    found = inline.tensors(
        "p.logits: B C; p.boxes: B 4; f.0: B; f.1: B; g[L]: B; t[L].m: N; s: scalar positive; w: B optional"
    )
    assert found["p"].keys() == {"logits", "boxes"}
    assert isinstance(found["f"], tuple)
    assert found["g"] == several("L", TensorSpec("B"))
    assert found["t"] == several("L", {"m": TensorSpec("N")})
    assert found["s"] == scalar(domains.positive())
    assert found["w"] == TensorSpec("B", optional=True)
    assert inline.tensor_text(found["s"]) == "scalar positive"
    assert inline.tensor_text(found["w"]) == "B optional"
    for wrong in ("x.0: B; x.2: B", "x: B; x.0: B", "x[L].a: B; x[M].b: B", "x: scalar B", "x: B optional int64"):
        with pytest.raises(DeclarationError):
            inline.tensors(wrong)


def test_a_function_and_the_loss_in_a_result_can_be_named_on_the_command_line() -> None:
    assert inline.option("distance=torch:cdist") == ("distance", torch.cdist)
    assert inline.option("mode=a:b") == ("mode", "a:b")
    assert [inline.picked(text) for text in ("", "0", "loss", "loss,1")] == [None, 0, "loss", ("loss", 1)]
    told = Declaration(
        f"{Path(__file__).parents[1] / 'examples/structured_losses.py'}:twice",
        "x: B; y: B",
        pick="0",
        differentiable="y",
    )
    spec = load_declared(Declaration.from_target(told.as_target))
    assert spec.differentiable == ("y",)
    assert repr(spec.select) == "0"


def rows_of(pred: Tensor, target: Tensor) -> Tensor:
    each = [((p - t) ** 2).mean() for p, t in zip(pred.unbind(), target.unbind(), strict=True)]
    return torch.stack(each).mean()


def one_mean(pred: Tensor, target: Tensor) -> Tensor:
    return ((pred - target) ** 2).mean()


def cut_off(pred: Tensor, target: Tensor) -> Tensor:
    return ((pred - target) * (pred - target).detach()).mean()


JAGGED = "pred: N D jagged(B); target: N D jagged(B)"
NESTED = LossSpec("rows_of", {"rows_of": rows_of}, inputs=inline.tensors(JAGGED), context={})


def test_a_loss_of_nested_tensors_is_checked_and_its_defects_are_seen() -> None:
    checked = verify(NESTED, profile="quick")
    assert checked.ok, [finding.message for finding in checked.findings if finding.severity == "error"]
    assert {o.rule: o.status for o in checked.outcomes}["G01"] == "passed"
    wrong = LossSpec("cut_off", {"cut_off": cut_off}, inputs=inline.tensors(JAGGED), context={})
    assert "G01" in {f.rule for f in verify(wrong, profile="quick", rules=["G01"]).findings if f.severity == "error"}
    other = LossSpec("means", {"rows_of": rows_of, "one_mean": one_mean}, inputs=inline.tensors(JAGGED), context={})
    found = verify(other, profile="quick", rules=["E01"], implementations=["one_mean"]).findings
    assert [finding.rule for finding in found] == ["E01"]  # rows of unequal lengths were drawn


@settings(max_examples=30, deadline=None)
@given(case=cases(NESTED))
def test_rows_of_nested_tensors_are_shared_and_not_empty(case: Case) -> None:
    tensors = Case.from_json(case.to_json()).materialize(NESTED)
    offsets = tensors["N.offsets"]
    assert offsets[0] == 0
    assert offsets[-1] == len(tensors["pred"]) == len(tensors["target"])
    assert int(offsets.diff().min()) >= 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x: 3 D jagged(B)", "expected a first axis of a size of its own"),
        ("x: N D jagged()", "expected the size that counts the rows"),
        ("x: N D complex jagged(B)", "expected a dense real tensor"),
        ("x: N jagged(B) float32", "comes after 'jagged(...)'"),
    ],
)
def test_what_cannot_be_nested_is_refused_with_the_line_to_write(text: str, said: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        inline.tensors(text)
    assert said in str(refused.value)
