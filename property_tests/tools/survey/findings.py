"""The findings of `docs/survey.md` as data, and whether the code beside them still gives what its comments say.

A section is a heading ``## PACKAGE`` and a paragraph that names versions, ``(geomloss 0.3.1, ...)``.  A finding in it is a paragraph or
an item of a list that begins in bold and names rules:

    **The gradient is NaN** (`nn.BCELoss`, D02). Why, and `Known: pytorch#5157.` where there is a report.
    - **`NCALoss`** (E01, a warning): Why.

The first is shown by the blocks of Python up to the next; an item, which begins with the names of its losses, by the statements of
the section that use one of them.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from property_tests.helpers.documents.blocks import Block, blocks

PAGE = Path(__file__).parents[3] / "docs" / "survey.md"
_SEEN_WITH = re.compile(r"specs?\s\(([^()]*)\)")
_VERSION = re.compile(r"([A-Za-z][\w-]*) (\d+(?:\.\d+)+)")
_BOLD = re.compile(r"(?:- )?\*\*(?P<title>.+?)\*\*(?P<rest>.*)", re.DOTALL)
_ASIDE = re.compile(r"\((?P<aside>[^()]*?(?:[A-Z]\d\d|read off)[^()]*)\)[.:]?\s*(?P<why>.*)", re.DOTALL)
_KNOWN = re.compile(r"[\w-]+#\d+")


@dataclass(frozen=True)
class Finding:
    """One finding of the survey.

    Args:
        versions: the packages that it was seen with.
        losses: names of specs of the catalog, or of functions and classes of the package.
        fact: what is wrong, in a sentence.
        rules: codes of the rules that found it; empty where it was read off a formula.
        severity: ``error``, ``warning`` or ``note``.
        known: reports of others.
        lines: of the page, on which comments say what its code gives; empty where no code shows it.
    """

    versions: tuple[str, ...]
    losses: tuple[str, ...]
    fact: str
    rules: tuple[str, ...]
    severity: str
    known: tuple[str, ...]
    lines: tuple[int, ...]


@dataclass(frozen=True)
class Section:
    """The findings of one heading, and its code, which is run as one program."""

    name: str
    versions: tuple[str, ...]
    code: tuple[Block, ...]
    findings: tuple[Finding, ...]


def sections(page: Path = PAGE) -> list[Section]:
    """The sections of the survey that name a version."""
    text = page.read_text(encoding="utf-8")
    code = [block for block in blocks(page) if block.language == "python"]
    starts = [found.start() for found in re.finditer(r"^## ", text, re.MULTILINE)]
    made = []
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        first, last = text.count("\n", 0, start) + 1, text.count("\n", 0, end) + 1
        mine = [block for block in code if first <= block.line < last]
        paragraphs = list(_paragraphs(text[start:end], first))
        seen = _SEEN_WITH.search(text, start, end)
        if seen is not None:
            versions = tuple(" ".join(found) for found in _VERSION.findall(seen[1]))
            name = text[start + 3 : text.index("\n", start)]
            made.append(Section(name, versions, tuple(mine), tuple(_findings(paragraphs, mine, versions))))
    return made


def _paragraphs(text: str, first: int) -> Iterator[tuple[int, str]]:
    """(line, text) of each paragraph and each item of a list; code stands in none."""
    for found in re.finditer(r"^```(?:.|\n)*?^```$|^- .*(?:\n(?:  ).+)*|^(?:(?!- |```).+\n?)+", text, re.MULTILINE):
        yield first + text.count("\n", 0, found.start()), found[0]


def _findings(
    paragraphs: Sequence[tuple[int, str]], code: Sequence[Block], versions: Sequence[str]
) -> Iterator[Finding]:
    bold = [(line, found) for line, text in paragraphs if (found := _BOLD.match(text))]
    ends = [line for line, text in paragraphs if text.startswith("#") or _BOLD.match(text)]
    for line, found in bold:
        aside = _ASIDE.search(" ".join(found["rest"].split()))
        if aside is None:
            continue
        after = next((end for end in ends if end > line), math.inf)
        is_item = found[0].startswith("- ")
        names = tuple(re.findall(r"`([^`]+)`", found["title"] if is_item else aside["aside"]))
        rules = tuple(re.findall(r"\b[A-Z]\d\d\b", aside["aside"]))
        between = [block for block in code if line < block.line < after]
        yield Finding(
            versions=tuple(versions),
            losses=names or (found["title"],),
            fact=re.split(r"(?<=[.])\s(?=[A-Z])", aside["why"])[0] if is_item else " ".join(found["title"].split()),
            rules=rules,
            severity=_severity(aside["aside"], rules),
            known=tuple(_KNOWN.findall(aside["why"])),
            lines=tuple(n for b in (code if is_item else between) for n in _commented(b, names if is_item else ())),
        )


def _severity(aside: str, rules: Sequence[str]) -> str:
    """As the page says it, else that of the gravest rule."""
    from harness.results.rule_texts import rule_texts

    if (said := re.search(r"\b(error|warning)s?\b", aside)) is not None:
        return said[1]
    mine = {rule_texts()[code].severity for code in rules}
    return next((severity for severity in ("error", "warning") if severity in mine), "note")


def _commented(block: Block, losses: Sequence[str]) -> Iterator[int]:
    """Lines of the page with a comment, of the statements that use one of the losses, or of all where none is named."""
    lines = block.text.splitlines()
    names = {loss.rpartition(".")[2].partition("-")[0] for loss in losses}
    for node in ast.parse(block.text).body:
        span = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        words = re.findall(r"\w+", "\n".join(lines[n - 1] for n in span))
        if not names or any(word == name or word.endswith(f"_{name}") for word in words for name in names):
            yield from (block.line + n for n in span if "  # " in lines[n - 1])
            if names and isinstance(node, ast.Assign | ast.FunctionDef):  # what is made of a loss shows it too
                targets = node.targets if isinstance(node, ast.Assign) else [ast.Name(node.name)]
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
