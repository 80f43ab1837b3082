"""What is added to a finding once it is known: where values are lost, and which number a gradient is of."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from harness.calls.aten.calls import tensors_in
from harness.calls.evaluation import LossRaised
from harness.calls.watch import Watch
from harness.declare.dims import Size
from harness.errors import NotApplicable, told_in_a_line
from harness.rules.dtypes.overflow import FirstOverflow, are_finite
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools.compare import same_output
from harness.rules.tools.detach import placed
from harness.rules.tools.instead import computed_instead
from harness.rules.tools.made import copied
from harness.rules.tools.sizes import growable, one, resized, with_room
from harness.rules.trial import Trial, contract

_PRIMES = (5, 7, 3, 2)  # sizes whose products tell which axes a factor is of
_PUT = {"index_put", "index_put_", "_index_put_impl_"}
_ALONG = {"scatter", "scatter_", "index_copy", "index_copy_"}
_OF_A_SUM = (
    "the loss returns a tensor L: the gradient is that of the weighted sum of its elements, sum_i w_i L_i with "
    "w_i = 1 + frac(0.6180339887 i), i = 0, 1, ... in the order of reshape(-1)"
)


def remarked(rule: Rule, trial: Trial, mismatch: Mismatch) -> Mismatch:
    """The finding of a rule, with what one more evaluation at its tensors shows.

    Args:
        rule: that found it.
        trial: the loss at the case that shows it.
        mismatch: what was found.
    """
    try:
        if mismatch.kind == "gradient" and trial.base.output.ndim:
            mismatch = with_note(mismatch, _OF_A_SUM)
        for remark in rule.remarks:
            mismatch = remark(trial, mismatch)
    except (LossRaised, NotApplicable):
        pass
    except Exception as error:  # whatever breaks here, what was found stays found
        mismatch = with_note(mismatch, f"what more there is to say could not be found out: {told_in_a_line(error)}")
    return mismatch


def beside_the_reference(trial: Trial, mismatch: Mismatch) -> Mismatch:
    """Where the value is another: by which factor, or what the loss computes instead."""
    if mismatch.kind != "value" or mismatch.aspect == "train":
        return mismatch
    beside = _beside_the_reference(trial, mismatch)
    instead = computed_instead(trial) if beside is mismatch else ""
    return replace(beside, hint=instead) if instead else beside


def lost_values(trial: Trial, mismatch: Mismatch) -> Mismatch:
    """Where several numbers are written to one element and one is kept."""
    if mismatch.tensors is None:
        return mismatch
    lost = LostValues()
    with lost:
        trial.run(copied(mismatch.tensors))
    if not lost.places:
        return mismatch
    places = ", ".join(dict.fromkeys(lost.places))
    kept = "where an index comes twice, one value is kept and the others are lost"
    hint = "add them: x.index_add(0, index, values), scatter_add, or index_put((index,), values, accumulate=True)"
    return replace(with_note(mismatch, f"{places}: {kept}"), hint=hint)


def _beside_the_reference(trial: Trial, mismatch: Mismatch) -> Mismatch:
    """Where generic values at sizes that all differ show a factor, or no difference: the reduction, or what is special here."""
    spec = trial.spec
    try:
        sizes = _of_primes(trial)
        generic = trial.at(resized(spec, trial.case, sizes))
        came, should = generic.base, generic.of(spec.reference).base
    except NotApplicable:
        return mismatch
    if came.output.ndim or not came.finite or not should.finite or not should.scalar:
        return mismatch
    lengths = {symbol: size[0] if isinstance(size, tuple) else size for symbol, size in sizes.items()}
    shown = ", ".join(f"{symbol}={size}" for symbol, size in sizes.items())
    if same_output(came.output, should.output, generic.of(spec.reference).scale.with_eps(generic.eps)) is None:
        return with_note(
            mismatch, f"with generic values at {shown} the two agree: look at what is special or equal here"
        )
    for count in range(1, len(lengths) + 1):
        for symbols in combinations(lengths, count):
            product = math.prod(lengths[symbol] for symbol in symbols)
            for factor, text in ((product, "times"), (1 / product, "divided by")):
                if math.isclose(came.scalar, should.scalar * factor, rel_tol=1e-6):
                    more, less = ("sums", "averages") if text == "times" else ("averages", "sums")
                    axes = " and ".join(symbols)
                    note = f"at {shown} it is the reference's value {text} {product}"
                    return replace(with_note(mismatch, note), hint=f"it {more} over {axes} where the reference {less}")
    return mismatch


def _of_primes(trial: Trial) -> dict[str, Size]:
    """Prime sizes, in the first order that leaves room for what is computed of them; raised where none does."""
    spec, raised = trial.spec, []
    symbols = growable(spec)[: len(_PRIMES)]
    for primes in permutations(_PRIMES, len(symbols)):
        sizes = {k: v for s, n in zip(symbols, primes, strict=True) for k, v in one(spec, s, n).items()}
        given = with_room(spec, trial.case, sizes)
        raised.append({symbol: given[symbol] for symbol in symbols})
        if raised[-1] == sizes:
            return sizes
    return raised[0]


def first_not_finite(trial: Trial, mismatch: Mismatch) -> Mismatch:
    """Where a number is not finite: which operation of the forward makes the first one, or which one's gradient is the first."""
    if mismatch.finite:
        return mismatch
    first, tensors = FirstOverflow(), copied(mismatch.tensors or {})
    trial.run(tensors, wrt=(), mode=first)
    if first.of_infinities:
        noted = with_note(mismatch, f"{first.of_infinities} makes NaN of infinities that were written down")
        return replace(noted, hint=_INFINITIES)
    if not first.name:
        place = first_in_backward(trial, tensors)
        return with_note(mismatch, f"the gradient of {place} is the first that is not finite") if place else mismatch
    noted = with_note(mismatch, f"{first.placed} makes the first number that is not finite")
    if first.name not in _OVERFLOWS or not first.is_large:
        return noted
    return replace(noted, hint=f"{first.name} overflows: {_OVERFLOWS[first.name]}; or narrow the domain")


