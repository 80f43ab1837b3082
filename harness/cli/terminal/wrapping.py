"""Long lines on a terminal: broken between words, so that a number or a path is never cut in two."""

from __future__ import annotations

import re

_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_INDENT = re.compile(r" *")
# What is to be copied stays on one line, however long it is: commands, and code below a finding.
_COPIED = re.compile(r"\s*repeat: |    ")
_GAP = re.compile(r"(?<=\S)  +(?=\S)")
_TABLE_GAPS = 3
_WIDEST_HANG = 0.6


def wrapped(text: str, width: int) -> str:
    """The text in lines of at most ``width`` columns, as far as words allow.

    What follows of a line is indented more than its beginning, or to the column of its last cell.  Tables, commands and code
    keep their lines.
    """
    return "\n".join(part for line in text.split("\n") for part in _parts(line, width))


def _parts(line: str, width: int) -> list[str]:
    bare = _STYLE.sub("", line)
    gaps = list(_GAP.finditer(bare))
    if len(bare) <= width or _COPIED.match(bare) or len(gaps) >= _TABLE_GAPS:
        return [line]
    indent = len(_INDENT.match(bare)[0])  # type: ignore[index]  # it matches nothing as well
    hang = indent + 2
    if gaps and gaps[-1].end() <= _WIDEST_HANG * width:
        hang = gaps[-1].end()
    parts, room = [""], width
    for piece in re.findall(r" *[^ ]+", line):
        current = parts[-1]
        if current and _width(current) + _width(piece) > room:
            parts.append(" " * hang + piece.lstrip(" "))
        else:
            parts[-1] = current + piece
    return parts


def _width(text: str) -> int:
    return len(_STYLE.sub("", text))
