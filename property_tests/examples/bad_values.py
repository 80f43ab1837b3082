"""Values that nobody should pass, as Hypothesis strategies: of other types, huge, cyclic, unprintable, or raising whatever is asked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st

from harness import TensorSpec, laws

LONG = "x" * 10**6


class Unspeakable:
    """Raises whatever is asked of it but its type."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__

    def __bool__(self) -> bool:
        raise RuntimeError("no bool")

    def __len__(self) -> int:
        raise RuntimeError("no len")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no eq")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __iter__(self) -> Any:
        raise RuntimeError("no iter")


def _list_of_itself() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


def _dict_of_itself() -> dict[str, Any]:
    made: dict[str, Any] = {}
    made["a"] = made
    return made


NAMES = (
    *("", " ", "\n", "a\nb", "a\0b", "\ud800", "-x", "--help", "CON", "nul.txt", "\x1b[31mred", "\u202eabc", "é", "名"),
    *("../x", "/etc/passwd", "a/b", "a\\b", "..", ".", "x:y", "=1+1", "<script>", LONG, "a" * 300 + ".py", "{", "{}"),
    *(
        "B C",
        "N-N-N",
        "*a *b",
        "(" * 100,
        "N+" * 400 + "1",
        "9" * 30,
        "B" * 5000,
        "#" * 100,
        "N**9",
        "lambda: 0",
        "B\u00a0C",
    ),
)

MAKERS: tuple[Callable[[], Any], ...] = (
    *(lambda value=value: value for value in (None, True, 0, -1, 1.5, math.nan, math.inf, 10**30, 10**5000, b"b", ())),  # type: ignore[misc]
    *(list, dict, object, Unspeakable, _list_of_itself, _dict_of_itself, lambda: torch.tensor(1.0)),
    *(
        lambda: torch.ones(2, 2),
        lambda: torch.float32,
        lambda: int,
        lambda: print,
        lambda: ValueError,
        lambda: slice(1),
    ),
    *(lambda: range(3), lambda: {"a", "b"}, lambda: [1], lambda: {1: 2}, lambda: {"B": -1}, lambda: {"B": math.nan}),
    *(
        lambda: {"B": True},
        lambda: {"B": 10**9},
        lambda: [{"B": 0}],
        lambda: TensorSpec("B"),
        lambda: {"x": TensorSpec("B")},
    ),
    *(lambda: [laws.nonnegative()], lambda: {"x": {"y": 1}}, lambda: (n for n in "ab"), lambda: {"predictions": "B"}),
)

names = st.one_of(st.sampled_from(NAMES), st.text(st.characters(), max_size=8))
values = st.one_of(names, st.sampled_from(MAKERS).map(lambda make: make()), st.lists(names, max_size=2))

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(NAMES), st.just(10**4000)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES[:20]), inner, max_size=2)
    ),
    max_leaves=4,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in pairs for place in _places(inner, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn, text: str) -> str:
    """A JSON text with one value replaced, one key or element removed, its end cut off, or other text put in."""
    how = draw(st.sampled_from(("replace", "replace", "replace", "remove", "cut", "insert")))
    if how in ("cut", "insert"):
        position = draw(st.integers(0, len(text)))
        return text[:position] + ("" if how == "cut" else draw(st.sampled_from(NAMES)) + text[position:])
    data = json.loads(text)
    path = draw(st.sampled_from(_places(data)))
    if not path:
        return json.dumps(draw(json_values))
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    if how == "remove":
        del inner[path[-1]]
    else:
        inner[path[-1]] = draw(json_values)
    return json.dumps(data)
