"""What one full pass of each implementation takes, exactly: equal commits give equal numbers, so a gate may rest on them.

One class per loss, one ``track_`` benchmark, with its unit, per field of `harness.timing.costs.counting.Costs` that is known here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch

from harness.errors import HarnessError
from harness.timing.costs import counting

from .parameters import AXES, Grid, devices, discovered, grids, workload
from .profiles import chosen

_GRIDS = grids("exact_costs")

# By loss, implementation, size and device: the costs; ``None`` where there is nothing to count; what a loss that failed said.
Counted = Mapping[tuple[str, str, str, str], Mapping[str, int | None] | str | None]


def _exact(loss: str, grid: Grid, implementation: str, size: str, device: str) -> Mapping[str, int | None] | str | None:
    try:
        built = workload(loss, grid, implementation, size, device)
        counted = counting.count(built.full)
        built.reset()  # gradients of the counted pass, freed inside the next one, would make room for its own
        return asdict(counting.completed(counted, built.full, device))
    except (NotImplementedError, HarnessError):
        return None
    except Exception as error:  # one broken loss must not take the others' costs with it
        return f"{type(error).__name__}: {error}"


class _ExactCosts:
    loss: str
    param_names = AXES
    timeout = 120
    version = "1"  # what is counted is defined by the harness of each commit, not by the text of this file

    def setup_cache(self) -> Counted:
        """Count everything once a commit, whatever the number of metrics; asv shares this between all classes."""
        return {
            (loss, *cell): _exact(loss, grid, *cell)
            for loss, grid in _GRIDS.items()
            for cell in itertools.product(*grid)
        }

    setup_cache.timeout = 600  # type: ignore[attr-defined]

    def setup(self, counted: Counted, implementation: str, size: str, device: str) -> None:
        found = counted[self.loss, implementation, size, device]
        if found is None:
            raise NotImplementedError("nothing to count here")
        if isinstance(found, str):
            raise RuntimeError(found)
        self.found = found


def _metric(field: str) -> Callable[..., float]:
    def track(self: Any, counted: Counted, implementation: str, size: str, device: str) -> float:
        value = self.found.get(field)
        return math.nan if value is None else value

    track.unit = field.rpartition("_")[2]  # type: ignore[attr-defined]
    return track


def _known_here() -> set[str]:
    """Fields that are known on a device that is here; others, such as launches on the CPU, would be empty tables."""

    def probe() -> torch.Tensor:
        return torch.zeros(2).sum()

    found = [asdict(counting.completed(counting.count(probe), probe, device)) for device in devices()]
    return {field for known in found for field, value in known.items() if value is not None}


# asv runs what it has discovered, also at a commit whose harness counts something else.
_FIELDS = {name.split(".")[2].removeprefix("track_") for name in discovered("exact_costs")} or (
    _known_here() - chosen().uncounted
)

globals().update(
    {
        loss: type(
            loss,
            (_ExactCosts,),
            {"loss": loss, "params": grid, **{f"track_{field}": _metric(field) for field in sorted(_FIELDS)}},
        )
        for loss, grid in _GRIDS.items()
    }
)
