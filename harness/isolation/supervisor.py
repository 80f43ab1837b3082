"""Watches one job: its time, its memory, its output, its children, and whether anybody still waits for it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from harness.isolation import events, limits, worker
from harness.isolation.events import Ended
from harness.isolation.limits import Limits

_LOOK_S = 0.05  # how often memory is looked at; a bomb that fills faster meets the limit of its own process first
_OUTPUT_BYTES = 4000
_PR_SET_CHILD_SUBREAPER = 36
# Private memory is counted by pages, and a limit that the process itself enforces is met first.
_SLACK = 1.25


def supervise(job: socket.socket) -> None:
    """Run the job that the socket's first line asks for, pass on what it tells, and say how it ended; never returns."""
    try:
        _adopt_orphans()
        request = _first_line(job)
        if request is not None:
            _send(job, "ended", asdict(_Watch(job, request).run()))
    finally:
        os._exit(0)


def _adopt_orphans() -> None:
    """Whatever the job leaves behind becomes a child of this process, which ends it.  Source: prctl(2)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _first_line(job: socket.socket) -> dict[str, Any] | None:
    text = b""
    while not text.endswith(b"\n"):
        piece = job.recv(1 << 16)
        if not piece:
            return None  # nobody waits any more
        text += piece
    request: dict[str, Any] = json.loads(text)
    return request


def _send(job: socket.socket, kind: str, data: Any) -> None:
    with contextlib.suppress(OSError):  # whoever asked may be gone
        job.sendall(events.line(kind, data))


def _amount(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def death(pid: int) -> list[int]:
    """A descriptor that is ready as soon as a child can be waited for, which is a moment after its pipes are closed."""
    try:
        return [os.pidfd_open(pid)]
    except (AttributeError, OSError):  # not on this system, or not in this container: it is looked for at intervals
        return []


class _Watch:
    """The worker, what it has told so far, and the way to end it."""

    def __init__(self, job: socket.socket, request: Mapping[str, Any]) -> None:
        self.job = job
        self.request = request
        self.limits = Limits(**request["limits"])
        self.step, self.note = "", events.Note()
        self.raised: str | None = None
        self.finished = False
        self.output: deque[bytes] = deque()
        self.deadline = float("inf")
        self.lines = events.Lines()
        self.told, self.printed, self.pid = self._start()
        self.dying = death(self.pid)
        self.born_bytes = limits.private_bytes([self.pid])

    def _start(self) -> tuple[int, int, int]:
        told, tell = os.pipe()
        printed, output = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            os.close(told)
            os.close(printed)
            self.job.close()
            nothing = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((nothing, 0), (output, 1), (output, 2)):
                os.dup2(source, target)
            os.environ.clear()
            os.environ.update(self.request["environment"])
            os.chdir(self.request["cwd"])
            sys.path[:] = self.request["path"]
            worker.work(self.request["function"], self.request["payload"], tell, self.limits, self.note)
        os.close(tell)
        os.close(output)
        for descriptor in (told, printed):
            os.set_blocking(descriptor, False)
        return told, printed, pid

    def run(self) -> Ended:
        """Until the worker has ended, in whatever way."""
        self._restart_clock()
        with selectors.DefaultSelector() as selector:
            for descriptor in (self.told, self.printed, self.job.fileno(), *self.dying):
                selector.register(descriptor, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select(_LOOK_S)}
                if self.job.fileno() in ready:  # it is only ever closed
                    self._end_all()
                    os._exit(0)
                for descriptor in ready & {self.told, self.printed}:
                    if not self._read(descriptor):
                        selector.unregister(descriptor)
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self._end_all()
                    return self._ended(status)
                stopped = self._beyond_limits()
                if stopped is not None:
                    os.kill(self.pid, signal.SIGKILL)
                    os.waitpid(self.pid, 0)
                    self._end_all()
                    return stopped

    def _read(self, descriptor: int) -> bool:
        """Take what is there; false at the end."""
        try:
            piece = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return True
        if descriptor == self.printed:
            self.output.append(piece[-_OUTPUT_BYTES:])
            while sum(map(len, self.output)) - len(self.output[0]) > _OUTPUT_BYTES:
                self.output.popleft()
        else:
            for text in self.lines.feed(piece):
                self._hear(text)
        return bool(piece)

    def _hear(self, text: bytes) -> None:
        event = events.parsed(text)
        if event is None:
            return
        kind, data = event
        if kind == "step":
            self.step = str(data)
            self._restart_clock()
        elif kind == "raised":
            self.raised = str(data)
        elif kind == "finished":
            self.finished = True
        if kind in ("step", "result"):
            _send(self.job, kind, data)

    def _restart_clock(self) -> None:
        if self.limits.step_s is not None:
            self.deadline = time.monotonic() + self.limits.step_s

    def _beyond_limits(self) -> Ended | None:
        if time.monotonic() > self.deadline:
            return self._last_word(events.TIMED_OUT, f"it was not done after {self.limits.step_s:g} s")
        allowed = self.limits.memory_bytes
        if allowed is not None:
            taken = limits.private_bytes([self.pid, *limits.descendants(self.pid)]) - self.born_bytes
            if taken > _SLACK * allowed:
                return self._last_word(
                    events.OUT_OF_MEMORY, f"it took {_amount(taken)}, but may take {_amount(allowed)}"
                )
        return None

    def _end_all(self) -> None:
        """End what the job has left behind, then take the last of what was told."""
        while left := limits.descendants(os.getpid()):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)
        for descriptor in (self.told, self.printed):
            while self._read_rest(descriptor):
                pass

    def _read_rest(self, descriptor: int) -> bool:
        """Nobody writes any more: what is not there now will never be."""
        try:
            return self._read(descriptor)
        except OSError:
            return False

    def _ended(self, status: int) -> Ended:
        if self.finished:
            return Ended(events.FINISHED)
        if self.raised is not None:
            return self._last_word(events.RAISED, self.raised)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            name = signal.strsignal(number) or "unknown"
            more = "; the system may have run out of memory" if number == signal.SIGKILL else ""
            return self._last_word(events.KILLED, f"{name} (signal {number}){more}")
        code = os.waitstatus_to_exitcode(status)
        return self._last_word(events.EXITED, f"it ended the process with exit code {code} before it was done")

    def _looked_at(self) -> Any:
        try:
            return self.note.read()
        except ValueError:  # the worker wrote anywhere, also there
            return None

    def _last_word(self, how: str, reason: str) -> Ended:
        output = b"".join(self.output)[-_OUTPUT_BYTES:].decode("utf-8", "replace").strip()
        return Ended(how, reason, self.step, self._looked_at(), output)
