"""The parameters of a loss, each with what it may be: declared, documented, or usual for its name."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin

import torch
from torch import Tensor

from harness.declare import annotations as signatures
from harness.declare import domains, inline
from harness.declare import structures as structured
from harness.declare.tensor_spec import TensorSpec
from harness.errors import DeclarationError
from harness.proposing import code, docs, examples, knowledge, samplers
from harness.proposing.examples import Example
from harness.proposing.knowledge import Guess

Place = Literal["constructor", "call"]

LEGACY = type(torch.LongTensor)  # of annotations that say a dtype
LIST_LENGTH = "L"  # of a list whose annotation says no number
OF_ITS_OWN_AXIS = 2.0  # the cost of classes along an axis of classes, of lengths along what they are lengths of
OF_POINTS = 3  # axes of a cloud of points or of a sequence of vectors
OF_NO_AXIS = 0.5  # the cost of classes in one, where nothing that is documented has an axis of classes
AGAINST_CODE = 3.0  # of another number of axes than the code has
DOCUMENTED = -3.0  # of the cost, where a docstring states dims or values
LARGE = 64  # a size that makes every case slow
SHOWN = -5.0  # where its example passes such a tensor


@dataclass(frozen=True)
class Parameter:
    """One parameter of a loss.

    Args:
        name: of the parameter.
        place: whether the constructor or the call takes it.
        optional: whether it may be left out.
        is_tensor: whether it is a tensor, where anything says so.
        guesses: what it may be, the most usual first.
        predicted: whether it is a prediction whatever its name says.
    """

    name: str
    place: Place
    optional: bool
    is_tensor: bool | None
    guesses: tuple[Guess, ...]
    predicted: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "guesses", tuple(sorted(self.guesses, key=lambda guess: guess.cost)))


def parameters_of(loss: Callable[..., Any], reference: Callable[..., Any] | None = None) -> list[Parameter]:
    """Every parameter of a loss that can be given by itself, those of the constructor first.

    Args:
        loss: a function, a module or a class.
        reference: another that takes the same tensors; what its docstring says counts where that of the loss tells no shapes.

    Raises:
        DeclarationError: annotations that contradict themselves.
    """
    text = docs.text_of(loss)
    if reference is not None and not docs.shapes_in(text):
        text = f"{text}\n\n{docs.text_of(reference)}"
    written = [loss] if reference is None else [reference, loss]
    unpacked = {name: dims for one in written for name, dims in code.unpacked(one).items()}
    if not docs.shapes_in(text):
        text = f"{text}\n\n{code.documented(unpacked)}"
    axes = {name: (count, False) for one in written for name, count in code.least_axes(one).items()}
    axes |= {name: (len(dims.split()), True) for name, dims in unpacked.items()}
    call = signatures.call_function(loss)
    if not signatures.parameters(call) and signatures.takes_any_keyword(call):
        call = getattr(loss, "update", call)  # the call of a metric of torchmetrics hands all to it
    constructor = signatures.construct_parameters(loss)
    called = signatures.parameters(call) or _documented(call)
    names = [*constructor, *called]
    example = examples.example_of(text, getattr(loss, "__name__", ""), list(constructor), list(called))
    bound = signatures.bound(call)
    places: list[tuple[Place, Any, dict[str, inspect.Parameter]]] = [
        ("constructor", loss.__init__ if constructor else None, constructor),
        ("call", call, {name: parameter for name, parameter in called.items() if name not in bound}),
    ]
    return _with_prediction(
        [
            _with_axes(_parameter(parameter, place, _hints(function), text, names, example), axes.get(parameter.name))
            for place, function, parameters in places
            for parameter in parameters.values()
        ]
    )


def _with_axes(parameter: Parameter, axes: tuple[int, bool] | None) -> Parameter:
    """With readings of fewer axes than its code indexes, or of others than it unpacks, as the last."""
    if axes is None or any(guess.confidence == "declared" for guess in parameter.guesses):
        return parameter
    count, is_exact = axes

    def fits(guess: Guess) -> bool:
        found = (guess.dims or "").split()
        is_many = guess.dims is None or any(axis.startswith("*") for axis in found)
        return is_many or (len(found) == count if is_exact else len(found) >= count)

    guesses = (guess if fits(guess) else knowledge.dearer(guess, AGAINST_CODE) for guess in parameter.guesses)
    return replace(parameter, guesses=tuple(guesses))


def _with_prediction(parameters: list[Parameter]) -> list[Parameter]:
    """Where no name of a call says what is predicted, it is what the call takes first, though weights or constants are called so."""
    needed = [p for p in parameters if p.place == "call" and not p.optional and p.is_tensor is not False]
    kinds = [knowledge.kind_of(p.name) for p in needed]
    if not needed or any(word and kind.role == "prediction" for word, kind in kinds):
        return parameters
    first = needed[0]
    is_other = kinds[0][1].role == "weight" or knowledge.is_constant_name(first.name)
    if not is_other or any(guess.confidence == "declared" for guess in first.guesses):
        return parameters
    tensors = [guess for guess in first.guesses if guess.dims is not None]
    least = tensors[0].cost if tensors else 0.0
    of_its_name = {(guess.dims, guess.why) for guess in knowledge.readings(first.name)}
    documented = [knowledge.dearer(g, -least) for g in tensors if (g.dims, g.why) not in of_its_name]
    usual = [
        Guess(knowledge.LEAST_STEP * place, dims, domain, why="what the call takes first is predicted")
        for place, dims in enumerate(dict.fromkeys(guess.dims for guess in knowledge.readings("input")))
        for domain in dict.fromkeys((*(guess.domain for guess in tensors), "positive"))
    ]
    changed = replace(first, guesses=(*documented, *usual), predicted=True)
    return [changed if parameter is first else parameter for parameter in parameters]


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
    parameter: inspect.Parameter,
    place: Place,
    hints: dict[str, Any],
    text: str,
    names: Sequence[str],
    example: Example,
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
    if isinstance(annotation, LEGACY):
        about += f"\n{annotation.__name__}"  # such as torch.LongTensor, which says what a docstring may say
    shown = example.tensors.get(name, ())
    if is_tensor is None and (shown or (docs.shapes_in(about) and not docs.is_number(about))):
        is_tensor = True
    if is_tensor is None and docs.is_number(about):
        is_tensor = False
    if is_tensor and _is_mapping(annotation):
        return Parameter(name, place, optional, True, ())  # nothing says by which keys
    if is_tensor is not False:
        documented = _of_tensor(name, about, text, names)
        guesses += [replace(g, several=length) for g in (*_as_shown(name, shown, documented), *documented)]
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
            or _quoted(name, annotation, about)
            or knowledge.constants(name, annotation)
        )
    if is_tensor is not True and name in example.constants:
        told = Guess(0.0, value=example.constants[name], fixes=knowledge.size_stated(name), why="its example passes it")
        guesses = [told, *(knowledge.dearer(guess, knowledge.LEAST_STEP) for guess in guesses)]
    return Parameter(name, place, optional, is_tensor, tuple(guesses))


def _as_shown(name: str, shown: Sequence[tuple[str, str]], documented: Sequence[Guess]) -> Iterator[Guess]:
    """Readings by an example: random numbers of any sign may be logits, and whole numbers what is usual for the name."""
    ranked = sorted(documented, key=lambda guess: guess.cost)
    usual = list(dict.fromkeys(guess.domain for guess in ranked))
    is_general = "*rest" in str(ranked[0].dims)  # what an example has of any number of axes is one of its cases
    for place, (dims, domain) in enumerate(shown):
        found = domain
        if domain == "real":
            found = next((one for one in usual if one in ("real", "logits")), "real")
        elif domain.startswith("index") and not any(one.startswith("index") for one in usual):
            found = usual[0]
        cost = (DOCUMENTED if is_general else SHOWN) + knowledge.LEAST_STEP * place
        yield Guess(cost, dims, found, why="its example passes such a tensor")


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


def _quoted(name: str, annotation: Any, about: str) -> list[Guess]:
    """The words that a docstring quotes, for a text."""
    is_text = annotation is str or re.match(rf"\W*{name}\W+str\b", about) is not None
    words = dict.fromkeys(re.findall(r"[\"'`]+(\w[\w-]*)[\"'`]+", about)) if is_text else {}
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
    if parameter.default > LARGE and knowledge.is_constant_name(parameter.name):
        return []  # a usual, small size tells as much
    return [Guess(0.0, value=parameter.default, fixes=symbol, why="its default, which states a size")]


def _declared(name: str, annotation: Any) -> Guess | None:
    found = signatures.read(annotation)
    if found is None:
        return None
    text = inline.tensor_text(signatures.tensor_spec(found, name))
    values = text.removeprefix(" ".join(found.dims.split())).strip() or "real"
    return Guess(0.0, found.dims, values, why="its annotation", confidence="declared")


def _is_tensor(parameter: inspect.Parameter, annotation: Any) -> bool | None:
    """What the annotation and the default say; ``None`` where they say nothing."""
    members = get_args(annotation) if get_origin(annotation) is not None else (annotation,)
    inside = [member for member in members if member is not type(None)]
    if get_origin(annotation) in (Union, types.UnionType) and len(inside) == 1:
        return _is_tensor(parameter, inside[0])
    if any(isinstance(m, LEGACY) or (isinstance(m, type) and issubclass(m, Tensor)) for m in members):
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
    axes = " ".join(docs.shapes_in(text)).split()
    values = [one for value in knowledge.fitting(name, values) for one in _along(value, axes)]
    domains = dict.fromkeys([*values, *(guess.domain for guess in usual)])
    classes = next((axis for axis in "CKV" if axis in axes), "C")  # as docstrings call them: V of a vocabulary
    kinds = {_kind(guess.domain) for guess in usual}
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
                + (DOCUMENTED / 2 if domain in values and _kind(domain) in kinds else 0)
            )
            if domain not in values and _kind(domain) not in kinds:
                continue
            if domain.startswith("index(C") and classes in shape.split():
                cost += OF_ITS_OWN_AXIS
            if domain.startswith("index(C") and classes not in axes and len(shape.split()) >= OF_POINTS:
                cost += OF_NO_AXIS
            confidence: Any = "declared" if domain in values else "guessed"
            own = domain.replace("index(C", f"index({classes}")
            found[shape, own] = Guess(cost, shape, own, why="its docstring or its code says so", confidence=confidence)
    for place, domain in enumerate(values if not shapes else ()):
        for dims in dict.fromkeys(str(guess.dims) for guess in usual if guess.dims):  # one number has no values
            cost = DOCUMENTED / 2 + knowledge.LEAST_STEP * place
            size = re.match(r"(?:index|lengths)\((\w+)", domain)
            cost += OF_ITS_OWN_AXIS if size is not None and size.group(1) in dims.split() else 0.0
            found.setdefault((dims, domain), Guess(cost, dims, domain, why="its docstring speaks of such values"))
    return list(found.values())


def _along(domain: str, axes: Sequence[str]) -> list[str]:
    """Lengths of which a docstring does not say along what: along a documented axis, one of time or of positions first."""
    if domain != "lengths(D)":
        return [domain]
    named = dict.fromkeys(axis for axis in axes if axis.isidentifier() and axis != "B") or "DTSN"
    return [f"lengths({axis})" for axis in sorted(named, key=lambda axis: axis not in ("T", "S"))]


def _kind(domain: str) -> str:
    """``index`` of ``index(C)``."""
    return domain.partition("(")[0]


def tensor_spec(dims: str, domain: str, several: str | int | None = None) -> Any:
    """The tensor, or tensors, of a reading; domains that `harness.domains` lacks are made by the samplers of `harness.proposing`."""
    if domain in samplers.SAMPLERS:
        make, dtype = samplers.SAMPLERS[domain]
        made = TensorSpec(dims, domains.custom(make), dtype)
    else:
        made = inline.tensor(f"{dims} {domain}")
    if several is None:
        return made
    return (made,) * several if isinstance(several, int) else structured.several(several, made)
