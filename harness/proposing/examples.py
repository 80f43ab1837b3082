"""What the example in a docstring passes to a loss: the doctest is read and never run.

    >>> criterion = FocalLoss(num_classes=5)
    >>> criterion(torch.randn(8, 5), torch.randint(5, (8,)))

says that a call takes ``B C`` and ``B index(C)``, and that five classes are a constant of the constructor.
"""

from __future__ import annotations

import ast
import doctest
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

# Letters of axes by their number, as `harness.proposing.knowledge` spells them.
_LETTERS = {0: "", 1: "B", 2: "BD", 3: "BSD", 4: "BCHW", 5: "BCDHW"}
_FURTHER = "NMTKPQ"
_LITERAL = 4  # a last axis of at most so many may be what it says: corners of a box, coordinates
_FLOATING = {"randn": "real", "rand": "probability", "zeros": "real", "ones": "real", "empty": "real", "full": "real"}
_LIKE = {"randn_like": "real", "rand_like": "probability", "zeros_like": "real", "ones_like": "real"}
_AFTER = {
    "softmax": "simplex({dim})",
    "log_softmax": "log_simplex({dim})",
    "normalize": "unit_norm({dim})",
    "sigmoid": "probability",
    "abs": "nonnegative",
    "exp": "positive",
    "softplus": "positive",
    "sign": "sign",
    "bool": "boolean",
}
_UNCHANGED = {"requires_grad_", "float", "double", "half", "to", "cuda", "cpu", "clone", "detach", "contiguous", "long"}


@dataclass(frozen=True)
class Size:
    """A size of an example, and the number that it was made of: ``NUM_CLASSES - 1`` is 4, of 5."""

    value: int
    base: int


@dataclass(frozen=True)
class Shown:
    """A tensor of an example.

    Args:
        shape: its sizes.
        domain: its values; ``index`` where `classes` says of how many, else unknown.
        classes: how many there are.
    """

    shape: tuple[Size, ...]
    domain: str
    classes: int | None = None


@dataclass(frozen=True)
class Example:
    """What one call of an example passes, in this project's letters.

    Args:
        tensors: dims and domain by the name of the parameter, the likeliest first.
        constants: numbers and texts that are passed, by name.
    """

    tensors: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)


def example_of(text: str, name: str, constructed: Sequence[str], called: Sequence[str]) -> Example:
    """The first call in a docstring's examples that passes a tensor to the loss.

    Args:
        text: the docstring.
        name: of the loss.
        constructed: parameters of the constructor, none of a function.
        called: parameters of the call.
    """
    known: dict[str, Any] = {}
    losses: dict[str, Mapping[str, Any]] = {}
    for node in _statements(text):
        for call in (part for part in ast.walk(node) if isinstance(part, ast.Call)):
            constants = _constants_of(call, name, constructed, losses, known)
            given = _bound(call, called, known) if constants is not None else {}
            tensors = {parameter: value for parameter, value in given.items() if isinstance(value, Shown)}
            if constants is not None and tensors:
                return Example(_in_letters(tensors, constants), {**constants, **_plain(given)})
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            if isinstance(node.value, ast.Call) and _last(node.value.func) == name and constructed:
                losses[ast.unparse(node.targets[0])] = _plain(_bound(node.value, constructed, known))
            known.update(_assigned(node.targets[0], node.value, known))
    return Example()


def _statements(text: str) -> Iterator[ast.stmt]:
    try:
        examples = doctest.DocTestParser().get_examples(text)
    except ValueError:
        return  # it is indented in a way that doctest refuses
    for example in examples:
        try:
            yield from ast.parse(example.source).body
        except SyntaxError:
            continue


