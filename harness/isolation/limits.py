"""What a job may take, and how much of it is gone."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from mmap import PAGESIZE
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """What a job may take.

    Args:
        step_s: seconds without a sign of the next step; ``None`` for no limit.
        memory_bytes: private memory of the job and its children, beyond what it was born with; ``None`` for no limit.
    """

    step_s: float | None = None
    memory_bytes: int | None = None


def apply(limits: Limits) -> None:
    """Make allocations beyond the limit fail in this process, and leave no core dump.

    What fails raises in the loss, which a report can name; who evades it, by shared memory or by children, is found by
    `private_bytes` and ended.  Addresses alone are not counted: allocators and CUDA reserve far more than they use.
    """
    import resource  # only where processes can be forked

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.memory_bytes is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = _data_bytes() + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _data_bytes() -> int:
    """Bytes that already count towards the limit: what this process may write to and shares with nobody, used or not.

    Torch built with CUDA is born with more than half a gigabyte of it, and uses little.

    Source: proc(5), ``statm``: data and stack; getrlimit(2), ``RLIMIT_DATA``.
    """
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * PAGESIZE
    except OSError:  # no Linux
        return private_bytes([os.getpid()])


def private_bytes(pids: list[int]) -> int:
    """Bytes in memory that belong to these processes alone; a process that has ended counts as none.

    Source: proc(5), ``statm``: resident pages less those that files and other processes share.
    """
    total = 0
    for pid in pids:
        try:
            _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
        except (OSError, ValueError):
            continue
        total += (int(resident) - int(shared)) * PAGESIZE
    return total


def descendants(pid: int) -> list[int]:
    """Processes that descend from one, children first."""
    found: list[int] = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def children(pid: int) -> list[int]:
    """Processes that one has started and not waited for; none where the system does not tell.

    Source: proc(5), ``task/TID/children``.
    """
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found