def first_in_backward(trial: Trial, tensors: Mapping[str, Tensor]) -> str:
    """The operation of the forward, and where it is called, whose backward makes the first gradient that is not finite."""
    made, leaves = MadeBy(), trial.leaves(tensors)
    value = contract(trial.output(leaves, mode=made))
    found: list[str] = []

    def look(place: str, gradients: Sequence[Tensor | None], upstream: Sequence[Tensor | None]) -> None:
        if not found and not are_finite(gradients) and are_finite(upstream):
            found.append(place)

    handles = [node.register_hook(functools.partial(look, place)) for node, place in made.places.items()]
    try:
        torch.autograd.grad(value, [t for t in leaves.values() if t.requires_grad], allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


_INFINITIES = "inf - inf and a softmax of nothing but -inf are NaN: write torch.finfo(x.dtype).min, or leave out what is hidden altogether"
_OVERFLOWS = {
    "exp": "subtract the maximum first, or use logsumexp, log_softmax, softplus, sigmoid or expm1 where they fit",
    "pow": "divide by the largest element first, or work with logarithms",
}


def with_note(mismatch: Mismatch, note: str) -> Mismatch:
    """The same mismatch with a further remark."""
    return replace(mismatch, note="; ".join(text for text in (mismatch.note, note) if text))


class MadeBy(TorchFunctionMode):
    """Records which call has made each node of the graph, and where it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[Node, str] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        graph = [tensor.grad_fn for tensor in tensors_in(returned)]
        while graph:
            node = graph.pop()
            if node is not None and node not in self.places:
                own = isinstance(node, torch.autograd.function.BackwardCFunction)
                name = getattr(func, "__name__", "").strip("_")
                self.places[node] = node.name().removesuffix("Backward") if own else placed(f"{name}()")
                graph += [following for following, _ in node.next_functions]
        return returned


class LostValues(Watch):
    """Records which lines write several numbers to one element and keep one: ``x[i] += y`` where an index comes twice."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def _see(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = func.overloadpacket.__name__
        if (name in _PUT or name in _ALONG) and _loses(name, args, kwargs):
            self.places.append(placed(name.strip("_")))
        return func(*args, **kwargs)


def _loses(name: str, args: Sequence[Any], kwargs: Any) -> bool:
    adds = (args[3] if len(args) > 3 else kwargs.get("accumulate", False)) if name in _PUT else "reduce" in kwargs
    values = args[2] if name in _PUT else args[3] if len(args) > 3 else kwargs.get("src")
    if adds or not isinstance(values, Tensor) or not values.is_floating_point() or values.numel() < 2:
        return False
    if name in _PUT:
        given = [index for index in args[1] if index is not None]
        if any(index.dtype in (torch.bool, torch.uint8) for index in given):
            return False
        written = torch.stack([index.reshape(-1) for index in torch.broadcast_tensors(*given)])
        return bool(written.shape[1] > torch.unique(written, dim=1).shape[1])
    positions = args[2].movedim(args[1], 0) if args[2].ndim else args[2].reshape(1)
    ordered = positions.sort(0).values
    return bool((ordered[1:] == ordered[:-1]).any())
