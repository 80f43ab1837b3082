"""The command line in a real terminal: progress, colours, widths, and what an interrupt leaves."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import report_examples as examples
from rich.console import Console
from rich.text import Text
from terminal import Terminal

from harness.cli.terminal import interrupts
from harness.cli.terminal.progress import Display, Interruptible, observing
from harness.results import schema
from harness.results.observer import Step

if not sys.platform.startswith("linux"):
    pytest.skip("needs Linux's terminals and /proc", allow_module_level=True)

ROOT = Path(__file__).parents[2]
LOSS = """
import time
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from harness import LossSpec


def naive(predictions: Float[Tensor, "B"], labels: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    return ((predictions - labels) ** 2).mean()


def wrong(predictions, labels):
    return ((predictions - labels) ** 2).mean() * 1.5


def patient(predictions, labels):
    time.sleep(0.05)
    return ((predictions - labels) ** 2).mean()


def deaf(predictions, labels):
    while True:
        try:
            time.sleep(0.1)
        except BaseException:
            pass


def vectorized(predictions, labels):
    return (predictions - labels).square().mean()


GOOD = LossSpec("good", {"naive": naive, "vectorized": vectorized})
BAD = LossSpec("bad", {"naive": naive, "wrong": wrong})
PATIENT = LossSpec("patient", {"naive": naive, "patient": patient})
DEAF = LossSpec("deaf", {"naive": naive, "deaf": deaf})
"""
FEW = ("--profile", "quick", "--select", "B01,E01")
PATIENT = ("--profile", "quick", "--implementation", "patient")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(LOSS)
    return tmp_path


# ---- progress ------------------------------------------------------------------------------------------------------------


def test_a_terminal_shows_what_runs_and_each_finding_as_it_comes(folder: Path) -> None:
    with Terminal("verify", "mine.py:BAD", *FEW, folder=folder) as terminal:
        assert terminal.wait() == 1
    found = next((line for line in terminal.lines if line.startswith("error ")), terminal.raw)
    assert found.startswith("error    bad / wrong / E01 value equals the reference, at ")
    assert re.search(r"━ \d/4", terminal.text)
    assert re.search(r"bad / (naive|wrong) / ", terminal.text)
    assert terminal.text.index(found) < terminal.text.index("1 error\r\n")
    assert terminal.raw.rfind("\x1b[?25h") > terminal.raw.rfind("\x1b[?25l")


def test_lines_fit_a_narrow_terminal_and_a_dumb_one_gets_no_control_characters(folder: Path) -> None:
    with Terminal("verify", "mine.py:BAD", *FEW, folder=folder, columns=40, TERM="dumb") as terminal:
        assert terminal.wait() == 1
    assert "\x1b" not in terminal.raw
    assert "error    bad / wrong / E01" in terminal.text
    whole = [line for line in terminal.lines if "repeat: " not in line and not re.search(r"  cpu  |  device  ", line)]
    assert max(map(len, whole)) <= 40


def display(columns: int) -> tuple[Display, io.StringIO]:
    written = io.StringIO()
    return Display(Console(file=written, width=columns, force_terminal=True, markup=False, highlight=False)), written


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_the_bar_fits_every_terminal(columns: int) -> None:
    shown, written = display(columns)
    steps = [Step("timing", "timing a_loss_with_a_rather_long_name, 4 implementations", 3600.0)] * 300
    shown.expect(steps)
    shown.begin(steps[0])
    shown.console.print(shown.render())
    lines = Text.from_ansi(written.getvalue()).plain.splitlines()
    assert len(lines) == 2
    assert "0/300" in lines[0]
    assert lines[1].startswith("timing a_loss")
    assert max(map(len, lines)) <= columns


def test_a_finding_is_one_line_without_markup_or_control_characters() -> None:
    shown, written = display(70)
    evil = examples.finding(implementation="[red]fast", evidence={"where": "a\nb\x1b[2J[/] " + "c" * 80})
    shown.found("loss", [evil, evil, examples.finding("note")])
    (line,) = written.getvalue().splitlines()
    plain = Text.from_ansi(line).plain
    assert plain.startswith("error    loss / [red]fast / G01 ")
    assert plain.endswith("… and 1 more")
    assert len(plain) <= 70
    assert "\x1b[2J" not in line
    shown.found("loss", [examples.finding("note")])
    assert len(written.getvalue().splitlines()) == 1


class Screen(io.StringIO):
    """A stream that takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


def test_quiet_shows_no_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Screen())
    with observing() as seen:
        assert isinstance(seen, Display)
    with observing(quiet=True) as unseen:
        assert type(unseen) is Interruptible


