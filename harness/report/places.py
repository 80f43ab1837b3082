"""Where in a project a finding is shown: the file and line of the implementation that it is about."""

from __future__ import annotations

from harness.report.schema import LossRecord, SourceRecord


def place(loss: LossRecord, implementation: str) -> SourceRecord | None:
    """Where a reader looks first; ``None`` where the report does not say.

    A report of an older schema knows no lines; there the file that was named on the command line has to do.
    """
    known = loss.source(implementation)
    if known is not None:
        return known
    file = loss.target.rpartition(":")[0] if ".py:" in loss.target else loss.target
    return SourceRecord(implementation, file.replace("\\", "/"), 1, is_local=True) if file.endswith(".py") else None
