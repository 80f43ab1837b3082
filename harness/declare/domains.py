"""The domains to declare a tensor with: ``real()``, ``probability()``, ``index("C")`` and so on.

Each names its special points, where losses break: zeros, ties, one-hot, saturation, an empty mask, an isolated node.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from harness.declare import dims
from harness.declare.domain import Domain, Make, made_by
from harness.declare.points import (
    Point,
    all_equal,
    alternating,
    equal_rows,
    fill,
    ignored_once,
    kept_once,
    one_hot,
    one_hot_along,
    single,
    single_missing,
    zero_row,
)
from harness.errors import DeclarationError, shown

__all__ = [
    "Domain",
    "adjacency",
    "binary",
    "boolean",
    "boxes",
    "complex_",
    "custom",
    "distinct",
    "index",
    "interval",
    "label",
    "lengths",
    "log_simplex",
    "logits",
    "nonnegative",
    "offsets",
    "positive",
    "probability",
    "real",
    "sign",
    "simplex",
    "sorted_along",
    "sparse",
    "unit_norm",
]

SATURATED = 100.0  # sigmoid(100) = 1 and softmax is one-hot in every dtype
LARGE = 10.0  # exp(10) fits every dtype but float16, so that a plain exp is no false alarm
TINY = 1e-6
_MOST_AXES = 64  # torch makes no tensor of more


def _normal(uniform: Tensor) -> Tensor:
    values: Tensor = torch.special.erfinv(2 * uniform - 1)
    return math.sqrt(2) * values


def real(nan: bool = False) -> Domain:
    """All real numbers; with ``nan=True`` NaN is legal too and means "missing"."""
    _check_truth("real", "nan", nan)

    def transform(uniform: Tensor) -> Tensor:
        return torch.where(uniform > 0.85, torch.nan, _normal(uniform)) if nan else _normal(uniform)

    special = {
        "zeros": fill(0.0),
        "ones": fill(1.0),
        "zero row": zero_row,
        "equal rows": equal_rows,
        "one-hot": one_hot(1.0),
        "large": alternating(LARGE, -LARGE),
    }
    if nan:
        special |= {"all missing": fill(math.nan), "one missing": single_missing}
    simple = (0.0, 1.0, -1.0, 0.5, 2.0, -0.5, -2.0, 3.0)
    return Domain(
        f"real(nan={nan})" if nan else "real()",
        scalable=True,
        nan=nan,
        special=special,
        simple=(*simple, math.nan) if nan else simple,
        transform=transform,
    )


def _check_truth(name: str, argument: str, value: object) -> None:
    if not isinstance(value, bool):
        raise DeclarationError(
            f"{name}({argument}={shown(value)}): needs True or False, such as {name}({argument}=True)"
        )


def complex_() -> Domain:
    """Complex numbers, made of a last axis more that holds real and imaginary parts: gradients are dL/dRe and dL/dIm."""
    return replace(real(), text="complex_()", form="complex")


def sparse(layout: str, density: float = 0.3) -> Domain:
    """Real numbers of which a part, ``density``, is stored, in a tensor of layout ``coo``, ``csr`` or ``bsr``."""
    if layout not in ("coo", "csr", "bsr"):
        raise DeclarationError(f"sparse({shown(layout)}): needs 'coo', 'csr' or 'bsr'")
    if not (_is_number(density) and 0 < density <= 1):
        raise DeclarationError(f"sparse(density={shown(density)}): needs a number in (0, 1], such as 0.3")
    return Domain(
        f"sparse({shown(layout)}, {shown(density)})",
        form=layout,
        scalable=True,
        special={"zeros": fill(0.0), "one-hot": one_hot(1.0), "zero row": zero_row},
        simple=(0.0, 1.0, -1.0, 2.0),
        transform=lambda uniform: torch.where(uniform < density, _normal(uniform / density), 0.0),
    )


def logits() -> Domain:
    """Unnormalised log-probabilities: real numbers that may saturate."""
    return Domain(
        "logits()",
        special={
            "zeros": fill(0.0),
            "saturated": alternating(SATURATED, -SATURATED),
            "saturated one-hot": one_hot(SATURATED, -SATURATED),
            "all large": fill(SATURATED),
            "equal rows": equal_rows,
        },
        simple=(0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 4.0),
        transform=lambda uniform: 2 * _normal(uniform),
    )


def interval(low: float, high: float) -> Domain:
    """The closed interval [low, high]."""
    if not (_is_number(low) and _is_number(high) and low < high):
        raise DeclarationError(
            f"interval(low={shown(low)}, high={shown(high)}): needs finite low < high; for no bound use real()"
        )
    middle = (low + high) / 2
    return Domain(
        f"interval({shown(low)}, {shown(high)})",
        low=low,
        high=high,
        special={
            "lowest": fill(low),
            "highest": fill(high),
            "middle": fill(middle),
            "extremes": alternating(high, low),
            "equal rows": equal_rows,
        },
        simple=(middle, low, high, (low + middle) / 2, (middle + high) / 2),
        transform=lambda uniform: low + (high - low) * uniform,
    )


def _is_number(value: object) -> bool:
    """Whether a value is a finite number of Python's; one that no float can hold is none."""
    if not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def probability() -> Domain:
    """Probabilities: the closed interval [0, 1]."""
    return replace(
        interval(0.0, 1.0),
        text="probability()",
        special={
            "zeros": fill(0.0),
            "ones": fill(1.0),
            "halves": fill(0.5),
            "extremes": alternating(1.0, 0.0),
            "equal rows": equal_rows,
        },
    )


