"""Explicit declarations: what is accepted, and the line that every refusal shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from harness import DeclarationError, ErrorInput, LossSpec, TensorSpec, domains, laws
from harness.calls.evaluation import Candidate
from harness.declare.spec import Source


def pair(p, y):  # type: ignore[no-untyped-def]
    return (p - y).square().mean()


INPUTS = {"p": TensorSpec("B C"), "y": TensorSpec("B C")}


def declare(**changes: Any) -> LossSpec:
    given: dict[str, Any] = {"name": "pair", "implementations": {"naive": pair}, "inputs": INPUTS, **changes}
    return LossSpec(**given)


CLASSES = {"input": TensorSpec("B C", domains.logits()), "target": TensorSpec("B", domains.index("C"))}
BOTH = {"input": TensorSpec("B D"), "target": TensorSpec("B D")}


@pytest.mark.parametrize(
    ("loss", "declared", "tensors", "direct"),
    [
        (F.mse_loss, {"inputs": BOTH}, {}, lambda t: F.mse_loss(t["input"], t["target"])),
        (nn.CrossEntropyLoss(), {"inputs": CLASSES}, {}, lambda t: F.cross_entropy(t["input"], t["target"])),
        (
            nn.CrossEntropyLoss,
            {"inputs": CLASSES, "context": {"weight": TensorSpec("C", domains.positive())}, "options": {"reduction": "sum"}},
            {"weight": torch.tensor([1.0, 2.0, 3.0])},
            lambda t: F.cross_entropy(t["input"], t["target"], t["weight"], reduction="sum"),
        ),
        (
            torch.cosine_similarity,
            {"inputs": {"x1": TensorSpec("B D"), "x2": TensorSpec("B D")}, "options": {"dim": 0}},
            {"x1": torch.arange(6.0).view(2, 3), "x2": torch.ones(2, 3)},
            lambda t: torch.cosine_similarity(t["x1"], t["x2"], dim=0),
        ),
    ],
    ids=["function", "instance", "class", "builtin"],
)  # fmt: skip
def test_a_loss_of_torch_is_declared_beside_it_and_called_with_what_was_declared(
    loss: Any, declared: dict[str, Any], tensors: dict[str, Tensor], direct: Callable[[dict[str, Tensor]], Tensor]
) -> None:
    spec = LossSpec("torch", {"only": loss}, **declared)
    given = {"input": torch.arange(6.0).view(2, 3), "target": torch.tensor([0, 2]), **tensors}
    if spec.inputs == BOTH:
        given["target"] = torch.ones(2, 3)
    given = {name: given[name] for name in spec.tensors}
    assert torch.equal(Candidate(spec, "only")(given), direct(given))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"name": ""}, "such as 'weighted_mse'"),
        ({"name": "../../etc/passwd"}, "such as 'weighted_mse'"),
        ({"name": 3}, "such as 'weighted_mse'"),
        ({"implementations": {}}, "implementations={'naive': naive_loss"),
        ({"implementations": pair}, "implementations={'naive': naive_loss"),
        ({"implementations": {"a/b": pair}}, "such as 'naive'"),
        ({"implementations": {"naive": 3}}, "expected a class or a function"),
        ({"inputs": ["p"]}, r"inputs={'predictions': TensorSpec\('B C'\)}"),
        ({"inputs": {"p": "B", "y": "B"}}, r'such as TensorSpec\("B C"\) or Float\[Tensor, "B C"\]'),
        ({"inputs": {"p": TensorSpec("B")}}, r'LossSpec\(..., inputs={"y": TensorSpec\("B"\)}\)'),
        ({"inputs": {**INPUTS, "yy": TensorSpec("B")}}, "takes no 'yy'; it takes \\['p', 'y'\\]; did you mean 'y'"),
        ({"inputs": {"p": TensorSpec("B"), "y": TensorSpec("*B")}}, "use two names"),
        ({"inputs": {"p": TensorSpec("N"), "y": TensorSpec("N-N")}}, "write dims whose axes"),
        ({"inputs": {"p": TensorSpec("N"), "y": TensorSpec("N-3")}, "fixed_sizes": {"N": 2}}, "with {'N': 2}"),
        ({"context": INPUTS}, "stand both in inputs and in context; write each in one"),
        ({"output": "B"}, 'such as TensorSpec'),
        ({"output": TensorSpec("Z")}, r"sizes are \['B', 'C'\]"),
        ({"differentiable": "p"}, r"differentiable=\('predictions',\)"),
        ({"differentiable": ("q",)}, r"inputs are \['p', 'y'\]"),
        ({"inputs": {"p": TensorSpec("B", domains.index("C")), "y": TensorSpec("B")}, "differentiable": ("p",)}, "no gradient"),
        (
            {"inputs": {"p": TensorSpec("B", domains.binary(), torch.bool), "y": TensorSpec("B")}, "differentiable": ("p",)},
            "has torch.bool, which has no gradient",
        ),
        ({"options": ["reduction"]}, "options={'reduction': 'sum'}"),
        ({"options": {"reducton": "sum"}}, r"taken by no implementation; they take \['p', 'y'\]"),
        ({"fixed_sizes": {"B": -2}}, "fixed_sizes={'B': 3}"),
        ({"fixed_sizes": {"B": "3"}}, "fixed_sizes={'B': 3}"),
        ({"fixed_sizes": {"B": (2, 3)}}, "'B' is one axis, such as 3"),
        ({"laws": laws.permutation("B")}, r"laws=\(laws.permutation\('B'\),\)"),
        ({"laws": ["L03"]}, r"e.g. laws.permutation\('B'\)"),
        ({"laws": [laws.permutation("D")]}, r"sizes are \['B', 'C'\]"),
        ({"laws": [laws.linear_in("pp")]}, "did you mean 'p'"),
        ({"waivers": ["B03"]}, "waivers={'B03': 'the reason'}"),
        ({"waivers": {"B03": " "}}, "expected the reason in words"),
        ({"requires": "T01"}, r"requires=\('T01',\)"),
        ({"select": 0.5}, "expected a key such as 'loss', a position such as 0"),
        ({"bytes_bound": 8}, "expected a function or None"),
        ({"bench_sizes": {"B": 3}}, r"bench_sizes=\({'B': 1024},\)"),
        ({"bench_sizes": [{"X": 3}]}, r"bench_sizes\[0\] names no size 'X'"),
        ({"error_inputs": ["empty"]}, r"ErrorInput\('short labels'"),
    ],
)  # fmt: skip
def test_a_declaration_that_cannot_be_understood_gets_the_line_to_write(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(DeclarationError, match=line):
        declare(**changes)


@pytest.mark.parametrize("law", [laws.symmetric("p", "y"), laws.zero_when_equal("p", "y")])
def test_a_law_that_exchanges_tensors_needs_equal_dims(law: laws.Law) -> None:
    with pytest.raises(DeclarationError, match="it can hold only for equal dims"):
        declare(inputs={"p": TensorSpec("B C"), "y": TensorSpec("B")}, laws=(law,))


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: TensorSpec(("B", "C")), "dims is a string such as 'B C'"),  # type: ignore[arg-type]
        (lambda: TensorSpec("B", domains.real), r"e.g. domains.real\(\)"),  # type: ignore[arg-type]
        (lambda: TensorSpec("B", dtype=torch.int64), r"write domains.index\('C'\)"),
        (lambda: TensorSpec("B", dtype="float32"), "such as dtype=torch.float32"),  # type: ignore[arg-type]
        (lambda: TensorSpec("B", dtype=torch.complex64), r"domains.complex_\(\)"),
        (lambda: TensorSpec("B", domains.sign(), torch.uint8), "write dtype=torch.int64"),
        (lambda: TensorSpec("B", domains.index("C"), torch.bool), "write dtype=torch.int64"),
        (lambda: TensorSpec("B C", domains.adjacency()), r'TensorSpec\("N N", domains.adjacency'),
        (lambda: TensorSpec("N", domains.adjacency()), r'TensorSpec\("N N", domains.adjacency'),
        (lambda: TensorSpec("B", domains.unit_norm(1)), "the last axis is axis=-1"),
        (lambda: TensorSpec("", domains.simplex(-1)), "have no axis -1"),
    ],
)
def test_a_tensor_that_contradicts_itself_is_refused(make: Callable[[], TensorSpec], line: str) -> None:
    with pytest.raises(DeclarationError, match=line):
        make()


@pytest.mark.parametrize(
    "tensor",
    [
        TensorSpec("*batch N N", domains.adjacency()),
        TensorSpec("*batch", domains.simplex(1)),
        TensorSpec("B", domains.index("C"), torch.int32),
        TensorSpec("B", domains.index("C", ignore=255), torch.uint8),
        TensorSpec("B", domains.index("C"), torch.float32),
        TensorSpec("B", domains.custom(lambda s, g, d: torch.zeros(s, dtype=d)), torch.int64),
    ],
    ids=repr,
)
def test_a_tensor_that_can_be_made_is_accepted(tensor: TensorSpec) -> None:
    assert declare(inputs={"p": TensorSpec("B"), "y": tensor}).inputs["y"] == tensor


class NeedsAlpha(nn.Module):
    def __init__(self, alpha: float) -> None:
        super().__init__()

    def forward(self, p: Float[Tensor, "B C"], y: Float[Tensor, "B C"]) -> Float[Tensor, ""]:
        raise NotImplementedError


def test_what_a_second_implementation_needs_must_be_declared() -> None:
    with pytest.raises(
        DeclarationError, match=r"its constructor of implementation 'fast' needs 'alpha', which nothing"
    ):
        declare(implementations={"naive": pair, "fast": NeedsAlpha})
    assert declare(implementations={"naive": pair, "fast": NeedsAlpha}, options={"alpha": 1.0}).options == {
        "alpha": 1.0
    }


class TakesTwice(nn.Module):
    def __init__(self, y: Tensor) -> None:
        super().__init__()

    def forward(self, p: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError


def test_a_tensor_that_both_constructor_and_call_need_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"its call .* needs 'y', which its constructor has taken"):
        declare(implementations={"only": TakesTwice}, inputs={"p": TensorSpec("B C")}, context={"y": TensorSpec("B C")})
    with pytest.raises(DeclarationError, match=r"its constructor .* needs 'y', which nothing declares"):
        declare(implementations={"only": TakesTwice})


def test_jaxtyping_annotations_stand_wherever_a_tensor_spec_does() -> None:
    spec = declare(inputs={"p": Float[Tensor, "B C"], "y": TensorSpec("B C")}, output=Float[Tensor, ""])
    assert spec.inputs == INPUTS
    assert spec.output == TensorSpec("")


def test_anonymous_axes_of_different_tensors_are_not_linked() -> None:
    spec = declare(inputs={"p": TensorSpec("_ C"), "y": TensorSpec("_ C")})
    assert len(spec.symbols) == 3
    assert spec.replace(name="other").inputs == spec.inputs


def test_replace_changes_what_is_named_and_keeps_the_rest() -> None:
    spec = declare(laws=(laws.nonnegative(),), fixed_sizes={"C": 3})
    changed = spec.replace(name="changed")
    assert (changed.name, changed.laws, changed.fixed_sizes, changed.source) == (
        "changed",
        spec.laws,
        spec.fixed_sizes,
        spec.source,
    )


def test_a_spec_knows_where_it_was_declared() -> None:
    source = declare().source
    assert isinstance(source, Source)
    assert source.file == __file__


def test_error_inputs_are_kept() -> None:
    item = ErrorInput("short labels", lambda tensors: {"y": tensors["y"][:1]})
    assert declare(error_inputs=(item,)).error_inputs == (item,)


def test_an_input_that_shares_its_name_with_a_constructor_option_goes_to_the_call() -> None:
    spec = LossSpec(
        "poisson",
        {"poisson": nn.PoissonNLLLoss},
        inputs={"log_input": TensorSpec("B"), "target": TensorSpec("B", domains.nonnegative())},
    )
    candidate = Candidate(spec, "poisson")
    assert (candidate.constructed, candidate.called) == ((), ("log_input", "target"))
