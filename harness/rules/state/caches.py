"""What a function or class keeps between calls outside of its instances: module-level and class-level caches."""

from __future__ import annotations

import copy
import dis
import functools
import operator
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import getattr_static, isclass
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from harness.calls.evaluation import LossRaised
from harness.declare.annotations import call_function
from harness.rules.trial import Trial

_CONTAINERS = (dict, list, set, deque)
_FOREIGN = {"torch", "builtins", "numpy", "harness", "typing"}


@dataclass(frozen=True)
class Cache:
    """Something that can be emptied and put back as it was.

    Args:
        content: what is in it now; ``None`` or empty where nothing is.
        put: makes this its content.
    """

    content: Callable[[], Any]
    put: Callable[[Any], None]


def _container(held: Any) -> Cache:
    """A dict, list or set that functions share."""

    def put(content: Any) -> None:
        held.clear()
        if content:
            (held.extend if isinstance(held, (list, deque)) else held.update)(content)

    return Cache(lambda: copy.copy(held), put)


def _global(variables: dict[str, Any], name: str) -> Cache:
    """A module's variable that a function binds anew (``global mask``)."""
    return Cache(lambda: variables.get(name), functools.partial(operator.setitem, variables, name))


def _memo(function: Any) -> Cache:
    """What `functools.cache` keeps of a function: it can be emptied, and is where it held less before."""

    def held() -> int:
        return int(function.cache_info().currsize)

    def put(content: Any) -> None:
        if not content or held() > content:
            function.cache_clear()

    return Cache(held, put)


def _attribute(owner: type, name: str) -> Cache:
    """A tensor, or the place of one, that a class keeps for all of its instances."""
    return Cache(lambda: vars(owner).get(name), functools.partial(setattr, owner, name))


def caches(trial: Trial) -> list[Cache]:
    """What outlives a call in the implementation's module and class, and what a call fills again once it is emptied."""
    return [found for found in _candidates(trial) if _is_refilled(trial, found)]


@contextmanager
def emptied(found: Sequence[Cache]) -> Iterator[None]:
    """Empty some caches, and put back what was in them."""
    with _restored(found):
        for cache in found:
            cache.put(None)
        yield


@contextmanager
def restored(trial: Trial) -> Iterator[None]:
    """Put back whatever outlives a call, as if there had been none.

    What now holds a process or a file stays as it is: to be let go of would close it.
    """
    with _restored(list(_candidates(trial)), stays=_is_finalized):
        yield


@contextmanager
def _restored(found: Sequence[Cache], stays: Callable[[Any], bool] = lambda content: False) -> Iterator[None]:
    before = [cache.content() for cache in found]
    try:
        yield
    finally:
        for cache, content in zip(found, before, strict=True):
            if not stays(cache.content()):
                cache.put(content)


def _is_finalized(content: Any) -> bool:
    """Whether something is done when it, or an item of a container, is let go of."""
    if isinstance(content, dict):
        return any(map(_is_finalized, content.values()))
    if isinstance(content, (list, tuple, set, deque)):
        return any(map(_is_finalized, content))
    return hasattr(type(content), "__del__")


def _is_refilled(trial: Trial, cache: Cache) -> bool:
    """A table of constants is not: without it the loss raises, or goes on without."""
    with emptied([cache]):
        try:
            trial.run(trial.tensors())
        except LossRaised:
            return False
        content = cache.content()
        return content is not None if isinstance(content, Tensor) else bool(content)


def _candidates(trial: Trial) -> list[Cache]:
    implementation = trial.candidate.implementation
    found: dict[Any, Cache] = {}  # by what tells it from others
    functions: list[Any] = []
    if isclass(implementation) or isinstance(implementation, nn.Module):
        owner = implementation if isclass(implementation) else type(implementation)
        for part in owner.__mro__:
            if not _is_foreign(part):
                found |= _of_class(part)
                functions += vars(part).values()
    else:
        functions.append(call_function(implementation))
    seen: dict[int, FunctionType] = {}
    while functions:
        function: Any = _undecorated(functions.pop())
        if isinstance(function, FunctionType) and id(function) not in seen and not _is_foreign(function):
            seen[id(function)] = function
            kept = _reachable(function)
            found |= {id(value): _container(value) for value in kept if isinstance(value, _CONTAINERS)}
            found |= {id(value): _memo(value) for value in kept if isinstance(value, functools._lru_cache_wrapper)}
            variables = function.__globals__
            found |= {(id(variables), name): _global(variables, name) for name in _bound_globally(function)}
            functions += [f for f in kept if isinstance(_undecorated(f), FunctionType)]
    return list(found.values())


def _undecorated(thing: Any) -> Any:
    """The function below its decorators; looked up statically, as a lazy import of what is not there raises when asked."""
    passed: list[Any] = []
    while all(thing is not other for other in passed):
        passed.append(thing)
        thing = getattr_static(thing, "__wrapped__", thing)
    return thing


def _is_foreign(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] in _FOREIGN


def _of_class(part: type) -> dict[Any, Cache]:
    own = {name: value for name, value in vars(part).items() if not name.startswith("__")}
    shared = {id(value): _container(value) for value in own.values() if isinstance(value, _CONTAINERS)}
    tensors = [name for name, value in own.items() if value is None or isinstance(value, Tensor)]
    return {**shared, **{(id(part), name): _attribute(part, name) for name in tensors}}


def _bound_globally(function: FunctionType) -> list[str]:
    return [str(i.argval) for i in dis.get_instructions(function) if i.opname == "STORE_GLOBAL"]


def _reachable(function: FunctionType) -> list[Any]:
    """What a function refers to: globals by name, closure, defaults and its own attributes."""
    named = [function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__]
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [*named, *cells, *defaults, *vars(function).values()]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
