"""jaxtyping annotations -> `TensorSpec`; the only reader of jaxtyping's internals (`dim_str`, `dtypes`, `array_type`)."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import torch

from harness import domains
from harness.domains import Domain
from harness.errors import DeclarationError


class Context:
    """Marks a function's parameter as context: ``weights: Annotated[Float[Tensor, "B"], Context]``."""


@dataclass(frozen=True)
class Annotation:
    """What one annotation says of a tensor."""

    dims: str
    dtype_names: tuple[str, ...]
    domain: Domain | None
    is_context: bool


def is_jaxtyping(annotation: Any) -> bool:
    """Whether ``annotation`` is a jaxtyping array type such as ``Float[Tensor, "B"]``."""
    return isinstance(annotation, type) and hasattr(annotation, "dim_str") and hasattr(annotation, "array_type")


def read(annotation: Any) -> Annotation | None:
    """What an annotation says of a tensor, or ``None`` where it says nothing of one."""
    domain: Domain | None = None
    is_context = False
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *metadata = get_args(annotation)
            for item in metadata:
                if isinstance(item, Domain):
                    domain = item
                is_context |= item is Context or isinstance(item, Context)
        elif origin in (Union, types.UnionType):
            members = [member for member in get_args(annotation) if member is not type(None)]
            if len(members) != 1:
                return None
            annotation = members[0]
        else:
            break
    if not is_jaxtyping(annotation):
        return None
    if not issubclass(annotation.array_type, torch.Tensor):
        return None
    dtypes = annotation.dtypes
    names = () if isinstance(dtypes, str) or not isinstance(dtypes, (tuple, list)) else tuple(map(str, dtypes))
    return Annotation(annotation.dim_str, names, domain, is_context)


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Evaluated type hints of a function, ``Annotated`` metadata kept.

    Raises:
        DeclarationError: an annotation names something that does not exist in the function's module.
    """
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        name = getattr(function, "__qualname__", repr(function))
        raise DeclarationError(
            f"the annotations of {name} cannot be evaluated ({error}); import that name in the module that defines the "
            f"loss, outside `if TYPE_CHECKING`, or declare the tensors with LossSpec(inputs=..., context=...)"
        ) from error
    except Exception:  # annotations are foreign code: one that cannot be read says nothing
        return {}


def default_domain(annotation: Annotation, parameter: str) -> tuple[Domain, torch.dtype | None]:
    """The domain and dtype that follow from the dtype of an annotation alone.

    Raises:
        DeclarationError: an integer tensor whose range nothing states.
    """
    names = annotation.dtype_names
    dtype = _single_dtype(names)
    if annotation.domain is not None:
        boolean = dtype == torch.bool or (annotation.domain.kind == "integer" and dtype is not None)
        return annotation.domain, dtype if boolean or (dtype is not None and dtype.is_floating_point) else None
    if dtype == torch.bool:
        return domains.boolean(), None
    if names and all("int" in name for name in names):
        raise DeclarationError(
            f"parameter {parameter!r} is an integer tensor, and nothing says which integers are legal; write\n"
            f'    {parameter}: Annotated[Int[Tensor, "{annotation.dims}"], domains.index("C")]\n'
            f"with the size that its values are below"
        )
    return domains.real(), dtype


def _single_dtype(names: tuple[str, ...]) -> torch.dtype | None:
    known = {name for name in names if isinstance(getattr(torch, name, None), torch.dtype)}
    if known == {"bool"}:
        return torch.bool
    if len(names) == 1 and len(known) == 1:
        dtype: torch.dtype = getattr(torch, known.pop())
        return dtype
    return None


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters that can be given by keyword, without ``self``; empty where a builtin has no signature."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return {}
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: p for name, p in signature.parameters.items() if p.kind in by_keyword and name != "self"}


def takes_any_keyword(function: Callable[..., Any]) -> bool:
    """Whether a function accepts names that its signature does not list."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())


def return_annotation(function: Callable[..., Any]) -> Any:
    """The return annotation of a function, evaluated, or ``None``."""
    return hints(function).get("return")
