"""Rules about the range of a dtype: D03."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.calls.evaluation import LossRaised
from harness.calls.watch import Watch
from harness.declare.spec import LossSpec
from harness.drawing.case import Case
from harness.errors import NotApplicable, told_in_a_line
from harness.rules.dtypes.kept import asked
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools.detach import placed
from harness.rules.tools.sizes import DOUBLINGS, equal_sizes, equally_sized, grown
from harness.rules.trial import UNSET, Trial, describe, is_finite

ELEMENTS = 256  # normal squares whose largest fits with a margin of 4 to 16: their sum passes the range about twice
MARGIN = 4.0
LARGEST_EXPONENT = 14
_SUMS = {"sum", "nansum", "dot", "vdot", "cumsum", "index_add", "scatter_add", "add", "add_"}
# What a sum that is too large may go through and still be mended by another order or a wider accumulator.
_LINEAR = {
    *_SUMS,
    *(
        "sub",
        "sub_",
        "rsub",
        "neg",
        "div",
        "div_",
        "mul",
        "mul_",
        "where",
        "_to_copy",
        "clone",
        "copy_",
        "cat",
        "stack",
    ),
}

_IN_A_SUM = (
    "a sum overflows before it is divided: use mean(), divide first, or accumulate in float32 and cast the result back"
)
_OF_SUMS = (
    "{} overflows, and what follows makes it smaller: divide first, or compute it in float32 and cast the result back"
)
_IN_A_KERNEL = "in the kernel: widen to float32 before squaring and adding, and cast what is stored last"


class Magnitudes(Watch):
    """Records the largest value that is inherent: in elements, and in whatever a non-linear operation takes or gives."""

    def __init__(self, elements: int) -> None:
        super().__init__()
        self.largest = 0.0
        self._elements = elements

    def _see(self, func: Any, args: Any, kwargs: Any) -> Any:
        returned = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name in UNSET:  # memory that nobody has written holds no number
            return returned
        linear = func.is_view or name in _LINEAR
        for item in tensors_of(returned if linear else (args, returned)):
            if not linear or item.numel() >= self._elements:
                finite = item.detach().abs()
                finite = finite[finite < torch.finfo(item.dtype).max]  # a marker of masked_fill is no number
                self.largest = max(self.largest, float(finite.max()) if finite.numel() else 0.0)
        return returned


class FirstOverflow(Watch):
    """Records the first operation that makes a number that is not finite out of finite ones, and where it is called.

    An infinity that is written down, as a mask by ``masked_fill(hidden, -inf)``, is none; before that, ``of_infinities``
    is the first operation that makes NaN out of those.  ``is_large`` says that a number is too large for the dtype, and not
    singular, as 0 ** -1 and a root of what is negative are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.name = self.placed = self.of_infinities = ""
        self.is_large = False

    def _see(self, func: Any, args: Any, kwargs: Any) -> Any:
        returned = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if not self.name and name not in UNSET and not are_finite(returned):
            if are_finite((args, kwargs)):
                self.name, self.placed = name, placed(name)
                self.is_large = not _has_nan(returned) and not _of_zeros(returned, args)
            elif not self.of_infinities and _has_nan(returned) and not _has_nan((args, kwargs)):
                self.of_infinities = placed(name)
        return returned


def _of_zeros(returned: Any, args: Sequence[Any]) -> bool:
    """Whether what is not finite is made of zeros."""
    of_elements = (tensor for tensor in tensors_of(args[:1]) if tensor.shape == returned.shape)
    return any(bool(((tensor == 0) & ~returned.isfinite()).any()) for tensor in of_elements)


def are_finite(value: Any) -> bool:
    """Whether all numbers, and those of all tensors, in arguments or results are finite."""
    numbers = (item for item in _items_of(value) if isinstance(item, float))
    return all(map(math.isfinite, numbers)) and all(bool(tensor.isfinite().all()) for tensor in tensors_of(value))


def _has_nan(value: Any) -> bool:
    return any(bool(tensor.isnan().any()) for tensor in tensors_of(value))


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Dense floating tensors, with at least one element, in an operation's arguments or results."""
    for item in _items_of(value):
        if isinstance(item, Tensor) and item.is_floating_point() and item.layout == torch.strided and item.numel():
            yield item


