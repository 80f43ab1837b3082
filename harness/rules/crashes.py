"""X01, which no check finds: a rule that could not be checked to its end is reported under it."""

from __future__ import annotations

from harness.errors import NotApplicable
from harness.rules.rule import Mismatch, Rule
from harness.rules.trial import Trial


def every_check_ends(trial: Trial) -> Mismatch | None:
    """Every planned rule comes to an answer: it neither crashes, nor hangs, nor runs out of memory.

    planned = passed + failed + waived + skipped + inapplicable,   crashed = timed out = 0

    What a loss raises on a declared input is B01's; here is what stops the check itself, so that nothing is known.
    """
    raise NotApplicable("the run itself reports it, under the rule that could not be checked")


X01 = Rule(
    code="X01",
    title="crashed, hung or ran out of memory",
    group="crashes",
    severity="error",
    check=every_check_ends,
    regimes={},
    why="A rule that did not run says nothing, and must not look like one that passed.",
    example="while float(error.max()) > tolerance: ...      # never ends where an element is NaN",
    mend=(
        "Run the loss on the case of the message by itself; bound its loops and the size of what it allocates.  If the loss "
        "is well, the harness is at fault: report it with the case."
    ),
    source="Fuzzing: Miller, Fredriksen & So, Communications of the ACM 33(12), 1990.",
)
