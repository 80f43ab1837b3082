"""A declaration as one line of text: ``input1: B D; input2: B D; target: B sign``; parsed by us, never evaluated as code.

    TENSORS  = TENSOR [; TENSOR]...
    TENSOR   = NAME: DIMS [DOMAIN] [DTYPE] [jagged(SIZE)] [optional]
    NAME     = name, or name.0 and name.1 of a tuple, name.mask of a dict, name[L] of a list of L, name[L].mask of L dicts
    DIMS     = axes, or the word scalar for a Python number
    DOMAIN   = word, or word(arguments), of `harness.domains`
    LAW      = word(arguments), of `harness.laws`

A word that names a domain is a domain, and one that names a dtype of torch is a dtype, so no dim can have such a name.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import inspect
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch

from harness.declare import dims, domains, laws
from harness.declare.domains import Domain
from harness.declare.laws import Law
from harness.declare.structures import several
from harness.declare.tensor_spec import TensorSpec
from harness.declare.validate import FLOATING
from harness.errors import DeclarationError, nearest

EXAMPLE = "predictions: B C logits; labels: B index(C)"

_DOMAINS: dict[str, Callable[..., Domain]] = {
    name: getattr(domains, name) for name in domains.__all__ if name not in {"Domain", "custom"}
}
_DOMAINS["complex"] = domains.complex_  # which in Python would be another name
_DOMAIN_EXAMPLES = {
    "index": "index(C)",
    "interval": "interval(0, 1)",
    "simplex": "simplex(-1)",
    "unit_norm": "unit_norm(-1)",
    "adjacency": "adjacency(symmetric)",
    "distinct": "distinct(N)",
    "lengths": "lengths(T)",
    "offsets": "offsets(N)",
    "sorted_along": "sorted_along(-1)",
    "log_simplex": "log_simplex(-1)",
    "boxes": "boxes(xyxy)",
    "sparse": "sparse(coo)",
}
_LAWS: dict[str, Callable[..., Law]] = {
    name: law
    for name, law in vars(laws).items()
    if inspect.isfunction(law) and law.__module__ == laws.__name__ and name != "reduces_to"
}
_DTYPES = {
    name: getattr(torch, name)
    for name in ("float64", "float32", "bfloat16", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
}
_CONSTANTS = {"True": True, "False": False, "None": None}
_WORD = re.compile(r"[^\s()]+(?:\([^()]*\))?|[()]")
_PART = re.compile(r"(?P<key>\w+)(?:\[(?P<length>[^\W\d]\w*)\])?")
_NAME = re.compile(rf"(?=[^\W\d]){_PART.pattern}(?:\.{_PART.pattern.replace('key', 'k').replace('length', 'n')})*")
_CALL = re.compile(r"(?P<name>\w+)(?:\((?P<arguments>[^()]*)\))?")
_ALIKE = 0.75  # of `difflib`: a word so near to a domain's name is a slip rather than a dim


def tensors(text: str) -> dict[str, Any]:
    """Several arguments by name, such as ``predictions: B C logits; labels: B index(C)``.

    Raises:
        DeclarationError: what cannot be read, with its position in the text, the nearest name and an example.
    """
    found: dict[str, Any] = {}
    position = 0
    for part in text.split(";"):
        if part.strip():
            start = position + len(part) - len(part.lstrip())
            name, colon, rest = part.strip().partition(":")
            name = name.strip()
            if not colon or not _NAME.fullmatch(name):
                raise _refused(text, start, f"got {part.strip()!r}, expected a name, a colon and dims")
            made = _tensor(text, rest, start + len(part.strip()) - len(rest))
            if not _placed(found, [(each["key"], each["length"] or "") for each in _PART.finditer(name)], made):
                raise _refused(text, start, f"{name!r} comes twice")
        position += len(part) + 1
    if not found:
        raise _refused(text, 0, "no tensor came")
    return {name: _structured(name, made) for name, made in found.items()}


class _Parts(dict[str, Any]):
    """What stands below a name, and the size that is the length of a list of it, where it is one."""

    length = ""


def _placed(found: dict[str, Any], path: Sequence[tuple[str, str]], made: TensorSpec) -> bool:
    """Put a tensor where its name, ``(part, length of a list)`` by part, says; false where something else is there."""
    *above, (last, length) = path
    for key, of_list in above:
        found = found.setdefault(key, _Parts())
        if not isinstance(found, _Parts) or (found and found.length != of_list):
            return False
        found.length = of_list
    if last in found:
        return False
    found[last] = several(length, made) if length else made
    return True


def _structured(name: str, made: Any) -> Any:
    """A tuple where all keys are positions, a dict where they are not, and a list of that where it has a length.

    Raises:
        DeclarationError: a position is missing.
    """
    if not isinstance(made, _Parts):
        return made
    parts: Any = {key: _structured(f"{name}.{key}", part) for key, part in made.items()}
    if all(key.isdecimal() for key in parts):
        positions = [str(place) for place in range(len(parts))]
        if sorted(parts, key=int) != positions:
            raise DeclarationError(f"{name}: got the positions {list(parts)}, expected {positions}")
        parts = tuple(parts[place] for place in positions)
    return several(made.length, parts) if made.length else parts


@functools.lru_cache(maxsize=1024)  # a search for a declaration reads the same few again and again
def tensor(text: str) -> TensorSpec:
    """One tensor without its name, such as ``B C logits``; the empty text is a scalar.

    Raises:
        DeclarationError: as `tensors`.
    """
    return _tensor(text, text, 0)


def _tensor(text: str, part: str, start: int) -> TensorSpec:
    axes: list[str] = []
    domain: Domain | None = None
    dtype: torch.dtype | None = None
    jagged: str | None = None
    optional = number = False
    for match in _WORD.finditer(part):
        word, position = match.group(), start + match.start()
        if optional:
            raise _refused(text, position, f"{word!r} comes after 'optional', which ends a tensor")
        if word == "optional":
            optional = True
        elif jagged is not None:
            raise _refused(text, position, f"{word!r} comes after 'jagged(...)', which only 'optional' may follow")
        elif word.partition("(")[0] == "jagged":
            jagged = word.removeprefix("jagged").strip("()")
        elif dtype is not None:
            raise _refused(
                text, position, f"{word!r} comes after the dtype, which only 'jagged(...)' or 'optional' may follow"
            )
        elif word == "scalar" and not axes:
            number = True
        elif word in _DTYPES:
            dtype = _DTYPES[word]
        elif word.partition("(")[0] in _DOMAINS:
            if domain is not None:
                raise _refused(text, position, f"{word!r} is a second domain beside {domain!r}; write one of them")
            domain = _called(text, position, word, _DOMAINS, _DOMAIN_EXAMPLES, "domain")
        elif domain is not None:
            raise _refused(
                text, position, f"{word!r} comes after the domain, where only a dtype may{nearest(word, _DTYPES)}"
            )
        elif number:
            raise _refused(text, position, f"{word!r} comes after 'scalar', which has no axes")
        else:
            axes.append(_axis(text, position, word))
    try:
        return TensorSpec(
            " ".join(axes),
            domains.real() if domain is None else domain,
            dtype,
            optional=optional,
            number=number,
            jagged=jagged,
        )
    except DeclarationError as error:
        raise _refused(text, start, str(error)) from error


def _axis(text: str, position: int, word: str) -> str:
    label = word.partition("(")[0]
    close = difflib.get_close_matches(label.lower(), _DOMAINS, n=1, cutoff=_ALIKE)
    if "(" in word or ")" in word or (close and label.islower() and abs(len(close[0]) - len(label)) <= 1):
        near = f"; did you mean {close[0]!r}?" if close else f"{nearest(label, _DOMAINS)}."
        raise _refused(text, position, f"{word!r} is no domain{near} Domains are {', '.join(_DOMAINS)}")
    try:
        dims.parse(word)
    except DeclarationError as error:
        raise _refused(text, position, str(error)) from error
    return word


def domain(text: str) -> Domain:
    """A domain, such as ``sign``, ``index(C)`` or ``interval(0, 1)``; quotes and empty parentheses do no harm.

    Raises:
        DeclarationError: no such domain, or arguments that it does not take.
    """
    found: Domain = _called(text, 0, text.strip(), _DOMAINS, _DOMAIN_EXAMPLES, "domain")
    return found


def law(text: str) -> Law:
    """A law, such as ``permutation(B)`` or ``symmetric(input1, input2)``.

    Raises:
        DeclarationError: no such law, or arguments that it does not take.
    """
    examples = {name: f"{name}({', '.join(_parameters(made))})" for name, made in _LAWS.items()}
    found: Law = _called(text, 0, text.strip(), _LAWS, examples, "law")
    return found


def dtype(text: str) -> torch.dtype:
    """A floating dtype, such as ``float32``.

    Raises:
        DeclarationError: no such dtype.
    """
    known = {str(each).removeprefix("torch."): each for each in FLOATING}
    name = text.strip().removeprefix("torch.")
    if name not in known:
        raise DeclarationError(f"got dtype {text.strip()!r}, expected one of {', '.join(known)}{nearest(name, known)}")
    return known[name]


def option(text: str) -> tuple[str, Any]:
    """``reduction=sum``, ``margin=0.5`` or ``distance=torch:cdist``: a name, and JSON, a function of a module or plain text.

    Raises:
        DeclarationError: no name or no value.
    """
    name, sign, value = (part.strip() for part in text.partition("="))
    if not sign or not name.isidentifier() or not value:
        raise DeclarationError(f"got option {text!r}, expected a name and a value, such as reduction=sum")
    if value in _CONSTANTS:
        return name, _CONSTANTS[value]
    if (function := _function(value)) is not None:
        return name, function
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):  # plain text, or brackets that nobody has counted
        return name, value


def _function(text: str) -> Any:
    """What ``package.module:name`` names, where that is something to call, and what ``package.module:name(reduction='sum')`` makes."""
    module, _, written = text.partition(":")
    if not all(part.isidentifier() for part in module.split(".")):
        return None
    try:
        node = ast.parse(written, mode="eval").body
        call = node if isinstance(node, ast.Call) else None
        name = node if call is None else call.func
        if not isinstance(name, ast.Name):
            return None
        named = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords} if call else {}
        given = [ast.literal_eval(argument) for argument in call.args] if call else []
        found = getattr(importlib.import_module(module), name.id, None)
        if not callable(found):
            return None
    except (ImportError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # a text that merely looks like that
    is_made = isinstance(found, type) and (issubclass(found, torch.nn.Module) or found is torch.device)
    if (named or given) and not is_made:  # a text that comes with a report calls nothing else with what it likes
        raise DeclarationError(
            f"got option value {text!r}, expected an nn.Module or a device where arguments are given; write "
            f"'{module}:{name.id}' or '{module}:{name.id}()', or declare the loss in Python"
        )
    try:
        return found if call is None else found(*given, **named)
    except Exception as error:
        raise DeclarationError(f"got option value {text!r}, which raised {type(error).__name__}: {error}") from error


def picked(text: str) -> str | int | tuple[str | int, ...] | None:
    """What `LossSpec` takes as ``select``: ``loss``, ``0``, or several with commas; nothing for the empty text."""
    keys = tuple(int(part) if part.isdecimal() else part for part in map(str.strip, text.split(",")) if part)
    return keys if len(keys) > 1 else next(iter(keys), None)


def tensor_text(tensor: TensorSpec) -> str:
    """The text that `tensor` reads as this tensor."""
    plain = domain_text(tensor.domain)
    values, dtype = "" if plain == "real" else plain, "" if tensor.dtype is None else str(tensor.dtype)[6:]
    dims_text = "scalar" if tensor.number else tensor.dims
    jagged = "" if tensor.jagged is None else f"jagged({tensor.jagged})"
    parts = (dims_text, values, dtype, jagged, "optional" if tensor.optional else "")
    return " ".join(part for part in parts if part)


def domain_text(domain: Domain) -> str:
    """The text that `domain` reads as this domain, without quotes: they would have to be escaped in a shell."""
    return repr(domain).replace("'", "").replace("torch.", "").removesuffix("()")


def _parameters(made: Callable[..., Any]) -> list[str]:
    return [
        name if p.kind is not p.VAR_POSITIONAL else f"{name}..."
        for name, p in inspect.signature(made).parameters.items()
    ]


def _called(
    text: str, position: int, word: str, known: dict[str, Callable[..., Any]], examples: dict[str, str], what: str
) -> Any:
    match = _CALL.fullmatch(word)
    name = match["name"] if match else word
    if match is None or name not in known:
        raise _refused(
            text, position, f"{word!r} is no {what}{nearest(name, known) or '.'} There are {', '.join(known)}"
        )
    made = known[name]
    given, named = _arguments(match["arguments"] or "", made)
    try:
        inspect.signature(made).bind(*given, **named)
        return made(*given, **named)
    except (TypeError, DeclarationError) as error:
        raise _refused(
            text,
            position,
            f"{word!r} is read as a {what}, since it names one: {error}; write such as {examples.get(name, name)}",
        ) from error


def _arguments(text: str, made: Callable[..., Any]) -> tuple[list[Any], dict[str, Any]]:
    """Positional and named arguments; a bare name of a flag sets it."""
    parameters = inspect.signature(made).parameters
    flags = {name for name, parameter in parameters.items() if isinstance(parameter.default, bool)}
    given: list[Any] = []
    named: dict[str, Any] = {}
    for part in text.split(",") if text.strip() else ():
        name, sign, value = (piece.strip() for piece in part.partition("="))
        if sign:
            named[name] = _value(value, name)
        elif name in flags:
            named[name] = True
        else:
            given.append(_value(name, next(iter(parameters), "")))
    return given, named


def _value(text: str, parameter: str) -> Any:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    bare = text.strip("'\"")
    if parameter == "dtype":
        return _DTYPES.get(bare.removeprefix("torch."), bare)
    if text == bare:
        for number in (int, float):
            try:
                return number(text)
            except ValueError:
                continue
    return bare


def _refused(text: str, position: int, what: str) -> DeclarationError:
    return DeclarationError(f"{text!r}, at character {position + 1}: {what}; an example is {EXAMPLE!r}")


def options(texts: Sequence[str]) -> dict[str, Any]:
    """Several options by name.

    Raises:
        DeclarationError: see `option`, or one name twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, value = option(text)
        if name in found:
            raise DeclarationError(f"option {name!r} comes twice; write it once")
        found[name] = value
    return found
