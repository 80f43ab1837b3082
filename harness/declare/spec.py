"""`LossSpec`: what a loss declares about itself."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from harness.declare import annotations as signatures
from harness.declare import dims, structures
from harness.declare.annotations import call_function
from harness.declare.declared import Declared, ErrorInput
from harness.declare.dims import Size
from harness.declare.laws import Law
from harness.declare.structures import Node
from harness.declare.tensor_spec import TensorSpec
from harness.declare.validate import check_arguments, check_spec
from harness.errors import DeclarationError, nearest, shown
from harness.results.shown import Shown

if TYPE_CHECKING:
    import pandas as pd

ONE_BACKWARD = "the declaration says once=True: a graph of the loss takes one backward only"

Implementation = Callable[..., Any]
Select = Callable[[Any], Any] | str | int | tuple[str | int, ...] | None


@dataclass(frozen=True)
class Source:
    """Where a spec was declared, so that another process can load it."""

    file: str
    module: str
    line: int


class LossSpec(Declared, Shown):
    """One declaration of a loss, from which it is verified, timed and reported.

    Args:
        name: short name, used in test ids and file names.
        implementations: name -> class or callable; the first is the reference.  A class is built with the context and
            options that its constructor names and called with the rest; any other callable is called with everything.
            All by keyword.
        inputs: tensors of the batch; read from the first implementation's annotations where ``None``.  An argument may also be
            a `scalar`, or a list, tuple, dict, named tuple or `several` of tensors, whose tensors are then named ``boxes.0``.
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
        stochastic: the loss draws random numbers on purpose, from the global generators or from a parameter that takes a
            `torch.Generator`; every evaluation begins at one state, so that what is compared has the same draws.
        once: a graph of the loss takes one backward only: it frees or overwrites what it keeps for it, so that
            ``retain_graph=True``, second derivatives and a backward pass timed alone are not asked for.
        writes_gradient_into: the input over which the loss writes its gradient on purpose, as fused kernels do; every call gets a
            copy of it, which nobody else reads.
        dtypes: the floating dtypes that the loss takes; by default those that differentiable inputs declare, else any.
        computes_in: the dtype in which the loss computes on purpose, whatever it is given, as fused kernels do.
        select: picks the loss out of what an implementation returns: a key, a position, the name of an attribute or a function;
            of a tuple of those, each is checked.
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
        stochastic: bool = False,
        once: bool = False,
        writes_gradient_into: str | None = None,
        dtypes: Sequence[torch.dtype] = (),
        computes_in: torch.dtype | None = None,
        select: Select = None,
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
        self.stochastic = stochastic
        self.once = once
        self.writes_gradient_into = writes_gradient_into
        self.computes_in = computes_in
        self.select = None if select is None else Selected(select) if not callable(select) else select
        self.bench_sizes = None if bench_sizes is None else tuple(dict(sizes) for sizes in bench_sizes)
        self.bytes_bound = bytes_bound
        self.error_inputs = tuple(error_inputs)
        self.source = _caller()
        self.target: str | None = None  # how it was named on the command line, where it was
        found_inputs, found_context, found_output = _tensors(self, inputs, context)
        self.input_arguments, self.inputs = _flat(self.name, found_inputs)
        self.context_arguments, self.context = _flat(self.name, found_context)
        self._given: dict[frozenset[str], LossSpec] = {}
        self.output: TensorSpec | None = found_output if output is None else _tensor_spec(self.name, "output", output)
        if formula is not None:
            self.implementations = self._with_formula(formula)
        floating = [name for name, tensor in self.inputs.items() if tensor.differentiable]
        self.differentiable = tuple(floating[:1] if differentiable is None else differentiable)
        self.dtypes = tuple(dtypes) or _declared_dtypes(self)
        check_spec(self)

    def __repr__(self) -> str:
        return f"LossSpec({self.name!r}, implementations={list(self.implementations)})"

    def frame(self) -> pd.DataFrame:
        """One row a tensor: its name, whether it is an input or context, dims, domain, role, dtype, and what it may be."""
        import pandas as pd

        return pd.DataFrame(self._rows())

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                "tensor": name,
                "kind": "input" if name in self.inputs else "context",
                "dims": tensor.dims,
                "domain": repr(tensor.domain),
                "role": self.roles[name],
                "dtype": None if tensor.dtype is None else str(tensor.dtype).removeprefix("torch."),
                "differentiable": name in self.differentiable,
                "optional": tensor.optional,
            }
            for name, tensor in self.tensors.items()
        ]

    def _with_formula(self, text: str) -> dict[str, Implementation]:
        from harness.declare.formulas import Formula

        tensors = {name.replace(".", "_"): tensor.dims for name, tensor in self.tensors.items()}
        try:
            formula = Formula(text, tensors, self.fixed_sizes, self.options)
        except DeclarationError as error:
            raise DeclarationError(f"loss {self.name!r}: {error}") from error
        if len(self.implementations) == 1:
            return {"formula": formula, **self.implementations}
        return {**self.implementations, "formula": formula}

    @property
    def declared(self) -> Mapping[str, Any]:
        """The arguments that it was made of, by name."""
        return self._declared

    @property
    def is_inline(self) -> bool:
        """Whether options of the command line declare it, so that what to write belongs there, too."""
        return self.target is not None and self.target.startswith("{")

    def line_that_says(self, flag: str) -> str:
        """How a flag such as ``once`` is declared where this loss is declared: on the command line, or in Python."""
        return f"--{flag}" if self.is_inline else f"LossSpec({flag}=True)"

    def line_of(self, law: Law) -> str:
        """How a law is declared where this loss is declared, likewise."""
        return f'--law "{law.text}"'.replace("'", "") if self.is_inline else repr(law)

    @property
    def unchecked(self) -> str:
        """What the declaration leaves unchecked of the loss, in one line; empty where nothing is."""
        said = []
        left = [
            n
            for n, t in self.inputs.items()
            if t.differentiable and not t.domain.whole and n not in self.differentiable
        ]
        if left:
            wanted = ",".join([*self.differentiable, *left])
            how = f"--differentiable {wanted}" if self.is_inline else f"differentiable={(*self.differentiable, *left)}"
            said.append(f"gradients of {', '.join(left)} ({how} checks them)")
        if isinstance(self.select, Selected):
            said.append(f"what is returned beside {self.select!r}")
        if self.once:
            said.append("a second backward (once=True)")
        if self.dtypes:
            said.append(f"dtypes other than {', '.join(str(dtype).removeprefix('torch.') for dtype in self.dtypes)}")
        return f"not checked: {'; '.join(said)}" if said else ""

    def without(self, missing: Collection[str]) -> LossSpec:
        """The spec of cases in which some optional tensors are ``None``: no rule sees them, and no law that names them holds."""
        gone = frozenset(missing)
        if not gone:
            return self
        if gone not in self._given:
            fewer = copy.copy(self)
            for name, found in vars(Declared).items():
                if isinstance(found, cached_property):  # what was worked out of all tensors
                    vars(fewer).pop(name, None)
            fewer.inputs = {name: tensor for name, tensor in self.inputs.items() if name not in gone}
            fewer.context = {name: tensor for name, tensor in self.context.items() if name not in gone}
            fewer.differentiable = tuple(name for name in self.differentiable if name not in gone)
            fewer.laws = tuple(law for law in self.laws if not gone & set(law.names))
            fewer._given = {}
            self._given[gone] = fewer
        return self._given[gone]

    def replace(self, **changes: Any) -> LossSpec:
        """A copy of this spec with some arguments changed."""
        changed = LossSpec(**{**self._declared, **changes})
        changed.source, changed.target = self.source, self.target
        return changed


