"""What the harness says about its own timing, as a table."""

from __future__ import annotations

from harness.results.words import printable, table
from harness.timing.calibrate import ALLOWED_FALSE_ALARMS, UNITS, Calibration
from harness.timing.constants import MOST_PROCESSES, PROCESSES
from harness.timing.rates import trials_to_rule_out

POWER = 0.95


def calibration_text(made: Calibration) -> str:
    """The table of a calibration, what its words mean, and whether the false alarms are few enough."""
    rows = [["work", "comparisons", "measured", "interval", "called faster or slower", "seen", "found"]]
    for level in made.levels:
        measured, width = f"{level.measured_percent:+.2f} %", f"±{level.half_width_percent:.2f} %"
        rates = [str(rate) for rate in (level.called, level.seen, level.found)]
        rows.append([_work(level.percent), str(len(level.comparisons)), measured, width, *rates])
    sure = [level.percent for level in made.levels if level.percent and level.called.value >= POWER]
    lines = [
        f"A function of {UNITS} calls of one kernel against itself, and against copies with more calls: "
        f"up to {made.rounds} rounds in {PROCESSES} to {MOST_PROCESSES} processes each, {made.seconds:.0f} s.",
        "",
        table(rows),
        "",
        "called: the whole 95 % interval lies outside ±5 %, so a slowdown of exactly 5 % is never called for sure.",
        "seen: the interval excludes no change; for the same work this is how often it misses the truth.",
        "found: seen, and not called equivalent, as a slowdown of 10 % should be. One of 3 % lies inside ±5 %: it is found "
        "only where its interval reaches beyond.",
        f"called in {POWER:.0%} of the comparisons from {_work(min(sure))} on" if sure else "",
        f"false alarms: {made.false_alarms}, {_judged(made)}",
        *(printable(note) for note in made.notes),
    ]
    return "\n".join(line for line, after in zip(lines, [*lines[1:], "end"], strict=True) if line or after) + "\n"


def _judged(made: Calibration) -> str:
    if not made.ok:
        return f"significantly more than the allowed {ALLOWED_FALSE_ALARMS:.0%}"
    trials, (_, high) = made.false_alarms.trials, made.false_alarms.interval
    said = f"which does not refute the allowed {ALLOWED_FALSE_ALARMS:.0%}"
    if high <= ALLOWED_FALSE_ALARMS:
        return said
    needed = trials_to_rule_out(ALLOWED_FALSE_ALARMS)
    return (
        f"{said}; {trials} pairs refute no rate up to {high:.1%} either: to rule out more than "
        f"{ALLOWED_FALSE_ALARMS:.0%} takes {needed} without a false alarm"
    )


def _work(percent: float) -> str:
    return f"+{percent:g} %" if percent else "the same"
