"""A figure beside its target: reached, not reached, or not measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["reached", "not reached", "not measured"]


@dataclass(frozen=True)
class Figure:
    """A figure that has a target.

    Args:
        what: what it is, in words.
        value: as measured; ``None`` where it was not.
        target: what it should be.
        is_most: whether the target is the most that it should be, and not the least.
        is_strict: whether to equal the target is not enough.
        low: lower end of its 95 % interval; ``None`` for what is exact.
        high: upper end.
        unit: written behind the numbers.
        reason: why it was not measured, or why it is not reached.
        detail: what it is made of.
    """

    what: str
    value: float | None
    target: float
    is_most: bool = False
    is_strict: bool = False
    low: float | None = None
    high: float | None = None
    unit: str = "x"
    reason: str = ""
    detail: str = ""

    @property
    def verdict(self) -> Verdict:
        """By the value; see `is_open` for whether its interval leaves that open."""
        if self.value is None:
            return "not measured"
        return "reached" if self._meets(self.value) else "not reached"

    @property
    def is_open(self) -> bool:
        """Whether one end of the interval meets the target and the other does not."""
        if self.low is None or self.high is None:
            return False
        return self._meets(self.low) != self._meets(self.high)

    def _meets(self, value: float) -> bool:
        if value == self.target:
            return not self.is_strict
        return (value < self.target) == self.is_most

    @property
    def target_text(self) -> str:
        """Such as ``>= 40x``."""
        sign = ("<" if self.is_most else ">") + ("" if self.is_strict else "=")
        return f"{sign} {self.target:g}{self.unit}"

    @property
    def value_text(self) -> str:
        """Such as ``48.2x (45.1 to 50.3)``."""
        if self.value is None:
            return "-"
        interval = "" if self.low is None or self.high is None else f" ({self.low:.3g} to {self.high:.3g})"
        return f"{self.value:.3g}{self.unit}{interval}"

    @property
    def verdict_text(self) -> str:
        """The verdict, what leaves it open, and the reason."""
        text = f"**{self.verdict}**" if self.verdict != "reached" else self.verdict
        if self.is_open:
            text += ", but the interval holds the target"
        return f"{text}: {self.reason}" if self.reason and self.verdict != "reached" else text
