"""A finding comes with plain-PyTorch code that runs as printed and shows the same numbers, without the harness."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from reproductions import ROOT, run_each, shows

from harness import LossSpec, TensorSpec, domains, verify
from harness.declare.targets import load_specs
from harness.rules.rule import Mismatch
from harness.rules.tools.reproduce import literal, script, shown

FORMS = sorted((Path(__file__).parents[1] / "examples/usual_forms").glob("*.py"))

# --- the usual forms of the reference losses


def usual_findings():
    for path in FORMS:
        spec = load_specs([str(path)])[1]  # against the reference
        for finding in verify(spec, profile="quick", implementations=["usual"]).findings:
            yield f"{path.stem} {finding.rule} {finding.evidence['aspect']}", finding


@pytest.fixture(scope="module")
def usual():
    return dict(usual_findings())


@pytest.fixture(scope="module")
def printed(usual):
    return run_each({name: finding.reproduction for name, finding in usual.items()}, path=[ROOT])


def test_every_finding_on_the_usual_forms_has_a_case_and_a_reproduction(usual):
    assert len(usual) >= 20
    assert {name.split()[0] for name in usual} == {path.stem for path in FORMS}
    for name, finding in usual.items():
        assert finding.case is not None, name
        assert finding.reproduction, name
        assert "import harness" not in finding.reproduction, name
        assert str(ROOT) not in finding.reproduction, name


def test_every_reproduction_of_the_usual_forms_runs_as_printed_and_shows_its_defect(usual, printed):
    for name, finding in usual.items():
        assert shows(finding, printed[name]), (name, finding.evidence, printed[name], finding.reproduction)


@pytest.mark.parametrize(
    ("start", "says"),
    [
        ("dynamic_weighted C01", ["cpu", "[]"]),
        ("graph_distance C01", ["cpu", "[]"]),
        ("graph_distance G08 value", ["value: nan", "gradient of embeddings: tensor([[nan"]),
        ("graph_distance G06", ["gradient of embeddings: None"]),
        ("graph_distance P02", ["_local_scalar_dense"]),
        ("dynamic_weighted E01", ["candidate:", "reference:"]),
    ],
)
def test_the_output_names_what_is_wrong(printed, start, says):
    text = "".join(result["out"] for name, result in printed.items() if name.startswith(start))
    assert all(part in text for part in says), (sorted(printed), text)


# --- without the harness

PLAIN = """
import torch
from torch import nn


def function(predictions, labels, scale=1.0):
    return scale * (predictions.float() - labels).square().mean()


class Module(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, predictions, labels):
        return (self.weights * (predictions - labels) ** 2).sum() / self.weights.sum()


class Plain:
    def __init__(self, weights, power=2):
        self.weights, self.power = weights, power

    def __call__(self, predictions, labels):
        return {"loss": (self.weights.float() * (predictions - labels) ** self.power).sum(), "other": None}
