"""Progress on the terminal: one bar for the whole command, and above it what is found; nothing in a pipe."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.cli.terminal import colors, interrupts
from harness.cli.terminal.forecast import Forecast
from harness.results.observer import Observer, Step

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from harness.results.findings import Finding

# Often enough to look alive, and too seldom to disturb what is timed.
_REFRESHES_PER_SECOND = 4
_WIDEST_BAR = 30
_NARROWEST_BAR = 8


class Interruptible(Observer):
    """Shows nothing; a step does not begin where an interrupt was asked for and swallowed."""

    def begin(self, step: Step) -> None:
        """See `Observer`."""
        interrupts.check()


class Display(Interruptible):
    """Shows a run on a terminal.

    Args:
        console: where.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.forecast = Forecast([])

    def expect(self, steps: Sequence[Step]) -> None:
        """See `Observer`."""
        self.forecast = Forecast(steps)

    def begin(self, step: Step) -> None:
        """See `Observer`."""
        super().begin(step)
        self.forecast.begin(step)

    def found(self, loss: str, findings: Sequence[Finding]) -> None:
        """One line above the bar: severity, place and title of the first; a note can wait for the report."""
        from rich.text import Text

        from harness.report.text import place_text
        from harness.results.words import printable

        first = findings[0]
        if first.severity == "note":
            return
        told = sum(finding.severity != "note" for finding in findings)
        more = f" and {told - 1} more" if told > 1 else ""
        place = f"{loss} / {first.implementation} / {place_text(first)}"
        line = Text(f"{first.severity:7}", style=f"bold {colors.COLORS[first.severity]}")
        line.append(f"  {printable(place)}".replace("\n", " "), style="default not bold")
        line.truncate(self.console.width - len(more), overflow="ellipsis")
        line.append(more)
        self.console.print(line, no_wrap=True, overflow="ellipsis", crop=True)

    def render(self) -> RenderableType:
        """The bar as it is now: how much is done, the time left, and below it what runs."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        from harness.results.words import printable

        forecast = self.forecast
        count = f" {forecast.done}/{forecast.total}"
        words = "  ".join(part for part in (count, forecast.text) if part)
        room = min(_WIDEST_BAR, self.console.width - len(words) - 1)
        row = Table.grid()
        told = Text(words, no_wrap=True, overflow="ellipsis")
        if room >= _NARROWEST_BAR:
            row.add_row(ProgressBar(total=1.0, completed=forecast.fraction, width=room), told)
        else:
            row.add_row(told)
        running = printable(forecast.step.text) if forecast.step is not None else "starting"
        return Group(row, Text(running, no_wrap=True, overflow="ellipsis", style="dim"))


@contextmanager
def observing(*, quiet: bool = False) -> Iterator[Observer]:
    """What looks on at a run: a display where stderr is a terminal, else nothing that one can see."""
    if quiet or not sys.stderr.isatty():
        yield Interruptible()
        return
    from rich.console import Console, ConsoleDimensions
    from rich.live import Live

    is_plain = not colors.wanted(sys.stderr)
    console = Console(stderr=True, no_color=is_plain, markup=False, highlight=False, emoji=False)
    if console.is_dumb_terminal:  # rich takes one for 80 columns wide
        console.size = ConsoleDimensions(*shutil.get_terminal_size())
    display = Display(console)
    live = Live(
        get_renderable=display.render,
        console=console,
        transient=True,
        redirect_stdout=False,
        refresh_per_second=_REFRESHES_PER_SECOND,
    )
    with live:
        yield display


@contextmanager
def counting(kind: str) -> Iterator[Counter]:
    """Progress of a command that counts by itself how much is done."""
    with observing() as observer:
        yield Counter(kind, observer)


class Counter:
    """From counts to steps of one kind."""

    def __init__(self, kind: str, observer: Observer) -> None:
        self._kind, self._observer, self._total = kind, observer, -1
        self._begun = 0

    def __call__(self, text: str, done: int, total: int) -> None:
        """``done`` of ``total`` are done, and ``text`` says what is under way."""
        step = Step(self._kind, text)
        if total != self._total:
            self._total = total
            self._observer.expect([step] * total)
        while self._begun <= min(done, total - 1):
            self._observer.begin(step)
            self._begun += 1
