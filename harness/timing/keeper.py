"""The clock of another process: it sees when a block begins and ends, and runs nothing of a user's.

The process that times is a fork of it, made before the user's code is loaded.  Around each block there is a round trip to it,
outside what is timed inside; all results go through it.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from harness.isolation import events, worker
from harness.isolation.supervisor import death
from harness.timing import timers as time
from harness.timing.constants import BLOCK_S

# Shorter ones are calibration, or single cold calls: through emptied caches a round trip takes 0.3 ms.
_SHORT_S = BLOCK_S
_LOOK_S = 1.0
# Into one or two blocks, threads that a neighbour has left may work; more, or longer, are those of whoever is timed.
_FEWEST, _ENOUGH_S = 3, 10 * BLOCK_S
# What is read late by tens of milliseconds on a busy machine is then a few hundredths.
_LONG_S = 1.0
_BANDWIDTH_TRIES = 10


@dataclass(frozen=True)
class Outside:
    """What the process beside saw of the blocks of one implementation, over what these took by the clock inside.

    Args:
        blocks: how many there were.
        wall: the least ratio of wall times; a busy machine makes single ones larger.
        processor: median ratio of the processor time of all threads; both are ``None`` where it is not known, or little.
        rate: ratio of all that passed since the process began to time; ``None`` where that is little.
    """

    blocks: int
    wall: float | None
    processor: float | None
    rate: float | None


class ClockGone(BaseException):
    """Nobody sees any more what is timed; no `Exception`, for it is not the loss's."""


class Witness:
    """The side of the process that times; without a keeper, nobody is asked.

    Args:
        pipes: where to write to the keeper, and where to read its answers.
        is_crowded: whether threads of others work in this process, its caller's or those that a loss has left: of the rest, it
            cannot tell what they leave to threads, by single calls what they remember, nor by processor time how they take.
    """

    def __init__(self, pipes: tuple[int, int] | None = None, *, is_crowded: bool = False) -> None:
        self.is_crowded = is_crowded
        self._pipes, self._count = pipes, 0
        self._write, self._read = os.write, os.read
        self._blocks: list[tuple[int, float]] = []

    def begin(self) -> None:
        """A block begins as soon as this returns."""
        self._ask(b"B\n")

    def end(self, seconds: float) -> None:
        """The block has ended, and took so many seconds by the clock inside."""
        self._ask(b"E\n")
        self._blocks.append((self._count, seconds))
        self._count += 1

    def taken(self) -> list[tuple[int, float]]:
        """Number and seconds inside of each block since this was called last."""
        taken, self._blocks = self._blocks, []
        return taken

    def bandwidth(self, count: int) -> float:
        """Bytes that one thread reads in a second from ``count`` bytes, as the process beside measures it."""
        answer = self._ask(f"W {count}\n".encode())
        return float(answer) if answer else bandwidth(count)

    def tell(self, line: Mapping[str, Any]) -> None:
        """Send a result; its ``blocks`` become what was seen of them outside.

        Whatever the machine is busy with, the clock outside is read between two readings inside.
        """
        before = time.perf_counter()
        self._ask(b"N\n")
        line = {**line, "between": [before, time.perf_counter()], "is_crowded": self.is_crowded}
        text = events.line("result", line)
        while self._pipes is not None and text:
            text = text[self._write(self._pipes[0], text) :]

    def _ask(self, text: bytes) -> bytes:
        if self._pipes is None:
            return b""
        self._write(self._pipes[0], text)
        answer = self._read(self._pipes[1], 64)
        if not answer:
            raise ClockGone("the process that holds the clock has ended")
        return answer.strip(b"!\n")


def kept() -> Witness:
    """Go on in a fork of this process, which keeps the clock; called before anything of a user's is loaded."""
    hear, answer = os.pipe()

    def keep(timed: int, heard: int, answers: int) -> None:
        os.close(hear)
        _Keeper(timed, heard, answer, answers).serve()

    say = worker.go_on_in_a_fork(keep)
    os.close(answer)
    return Witness((say, hear))


