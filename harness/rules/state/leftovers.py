"""Rule about what a call leaves behind in the process: S04."""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from torch import Tensor

from harness.errors import shown
from harness.isolation import limits
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools.made import copied
from harness.rules.trial import Trial

CALLS = 4  # the first may start once what all others use
_PATIENCE_S = 2.0  # for what is ending
_FOLDERS = (Path("/proc/self/fd"), Path("/dev/fd"))


def nothing_is_left_behind(trial: Trial) -> Iterator[Mismatch]:
    """A forward and backward leaves no thread, no process and no open file behind, and prints nothing (a warning).

        held after call n = held after call n - 1,   n = 2, 3, 4

    What a first call starts once for all, such as a pool of threads, is not left behind, nor what ends within two seconds.
    """
    tensors = trial.tensors()
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        counts = [_counts(trial, tensors) for _ in range(CALLS)]
    for name, (_, counted, mended) in HELD.items():
        held = [count[name] for count in counts]
        if _grows(held) and not _ends(name, held[0]):
            yield Mismatch(
                f"{name} more than after the first of {CALLS} calls",
                ", ".join(str(count - held[0]) for count in held),
                "0 after each",
                aspect=name,
                tensors=tensors,
                code=f"import os, threading\n\nfor call in range({CALLS}):\n    total(loss(**tensors)).backward()\n    print({counted})",
                hint=mended,
            )
    if printed := out.getvalue() + error.getvalue():
        yield Mismatch(
            f"printed in {CALLS} calls",
            shown(printed),
            "nothing",
            aspect="prints",
            severity="warning",
            tensors=tensors,
            code="total(loss(**tensors)).backward()",
            hint="remove it, or use logging.getLogger(__name__).debug, which whoever trains can turn off",
        )


def _open_files() -> int:
    return next((len(os.listdir(folder)) for folder in _FOLDERS if folder.is_dir()), 0)


# What a process holds: how many there are, code that shows it, and how a loss lets go of it.
HELD: Mapping[str, tuple[Callable[[], int], str, str]] = {
    "threads": (
        threading.active_count,
        "threading.active_count()",
        "join the thread before the loss returns, or start one pool for all calls",
    ),
    "child processes": (
        lambda: len(limits.children(os.getpid())),
        "open(f'/proc/self/task/{os.getpid()}/children').read()",
        "wait for the process before the loss returns, or start one pool for all calls",
    ),
    "open files": (_open_files, "len(os.listdir('/proc/self/fd'))", "open it in a `with` block, or once for all calls"),
}


def _counts(trial: Trial, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    trial.run(copied(tensors))
    return {name: count() for name, (count, *_) in HELD.items()}


def _grows(held: list[int]) -> bool:
    return all(later > earlier for earlier, later in itertools.pairwise(held[1:]))


def _ends(name: str, first: int) -> bool:
    """Whether it is gone after a moment: a thread may be ending, and what a cycle holds is closed when it is collected."""
    gc.collect()
    waits_until = time.monotonic() + _PATIENCE_S
    while HELD[name][0]() > first + 1:  # the last call's own may still be there
        if time.monotonic() > waits_until:
            return False
        time.sleep(_PATIENCE_S / 100)
    return True


RULES = (
    Rule(
        code="S04",
        title="nothing is left behind",
        group="leftovers",
        severity="error",
        check=nothing_is_left_behind,
        regimes={"distinct": 1},
        smooth=True,
        why="A thread, a process or an open file more with every batch ends a training after some thousand batches.",
        example='LOG.append(open("losses.txt", "a"))          # in forward',
        mend="Close, join or wait for what the call has opened or started; start what lasts once, outside.",
        source="Python documentation, 'threading', 'subprocess', and context managers.",
    ),
)
