"""What a report says about the timing of the harness itself, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.results.words import plural

# Fewer comparisons leave a rate open from 0 to 30 % and more even where none was called.
FEWEST_FOR_A_RATE = 10


def self_check_sentence(summary: Mapping[str, Any] | None) -> str:
    """One sentence for a report; empty where nothing was timed against itself.

    Args:
        summary: of a `Calibration`.
    """
    if not summary:
        return ""
    if not summary["levels"]:
        return f"The timing was not tried on itself: {'; '.join(summary['notes'])}."
    same = summary["levels"][0]
    count, width = same["comparisons"], f"±{same['half_width_percent']:.1f} %"
    widths = f"its interval was {width} wide" if count == 1 else f"half of the intervals were narrower than {width}"
    return (
        f"Before it was used here, the timing was tried on itself: a function was compared with itself "
        f"{plural(count, 'time')} and called faster or slower {plural(same['called'], 'time')} ({_rate(same)}); {widths}."
    )


def _rate(level: Mapping[str, Any]) -> str:
    if level["comparisons"] < FEWEST_FOR_A_RATE:
        return "too few comparisons to say how often that happens; `loss-harness calibrate` makes more"
    low, high = level["called_interval"]
    return f"95 % interval of the rate {low:.0%} to {high:.0%}"
