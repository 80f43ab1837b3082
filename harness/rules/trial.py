"""A trial: one case given to one implementation, with the evaluations that rules share."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from harness.calls import devices, tolerance
from harness.calls.evaluation import RNG_SEED, Candidate, LossRaised, Precision, begin_draws, differentiated
from harness.calls.watch import Watch
from harness.declare.spec import LossSpec
from harness.drawing.case import Case
from harness.isolation import worker
from harness.rules.tools.detach import DetachTape
from harness.rules.tools.made import copied, normal, on_the_cpu
from harness.rules.tools.rounded import Rounded

T = TypeVar("T")

NUDGE = 1e-3  # far above every step of a difference quotient, far below the distance of lattice values


@dataclass(frozen=True)
class Run:
    """One evaluation: the output, the scalar that stands for it, and the gradients of that scalar.

    A loss that returns more than one number (``reduction="none"``) is contracted with fixed positive cotangents.
    ``connected`` says whether the output hangs on a graph; a gradient is ``None`` where the input is not on it.
    """

    output: Tensor
    scalar: float
    gradients: Mapping[str, Tensor | None]
    connected: bool

    @cached_property
    def finite(self) -> bool:
        """Whether the value and every gradient are finite."""
        return is_finite(self.output) and all(g is None or is_finite(g) for g in self.gradients.values())


def is_finite(values: Tensor) -> bool:
    """Whether all of some values are finite: nearly always their sum is, which is had with one operation for four."""
    return math.isfinite(values.sum()) or bool(values.isfinite().all())


# Operations that return memory as it was found, and those of which a later output is filled only as far as a sample needs it.
UNSET = {"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"}
_FIRST_OUTPUT_ALONE = {"_ctc_loss", "_cudnn_ctc_loss"}


class Intermediates(Watch):
    """Records the largest finite absolute value that any operation returns; memory that nobody has written is no value."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0.0

    def _see(self, func: Any, args: Any, kwargs: Any) -> Any:
        returned = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name in UNSET:
            return returned
        items = returned if isinstance(returned, (tuple, list)) else (returned,)
        for item in items[:1] if name in _FIRST_OUTPUT_ALONE else items:
            if isinstance(item, Tensor) and item.is_floating_point() and item.layout == torch.strided and item.numel():
                self.largest = max(self.largest, _largest_finite(item.detach()))
        return returned


def _largest_finite(values: Tensor) -> float:
    # masked_fill(-inf or finfo.min) is a marker, not a number that is computed with
    limit = torch.finfo(values.dtype).max
    low, high = (abs(float(extreme)) for extreme in torch.aminmax(values))  # both NaN where any element is
    if low < limit and high < limit:
        return max(low, high)
    finite = torch.nan_to_num(values.abs().double(), nan=0.0, posinf=0.0)
    finite = finite[finite < limit]
    return float(finite.max()) if finite.numel() else 0.0


class Scale:
    """What rounding may do to a loss at a point; measured where it is asked for, since most numbers are equal.

    Args:
        measure: gives `condition` and `intermediate`.
        eps: of the precision in which the loss computes.
    """

    def __init__(self, measure: Callable[[], tuple[float, float]], eps: float = tolerance.EPS64) -> None:
        self.eps = eps
        self._measure = measure

    @property
    def condition(self) -> float:
        """Sum |x dL/dx| over all floating tensors, the first-order effect of a relative change of all of them."""
        return self._measured[0]

    @property
    def intermediate(self) -> float:
        """The largest absolute value met on the way that counts."""
        return self._measured[1]

    @cached_property
    def _measured(self) -> tuple[float, float]:
        return self._measure()

    def same(self, value: float) -> float:
        """How far two correct evaluations of a number may be apart."""
        return tolerance.same(value, self.condition, self.intermediate, self.eps)

    def with_eps(self, eps: float) -> Scale:
        """The same point, compared with what computes in a coarser precision."""
        return Scale(lambda: self._measured, max(self.eps, eps))


