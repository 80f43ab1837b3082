"""All measurements as CSV whose cells are data in every program that opens it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from harness.results.schema import Report

# With one of these in front, spreadsheets take a cell for a formula, which may run commands or fetch pages.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def render(report: Report) -> str:
    """One row per measurement, units in the names of the columns; empty where nothing was measured."""
    return csv_text([m.row(loss.name) for loss in report.losses for m in loss.measurements if m.is_planned])


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV; a text that a spreadsheet would take for a formula has an apostrophe in front.

    Source: OWASP, "CSV Injection".
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    if rows:
        writer.writerow(map(_harmless, columns))
    writer.writerows([_harmless(row.get(name)) for name in columns] for row in rows)
    return file.getvalue()


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
