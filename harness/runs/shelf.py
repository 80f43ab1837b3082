"""Records on disk until they are asked for: a run over very many losses takes hardly more memory than one over few."""

from __future__ import annotations

import json
import tempfile
import threading
import weakref
from array import array

from harness.results.schema import LossRecord, loss_loads


class Shelf:
    """Records by the loss that they are about, in a file that goes with this process; threads may share it."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the shelf
        weakref.finalize(self, self._file.close)
        self._starts: dict[str, array[int]] = {}
        self._lock = threading.Lock()

    def put(self, loss: str, place: tuple[str, ...], text: str) -> None:
        """Keep a record as `loss_dumps` writes it; several may share a ``place``, such as a rule."""
        line = json.dumps([place, text]).encode() + b"\n"
        with self._lock:
            start = self._file.seek(0, 2)
            self._file.write(line)
            self._starts.setdefault(loss, array("q")).append(start)

    def of(self, loss: str) -> dict[tuple[str, ...], list[LossRecord]]:
        """The records of a loss by their places, in the order in which they came."""
        found: dict[tuple[str, ...], list[LossRecord]] = {}
        for start in self._starts.get(loss, ()):
            with self._lock:
                self._file.seek(start)
                line = self._file.readline()
            place, text = json.loads(line)
            found.setdefault(tuple(place), []).append(loss_loads(text))
        return found
