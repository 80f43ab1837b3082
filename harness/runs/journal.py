"""What came of each job, written as it comes: a run that was ended goes on from there.

A file of lines.  The first says what the run is asked for; each other one holds a job and what came of it, with a checksum,
so that a line is whole or absent, whatever ended the process that wrote it.  One run at a time writes to a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from harness.errors import HarnessError
from harness.report.writer import FolderError
from harness.runs.driver import Memory
from harness.runs.executors import Carried
from harness.runs.job import Job
from harness.runs.ledger import Request
from harness.version import __version__

FILE, LOCK = "journal.jsonl", ".lock"
SCHEMA_VERSION = 2
# The end of the process loses nothing that was written; that of the machine loses what no fsync has forced to the disk, which
# takes milliseconds: more than many a job.
_SAFE_S = 0.05
# What does not change what a job finds, or is judged when its results are read.
_INDIFFERENT = ("command", "codes", "implementations", "devices")


class JournalError(HarnessError, ValueError):
    """A run cannot go on from what is in a folder."""


class Journal(Memory):
    """The journal of one folder, open for one run.

    Args:
        folder: of the report.
        targets: where the losses are.
        request: what the run is asked for.
        code: names the text of the losses.
        resume: go on from what is there; else it is begun anew.

    Raises:
        FolderError: another run has the folder, or it cannot be written; what is there is unchanged.
        JournalError: what is there is no journal, or of a run that was asked for something else.
    """

    def __init__(self, folder: Path, targets: Sequence[str], request: Request, *, code: str, resume: bool) -> None:
        self.path = folder / FILE
        self._begun = _begun(targets, request, code)
        self._safe_s = 0.0  # when it was last forced to the disk
        self._lock = _locked(folder)
        try:
            self._done = _read(self.path, self._begun) if resume else {}
            self._file = self._opened()
        except BaseException:
            self._release()
            raise

    @property
    def jobs(self) -> int:
        """How many are known to be done."""
        return len(self._done)

    def recall(self, job: Job) -> Carried | None:
        """See `Memory`; a job whose own request or losses are others is not the same."""
        return self._done.get(_key(job))

    def remember(self, job: Job, carried: Carried) -> None:
        """See `Memory`.

        Raises:
            FolderError: it cannot be written, for instance because the disk is full.
        """
        try:
            self._file.write(_line({"job": _key(job), **vars(carried)}))
            self._file.flush()
            if time.monotonic() > self._safe_s + _SAFE_S:
                os.fsync(self._file.fileno())
                self._safe_s = time.monotonic()
        except OSError as error:
            raise FolderError(
                f"cannot write {self.path}: {error.strerror or error}; what was found before is in it, and --resume goes on from there"
            ) from error

    def finish(self) -> None:
        """The report is written: nothing is left to go on from."""
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def close(self) -> None:
        """Leave what is there, for another run."""
        self._file.close()
        self._release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _opened(self) -> IO[bytes]:
        """The file with what is whole in it; a last line that was cut off is gone."""
        kept = [self._begun, *({"job": key, **vars(carried)} for key, carried in self._done.items())]
        whole = self.path.with_suffix(".new")
        try:
            with whole.open("wb") as file:
                file.writelines(map(_line, kept))
                file.flush()
                os.fsync(file.fileno())
            os.replace(whole, self.path)
            return self.path.open("ab")
        except OSError as error:
            raise FolderError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _release(self) -> None:
        with contextlib.suppress(OSError):
            (self.path.parent / LOCK).unlink()
        os.close(self._lock)


def _begun(targets: Sequence[str], request: Request, code: str) -> dict[str, Any]:
    asked = {name: value for name, value in request.to_json().items() if name not in _INDIFFERENT}
    return {
        "schema": SCHEMA_VERSION,
        "tool": __version__,
        "targets": list(targets),
        "code": code,
        "request": asked,
    }


def _key(job: Job) -> str:
    """The same for equal jobs: what is checked, where, and what is known of it before it is timed."""
    known = hashlib.sha256(job.verified.encode()).hexdigest()[:12] if job.verified else ""
    return " / ".join((job.key, ",".join(job.codes), known))


def _line(data: Mapping[str, Any]) -> bytes:
    text = json.dumps(data, ensure_ascii=True, allow_nan=False)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:16]} {text}\n".encode()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Lines that are whole."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FolderError(f"cannot read {path}: {error.strerror or error}") from error
    for line in content.split(b"\n"):
        digits, _, text = line.partition(b" ")
        if digits and hashlib.sha256(text).hexdigest()[:16].encode() == digits:
            yield json.loads(text)


def _read(path: Path, begun: Mapping[str, Any]) -> dict[str, Carried]:
    if not path.exists():
        return {}  # a job that is started again and again asks for it each time, the first and after the last one too
    lines = _lines(path)
    first = next(lines, None)
    if first is None or first.get("schema") != SCHEMA_VERSION:
        raise JournalError(f"{path} is no journal that this version can go on from; leave --resume out to begin anew")
    differs = _differences(first, begun)
    if differs:
        raise JournalError(
            f"{path} is of a run that was asked for something else: {'; '.join(differs)}; ask for the same, or leave --resume out"
        )
    return {data["job"]: Carried(tuple(data["results"]), data["lost"]) for data in lines}


def _differences(first: Mapping[str, Any], begun: Mapping[str, Any]) -> list[str]:
    then, now = ({**data, **data.get("request", {})} for data in (first, begun))
    names = [name for name in now if name != "request"]
    return [f"{name} was {then.get(name)!r} and is {now[name]!r}" for name in names if then.get(name) != now[name]]


def _locked(folder: Path) -> int:
    """A file that one run has; the system lets go of it when that run ends, in whatever way."""
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            if not _taken(descriptor):
                os.close(descriptor)
                raise FolderError(
                    f"another run writes to {folder}; wait for its end, or choose another folder with --out"
                )
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
            os.close(descriptor)  # that of a run which has just ended, and taken it away
    except FolderError:
        raise
    except OSError as error:
        raise FolderError(
            f"cannot write reports to {folder}: {error.strerror or error}; choose another folder"
        ) from error


def _taken(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:
        return True  # no such locks on this system
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
