"""Calling an implementation: built from its declaration, isolated from global state, with value and gradients."""

from __future__ import annotations

import contextlib
import copy
import inspect
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from harness.calls import devices, meter, tolerance, triton_interpreter
from harness.declare import annotations as signatures
from harness.declare import structures
from harness.declare.annotations import call_function
from harness.declare.spec import LossSpec
from harness.declare.structures import Leaf, Node
from harness.errors import NotApplicable, told

_SEED = 0
RNG_SEED = 20_240_229


@dataclass(frozen=True)
class Precision:
    """The dtypes that an implementation works in.

    Args:
        takes: the widest floating dtype that it accepts, in which it is verified.
        computes_in: the dtype whose rounding its value shows, whatever it is given and returns.
        refusal: what it raised in float64, where it did and nothing declares it.
    """

    takes: torch.dtype = torch.float64
    computes_in: torch.dtype = torch.float64
    refusal: str = ""

    @property
    def eps(self) -> float:
        """The part of itself by which a value is rounded."""
        return tolerance.eps_of(self.computes_in)

    @property
    def grid(self) -> torch.dtype:
        """Whose numbers a point and its neighbours are taken from: what a loss would round itself is no step.

        Numbers of bfloat16 are few enough for float16 too, which has more digits and less range.
        """
        return torch.bfloat16 if self.computes_in == torch.float16 else self.computes_in


class LossRaised(Exception):
    """The user's loss raised on a case; ``error`` is what it raised."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(told(error))
        self.error = error


def is_of_the_loss(error: BaseException) -> bool:
    """Whether the loss raised it, whatever it is: one that exits or skips has failed, and must not end the run.

    Not an interrupt from the keyboard, which is the user's own wish, nor what ends a test from outside in the middle of a call,
    as pytest-timeout does.
    """
    outcomes = sys.modules.get("_pytest.outcomes")
    from_outside = () if outcomes is None else (outcomes.Failed, outcomes.Exit)
    return not isinstance(error, (KeyboardInterrupt, *from_outside))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on an accelerator or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def differentiated(
    scalar: Tensor, wrt: Sequence[Tensor], *, backward: bool = False, retain: bool = False
) -> Sequence[Tensor | None]:
    """d scalar / d wrt, by `torch.autograd.grad`, or as a training step takes it, by ``backward``.

    Raises:
        LossRaised: the loss's own backward raised.
    """
    try:
        if not backward:
            return torch.autograd.grad(scalar, list(wrt), allow_unused=True, retain_graph=retain)
        for tensor in wrt:
            tensor.retain_grad()
            tensor.grad = None
        torch.autograd.backward(scalar, retain_graph=retain)
        return [tensor.grad for tensor in wrt]
    except Exception as error:
        raise LossRaised(error) from error


def begin_draws(state: int) -> None:
    """Begin all global generators anew: torch's, NumPy's and Python's."""
    devices.seed(state)
    random.seed(state)
    np.random.seed(state)


@contextlib.contextmanager
def _same_draws() -> Iterator[None]:
    """What a constructor draws, such as parameters, is the same in every instance, and torch's generators go on unmoved."""
    with devices.kept():
        devices.seed(_SEED)
        yield


