"""Rules about what grows faster than the data: P01, P03."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.calls.aten.calls import tensors_in
from harness.calls.aten.kernels import Kernel, kernel_of
from harness.calls.aten.storages import Storages, address, components
from harness.calls.evaluation import LossRaised
from harness.calls.watch import Calls, TooManyOperations, Watch
from harness.declare import dims
from harness.declare.dims import Size
from harness.declare.spec import LossSpec
from harness.drawing.case import Case
from harness.errors import NotApplicable
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools.sizes import (
    OPERATIONS,
    equal_sizes,
    expected_elements,
    growable,
    one,
    repeated_code,
    resized,
    uniform,
)
from harness.rules.trial import Trial

CALL_SIZES = (2, 4, 8, 16, 32)  # the last where four say neither: a loop may skip what is not in the data
# Of all symbols together, where N^4 elements still fit anywhere, and of one while the others are 2, where its highest power stands out.
LARGEST_SIZE, ELEMENTS = 32, 1024
MOST_BYTES = 2**27  # that a forward is expected to make: 128 MiB
DISTINCT = (5, 7, 9, 11, 13, 17, 19, 23)  # of the symbols in their order, where axes are told apart by their sizes
HIGHEST_POWER = 2**5  # as many times the operations at twice the length are those of a loop in loops; more never end
HALF_A_POWER = 0.5  # exponents are whole numbers; lower orders beside them shift what is measured by less than this


class Memory(Calls):
    """Records the most bytes that a forward has made at a time, and those that the graph keeps, the inputs apart."""

    def __init__(self, given: Mapping[str, Tensor], most: float = math.inf) -> None:
        super().__init__(most)
        self.storages = Storages()
        self._given = {address(part.untyped_storage()) for tensor in given.values() for part in components(tensor)}

    def _see(self, func: Any, args: Any, kwargs: Any) -> Any:
        returned, kernel = super()._see(func, args, kwargs), kernel_of(func)
        if kernel.moves:
            arguments = [t for value in (*args, *kwargs.values()) for t in tensors_in(value)]
            given = {address(part.untyped_storage()) for tensor in arguments for part in components(tensor)}
            results = [part for tensor in tensors_in(returned) for part in components(tensor)]
            self.storages.make([part for part in results if address(part.untyped_storage()) not in given])
        elif kernel.lifts:
            self.storages.make(components(returned))
        return returned

    def pack(self, tensor: Tensor) -> Tensor:
        """Record what the graph saves."""
        if not any(address(part.untyped_storage()) in self._given for part in components(tensor)):
            self.storages.save(tensor)
        return tensor.detach()  # an output that is returned as it is would hold the graph that holds it


class Made(NamedTuple):
    """One operation on the way: the shapes that it takes, and the one that it gives."""

    kernel: Kernel
    taken: Sequence[torch.Size]
    given: torch.Size
    power: object

    def is_like(self, other: Made) -> bool:
        """Whether it is the same operation, perhaps at other sizes."""
        return self.kernel.name == other.kernel.name and len(self.given) == len(other.given)


class Makers(Watch):
    """Records the operations that make dense tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Made] = []
        self.chosen: Made | None = None

    def _see(self, func: Any, args: Any, kwargs: Any) -> Any:
        returned, kernel = func(*args, **kwargs), kernel_of(func)
        if kernel.moves and isinstance(returned, Tensor):
            taken = [value.shape for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            self.made.append(Made(kernel, taken, returned.shape, args[1] if kernel.name == "pow" else None))
        return returned

    @property
    def largest(self) -> Made:
        """The first operation that makes a tensor as large as any, here or where another run has chosen it."""
        return self.chosen or max(self.made, key=lambda made: made.given.numel())

    def choose(self, other: Makers) -> None:
        """Choose the operation that makes the largest tensor of a run at other sizes, where another may be the largest here.

        A loop has another number of operations there: it is the one that comes as often before, of those that are alike.
        """
        first = other.largest
        before = other.made[: next(n for n, made in enumerate(other.made) if made is first)]
        alike = [made for made in self.made if made.is_like(first)]
        count = sum(made.is_like(first) for made in before)
        self.chosen = alike[count] if count < len(alike) else None

    @property
    def inherent(self) -> bool:
        """Whether no product of matrices makes the largest tensor superfluous.

        It is the result of one itself, or each of its elements goes through what is no polynomial before it is summed, and
        the sum is not that of a distance: over the axes alone along which both sides have values.
        """
        first = self.largest
        size = first.given.numel()
        full = [made for made in self.made if made.given.numel() == size]
        if not first.kernel.pointwise:
            return first.kernel.name in _PRODUCTS
        if all(made.kernel.name in _POLYNOMIAL or made.power in _WHOLE or not made.kernel.pointwise for made in full):
            return all(shape.numel() != size for made in self.made for shape in made.taken)  # nobody sums it
        wide = [torch.Size([*[1] * (len(first.given) - len(shape)), *shape]) for shape in first.taken]
        shared = [n for n, *sides in zip(first.given, *wide, strict=True) if n > 1 and set(sides) == {n}]
        summed = [made for made in self.made if made.given.numel() < size and first.given in made.taken]
        return not any(Counter(made.given) + Counter(shared) >= Counter(first.given) for made in summed)


# What contracts, and what adds and multiplies element by element: sums of the latter can be written as the former.
_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "mv", "convolution", "_cdist_forward", "_euclidean_dist"}
_POLYNOMIAL = {"add", "sub", "rsub", "mul", "div", "neg", "square", "clone", "where", "masked_fill"}
_WHOLE = (2, 3, 4)


