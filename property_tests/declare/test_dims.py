"""The grammar of dims: what is read, what is refused, and the sizes that are solved for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.declare import dims
from harness.errors import DeclarationError

NAMES = st.sampled_from(["B", "C", "N", "batch_size", "H1"])
SIZES = {"B": 2, "C": 3, "N": 5, "batch": (7, 11), "...": (4,)}


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("", ()),
        ("B C", (2, 3)),
        ("  B   C ", (2, 3)),
        ("4 B", (4, 2)),
        ("classes=4", (4,)),
        ("N-1", (4,)),
        ("2*B+C", (7,)),
        ("(N-1)*B", (8,)),
        ("-B+N", (3,)),
        ("*batch C", (7, 11, 3)),
        ("B ... C", (2, 4, 3)),
        ("#C B", (3, 2)),
        ("#*batch", (7, 11)),
    ],
)
def test_dims_give_the_shape_that_they_spell(text: str, shape: tuple[int, ...]) -> None:
    assert dims.shape(text, SIZES) == shape


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')=4",
        "__import__('os').system('true')",
        "f(N)",
        "N.real",
        "N[0]",
        "lambda:0",
        "[n*n]",
        "(N:=4)",
        "N**2",
        "2**N",
        "9**9**9",
        "N//2",
        "N/2",
        "N@N",
        "N%2",
        "~N",
        "N<2",
        "'N'*9",
        "1.5*N",
        "1e9",
        "True-1",
        "{N}",
        "N-1=3",
        "a==b",
        "N!=3",
        "N -",
        "-",
        "*",
        "#",
        "**B",
        "##B",
        "*4",
        "*N-1",
        "*...",
        "...,",
        "³",
        "٣",
    ],
)
def test_what_is_not_in_the_grammar_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(DeclarationError, match=r"allowed are names, integers|such as '\*batch'|has a mark twice"):
        dims.parse(text)


@pytest.mark.parametrize("text", ["9" * 5000, "-" * 5000 + "N", "N" + "-N" * 3000, "(" * 200 + "N" + ")" * 200])
def test_a_token_that_could_exhaust_the_parser_is_refused(text: str) -> None:
    with pytest.raises(DeclarationError, match="at most 64"):
        dims.parse(text)


def test_a_size_that_no_tensor_can_have_is_refused() -> None:
    with pytest.raises(DeclarationError, match="at most 2147483647"):
        dims.parse("99999999999")


def test_two_variadic_tokens_are_refused() -> None:
    with pytest.raises(DeclarationError, match="at most one of"):
        dims.parse("*a ... C")


def test_a_computed_axis_is_never_negative() -> None:
    with pytest.raises(DeclarationError, match="N-9 = -4"):
        dims.shape("N-9", SIZES)


@given(st.text(max_size=12))
def test_any_text_is_either_read_or_refused(text: str) -> None:
    try:
        parsed = dims.parse(text)
    except DeclarationError:
        return
    assert len(parsed) == len(text.split())


@given(st.lists(NAMES, min_size=1, max_size=4), st.data())
def test_unify_finds_the_sizes_that_made_the_shapes(names: list[str], data: st.DataObject) -> None:
    sizes = {name: data.draw(st.integers(1, 4)) for name in names}
    declared = {"x": " ".join(names), "y": f"*lead {names[0]}", "z": f"{names[-1]}+1"}
    shapes = {name: dims.shape(text, {**sizes, "lead": (2, 1)}) for name, text in declared.items()}
    assert dims.unify(declared, shapes) == {**sizes, "lead": (2, 1)}


@pytest.mark.parametrize(
    ("declared", "shapes", "message"),
    [
        ({"x": "B", "y": "B"}, {"x": (2,), "y": (3,)}, r"y has B=3, but B=2 elsewhere"),
        ({"x": "B"}, {"x": (2, 1)}, r"x has shape \[2, 1\], but its dims are 'B'"),
        ({"x": "*b C"}, {"x": ()}, r"x has shape \[\]"),
        ({"x": "4"}, {"x": (3,)}, r"x has 3 where its dims say 4 = 4"),
        ({"x": "N", "y": "N-1"}, {"x": (3,), "y": (3,)}, r"y has 3 where its dims say N-1 = 2"),
        ({"x": "N-1", "y": "N-1"}, {"x": (3,), "y": (5,)}, r"y has 5 where its dims say N-1 = 3"),
        ({"x": "*b", "y": "*b"}, {"x": (2, 3), "y": (3, 2)}, r"b=\(3, 2\), but b=\(2, 3\)"),
        ({"x": "C", "y": "#C"}, {"x": (4,), "y": (2,)}, r"C=2, but C=4"),
        ({"x": "*b", "y": "#*b"}, {"x": (4,), "y": (1, 4)}, r"b=\(1, 4\), but b=\(4,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(
    declared: dict[str, str], shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dims.unify(declared, shapes)


@pytest.mark.parametrize("order", [("x", "y"), ("y", "x")])
@pytest.mark.parametrize(
    ("declared", "shapes", "sizes"),
    [
        ({"x": "C", "y": "#C"}, {"x": (4,), "y": (1,)}, {"C": 4}),
        ({"x": "*b", "y": "#*b"}, {"x": (4, 3), "y": (1,)}, {"b": (4, 3)}),
        ({"x": "*b", "y": "#*b"}, {"x": (4, 3), "y": (1, 3)}, {"b": (4, 3)}),
        ({"x": "#C", "y": "#C"}, {"x": (1,), "y": (1,)}, {"C": 1}),
    ],
)
def test_a_broadcastable_axis_may_be_one_in_any_order_of_the_tensors(
    declared: dict[str, str], shapes: dict[str, tuple[int, ...]], sizes: dict[str, dims.Size], order: tuple[str, str]
) -> None:
    assert dims.unify({name: declared[name] for name in order}, shapes) == sizes


def test_anonymous_axes_link_nothing() -> None:
    declared = {"x": "_ _ C", "y": "_ #_other C", "z": "*_ C"}
    own = {name: dims.anonymous(text, name) for name, text in declared.items()}
    shapes = {"x": (2, 3, 4), "y": (5, 6, 4), "z": (7, 8, 9, 4)}
    assert dims.unify(own, shapes)["C"] == 4
    assert {name: dims.anonymous(text, name) for name, text in own.items()} == own


@pytest.mark.parametrize(
    ("all_dims", "sizes"),
    [
        (["B C"], {"B": 1, "C": 1}),
        (["N", "N-1"], {"N": 2}),
        (["N-100"], {"N": 101}),
        (["M N", "M-N"], {"M": 2, "N": 1}),
        (["(M-1)*(N-1)"], {"M": 2, "N": 2}),
    ],
)
def test_least_sizes_make_every_axis_at_least_one(all_dims: list[str], sizes: dict[str, int]) -> None:
    assert dims.least_sizes(all_dims) == sizes


def test_least_sizes_raise_given_sizes_only_where_an_axis_would_be_too_short() -> None:
    assert dims.least_sizes(["M N", "M-N"], start={"M": 3, "N": 5}) == {"M": 6, "N": 5}
    assert dims.least_sizes(["M N", "M-N"], start={"M": 5, "N": 3}) == {"M": 5, "N": 3}


@pytest.mark.parametrize(("text", "fixed"), [("N-N", {}), ("-N", {}), ("0*N", {}), ("N-3", {"N": 2})])
def test_dims_that_no_sizes_satisfy_are_refused(text: str, fixed: dict[str, int]) -> None:
    with pytest.raises(DeclarationError, match=r"at least 1; write dims whose axes"):
        dims.least_sizes([text], fixed=fixed)


def test_axes_name_the_symbol_of_every_position() -> None:
    assert dims.axes("*batch N-1 4 C", SIZES) == ("batch.0", "batch.1", "N-1", "4", "C")
