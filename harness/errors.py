"""Errors that a user can mend; each says what came, what is allowed and how to mend it.

What came may be anything: a text of a million characters, control characters, an object whose ``repr`` raises.  `shown`
and `told` put it into a message, and the text of every `HarnessError` is printable and bounded.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Collection, Iterable, Sequence

MESSAGE_LIMIT = 2000  # characters: about a screen
VALUE_LIMIT = 160
_ASKED_LIMIT = 100  # difflib's time grows with the square of the length
_IN_PLACE = re.compile(r"in-?place|written-to|modified by", re.IGNORECASE)
_CUT = " ... [{count} characters left out] ... "


class HarnessError(Exception):
    """Base of the errors that the harness raises on purpose."""

    def __str__(self) -> str:
        return clipped(visible(clipped(super().__str__())))


class DeclarationError(HarnessError, ValueError):
    """A loss cannot be understood from its declaration."""


class TargetError(HarnessError, LookupError):
    """A TARGET names nothing that holds a loss declaration."""


class NotApplicable(Exception):
    """Raised by a rule on a case that says nothing about it; the reason is shown."""


class Hidden(NotApplicable):
    """Raised where what another rule finds hides the answer: that other cases agree is then no pass."""


def nearest(name: str, allowed: Iterable[object]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest allowed name, or an empty string."""
    if not isinstance(name, str) or len(name) > _ASKED_LIMIT:
        return ""
    names = [known for known in allowed if isinstance(known, str) and len(known) <= _ASKED_LIMIT]
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def selected_codes(codes: Collection[str], rules: Sequence[str]) -> tuple[str, ...]:
    """Those of ``rules`` that are, or begin with, one of ``codes``, in the order of ``rules``.

    Raises:
        HarnessError: a code that selects nothing.
    """
    given = list(codes) if isinstance(codes, Collection) and not isinstance(codes, (str, bytes)) else [codes]
    for code in given:
        if not isinstance(code, str) or not code:
            raise HarnessError(f"got {shown(code)}, expected a code or prefix of rules, such as 'G01' or 'G'")
    wanted = [code.upper() for code in given]
    for code in wanted:
        if not any(rule.startswith(code) for rule in rules):
            raise HarnessError(
                f"{shown(code)} selects no rule{nearest(code, rules)}; `loss-harness rules` lists them all"
            )
    return tuple(rule for rule in rules if rule.startswith(tuple(wanted)))


def clipped(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """The text, its middle left out where it is longer than ``limit``: what came stands in front, how to mend it at the end."""
    if len(text) <= limit:
        return text
    cut = _CUT.format(count=len(text) - limit + 2 * len(_CUT))
    half = (limit - len(cut)) // 2
    return text[:half] + cut + text[-half:]


def visible(text: str) -> str:
    """The text with control characters and lone surrogates escaped; lines and tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode("ascii") for c in text)


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = VALUE_LIMIT
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 8

    def repr_instance(self, x: object, level: int) -> str:
        """What ``repr`` says, and the type alone where it raises."""
        try:
            text = repr(x)
        except Exception as error:
            return f"<{type(x).__name__} whose repr raises {type(error).__name__}>"
        return clipped(text, self.maxother)


_shown = _Shown()


def shown(value: object) -> str:
    """A value as it stands in messages: as ``repr`` writes it, but short, on one line, and there where ``repr`` raises."""
    try:
        return visible(clipped(_shown.repr(value), 3 * VALUE_LIMIT)).replace("\n", " ")
    except Exception as error:  # a list of the user's own type, or a number of more digits than Python writes
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


def told(error: BaseException) -> str:
    """``ValueError: what it says``; the type alone where the error says nothing or cannot be written."""
    try:
        text = str(error).strip()
    except Exception:
        return f"{type(error).__name__} (its message cannot be written)"
    return visible(clipped(f"{type(error).__name__}: {text}" if text else type(error).__name__))


def refuses_in_place(error: BaseException) -> bool:
    """Whether torch raised because a tensor was edited in place; it has no type of exception for that."""
    return isinstance(error, RuntimeError) and _IN_PLACE.search(told(error)) is not None


def told_in_a_line(error: BaseException) -> str:
    """The first line of what `told` says."""
    return told(error).splitlines()[0][: 3 * VALUE_LIMIT]
