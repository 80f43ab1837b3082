"""All contests, in the order in which they are run."""

from __future__ import annotations

from .contest import Contest
from .contests import classes, graphs, memory_bank, squared_errors, transport, vectors

CONTESTS: tuple[Contest, ...] = (
    *squared_errors.CONTESTS,
    *graphs.CONTESTS,
    *classes.CONTESTS,
    *vectors.CONTESTS,
    *memory_bank.CONTESTS,
    *transport.CONTESTS,
)