"""


def forms_of(module):
    both = {"predictions": TensorSpec("B"), "labels": TensorSpec("B")}
    weights = {"weights": TensorSpec("B", domains.nonnegative())}
    yield LossSpec("function", {"only": module.function}, inputs=both, options={"scale": 2.0})
    yield LossSpec("module", {"only": module.Module}, inputs=both, context=weights)
    yield LossSpec("plain", {"only": module.Plain}, inputs=both, context=weights, options={"power": 4}, select=_loss_of)


def _loss_of(returned):
    return returned["loss"]


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A module of losses in a directory of its own, which knows nothing of the harness."""
    (tmp_path / "plain_losses.py").write_text(PLAIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("plain_losses")
    yield module
    del sys.modules["plain_losses"]


def test_reproductions_run_where_no_harness_can_be_imported(plain, tmp_path):
    codes, blocked = {}, "import sys\nsys.modules['harness'] = None\n"
    for spec in list(forms_of(plain))[:2]:
        for finding in verify(spec, profile="quick").findings:
            codes[f"{spec.name} {finding.rule} {finding.evidence['aspect']}"] = blocked + finding.reproduction
    assert {name.split()[1] for name in codes} >= {"B03", "D05", "C01", "G08"}
    for name, result in run_each(codes, cwd=tmp_path, path=[tmp_path]).items():
        assert result["error"] == "", (name, codes[name])
        assert result["out"], name


def test_the_module_is_imported_by_name_and_its_options_are_given(plain):
    (finding, *_) = verify(next(forms_of(plain)), profile="quick", rules=["D05"]).findings
    assert "from plain_losses import function as implementation" in finding.reproduction
    assert "scale=2.0" in finding.reproduction
    assert "Module" not in finding.reproduction


def test_a_local_function_is_named_as_what_the_reader_must_fill_in():
    spec = LossSpec("local", {"only": lambda x: x.float().sum()}, inputs={"x": TensorSpec("N")})
    (finding, *_) = verify(spec, profile="quick", rules=["D05"]).findings
    assert "implementation = ...  # the callable declared as implementations['only'] of 'local'" in finding.reproduction


# --- tensors as text


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(1.5, dtype=torch.float64),
        torch.tensor([[0.1, -2.0], [1e-300, 1e300]], dtype=torch.float64),
        torch.tensor([math.nan, math.inf, -math.inf, -0.0], dtype=torch.float64),
        torch.tensor([0.1, 1 / 3, 1e-40], dtype=torch.float32),
        torch.tensor([0.1, 65504.0, 6e-8], dtype=torch.float16),
        torch.tensor([0.1, 3e38], dtype=torch.bfloat16),
        torch.tensor([1, -(2**62)]),
        torch.tensor([[True], [False]]),
        torch.tensor([255, 0], dtype=torch.uint8),
        torch.zeros(0, 3, dtype=torch.float64),
        torch.zeros(2, 0, dtype=torch.int64),
        torch.arange(6.0).reshape(2, 3).T,
    ],
    ids=str,
)
def test_a_tensor_survives_being_written_to_the_last_bit(tensor):
    again = eval(literal(tensor), {"torch": torch, "math": math})
    assert again.dtype == tensor.dtype
    assert again.shape == tensor.shape
    assert (
        torch.equal(again.nan_to_num(7.5), tensor.nan_to_num(7.5))
        if again.is_floating_point()
        else torch.equal(again, tensor)
    )
    if tensor.is_floating_point():
        assert torch.equal(again.signbit(), tensor.signbit())


def test_a_large_tensor_is_named_by_its_shape_alone():
    assert literal(torch.ones(100, 100)) == "torch.zeros([100, 100], dtype=torch.float32)"


def test_a_mismatch_without_tensors_has_no_script():
    spec = LossSpec("local", {"only": lambda x: x.sum()}, inputs={"x": TensorSpec("N")})
    assert script(spec, "only", Mismatch("x", "1", "2")) == ""


# --- the input in one line


def test_an_input_is_short_and_small_tensors_are_whole():
    tensors = {"x": torch.tensor([[1 / 3, 2.0], [-0.0, 1e-9]], dtype=torch.float64), "y": torch.zeros(5, 7)}
    said = shown({"B": 2}, {**tensors, "k": torch.tensor([3, 4])})
    assert said == "B=2, x=[[0.3333, 2.], [-0., 1e-09]], y of shape [5, 7], k=[3, 4]"


def test_values_that_differ_differ_where_they_are_shown():
    near = torch.tensor([1 / 3, 1 / 3 + 1e-7], dtype=torch.float64)
    assert shown({}, {"x": near}) == "x=[0.3333333, 0.3333334]"


def test_the_sizes_of_a_finding_are_those_of_its_tensors(tmp_path):
    spec = LossSpec("m", {"m": lambda x: x.mean()}, inputs={"x": TensorSpec("B C")})
    (found,) = [f for f in verify(spec, profile="quick", rules=["B05"]).findings if "= 0" in f.message]
    assert "B=0, C=3, x of shape [0, 3]" in found.message
