"""A loss as one self-contained text: its definition, the helpers it reaches and the imports that they need."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import linecache
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Program:
    """Source that defines ``entry`` and everything of its package that it uses.

    Args:
        entry: name of the class or function that is the loss.
        text: the source, without comments and docstrings.
    """

    entry: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree; rewrites share its nodes, so nobody may change them."""
        return ast.parse(self.text)

    def load(self) -> Any:
        """The loss, from a fresh module that pickle and tracebacks can find; equal texts give one module.

        Raises:
            Exception: whatever importing the text raises.
        """
        name = f"mutant_{hashlib.sha256(self.text.encode()).hexdigest()[:16]}"
        if name not in sys.modules:
            file = f"<{name}>"
            module = ModuleType(name)
            sys.modules[name] = module
            linecache.cache[file] = (len(self.text), None, self.text.splitlines(keepends=True), file)
            try:
                exec(compile(self.text, file, "exec"), module.__dict__)
            except BaseException:
                del sys.modules[name]
                raise
        return getattr(sys.modules[name], self.entry)

    def forget(self) -> None:
        """Let go of the module that `load` made."""
        name = f"mutant_{hashlib.sha256(self.text.encode()).hexdigest()[:16]}"
        sys.modules.pop(name, None)
        linecache.cache.pop(f"<{name}>", None)


def program(implementation: Callable[..., Any]) -> Program:
    """The text of a loss that is defined at the top of a module.

    Raises:
        ValueError: two modules of its package give one name to different things, or import under another name.
    """
    collector = _Collector(implementation.__module__)
    collector.define(implementation.__module__, implementation.__name__)
    imports = sorted(collector.imports | {"import torch"})  # mistakes are written with torch, used here or not
    lines = ["from __future__ import annotations", *imports, *collector.definitions]
    return Program(implementation.__name__, text_of(ast.parse("\n".join(lines)).body))


def text_of(statements: Iterable[ast.stmt]) -> str:
    """Top-level statements as text, one after the other."""
    return "".join(f"{ast.unparse(statement)}\n" for statement in statements)


class _Collector:
    """Definitions that a loss reaches by name, each after those that it uses."""

    def __init__(self, home: str) -> None:
        self.packages = (home.rpartition(".")[0] or home,)
        self.imports: set[str] = set()
        self.definitions: list[str] = []
        self.homes: dict[str, str] = {}

    def define(self, module: str, name: str) -> None:
        if name in self.homes:
            if self.homes[name] != module:
                raise ValueError(
                    f"{name!r} is defined in {self.homes[name]} and in {module}; one text has room for one"
                )
            return
        self.homes[name] = module
        statement = _top_level(module).get(name)
        if statement is None:
            raise ValueError(f"{module} defines no {name!r} at its top level")
        for used in sorted({n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}):
            self._reach(module, used)
        self.definitions.append(ast.unparse(_without_docstrings(statement)))

    def _reach(self, module: str, name: str) -> None:
        if name in _top_level(module):
            self.define(module, name)
        elif (found := _imported(module).get(name)) is not None:
            source, original = found
            if source is not None and source.startswith(self.packages[0] + "."):
                if original != name:
                    raise ValueError(f"{module} imports {source}.{original} as {name!r}; import it under its own name")
                self.define(source, name)
            else:
                origin = f"from {source} " if source is not None else ""
                self.imports.add(f"{origin}import {original}" + (f" as {name}" if name != original else ""))


@cache
def _source(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


@cache
def _top_level(module: str) -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for statement in _source(module).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            found |= {target.id: statement for target in targets if isinstance(target, ast.Name)}
    return found


@cache
def _imported(module: str) -> dict[str, tuple[str | None, str]]:
    """Name -> (module it comes from, its name there); a module itself comes from none."""
    found: dict[str, tuple[str | None, str]] = {}
    for statement in _source(module).body:
        if isinstance(statement, ast.Import):
            found |= {(a.asname or a.name): (None, a.name) for a in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            source = statement.module
            if statement.level:
                source = importlib.util.resolve_name(
                    f"{'.' * statement.level}{source or ''}", module.rpartition(".")[0]
                )
            found |= {(a.asname or a.name): (source, a.name) for a in statement.names}
    return found


def _without_docstrings(statement: ast.stmt) -> ast.stmt:
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return statement


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef, ast.stmt]]:
    """Every function of a tree, in order: its qualified name, itself, and the definition at the top that holds it."""
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef):
            yield statement.name, statement, statement
        elif isinstance(statement, ast.ClassDef):
            for inner in statement.body:
                if isinstance(inner, ast.FunctionDef):
                    yield f"{statement.name}.{inner.name}", inner, statement
