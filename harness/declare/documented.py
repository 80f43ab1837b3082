"""The domains and laws that there are, as calls and sentences, read off their source without torch."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

KINDS = {"domains": "Domain", "laws": "Law"}  # a module of this folder -> what its functions return


def documented(kind: str) -> Mapping[str, tuple[str, str]]:
    """Name -> (its call, such as ``index(symbol, ignore=None)``, and its docstring) of every domain or law.

    Args:
        kind: one of `KINDS`.
    """
    source = Path(__file__).with_name(f"{kind}.py").read_text(encoding="utf-8")
    functions = [f for f in ast.parse(source).body if isinstance(f, ast.FunctionDef) and not f.name.startswith("_")]
    found = {
        f.name: (f"{f.name}({_parameters(f.args)})", ast.get_docstring(f) or "")
        for f in functions
        if f.returns is not None and ast.unparse(f.returns) == KINDS[kind]
    }
    return dict(sorted(found.items())) if kind == "domains" else found


def _parameters(arguments: ast.arguments) -> str:
    """Names and defaults, without annotations."""
    for each in ast.walk(arguments):
        if isinstance(each, ast.arg):
            each.annotation = None
    return ast.unparse(arguments)
