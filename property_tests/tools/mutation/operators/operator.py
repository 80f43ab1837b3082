"""What a mutation operator is, and how a tree is read and written."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Site:
    """One node of a loss, with the function around it.

    Args:
        node: what may be rewritten.
        function: the function that holds it.
        entry: whether that function is the one that is called with the batch.
    """

    node: ast.AST
    function: ast.FunctionDef
    entry: bool

    @property
    def parameters(self) -> list[str]:
        """Names of the tensors that the function is given, by their annotations."""
        given = [*self.function.args.args, *self.function.args.kwonlyargs]
        return [a.arg for a in given if a.annotation is not None and "Tensor" in ast.unparse(a.annotation)]


Replacement = ast.AST | list[ast.stmt]
Rewrite = Callable[[Site], Iterator[Replacement]]


@dataclass(frozen=True)
class Operator:
    """One kind of mistake: a name, a sentence that says it, and from a node to what the mistake makes of it."""

    name: str
    sentence: str
    rewrite: Rewrite


def operator(name: str) -> Callable[[Rewrite], Operator]:
    """Make a function an operator; its docstring is the sentence."""
    return lambda rewrite: Operator(name, (rewrite.__doc__ or "").strip(), rewrite)


@cache
def _template(code: str) -> ast.AST:
    return ast.parse(code, mode="eval").body


def expression(code: str, **parts: ast.AST) -> ast.AST:
    """The expression ``code`` with the names of ``parts`` replaced by their trees."""
    return _filled(_template(code), parts)


def statements(code: str, **parts: ast.AST) -> list[ast.stmt]:
    """The statements ``code`` with the names of ``parts`` replaced by their trees."""
    return [_filled(statement, parts) for statement in ast.parse(code).body]


def _filled(node: ast.AST, parts: dict[str, ast.AST]) -> ast.AST:
    if isinstance(node, ast.Name) and node.id in parts:
        return parts[node.id]
    return _rebuilt(node, lambda child: _filled(child, parts))


def replaced(node: ast.AST, old: ast.AST, new: Replacement) -> Replacement:
    """The tree with ``old`` (that very node) replaced; nothing of the given tree changes."""
    return new if node is old else _rebuilt(node, lambda child: replaced(child, old, new))


def _rebuilt(node: ast.AST, change: Callable[[ast.AST], Replacement]) -> ast.AST:
    fields: dict[str, object] = {}
    for name, value in ast.iter_fields(node):
        if isinstance(value, list):
            items: list[object] = []
            for item in value:
                made = change(item) if isinstance(item, ast.AST) else item
                items.extend(made) if isinstance(made, list) else items.append(made)
            fields[name] = items
        else:
            fields[name] = change(value) if isinstance(value, ast.AST) else value
    return type(node)(**fields)


def with_changes(node: ast.AST, **changes: object) -> ast.AST:
    """A copy of a node with some fields changed."""
    return type(node)(**{**dict(ast.iter_fields(node)), **changes})


def called(node: ast.AST) -> str | None:
    """The last name of what a call calls: ``sum`` for ``x.sum()``, ``torch.sum(x)`` and ``sum(x)``."""
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else None


MODULES = {"torch", "functional", "F", "math", "nn", "domains", "laws"}


def receiver(node: ast.AST) -> ast.expr | None:
    """The tensor that a method is called on: ``x`` for ``x.sum()``; ``None`` for ``torch.sum(x)``."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    root: ast.AST = node.func.value
    while isinstance(root, ast.Attribute):
        root = root.value
    return None if isinstance(root, ast.Name) and root.id in MODULES else node.func.value


def renamed(node: ast.Call, name: str) -> ast.AST:
    """The same call of another method or function of the same place."""
    if isinstance(node.func, ast.Attribute):
        return with_changes(node, func=with_changes(node.func, attr=name))
    return with_changes(node, func=ast.Name(name, ast.Load()))


def subject(node: ast.AST) -> ast.expr | None:
    """What a call is about: the receiver of a method, the first argument of a function."""
    found = receiver(node)
    if found is not None:
        return found
    return node.args[0] if isinstance(node, ast.Call) and node.args else None


def arguments(node: ast.Call) -> list[ast.expr]:
    """Arguments of a call after its subject."""
    return list(node.args if receiver(node) is not None else node.args[1:])


def whole(node: ast.AST | None) -> int | None:
    """The whole number that a literal is, also a negative one."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = whole(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    return None


def number(value: float) -> ast.AST:
    """The literal of a number."""
    return ast.parse(repr(value), mode="eval").body


def is_value(node: ast.AST) -> bool:
    """Whether an expression may be a tensor: not a literal, a text, a size or a dtype."""
    if isinstance(node, ast.Attribute):
        return node.attr not in {"dtype", "device", "shape", "ndim", "layout"} and not node.attr.isupper()
    if isinstance(node, ast.Call):
        return called(node) not in {
            "len",
            "range",
            "prod",
            "numel",
            "size",
            "zip",
            "isinstance",
            "tuple",
            "list",
            "min",
        }
    if isinstance(node, ast.Subscript):
        return is_value(node.value)
    if isinstance(node, ast.BinOp):
        return is_value(node.left) or is_value(node.right)
    return isinstance(node, ast.Name | ast.UnaryOp | ast.Compare)
