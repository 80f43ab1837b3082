"""A case is a JSON recipe: it makes the same tensors after any round trip, and hostile ones are refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from harness import Case, DeclarationError, LossSpec, TensorSpec, cases, domains
from harness.drawing.case import DRAWN_LAYOUTS, LAYOUTS, MODES, Recipe, from_bytes, lay_out


def loss(p, y, w, a):  # type: ignore[no-untyped-def]
    raise NotImplementedError


SPEC = LossSpec(
    "loss",
    {"only": loss},
    inputs={
        "p": TensorSpec("*batch C", domains.real(nan=True)),
        "y": TensorSpec("*batch", domains.index("C", ignore=-1)),
    },
    context={"w": TensorSpec("C", domains.positive()), "a": TensorSpec("C C", domains.adjacency(symmetric=True))},
)
SIZES = {"C": 3, "batch": (2,)}
VALID = Case("loss", SIZES, {name: Recipe(seed=i) for i, name in enumerate(SPEC.tensors)}).to_json()


def identical(a: Tensor, b: Tensor) -> bool:
    """Equal in dtype, shape and every bit, NaN and the sign of zero included."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.contiguous().numpy().tobytes() == b.contiguous().numpy().tobytes()


def rewritten(case: Case) -> Case:
    return Case.from_json(json.loads(json.dumps(case.to_json(), allow_nan=False)))


@given(cases(SPEC, dtypes=("float64", "float32", "float16")))
def test_a_drawn_case_is_the_same_after_a_round_trip(case: Case) -> None:
    again = rewritten(case)
    assert again.key == case.key  # NaN differs from itself, so cases are compared as text
    assert again.digest == case.digest
    first, second = case.materialize(SPEC, layouts=True), again.materialize(SPEC, layouts=True)
    assert all(identical(first[name], second[name]) and first[name].stride() == second[name].stride() for name in first)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=6))
def test_exact_values_survive_to_the_last_bit(values: list[float]) -> None:
    spec = LossSpec("one", {"only": lambda x: x}, inputs={"x": TensorSpec("N")})
    case = Case("one", {"N": len(values)}, {"x": Recipe(tuple(values))})
    made = rewritten(case).materialize(spec)["x"]
    nan = torch.tensor(values, dtype=torch.float64)
    assert identical(made.nan_to_num(0.5), nan.nan_to_num(0.5))
    assert torch.equal(made.isnan(), nan.isnan())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 5e-324, 2.0**53 + 2, 1e308])
def test_the_values_that_json_has_no_number_for_survive(value: float) -> None:
    again = Recipe.from_json(json.loads(json.dumps(Recipe((value,)).to_json(), allow_nan=False)))
    assert again.values is not None
    assert math.copysign(1, again.values[0]) == math.copysign(1, value)
    assert again.values[0] == value or math.isnan(value)


def test_the_identity_check_sees_the_sign_of_zero_and_the_dtype() -> None:
    assert not identical(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not identical(torch.tensor([0.0]), torch.tensor([0.0], dtype=torch.float64))


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "near"])
def test_every_mode_makes_legal_values(mode: str) -> None:
    case = Case("loss", SIZES, {name: Recipe(seed=3, mode=mode) for name in SPEC.tensors})
    for name, made in case.materialize(SPEC).items():
        assert SPEC.tensors[name].domain.legal(made, SIZES), (name, made)


def test_every_special_point_of_the_spec_can_be_made() -> None:
    case = Case.from_json(VALID)
    for name, tensor in SPEC.tensors.items():
        for point in tensor.domain.special:
            made = rewritten(case.with_points({name: point})).materialize(SPEC)[name]
            assert tensor.domain.legal(made, SIZES), (name, point)


HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"schema": 99}, "this version reads schema 1"),
    ({"dtype": "complex64"}, "a case's dtype is one of"),
    ({"dtype": ["float64"]}, "a case's dtype is one of"),
    ({"sizes": {"C": -1, "batch": [2]}}, "a whole number from 0"),
    ({"sizes": {"C": 2.5, "batch": [2]}}, "a whole number from 0"),
    ({"sizes": {"C": True, "batch": [2]}}, "a whole number from 0"),
    ({"sizes": {"C": "3", "batch": [2]}}, "a whole number from 0"),
    ({"sizes": {"C": math.inf, "batch": [2]}}, "a whole number from 0"),
    ({"sizes": {"C": 2**40, "batch": [2]}}, "a whole number from 0"),
    ({"sizes": {"C": 3, "batch": [[2]]}}, "a whole number from 0"),
    ({"sizes": [3]}, "not a case"),
    ({"tensors": "p"}, "not a case"),
    ({"tensors": {"p": {"values": ["__import__('os')"]}}}, "not a case"),
    ({"tensors": {"p": {"values": [None]}}}, "not a case"),
    ({"tensors": {"p": {"seed": 2**70}}}, "seed .* expected a whole number"),
    ({"tensors": {"p": {"seed": -1}}}, "seed .* expected a whole number"),
    ({"tensors": {"p": {"mode": "eval"}}}, "a case's mode is one of"),
    ({"layouts": {"p": "diagonal"}}, "a case's layout is one of"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE, ids=[str(change) for change, _ in HOSTILE])
def test_a_hostile_case_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        Case.from_json({**VALID, **change})


@pytest.mark.parametrize("data", [None, [], "case", 3, {}])
def test_what_is_no_case_is_refused(data: Any) -> None:
    with pytest.raises(DeclarationError, match=r"a case is what Case.to_json\(\) wrote"):
        Case.from_json(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": {"C": 3}}, r"has no size for \['batch'\]"),
        ({"sizes": {"C": 2**30, "batch": [2**30]}}, "at most 2147483647 are made"),
        ({"tensors": {"p": {"seed": 0}}}, r"differ in tensors \['a', 'w', 'y'\]"),
        ({"tensors": {**VALID["tensors"], "w": {"values": [1.0]}}}, r"has 1 values for shape \[3\]"),
        (
            {"tensors": {**VALID["tensors"], "w": {"point": "nowhere"}}},
            r"no special point 'nowhere'; it has \['equal rows'",
        ),
        ({"tensors": {**VALID["tensors"], "w": {"same_as": "gone"}}}, "a copy of 'gone'"),
    ],
)
def test_a_case_that_does_not_fit_the_declaration_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        Case.from_json({**VALID, **change}).materialize(SPEC)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "expanded"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (0, 3), (2, 3, 4)])
def test_a_layout_changes_no_value(layout: str, shape: tuple[int, ...]) -> None:
    tensor = torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape)
    assert torch.equal(lay_out(tensor, layout), tensor)


def test_layouts_differ_where_they_can() -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    seen = {(lay_out(tensor, layout).stride(), lay_out(tensor, layout).storage_offset()) for layout in DRAWN_LAYOUTS}
    assert len(seen) == len(DRAWN_LAYOUTS)
    image = torch.rand(2, 3, 4, 5)
    assert lay_out(image, "channels_last").is_contiguous(memory_format=torch.channels_last)


def test_the_byte_zero_is_the_simplest_value() -> None:
    assert from_bytes(domains.nonnegative(), (3,), bytes(3), "lattice", {}) == (1.0, 1.0, 1.0)
    assert from_bytes(domains.index("C"), (3,), bytes(3), "lattice", {"C": 5}) == (0.0, 0.0, 0.0)