def positive() -> Domain:
    """Numbers above zero."""
    return Domain(
        "positive()",
        low=TINY,
        scalable=True,
        special={
            "ones": fill(1.0),
            "tiny": fill(TINY),
            "large": fill(1e3),
            "mixed scales": alternating(1e3, 1e-3),
            "equal rows": equal_rows,
        },
        simple=(1.0, 2.0, 0.5, 3.0, 0.25, 4.0),
        transform=lambda uniform: torch.exp(_normal(uniform)),
    )


def nonnegative() -> Domain:
    """Numbers from zero up: weights."""
    return Domain(
        "nonnegative()",
        low=0.0,
        scalable=True,
        special={
            "zeros": fill(0.0),
            "ones": fill(1.0),
            "one-hot": one_hot(1.0),
            "single": single(1.0),
            "zero row": zero_row,
            "mixed scales": alternating(1e3, 1e-3),
        },
        simple=(1.0, 0.0, 2.0, 0.5, 3.0),
        transform=lambda uniform: torch.exp(_normal(uniform)),
    )


def simplex(axis: int) -> Domain:
    """Non-negative numbers that sum to one along ``axis``."""
    _check_axis("simplex", axis)

    def repair(values: Tensor) -> Tensor:
        values = values.abs()
        total = values.sum(axis, keepdim=True)
        count = values.shape[axis] if values.ndim else 1
        return torch.where(total > 0, values / total, torch.full_like(values, 1 / max(count, 1)))

    return Domain(
        f"simplex(axis={axis})",
        axis=axis,
        low=0.0,
        high=1.0,
        structured=True,
        special={
            "uniform": lambda smooth: repair(torch.ones_like(smooth)),
            "one-hot": lambda smooth: one_hot_along(smooth, axis),
            "equal rows": lambda smooth: repair(equal_rows(smooth)),
        },
        simple=(1.0, 0.0, 2.0, 3.0),
        transform=lambda uniform: torch.exp(_normal(uniform)),
        repair=repair,
    )


def _check_axis(name: str, axis: int) -> None:
    if not isinstance(axis, int) or isinstance(axis, bool) or abs(axis) > _MOST_AXES:
        raise DeclarationError(f"{name}(axis={shown(axis)}): needs the position of an axis, such as {name}(axis=-1)")