class Trial:
    """One case given to one implementation.

    Beside candidates on another device the reference is evaluated on the CPU: there a loop over elements is 5 to 20 times
    faster than with a kernel launched for each, and it is what the candidates are held to wherever they run.

    Args:
        spec: the declaration.
        implementation: the name of the implementation under test.
        case: the drawn example.
        cache: shared by all rules of one verification, so that one evaluation serves many.
        device: where the tensors are.
        exhaustive: whether rules also go through all special points of this case; a few cases are enough for that.  A function
            is called by whoever asks, as it may take evaluations to know.
        values_in: the dtype whose numbers the values are rounded to; by default the widest that the implementation takes.
    """

    def __init__(
        self,
        spec: LossSpec,
        implementation: str,
        case: Case,
        cache: dict[Any, Any] | None = None,
        device: str = "cpu",
        exhaustive: bool | Callable[[], bool] = True,
        values_in: torch.dtype | None = None,
    ) -> None:
        self.spec = spec.without([name for name in spec.optional if name not in case.tensors])
        self.implementation = implementation
        self.case = case
        self.cache: dict[Any, Any] = {} if cache is None else cache
        self.latest: list[Case] = self.cache.setdefault(("latest",), [])  # what was looked at last, in whatever trial
        self.device = device
        self.exhaustive = exhaustive
        self.is_reference = self.spec.role(implementation) == "reference"
        self.precision: Precision = self.cache.get(("precision", implementation), Precision())
        self.values_in = self.precision.takes if values_in is None else values_in
        elsewhere = "cpu" if self.is_reference and not devices.is_cpu(device) else None
        self._candidate_key = ("candidate", implementation, elsewhere, tuple(self.spec.tensors))
        if self._candidate_key not in self.cache:
            self.cache[self._candidate_key] = Candidate(self.spec, implementation, elsewhere)
        self.candidate: Candidate = self.cache[self._candidate_key]

    @property
    def exhaustive(self) -> bool:
        """Whether rules also go through all special points of this case."""
        return self._exhaustive if isinstance(self._exhaustive, bool) else self._exhaustive()

    @exhaustive.setter
    def exhaustive(self, value: bool | Callable[[], bool]) -> None:
        self._exhaustive = value

    def of(self, implementation: str) -> Trial:
        """The same case, with the same values, given to another implementation."""
        return Trial(self.spec, implementation, self.case, self.cache, self.device, values_in=self.values_in)

    def at(self, case: Case) -> Trial:
        """Another case given to the same implementation."""
        if case.tensors.keys() != self.case.tensors.keys():  # optional tensors make another spec
            return Trial(self.spec, self.implementation, case, self.cache, self.device, values_in=self.values_in)
        moved = copy.copy(self)
        moved.case, moved.exhaustive = case, True
        return moved

    def apart(self, *, case: Case | None = None, spec: LossSpec | None = None, exhaustive: bool = True) -> Trial:
        """The same implementation on another case, or of a changed spec, with a cache that nobody shares."""
        of_all_cases: list[Any] = [(kind, n) for kind in ("precision", "backward") for n in self.spec.implementations]
        of_all_cases.append(("latest",))
        if spec is None:
            of_all_cases.append(self._candidate_key)
        known = {key: self.cache[key] for key in of_all_cases if key in self.cache}
        chosen = spec or self.spec, self.implementation, case or self.case
        return Trial(*chosen, known, self.device, exhaustive, values_in=self.values_in)

    @property
    def eps(self) -> float:
        """The part of itself by which the implementation rounds its value."""
        return self.precision.eps

    def tensors(self, dtype: torch.dtype | None = None, *, layouts: bool = False) -> dict[str, Tensor]:
        """Fresh tensors of the case, in the widest dtype that the implementation takes where none is named."""
        self.latest[:] = [self.case]
        worker.note(self.case.key)
        chosen = self.precision.takes if dtype is None else dtype
        if layouts:
            return self.case.materialize(self.spec, dtype=chosen, device=self.device, layouts=True)
        key = ("tensors", self.case.key, self.device)
        if key not in self.cache:
            self.cache[key] = self.case.materialize(
                self.spec, dtype=torch.float64, device=self.device, known=self.cache
            )
        made: dict[str, Tensor] = self.cache[key]
        return {name: self._cast(name, tensor, chosen) for name, tensor in made.items()}

    def _cast(self, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """A copy, since a loss may edit it."""
        declared = self.spec.tensors[name]
        if tensor.dtype != self.values_in and tensor.is_floating_point():
            tensor = tensor.to(self.values_in)
        return tensor.to(declared.domain.dtype(dtype, declared.dtype), copy=True)

    def widened(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same values in the widest dtype that the implementation takes; what declares a dtype keeps it."""
        takes, floating = self.precision.takes, {n: t for n, t in tensors.items() if t.is_floating_point()}
        declared = {n: self.spec.tensors[n] for n in floating}
        return {**tensors, **{n: t.to(declared[n].domain.dtype(takes, declared[n].dtype)) for n, t in floating.items()}}

    def generator(self, salt: int = 0) -> torch.Generator:
        """A local generator that depends on nothing but the case; of the CPU, so that each device gets the same numbers."""
        return torch.Generator().manual_seed(int(self.case.digest, 16) + salt)

    def another(self, name: str, values: Tensor, *, salt: int) -> Tensor:
        """Another draw of a tensor, in the shape, dtype and device of the values that it stands for."""
        domain, before = self.spec.tensors[name].domain, {}
        if domain.make is not None:
            names = list(self.spec.tensors)
            wide = self.case.materialize(self.spec, dtype=torch.float64)
            before = {n: wide[n].double() for n in names[: names.index(name)]}
        drawn = domain.sample(tuple(values.shape), self.generator(salt), self.case.sizes, tensors=before)
        return drawn.to(values)

    @property
    def base(self) -> Run:
        """The evaluation of the case in the widest dtype, shared by all rules.

        Raises:
            LossRaised: the loss raises on the case.
        """
        return self._shared("base", lambda: self.run(self.tensors()))

    @property
    def value(self) -> Tensor:
        """The output of `base`; its gradient is not taken for this.

        Raises:
            LossRaised: the loss raises on the case.
        """
        if self._key("base") in self.cache:
            return self.base.output
        return self._shared("value", lambda: self.output(self.leaves(self.tensors())).detach())

    def _key(self, what: str) -> tuple[Any, ...]:
        return (what, self.implementation, self.case.key, self.values_in, self.device)

    def _shared(self, what: str, evaluate: Callable[[], T]) -> T:
        """What an evaluation of the case gives, or raises; made once for all rules."""
        key = self._key(what)
        if key not in self.cache:
            try:
                self.cache[key] = evaluate()
            except LossRaised as error:
                self.cache[key] = error
        found = self.cache[key]
        if isinstance(found, LossRaised):
            raise found
        return found  # type: ignore[no-any-return]

    @property
    def scale(self) -> Scale:
        """What rounding may do to the evaluation of the case."""
        return self._shared("scale", lambda: self.measure_scale(self.tensors()))

    def measure_scale(self, tensors: Mapping[str, Tensor]) -> Scale:
        """What `scale` says, for other tensors."""
        return Scale(lambda: self.measure(tensors), self.eps)

    def measure(self, tensors: Mapping[str, Tensor]) -> tuple[float, float]:
        """(sum |x dL/dx| over all floating tensors, the largest absolute value met on the way that counts).

        A number that stands for minus infinity, -1e30 for the logarithm of nothing, is no number that is computed with: where
        rounding all that are so large, which alone could hide any other difference, moves neither value nor gradient, none counts.
        """
        wrt: tuple[str, ...] | None = tuple(name for name, tensor in tensors.items() if tensor.is_floating_point())
        recorder = Intermediates()
        try:
            found = self.run(tensors, wrt=wrt, mode=recorder)
        except LossRaised:  # some losses refuse targets that require grad
            wrt = None
            found = self.run(tensors, mode=recorder)
        terms = [(g * tensors[name]).abs().double() for name, g in found.gradients.items() if g is not None]
        condition = sum((float(torch.nan_to_num(term, posinf=0.0).sum()) for term in terms), 0.0)
        size = float(found.output.nan_to_num().abs().max()) if found.output.numel() else 0.0
        bound = max(1.0, size + condition) * tolerance.same_relative(self.eps) / tolerance.same_intermediate(self.eps)
        if recorder.largest > bound and self._is_without(tensors, wrt, bound, found):
            return condition, bound
        return condition, recorder.largest

    def _is_without(self, tensors: Mapping[str, Tensor], wrt: tuple[str, ...] | None, bound: float, found: Run) -> bool:
        """Whether value and gradient stay as they were found where every number above a bound is rounded, in either of two ways."""
        for salt in (91, 92):
            rounded = Rounded(tolerance.same_intermediate(self.eps), self.generator(salt), (bound, math.inf))
            try:
                run = self.run(tensors, wrt=wrt, mode=rounded)
            except LossRaised:
                return False
            if not rounded.any:
                return False  # they are inside of a kernel
            pairs = [(run.output, found.output), *((run.gradients[n], g) for n, g in found.gradients.items())]
            for came, before in pairs:
                if (came is None) != (before is None):
                    return False
                if came is not None and before is not None and before.numel():
                    off = (came - before).abs().nan_to_num(math.inf)
                    if float(off.max()) > tolerance.same_relative(self.eps) * max(1.0, float(before.abs().max())):
                        return False
        return True

    def run(
        self,
        tensors: Mapping[str, Tensor],
        *,
        wrt: tuple[str, ...] | None = None,
        train: bool = False,
        mode: AbstractContextManager[Any] | None = None,
        built: Callable[..., Any] | None = None,
    ) -> Run:
        """Evaluate a fresh instance on ``tensors`` and differentiate with respect to ``wrt`` (default: as declared).

        ``mode`` is entered around the call of the loss alone; ``built`` is an instance to call instead of a fresh one.

        Raises:
            LossRaised: the loss, its constructor or its backward raised, or it did not return a floating tensor.
        """
        leaves = self.leaves(tensors, wrt)
        output = self.output(leaves, train=train, mode=mode, built=built)
        try:
            return self.backward(leaves, output)
        except LossRaised as refused:
            if self.backward_only:
                raise
            self.cache[self._backward_key] = True
            try:
                return self.run(tensors, wrt=wrt, train=train, mode=mode, built=built)
            except LossRaised:
                del self.cache[self._backward_key]
                raise refused from refused.error

    def backward(self, leaves: Mapping[str, Tensor], output: Tensor) -> Run:
        """The evaluation whose forward has returned an output: it, and the gradients of those leaves that require one.

        Raises:
            LossRaised: its backward raised.
        """
        names = [name for name in leaves if leaves[name].requires_grad]
        gradients: dict[str, Tensor | None] = dict.fromkeys(names)
        scalar = contract(output)
        if output.requires_grad and names:
            found = self.differentiated(scalar, [leaves[name] for name in names])
            gradients = dict(zip(names, found, strict=True))
        return Run(output.detach(), float(scalar.detach()), gradients, output.requires_grad)

    @property
    def backward_only(self) -> bool:
        """Whether the loss trains by ``backward()`` and refuses `torch.autograd.grad`, as a reentrant checkpoint does."""
        return self._backward_key in self.cache

    @property
    def _backward_key(self) -> tuple[str, str]:
        return ("backward", self.implementation)

    def differentiated(self, scalar: Tensor, wrt: Sequence[Tensor], *, retain: bool = False) -> Sequence[Tensor | None]:
        """d scalar / d wrt, the way that the loss takes.

        Raises:
            LossRaised: its backward raised.
        """
        return differentiated(scalar, wrt, backward=self.backward_only, retain=retain)

    def leaves(self, tensors: Mapping[str, Tensor], wrt: tuple[str, ...] | None = None) -> dict[str, Tensor]:
        """The tensors, with those of ``wrt`` as leaves that require grad."""
        chosen = self.spec.differentiable if wrt is None else wrt
        return {
            name: tensor.detach().requires_grad_() if name in chosen else tensor for name, tensor in tensors.items()
        }

    def output(
        self,
        tensors: Mapping[str, Tensor],
        *,
        train: bool = False,
        mode: AbstractContextManager[Any] | None = None,
        built: Callable[..., Any] | None = None,
    ) -> Tensor:
        """What a fresh instance (or ``built``) returns, from a fixed state of the global generators.

        Raises:
            LossRaised: it raised, or did not return a floating tensor.
        """
        begin_draws(RNG_SEED)
        grad = torch.is_grad_enabled()
        try:
            with mode if mode is not None else nullcontext():
                instance = self.candidate.build(tensors, train=train) if built is None else built
                output: Any = self.candidate.call(instance, tensors)
        except LossRaised:  # ended, maybe by ``mode``, between switching gradients off and on again
            torch.set_grad_enabled(grad)
            raise
        return checked(output, tensors)

    def nudged(self, tensors: Mapping[str, Tensor], salt: int = 7) -> dict[str, Tensor]:
        """A generic point nearby: the differentiable inputs moved by about 1e-3, off every tie and kink; ``salt`` draws another."""
        moved = dict(tensors)
        for name in self.spec.differentiable:
            tensor = tensors[name]
            noise = normal(tensor, self.generator(salt), torch.float64).clamp(-3, 3)
            domain = self.spec.inputs[name].domain
            # Pulled in beyond the reach of the noise first: what a bound cuts off afterwards would be tied there again.
            inside = domain.interior(tensor.detach(), margin=4 * NUDGE / min(1.0, domain.high - domain.low))
            moved[name] = domain.interior(on_the_cpu(domain.project, inside + NUDGE * noise))
        return moved

    def function(
        self, tensors: Mapping[str, Tensor], tape: DetachTape | None = None
    ) -> Callable[[Mapping[str, Tensor]], float]:
        """The loss as a number of some replaced tensors, and parameters as `learned` names them, without a graph.

        Stop-gradients that the spec declares stay at their values at ``tensors``; ``tape`` holds them where it is known.
        """
        if not self.spec.detaches:
            return self.plain_function(tensors)
        held = tape or self.cuts(tensors)

        def value(changes: Mapping[str, Tensor]) -> float:
            given, built = self._changed(tensors, changes)
            return float(contract(self.output(given, mode=DetachTape(replay=held), built=built)).detach())

        return value

    def plain_function(self, tensors: Mapping[str, Tensor]) -> Callable[[Mapping[str, Tensor]], float]:
        """The same, where stop-gradients are held nowhere: its slopes are those of the value alone."""

        def value(changes: Mapping[str, Tensor]) -> float:
            given, built = self._changed(tensors, changes)
            with torch.no_grad():
                return float(contract(self.output(given, built=built)))

        return value

    def _changed(
        self, tensors: Mapping[str, Tensor], changes: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Callable[..., Any] | None]:
        """(copies of tensors, some replaced, which the loss may edit; an instance of its own where parameters are replaced)."""
        given = copied({name: changes.get(name, tensor) for name, tensor in tensors.items()})
        if changes.keys() <= tensors.keys():
            return given, None
        built = self.candidate.build(given)
        for name, parameter in learned(built).items():
            parameter.data = changes.get(name, parameter.data).clone()
        return given, built

    def cuts(self, tensors: Mapping[str, Tensor]) -> DetachTape:
        """What the loss takes off the graph at a point."""
        tape = DetachTape()
        self.output(self.leaves(copied(tensors)), mode=tape)
        return tape


def learned(built: Callable[..., Any]) -> dict[str, Tensor]:
    """The floating parameters of an instance that require grad, each by a name that no tensor of a declaration has."""
    named = built.named_parameters() if isinstance(built, nn.Module) else ()
    return {f"parameter {name}": p for name, p in named if p.requires_grad and p.is_floating_point() and p.numel()}


class WrongReturn(TypeError):
    """A loss returned what is no floating tensor on the device of its inputs.

    Args:
        came: what it returned, in a few words.
        should: what it should return.
        mend: how to get there.
    """

    def __init__(self, came: str, should: str, mend: str) -> None:
        super().__init__(f"it returned {came}, expected {should}; {mend}")
        self.came, self.should, self.mend = came, should, mend


def _kind(output: Any) -> str:
    kind = type(output).__name__
    return "None" if output is None else f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def _picking(output: Any) -> str:
    if output is None or isinstance(output, (bool, int, float)):
        return "return the tensor itself; .item() and float(...) leave the graph"
    picked: Any = "loss"
    if isinstance(output, (tuple, list)):
        picked = 0
    elif isinstance(output, Mapping) and picked not in output:
        picked = next(iter(output), picked)
    return f"say which part is the loss: LossSpec(select={picked!r}), or --pick {picked} on the command line"


def checked(output: Any, tensors: Mapping[str, Tensor]) -> Tensor:
    """What a loss returned, as a dense tensor.

    Raises:
        LossRaised: it is no floating tensor on the device of the tensors.
    """
    if not isinstance(output, Tensor):
        raise LossRaised(WrongReturn(_kind(output), "a tensor", _picking(output)))
    if output.layout == torch.jagged:
        return checked(output.values(), tensors)
    if output.is_nested:
        raise LossRaised(WrongReturn("a nested tensor", "a tensor with one shape", "reduce it, or pad it"))
    if not output.is_floating_point():
        mend = "compute it in floating point; a count or an argmax has no gradient"
        raise LossRaised(WrongReturn(f"a tensor of {output.dtype}", "a floating tensor", mend))
    kind = output.device.type
    if all(tensor.device.type != kind for tensor in tensors.values()):
        where = " and ".join(sorted({tensor.device.type for tensor in tensors.values()}))
        mend = "make new tensors on the device of the inputs: torch.zeros(..., device=x.device)"
        raise LossRaised(WrongReturn(f"a tensor on {output.device.type}", f"a tensor on {where}", mend))
    return output.to_dense() if output.layout != torch.strided else output


def contract(output: Tensor) -> Tensor:
    """The scalar sum_i c_i L_i with fixed cotangents c_i in [1, 2); the output itself where it is one number."""
    if output.ndim == 0:
        return output
    count = output.numel()
    cotangent = 1 + torch.arange(count, dtype=torch.float64, device=output.device).mul(0.6180339887498949).frac()
    return (output.reshape(-1) * cotangent.to(output.dtype)).sum()


def describe(value: float) -> str:
    """A number as it stands in messages: short, and exact where it is short."""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.4g}"
