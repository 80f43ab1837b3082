"""What a report says about the timing of the harness itself, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
    low, high = same["called_interval"]
    return (
        f"Before it was used here, the timing was tried on itself: a function was compared with itself "
        f"{same['comparisons']} times and called faster or slower {same['called']} times (95 % interval of the rate "
        f"{low:.0%} to {high:.0%}); half of the intervals were narrower than ±{same['half_width_percent']:.1f} %."
    )