def _declared_dtypes(spec: LossSpec) -> tuple[torch.dtype, ...]:
    """The dtypes in which differentiable inputs are declared."""
    tensors = [spec.inputs[name] for name in spec.differentiable if name in spec.inputs]
    found = [tensor.dtype or tensor.domain.default_dtype for tensor in tensors]
    is_complex = any(tensor.domain.form == "complex" for tensor in spec.tensors.values())
    usual = (torch.float64, torch.float32) if is_complex else ()  # torch has no complex kernels of less
    return tuple(dict.fromkeys(dtype for dtype in found if dtype is not None)) or usual


def _caller() -> Source:
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return Source(frame.f_code.co_filename, str(frame.f_globals.get("__name__", "")), frame.f_lineno)


class Selected:
    """Picks parts of what a loss returns by key, position or attribute; of several it makes one vector.

    Args:
        keys: one key, or several.

    Raises:
        DeclarationError: what is neither a text nor a whole number.
    """

    def __init__(self, keys: str | int | tuple[str | int, ...]) -> None:
        self.keys = keys
        self._each = keys if isinstance(keys, tuple) else (keys,)
        if not self._each or not all(type(key) in (str, int) for key in self._each):
            raise DeclarationError(
                f"select={shown(keys)}: expected a key such as 'loss', a position such as 0, a tuple of those, or a function"
            )

    def __repr__(self) -> str:
        return repr(self.keys)

    def __call__(self, returned: Any) -> Any:
        """The picked part.

        Raises:
            KeyError: there is no such part.
        """
        parts = [_part(returned, key) for key in self._each]
        if not isinstance(self.keys, tuple):
            return parts[0]
        return torch.cat([part.reshape(-1) for part in parts])