def _constants_of(
    call: ast.Call,
    name: str,
    constructed: Sequence[str],
    losses: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, Any],
) -> Mapping[str, Any] | None:
    """The constants of the loss that a call calls, ``None`` where it calls something else."""
    if isinstance(call.func, ast.Call):
        is_loss = _last(call.func.func) == name
        return _plain(_bound(call.func, constructed, known)) if is_loss else None
    found = losses.get(ast.unparse(call.func))
    return {} if found is None and not constructed and _last(call.func) == name else found


def _last(function: ast.expr) -> str:
    return ast.unparse(function).rpartition(".")[2]


def _plain(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if isinstance(value, (int, float, str))}


def _bound(call: ast.Call, parameters: Sequence[str], known: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(zip(parameters, call.args, strict=False))
    given |= {word.arg: word.value for word in call.keywords if word.arg in parameters and word.arg is not None}
    found = {name: _value(node, known) for name, node in given.items()}
    return {name: value.value if isinstance(value, Size) else value for name, value in found.items()}


def _assigned(target: ast.expr, value: ast.expr, known: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        pairs = zip(target.elts, value.elts, strict=True)
        return {name: found for one, node in pairs for name, found in _assigned(one, node, known).items()}
    return {target.id: _value(value, known)} if isinstance(target, ast.Name) else {}


def _value(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """A `Size`, a number, a text or a `Shown`; ``None`` of what is not understood."""
    if isinstance(node, ast.Constant):
        written = node.value
        return Size(written, written) if isinstance(written, int) and not isinstance(written, bool) else written
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.BinOp):
        return _computed(node, known)
    if isinstance(node, ast.Compare):
        compared = _value(node.left, known)
        return replace(compared, domain="boolean", classes=None) if isinstance(compared, Shown) else None
    return _called(node, known) if isinstance(node, ast.Call) else None


def _computed(node: ast.BinOp, known: Mapping[str, Any]) -> Any:
    left, right = _value(node.left, known), _value(node.right, known)
    if isinstance(left, Shown):
        return replace(left, domain="real", classes=None)
    if not (isinstance(left, Size) and isinstance(right, Size)):
        return None
    if isinstance(node.op, (ast.Add, ast.Sub)):
        value = left.value + (right.value if isinstance(node.op, ast.Add) else -right.value)
        return Size(value, left.base if isinstance(node.left, ast.Name) else value)
    return Size(left.value * right.value, left.value * right.value) if isinstance(node.op, ast.Mult) else None


def _called(call: ast.Call, known: Mapping[str, Any]) -> Shown | None:
    function = _last(call.func)
    owner = _value(call.func.value, known) if isinstance(call.func, ast.Attribute) else None
    if isinstance(owner, Shown):
        return _changed(owner, function, call.args, call, known)
    first = _value(call.args[0], known) if call.args else None
    if isinstance(first, Shown) and function in _LIKE:
        return replace(first, domain=_LIKE[function], classes=None)
    if isinstance(first, Shown):
        return _changed(first, function, call.args[1:], call, known)
    if function == "randint":
        named = {word.arg: word.value for word in call.keywords}
        bounds = [*call.args, *(named[word] for word in ("high", "size") if word in named)][-2:]
        high, sizes = _value(bounds[0], known) if len(bounds) == 2 else None, _sizes(bounds[1:], known)
        return _integers(sizes, high.value) if sizes is not None and isinstance(high, Size) else None
    if function == "tensor" and call.args:
        return _listed(call.args[0])
    sizes = _sizes(call.args, known) if function in _FLOATING else None
    is_integer = any(word.arg == "dtype" and _last(word.value) in ("long", "int64", "int") for word in call.keywords)
    return None if sizes is None else Shown(sizes, "index" if is_integer else _FLOATING[function])


def _changed(
    of: Shown, function: str, arguments: Sequence[ast.expr], call: ast.Call, known: Mapping[str, Any]
) -> Shown | None:
    """What a method or a function of a tensor makes of it."""
    if function == "random_":
        high = _value(arguments[-1], known) if arguments else None
        return _integers(of.shape, high.value) if isinstance(high, Size) else None
    if function in _AFTER:
        dims = [word.value for word in call.keywords if word.arg in ("dim", "axis")] or list(arguments[:1])
        try:
            dim = int(ast.literal_eval(dims[0])) if dims else -1
        except (ValueError, TypeError):
            return None
        dim = dim - len(of.shape) if dim >= 0 else dim
        return Shown(of.shape, _AFTER[function].format(dim=dim))
    return of if function in _UNCHANGED else None


def _integers(shape: tuple[Size, ...], high: int) -> Shown:
    return Shown(shape, "label") if high == 2 else Shown(shape, "index", high)


def _sizes(arguments: Sequence[ast.expr], known: Mapping[str, Any]) -> tuple[Size, ...] | None:
    if arguments and isinstance(arguments[0], (ast.Tuple, ast.List)):
        arguments = arguments[0].elts
    found = [_value(argument, known) for argument in arguments]
    sizes = tuple(one for one in found if isinstance(one, Size))
    return sizes if sizes and len(sizes) == len(found) else None


def _listed(node: ast.expr) -> Shown | None:
    """A tensor that is written out."""
    try:
        values = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return None
    levels = [values]
    while isinstance(levels[-1], (list, tuple)) and levels[-1]:
        levels.append(levels[-1][0])
    sizes = tuple(Size(len(level), len(level)) for level in levels[:-1])
    flat = values
    for _ in sizes[1:]:
        flat = [one for row in flat if isinstance(row, (list, tuple)) for one in row]
    if not sizes or not all(isinstance(one, (int, float)) for one in flat):
        return None
    is_integer = all(isinstance(one, int) for one in flat)
    return Shown(sizes, "label" if {*flat} <= {0, 1} else "index" if is_integer else "real")


def _in_letters(
    tensors: Mapping[str, Shown], constants: Mapping[str, Any]
) -> Mapping[str, tuple[tuple[str, str], ...]]:
    """Dims with one letter for each number; none where a tensor has one number twice, which could be two axes or one."""
    letters = _letters_of(tensors)
    if letters is None:
        return {}
    found = {}
    for name, shown in tensors.items():
        axes = [_axis(size, letters) for size in shown.shape]
        forms = [axes]
        if len(axes) > 1 and 1 < shown.shape[-1].value <= _LITERAL and shown.domain != "index":
            forms.append([*axes[:-1], str(shown.shape[-1].value)])
        classes = "C" if shown.classes is None else letters[shown.classes]
        domain = f"index({classes})" if shown.domain == "index" else shown.domain
        found[name] = tuple((" ".join(form), domain) for form in forms)
    return found


def _letters_of(tensors: Mapping[str, Shown]) -> dict[int, str] | None:
    classes = {shown.classes for shown in tensors.values() if shown.classes is not None}
    if any(shown.domain == "index" for shown in tensors.values()) and not classes:
        # Classes that are written out lie along the second axis of scores.
        classes = {s.shape[1].base for s in tensors.values() if len(s.shape) > 1 and s.domain != "index"}
    letters: dict[int, str] = {}
    for shown in tensors.values():
        numbers = [size.base for size in shown.shape]
        if len(set(numbers) - {1}) != len([number for number in numbers if number != 1]):
            return None
        usual = _LETTERS.get(len(numbers), "")
        for number, letter in zip(numbers, usual, strict=False):
            free = [one for one in (letter, *_FURTHER) if one not in letters.values()]
            if number != 1 and number not in letters and free:
                letters[number] = "C" if number in classes and "C" not in letters.values() else free[0]
    for number in classes - set(letters):
        letters[number] = next(one for one in ("C", *_FURTHER) if one not in letters.values())
    return letters


def _axis(size: Size, letters: Mapping[int, str]) -> str:
    if size.value == 1:
        return "1"
    letter = letters.get(size.base, str(size.value))
    difference = size.value - size.base
    return letter if difference == 0 else f"{letter}{difference:+d}"