def operations_do_not_grow_with_the_data(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """The number of operations is the same at every size: the data grow inside the kernels, not around them.

        calls(4 n) - calls(2 n) = calls(2 n) - calls(n) = 0      each symbol by itself

    A loop takes twice as many more each time that the data double, and that twice in a row: a reduction by halves takes
    one step more at each, and where another path is taken from some size on, the number jumps there and then stays.
    """
    for trial in trials[:1]:
        trial.base  # noqa: B018 - a loss that raises is B01's
        base = resized(trial.spec, trial.case, uniform(trial.spec, CALL_SIZES[0]))
        growing = {}
        for symbol in growable(trial.spec):
            counts: list[float] = []
            for size in CALL_SIZES:
                counts.append(_calls(trial, resized(trial.spec, base, one(trial.spec, symbol, size)), counts))
                if _is_a_loop(counts):
                    growing[symbol] = counts
                if symbol in growing or (len(counts) > 2 and counts[-1] <= counts[-2]):
                    break
                if len(counts) > 3 and not _doubles(counts):
                    break
        if not growing:
            continue
        told = [f"{' -> '.join(map(_count, counts))} as {symbol} doubles" for symbol, counts in growing.items()]
        yield Mismatch(
            "ATen calls in one forward",
            "; ".join(told),
            "the same number at every size",
            severity="note" if trial.is_reference else None,
            tensors=trial.at(base).tensors(),
            code=_calls_code(trial, base, next(iter(growing))),
            hint=f"replace the Python loop over {' and '.join(growing)} by operations on whole tensors",
        )


def _is_a_loop(counts: Sequence[float]) -> bool:
    return counts[-1] == math.inf or (len(counts) > 3 and _doubles(counts[:-1]) and _doubles(counts))


def _count(count: float) -> str:
    return f"more than {OPERATIONS}" if count == math.inf else f"{count}"


def _doubles(counts: Sequence[float]) -> bool:
    """Whether the last doubling of the data added about twice as many calls as the one before."""
    first, second = counts[-2] - counts[-3], counts[-1] - counts[-2]
    return first > 0 and second > 1.5 * first


def _calls(trial: Trial, case: Case, before: Sequence[float]) -> float:
    """Operations of a forward; infinite where they are more than `OPERATIONS` and more than `HIGHEST_POWER` makes of those before."""
    tensors = trial.leaves(trial.at(case).tensors())
    most = max(OPERATIONS, HIGHEST_POWER * before[-1]) if before else math.inf
    built, seen = trial.candidate.build(tensors), Calls(most)
    try:
        with seen:
            trial.candidate.call(built, tensors)
    except LossRaised as raised:
        if isinstance(raised.error, TooManyOperations):
            return math.inf
        raise
    return seen.count


def _calls_code(trial: Trial, case: Case, symbol: str) -> str:
    """Lines that count calls while the tensors are repeated along a symbol."""
    return f"""
        from torch.profiler import profile
        for times in (1, 2, 4):
            given = {repeated_code(trial.spec, case, symbol)}
            with profile() as seen:
                loss(**given)
            print("{symbol} x", times, sum(event.count for event in seen.key_averages() if event.key.startswith("aten::")))
    """


def memory_grows_like_the_data(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """What is saved for backward, and what is alive at a time, grow no faster than they must.

        bytes(2 n) / bytes(n) = 2^e:      e <= e_ref for every symbol,      e <= axes of the largest declared tensor, or 2

    Without a reference, the exponent is that of all symbols growing together: an N x N x D tensor of differences of
    N x D rows has 3.  A matrix of pairs is common and passes; with a reference that has none, it does not.  So does what
    no product of matrices replaces: the result of one, as of filters and images, or pairs whose every element is needed,
    as |x_i - x_j| of the members of an ensemble in each of many places.
    """
    for trial in trials[:1]:
        trial.base  # noqa: B018 - a loss that raises is B01's
        if not growable(trial.spec):
            raise NotApplicable("every size is fixed")
        found = _degree(trial)
        if (
            found is None
            and trial.spec.role(trial.implementation) == "candidate"
            and len(trial.spec.implementations) > 1
        ):
            found = _faster_than_the_reference(trial)
        if found is not None:
            yield found


def _degree(trial: Trial) -> Mismatch | None:
    """More memory than a tensor of as many axes as the data has, in one tensor or in many."""
    spec = trial.spec
    size = min(equal_sizes(spec, trial.case, ELEMENTS), LARGEST_SIZE) // 2 * 2
    sizes, taken = _footprints(trial, lambda n: resized(spec, trial.case, uniform(spec, n)), size, OPERATIONS)
    made = [footprint.peak for footprint in taken]
    declared = [t.dims for t in (*spec.tensors.values(), *filter(None, [spec.output]))]
    axes = max(len(dims.axes(text, {**trial.case.sizes, **uniform(spec, size)})) for text in declared)
    exponent = _exponent(sizes, made)
    if exponent <= max(axes, 2) + HALF_A_POWER:
        return None
    makers, made_by = _makers(trial, uniform(spec, sizes[1]))
    if makers.inherent:
        return None
    symbols = " and ".join(growable(spec))
    return Mismatch(
        f"the most memory at a time as {symbols} double from {sizes[0]} to {sizes[1]}",
        f"{made[0]} -> {made[1]} bytes, the power {exponent:.1f}",
        f"at most the power {max(axes, 2)}, as the largest of the tensors declared",
        aspect="degree",
        severity="note" if trial.is_reference else None,
        tensors=trial.tensors(),
        code=_MEMORY_CODE,
        hint="contract before the pairs are made: |a - b|^2 = |a|^2 + |b|^2 - 2 a.b by one matrix product, torch.cdist, or blocks of rows",
        note=made_by,
    )


class Footprint(NamedTuple):
    """What one forward takes: the most bytes made at a time, those saved for backward, and the operations."""

    peak: int
    saved: int
    operations: int


def _footprints(
    trial: Trial, at: Callable[[int], Case], size: int, most: float = 0.0
) -> tuple[tuple[int, int], tuple[Footprint, Footprint]]:
    """(half of a size and that size, what a forward takes at each); of one that is too much, smaller ones, down to 2 and 4.

    Args:
        trial: the implementation.
        at: the case of a size.
        size: is halved, and reached from below: whoever takes 8! steps with 8 rows is not asked with 16.
        most: operations that are too many; by default those that no loop in loops makes of the ones before.

    Raises:
        NotApplicable: the loss raises under hooks on saved tensors.
    """
    lengths = [size >> power for power in range(max(size.bit_length() - 2, 1), -1, -1)]
    made: list[tuple[int, Footprint]] = []
    for length in lengths:
        if expected_elements([(n, max(taken.peak, 1)) for n, taken in made], length) > MOST_BYTES:
            break
        bound = (most or max(OPERATIONS, HIGHEST_POWER * made[-1][1].operations)) if len(made) > 1 else math.inf
        try:
            made.append((length, _footprint(trial, at(length), bound)))
        except TooManyOperations:
            break
    (shorter, before), (longer, last) = made[-2:]
    return (shorter, longer), (before, last)


def _makers(trial: Trial, measured: Mapping[str, Size]) -> tuple[Makers, str]:
    """What makes the largest tensor at sizes that were measured, at sizes that tell one symbol from another, and in words."""
    extents = dict(zip(growable(trial.spec), DISTINCT, strict=False))
    makers = _makers_at(trial, {symbol: (n,) if symbol in trial.spec.variadic else n for symbol, n in extents.items()})
    makers.choose(_makers_at(trial, measured))
    if makers.chosen is None:
        return makers, ""
    named = {n: symbol for symbol, n in extents.items()}
    shape = ", ".join(str(named.get(n, n)) for n in makers.chosen.given)
    return makers, f"the largest tensor is [{shape}], the result of {makers.chosen.kernel.name}"


def _makers_at(trial: Trial, sizes: Mapping[str, Size]) -> Makers:
    tensors = trial.leaves(trial.at(resized(trial.spec, trial.case, sizes)).tensors())
    built, makers = trial.candidate.build(tensors), Makers()
    with makers:
        trial.candidate.call(built, tensors)
    return makers


def _faster_than_the_reference(trial: Trial) -> Mismatch | None:
    spec = trial.spec
    base = resized(spec, trial.case, uniform(spec, 2))
    for symbol in growable(spec):

        def at(size: int, symbol: str = symbol) -> Case:
            return resized(spec, base, one(spec, symbol, size))

        sizes, taken = _footprints(trial, at, LARGEST_SIZE)
        mine = [max(footprint.peak, footprint.saved) for footprint in taken]
        power = _exponent(sizes, mine)
        if power <= _declared_power(spec, symbol) + HALF_A_POWER:
            continue
        reached, taken = _footprints(trial.of(spec.reference), at, sizes[1])
        theirs = [max(footprint.peak, footprint.saved) for footprint in taken]
        if reached != sizes or power <= _exponent(sizes, theirs) + HALF_A_POWER:
            continue
        return Mismatch(
            f"bytes made and saved as {symbol} doubles from {sizes[0]} to {sizes[1]}",
            f"{mine[0]} -> {mine[1]}, the power {power:.1f}",
            f"{theirs[0]} -> {theirs[1]}, the power {_exponent(sizes, theirs):.1f}, as in the reference",
            aspect=f"grows with {symbol}",
            tensors=trial.tensors(),
            code=_MEMORY_CODE,
            note=_makers(trial, {**uniform(spec, 2), **one(spec, symbol, sizes[1])})[1],
            hint=f"the reference needs no tensor with {symbol} twice: sum over {symbol} in another order, or in blocks",
        )
    return None


_MEMORY_CODE = """
    saved = {}
    keep = lambda tensor: saved.setdefault(tensor.untyped_storage().data_ptr(), tensor)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(**tensors)
    print(sorted((list(tensor.shape) for tensor in saved.values()), key=len))
"""


def _declared_power(spec: LossSpec, symbol: str) -> int:
    """How often a symbol stands in one tensor, at most; at least 1, since nothing is wrong with linear growth."""
    return max([1, *(sum(symbol in dim.symbols for dim in dims.parse(t.dims)) for t in spec.tensors.values())])


def _footprint(trial: Trial, case: Case, most: float) -> Footprint:
    tensors = trial.leaves(trial.candidate.placed(trial.at(case).tensors()))
    built, seen = trial.candidate.build(tensors), Memory(tensors, most)
    try:
        with torch.autograd.graph.saved_tensors_hooks(seen.pack, lambda tensor: tensor), seen:
            trial.candidate.call(built, tensors)
    except LossRaised as raised:
        if isinstance(raised.error, TooManyOperations):
            raise raised.error from None
        raise NotApplicable(f"the loss raises under hooks on saved tensors: {raised}") from raised
    return Footprint(seen.storages.peak_bytes, seen.storages.saved_bytes(), seen.count)


def _exponent(sizes: Sequence[int], made: Sequence[int]) -> float:
    return math.log(max(made[1], 1) / max(made[0], 1)) / math.log(sizes[1] / sizes[0])


RULES = (
    Rule(
        code="P01",
        title="the number of operations does not grow with the data",
        group="growth",
        severity="warning",
        check_all=operations_do_not_grow_with_the_data,
        regimes={"distinct": 1},
        smooth=True,
        why="A Python loop over samples launches a kernel for each: on a GPU it is hundreds of times slower than one kernel for all.",
        example="for prediction, label in zip(predictions, labels): total = total + (prediction - label) ** 2",
        mend="Operate on whole tensors; gather, scatter_add and masks stand for the loop's ifs.",
        source="PyTorch performance tuning guide.",
    ),
    Rule(
        code="P03",
        title="memory grows like the data",
        group="growth",
        severity="warning",
        check_all=memory_grows_like_the_data,
        regimes={"distinct": 1},
        smooth=True,
        why="An N x N x D tensor of differences is gigabytes at a batch of a few thousand, where its N x N distances are megabytes.",
        example="((z[:, None, :] - z[None, :, :]) ** 2).sum(-1)",
        mend="Contract first: a matrix product, torch.cdist, einsum, or blocks of rows.",
        source="KeOps, 'Kernel operations on the GPU, with autodiff, without memory overflows', JMLR 22, 2021.",
    ),
)
