"""Counts, times, tables and causes as every format shows them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from harness.results.causes import grouped
from harness.results.findings import Finding
from harness.results.schema import LossRecord

Style = Callable[[str, str], str]  # (text, what it is) -> the text in that style

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def unstyled(text: str, what: str) -> str:
    """Text as it is; for pipes and files."""
    return text


def printable(text: str) -> str:
    """Text without the control characters with which a message could rewrite the screen."""
    return _CONTROL.sub("", text)


def who(loss: LossRecord, implementation: str) -> str:
    """``loss / implementation``, or one of them where both have one name."""
    return implementation if implementation == loss.name else f"{loss.name} / {implementation}"


def causes(loss: LossRecord, severity: str) -> list[tuple[Finding, tuple[Finding, ...]]]:
    """(finding, what follows from it) for findings of a severity that follow from no other and are not accepted."""
    groups = grouped(loss.findings)
    return [group for group in groups if group[0].severity == severity and not group[0].accepted]


def seconds_text(seconds: float | None) -> str:
    """A time with its unit, such as ``12.3 µs``; empty where there is none."""
    if seconds is None:
        return ""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 0.9995:  # what rounds to 1 at three digits is shown as 1
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first row as the header; numbers stand to the right."""
    cells = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    right = [all(_is_number(row[column]) for row in cells[1:]) for column in range(len(widths))]
    lines = [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def _is_number(cell: str) -> bool:
    return bool(re.fullmatch(r"[\d.,×]*", cell))


def plural(count: int, noun: str, many: str = "") -> str:
    """``1 error``, ``2 errors``; ``many`` is the plural where it is not regular."""
    return f"{count} {noun}" if count == 1 else f"{count} {many or noun + 's'}"
