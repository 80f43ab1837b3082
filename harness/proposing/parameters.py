"""The parameters of a loss, each with what it may be: declared, documented, or usual for its name."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin

from torch import Tensor

from harness.declare import annotations as signatures
from harness.declare import inline
from harness.declare import structures as structured
from harness.declare.spec import TensorSpec
from harness.errors import DeclarationError
from harness.proposing import docs, knowledge, samplers
from harness.proposing.knowledge import Guess

Place = Literal["constructor", "call"]

LIST_LENGTH = "L"  # of a list whose annotation says no number
OF_ITS_OWN_AXIS = 2.0  # the cost of classes along an axis of classes
DOCUMENTED = -3.0  # of the cost, where a docstring states dims or values


@dataclass(frozen=True)
class Parameter:
    """One parameter of a loss.

    Args:
        name: of the parameter.
        place: whether the constructor or the call takes it.
        optional: whether it may be left out.
        is_tensor: whether it is a tensor, where anything says so.
        guesses: what it may be.
    """

    name: str
    place: Place
    optional: bool
    is_tensor: bool | None
    guesses: tuple[Guess, ...]


def parameters_of(loss: Callable[..., Any]) -> list[Parameter]:
    """Every parameter of a loss that can be given by itself, those of the constructor first.

    Raises:
        DeclarationError: annotations that contradict themselves.
    """
    text = docs.text_of(loss)
    call = signatures.call_function(loss)
    constructor = signatures.construct_parameters(loss)
    called = signatures.parameters(call) or _documented(call)
    names = [*constructor, *called]
    found = [_parameter(p, "constructor", _hints(loss.__init__), text, names) for p in constructor.values()]
    bound = signatures.bound(call)
    found += [_parameter(p, "call", _hints(call), text, names) for name, p in called.items() if name not in bound]
    return found


def _documented(call: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a builtin, whose docstring begins with its signature."""
    head = re.match(r"[\w.]*\w\(([^()]*)\)", (inspect.getdoc(call) or "").strip())
    pieces = [piece.partition("=") for piece in head.group(1).split(",")] if head else []
    found = {name.strip(): value for name, _, value in pieces if name.strip().isidentifier()}
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return {
        name: inspect.Parameter(name, kind, default=value if value else inspect.Parameter.empty)
        for name, value in found.items()
    }


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return signatures.hints(function)
    except DeclarationError:
        return {}  # names and trial calls must do where annotations cannot be evaluated


def _parameter(
    parameter: inspect.Parameter, place: Place, hints: dict[str, Any], text: str, names: Sequence[str]
) -> Parameter:
    name, annotation = parameter.name, hints.get(parameter.name)
    optional = parameter.default is not inspect.Parameter.empty
    length = _length(annotation)
    declared = _declared(name, annotation)
    if declared is not None:
        return Parameter(name, place, optional, True, (declared,))
    is_tensor = _is_tensor(parameter, annotation)
    if optional and is_tensor is None:
        is_tensor = parameter.default is None and knowledge.kind_of(name)[0] != ""
    guesses: list[Guess] = []
    about = docs.part_about(text, name)
    if is_tensor is None and docs.shapes_in(about) and not docs.is_number(about):
        is_tensor = True
    if is_tensor and _is_mapping(annotation):
        return Parameter(name, place, optional, True, ())  # nothing says by which keys
    if is_tensor is not False:
        guesses += [replace(guess, several=length) for guess in _of_tensor(name, about, text, names)]
    if is_tensor is None:
        # A constructor takes constants more often than tensors, where no name says which.
        is_constant = knowledge.is_constant_name(name) or (place == "constructor" and not knowledge.kind_of(name)[0])
        shift = 0.0 if is_constant else knowledge.AGAINST_ANNOTATION
        guesses = [knowledge.dearer(g, knowledge.AGAINST_ANNOTATION - shift) for g in guesses]
        guesses += [knowledge.dearer(g, shift) for g in knowledge.constants(name)]
    elif is_tensor is False:
        guesses = (
            _sizes(parameter, text)
            or _chosen_for_torch(name, annotation)
            or _quoted(annotation, about)
            or knowledge.constants(name, annotation)
        )
    return Parameter(name, place, optional, is_tensor, tuple(sorted(guesses, key=lambda guess: guess.cost)))


def _length(annotation: Any) -> str | int | None:
    """How many tensors a list of them has by its annotation: the number of a tuple's, else drawn; ``None`` for one tensor."""
    members = [member for member in get_args(annotation) if member is not type(None)]
    if get_origin(annotation) in (Union, types.UnionType):
        return _length(members[0]) if len(members) == 1 else None
    tensors = [member for member in members if isinstance(member, type) and issubclass(member, Tensor)]
    origin = get_origin(annotation)
    if not tensors or not isinstance(origin, type) or not issubclass(origin, Sequence):
        return None
    return len(members) if origin is tuple and Ellipsis not in members else LIST_LENGTH


def _is_mapping(annotation: Any) -> bool:
    kinds = [get_origin(part) for part in (annotation, *get_args(annotation))]
    return any(isinstance(kind, type) and issubclass(kind, Mapping) for kind in kinds)


