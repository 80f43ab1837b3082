"""How many axes the code of a loss takes its tensors to have."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from harness.declare.annotations import call_function

# What sizes are usually called, as the letter of their axis; a single letter is its own.
_WORDS = {
    "B": "batch batchsize bs nbatch",
    "C": "channels nchannels numchannels classes nclasses numclasses ncls",
    "D": "dim features nfeatures embeddim embeddingdim",
    "H": "height",
    "S": "length seqlen sequencelength",
    "T": "time steps frames",
    "V": "vocab vocabsize",
    "W": "width",
}
_LETTER_OF = {word: letter for letter, words in _WORDS.items() for word in words.split()}


def unpacked(loss: Callable[..., Any]) -> dict[str, str]:
    """Tensor -> its dims, of those whose shape the code unpacks: ``B, C, H, W = logits.shape``; ``_`` where nothing names an axis."""
    found = {}
    tree = _tree(loss)
    changed = _set_in(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and (name := _shape_of(node.value)):
            sizes = node.targets[0].elts
            if all(isinstance(size, ast.Name) for size in sizes) and name not in changed:
                found[name] = " ".join(_letter(size.id) for size in sizes if isinstance(size, ast.Name))
    return found


def least_axes(loss: Callable[..., Any]) -> dict[str, int]:
    """Tensor -> the most positions by which the code indexes it: ``valid[b, i, j]`` has three axes or more."""
    found: dict[str, int] = {}
    tree = _tree(loss)
    changed = _set_in(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id not in changed:
            index = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            taken = [one for one in index if not (isinstance(one, ast.Constant) and one.value in (None, ...))]
            found[node.value.id] = max(found.get(node.value.id, 0), len(taken))
    return found


def documented(shapes: Mapping[str, str]) -> str:
    """What a docstring would say of shapes all of whose axes have a name."""
    return "\n".join(f"{name}: ({', '.join(dims.split())})" for name, dims in shapes.items() if "_" not in dims)


def _set_in(tree: ast.AST) -> set[str]:
    """Names that are given another value: they may have other axes then."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _tree(loss: Callable[..., Any]) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(call_function(loss)))))
    except (OSError, TypeError, SyntaxError):  # builtins, and what was made elsewhere
        return ast.Module([], [])


def _shape_of(value: ast.expr) -> str:
    """The name in ``name.shape`` and ``name.size()``; empty for all else."""
    if isinstance(value, ast.Call) and not value.args and isinstance(value.func, ast.Attribute):
        value = value.func if value.func.attr == "size" else value
    if isinstance(value, ast.Attribute) and value.attr in ("shape", "size") and isinstance(value.value, ast.Name):
        return value.value.id
    return ""


def _letter(size: str) -> str:
    return size.upper() if len(size) == 1 else _LETTER_OF.get(size.replace("_", "").lower(), "_")
