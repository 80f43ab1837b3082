"""How much memory a process that verifies has after many examples: ``python -m property_tests.tools.leaks``.

Prints a line of JSON for each measurement, the last of which is taken while every example leaves ``--keep`` bytes behind.  Exits
1 if memory grows without that, or if it is not seen.  ``--profile ci`` has the rules that load torch's compiler too.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import itertools
import json
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import click

from harness import LossSpec, verify
from harness.isolation.limits import private_bytes
from harness.rules.trial import Trial
from losses import focal, weighted_mse

EXAMPLES, LIMIT = 10_000, 0.05
SPECS: tuple[LossSpec, ...] = (weighted_mse.SPEC, focal.SPEC)


def memory(at: Sequence[int], *, codes: Sequence[str] | None, profile: str) -> Iterator[tuple[int, int]]:
    """(examples that ran, private bytes of this process) as soon as each of these numbers of examples has run."""
    done, wanted = 0, list(at)
    for number in itertools.count():
        verification = verify(SPECS[number % len(SPECS)], rules=codes, profile=profile, seed=number)
        done += sum(outcome.examples for outcome in verification.outcomes)
        if done >= wanted[0]:
            yield done, held_bytes()
            wanted.pop(0)
        if not wanted:
            return


def held_bytes() -> int:
    """Without what is free and only kept for later, under which a leak of megabytes could hide."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    return private_bytes([os.getpid()])


def growth(measured: Sequence[Mapping[str, int]]) -> float:
    """Bytes an example: the median over the pairs that follow each other, for an allocator takes memory in steps of megabytes."""
    return statistics.median(
        (after["bytes"] - before["bytes"]) / (after["examples"] - before["examples"])
        for before, after in itertools.pairwise(measured)
    )


def is_flat(measured: Sequence[Mapping[str, int]]) -> bool:
    """Whether memory changed by less than a twentieth, and would so over ten thousand examples where fewer were run."""
    first, *_, last = measured
    return max(growth(measured) * EXAMPLES, last["bytes"] - first["bytes"]) <= LIMIT * first["bytes"]


@contextlib.contextmanager
def leaking(size: int) -> Iterator[None]:
    """Every example that is given to an implementation leaves so many bytes behind, until the block ends."""
    kept: list[bytes] = []

    def leaky(*given: Any) -> Trial:
        kept.append(os.urandom(size))
        return Trial(*given)

    with mock.patch.object(importlib.import_module("harness.checking.session"), "Trial", leaky):
        yield


@click.command()
@click.option("--warm", default=2_000, show_default=True, help="Examples after which all is loaded.")
@click.option("--examples", default=EXAMPLES, show_default=True, help="Examples in all.")
@click.option("--leaky", default=2_000, show_default=True, help="Further examples, each of which leaves bytes behind.")
@click.option("--keep", default=5_000, show_default=True, help="How many bytes.")
@click.option("--codes", default="", help="Rules, with commas; all by default.")
@click.option("--profile", default="quick", show_default=True)
def main(warm: int, examples: int, leaky: int, keep: int, codes: str, profile: str) -> None:
    """Measure the memory of this process."""
    chosen = codes.split(",") if codes else None
    at = [warm + (examples - warm) * quarter // 4 for quarter in range(5)]
    told = [{"examples": done, "bytes": taken, "kept": 0} for done, taken in memory(at, codes=chosen, profile=profile)]
    with leaking(keep):
        told += [
            {"examples": told[-1]["examples"] + done, "bytes": taken, "kept": keep}
            for done, taken in memory([leaky], codes=chosen, profile=profile)
        ]
    for each in told:
        click.echo(json.dumps(each))
    if not is_flat(told[:-1]) or is_flat(told[-2:]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