def _quoted(annotation: Any, about: str) -> list[Guess]:
    """The words that a docstring quotes, for a text."""
    words = dict.fromkeys(re.findall(r"[\"'`]+(\w[\w-]*)[\"'`]+", about)) if annotation is str else {}
    return [
        Guess(knowledge.LEAST_STEP * place, value=word, why="a word that its docstring quotes")
        for place, word in enumerate(words)
    ]


def _chosen_for_torch(name: str, annotation: Any) -> list[Guess]:
    """The choice of torch, where an annotation or the name says that it is one among backends."""
    members = [choice for part in (annotation, *get_args(annotation)) for choice in get_args(part)]
    is_choice = name == "backend" or "torch" in members
    return [Guess(0.0, value="torch", why="torch, among the backends that it chooses from")] if is_choice else []


def _sizes(parameter: inspect.Parameter, text: str) -> list[Guess]:
    """What a default states of a size, where the name, or a shape in the docstring, says that it does."""
    axes = " ".join(docs.shapes_in(text)).split()
    symbol = knowledge.size_stated(parameter.name) or (
        parameter.name.upper() if parameter.name.upper() in axes else None
    )
    if symbol is None or not isinstance(parameter.default, int) or isinstance(parameter.default, bool):
        return []
    return [Guess(0.0, value=parameter.default, fixes=symbol, why="its default, which states a size")]


def _declared(name: str, annotation: Any) -> Guess | None:
    found = signatures.read(annotation)
    if found is None:
        return None
    domain, dtype = signatures.default_domain(found, name)
    text = inline.tensor_text(TensorSpec(found.dims, domain, dtype))
    values = text.removeprefix(" ".join(found.dims.split())).strip() or "real"
    return Guess(0.0, found.dims, values, why="its annotation", confidence="declared")


def _is_tensor(parameter: inspect.Parameter, annotation: Any) -> bool | None:
    """What the annotation and the default say; ``None`` where they say nothing."""
    members = get_args(annotation) if get_origin(annotation) is not None else (annotation,)
    inside = [member for member in members if member is not type(None)]
    if get_origin(annotation) in (Union, types.UnionType) and len(inside) == 1:
        return _is_tensor(parameter, inside[0])
    if any(isinstance(member, type) and issubclass(member, Tensor) for member in members):
        return True
    if parameter.default not in (inspect.Parameter.empty, None):
        return False
    if annotation in (int, float, bool, str) or get_origin(annotation) not in (None, Union, types.UnionType):
        return False
    return None


def _of_tensor(name: str, about: str, text: str, names: Sequence[str]) -> list[Guess]:
    """Readings of a tensor: what its docstring states, in every usual domain, before what is usual for its name."""
    usual = knowledge.readings(name)
    shapes = docs.shapes_in(about)
    values = docs.values_in(about) or docs.values_in(docs.sentences_about(text, name, names))
    other = docs.same_as(about, [n for n in names if n != name])
    if not shapes and other is not None:
        shapes = docs.shapes_in(docs.part_about(text, other))
    if not values and knowledge.kind_of(name)[1].role == "label":
        values = [value for value in docs.values_in(text) if value == "sign"]  # said of ``y``, not of the name
    if knowledge.kind_of(name)[1].role == "weight":
        values = [value for value in values if value not in knowledge.OF_SCORES]
    domains = dict.fromkeys([*values, *(guess.domain for guess in usual)])
    found: dict[tuple[str | None, str], Guess] = {(g.dims, g.domain): g for g in usual}
    for guess in usual:
        if guess.domain in values:
            why = "its docstring speaks of such values"
            found[guess.dims, guess.domain] = replace(guess, cost=guess.cost + DOCUMENTED / 2, why=why)
    for position, shape in enumerate(shapes):
        for place, domain in enumerate(domains):
            cost = (
                DOCUMENTED
                + 0.3 * position
                + knowledge.LEAST_STEP * place
                + (DOCUMENTED / 2 if domain in values and any(guess.domain == domain for guess in usual) else 0)
            )
            if domain not in values and not any(guess.domain == domain for guess in usual):
                continue
            if domain.startswith("index(C") and "C" in shape.split():
                cost += OF_ITS_OWN_AXIS
            confidence: Any = "declared" if domain in values else "guessed"
            found[shape, domain] = Guess(cost, shape, domain, why="its docstring says so", confidence=confidence)
    for place, domain in enumerate(values if not shapes else ()):
        for dims in dict.fromkeys(str(guess.dims) for guess in usual):
            cost = DOCUMENTED / 2 + knowledge.LEAST_STEP * place
            found.setdefault((dims, domain), Guess(cost, dims, domain, why="its docstring speaks of such values"))
    return list(found.values())


def tensor_spec(dims: str, domain: str, several: str | int | None = None) -> Any:
    """The tensor, or tensors, of a reading; domains that `harness.domains` lacks are made by the samplers of `harness.proposing`."""
    made = samplers.tensor_spec(dims, domain) or inline.tensor(f"{dims} {domain}")
    if several is None:
        return made
    return (made,) * several if isinstance(several, int) else structured.several(several, made)
