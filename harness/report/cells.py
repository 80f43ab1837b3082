"""A table as CSV whose cells are data in every program that opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# With one of these in front, spreadsheets take a cell for a formula, which may run commands or fetch pages.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_text(frame: pd.DataFrame) -> str:
    """The frame as CSV; a text that a spreadsheet would take for a formula has an apostrophe in front.

    Source: OWASP, "CSV Injection".
    """
    texts = frame.select_dtypes(exclude=["number", "bool"]).columns
    harmless = frame.assign(**{column: frame[column].map(_harmless) for column in texts})
    return str(harmless.to_csv(index=False))


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
