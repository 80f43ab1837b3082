"""A loss that declares nothing, declared beside it: the spec, the text that carries it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from harness import DeclarationError, TargetError, TensorSpec, cli, domains, laws, verify
from harness.declare.on_command_line import Declaration
from harness.declare.targets import load_declared, load_specs, losses_of

COSINE = Declaration(
    "torch.nn:CosineEmbeddingLoss",
    "input1: B D; input2: B D; target: B sign",
    output="",
    options=("margin=0.25",),
    laws=("symmetric(input1, input2)",),
)


def run(*arguments: str) -> tuple[int, str]:
    ran = CliRunner().invoke(cli.cli, list(arguments))
    return ran.exit_code, ran.output


def test_a_loss_of_another_package_is_declared_in_one_line() -> None:
    spec = load_declared(COSINE)
    assert spec.inputs["target"] == TensorSpec("B", domains.sign())
    assert (spec.options, spec.laws) == ({"margin": 0.25}, (laws.symmetric("input1", "input2"),))
    assert verify(spec, profile="quick", rules=["B01", "L07"]).ok


def test_the_target_of_the_spec_makes_the_same_spec_elsewhere() -> None:
    spec = load_declared(COSINE)
    (again,) = load_specs([str(spec.target)])
    assert Declaration.from_target(str(spec.target)) == COSINE
    assert (again.name, again.target, repr(again.tensors)) == (spec.name, spec.target, repr(spec.tensors))


def test_a_constructor_takes_its_context_and_a_reference_comes_first() -> None:
    weighted = Declaration(
        "torch.nn:CrossEntropyLoss", "input: B C logits; target: B index(C)", context="weight: C positive"
    )
    spec = load_declared(weighted)
    assert list(spec.context) == ["weight"]
    held = load_declared(
        Declaration("torch.nn:MSELoss", "input: B; target: B", reference="torch.nn.functional:mse_loss")
    )
    assert list(held.implementations) == ["reference", "MSELoss"]
    assert verify(held, profile="quick", rules=["E01"]).ok


@pytest.mark.parametrize(
    ("declaration", "said"),
    [
        (Declaration("torch.nn:MSELoss", "input: B; targets: B"), "did you mean 'target'"),
        (
            Declaration("torch.nn:MSELoss", "input: B; target: B", options=("reductoin=sum",)),
            "did you mean 'reduction'",
        ),
        (Declaration("torch.nn:MSELoss", "input: B"), "--inputs"),
        (Declaration("torch.nn:MSELoss", "input: B; target: B", laws=("permutation(C)",)), "names no size"),
    ],
)
def test_a_declaration_that_contradicts_the_loss_is_refused(declaration: Declaration, said: str) -> None:
    with pytest.raises(DeclarationError) as raised:
        load_declared(declaration)
    assert said in str(raised.value)


@pytest.mark.parametrize("field", ["inputs", "context", "output"])
def test_what_cannot_be_read_says_in_which_field_it_stands(field: str) -> None:
    said = {"inputs": "input: B; target: B", field: "B C indx(C)"}
    with pytest.raises(DeclarationError, match=f"^{field} 'B C indx"):
        load_specs([Declaration("torch.nn:MSELoss", **said).as_target])


def test_a_parameter_by_position_only_is_declared_as_any_other(tmp_path: Path) -> None:
    file = tmp_path / "loss.py"
    file.write_text("def loss(x, y, /):\n    return ((x - y) ** 2).mean()\n")
    assert list(load_declared(Declaration(f"{file}:loss", "x: B; y: B")).inputs) == ["x", "y"]


def test_a_target_of_several_losses_or_of_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "several.py"
    file.write_text("def first(x): return x.sum()\ndef second(x): return x.sum()\n")
    assert list(losses_of(str(file))) == ["first", "second"]
    with pytest.raises(
        TargetError,
        match=r"holds 2 losses; write one of\n.*several.py:first\n.*several.py:second\nwith --reference .*several.py:NAME",
    ):
        load_declared(Declaration(str(file), "x: B"))
    file = tmp_path / "nothing.py"
    file.write_text("SIZE = 3\n")
    with pytest.raises(TargetError, match="holds no loss"):
        losses_of(str(file))
    with pytest.raises(TargetError, match="is int, expected a loss"):
        losses_of(f"{file}:SIZE")


@pytest.mark.parametrize("text", ["{", '{"target": "a"}', '{"target": "a", "inputs": "x: B", "more": 1}', "{}"])
def test_another_text_is_no_target(text: str) -> None:
    with pytest.raises(DeclarationError, match="target"):
        Declaration.from_target(text)


def test_the_command_line_verifies_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["--profile", "quick", "--select", "B01,L07", "--format", "json"]
    code, output = run(
        "verify",
        COSINE.target,
        "--inputs",
        COSINE.inputs,
        "--returns",
        "",
        "--law",
        "symmetric(input1, input2)",
        *common,
    )
    assert code == 0, output
    assert [loss["name"] for loss in json.loads(output)["losses"]] == ["CosineEmbeddingLoss"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["torch.nn:MSELoss", "--law", "nonnegative"], "--law declares a loss only together with --inputs"),
        (["torch.nn:MSELoss", "torch.nn:L1Loss", "--inputs", "input: B; target: B"], "2 targets came"),
        (["torch.nn:MSELoss", "--inputs", "input: B; target: B sgin"], "did you mean 'sign'?"),
    ],
)
def test_the_command_line_refuses_half_a_declaration(arguments: list[str], said: str) -> None:
    code, output = run("verify", *arguments)
    assert code == 2
    assert said in output


def test_tensors_of_a_declaration_are_drawn() -> None:
    spec = load_declared(Declaration("torch.nn:L1Loss", "input: B D float32; target: B D"))
    assert spec.inputs["input"].dtype == torch.float32


def test_annotations_that_cannot_be_evaluated_matter_only_where_a_parameter_has_no_default(tmp_path: Path) -> None:
    (tmp_path / "lazily.py").write_text(
        "from __future__ import annotations\n\n\n"
        "def lazily(obs: ArrayLike, fct: ArrayLike, *, backend: Backend = None) -> ArrayLike:\n"
        "    return ((obs - fct) ** 2).mean()\n"
    )
    target = f"{tmp_path / 'lazily.py'}:lazily"
    spec = load_declared(Declaration(target, inputs="obs: B; fct: B"))
    assert list(spec.inputs) == ["obs", "fct"]
    with pytest.raises(DeclarationError, match="cannot be evaluated"):
        load_declared(Declaration(target, inputs="obs: B"))


MEANT = """import torch
from torch import nn


def cut(p, y):
    return ((p - y.detach() + p.detach() - y) ** 2).mean() / 4 + 0 * p.sum()


class Running(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, p, y):
        self.calls += 1
        return ((p - y) ** 2).mean() * (1 + self.calls)
"""


@pytest.mark.parametrize(
    ("name", "rule", "flag"), [("cut", "G01", "--detaches"), ("Running", "S03", "--stateful")], ids=["cut", "Running"]
)
def test_what_a_loss_does_on_purpose_is_said_on_the_command_line(
    name: str, rule: str, flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meant.py").write_text(MEANT)
    monkeypatch.chdir(tmp_path)
    line = [f"meant.py:{name}", "--inputs", "p: B; y: B", "--profile", "quick", "--select", rule, "-v"]
    _, undeclared = run("verify", *line)
    assert f"declare {flag}" in " ".join(undeclared.split())
    code, declared = run("verify", *line, flag)
    assert (code, f"declare {flag}" in " ".join(declared.split())) == (0, False), declared
