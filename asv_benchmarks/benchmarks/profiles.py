"""How much is measured: ``fast``, ``regular`` or ``large``, as `config.json` or the environment says."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import LossSpec
from harness.declare.dims import Size
from harness.timing.workload import checked_sizes, elements

VARIABLE = "LOSS_HARNESS_ASV_PROFILE"
CONFIG = Path(__file__).parent / "config.json"

# Each step makes a matrix four times as large; what is beyond 2 ** 25 elements, 128 MiB in float32, is no loss's usual input.
GROWTH = 2
STEPS = 2
MOST_ELEMENTS = 2**25


@dataclass(frozen=True)
class Profile:
    """What is measured, and how long.

    Args:
        smallest: the first size of each loss alone.
        beyond: sizes above those that the loss declares, too.
        loops: the reference implementations, too; most are loops over elements, and hundreds of times slower.
        passes: the passes that are timed; costs are those of the full pass.
        uncounted: costs that are left out.
        sampling: asv's attributes for times.  Rounds alternate between the commits that are compared, so that a busy minute
            of the machine hits both.
    """

    smallest: bool
    beyond: bool
    loops: bool
    passes: tuple[str, ...]
    uncounted: frozenset[str]
    sampling: Mapping[str, Any]


# Parts of other costs.  Each cost of each implementation takes asv a process, and a quick comparison has no time for these.
PARTS = frozenset({
    "saved_above_inputs_bytes", "saved_sparse_bytes", "peak_tensor_bytes", "product_flops", "flops_left_out_calls",
})  # fmt: skip

PROFILES = {
    "fast": Profile(
        smallest=True,
        beyond=False,
        loops=False,
        passes=("full",),
        uncounted=PARTS,
        sampling={"rounds": 1, "repeat": 5, "sample_time": 0.005, "warmup_time": 0.02},
    ),
    "regular": Profile(
        smallest=False,
        beyond=False,
        loops=True,
        passes=("forward", "full"),
        uncounted=frozenset(),
        sampling={"rounds": 4, "repeat": (3, 5, 2.0)},
    ),
    "large": Profile(
        smallest=False,
        beyond=True,
        loops=True,
        passes=("forward", "full"),
        uncounted=frozenset(),
        sampling={"rounds": 4, "repeat": (3, 5, 10.0)},
    ),
}


def chosen(environment: Mapping[str, str] = os.environ) -> Profile:
    """The profile that the environment names, else `config.json`.

    Raises:
        ValueError: no profile has that name.
    """
    name = environment.get(VARIABLE) or configured()["profile"]
    if name not in PROFILES:
        raise ValueError(f"{VARIABLE}={name!r} came, but there are only the profiles {', '.join(PROFILES)}")
    return PROFILES[name]


def configured() -> dict[str, Any]:
    """What `config.json` says."""
    settings: dict[str, Any] = json.loads(CONFIG.read_text(encoding="utf-8"))
    return settings


def implementations(spec: LossSpec, profile: Profile) -> list[str]:
    """The implementations that a profile measures: all, or those beside the reference where there are any."""
    others = [name for name in spec.implementations if name != spec.reference]
    return others if others and not profile.loops else list(spec.implementations)


def sizes(spec: LossSpec, profile: Profile) -> list[dict[str, Size]]:
    """The sizes at which a profile measures a loss."""
    declared = list(checked_sizes(spec, None))
    if profile.smallest:
        return declared[:1]
    return declared + list(_beyond(spec, declared[-1]) if profile.beyond else ())


def _beyond(spec: LossSpec, largest: Mapping[str, Size]) -> Iterable[dict[str, Size]]:
    """Every symbol that may grow times 2 and 4, as far as all tensors together have no more than 2 ** 25 elements."""
    grown = dict(largest)
    for _ in range(STEPS):
        grown = {
            symbol: size if symbol in spec.fixed_sizes or isinstance(size, tuple) else GROWTH * size
            for symbol, size in grown.items()
        }
        if elements(spec, grown) > MOST_ELEMENTS or grown == largest:
            return
        yield dict(grown)
