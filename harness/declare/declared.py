"""What follows from the parts of a declaration, for all who read it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from harness.declare import dims, structures
from harness.declare.dims import Size
from harness.declare.laws import Law
from harness.declare.structures import Node
from harness.declare.tensor_spec import TensorSpec


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


class Declared:
    """The parts of a declaration, as `harness.LossSpec` documents them, and what follows from them."""

    name: str
    implementations: dict[str, Callable[..., Any]]
    inputs: Mapping[str, TensorSpec]
    context: Mapping[str, TensorSpec]
    input_arguments: dict[str, Node]
    context_arguments: dict[str, Node]
    output: TensorSpec | None
    differentiable: tuple[str, ...]
    options: dict[str, Any]
    fixed_sizes: dict[str, Size]
    laws: tuple[Law, ...]
    requires: tuple[str, ...]
    stochastic: bool
    once: bool
    writes_gradient_into: str | None
    bench_sizes: tuple[dict[str, Size], ...] | None
    error_inputs: tuple[ErrorInput, ...]

    @property
    def reference(self) -> str:
        """Name of the implementation that the others are held to."""
        return next(iter(self.implementations))

    def role(self, implementation: str) -> str:
        """``reference`` for the first of several implementations, ``candidate`` for every other one."""
        return "reference" if implementation == self.reference and len(self.implementations) > 1 else "candidate"

    @cached_property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Inputs and context, in declared order."""
        return {**self.inputs, **self.context}

    @property
    def arguments(self) -> dict[str, Node]:
        """How each argument of the loss is made of `tensors`, in declared order."""
        return {**self.input_arguments, **self.context_arguments}

    @property
    def roles(self) -> dict[str, str]:
        """What each tensor is for, declared or inferred from its domain and its axes."""
        looked_up = {symbol for tensor in self.tensors.values() for symbol in tensor.domain.symbols}
        classes = {dim.token for name in self.differentiable for dim in dims.parse(self.tensors[name].dims)[1:]}
        return {
            name: tensor.role or _role(tensor, name in self.context, looked_up, classes)
            for name, tensor in self.tensors.items()
        }

    @property
    def optional(self) -> tuple[str, ...]:
        """Tensors that may be missing from a case; the loss is then given ``None``."""
        return tuple(name for name, tensor in self.tensors.items() if tensor.optional)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol that stands for one size, domains and fixed sizes included; lengths of lists, which are no batch, last."""
        named = dims.scalar_symbols(tensor.dims for tensor in self.tensors.values())
        indexed = [symbol for tensor in self.tensors.values() for symbol in tensor.domain.symbols]
        fixed = [symbol for symbol, size in self.fixed_sizes.items() if isinstance(size, int)]
        free = [symbol for symbol in dict.fromkeys((*named, *indexed, *fixed)) if symbol not in self.variadic]
        return tuple(sorted(free, key=self.list_lengths.__contains__))

    @property
    def all_dims(self) -> list[str]:
        """The dims of every tensor, and what else must not be empty: the room for an axis of distinct positions, or for rows."""
        distinct = [tensor for tensor in self.tensors.values() if tensor.domain.is_distinct]
        room = [
            f"{tensor.domain.number_of_values}-({dim.token})+1"
            for tensor in distinct
            for dim in dims.parse(tensor.dims)[-1:]
        ]
        jagged = [tensor for tensor in self.tensors.values() if tensor.jagged]
        twice = [f"{tensor.dims.split()[0]}-2*{tensor.jagged}+1" for tensor in jagged]  # so that rows differ in length
        return [*(tensor.dims for tensor in self.tensors.values()), *room, *twice]

    @property
    def row_offsets(self) -> frozenset[str]:
        """The tensors that say where rows of nested tensors begin, which are part of their shape."""
        nodes = self.arguments.values()
        return frozenset(leaf.offsets for node in nodes for leaf in structures.leaves(node) if leaf.offsets)

    @property
    def list_lengths(self) -> frozenset[str]:
        """Every symbol that is the length of a list, which is no batch."""
        return frozenset(symbol for node in self.arguments.values() for symbol in structures.lengths(node))

    @cached_property
    def variadic(self) -> tuple[str, ...]:
        """Every symbol that stands for several axes."""
        return dims.variadic_symbols(tensor.dims for tensor in self.tensors.values())


def _role(tensor: TensorSpec, in_context: bool, looked_up: Collection[str], classes: Collection[str]) -> str:
    domain = tensor.domain
    if tensor.number:
        return "number"
    if domain.symbol is not None:
        return "label" if domain.symbol in classes else "index"
    if domain.limit is not None:
        return "index"
    if domain.whole and not domain.structured:
        return "mask" if domain.weighs else "label"
    if domain.weighs or (in_context and domain.low > 0):
        return "weight"
    first = [str(dim.symbol) for dim in dims.parse(tensor.dims)[:1]]
    return "table" if in_context and set(first) & set(looked_up) else "data"
