"""Every mutant of a loss: one operator at one place."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from .operators import OPERATORS, Site
from .operators.operator import replaced
from .program import Program, functions, text_of
from .subjects import Subject

_LEFT_OUT = {"extra_repr"}  # says nothing about the loss


@dataclass(frozen=True)
class Mutant:
    """A loss changed at one place.

    Args:
        loss: name of the subject.
        operator: name of the operator.
        number: position among the mutants of this operator and loss.
        function: where the change is.
        program: the changed text.
        diff: the lines that changed, with - and +.
    """

    loss: str
    operator: str
    number: int
    function: str
    program: Program
    diff: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.loss}/{self.operator}/{self.number}"


def mutants(subject: Subject) -> tuple[Mutant, ...]:
    """All mutants of a subject whose text differs from the original and from one another, in a fixed order."""
    original = subject.original
    seen = {original.text}
    made: list[Mutant] = []
    counts: dict[str, int] = {}
    texts = {id(statement): text_of([statement]) for statement in original.tree.body}
    for operator in OPERATORS:
        for where, site, around in sites(subject):
            for new in operator.rewrite(site):
                changed_statement = ast.fix_missing_locations(replaced(around, site.node, new))
                old, fresh = texts[id(around)], text_of([changed_statement])
                text = original.text.replace(old, fresh)
                if text in seen:
                    continue
                seen.add(text)
                counts[operator.name] = number = counts.get(operator.name, 0) + 1
                changed = Program(original.entry, text)
                made.append(Mutant(subject.name, operator.name, number, where, changed, diff(old, fresh)))
    return tuple(made)


def selected(subject: Subject, most: int | None) -> tuple[Mutant, ...]:
    """At most so many mutants of each operator, spread evenly over the places where it applies; all where ``None``."""
    by_operator: dict[str, list[Mutant]] = {}
    for mutant in mutants(subject):
        by_operator.setdefault(mutant.operator, []).append(mutant)
    return tuple(mutant for group in by_operator.values() for mutant in _spread(group, most))


def _spread(group: list[Mutant], most: int | None) -> list[Mutant]:
    if most is None or len(group) <= most:
        return group
    return [group[(2 * position + 1) * len(group) // (2 * most)] for position in range(most)]


def sites(subject: Subject) -> Iterator[tuple[str, Site, ast.stmt]]:
    """Every node of a loss that an operator may rewrite, with the function's name and the definition around it."""
    entries = {subject.original.entry, f"{subject.original.entry}.forward"}
    for where, function, around in functions(subject.original.tree):
        if function.name in _LEFT_OUT or (subject.only and where not in subject.only):
            continue
        for node in [function, *(n for statement in function.body for n in _nodes(statement))]:
            yield where, Site(node, function, where in entries), around


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it, without messages and annotations."""
    if isinstance(node, ast.Raise | ast.JoinedStr):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _nodes(child)


def diff(before: str, after: str) -> tuple[str, ...]:
    """The lines that differ, without their indentation."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return tuple(
        f"{line[0]} {line[1:].strip()}" for line in lines if line[0] in "+-" and not line.startswith(("+++", "---"))
    )
