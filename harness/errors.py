"""Errors that a user can mend; each says what came, what is allowed and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """Base of the errors that the harness raises on purpose."""


class DeclarationError(HarnessError, ValueError):
    """A loss cannot be understood from its declaration."""


class TargetError(HarnessError, LookupError):
    """A TARGET names nothing that holds a loss declaration."""


class NotApplicable(Exception):
    """Raised by a rule on a case that says nothing about it; the reason is shown."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest allowed name, or an empty string."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
