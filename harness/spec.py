"""`LossSpec` and `TensorSpec`: what a loss declares about itself."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from harness import annotations as signatures
from harness import dims, domains
from harness.annotations import call_function, construct_parameters
from harness.declared import check_arguments, check_spec, check_tensor
from harness.dims import Size
from harness.domains import Domain
from harness.errors import DeclarationError, shown
from harness.laws import Law

__all__ = ["ErrorInput", "LossSpec", "Source", "TensorSpec", "call_function", "construct_parameters"]

Implementation = Callable[..., Any]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a loss: its dims, the values it may take and, where it does not follow the case, its dtype.

    Args:
        dims: jaxtyping's grammar, such as ``"B C"``, ``"*batch H W"``, ``"#C"``, ``"N-1"``; ``""`` is a scalar.
        domain: the values, from `harness.domains`.
        dtype: a fixed dtype; ``None`` follows the domain and the case.

    Raises:
        DeclarationError: the dims are not in the grammar, or contradict the domain or the dtype.
    """

    dims: str
    domain: Domain = field(default_factory=domains.real)
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        check_tensor(self)
        object.__setattr__(self, "dims", " ".join(self.dims.split()))

    @property
    def differentiable(self) -> bool:
        """Whether a gradient with respect to the tensor has a meaning."""
        return self.domain.differentiable and (self.dtype is None or self.dtype.is_floating_point)

    def __repr__(self) -> str:
        dtype = f", dtype={self.dtype}" if self.dtype is not None else ""
        return f"TensorSpec({self.dims!r}, domains.{self.domain!r}{dtype})"


@dataclass(frozen=True)
class ErrorInput:
    """A bad input that the loss must refuse.

    Args:
        name: what is bad, shown in messages.
        change: from the valid tensors (by name) to those that replace them.
        exception: the type that must be raised.
        match: regular expression that the message must contain.
    """

    name: str
    change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
    exception: type[Exception] = ValueError
    match: str = ""


@dataclass(frozen=True)
class Source:
    """Where a spec was declared, so that another process can load it."""

    file: str
    module: str
    line: int


