"""A command in a terminal of its own: what it writes there, and what a person can do to it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

from harness.isolation.limits import descendants

# The child takes the terminal as its own before it becomes the command, so that Ctrl-C reaches it and its children.
_LAUNCH = "import os, sys; os.login_tty(int(sys.argv[1])); os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PATIENCE_S = 900  # for what comes in a moment, on a machine that is slow or busy


class Terminal:
    """`loss-harness` with some arguments, in a terminal of some columns."""

    def __init__(self, *args: str, folder: Path, columns: int = 80, **environment: str) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(self.master, (50, columns))
        kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")}
        root = str(Path(__file__).parents[2])
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(slave), "-m", "harness", *args],
            pass_fds=[slave],
            cwd=folder,
            env={**kept, "TERM": "xterm-256color", "PYTHONPATH": root, **environment},
        )
        os.close(slave)
        self.raw = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)

    @property
    def text(self) -> str:
        """What was written, without control sequences."""
        return _CONTROL.sub("", self.raw)

    @property
    def lines(self) -> list[str]:
        """What was written, line by line; what was drawn over counts too."""
        return re.split(r"[\r\n]+", self.text)

    def read(self, seconds: float) -> bool:
        """Read what comes within some time; ``False`` once nothing more can come."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # Linux says so where the other side is closed
            return False
        self.raw += data.decode(errors="replace")
        return bool(data)

    def wait_for(self, text: str) -> None:
        """Read until a text was written."""
        end = time.monotonic() + _PATIENCE_S
        while text not in self.text:
            assert time.monotonic() < end, f"{text!r} did not come in {_PATIENCE_S} s; this did:\n{self.text}"
            assert self.read(0.1), f"{text!r} did not come before the end; this did:\n{self.text}"

    def wait(self) -> int:
        """Read to the end; the exit code."""
        end = time.monotonic() + _PATIENCE_S
        while self.read(0.1):
            assert time.monotonic() < end, f"it did not end in {_PATIENCE_S} s; this came:\n{self.text}"
        return self.process.wait(_PATIENCE_S)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.write(self.master, b"\x03")

    def terminate(self) -> None:
        """Send SIGTERM, to the command alone."""
        self.process.send_signal(signal.SIGTERM)

    def workers(self) -> list[int]:
        """Processes that the command has started and that time losses."""
        found = []
        for pid in descendants(self.process.pid):
            with contextlib.suppress(OSError):  # it ended meanwhile
                found += [pid] if b"harness.timing.worker" in Path(f"/proc/{pid}/cmdline").read_bytes() else []
        return found
