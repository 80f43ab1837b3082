"""What a job may take, and how much of it is gone."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


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
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.memory_bytes is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = private_bytes([os.getpid()]) + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


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
        total += (int(resident) - int(shared)) * _PAGE
    return total


def descendants(pid: int) -> list[int]:
    """Processes that descend from one, children first."""
    found: list[int] = []
    for child in _children(pid):
        found += [child, *descendants(child)]
    return found


def _children(pid: int) -> Iterator[int]:
    """Source: proc(5), ``task/TID/children``."""
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            yield from map(int, (task / "children").read_text().split())
    except OSError:
        return
