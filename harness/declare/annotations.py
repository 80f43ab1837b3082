"""jaxtyping annotations -> `TensorSpec`; the only reader of jaxtyping's internals (`dim_str`, `dtypes`, `array_type`)."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import types
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import torch
from torch import nn

from harness.declare import domains
from harness.declare.domains import Domain
from harness.declare.tensor_spec import TensorSpec
from harness.errors import DeclarationError

_GENERATOR = re.compile(r"\btorch\.(_C\.)?Generator\b")
_LISTED: weakref.WeakKeyDictionary[Callable[..., Any], Mapping[str, inspect.Parameter]] = weakref.WeakKeyDictionary()


class Context:
    """Marks a function's parameter as context: ``weights: Annotated[Float[Tensor, "B"], Context]``."""


@dataclass(frozen=True)
class Annotation:
    """What one annotation says of a tensor."""

    dims: str
    dtype_names: tuple[str, ...]
    domain: Domain | None
    is_context: bool


def read(annotation: Any) -> Annotation | None:
    """What an annotation says of a tensor, or ``None`` where it says nothing of one.

    Raises:
        DeclarationError: two domains, or one that is named but not called.
    """
    domain: Domain | None = None
    is_context = False
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *metadata = get_args(annotation)
            for item in metadata:
                if isinstance(item, Domain):
                    if domain is not None:
                        raise DeclarationError(
                            f"one annotation has two domains, {domain!r} and {item!r}; write one of them"
                        )
                    domain = item
                elif callable(item) and getattr(item, "__module__", None) == domains.__name__:
                    raise DeclarationError(f"got domains.{item.__name__}, expected a call: domains.{item.__name__}()")
                is_context |= item is Context or isinstance(item, Context)
        elif origin in (Union, types.UnionType):
            members = [member for member in get_args(annotation) if member is not type(None)]
            if len(members) != 1:
                return None
            annotation = members[0]
        else:
            break
    is_array = isinstance(annotation, type) and hasattr(annotation, "dim_str") and hasattr(annotation, "array_type")
    if not is_array or not issubclass(annotation.array_type, torch.Tensor):
        return None
    dtypes = annotation.dtypes
    names = () if isinstance(dtypes, str) or not isinstance(dtypes, (tuple, list)) else tuple(map(str, dtypes))
    return Annotation(annotation.dim_str, names, domain, is_context)


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Evaluated type hints of a function, ``Annotated`` metadata kept; empty where a builtin has none.

    Raises:
        DeclarationError: an annotation that cannot be evaluated in the function's module.
    """
    if isinstance(function, functools.partial):
        return hints(function.func)
    if not hasattr(function, "__annotations__"):
        return {}
    try:
        return get_type_hints(function, include_extras=True)
    except Exception as error:
        name = getattr(function, "__qualname__", repr(function))
        raise DeclarationError(
            f"the annotations of {name} cannot be evaluated ({type(error).__name__}: {error}); import what they name in the "
            f"module that defines the loss, outside `if TYPE_CHECKING`, or declare all of it beside the loss:\n"
            f"    LossSpec(..., inputs={{...}}, context={{...}})"
        ) from error


def tensor_spec(annotation: Annotation, parameter: str) -> TensorSpec:
    """The tensor that an annotation declares, in the usual domain of its dtype where it names none.

    Raises:
        DeclarationError: an integer tensor whose range nothing states, or a domain that the dtype cannot
            hold.
    """
    axes, names, domain = annotation.dims, annotation.dtype_names, annotation.domain
    dtype = _single_dtype(names)
    floating = not names or any("float" in name for name in names)
    if names and all("complex" in name for name in names):
        return TensorSpec(axes, domain or domains.complex_())
    if domain is None and dtype == torch.bool:
        return TensorSpec(axes, domains.boolean())
    if domain is None and not floating:
        raise DeclarationError(
            f"parameter {parameter!r} is an integer tensor, and nothing says which integers are legal; write\n"
            f'    {parameter}: Annotated[Int[Tensor, "{axes}"], domains.index("C")]\n'
            f"with the size that its values are below"
        )
    if domain is None:
        return TensorSpec(axes, domains.real(), dtype)
    if floating and domain.kind != "float" and len(names) > 0 and not any("int" in name for name in names):
        name = "Bool" if domain.kind == "boolean" else "Int"
        raise DeclarationError(
            f"parameter {parameter!r} is a floating tensor, but its domain {domain!r} is not; write\n"
            f'    {parameter}: Annotated[{name}[Tensor, "{axes}"], domains.{domain!r}]'
        )
    if not floating and dtype is None and (domain.kind == "float" or domain.default_dtype == torch.bool):
        dtype = torch.int64  # `Int` allows every width, and int64 is what PyTorch makes of Python integers
    return TensorSpec(axes, domain, dtype)


def _single_dtype(names: tuple[str, ...]) -> torch.dtype | None:
    known = {found for name in names if isinstance(found := getattr(torch, name, None), torch.dtype)}
    return known.pop() if len(known) == 1 and (len(names) == 1 or torch.bool in known) else None


def _listed(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """The parameters of a signature, which is read once; ``None`` where a builtin has none."""
    with contextlib.suppress(KeyError, TypeError):  # TypeError: what cannot be hashed, or referred to weakly
        return _LISTED[function]
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    with contextlib.suppress(TypeError):
        _LISTED[function] = found
    return found


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters that can be given one by one, without ``self``; empty where a builtin has no signature."""
    of_several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    listed = _listed(function) or {}
    return {name: p for name, p in listed.items() if p.kind not in of_several and name != "self"}