class LossSpec:
    """One declaration of a loss, from which it is verified, timed and reported.

    Args:
        name: short name, used in test ids and file names.
        implementations: name -> class or callable; the first is the reference.  A class is built with the context and
            options that its constructor names and called with the rest; any other callable is called with everything.
            All by keyword.
        inputs: tensors of the batch; read from the first implementation's annotations where ``None``.
        context: tensors that exist before training; likewise.
        output: what the loss returns; likewise.
        differentiable: inputs that need a gradient; by default the first floating one.
        options: constants passed to every implementation that names them.
        fixed_sizes: symbols with one legal size.
        laws: declared relations, from `harness.laws`.
        waivers: rule code -> reason; a known failure.  A waiver that no longer fails is an error.
        requires: codes of rules that the loss promises to pass; their warnings become errors.
        stateful: the loss keeps running statistics in registered buffers on purpose.
        detaches: the loss stops gradients on purpose.
        writes_gradient_into: the input over which the loss writes its gradient on purpose, as fused kernels do; every call gets a
            copy of it, which nobody else reads.
        dtypes: the floating dtypes that the loss takes; by default those that differentiable inputs declare, else any.
        computes_in: the dtype in which the loss computes on purpose, whatever it is given, as fused kernels do.
        select: picks the loss out of what an implementation returns.
        formula: the loss in one line, such as ``"sum(w[b] * (p[b] - y[b])**2 for b in B) / B"``; it becomes the implementation
            ``formula``, which is the reference where one other implementation is given.
        bench_sizes: symbol -> size, one mapping per benchmark size.
        bytes_bound: ``(sizes, dtype) -> bytes``, the least that one pass must move.
        error_inputs: bad inputs that must be refused.

    Raises:
        DeclarationError: a tensor, law, waiver or option that cannot be understood; the message shows the line to write.
    """

    def __init__(
        self,
        name: str,
        implementations: Mapping[str, Implementation],
        *,
        inputs: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        output: Any = None,
        differentiable: Sequence[str] | None = None,
        options: Mapping[str, Any] = MappingProxyType({}),
        fixed_sizes: Mapping[str, Size] = MappingProxyType({}),
        laws: Sequence[Law] = (),
        waivers: Mapping[str, str] = MappingProxyType({}),
        requires: Iterable[str] = (),
        stateful: bool = False,
        detaches: bool = False,
        writes_gradient_into: str | None = None,
        dtypes: Sequence[torch.dtype] = (),
        computes_in: torch.dtype | None = None,
        select: Callable[[Any], Tensor] | None = None,
        formula: str | None = None,
        bench_sizes: Sequence[Mapping[str, Size]] | None = None,
        bytes_bound: Callable[[Mapping[str, Size], torch.dtype], int] | None = None,
        error_inputs: Sequence[ErrorInput] = (),
    ) -> None:
        declared = dict(locals())
        self._declared = {key: value for key, value in declared.items() if key != "self"}
        check_arguments(self._declared)
        self.name = name
        self.implementations = dict(implementations)
        self.options = dict(options)
        self.fixed_sizes = dict(fixed_sizes)
        self.laws = tuple(laws)
        self.waivers = dict(waivers)
        self.requires = tuple(sorted(set(requires)))
        self.stateful = stateful
        self.detaches = detaches
        self.writes_gradient_into = writes_gradient_into
        self.computes_in = computes_in
        self.select = select
        self.bench_sizes = None if bench_sizes is None else tuple(dict(sizes) for sizes in bench_sizes)
        self.bytes_bound = bytes_bound
        self.error_inputs = tuple(error_inputs)
        self.source = _caller()
        self.target: str | None = None  # how it was named on the command line, where it was
        found_inputs, found_context, found_output = _tensors(self, inputs, context)
        self.inputs: dict[str, TensorSpec] = _apart(found_inputs)
        self.context: dict[str, TensorSpec] = _apart(found_context)
        self.output: TensorSpec | None = found_output if output is None else _tensor_spec(self.name, "output", output)
        if formula is not None:
            self.implementations = self._with_formula(formula)
        floating = [name for name, tensor in self.inputs.items() if tensor.differentiable]
        self.differentiable = tuple(floating[:1] if differentiable is None else differentiable)
        self.dtypes = tuple(dtypes) or _declared_dtypes(self)
        check_spec(self)

    def __repr__(self) -> str:
        return f"LossSpec({self.name!r}, implementations={list(self.implementations)})"

    def _with_formula(self, text: str) -> dict[str, Implementation]:
        from harness.formulas import Formula

        tensors = {name: tensor.dims for name, tensor in self.tensors.items()}
        try:
            formula = Formula(text, tensors, self.fixed_sizes, self.options)
        except DeclarationError as error:
            raise DeclarationError(f"loss {self.name!r}: {error}") from error
        if len(self.implementations) == 1:
            return {"formula": formula, **self.implementations}
        return {**self.implementations, "formula": formula}

    @property
    def reference(self) -> str:
        """Name of the implementation that the others are held to."""
        return next(iter(self.implementations))

    def role(self, implementation: str) -> str:
        """``reference`` for the first of several implementations, ``candidate`` for every other one."""
        return "reference" if implementation == self.reference and len(self.implementations) > 1 else "candidate"

    @property
    def is_inline(self) -> bool:
        """Whether options of the command line declare it, so that what to write belongs there, too."""
        return self.target is not None and self.target.startswith("{")

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        """Inputs and context, in declared order."""
        return {**self.inputs, **self.context}

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol that stands for one size, domains and fixed sizes included."""
        named = dims.scalar_symbols(tensor.dims for tensor in self.tensors.values())
        indexed = [t.domain.symbol for t in self.tensors.values() if t.domain.symbol is not None]
        fixed = [symbol for symbol, size in self.fixed_sizes.items() if isinstance(size, int)]
        free = dict.fromkeys((*named, *indexed, *fixed))
        return tuple(symbol for symbol in free if symbol not in self.variadic)

    @property
    def variadic(self) -> tuple[str, ...]:
        """Every symbol that stands for several axes."""
        return dims.variadic_symbols(tensor.dims for tensor in self.tensors.values())

    def replace(self, **changes: Any) -> LossSpec:
        """A copy of this spec with some arguments changed."""
        changed = LossSpec(**{**self._declared, **changes})
        changed.source, changed.target = self.source, self.target
        return changed


def _declared_dtypes(spec: LossSpec) -> tuple[torch.dtype, ...]:
    """The dtypes in which differentiable inputs are declared."""
    tensors = [spec.inputs[name] for name in spec.differentiable if name in spec.inputs]
    found = [tensor.dtype or tensor.domain.default_dtype for tensor in tensors]
    return tuple(dict.fromkeys(dtype for dtype in found if dtype is not None))


def _caller() -> Source:
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return Source(frame.f_code.co_filename, str(frame.f_globals.get("__name__", "")), frame.f_lineno)


def _apart(tensors: dict[str, TensorSpec]) -> dict[str, TensorSpec]:
    return {name: replace(tensor, dims=dims.anonymous(tensor.dims, name)) for name, tensor in tensors.items()}


def _tensor_spec(loss: str, name: str, value: Any) -> TensorSpec:
    if isinstance(value, TensorSpec):
        return value
    found = signatures.read(value)
    if found is None:
        raise DeclarationError(
            f'loss {loss!r}: {name}={shown(value)}, but should be a TensorSpec such as TensorSpec("B C") or Float[Tensor, "B C"]'
        )
    domain, dtype = signatures.default_domain(found, name)
    return TensorSpec(found.dims, domain, dtype)


def _tensors(
    spec: LossSpec, inputs: Mapping[str, Any] | None, context: Mapping[str, Any] | None
) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec], TensorSpec | None]:
    first = spec.implementations[spec.reference]
    found_inputs = {name: _tensor_spec(spec.name, name, value) for name, value in (inputs or {}).items()}
    found_context = {name: _tensor_spec(spec.name, name, value) for name, value in (context or {}).items()}
    call = call_function(first)
    if context is None and inspect.isclass(first):
        found_context = _read(spec, first.__init__, skip=found_inputs, where=f"{first.__name__}.__init__")[0]
    if inputs is None or context is None:
        known = {**found_inputs, **found_context}
        label = getattr(call, "__qualname__", type(first).__name__)
        read_inputs, read_context = _read(spec, call, skip=known, where=label)
        if inputs is None:
            found_inputs = read_inputs
            if not found_inputs:
                raise DeclarationError(_no_inputs(spec, label))
        if context is None:
            found_context |= read_context
    return found_inputs, found_context, _output(spec, call, declared=inputs is not None and context is not None)


def _output(spec: LossSpec, call: Callable[..., Any], *, declared: bool) -> TensorSpec | None:
    """The output that the annotations declare; where the tensors stand beside the loss, unreadable ones do no harm."""
    try:
        returned = signatures.return_annotation(call)
    except DeclarationError:
        if declared:
            return None
        raise
    return None if signatures.read(returned) is None else _tensor_spec(spec.name, "output", returned)


def _read(
    spec: LossSpec, function: Callable[..., Any], skip: Mapping[str, Any], where: str
) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Tensors that a function's annotations declare: (unmarked, marked as context)."""
    positional = [name for name in signatures.positional_only(function) if name not in skip]
    if positional:
        raise DeclarationError(
            f"loss {spec.name!r}: parameter {positional[0]!r} of {where} can be given by position only, but tensors are "
            f"passed by keyword; remove the '/' from its signature, or wrap it:\n"
            f"    def loss({', '.join(positional)}): return {where}({', '.join(positional)})"
        )
    bound = signatures.bound(function)
    hints = signatures.hints(function) if set(signatures.parameters(function)) - set(skip) else {}
    unmarked: dict[str, TensorSpec] = {}
    marked: dict[str, TensorSpec] = {}
    for name, parameter in signatures.parameters(function).items():
        if name in skip or name in spec.options or name in bound:
            continue
        found = signatures.read(hints.get(name))
        if found is not None:
            domain, dtype = signatures.default_domain(found, name)
            (marked if found.is_context else unmarked)[name] = TensorSpec(found.dims, domain, dtype)
        elif parameter.default is inspect.Parameter.empty:
            raise DeclarationError(
                f"loss {spec.name!r}: nothing says what parameter {name!r} of {where} is; write one of\n"
                f'    {name}: Float[Tensor, "B"]                      (an annotation in the loss)\n'
                f'    LossSpec(..., inputs={{"{name}": TensorSpec("B")}})   (a tensor of the batch; all inputs must then stand there)\n'
                f'    LossSpec(..., context={{"{name}": TensorSpec("B")}})  (a tensor that exists before training)\n'
                f'    LossSpec(..., options={{"{name}": ...}})              (a constant)'
            )
    if function is not call_function(spec.implementations[spec.reference]):
        return {**unmarked, **marked}, {}
    return unmarked, marked


def _no_inputs(spec: LossSpec, label: str) -> str:
    return (
        f"loss {spec.name!r}: {label} has no parameter that is annotated as a tensor; write\n"
        f'    predictions: Float[Tensor, "B C"]                          (an annotation in the loss)\n'
        f'    LossSpec(..., inputs={{"predictions": TensorSpec("B C")}})   (beside a loss that you do not own)'
    )
