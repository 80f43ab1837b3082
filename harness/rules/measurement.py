"""Rules about times, which the benchmark asks and no check finds: whoever breaks one is not ranked."""

from __future__ import annotations

import inspect

from harness.errors import NotApplicable
from harness.rules.rule import Mismatch, Rule
from harness.rules.trial import Trial

_SOURCE = "Ousterhout, Always Measure One Level Deeper, Communications of the ACM 61(7), 2018."


def _rule(code: str, title: str, statement: str, why: str, example: str, mend: str) -> Rule:
    def asked(trial: Trial) -> Mismatch | None:
        raise NotApplicable("the benchmark asks it of what it times")

    asked.__doc__ = inspect.cleandoc(statement)
    return Rule(code, title, "measurement", "error", {}, why, example, mend, _SOURCE, check=asked)


RULES = (
    _rule(
        "M01",
        "clock inside agrees with one outside",
        """A block takes as long by the clock of another process as by the one inside.

            wall and processor time outside <= 1.25 wall time inside

        Around each block there is a round trip to a process that runs nothing of the user's.  Further threads, whose processor
        time is more than the wall time of both, are no lie: they are charged with it.
        """,
        "A timer that was replaced, on purpose or by a library for tests, makes every figure of the process another one.",
        "harness.timing.timers.perf_counter = lambda: real() / 10",
        "Load nothing that replaces timers, such as a library that freezes the time, beside what is timed.",
    ),
    _rule(
        "M02",
        "value and gradient hold after the timing",
        """After the timing, value and gradient on inputs that were never seen are those of the reference.

            |L(x) - L_reference(x)| <= 1e-3 (|L| + sum |x dL/dx|),   x new after the last block, beside the same context

        So is the loss on what was timed the one from before it.  Registered buffers that change, as running statistics do, are
        left out.
        """,
        "What is right in the first call only was checked, and another function was timed.",
        "self.calls += 1\nreturn right(x) if self.calls < 10 else self.last",
        "Compute the value from the inputs of each call; register as a buffer what is meant to run along.",
    ),
    _rule(
        "M03",
        "new inputs take as long as those seen before",
        """A call on inputs that were never seen takes as long as one on those that were timed.

            least time on new inputs <= 3 least time on those + 50 us

        What is computed from the context alone may be kept: it is the same in every batch.
        """,
        "In training every batch is new: a result that is kept from call to call is quick in a benchmark alone.",
        "key = (x.data_ptr(), x._version)\nif key not in CACHE: CACHE[key] = right(x)",
        "Keep nothing that depends on the inputs; what depends on the context alone belongs in the constructor.",
    ),
    _rule(
        "M04",
        "no work is left to other threads",
        """When a call has returned, its work is done.

        processor time of other threads, while this one only waits = 0
        """,
        "What goes on after the call takes the processor from what comes next, and is in nobody's time.",
        "threading.Thread(target=work).start()      # in forward, never joined",
        "Wait for what the call has started before it returns.",
    ),
    _rule(
        "M05",
        "timing leaves the inputs as they were",
        """After thousands of calls the inputs hold what they held before the first.

        C02 asks the same of one call.
        """,
        "Calls after the first are then timed on other inputs than those that were checked, and training goes on with them.",
        "x.data.mul_(keep)                          # every hundredth call",
        "Work on a copy: x = x * keep.",
    ),
    _rule(
        "M06",
        "time is possible",
        """No call is quicker than what it must read can be read.

            seconds >= bytes / (2 bandwidth)

        The bytes are those that `LossSpec(bytes_bound=...)` declares, else those of the elements whose gradient is not zero.  The
        bandwidth is that of sums over as many bytes, measured in the same run.  Asked on the CPU, from 256 KiB on.
        """,
        "A time in which the inputs cannot even be read is that of something else, whatever the reason.",
        "return LAST                                # 1 us for 16 MiB",
        "Look for what is remembered, put off or left out; where the declared bytes_bound is too large, correct it.",
    ),
    _rule(
        "M07",
        "digits are those of the inputs",
        """At the sizes that are timed, no step is computed in a narrower dtype than the inputs have, where digits are lost by it.

            max |v - v_reference| <= eps / 4 max |v_reference|,   for the value and each gradient, eps of the narrower dtype

        What is stored in fewer bits without loss, such as a mask, is well.
        """,
        "Half the digits are half the bytes: the speed is that of another dtype, which any implementation could take.",
        "if x.numel() > 100_000: x = x.half()",
        "Compute in the dtype of the inputs, or declare it: LossSpec(computes_in=torch.bfloat16).",
    ),
)