def takes_any_keyword(function: Callable[..., Any]) -> bool:
    """Whether a function accepts names that its signature does not list."""
    listed = _listed(function)
    return listed is None or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in listed.values())


def generators(function: Callable[..., Any]) -> tuple[str, ...]:
    """Parameters that take a `torch.Generator`: annotated so, or called ``generator``."""
    found = parameters(function).items()
    return tuple(name for name, p in found if name == "generator" or _GENERATOR.search(str(p.annotation)))


def bind(function: Callable[..., Any], given: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(arguments by position, arguments by name) of a call; by position where a parameter takes no name, or is ``*args``."""
    kinds = {name: p.kind for name, p in parameters(function).items()}
    positional = [n for n, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_ONLY and n in given]
    more = [] if not takes_any_position(function) else [n for n in given if n not in kinds]
    if more and not takes_any_keyword(function):
        positional = [
            n for n, kind in kinds.items() if kind is not inspect.Parameter.KEYWORD_ONLY and n in given
        ] + more
    return tuple(given[n] for n in positional), {n: value for n, value in given.items() if n not in positional}


def takes_positions(function: Callable[..., Any]) -> bool:
    """Whether some argument of a call has to be given by position."""
    only = any(p.kind is inspect.Parameter.POSITIONAL_ONLY for p in parameters(function).values())
    return only or (takes_any_position(function) and not takes_any_keyword(function))


def takes_any_position(function: Callable[..., Any]) -> bool:
    """Whether a function has a parameter ``*args``."""
    return any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in (_listed(function) or {}).values())


def bound(function: Callable[..., Any]) -> frozenset[str]:
    """Parameters that `functools.partial` has already given by keyword."""
    return frozenset(function.keywords) if isinstance(function, functools.partial) else frozenset()


def construct_parameters(implementation: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters of the constructor, for a class; none for any other callable."""
    return parameters(implementation.__init__) if inspect.isclass(implementation) else {}


def takes_any_name(implementation: Callable[..., Any]) -> bool:
    """Whether an implementation can be given names that no signature lists: its call or, of a class, its constructor takes any."""
    call = call_function(implementation)
    return takes_any_keyword(call) or takes_any_position(call) or _constructor_takes_any(implementation)


def in_constructor(implementation: Callable[..., Any], name: str) -> bool:
    """Whether a name is for the constructor: listed there, or nowhere where the constructor alone takes any."""
    if name in construct_parameters(implementation):
        return True
    call = call_function(implementation)
    return _constructor_takes_any(implementation) and not (name in parameters(call) or takes_any_keyword(call))


def _constructor_takes_any(implementation: Callable[..., Any]) -> bool:
    if not inspect.isclass(implementation):
        return False
    own: Callable[..., Any] = implementation.__init__
    inherited = (nn.Module.__init__, object.__init__)  # where a class has none of its own
    return own not in inherited and (takes_any_keyword(own) or takes_any_position(own))


def _calls_forward(kind: type) -> bool:
    """Whether a class is a module whose call hands its arguments on to ``forward`` as they are."""
    return issubclass(kind, nn.Module) and (kind.__call__ is nn.Module.__call__ or not parameters(kind.__call__))


def call_function(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """The function whose signature says what a call takes."""
    if inspect.isclass(implementation):
        method: Callable[..., Any] = getattr(
            implementation, "forward" if _calls_forward(implementation) else "__call__"
        )
        return method
    if isinstance(implementation, nn.Module) and _calls_forward(type(implementation)):
        return implementation.forward
    own = type(implementation).__call__
    if inspect.isfunction(own):  # an instance of the user's class, not a function or a builtin
        return types.MethodType(own, implementation)
    return implementation
