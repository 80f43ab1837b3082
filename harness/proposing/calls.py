"""One trial call of a loss on small tensors, and what is seen of it.

The call runs other people's code: it may print, warn, raise, edit its arguments, take long or return anything.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from harness.calls.evaluation import RNG_SEED, Candidate, LossRaised, begin_draws
from harness.calls.process_state import settled
from harness.declare import dims
from harness.declare.spec import LossSpec

CALL_S = 2.0  # a call on a few dozen numbers that takes longer is of no use to a check that makes thousands
FIRST_S = 20.0  # of the first that does, which may compile
MOST_ELEMENTS = 1_000_000  # of what a call returns

# Sizes that all differ, so that an axis in the wrong place does not fit; twice, so that no size is right by chance.
SIZES: tuple[Mapping[str, int], ...] = (
    {"B": 3, "C": 5, "D": 4, "N": 6, "M": 7, "S": 2, "H": 8, "W": 9, "T": 10},
    {"B": 5, "C": 3, "D": 2, "N": 4, "M": 8, "S": 6, "H": 7, "W": 10, "T": 9},
)
SEEDS = (0, 1, 2, 3)
WIDE = 4.0  # every other call takes values so much wider, where what can fall below zero does
OF_DTYPES = re.compile(r"dtype|\b(?:scalar type|float64|float32)\b|(?i:\bdouble\b)")
OF_VALUES = re.compile(r"(?:Value|Validation|Assertion)Error")
SHORT = 70  # characters of a line
MOST_POINTS = 200
WIDE_DRAWS = 12
FAR = 10.0
FURTHER = 11  # the first size of a symbol that is not listed


class SlowCallError(Exception):
    """A call took longer than `CALL_S`."""


@dataclass(frozen=True)
class Seen:
    """What trial calls have shown.

    Args:
        error: why the reading cannot be right; empty where all calls went well.
        shape: of the output, at the first sizes.
        select: how the loss is picked out of what is returned: empty, ``[0]`` or ``['loss']``.
        gradients: predictions that have a finite gradient which is not zero everywhere.
        nonnegative: whether no output was below zero.
        refused: what it said of some of the values, where it took others of the same shapes.
    """

    error: str = ""
    shape: tuple[int, ...] = ()
    select: str = ""
    gradients: frozenset[str] = frozenset()
    nonnegative: bool = True
    refused: str = ""


def sizes_of(spec: LossSpec, which: Mapping[str, int]) -> dict[str, dims.Size]:
    """A size for every symbol of a spec, all different."""
    further = [symbol for symbol in (*spec.symbols, *spec.variadic) if symbol not in which]
    sizes: dict[str, dims.Size] = {symbol: which[symbol] for symbol in spec.symbols if symbol in which}
    for place, symbol in enumerate(further):
        sizes[symbol] = (FURTHER + place,) if symbol in spec.variadic else FURTHER + place
    return {**sizes, **spec.fixed_sizes}


def look(spec: LossSpec, call_s: float | None = None) -> Seen:
    """Call a loss at every size and seed, each for no longer than `CALL_S`, and say what was seen of all calls together."""
    calls: list[Seen] = []
    refused = ""
    for which in SIZES:
        before = len(calls)
        for seed in SEEDS:
            seen = _call(spec, which, seed, call_s or CALL_S)
            if not seen.error:
                calls.append(seen)
            elif not calls and (seed > 0 or not OF_VALUES.match(seen.error)):
                return seen
            else:
                refused = seen.error
        if len(calls) == before:
            return Seen(error=refused)
    if len({len(seen.shape) for seen in calls}) > 1:
        return Seen(error=f"the output has shape {list(calls[0].shape)} here and {list(calls[-1].shape)} there")
    gradients = frozenset().union(*(seen.gradients for seen in calls))
    if not gradients:
        return Seen(error="no prediction has a gradient other than zero")
    below = [seen for seen in calls if not seen.nonnegative]
    return Seen("", calls[0].shape, calls[0].select, gradients, not below, refused)


def draws(spec: LossSpec) -> bool:
    """Whether two instances, called one after the other on the same tensors, give two values: the loss draws random numbers."""
    values = _values(spec, _tensors(spec, sizes_of(spec, SIZES[0]), seed=0), times=2)
    return len(values) == 2 and not torch.equal(*values)


def falls_below_zero(spec: LossSpec) -> bool:
    """Whether the loss is below zero where a law that holds on generic values may not: special points together, wide values."""
    sizes = sizes_of(spec, SIZES[0])
    points = [(None, *tensor.domain.special) for tensor in spec.tensors.values()]
    for place, chosen in enumerate(itertools.islice(itertools.product(*points), MOST_POINTS)):
        given = _tensors(spec, sizes, seed=place, points=dict(zip(spec.tensors, chosen, strict=True)))
        if any(bool((value < 0).any()) for value in _values(spec, given)):
            return True
    wide = [name for name, tensor in spec.tensors.items() if tensor.domain.scalable]
    for name, seed in itertools.product(wide, range(WIDE_DRAWS)):
        given = _tensors(spec, sizes, seed=seed)
        if any(bool((value < 0).any()) for value in _values(spec, {**given, name: given[name] * FAR})):
            return True
    return False


def _values(spec: LossSpec, given: dict[str, Tensor], times: int = 1) -> list[Tensor]:
    """What so many instances return, one called after the other; fewer where one raises or returns no loss."""
    candidate, values = Candidate(spec, spec.reference), []
    with settled(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        begin_draws(RNG_SEED)
        with contextlib.suppress(LossRaised):
            for _ in range(times):
                with limited(CALL_S), torch.no_grad():
                    values.append(picked(candidate.call(candidate.build(given), given))[1])
    return [value for value in values if value is not None]


def _tensors(
    spec: LossSpec,
    sizes: Mapping[str, dims.Size],
    *,
    seed: int,
    points: Mapping[str, str | None] = MappingProxyType({}),
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    given = {}
    for place, (name, tensor) in enumerate(spec.tensors.items()):
        generator = torch.Generator().manual_seed(100 * seed + place)
        values = tensor.domain.sample(dims.shape(tensor.dims, sizes), generator, sizes)
        point = points.get(name)
        values = values if point is None else tensor.domain.special[point](values)
        given[name] = values.to(tensor.domain.dtype(dtype, tensor.dtype))
    return given


def _call(spec: LossSpec, which: Mapping[str, int], seed: int, call_s: float) -> Seen:
    """One call in float64, and in float32 where that is refused."""
    seen = _call_in(torch.float64, spec, which, seed, call_s)
    return _call_in(torch.float32, spec, which, seed, call_s) if OF_DTYPES.search(seen.error) else seen


def _call_in(dtype: torch.dtype, spec: LossSpec, which: Mapping[str, int], seed: int, call_s: float) -> Seen:
    given = _tensors(spec, sizes_of(spec, which), seed=seed, dtype=dtype)
    if seed % 2:
        given = {n: g * WIDE if spec.tensors[n].domain.scalable else g for n, g in given.items()}
    floating = {name: given[name].requires_grad_() for name in spec.differentiable}
    candidate = Candidate(spec, spec.reference)
    caught: list[warnings.WarningMessage]
    with settled(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        begin_draws(RNG_SEED)
        try:
            with limited(call_s):
                returned = candidate.call(candidate.build(given), given)
        except LossRaised as raised:
            return Seen(error=_first_line(str(raised)))
        broadcast = [str(w.message) for w in caught if "target size" in str(w.message) or "broadcast" in str(w.message)]
        if broadcast:
            return Seen(error=_first_line(broadcast[0]))
        return _read(returned, floating, call_s)


def _read(returned: Any, floating: Mapping[str, Tensor], call_s: float) -> Seen:
    select, output = picked(returned)
    if output is None:
        return Seen(error=f"it returns {type(returned).__name__}, in which no floating tensor is")
    if output.numel() > MOST_ELEMENTS:
        return Seen(error=f"it returns shape {list(output.shape)} from a few dozen numbers")
    if not bool(output.detach().isfinite().all()):
        return Seen(error="the output is not finite on generic values")
    if not output.requires_grad:
        return Seen(error="the output has no gradient")
    try:
        with limited(call_s):
            output.sum().backward()
            slopes = [tensor.grad for tensor in floating.values()]
    except Exception as error:  # the backward pass may be the user's, too
        return Seen(error=_first_line(f"{type(error).__name__}: {error}"))
    if any(slope is not None and not bool(slope.isfinite().all()) for slope in slopes):
        return Seen(error="a gradient is not finite on generic values")
    moved = [name for name, s in zip(floating, slopes, strict=True) if s is not None and bool(s.count_nonzero())]
    return Seen("", tuple(output.shape), select, frozenset(moved), bool((output.detach() >= 0).all()))


def picked(returned: Any) -> tuple[str, Tensor | None]:
    """How the loss is picked out of what is returned, and the loss: the first floating tensor, that of name ``loss`` before."""
    if isinstance(returned, Tensor):
        return "", returned if returned.is_floating_point() else None
    if isinstance(returned, Mapping):
        items = sorted(returned.items(), key=lambda item: "loss" not in str(item[0]))
    elif isinstance(returned, (tuple, list)):
        items = list(enumerate(returned))
    else:
        return "", None
    for key, value in items:
        if isinstance(value, Tensor) and value.is_floating_point():
            return f"[{key!r}]", value
    return "", None


def selector(select: str) -> Callable[[Any], Tensor] | None:
    """The function that picks, for `LossSpec`."""
    return (lambda returned: picked(returned)[1]) if select else None  # type: ignore[return-value]


def _first_line(text: str) -> str:
    """The first line of a message, and the second where the first only says that something is the matter."""
    lines = text.strip().splitlines() or [""]
    more = lines[1:2] if len(lines[0]) < SHORT and "error" in lines[0].lower() else []
    return " ".join(line.strip() for line in (lines[0], *more))[:300]


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `SlowCallError` in a block of Python that takes longer; where signals cannot be had, no limit.

    What hangs inside a library is not reached: the process that calls is ended from outside.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(signum: int, frame: Any) -> None:
        raise SlowCallError(f"a call on a few dozen numbers took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
