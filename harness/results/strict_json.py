"""JSON that somebody else may have written: read as data, and refused where no program of ours would have written it so."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

from harness.errors import shown

MAX_DIGITS = 30  # more than any count of bytes has
MAX_DEPTH = 40  # what this tool writes is at most about ten deep


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: no JSON, a key twice in one object, NaN or an infinity, a whole number of more than `MAX_DIGITS` digits, or nesting that is
            deeper than `MAX_DEPTH`.
    """
    if not isinstance(text, str):
        raise ValueError(f"got {shown(text)}, expected text")
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int
        )
    except RecursionError:
        raise ValueError(_too_deep()) from None
    _check_depth(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the key {shown(twice)} twice, so that nobody can say which one is meant")
    return made


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {shown(text)} came, which no float can hold")
    return value


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits came, but at most {MAX_DIGITS} are read")
    return int(text)


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} came, which JSON does not have")


def _check_depth(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return
    raise ValueError(_too_deep())


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _too_deep() -> str:
    return f"it is nested more than {MAX_DEPTH} deep"
