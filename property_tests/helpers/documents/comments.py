"""Runs code whose comments say what its expressions give, and says where they give something else.

    F.cosine_similarity(zero, one)      # nan
    F.l1_loss(x, y), F.l1_loss(z, y)    # 1.0 and 1.5
    F.nll_loss(x, target).backward()    # RuntimeError

What stands after ``:`` or ``;`` in a comment is for people.  Of an expression in a loop, the values follow each other; equal
ones that follow each other are said once.  An expression whose comment says no value is not run.
"""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import torch

_VALUE = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?|\b(?:inf|nan|True|False|torch\.\w+|\w+Error)\b")


def differences(code: str, names: dict[str, Any]) -> dict[int, str]:
    """Run the code in a namespace; line -> how its values are not those of its comment."""
    comments = {
        token.start[0]: token.string
        for token in tokenize.generate_tokens(io.StringIO(code).readline)
        if token.type == tokenize.COMMENT
    }
    given: dict[int, list[Any]] = {}

    def note(line: int, expression: Callable[[], Any]) -> None:
        if _said(comments[line]):
            try:
                given.setdefault(line, []).extend(_flat(expression()))
            except Exception as error:
                given.setdefault(line, []).append(type(error).__name__)

    names["_note"] = note
    exec(compile(ast.fix_missing_locations(_Noting(set(comments)).visit(ast.parse(code))), "page", "exec"), names)
    wrong = {}
    for line, comment in comments.items():
        said, got = _said(comment), [next(same) for _, same in groupby(given.get(line, []), key=str)]
        if line in given and (len(said) != len(got) or not all(map(_agrees, said, got))):
            wrong[line] = f"line {line} says {comment!r}, but gives {got}"
    return wrong


class _Noting(ast.NodeTransformer):
    """``expression  # comment`` -> ``_note(line, lambda: expression)``; of a print, what it prints but its labels."""

    def __init__(self, lines: set[int]) -> None:
        self.lines = lines

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        line = node.end_lineno
        if line not in self.lines:
            return node
        value = node.value
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print":
            value = ast.Tuple([part for part in value.args if not isinstance(part, ast.Constant)], ast.Load())
        nothing = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
        call = ast.Call(ast.Name("_note", ast.Load()), [ast.Constant(line), ast.Lambda(nothing, value)], [])
        return ast.copy_location(ast.Expr(call), node)


def _said(comment: str) -> list[str]:
    """The values that a comment says, each once where it is said several times in a row."""
    return [value for value, _ in groupby(_VALUE.findall(re.split(r"[:;]", comment)[0]))]


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    elif isinstance(value, torch.Tensor):
        value = value.tolist()
    elif isinstance(value, Exception):
        value = type(value).__name__
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    elif value is not None:
        yield value


def _agrees(said: str, got: Any) -> bool:
    """Equal as text, or equal to the last digit that is said."""
    if isinstance(got, bool) or not isinstance(got, (int, float)):
        return said == str(got)
    try:
        number = float(said)
    except ValueError:
        return False
    digits = len(said.partition(".")[2])
    return (math.isnan(number) and math.isnan(got)) or number == got or abs(number - got) <= 0.5 * 10**-digits
