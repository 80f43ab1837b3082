"""A page of Markdown -> its fenced blocks, with what the comments before a block say of it.

- ``<!-- run: --profile quick -->``: options that its commands get, each that knows them.
- ``<!-- exit: 1 -->``: the exit code of its last command, where that is not 0.
- ``<!-- file: NAME -->``: it is this file; a first line ``# NAME`` says the same.
- ``<!-- in: a clone -->``: its commands run in the repository.
- ``<!-- not run: REASON -->``: only its syntax, its programs and their options are checked; so are those of a block of ``sh``.
- ``<!-- files of: PAGE -->``: the files of another page are there from the beginning; this one stands alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_MARK = re.compile(r"<!-- (run|exit|file|in|not run): (.*?) -->")
_FILES_OF = re.compile(r"^<!-- files of: (\S+) -->$", re.MULTILINE)
_FENCE = re.compile(r"```(\w*)$")
_NAMED = re.compile(r"# ([\w./-]+\.(?:py|toml|yml|yaml))\n")


@dataclass(frozen=True)
class Step:
    """One command of a console block, and the lines that the page shows after it."""

    command: str
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """One fenced block; ``line`` is that of its fence."""

    language: str
    text: str
    line: int
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def file(self) -> str | None:
        """The name of the file that it is."""
        named = _NAMED.match(self.text)
        return self.marks.get("file") or (named[1] if named else None)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The commands of a console block."""
        parts = re.split(r"^\$ ", self.text, flags=re.MULTILINE)
        if parts[0].strip():
            raise ValueError(f"line {self.line}: a console block begins with a command after '$ ', not {parts[0]!r}")
        found = []
        for part in parts[1:]:
            command, _, shown = re.sub(r"\\\n>?", " ", part).partition("\n")
            found.append(Step(command.strip(), tuple(shown.rstrip().splitlines())))
        return tuple(found)


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order.

    Raises:
        ValueError: a fence that is not closed, or a comment for a block that does not follow.
    """
    found: list[Block] = []
    marks: dict[str, str] = {}
    opened: tuple[str, int] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is not None:
            if line == "```":
                found.append(Block(opened[0], "".join(f"{text}\n" for text in lines), opened[1], marks))
                opened, marks, lines = None, {}, []
            else:
                lines.append(line)
        elif fence:
            opened = (fence[1], number)
        elif mark := _MARK.fullmatch(line.strip()):
            marks[mark[1]] = mark[2]
        elif marks and line.strip():
            raise ValueError(
                f"{page.name}:{number}: {sorted(marks)} is said of a block, but this line follows: {line!r}"
            )
    if opened is not None:
        raise ValueError(f"{page.name}:{opened[1]}: this block is not closed")
    return found


def borrowed(page: Path) -> list[Path]:
    """The pages whose files this one takes for granted."""
    return [page.parent / name for name in _FILES_OF.findall(page.read_text(encoding="utf-8"))]


def pattern(shown: tuple[str, ...]) -> re.Pattern[str]:
    """What the page shows of an output, as an expression: a line `...` stands for any lines, `…` for any text in a line."""
    told = ""
    for line in shown:
        if line.strip() == "...":
            told += r"(?:.*\n)*?"
        else:
            told += r".*?".join(re.escape(part.rstrip()) for part in line.split("…")) + r"[ \t]*\n"
    return re.compile(told)