def _part(returned: Any, key: str | int) -> Any:
    if isinstance(returned, Mapping):
        known: list[Any] = list(returned)
        if key in returned:
            return returned[key]
    elif isinstance(key, int):
        known = list(range(len(returned))) if isinstance(returned, Sequence) else []
        if isinstance(returned, Sequence) and -len(returned) <= key < len(returned):
            return returned[key]
    else:
        known = [*getattr(returned, "_fields", ()), *getattr(returned, "__dict__", ())]
        if hasattr(returned, key):
            return getattr(returned, key)
    has = f"it has {known}{nearest(str(key), known)}" if known else "which has no parts"
    raise KeyError(f"select={key!r}: the loss returned {type(returned).__name__}, {has}")


def _flat(loss: str, declared: Mapping[str, Any]) -> tuple[dict[str, Node], dict[str, TensorSpec]]:
    """(how each argument is made, its tensors by flat name); names that start with ``_`` link no other tensor."""
    nodes: dict[str, Node] = {}
    found: dict[str, TensorSpec] = {}
    for name, value in declared.items():
        try:
            nodes[name], tensors = structures.flatten(name, value, lambda leaf, given: _tensor_spec(loss, leaf, given))
        except DeclarationError as error:
            text = str(error)
            raise DeclarationError(text if text.startswith("loss ") else f"loss {loss!r}: {text}") from error
        found |= {
            leaf: replace(tensor, dims=dims.anonymous(tensor.dims, leaf.replace(".", "_")))
            for leaf, tensor in tensors.items()
        }
    return nodes, found


def _tensor_spec(loss: str, name: str, value: Any) -> TensorSpec:
    if isinstance(value, TensorSpec):
        return value
    found = signatures.read(value)
    if found is None:
        raise DeclarationError(
            f'loss {loss!r}: {name}={shown(value)}, expected a TensorSpec such as TensorSpec("B C") or Float[Tensor, "B C"]'
        )
    return signatures.tensor_spec(found, name)


def _tensors(
    spec: LossSpec, inputs: Mapping[str, Any] | None, context: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any], TensorSpec | None]:
    first = spec.implementations[spec.reference]
    found_inputs: dict[str, Any] = dict(inputs or {})
    found_context: dict[str, Any] = dict(context or {})
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
    return found_inputs, found_context, _output(spec, call, declared=inputs is not None)


def _output(spec: LossSpec, call: Callable[..., Any], *, declared: bool) -> TensorSpec | None:
    """The output that the annotations declare; where the tensors stand beside the loss, unreadable ones do no harm."""
    try:
        returned = signatures.hints(call).get("return")
    except DeclarationError:
        if declared:
            return None
        raise
    return None if signatures.read(returned) is None else _tensor_spec(spec.name, "output", returned)


def _read(
    spec: LossSpec, function: Callable[..., Any], skip: Mapping[str, Any], where: str
) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Tensors that a function's annotations declare: (unmarked, marked as context)."""
    bound = signatures.bound(function)
    hints = _hints(function, spec, skip)
    drawn_from = signatures.generators(function)
    unmarked: dict[str, TensorSpec] = {}
    marked: dict[str, TensorSpec] = {}
    for name, parameter in signatures.parameters(function).items():
        if name in skip or name in spec.options or name in bound:
            continue
        found = signatures.read(hints.get(name))
        if found is not None:
            (marked if found.is_context else unmarked)[name] = signatures.tensor_spec(found, name)
        elif parameter.default is inspect.Parameter.empty and not (spec.stochastic and name in drawn_from):
            raise DeclarationError(
                f"loss {spec.name!r}: nothing says what parameter {name!r} of {where} is; write one of\n"
                f'    {name}: Float[Tensor, "B"]                      (an annotation in the loss)\n'
                f'    LossSpec(..., inputs={{"{name}": TensorSpec("B")}})   (a tensor of the batch; all inputs must then stand there)\n'
                f'    LossSpec(..., context={{"{name}": TensorSpec("B")}})  (a tensor that exists before training)\n'
                f'    LossSpec(..., options={{"{name}": ...}})              (a constant)'
                + (
                    "\n    LossSpec(..., stochastic=True)                     (a generator, from which it draws)"
                    if name in drawn_from
                    else ""
                )
            )
    if function is not call_function(spec.implementations[spec.reference]):
        return {**unmarked, **marked}, {}
    return unmarked, marked


def _hints(function: Callable[..., Any], spec: LossSpec, skip: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations; none where they cannot be evaluated and only parameters with defaults are left to read."""
    known = {*skip, *spec.options, *signatures.bound(function)}
    left = [parameter for name, parameter in signatures.parameters(function).items() if name not in known]
    try:
        return signatures.hints(function) if left else {}
    except DeclarationError:
        if skip and all(parameter.default is not inspect.Parameter.empty for parameter in left):
            return {}
        raise


def _no_inputs(spec: LossSpec, label: str) -> str:
    return (
        f"loss {spec.name!r}: {label} has no parameter that is annotated as a tensor; write\n"
        f'    predictions: Float[Tensor, "B C"]                          (an annotation in the loss)\n'
        f'    LossSpec(..., inputs={{"predictions": TensorSpec("B C")}})   (beside a loss that you do not own)'
    )