class Candidate:
    """One implementation of a spec, ready to be built and called by keyword.

    Args:
        spec: the declaration.
        name: which implementation.
        device: where it is evaluated, wherever the tensors are that it is given; by default where they are.
    """

    def __init__(self, spec: LossSpec, name: str, device: str | None = None) -> None:
        self.spec = spec
        self.name = name
        self.device = device
        self.implementation = spec.implementations[name]
        self.is_class = inspect.isclass(self.implementation)
        self.is_formula = bool(getattr(self.implementation, "is_formula", False))
        self.select = None if self.is_formula else spec.select
        nodes = spec.arguments if not self.is_formula else {n.replace(".", "_"): Leaf(n) for n in spec.tensors}
        self.constructor_arguments: dict[str, Node] = {
            n: node for n, node in nodes.items() if self._is_for_constructor(n)
        }
        self.call_arguments: dict[str, Node] = {
            n: node for n, node in nodes.items() if n not in self.constructor_arguments
        }
        self.constructed = _tensors_of(spec, self.constructor_arguments)
        self.constructor_options = {
            k: v for k, v in spec.options.items() if signatures.in_constructor(self.implementation, k)
        }
        call = call_function(self.implementation)
        accepted = signatures.parameters(call)
        everything = not accepted or signatures.takes_any_keyword(call)
        left = {k: v for k, v in spec.options.items() if k not in self.constructor_options}
        self.call_options = {k: v for k, v in left.items() if everything or k in accepted}
        self.called = tuple(n for n in spec.tensors if n not in self.constructed)
        self.written_over = spec.writes_gradient_into
        self.state = RNG_SEED if spec.stochastic else None
        self.drawn_from = self._generators(call)
        self.built_from = self._generators(self.implementation) if self.is_class else ()
        self._call_function = call
        self._call_by_position = not self.is_formula and signatures.takes_positions(call)
        self._made_by_position = self.is_class and signatures.takes_positions(self.implementation)

    def _generators(self, function: Callable[..., Any]) -> tuple[str, ...]:
        taken = {*self.spec.tensors, *self.spec.options}
        return tuple(n for n in signatures.generators(function) if self.spec.stochastic and n not in taken)

    @contextlib.contextmanager
    def beginning(self, state: int | None) -> Iterator[None]:
        """Let every call of a loss that draws begin at this state of its generators; ``None`` leaves the global ones as they are."""
        before, self.state = self.state, state
        try:
            yield
        finally:
            self.state = before

    @staticmethod
    def _begun(names: Sequence[str], tensors: Mapping[str, Tensor]) -> dict[str, torch.Generator]:
        """Generators that a loss that draws is given by these names, at the state at which torch's global one began."""
        kinds = {tensor.device.type for tensor in tensors.values()}
        device = "cuda" if "cuda" in kinds else "cpu"
        return {name: torch.Generator(device).manual_seed(torch.initial_seed()) for name in names}

    def _is_for_constructor(self, argument: str) -> bool:
        return argument in self.spec.context_arguments and signatures.in_constructor(self.implementation, argument)

    def arguments(self, tensors: Mapping[str, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What a call is given, by position and by name: tensors, structures of them, generators and options."""
        given = {n: structures.rebuild(node, tensors) for n, node in self.call_arguments.items()}
        named = {**given, **self._begun(self.drawn_from, tensors), **self.call_options}
        return signatures.bind(self._call_function, named) if self._call_by_position else ((), named)

    @property
    def is_module(self) -> bool:
        """Whether the implementation is an `nn.Module` class or instance."""
        if inspect.isclass(self.implementation):
            return issubclass(self.implementation, nn.Module)
        return isinstance(self.implementation, nn.Module)

    def placed(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The tensors where the implementation is evaluated; gradients find their way back."""
        return tensors if self.device is None else {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def build(self, tensors: Mapping[str, Tensor], *, train: bool = False) -> Callable[..., Any]:
        """A fresh instance, in eval mode unless ``train``: built with its context, or copied, and moved to its inputs.

        Raises:
            LossRaised: the constructor raised, or the module cannot be copied.
        """
        tensors = self.placed(tensors)
        if self.is_class:
            try:
                made = {n: structures.rebuild(node, tensors) for n, node in self.constructor_arguments.items()}
                named: dict[str, Any] = {**made, **self.constructor_options}
                args, named = signatures.bind(self.implementation, named) if self._made_by_position else ((), named)
                with _same_draws():
                    drawn = self._begun(self.built_from, tensors)
                    built = meter.construction(self.implementation, *args, **named, **drawn)
            except BaseException as error:
                if not is_of_the_loss(error):
                    raise
                raise LossRaised(error) from error
        elif isinstance(self.implementation, nn.Module):
            try:
                built = copy.deepcopy(self.implementation)
            except Exception as error:
                raise LossRaised(error) from error
        else:
            return self.implementation
        if isinstance(built, nn.Module):
            if "_parameters" not in vars(built):
                raise LossRaised(AttributeError(f"{type(built).__name__}.__init__() does not call super().__init__()"))
            _to_device_of_inputs(built, tensors)
            if any(map(is_lazy, built.parameters())):
                self._make_lazy_parameters(built, tensors)
            self._to_dtype_of_inputs(built, tensors)
            built.train(train)
        return built  # type: ignore[no-any-return]

    def _make_lazy_parameters(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """By a first call, which whoever trains makes before there is an optimizer, in the dtype in which they are drawn."""
        usual = torch.get_default_dtype()
        given = {name: t.to(usual) if t.is_floating_point() else t for name, t in tensors.items()}
        with _same_draws(), torch.no_grad():
            self.call(module.eval(), given)

    def _to_dtype_of_inputs(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """What a module learns is in the dtype that it is used in, as after ``module.to(dtype)``; what it was given stays."""
        wanted = next((tensors[name].dtype for name in self.spec.differentiable if name in tensors), None)
        given = {(tensors[name].shape, tensors[name].dtype) for name in self.constructed}
        for learned in module.parameters() if wanted is not None else ():
            is_own = learned.dtype == torch.get_default_dtype() and (learned.shape, learned.dtype) not in given
            if is_own and learned.dtype != wanted:
                learned.data = learned.data.to(wanted)

    def call(self, built: Callable[..., Any], tensors: Mapping[str, Tensor]) -> Any:
        """What the built loss returns, after `select`; not checked to be a tensor.

        Raises:
            LossRaised: the loss raised.
            NotApplicable: Triton's interpreter cannot run its kernel.
        """
        process = os.getpid()
        try:
            given = self.placed(tensors)
            if self.spec.stochastic:
                self._begin(built)
            if self.written_over is not None:
                given = {**given, self.written_over: given[self.written_over].clone()}
            args, named = self.arguments(given)
            returned = meter.evaluation(built, *args, **named)
            returned = returned if self.select is None else self.select(returned)
            return returned if self.device is None else _back(returned, tensors)
        except BaseException as error:
            if not is_of_the_loss(error):
                raise
            cannot = triton_interpreter.cannot_run(error)
            if cannot is not None:
                raise NotApplicable(cannot) from error
            raise LossRaised(error) from error
        finally:
            if os.getpid() != process:
                os._exit(0)  # the loss forked, and its copy would go on as a second run

    def _begin(self, built: Callable[..., Any]) -> None:
        """Set every generator of a call to its state: the global ones and those that the loss keeps."""
        if self.state is not None:
            begin_draws(self.state)
        for part in built.modules() if isinstance(built, nn.Module) else [built]:
            for kept in getattr(part, "__dict__", {}).values():
                if isinstance(kept, torch.Generator):
                    kept.manual_seed(torch.initial_seed())

    def __call__(self, tensors: Mapping[str, Tensor], *, train: bool = False) -> Tensor:
        """Build a fresh instance and call it once."""
        return self.call(self.build(tensors, train=train), tensors)  # type: ignore[no-any-return]


def _tensors_of(spec: LossSpec, nodes: Mapping[str, Node]) -> tuple[str, ...]:
    """The tensors of which some arguments are made."""
    names = [leaf.name for node in nodes.values() for leaf in structures.leaves(node)]
    return tuple(name for name in names if name in spec.tensors)


def _to_device_of_inputs(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """As whoever trains on a device does, ``module.to(device)``; a tensor that does not follow is a defect of the module."""
    real = (tensor for tensor in tensors.values() if type(tensor).__name__ != "FakeTensor")  # those hold no parameters
    elsewhere = next((tensor.device for tensor in real if tensor.device.type != "cpu"), None)
    if elsewhere is not None:
        module.to(elsewhere)


def _back(returned: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What was returned, beside the tensors that were given."""
    given = next(iter(tensors.values()), None)
    return returned.to(given.device) if isinstance(returned, Tensor) and given is not None else returned
