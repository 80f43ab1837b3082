"""Holds a declaration to what can be understood; every refusal shows the line to write."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch

from harness.declare import annotations as signatures
from harness.declare import dims
from harness.declare.declared import Declared
from harness.declare.laws import Law
from harness.errors import DeclarationError, nearest, shown

_NAME = re.compile(r"\w[\w.+\- ]{0,99}")  # test ids and file names are made of it

# argument -> (type, of its elements, what to write)
_SHAPES: dict[str, tuple[type[Collection[Any]], type, str]] = {
    "implementations": (Mapping, object, "{'naive': naive_loss, 'vectorized': Loss}; the first is the reference"),
    "inputs": (Mapping, str, "{'predictions': TensorSpec('B C')}"),
    "context": (Mapping, str, "{'weights': TensorSpec('B')}"),
    "options": (Mapping, str, "{'reduction': 'sum'}"),
    "fixed_sizes": (Mapping, str, "{'C': 3}"),
    "waivers": (Mapping, str, "{'B03': 'the reason'}"),
    "differentiable": (Collection, str, "('predictions',)"),
    "laws": (Collection, object, "(laws.permutation('B'),)"),
    "requires": (Collection, str, "('T01',)"),
    "dtypes": (Collection, torch.dtype, "(torch.float32, torch.bfloat16)"),
    "bench_sizes": (Collection, Mapping, "({'B': 1024},)"),
    "error_inputs": (Collection, object, "(ErrorInput(...),)"),
}
FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_OPTIONAL = {"inputs", "context", "differentiable", "bench_sizes"}


def check_arguments(given: Mapping[str, Any]) -> None:
    """Hold the arguments of a `LossSpec` to their types.

    Raises:
        DeclarationError: an argument of another type; the message shows one that fits.
    """
    name = given["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DeclarationError(
            f"LossSpec(name={shown(name)}): needs at most 100 letters, digits and '_.+- ', such as 'weighted_mse'"
        )
    for argument, (kind, element, example) in _SHAPES.items():
        value = given[argument]
        if value is None and argument in _OPTIONAL:
            continue
        single = isinstance(value, str) or (kind is Collection and isinstance(value, (Mapping, bytes, torch.Tensor)))
        if single or not isinstance(value, kind) or not all(isinstance(item, element) for item in value):
            raise DeclarationError(
                f"loss {name!r}: {argument}={shown(value)}, expected something like {argument}={example}"
            )
    _check_implementations(name, given["implementations"])
    if given["formula"] is not None and "formula" in given["implementations"]:
        raise DeclarationError(
            f"loss {name!r}: an implementation is called 'formula', as the one that formula= makes; rename it"
        )
    bytes_bound = given["bytes_bound"]
    if bytes_bound is not None and not callable(bytes_bound):
        raise DeclarationError(f"loss {name!r}: bytes_bound={shown(bytes_bound)}, expected a function or None")
    for argument, dtypes in (("dtypes", given["dtypes"]), ("computes_in", [given["computes_in"]])):
        for dtype in dtypes:
            if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype in FLOATING):
                raise DeclarationError(
                    f"loss {name!r}: {argument} has {shown(dtype)}, expected floating dtypes of "
                    f"{', '.join(map(str, FLOATING))}"
                )
    for code, reason in given["waivers"].items():
        if not isinstance(reason, str) or not reason.strip():
            raise DeclarationError(
                f"loss {name!r}: waivers={{{shown(code)}: {shown(reason)}}}, expected the reason in words"
            )
    for symbol, size in given["fixed_sizes"].items():
        extents = size if isinstance(size, tuple) else (size,)
        if not all(type(extent) is int and 0 <= extent <= dims.MAX_SIZE for extent in extents):
            raise DeclarationError(
                f"loss {name!r}: fixed_sizes={{{shown(symbol)}: {shown(size)}}}, expected a whole number, such as "
                f"fixed_sizes={{{symbol!r}: 3}}; for several axes a tuple of them"
            )


def _check_implementations(name: str, implementations: Mapping[str, Any]) -> None:
    if not implementations:
        raise DeclarationError(
            f"loss {name!r}: implementations={shown(implementations)}, expected something like implementations="
            f"{_SHAPES['implementations'][2]}"
        )
    for label, implementation in implementations.items():
        if not isinstance(label, str) or not _NAME.fullmatch(label):
            raise DeclarationError(
                f"loss {name!r}: implementation name {shown(label)}, expected at most 100 letters, digits and '_.+- ', such as 'naive'"
            )
        if not callable(implementation):
            raise DeclarationError(
                f"loss {name!r}: implementation {label!r} is {shown(implementation)}, expected a class or a function"
            )


def check_spec(spec: Declared) -> None:
    """Hold a complete declaration together: tensors, laws, sizes and signatures.

    Raises:
        DeclarationError: two parts contradict each other, or one names what no other part has.
    """
    for flag in ("stateful", "detaches", "stochastic", "once"):
        if not isinstance(value := getattr(spec, flag), bool):
            raise DeclarationError(f"loss {spec.name!r}: got {flag}={shown(value)}, expected True or False")
    both = sorted(set(spec.input_arguments) & set(spec.context_arguments))
    if both:
        raise DeclarationError(f"loss {spec.name!r}: {both} stand both in inputs and in context; write each in one")
    _check_differentiable(spec)
    _check_optional(spec)
    _check_sizes(spec)
    _check_laws(spec)
    for label in spec.implementations:
        _check_signature(spec, label)
    _check_options(spec)
    for item in spec.error_inputs:
        if not callable(getattr(item, "change", None)):
            raise DeclarationError(
                f"loss {spec.name!r}: error_inputs has {shown(item)}, expected ErrorInputs, such as\n"
                f"    ErrorInput('short labels', lambda tensors: {{'labels': tensors['labels'][:1]}}, ValueError)"
            )


def _check_differentiable(spec: Declared) -> None:
    for name in spec.differentiable:
        if name not in spec.inputs:
            raise DeclarationError(
                f"loss {spec.name!r}: differentiable={shown(name)} is no input; inputs are {list(spec.inputs)}{nearest(name, spec.inputs)}"
            )
        tensor = spec.inputs[name]
        if not tensor.differentiable:
            held = tensor.dtype if tensor.dtype is not None else f"domain {tensor.domain!r}"
            raise DeclarationError(f"loss {spec.name!r}: differentiable={name!r} has {held}, which has no gradient")
    promised = sorted({"E03", "G03", "G11"} & {code.upper() for code in spec.requires})
    if spec.once and promised:
        raise DeclarationError(
            f"loss {spec.name!r}: got once=True and requires={promised}, which asks for a second backward; expected one of the two"
        )
    over = spec.writes_gradient_into
    if over is not None and over not in spec.differentiable:
        raise DeclarationError(
            f"loss {spec.name!r}: writes_gradient_into={shown(over)}, expected an input with a gradient, such as "
            f"writes_gradient_into={next(iter(spec.differentiable), 'logits')!r}"
        )


def _check_optional(spec: Declared) -> None:
    """A loss without optional tensors still has something to be checked on."""
    kept = [name for name in spec.inputs if name not in spec.optional]
    if not kept:
        raise DeclarationError(
            f"loss {spec.name!r}: every input is optional; take optional=True from one of {list(spec.inputs)}"
        )
    if spec.differentiable and not set(spec.differentiable) - set(spec.optional):
        raise DeclarationError(
            f"loss {spec.name!r}: every differentiable input is optional; take optional=True from one of "
            f"{list(spec.differentiable)}, or name another input in differentiable=..."
        )
    for label, implementation in spec.implementations.items():
        named = [name for name in spec.optional if name.replace(".", "_") in getattr(implementation, "used", ())]
        if named and getattr(implementation, "is_formula", False):
            raise DeclarationError(
                f"loss {spec.name!r}: the implementation {label!r} is a formula that names {named[0]!r}, which is optional, and a "
                f"formula has no None; take optional=True from {named[0]!r}, or write the reference as a function"
            )


def _check_sizes(spec: Declared) -> None:
    all_dims = spec.all_dims
    mixed = sorted(set(spec.variadic) & set(dims.scalar_symbols(all_dims)))
    if mixed:
        raise DeclarationError(
            f"loss {spec.name!r}: {mixed} stand both for one axis and for several ('*{mixed[0]}'); use two names"
        )
    known = {*spec.symbols, *spec.variadic}
    for symbol, size in spec.fixed_sizes.items():
        if isinstance(size, tuple) != (symbol in spec.variadic):
            wanted = "several axes, such as (2, 3)" if symbol in spec.variadic else "one axis, such as 3"
            raise DeclarationError(
                f"loss {spec.name!r}: fixed_sizes={{{shown(symbol)}: {shown(size)}}}, but {symbol!r} is {wanted}"
            )
    for position, sizes in enumerate(spec.bench_sizes or ()):
        for symbol in sizes:
            if symbol not in known:
                raise DeclarationError(
                    f"loss {spec.name!r}: bench_sizes[{position}] names no size {symbol!r}; sizes are {sorted(known)}"
                    f"{nearest(symbol, known)}"
                )
    output = [] if spec.output is None else [spec.output.dims]
    for symbol in (*dims.scalar_symbols(output), *dims.variadic_symbols(output)):
        if symbol not in known and not symbol.startswith("_"):
            raise DeclarationError(
                f"loss {spec.name!r}: output has the size {symbol!r}, which no tensor has; sizes are {sorted(known)}"
                f"{nearest(symbol, known)}"
            )
    dims.least_sizes(all_dims, fixed=spec.fixed_sizes)


def _check_laws(spec: Declared) -> None:
    known = {*spec.symbols, *spec.variadic}
    for law in spec.laws:
        if not isinstance(law, Law):
            raise DeclarationError(
                f"loss {spec.name!r}: law {shown(law)} is not from harness.laws, e.g. laws.permutation('B')"
            )
        for name in law.names:
            if name not in spec.tensors:
                raise DeclarationError(
                    f"loss {spec.name!r}: {law!r} names no tensor; tensors are {list(spec.tensors)}{nearest(name, spec.tensors)}"
                )
        for symbol in law.symbols:
            if symbol not in known:
                raise DeclarationError(
                    f"loss {spec.name!r}: {law!r} names no size; sizes are {sorted(known)}{nearest(symbol, known)}"
                )
        if law.code == "L15" and not spec.stochastic:
            raise DeclarationError(
                f"loss {spec.name!r}: {law!r} speaks of a loss that draws random numbers; write LossSpec(..., stochastic=True), "
                f"on the command line --stochastic"
            )
        if law.code == "L15" and len(spec.implementations) < 2:
            raise DeclarationError(
                f"loss {spec.name!r}: {law!r} holds the mean over the draws to a reference, and there is none; write "
                f'LossSpec(..., formula="...") or a first implementation that draws nothing'
            )
        if law.code in {"L07", "L09"}:
            first, second = (spec.tensors[name] for name in law.names)
            if first.dims != second.dims:
                raise DeclarationError(
                    f"loss {spec.name!r}: {law!r} puts one tensor in the place of the other, but their dims are "
                    f"{first.dims!r} and {second.dims!r}; it can hold only for equal dims"
                )


def _check_signature(spec: Declared, label: str) -> None:
    """Every declared tensor can be given to the implementation, and nothing that it needs is left out."""
    implementation = spec.implementations[label]
    call = signatures.call_function(implementation)
    constructor, called = signatures.construct_parameters(implementation), signatures.parameters(call)
    accepted = {**constructor, **called}
    if not accepted or signatures.takes_any_keyword(call):
        return
    generators = {*signatures.generators(implementation), *signatures.generators(call)}
    for name in spec.arguments if not signatures.takes_any_position(call) else ():
        in_constructor = signatures.in_constructor(implementation, name) and name in spec.context_arguments
        if not (name in accepted or in_constructor):
            raise DeclarationError(
                f"loss {spec.name!r}: implementation {label!r} takes no {name!r}; it takes {list(accepted)}"
                f"{nearest(name, accepted)}.  Tensors are passed by keyword in declared names"
            )
    for where, wanted in (("its constructor", constructor), ("its call", called)):
        for name, parameter in wanted.items():
            in_context = name in spec.context_arguments
            given = name in spec.options or (in_context if where == "its constructor" else name in spec.arguments)
            taken = where == "its call" and name in constructor and in_context
            given = given or (spec.stochastic and name in generators)
            if parameter.default is inspect.Parameter.empty and (not given or taken):
                reason = "which its constructor has taken" if given and taken else "which nothing declares"
                raise DeclarationError(
                    f"loss {spec.name!r}: {where} of implementation {label!r} needs {name!r}, {reason}; write one of\n"
                    f'    LossSpec(..., options={{"{name}": ...}})              (a constant)\n'
                    f'    LossSpec(..., context={{"{name}": TensorSpec("B")}})  (a tensor that exists before training)\n'
                    f"or give the parameter a default"
                    + (
                        "; a loss that draws from it on purpose is LossSpec(..., stochastic=True)"
                        if name in generators
                        else ""
                    )
                )


def _check_options(spec: Declared) -> None:
    for option in spec.options:
        taken: dict[str, inspect.Parameter] = {}
        for implementation in spec.implementations.values():
            call = signatures.call_function(implementation)
            accepted = {**signatures.construct_parameters(implementation), **signatures.parameters(call)}
            if option in accepted or not accepted or signatures.takes_any_name(implementation):
                break
            taken |= accepted
        else:
            raise DeclarationError(
                f"loss {spec.name!r}: option {option!r} is taken by no implementation; they take {list(taken)}"
                f"{nearest(option, taken)}"
            )
