"""What `torch.compile` makes of a call; importing this module loads no compiler, asking does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.private_names import compiled_frames


@dataclass(frozen=True)
class Compilation:
    """What the compiler did during some calls.

    Args:
        graphs: graphs that it captured, those of recompilations included; 1 is what a loss should take.
        graph_breaks: places where it gave up a graph and went back to Python.
        recompilations: times it compiled a frame again that it had compiled before, for a size or a type that was new.
    """

    graphs: int
    graph_breaks: int
    recompilations: int


def compilation(calls: Sequence[Callable[[], object]]) -> Compilation:
    """Run calls of compiled functions, and count what the compiler does for them.

    What was compiled before is not compiled again and does not count: give functions that `torch.compile` has just made,
    and `torch.compiler.reset()` before, where what was compiled of the same code should not matter.

    Args:
        calls: run once each, in order; two of one size and one of another size show a recompilation.
    """
    compiled: set[str] = set()
    with compiled_frames(compiled.add) as counters:
        before = _counters(counters)
        for call in calls:
            call()
        after = _counters(counters)
    return Compilation(
        graphs=after[0] - before[0],
        graph_breaks=after[1] - before[1],
        recompilations=sum(not name.endswith("/0") for name in compiled),
    )


def _counters(counters: Any) -> tuple[int, int]:
    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
