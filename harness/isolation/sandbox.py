"""Asks for functions to be run apart from this process, and says how that ended."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from harness.isolation import events
from harness.isolation.events import Ended, Tell
from harness.isolation.limits import Limits
from harness.isolation.zygote import READY, watch

# One thread: jobs are run beside each other, and a fork carries no thread but its own.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",
}


def unheard(kind: str, data: Any) -> None:
    """For who only wants to know how it ended."""


class Isolation(Protocol):
    """Whoever runs functions and says how that ended."""

    def run(
        self,
        function: str,
        payload: Any,
        limits: Limits | None = None,
        hear: Tell = unheard,
        *,
        folder: str | None = None,
    ) -> Ended:
        """See `Sandbox.run`."""

    def stop(self) -> None:
        """End the jobs that run."""

    def close(self) -> None:
        """End what runs, and take no more."""


class Here:
    """No isolation at all, for systems that cannot fork: limits do not hold, and what ends a job ends this process.

    Threads that share one take turns, for a job changes what belongs to the whole process, such as its folder.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def run(
        self,
        function: str,
        payload: Any,
        limits: Limits | None = None,
        hear: Tell = unheard,
        *,
        folder: str | None = None,
    ) -> Ended:
        """See `Sandbox.run`."""
        module, _, name = function.partition(":")
        step = ""

        def tell(kind: str, data: Any) -> None:
            nonlocal step
            step = data if kind == "step" else step
            if kind in ("step", "result"):
                hear(kind, data)

        try:
            with self._turn, contextlib.chdir(os.getcwd() if folder is None else folder):
                getattr(importlib.import_module(module), name)(payload, tell)
        except Exception as error:
            told = "".join(traceback.format_exception_only(error)).strip()
            return Ended(events.RAISED, told, step)
        return Ended(events.FINISHED)

    def stop(self) -> None:
        """A job that runs here is over before this can be called."""

    def close(self) -> None:
        """Nothing runs."""