# ---- colours -------------------------------------------------------------------------------------------------------------

COLORED = re.compile(r"\x1b\[[0-9;]*3[0-7][0-9;]*m")


@pytest.mark.parametrize(
    ("args", "environment", "colored"),
    [
        ((), {}, True),
        ((), {"NO_COLOR": ""}, True),
        ((), {"NO_COLOR": "0"}, False),
        ((), {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (("--color", "never"), {"FORCE_COLOR": "1"}, False),
        (("--color", "always"), {"NO_COLOR": "1"}, True),
    ],
)
def test_a_terminal_has_colours_unless_it_is_told_otherwise(
    folder: Path, args: tuple[str, ...], environment: dict[str, str], colored: bool
) -> None:
    with Terminal(*args, "explain", "G01", folder=folder, **environment) as terminal:
        assert terminal.wait() == 0
    assert "gradient matches finite differences" in terminal.text
    assert bool(re.search(r"\x1b\[[0-9;]*[34][0-7]", terminal.raw)) == colored


def test_colours_can_be_sent_through_a_pipe_and_never_to_a_file(folder: Path) -> None:
    command = [sys.executable, "-m", "harness", "verify", "mine.py:BAD", *FEW, "-q", "--write", "full:out.txt"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FORCE_COLOR": "1"}
    shown = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert COLORED.search(shown.stdout)
    assert shown.stderr == ""
    assert "E01 bad / wrong: " in (folder / "out.txt").read_text()
    assert "\x1b" not in (folder / "out.txt").read_text()


# ---- interrupts ----------------------------------------------------------------------------------------------------------


def test_an_interrupt_while_verifying_shows_what_is_done_and_what_is_missing(folder: Path) -> None:
    with Terminal("verify", "mine.py:PATIENT", *PATIENT, folder=folder) as terminal:
        terminal.wait_for("patient / patient / B03")
        terminal.interrupt()
        assert terminal.wait() == 130
    assert re.search(r"patient: interrupted: \d+ of \d+ planned checks ran", terminal.text)
    assert "interrupted: what is shown is partial; it lacks" in terminal.text
    assert "Traceback" not in terminal.text


def test_sigterm_while_verifying_writes_valid_json(folder: Path) -> None:
    args = ("verify", "mine.py:PATIENT", *PATIENT, "--format", "json", "--output", "out.json")
    with Terminal(*args, folder=folder) as terminal:
        terminal.wait_for("patient / patient / B03")
        terminal.terminate()
        assert terminal.wait() == 130
    assert "a partial report is in out.json" in terminal.text
    (loss,) = schema.loads((folder / "out.json").read_text()).losses
    assert loss.missing.startswith("interrupted: ")
    assert loss.outcomes


def test_an_interrupt_that_was_swallowed_ends_the_run_before_its_next_step() -> None:
    before = signal.getsignal(signal.SIGINT)  # a process in the background may ignore it
    with interrupts.handled():
        interrupts.check()
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            Interruptible().begin(Step("B01", "the next"))
        interrupts.check()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_loss_that_swallows_interrupts_is_never_asked(folder: Path) -> None:
    with Terminal(
        "verify", "mine.py:DEAF", "--profile", "quick", "--implementation", "deaf", folder=folder
    ) as terminal:
        terminal.wait_for("deaf / deaf / B01")
        terminal.interrupt()
        assert terminal.wait() == 130  # it would never end
    assert terminal.raw.rfind("\x1b[?25h") > terminal.raw.rfind("\x1b[?25l")


@pytest.mark.parametrize("how", [Terminal.interrupt, Terminal.terminate], ids=["ctrl-c", "sigterm"])
def test_an_interrupt_while_timing_leaves_a_partial_report_and_no_process(folder: Path, how: object) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "report.json").write_text("earlier")
    args = ("report", "mine.py:GOOD", "--profile", "quick", "--select", "B01", "--budget", "3600", "--out", "out")
    with Terminal(*args, folder=folder) as terminal:
        terminal.wait_for("timing ")
        while not (workers := terminal.workers()):
            assert terminal.read(0.1)
        how(terminal)  # type: ignore[operator]
        assert terminal.wait() == 130
        while any(Path(f"/proc/{pid}").exists() for pid in workers):  # they see that nobody waits for them any more
            time.sleep(0.05)
    assert (folder / "out" / "report.json").read_text() == "earlier"
    assert "a partial report is in out/interrupted; it lacks" in terminal.text
    (loss,) = schema.loads((folder / "out" / "interrupted" / "report.json").read_text()).losses
    assert loss.missing == "interrupted before it was timed"