def _items_of(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _items_of(item)
    else:
        yield value


def no_overflow_where_the_true_value_fits(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """In float16 the value is finite wherever the true value and all elements on the way fit with a margin of 4.

        4 max(|x|, |L|, |intermediate elements|) <= 65504   implies   |L_16(x)| < inf

    The inputs are scaled up by the largest power of two for which that holds.  Only tensors of fewer elements than the
    largest input may be larger on the way, which are sums and what they are multiplied by or divided: what is divided
    afterwards need not be, as a mean or a wider accumulator shows.  In float32 nothing is asked: there every plain mean of
    numbers near 1e38 overflows, PyTorch's own too, and nobody trains with such numbers.
    """
    for trial in trials[:1]:
        trial.base  # noqa: B018 - a loss that raises is B01's
        if torch.float16 not in asked(trial):
            raise NotApplicable("the loss does not take float16")
        case = _large(trial)
        names, exact = _scalable(trial.spec), _exact(trial, case)
        tensors = _scaled(exact, names, _largest_fitting(trial, exact, names))
        low = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
        first = FirstOverflow()
        try:
            output = trial.output(low, mode=first)
        except LossRaised as raised:
            raise NotApplicable(f"no float16: {told_in_a_line(raised.error)}") from raised
        if is_finite(output):
            continue
        # A kernel of PyTorch's, such as mse_loss, which on the CPU sums in float16.
        if first.name and first.name not in _LINEAR:
            raise NotApplicable(f"aten.{first.name} overflows inside, which other devices accumulate in float32")
        true = trial.output(tensors)
        peak = max(float(low[name].abs().max()) for name in names)
        worst = output.reshape(-1)[~output.reshape(-1).isfinite()][0]
        yield Mismatch(
            f"loss in float16 with {' and '.join(names)} up to {peak:.4g} ({low[names[0]].numel()} elements)",
            f"{describe(float(worst))}, since {f'aten.{first.name}' if first.name else 'a kernel of its own'} overflows",
            f"{float(true.reshape(-1)[0]):.4g}, which float16 holds",
            aspect="overflow",
            kind="value",
            finite=False,
            tensors=low,
            code=_OVERFLOW_CODE,
            hint=_mend(first),
        )


def _large(trial: Trial) -> Case:
    """The case with all sizes equal and as large as `ELEMENTS` allows, and what a forward takes."""
    size = equal_sizes(trial.spec, trial.case, ELEMENTS)
    lengths = [*(n for n in DOUBLINGS if n < size), size]
    made = grown(partial(equally_sized, trial), trial.cache, lengths)
    return equally_sized(trial, made[-1][0] if made else 2).case


def _mend(first: FirstOverflow) -> str:
    if not first.name:
        return _IN_A_KERNEL
    return _IN_A_SUM if first.name in _SUMS else _OF_SUMS.format(first.placed)


def _exact(trial: Trial, case: Case) -> dict[str, Tensor]:
    """The tensors of a case, rounded to float16 and held in the widest dtype that the loss takes."""
    return trial.widened(case.materialize(trial.spec, dtype=torch.float16, device=trial.device))


def _scaled(tensors: Mapping[str, Tensor], names: Sequence[str], exponent: int) -> dict[str, Tensor]:
    return {n: t * 2.0**exponent if n in names else t for n, t in tensors.items()}


def _largest_fitting(trial: Trial, exact: Mapping[str, Tensor], names: Sequence[str]) -> int:
    """The largest exponent at which the value and what is inherent on the way fit float16, by bisection.

    Raises:
        NotApplicable: they do not fit even as drawn.
    """
    elements = max(exact[name].numel() for name in names)

    def fits(exponent: int) -> bool:
        seen = Magnitudes(elements)
        output = trial.output(_scaled(exact, names, exponent), mode=seen)
        if not is_finite(output):
            return False
        given = max(float(exact[name].abs().max()) for name in names) * 2.0**exponent
        returned = float(output.abs().max()) if output.numel() else 0.0
        largest = max(seen.largest, given, returned) * MARGIN
        return largest <= torch.finfo(torch.float16).max

    if not fits(0):
        raise NotApplicable("the value or its elements do not fit float16")
    low, high = 0, LARGEST_EXPONENT
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


_OVERFLOW_CODE = """
    print("float16:", loss(**tensors))
    print("float64:", loss(**{n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}))
"""


def _has_scalable(spec: LossSpec, name: str) -> str | None:
    if spec.role(name) == "reference":
        return "it is the reference, whose range in float16 nobody needs"
    return None if _scalable(spec) else "no input may be scaled up: their domains are bounded or have a scale"


def _scalable(spec: LossSpec) -> list[str]:
    return [n for n, t in spec.inputs.items() if t.domain.scalable and not t.domain.nan and t.dtype is None]


RULES = (
    Rule(
        code="D03",
        title="no overflow where the true value fits",
        draws_anew="another dtype draws other numbers",
        group="overflow",
        severity="warning",
        check_all=no_overflow_where_the_true_value_fits,
        applies=_has_scalable,
        regimes={"distinct": 1},
        smooth=True,
        why="The mean of a large batch is small, its sum is not: in float16 the loss is infinite from one batch size on.",
        example="((predictions - labels) ** 2).sum() / predictions.numel()      # the sum passes 65504",
        mend="`.mean()`, or `.sum(dtype=torch.float32) / n` and a cast back.",
        source="huggingface/transformers#25938; chainer/chainer#6366.",
    ),
)
