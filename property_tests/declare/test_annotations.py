"""Zero configuration: what jaxtyping annotations declare, however they are written."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any, Optional

import pytest
import torch
from jaxtyping import BFloat16, Bool, Float, Float32, Int, Int64, Num, Shaped, UInt8
from torch import Tensor, nn

from harness import Context, DeclarationError, LossSpec, TensorSpec, domains


def declare(loss: Any, **options: Any) -> LossSpec:
    return LossSpec("loss", {"only": loss}, **options)


def annotated(
    predictions: Annotated[Float[Tensor, "B C"], domains.logits()],
    labels: Annotated[Int[Tensor, "B"], domains.index("C", ignore=-100)],
    weights: Annotated[Float[Tensor, "C"], Context, domains.nonnegative()],
) -> Float[Tensor, ""]:
    raise NotImplementedError


WHOLE = (
    {
        "predictions": TensorSpec("B C", domains.logits()),
        "labels": TensorSpec("B", domains.index("C", ignore=-100)),
    },
    {"weights": TensorSpec("C", domains.nonnegative())},
)


class Module(nn.Module):
    def __init__(self, adjacency: Bool[Tensor, "N N"], temperature: float = 1.0) -> None:
        super().__init__()

    def forward(self, embeddings: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
        raise NotImplementedError


@dataclasses.dataclass
class Dataclass:
    weights: Float[Tensor, "B"]
    reduction: str = "mean"

    def __call__(self, predictions: Float[Tensor, "B"]) -> Float[Tensor, ""]:
        raise NotImplementedError


@dataclasses.dataclass(eq=False)
class DataclassModule(nn.Module):
    weights: Float[Tensor, "B"]

    def __post_init__(self) -> None:
        super().__init__()

    def forward(self, predictions: Float[Tensor, "B"]) -> Float[Tensor, ""]:
        raise NotImplementedError


class Callable_:
    scale: int = 3  # an annotation of the class is none of its call

    def __call__(self, predictions: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        raise NotImplementedError


def test_a_function_declares_inputs_context_output_and_domains() -> None:
    spec = declare(annotated)
    assert (spec.inputs, spec.context) == WHOLE
    assert spec.output == TensorSpec("")
    assert spec.differentiable == ("predictions",)


def test_a_partial_declares_what_its_function_does_but_for_what_it_has_bound() -> None:
    spec = declare(functools.partial(annotated))
    assert (spec.inputs, spec.context) == WHOLE
    bound = declare(functools.partial(annotated, weights=torch.ones(3)))
    assert (bound.inputs, bound.context) == (WHOLE[0], {})


def test_a_module_has_its_constructor_tensors_as_context() -> None:
    spec = declare(Module)
    assert spec.context == {"adjacency": TensorSpec("N N", domains.boolean())}
    assert spec.inputs == {"embeddings": TensorSpec("N D")}
    assert spec.output == TensorSpec("")


def test_a_module_instance_holds_its_context_itself() -> None:
    spec = declare(Module(torch.ones(2, 2, dtype=torch.bool)))
    assert (spec.inputs, spec.context) == ({"embeddings": TensorSpec("N D")}, {})


@pytest.mark.parametrize("loss", [Dataclass, DataclassModule])
def test_a_dataclass_declares_its_fields_as_context(loss: type) -> None:
    spec = declare(loss)
    assert (list(spec.context), list(spec.inputs)) == (["weights"], ["predictions"])


def test_an_instance_with_call_is_read_from_its_call() -> None:
    spec = declare(Callable_())
    assert spec.inputs == {"predictions": TensorSpec("B")}
    assert spec.output == TensorSpec("B")


def test_optional_tensors_are_tensors() -> None:
    def loss(
        a: Optional[Float[Tensor, "B"]],  # noqa: UP045  (the old spelling is read too)
        b: Float[Tensor, "B"] | None = None,
        c: Annotated[Float[Tensor, "B"] | None, domains.probability()] = None,
        d: Annotated[Float[Tensor, "B"], domains.positive()] | None = None,
    ) -> None: ...

    domain_of = {name: tensor.domain for name, tensor in declare(loss).inputs.items()}
    real = domains.real()
    assert domain_of == {"a": real, "b": real, "c": domains.probability(), "d": domains.positive()}


def test_dtypes_follow_the_annotation() -> None:
    def loss(
        a: Float[Tensor, "B"],
        b: Float32[Tensor, "B"],
        c: BFloat16[Tensor, "B"],
        d: Num[Tensor, "B"],
        e: Shaped[Tensor, "B"],
        f: Annotated[Int[Tensor, "B B"], domains.adjacency()],
        g: Annotated[UInt8[Tensor, "B"], domains.binary()],
        h: Annotated[Bool[Tensor, "B B"], domains.adjacency()],
        i: Annotated[Int[Tensor, "B"], domains.boolean()],
        j: Bool[Tensor, "B"],
    ) -> None: ...

    tensors = declare(loss).inputs.items()
    dtypes = {name: tensor.domain.dtype(torch.float64, tensor.dtype) for name, tensor in tensors}
    assert dtypes == {
        "a": torch.float64,
        "b": torch.float32,
        "c": torch.bfloat16,
        "d": torch.float64,
        "e": torch.float64,
        "f": torch.int64,
        "g": torch.uint8,
        "h": torch.bool,
        "i": torch.int64,
        "j": torch.bool,
    }


def test_integer_and_boolean_tensors_are_not_differentiable() -> None:
    def loss(mask: Annotated[Bool[Tensor, "B"], domains.binary()], predictions: Float[Tensor, "B"]) -> None: ...

    assert declare(loss).differentiable == ("predictions",)


@pytest.mark.parametrize(
    ("annotation", "line"),
    [
        (Int64[Tensor, "B"], r'x: Annotated\[Int\[Tensor, "B"\], domains.index\("C"\)\]'),
        (Annotated[Float[Tensor, "B"], domains.index("C")], r'x: Annotated\[Int\[Tensor, "B"\], domains.index'),
        (Annotated[Float[Tensor, "B"], domains.boolean()], r'x: Annotated\[Bool\[Tensor, "B"\], domains.boolean'),
        (Annotated[Int[Tensor, "B"], domains.probability()], r"cannot hold fractions; write domains.index"),
        (Annotated[Bool[Tensor, "B"], domains.sign()], r"write dtype=torch.int64"),
        (Annotated[UInt8[Tensor, "B"], domains.index("C", ignore=-1)], r"write dtype=torch.int64"),
        (Annotated[Float[Tensor, "B"], domains.real], r"expected a call: domains.real\(\)"),
        (Annotated[Float[Tensor, "B"], domains.real(), domains.sign()], r"write one of them"),
        (Annotated[Float[Tensor, "N M"], domains.adjacency()], r'TensorSpec\("N N", domains.adjacency'),
        (Annotated[Float[Tensor, "B"], domains.simplex(1)], r"the last axis is axis=-1"),
        (Float[Tensor, "N//2"], r"arithmetic with \+ - \* and no spaces, such as 'N-1'"),
        (Float[Tensor, "B"] | Float[Tensor, "B C"], r'x: Float\[Tensor, "B"\]'),
        (Tensor, r'LossSpec\(\.\.\., inputs={"x": TensorSpec\("B"\)}\)'),
        (None, r'LossSpec\(\.\.\., options={"x": \.\.\.}\)'),
        (float, r'LossSpec\(\.\.\., options={"x": \.\.\.}\)'),
    ],
)
def test_an_annotation_that_cannot_be_understood_gets_the_line_to_write(annotation: Any, line: str) -> None:
    def loss(x):  # type: ignore[no-untyped-def]
        return x

    loss.__annotations__ = {} if annotation is None else {"x": annotation}
    with pytest.raises(DeclarationError, match=line):
        declare(loss)


def unreadable(x: NotImported[Tensor, "B"]) -> None: ...


def test_an_annotation_that_cannot_be_evaluated_is_an_error_unless_everything_is_declared() -> None:
    with pytest.raises(DeclarationError, match=r"LossSpec\(\.\.\., inputs={\.\.\.}, context={\.\.\.}\)"):
        declare(unreadable)
    assert declare(unreadable, inputs={"x": TensorSpec("B")}, context={}).output is None


def test_losses_without_tensor_annotations_get_the_line_to_write() -> None:
    for loss in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss, nn.functional.mse_loss):
        with pytest.raises(DeclarationError, match=r'input: Float\[Tensor, "B"\]'):
            declare(loss)
    for builtin in (torch.cosine_similarity, lambda *tensors: tensors[0]):
        with pytest.raises(DeclarationError, match=r'LossSpec\(\.\.\., inputs={"predictions": TensorSpec\("B C"\)}\)'):
            declare(builtin)


def test_a_parameter_by_position_only_is_declared_as_any_other() -> None:
    def loss(predictions: Float[Tensor, "B"], /, labels: Float[Tensor, "B"]) -> None: ...

    assert list(declare(loss).inputs) == ["predictions", "labels"]