class Sandbox:
    """The way to run code that may do anything.

    Threads may share one.  It starts with the first job and ends with the block, or with this process in whatever way.

    Args:
        preload: modules that every job needs; they must not start threads or touch a device when they are imported.
        environment: variables of every job, also of those that are read where a process starts.
    """

    def __init__(self, preload: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> None:
        self.preload = tuple(preload)
        self._environment = {**_ENVIRONMENT, **(environment or {})}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._starting: socket.socket | None = None  # a process that is not ready yet
        self._jobs: set[socket.socket] = set()
        self._closed = False

    def begin(self) -> None:
        """Start now what the first job would wait for; it imports while this process does other things."""
        with self._lock:
            self._spawn()

    def wait(self) -> None:
        """Until a job needs to wait for nothing more."""
        with self._lock:
            self._control = self._control or self._start()

    def run(
        self,
        function: str,
        payload: Any,
        limits: Limits | None = None,
        hear: Tell = unheard,
        *,
        folder: str | None = None,
    ) -> Ended:
        """Run ``package.module:name`` with ``(payload, tell)`` in a new process, and wait for its end.

        Args:
            function: which loads what is the user's, as the payload names it.
            payload: for it, in JSON types.
            limits: what it may take.
            hear: gets its steps and results as they come, in this thread.
            folder: the working directory; by default that of this process.
        """
        return self._finish(self._begin(), function, payload, limits, hear, folder)

    def run_together(
        self,
        function: str,
        payloads: Sequence[Any],
        limits: Limits | None = None,
        hear: Callable[[int, str, Any], None] = lambda position, kind, data: None,
    ) -> list[Ended]:
        """Run one function in as many new processes at once as there are payloads, which may work together.

        They wait for each other as they like: each has its own limit, and nobody is ended because another one has.

        Args:
            function: as for `run`.
            payloads: one for each process.
            limits: of each.
            hear: gets the position of who tells, and what; in one of several threads.
        """
        jobs = [self._begin() for _ in payloads]
        with ThreadPoolExecutor(len(jobs)) as threads:
            try:
                ends = [
                    threads.submit(self._finish, job, function, payload, limits, functools.partial(hear, position))
                    for position, (job, payload) in enumerate(zip(jobs, payloads, strict=True))
                ]
                return [end.result() for end in ends]
            except BaseException:  # such as an interrupt, after which nobody waits for them
                self.stop()
                raise

    def _begin(self) -> socket.socket:
        """A process that waits for a request."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            try:
                if self._closed:
                    raise RuntimeError("the sandbox is closed")
                self._ask(theirs)
            except BaseException:
                ours.close()
                raise
            self._jobs.add(ours)
        return ours

    def _finish(
        self,
        ours: socket.socket,
        function: str,
        payload: Any,
        limits: Limits | None,
        hear: Tell,
        folder: str | None = None,
    ) -> Ended:
        with ours:
            try:
                request = {
                    "function": function,
                    "payload": payload,
                    "limits": asdict(limits or Limits()),
                    "environment": os.environ | self._environment,
                    "cwd": os.getcwd() if folder is None else folder,
                    "path": [place for place in sys.path if place],
                }
                ours.sendall(json.dumps(request).encode() + b"\n")
                return self._listen(ours, hear)
            except BrokenPipeError:
                return Ended(events.LOST, "the process that starts jobs has ended")
            finally:
                with self._lock:
                    self._jobs.discard(ours)

    def _listen(self, job: socket.socket, hear: Tell) -> Ended:
        lines = events.Lines()
        while True:
            try:
                piece = job.recv(1 << 16)
            except OSError:
                piece = b""
            if not piece:
                return Ended(events.LOST, "the process that watches the job has ended")
            for text in lines.feed(piece):
                event = events.parsed(text)
                if event is None:
                    continue
                if event[0] == "ended":
                    return Ended(**event[1])
                hear(*event)

    def _ask(self, theirs: socket.socket) -> None:
        for attempt in (1, 2):
            control = self._control or self._start()
            try:
                socket.send_fds(control, [b"job"], [theirs.fileno()])
                return
            except OSError:
                self._end()
                if attempt == 2:
                    raise

    def _start(self) -> socket.socket:
        ours = self._starting or self._spawn()
        self._starting = None
        if ours.recv(len(READY), socket.MSG_PEEK) != READY:  # left there for the forks of this process, which share it
            ours.close()
            raise RuntimeError("the process that starts jobs did not start; its error stands above")
        self._control = ours
        return ours

    def _spawn(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.isolation.zygote", str(theirs.fileno()), *self.preload],
                pass_fds=[theirs.fileno()],
                env=os.environ | self._environment | {"PYTHONPATH": _path()},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt on the terminal is for this process, which then ends the others
            )
        self._starting = ours
        return ours

    def _end(self) -> None:
        for control in (self._control, self._starting):
            if control is not None:
                control.close()
        self._control = self._starting = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End every job; others can be asked for."""
        with self._lock:
            for job in self._jobs:
                with contextlib.suppress(OSError):
                    job.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End every job and the process that starts them."""
        self.stop()
        with self._lock:
            self._closed = True
            self._end()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class Forks(Sandbox):
    """A sandbox whose jobs are forks of this process: they find what it has made, which no file may tell.

    So they have what it has done with a device, too, and CUDA is closed to them.
    """

    def begin(self) -> None:
        """Nothing has to start."""

    def _ask(self, theirs: socket.socket) -> None:
        child = os.fork()
        if child == 0:
            if os.fork() == 0:  # whose parent ends at once, so that nobody has to wait for it
                for other in self._jobs:  # or they would seem to be waited for after this process has ended
                    other.close()
                watch(theirs)
            os._exit(0)
        os.waitpid(child, 0)


def _path() -> str:
    """Where the other process finds this package, wherever it was imported from."""
    home = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(dict.fromkeys([home, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))
