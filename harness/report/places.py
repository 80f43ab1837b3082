"""Where something is shown: the file and line that a finding is about, and files as addresses."""

from __future__ import annotations

import re
from urllib.parse import quote

from harness.results.schema import LossRecord, SourceRecord


def place(loss: LossRecord, implementation: str) -> SourceRecord | None:
    """Where a reader looks first; ``None`` where the report does not say.

    A report of an older schema knows no lines; there the file that was named on the command line has to do.
    """
    known = loss.source(implementation)
    if known is not None:
        return known
    file = loss.target.rpartition(":")[0] if ".py:" in loss.target else loss.target
    return SourceRecord(implementation, file.replace("\\", "/"), 1, is_local=True) if file.endswith(".py") else None


def uri(file: str) -> str:
    """A relative path with forward slashes as a relative URI (RFC 3986)."""
    return quote(file.encode("utf-8", "surrogateescape" if _is_undecodable(file) else "backslashreplace"), safe="/")


def _is_undecodable(file: str) -> bool:
    """Whether the name holds bytes of the file system that are no UTF-8, which Python writes as U+DC80 to U+DCFF."""
    return bool(re.search("[\udc80-\udcff]", file)) and not re.search("[\ud800-\udc7f\udd00-\udfff]", file)
