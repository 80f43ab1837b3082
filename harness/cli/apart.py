"""Runs of the commands: losses are loaded, checked and timed in processes of their own, never in this one."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.calls import triton_interpreter
from harness.cli import loading, running
from harness.runs.configuration import PROFILES

if TYPE_CHECKING:
    from harness.isolation.limits import Limits
    from harness.isolation.sandbox import Sandbox
    from harness.runs.driver import Driver
    from harness.runs.executors import Workshop

QUICK = PROFILES[0]  # it compiles nothing
_LEAST_BYTES = 2 << 30
_SHARE = 0.8  # of what is free now, for all jobs together


@contextmanager
def driving(ctx: click.Context, targets: Sequence[str]) -> Iterator[Driver]:
    """A run over the losses that the targets name, whose processes end with the block.

    Raises:
        HarnessError: what the targets or the options say cannot be understood.
    """
    named = loading.targets(targets, ctx)
    interpret_kernels(targets, ctx.params["devices"])
    with ExitStack() as stack:
        local = box(_needed(ctx.params)) if ctx.params.get("cluster") is None else None
        from harness.errors import DeclarationError
        from harness.runs.driver import Driver

        shop = _workshop(ctx.params, local)
        stack.callback(shop.close)
        try:
            together = _times_together(ctx.params)
            driver = Driver(named, running.request(ctx), shop, allowed=_allowed(ctx.params), times_together=together)
        except DeclarationError as error:
            raise loading.advised(error, targets, ctx, local) from error
        for warning in driver.warnings:
            click.echo(f"warning: {warning}", err=True)
        yield driver


def interpret_kernels(targets: Sequence[str], devices: Sequence[str]) -> None:
    """Have the Triton kernels of files interpreted where they are asked on the CPU, for which they cannot be compiled."""
    if triton_interpreter.is_wanted() or set(devices) != {"cpu"}:
        return
    for target in targets:
        if triton_interpreter.is_imported_by(target):
            triton_interpreter.turn_on()
            click.echo(f"note: {target} imports triton: its kernels run in Triton's interpreter, on the CPU", err=True)
            return


_boxes: list[Sandbox] = []


def box(also: Sequence[str] = ()) -> Sandbox | None:
    """One for all commands of this process that need no more, since what starts jobs is as it was after any of them.

    Args:
        also: modules that most of the jobs need, beside those that all do.

    Returns:
        ``None`` where this system cannot fork.
    """
    if not hasattr(os, "fork"):
        return None
    from harness.isolation.sandbox import Sandbox
    from harness.runs.preload import PRELOAD

    wanted = dict.fromkeys((*PRELOAD, *also))
    for made in _boxes:
        if wanted.keys() <= set(made.preload):
            return made
    made = Sandbox(tuple(wanted))
    _boxes.append(made)
    atexit.register(made.close)
    made.begin()  # it imports what this process imports meanwhile
    return made


def _needed(given: dict[str, Any]) -> tuple[str, ...]:
    """What else jobs import sooner or later, by the options of a command."""
    from harness.runs.preload import ALL_RULES, COMPILER, TIMERS, TIMING

    compiles = given.get("compiled") or given.get("profile", QUICK) != QUICK
    times = "budget_s" in given and not given.get("costs_only")
    asks_all = "select" in given and not given["select"]
    return (
        *(ALL_RULES if asks_all else ()),
        *(COMPILER if compiles else ()),
        *(TIMERS if times else ()),
        *(TIMING if "budget_s" in given else ()),
    )


def _workshop(given: dict[str, Any], local: Sandbox | None) -> Workshop:
    if given.get("cluster") is not None:
        from harness.runs.cluster import cluster

        return cluster(given["cluster"])
    from harness.runs.executors import Local

    return Local(workers(given), local)


def workers(given: dict[str, Any]) -> int:
    """How many jobs run at a time: as many as there are cores for this process, where nothing else is said."""
    from harness.timing.cores import cores

    chosen: int | None = given.get("workers")
    return chosen or len(cores()) or os.cpu_count() or 1


def _times_together(given: dict[str, Any]) -> bool:
    """Whether losses are timed beside each other: on a cluster, and where workers were asked for and no device is shared."""
    return given.get("cluster") is not None or ((given.get("workers") or 1) > 1 and set(given["devices"]) == {"cpu"})


def _allowed(given: dict[str, Any]) -> Limits:
    from harness.isolation.limits import Limits

    memory: float | None = given.get("memory")
    if memory is not None:
        return Limits(given["timeout"], int(memory * 2**30))
    free = _free_bytes() if given.get("cluster") is None else None  # what other machines have is not known here
    share = None if free is None else max(_LEAST_BYTES, int(_SHARE * free / workers(given)))
    return Limits(given["timeout"], share)


def _free_bytes() -> int | None:
    """Memory that can be had without swapping.  Source: proc(5), ``meminfo``."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = dict(line.split(":", 1) for line in lines)
    return int(found["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in found else None