def unit_norm(axis: int) -> Domain:
    """Vectors of Euclidean length one along ``axis``."""
    _check_axis("unit_norm", axis)

    def repair(values: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(values, dim=axis, keepdim=True)
        count = values.shape[axis] if values.ndim else 1
        fallback = torch.full_like(values, 1 / math.sqrt(max(count, 1)))
        return torch.where(length > 0, values / length.clamp(min=1e-300), fallback)

    return Domain(
        f"unit_norm(axis={axis})",
        axis=axis,
        low=-1.0,
        high=1.0,
        structured=True,
        special={
            "equal rows": lambda smooth: repair(equal_rows(smooth)),
            "axis-aligned": lambda smooth: one_hot_along(smooth, axis),
        },
        simple=(1.0, 0.0, -1.0, 2.0),
        transform=_normal,
        repair=repair,
    )


def binary() -> Domain:
    """Zeros and ones in a floating dtype: a mask that is multiplied; a label that removes nothing is `label`."""
    return Domain(
        "binary()",
        low=0.0,
        high=1.0,
        whole=True,
        special={
            "zeros": fill(0.0),
            "ones": fill(1.0),
            "one-hot": one_hot(1.0),
            "single": single(1.0),
            "zero row": zero_row,
        },
        simple=(1.0, 0.0),
        transform=lambda uniform: (uniform > 0.4).double(),
    )


def boolean(dtype: torch.dtype = torch.bool) -> Domain:
    """Truth values in a boolean or integer dtype: a mask that selects."""
    if not isinstance(dtype, torch.dtype) or dtype.is_floating_point or dtype.is_complex:
        raise DeclarationError(
            f"boolean(dtype={shown(dtype)}): needs torch.bool or an integer dtype; for 0 and 1 in a floating dtype write binary()"
        )
    name = "" if dtype == torch.bool else f"dtype={dtype}"
    return replace(binary(), text=f"boolean({name})", kind="boolean", default_dtype=dtype)


def label(dtype: torch.dtype | None = None) -> Domain:
    """Zeros and ones that say which of two classes an element is of: no mask, since a zero removes nothing."""
    if dtype is not None and (not isinstance(dtype, torch.dtype) or dtype.is_complex):
        raise DeclarationError(
            f"label(dtype={shown(dtype)}): needs a floating, a boolean or an integer dtype, such as label(torch.int64)"
        )
    return Domain(
        "label()" if dtype is None else f"label({dtype})",
        kind="float" if dtype is None or dtype.is_floating_point else "boolean",
        low=0.0,
        high=1.0,
        whole=True,
        removes=False,
        default_dtype=dtype,
        special={"zeros": fill(0.0), "ones": fill(1.0), "one-hot": one_hot(1.0), "single": single(1.0)},
        simple=(1.0, 0.0),
        transform=lambda uniform: (uniform > 0.5).double(),
    )


def sign() -> Domain:
    """Minus one or one, in a floating dtype."""
    return Domain(
        "sign()",
        low=-1.0,
        high=1.0,
        whole=True,
        special={"all positive": fill(1.0), "all negative": fill(-1.0)},
        simple=(1.0, -1.0),
        transform=lambda uniform: torch.where(uniform > 0.5, 1.0, -1.0).double(),
    )


def index(symbol: str | int, ignore: int | None = None) -> Domain:
    """int64 positions in [0, symbol), such as class labels; a size, a sum such as ``T+1`` or a number; ``ignore`` marks what does not count."""
    size, written = _size_of("index", symbol, "C")
    if ignore is not None and (
        not isinstance(ignore, int) or isinstance(ignore, bool) or not -(2**63) <= ignore < 2**63
    ):
        raise DeclarationError(f"index({shown(symbol)}, ignore={shown(ignore)}): needs an integer, such as ignore=-100")
    special = {"first": fill(0.0), "all equal": all_equal}
    if ignore is not None:
        special |= {
            "all ignored": fill(float(ignore)),
            "one ignored": ignored_once(ignore),
            "one kept": kept_once(ignore),
        }
    return Domain(
        f"index({written})" if ignore is None else f"index({written}, ignore={ignore})",
        kind="integer",
        whole=True,
        symbol=size,
        ignore=ignore,
        default_dtype=torch.int64,
        special=special,
    )


def _size_of(name: str, symbol: object, example: str) -> tuple[str, str]:
    """(a size as text, as it is written in a call): a name, a sum such as ``T+1``, or a number."""
    if type(symbol) is int and symbol > 0:
        return str(symbol), str(symbol)
    parsed = dims.parse(symbol) if isinstance(symbol, str) else ()
    if len(parsed) != 1 or not parsed[0].symbols or parsed[0].variadic or parsed[0].broadcastable:
        raise DeclarationError(
            f"{name}({shown(symbol)}): needs the name of a size or a number, such as {name}({example!r})"
        )
    return str(symbol), shown(symbol)


def distinct(symbol: str | int) -> Domain:
    """int64 positions in [0, symbol), none of which comes twice along the last axis: sampled nodes, or a ranking."""
    size, written = _size_of("distinct", symbol, "N")

    def fit(values: Tensor, count: int) -> Tensor:
        if values.ndim == 0:
            return values
        ordered, order = values.sort(dim=-1, stable=True)
        return torch.empty_like(values).scatter(-1, order, _apart(ordered, count))

    return Domain(
        f"distinct({written})",
        kind="integer",
        structured=True,
        whole=True,
        symbol=size,
        is_distinct=True,
        default_dtype=torch.int64,
        fit=fit,
    )


def _apart(rising: Tensor, count: int) -> Tensor:
    """The nearest numbers in [0, count) each of which is above the one before it, where there is room for so many."""
    length = rising.shape[-1] if rising.ndim else 0
    if not 1 < length <= count:
        return rising
    place = torch.arange(length, dtype=rising.dtype)
    apart = (rising - place).cummax(-1).values + place
    return torch.minimum(apart, place + count - length)


def lengths(symbol: str | int) -> Domain:
    """int64 lengths from 1 to symbol, both included: how much of each padded row counts."""
    size, written = _size_of("lengths", symbol, "T")
    return Domain(
        f"lengths({written})",
        kind="integer",
        low=1.0,
        whole=True,
        limit=size,
        default_dtype=torch.int64,
        special={"shortest": fill(1.0), "all equal": all_equal},
        simple=(1.0,),
    )


def offsets(symbol: str | int, empty: bool = True) -> Domain:
    """int64 offsets along the last axis that rise from 0 to symbol: where each segment begins, and the last ends; with ``empty=False`` no segment is empty."""
    size, written = _size_of("offsets", symbol, "N")
    _check_truth("offsets", "empty", empty)

    def fit(values: Tensor, count: int) -> Tensor:
        rising = values.sort(dim=-1).values if values.ndim else values
        if not empty:
            rising = _apart(rising, count + 1)
        if rising.ndim and rising.shape[-1]:
            rising[..., 0] = 0
            rising[..., -1] = count
        return rising

    return Domain(
        f"offsets({written})" if empty else f"offsets({written}, empty=False)",
        kind="integer",
        low=0.0,
        structured=True,
        whole=True,
        limit=size,
        is_distinct=not empty,
        default_dtype=torch.int64,
        fit=fit,
    )


def sorted_along(axis: int, low: float = -math.inf, high: float = math.inf, strict: bool = False) -> Domain:
    """Numbers from low to high that rise along ``axis``: quantiles, edges of bins, times; ties among them unless ``strict``."""
    _check_axis("sorted_along", axis)
    _check_truth("sorted_along", "strict", strict)
    inside = real() if (low, high) == (-math.inf, math.inf) else interval(low, high)
    bounds = "" if inside.low == -math.inf else f", low={shown(low)}, high={shown(high)}"
    bounds += ", strict=True" if strict else ""

    def repair(values: Tensor) -> Tensor:
        if not values.ndim:
            return values
        rising = values.sort(dim=axis).values
        return _without_ties(rising, axis, inside) if strict else rising

    def without_steps(smooth: Tensor) -> Tensor:
        return smooth.narrow(axis, 0, 1).expand_as(smooth).clone() if smooth.numel() and smooth.ndim else smooth

    return Domain(
        f"sorted_along(axis={axis}{bounds})",
        axis=axis,
        low=inside.low,
        high=inside.high,
        structured=True,
        special={"equal rows": lambda smooth: repair(equal_rows(smooth))}
        | ({} if strict else {"all equal": without_steps}),
        simple=inside.simple,
        transform=inside.transform,
        repair=repair,
    )


def _without_ties(rising: Tensor, axis: int, inside: Domain) -> Tensor:
    """The same numbers where none comes twice along the axis, else as many that are evenly spaced."""
    count = rising.shape[axis]
    place = torch.arange(count, dtype=rising.dtype).view([-1, *([1] * (rising.ndim - 1 - axis % rising.ndim))])
    if math.isfinite(inside.low):
        even = inside.low + (inside.high - inside.low) * place / max(count - 1, 1)
    else:
        even = rising.narrow(axis, 0, min(1, count)) + place
    return torch.where((rising.diff(dim=axis) <= 0).any(axis, keepdim=True), even, rising)


def log_simplex(axis: int) -> Domain:
    """Logarithms of positive numbers that sum to one along ``axis``, as log_softmax gives them."""
    _check_axis("log_simplex", axis)

    def repair(values: Tensor) -> Tensor:
        return torch.log_softmax(values, axis) if values.ndim else torch.zeros_like(values)

    return Domain(
        f"log_simplex(axis={axis})",
        axis=axis,
        high=0.0,
        structured=True,
        special={
            "uniform": lambda smooth: repair(torch.zeros_like(smooth)),
            "saturated": lambda smooth: repair(SATURATED * one_hot_along(smooth, axis)),
            "equal rows": lambda smooth: repair(equal_rows(smooth)),
        },
        simple=(0.0, 1.0, -1.0, 2.0),
        transform=_normal,
        repair=repair,
    )


_LEAST_SIDE = 0.05  # of a box, so that none is empty and a step of a difference quotient turns none over


def boxes(form: str = "xyxy") -> Domain:
    """Boxes of positive size in the last axis, of extent 4: corners ``xyxy``, or a corner ``xywh`` or centre ``cxcywh`` and a size."""
    if form not in ("xyxy", "xywh", "cxcywh"):
        raise DeclarationError(f"boxes({shown(form)}): needs 'xyxy', 'xywh' or 'cxcywh'")

    def repair(values: Tensor) -> Tensor:
        first, second = values[..., :2], values[..., 2:]
        if form != "xyxy":
            return torch.cat([first, second.abs().clamp(min=_LEAST_SIDE)], dim=-1)
        corner = torch.minimum(first, second)
        return torch.cat([corner, corner + (first - second).abs().clamp(min=_LEAST_SIDE)], dim=-1)

    def far_apart(smooth: Tensor) -> Tensor:
        place = 10 * torch.arange(smooth[..., 0].numel(), dtype=smooth.dtype).reshape(smooth.shape[:-1])
        moved = smooth.clone()
        for coordinate in (0, 2) if form == "xyxy" else (0,):
            moved[..., coordinate] += place
        return moved

    return Domain(
        f"boxes({shown(form)})",
        axis=-1,
        extent=4,
        structured=True,
        special={
            "equal rows": equal_rows,
            "far apart": far_apart,
            "smallest": lambda smooth: repair(torch.zeros_like(smooth)),
        },
        simple=(0.0, 1.0, 0.5, 2.0),
        transform=lambda uniform: uniform,
        repair=repair,
    )


def adjacency(symmetric: bool = False, self_loops: bool = True) -> Domain:
    """Square 0/1 matrices: entry (i, j) is one where an edge goes from i to j."""
    _check_truth("adjacency", "symmetric", symmetric)
    _check_truth("adjacency", "self_loops", self_loops)

    def repair(values: Tensor) -> Tensor:
        values = (values != 0).double()
        if symmetric and values.ndim >= 2:
            values = torch.maximum(values.triu(), values.triu(1).mT)
        if not self_loops and values.ndim >= 2:
            values = values * (1 - torch.eye(values.shape[-1], dtype=values.dtype))
        return values

    def isolated(smooth: Tensor) -> Tensor:
        result = repair(torch.ones_like(smooth))
        result[..., :1, :] = 0
        result[..., :, :1] = 0
        return result

    def one_edge(smooth: Tensor) -> Tensor:
        result = torch.zeros_like(smooth)
        if result.shape[-1] > 1:
            result[..., 0, 1] = 1
        return repair(result)

    special: dict[str, Point] = {
        "empty": fill(0.0),
        "complete": lambda smooth: repair(torch.ones_like(smooth)),
        "isolated node": isolated,
        "one edge": one_edge,
    }
    if self_loops:
        special["self-loops only"] = lambda smooth: (
            torch.eye(smooth.shape[-1], dtype=smooth.dtype).expand_as(smooth).clone()
        )
    return Domain(
        f"adjacency(symmetric={symmetric}, self_loops={self_loops})",
        low=0.0,
        high=1.0,
        structured=True,
        whole=True,
        square=True,
        special=special,
        simple=(0.0, 1.0),
        transform=lambda uniform: (uniform > 0.5).double(),
        repair=repair,
    )


def custom(make: Make, special: Sequence[Make] = ()) -> Domain:
    """Whatever ``make(shape, generator, dtype)`` returns; ``special`` are further samplers for special points.

    A ``make`` that also names ``sizes`` or ``tensors`` is given the size of every symbol, or the tensors declared before it
    (in float64), so that any condition on several tensors can be written.
    """
    if not callable(make):
        raise DeclarationError(f"custom({shown(make)}): needs a function make(shape, generator, dtype) -> Tensor")

    text = f"custom({getattr(make, '__name__', 'make')})"

    def point(name: str, sampler: Make) -> Point:
        label = f"{text}, special {name}"
        return lambda smooth: made_by(label, sampler, tuple(smooth.shape), Generator().manual_seed(0), smooth.dtype)

    if not isinstance(special, Sequence) or isinstance(special, str):
        raise DeclarationError(f"{text}: special={shown(special)}, expected a sequence, such as special=(make,)")
    points: dict[str, Point] = {}
    for position, sampler in enumerate(special):
        if not callable(sampler):
            raise DeclarationError(
                f"{text}: special={shown(sampler)}, expected functions make(shape, generator, dtype)"
            )
        name = getattr(sampler, "__name__", "<lambda>")
        unique = name if name != "<lambda>" and name not in points else f"special {position}"
        points[unique] = point(unique, sampler)
    return Domain(text, structured=True, special=points, make=make)