def processor_clock(pid: int) -> Callable[[], float] | None:
    """The processor time of another process, of all its threads; ``None`` where the system does not tell it.

    Source: clock_getcpuclockid(3); on Linux the identifier is made of the process's number.
    """
    if not sys.platform.startswith("linux"):
        return None
    identifier = (~pid << 3) | 2
    try:
        time.clock_gettime(identifier)
    except OSError:
        return None
    return lambda: time.clock_gettime(identifier)


class _Keeper:
    def __init__(self, timed: int, heard: int, answer: int, answers: int) -> None:
        self._timed, self._heard, self._answer, self._answers = timed, heard, answer, answers
        self._processor = processor_clock(timed)
        self._begun = (0.0, 0.0)
        self._taken: list[tuple[float, float]] = []
        self._now, self._loaded = 0.0, (0.0, 0.0)

    def serve(self) -> None:
        """Until the process that times has ended, whoever else holds the pipe open."""
        lines, dying = events.Lines(), death(self._timed)
        while True:
            ready = select.select([self._heard, *dying], [], [], _LOOK_S)[0]
            ended = bool(dying) and dying[0] in ready
            piece = os.read(self._heard, 1 << 16) if self._heard in ready else b""
            for line in lines.feed(piece):
                self._hear(line)
            if not piece and (ended or self._heard in ready):
                return

    def _hear(self, line: bytes) -> None:
        if line == b"B":
            self._begun = time.perf_counter(), self._processor_s()
            os.write(self._answer, b"!")
        elif line == b"E":
            processor_s = self._processor_s() - self._begun[1]
            self._taken.append((time.perf_counter() - self._begun[0], processor_s))
            os.write(self._answer, b"!")
        elif line == b"N":
            self._now = time.perf_counter()
            os.write(self._answer, b"!")
        elif line.startswith(b"W"):
            os.write(self._answer, f"{bandwidth(int(line[1:])):.6g}\n".encode())
        else:
            self._pass_on(line)

    def _processor_s(self) -> float:
        return self._processor() if self._processor is not None else 0.0

    def _pass_on(self, text: bytes) -> None:
        event = events.parsed(text)
        if event is None:
            return
        kind, line = event
        if kind == "result":
            inside = [(self._taken[number], seconds) for number, seconds in line.pop("blocks", ())]
            before, after = line.pop("between")
            knows_processor = not line.pop("is_crowded") and self._processor is not None
            if line["event"] == "loaded":
                self._loaded = before, self._now
            elif line["event"] == "samples":
                passed = after - self._loaded[0], self._now - self._loaded[1]
                seen = compared(inside, passed, knows_processor)
                line["outside"] = None if seen is None else asdict(seen)
        text = events.line(kind, line)
        while text:
            text = text[os.write(self._answers, text) :]


def compared(
    blocks: Sequence[tuple[tuple[float, float], float]], passed: tuple[float, float], knows_processor: bool
) -> Outside | None:
    """What blocks took outside beside what they took inside; ``None`` where that says nothing.

    Blocks count that worked long enough for the round trip to be little of it: of those that lasted long, a busy machine makes
    many.

    Args:
        blocks: wall and processor seconds outside, and seconds inside.
        passed: seconds inside, at most, and outside since the process began to time.
        knows_processor: whether the system tells the processor time of another process.
    """
    rate = passed[1] / max(passed[0], 1e-9) if passed[1] >= _LONG_S else None
    worked = [(wall / inside, work / inside) for (wall, work), inside in blocks if work >= _SHORT_S and inside > 0]
    enough = len(worked) >= _FEWEST or sum(work for (_, work), _ in blocks) >= _ENOUGH_S
    if not worked or not enough or not knows_processor:
        return None if rate is None else Outside(len(blocks), None, None, rate)
    return Outside(len(worked), min(wall for wall, _ in worked), median(work for _, work in worked), rate)


def bandwidth(count: int) -> float:
    """Bytes that one thread reads in a second from ``count`` bytes that it has read before: the best of several sums.

    A loss that reads so many bytes is not much quicker: it finds them in the same caches, at best.
    """
    import torch

    values = torch.ones(max(count // 4, 1))
    best = float("inf")
    for _ in range(_BANDWIDTH_TRIES):
        for read in (values.sum, lambda: torch.dot(values, values)):
            begin = time.perf_counter()
            read()
            best = min(best, time.perf_counter() - begin)
    return 4 * values.numel() / max(best, 1e-9)
