"""What `benchmark` may be asked for: each argument is checked, and a single value stands for a list of it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from typing import Any

import torch

from harness.declare.dims import Size
from harness.declare.spec import LossSpec
from harness.errors import DeclarationError, nearest, shown
from harness.results.measured import CACHES, CLOCKS, DTYPES, PASSES, Cache, ClockName, Pass
from harness.timing.density import check_densities
from harness.timing.devices import unavailable
from harness.timing.workload import checked_sizes

_DEVICE = re.compile(r"cpu|cuda(:[0-9]+)?")


def check_spec(spec: object) -> None:
    """Refuse what is no single spec.

    Raises:
        DeclarationError: a list of specs, or something else.
    """
    if isinstance(spec, LossSpec):
        return
    mend = "call it once for each" if isinstance(spec, list | tuple | set | dict) else "wrap the loss in a LossSpec"
    raise DeclarationError(f"spec: got a {type(spec).__name__}, expected one LossSpec; {mend}")


def check_budget(budget_s: object) -> None:
    """Refuse a budget that is no positive number of seconds.

    Raises:
        DeclarationError: text, nan, infinity, nothing or less.
    """
    try:
        seconds = float(budget_s) if isinstance(budget_s, Real) and not isinstance(budget_s, bool) else 0.0
    except OverflowError:
        seconds = math.inf
    if not 0 < seconds < math.inf:
        raise DeclarationError(f"got budget_s={shown(budget_s)}, expected a positive number of seconds, such as 30")


def _several(what: str, given: Any, single: type | tuple[type, ...], example: object) -> list[Any]:
    """The values of an argument, of which a single one may have come."""
    if isinstance(given, single):
        return [given]
    values = list(given) if isinstance(given, Collection) and not isinstance(given, torch.Tensor) else [given]
    if not values:
        raise DeclarationError(
            f"{what}={shown(given)} came, but there should be at least one, such as {shown(example)}"
        )
    for value in values:
        if not isinstance(value, single):
            raise DeclarationError(f"{what}: got {shown(value)}, expected one like {shown(example)}")
    return values


def checked_names(spec: LossSpec, implementations: Sequence[str] | str | None) -> tuple[str, ...]:
    """The implementations to time, the reference first.

    Raises:
        DeclarationError: an unknown one.
    """
    known = spec.implementations
    wanted = known if implementations is None else _several("implementations", implementations, str, next(iter(known)))
    for name in wanted:
        if name not in known:
            raise DeclarationError(
                f"loss {shown(spec.name)} has no implementation {shown(name)}; it has {list(known)}{nearest(name, known)}"
            )
    return tuple(dict.fromkeys([spec.reference, *wanted]))


def checked_inputs(
    spec: LossSpec, sizes: Sequence[Mapping[str, Size]] | Mapping[str, Size] | None
) -> tuple[dict[str, Size], ...]:
    """The sizes to time at, complete.

    Raises:
        DeclarationError: a symbol without a size, a size for no symbol, or no sizes at all.
    """
    example = dict.fromkeys((*spec.variadic, *spec.symbols), 8)
    return checked_sizes(spec, None if sizes is None else _several("sizes", sizes, Mapping, example))


def checked_devices(devices: Sequence[str] | str) -> list[str]:
    """The devices, which need not be there.

    Raises:
        DeclarationError: one on which nothing can be timed anywhere.
    """
    names = _several("devices", devices, str, "cpu")
    for name in names:
        if not _DEVICE.fullmatch(name):
            hint = nearest(name, ("cpu", "cuda"))
            raise DeclarationError(
                f"got device {shown(name)}, expected one of 'cpu', 'cuda' and 'cuda:N', such as 'cuda:0'{hint}"
            )
    return list(dict.fromkeys(names))


def checked_dtypes(dtypes: Sequence[torch.dtype] | torch.dtype) -> list[str]:
    """Names of the dtypes.

    Raises:
        DeclarationError: one in which no loss is timed.
    """
    given = _several("dtypes", dtypes, (torch.dtype, str), torch.float32)
    names = [str(dtype).removeprefix("torch.") for dtype in given]
    for name in names:
        if name not in DTYPES:
            raise DeclarationError(
                f"dtype {shown(name)} came, but a loss is timed in one of {list(DTYPES)}{nearest(name, DTYPES)}"
            )
    return names


def checked_passes(passes: Sequence[Pass] | Pass) -> list[Pass]:
    """The passes, in the order in which they run.

    Raises:
        DeclarationError: an unknown one.
    """
    chosen = _known("pass", _several("passes", passes, str, "full"), PASSES)
    return [known for known in PASSES if known in chosen]


def ways(
    device: str, caches: Sequence[Cache] | Cache | None, clocks: Sequence[ClockName] | ClockName | None
) -> list[tuple[Cache, ClockName]]:
    """Every cache and clock that go together on a device: warm with each clock, cold with the device's own.

    Raises:
        DeclarationError: an unknown one, or none that go together there.
    """
    on_cuda = device.startswith("cuda")
    own: tuple[ClockName, ...] = ("events", "wall", "graph") if on_cuda else ("wall",)
    default = CACHES if on_cuda else ("warm",)
    kept = default if caches is None else _known("cache", _several("caches", caches, str, "warm"), CACHES)
    asked = own if clocks is None else _known("clock", _several("clocks", clocks, str, "wall"), CLOCKS)
    chosen = [clock for clock in own if clock in asked]
    found: list[tuple[Cache, ClockName]] = [("warm", clock) for clock in chosen if "warm" in kept]
    if "cold" in kept and own[0] in chosen:
        found.append(("cold", own[0]))
    if unavailable(device):
        return found[:1]  # one line says that nothing can be timed there
    if not found:
        raise DeclarationError(
            f"caches={shown(caches)} with clocks={shown(clocks)} leave nothing to time on {device}, which has {list(own)}"
        )
    return found


def checked_densities(
    spec: LossSpec, densities: Sequence[Mapping[str, float]] | Mapping[str, float]
) -> list[dict[str, float]]:
    """The densities of each input.

    Raises:
        DeclarationError: no such tensor, or one that cannot be thinned so.
    """
    example = dict.fromkeys([*spec.tensors][:1], 0.1)
    chosen = [dict(given) for given in _several("densities", densities, Mapping, example)]
    for given in chosen:
        check_densities(spec, given)
    return chosen


def _known(what: str, names: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    for name in names:
        if name not in known:
            raise DeclarationError(f"got {what} {shown(name)}, expected one of {list(known)}{nearest(name, known)}")
    return names
