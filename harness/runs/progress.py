"""A bar in a notebook for what Python was asked to do; the commands have their own, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Begin = Callable[[str], None]


@contextmanager
def progress(total: int) -> Iterator[Begin]:
    """Show a bar in a notebook while this lasts, and nothing anywhere else.

    Args:
        total: number of steps.

    Yields:
        What is called with a few words as each step begins.
    """
    if not _is_notebook():
        yield lambda step: None
        return
    from IPython.display import display
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    description = TextColumn("{task.description}", markup=False)
    bar = Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), description, auto_refresh=False)
    task = bar.add_task("starting", total=total)
    shown = display(bar, display_id=True)
    begun = 0

    def begin(step: str) -> None:
        nonlocal begun
        bar.update(task, completed=min(begun, total), description=step)
        begun += 1
        shown.update(bar)

    try:
        yield begin
    finally:
        shown.update({"text/plain": ""}, raw=True)


def _is_notebook() -> bool:
    """Whether this runs in the kernel of a notebook, where a bar has a place."""
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter
