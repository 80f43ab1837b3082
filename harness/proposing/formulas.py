r"""Formulas in docstrings: Python's `sum(... for b in B)`, plain text and LaTeX, as far as they can be read for certain.

    PRODUCT  = FACTOR FACTOR | FACTOR * FACTOR | FACTOR / FACTOR
    FACTOR   = NUMBER | NAME_INDICES | (VALUE) | |VALUE| | ||VALUE|| | FUNCTION FACTOR | FACTOR ^ FACTOR | \frac{VALUE}{VALUE}
             | OVER PRODUCT
    OVER     = sum_i | \sum_{i=1}^N | mean_{b,c} | \max_{j \ne i}

What stands for an axis, a size or a tensor is what the dims of the tensors leave; where they leave several, each is a reading.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.declare import dims
from harness.declare.formulas import Formula
from harness.declare.formulas.reading import FUNCTIONS
from harness.errors import DeclarationError

MOST_READINGS = 24
_OVER = {"sum", "mean", "max", "min", "prod", "logsumexp"}
_WORDS = {"ln": "log", "σ": "sigmoid", "Σ": "sum", "∑": "sum", "Π": "prod", "average": "mean", "avg": "mean"}
_LATEX = (
    (r"\\(?:left|right|bigg?|Bigg?|displaystyle|limits|,|;|!|quad)(?![a-zA-Z])|&|\\\\$", " "),
    (r"\\(?:text|mathrm|operatorname|mathbf|boldsymbol|bm|mathit)\s*\{([^{}]*)\}", r" \1 "),
    (r"\\hat\s*\{?\s*([a-zA-Z])\s*\}?", r" \1hat"),
    (r"\\(?:cdot|times)", "*"),
    (r"\\(?:neq|ne)(?![a-z])", "!="),
    (r"\\in(?![a-z])", " in "),
    (r"\\(?:lVert|rVert|Vert|\|)", "||"),
    (r"\\(?:lvert|rvert|vert)(?![a-z])", "|"),
    (r"\\sigma(?=\s*\()", " sigmoid"),
    (r"\\(sum|prod|max|min|log|exp|sqrt|ln|tanh|cos|sin|frac)(?![a-z])", r" \1"),
    (r"·|×|⋅", "*"),
    (r"²", "^2"),
    (r"≠", "!="),
    (r"\*\*", "^"),
    (r"∈", " in "),
)
_TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?(?:e-?\d+)?|[^\W\d_][^\W_]*|\|\||!=|.)")
_SAID = re.compile(
    r":math:`([^`]+)`|\$\$?([^$]+)\$\$?|\\\[(.+?)\\\]|``([^`]+)``|^\s*\.\. math::\s*\n?((?:[^\n]+\n?)+)",
    re.DOTALL | re.MULTILINE,
)
_IN_WORDS = re.compile(r"(?:the )?(mean|sum|average)(?: over (?:all )?[\w ,]+?)? of (?:the )?(.+)", re.IGNORECASE)


class UnreadableError(ValueError):
    """A text that is no formula, or may be read in more than one way."""


@dataclass(frozen=True)
class Node:
    """A part of a formula: an operator or function, its parts, and of a name its indices."""

    kind: str
    text: str = ""
    parts: tuple[Node, ...] = ()
    indices: tuple[Index, ...] = ()


@dataclass(frozen=True)
class Index:
    """What a sum runs over: a name, its ends, the size that it is said to be `in`, and another index that it does not meet."""

    name: str
    low: Node | None = None
    high: Node | None = None
    size: str = ""
    other: str = ""


def formulas_in(
    text: str, tensors: Mapping[str, str], options: Sequence[str] = ()
) -> Iterator[tuple[str, list[str], bool]]:
    """(what a docstring says, its readings as formulas over these tensors, whether it names them as they are called)."""
    for said in _candidates(text):
        readings, exact = _readings(said, tensors, options)
        if readings:
            yield said, readings, exact


def _candidates(text: str) -> Iterator[str]:
    marked = [next(group for group in match.groups() if group) for match in _SAID.finditer(text)]
    lines = [line for line in _SAID.sub("\n", text).splitlines() if re.search(r"[-+*/^²|(]", line)]
    for said in (*marked, *lines):
        flat = " ".join(said.split()).rstrip(".,; ")
        plain = re.sub(r"^(?:(?:computes?|calculates?|returns?|the|loss|is) )+", "", flat, flags=re.IGNORECASE)
        for part in dict.fromkeys((flat, plain, flat.rpartition(": ")[2])):
            part = re.split(r",? (?:where|with|for (?:each|every|all)|is the) |; |, [a-z]+ is ", part)[0].rstrip(".,; ")
            if part:
                yield part


def _readings(said: str, tensors: Mapping[str, str], options: Sequence[str]) -> tuple[list[str], bool]:
    body = _behind_equals(said)
    found = [text for each in (said, body) if _is_formula(text := _in_python(each, tensors), tensors, options)]
    if found:
        return found[:1], True
    for wide in (False, True):
        try:
            tree = _Parser(body, {*tensors, *options}, wide=wide).parsed()
            written = _Written(tree, tensors, options)
            texts = list(dict.fromkeys(itertools.islice(written.readings(), MOST_READINGS)))
        except (UnreadableError, RecursionError):
            continue
        texts = [text for text in texts if _is_formula(text, tensors, options)]
        if texts:
            return texts, written.exact and len(texts) == 1
    return [], False


def _behind_equals(said: str) -> str:
    """What stands behind the first `=` outside of brackets."""
    depth = 0
    for place, sign in enumerate(said):
        depth += (sign in "([{") - (sign in ")]}")
        if (
            sign == "="
            and not depth
            and said[place - 1 : place] not in tuple("!<>=")
            and said[place + 1 : place + 2] != "="
        ):
            return said[place + 1 :].strip()
    return said


def _is_formula(text: str, tensors: Mapping[str, str], options: Sequence[str]) -> bool:
    try:
        formula = Formula(text, tensors, options=options)
    except DeclarationError:
        return False
    return bool(formula.used) and "(" in text


def _in_python(text: str, tensors: Mapping[str, str]) -> str:
    """A Python expression with the sizes called as in the dims of these tensors; any other text as it is."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text
    clauses = [(node.target, node.iter) for node in ast.walk(tree) if isinstance(node, ast.comprehension)]
    runs = {to.id: over.id for to, over in clauses if isinstance(to, ast.Name) and isinstance(over, ast.Name)}
    called: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in tensors:
            indices = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            for index, dim in zip(indices, dims.parse(tensors[node.value.id]), strict=False):
                if isinstance(index, ast.Name) and index.id in runs:
                    called[runs[index.id]] = _symbol(dim)
    return re.sub(r"[^\W\d]\w*", lambda word: called.get(word[0], word[0]), text)


class _Parser:
    """Reads a formula of plain text or LaTeX by descent.

    ``wide`` lets a sum reach over the `+` that follow it, which is read where an index stands free else.
    """

    def __init__(self, text: str, names: set[str], *, wide: bool) -> None:
        for pattern, plain in _LATEX:
            text = re.sub(pattern, plain, text)
        if "\\" in text or "..." in text:
            raise UnreadableError
        self.names, self.wide, self.over = names, wide, ""
        if (in_words := _IN_WORDS.fullmatch(text.strip())) is not None:
            word = in_words.group(1).lower()
            self.over, text = _WORDS.get(word, word), in_words.group(2)
        self.tokens = self._tokens(text)
        self.place = 0

    def _tokens(self, text: str) -> list[str]:
        """Words, numbers and signs; a declared name with underscores is one word."""
        long = [re.escape(name) for name in sorted(self.names, key=len, reverse=True) if "_" in name]
        token = re.compile(rf"\s*({'|'.join(long)})(?![^\W_])|{_TOKEN.pattern}") if long else _TOKEN
        return [next(group for group in match.groups() if group) for match in token.finditer(text.strip())]

    def parsed(self) -> Node:
        found = self.value()
        if self.place < len(self.tokens):
            raise UnreadableError
        return Node("over", self.over, (found,)) if self.over else found

    @property
    def next(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, *expected: str) -> str:
        if not self.next or (expected and self.next not in expected):
            raise UnreadableError
        self.place += 1
        return self.tokens[self.place - 1]

    def value(self, *, closes: str = "") -> Node:
        sign = self.take() if self.next in ("-", "+") else ""
        found = self.product(closes)
        found = Node("neg", parts=(found,)) if sign == "-" else found
        while self.next in ("+", "-"):
            operator = self.take()
            found = Node("two", operator, (found, self.product(closes)))
        return found

    @property
    def after(self) -> str:
        return self.tokens[self.place + 1] if self.place + 1 < len(self.tokens) else ""

    def product(self, closes: str, *, within: bool = False) -> Node:
        found = self.factor()
        while self.next and self.next not in ("+", "-", ")", "]", "}", ",", "=", "!=", "<", ">", "in", closes):
            if within and self.next == "/" and _WORDS.get(self.after, self.after) in _OVER:
                break  # a sum over a sum is their quotient
            operator = self.take() if self.next in ("*", "/") else "*"
            other = self.factor()
            tight = operator == "/" and other.kind == "number" and self.next[:1].isalpha()
            if tight and _WORDS.get(self.next, self.next) not in _OVER:
                raise UnreadableError  # 1/2N is 1/(2N) to some
            found = Node("two", operator, (found, other))
        return found

    def factor(self) -> Node:
        found = self.atom()
        if self.next == "^":
            self.take()
            found = Node("two", "**", (found, self.group() if self.next == "{" else self.factor()))
        return found

    def group(self) -> Node:
        self.take("{")
        found = self.value()
        self.take("}")
        return found

    def atom(self) -> Node:
        token = self.take()
        if token in ("(", "[", "{"):
            found = self.value()
            self.take({"(": ")", "[": "]", "{": "}"}[token])
            return found
        if token in ("|", "||"):
            found = self.value(closes=token)
            self.take(token)
            return self._normed(found) if token == "||" else Node("abs", parts=(found,))
        if token[0].isdigit():
            return Node("number", token)
        if not token[0].isalpha():
            raise UnreadableError
        return self.word(token)

    def _normed(self, found: Node) -> Node:
        if self.next == "_":
            self.take()
            if self.atom() != Node("number", "2"):
                raise UnreadableError
        return Node("call", "norm", (found,))

    def word(self, token: str) -> Node:
        plain = _WORDS.get(token, token)
        if token in self.names:
            return Node("name", token, indices=tuple(self.subscript()))
        if plain == "frac":
            return Node("two", "/", (self.group(), self.group()))
        if plain == "sqrt" and self.next == "{":
            return Node("call", "sqrt", (self.group(),))
        if plain in _OVER and self.next not in ("(", "{"):
            return self.reduction(plain)
        if plain in FUNCTIONS:
            return self.function(plain)
        if token == "e" and self.next == "^":
            self.take()
            return Node("call", "exp", (self.group() if self.next == "{" else self.factor(),))
        if len(token) > 1 and token.isupper():  # sizes side by side
            self.tokens[self.place : self.place] = list(token[1:])
            token = token[0]
        return Node("name", token, indices=tuple(self.subscript()))

    def function(self, name: str) -> Node:
        if self.next != "(":
            return Node("call", name, (self.factor(),))
        self.take()
        values = [self.value()]
        while self.next == ",":
            self.take()
            values.append(self.value())
        self.take(")")
        return Node("over" if name in ("sum", "mean") else "call", name, tuple(values))

    def reduction(self, name: str) -> Node:
        indices: list[Index] = []
        if self.next == "_":
            self.take()
            indices = self.running()
        if self.next == "^":
            self.take()
            high = self.atom()
            indices = [replace(index, high=high) for index in indices]
        if not indices:
            raise UnreadableError
        body = self.value() if self.wide else self.product("", within=True)
        return Node("over", name, (body,), tuple(indices))

    def running(self) -> list[Index]:
        """What stands below the sign of a sum."""
        if self.next != "{":
            return [Index(letter) for letter in self.take()]
        self.take()
        names: list[str] = []
        found: list[Index] = []
        while self.next != "}":
            token = self.take()
            if token == "=" and names:
                found.append(Index(names.pop(), low=self.value()))
            elif token == "in" and names:
                size = self.take()
                found += [Index(name, size=size) for name in names]
                names = []
            elif token == "!=" and names:
                found.append(Index(names.pop(), other=self.take()))
            elif token[0].isalpha():
                names += list(token)
            elif token != ",":
                raise UnreadableError
        self.take()
        return found + [Index(name) for name in names]

    def subscript(self) -> Iterator[Index]:
        """The indices of a name, each with its value in `low`."""
        if self.next != "_":
            return
        self.take()
        if self.next != "{":
            for letter in self.take():
                yield Index("", Node("name", letter))
            return
        self.take()
        while self.next != "}":
            if self.next == ",":
                self.take()
            token = self.next
            if token.isalpha() and token not in self.names and len(token) > 1:
                self.tokens[self.place : self.place + 1] = list(token)
            yield Index("", self._place())
        self.take()

    def _place(self) -> Node:
        found = self.factor()
        while self.next in ("+", "-"):
            operator = self.take()
            found = Node("two", operator, (found, self.factor()))
        return found


@dataclass
class _Written:
    """Writes a tree as formulas over tensors of known dims."""

    tree: Node
    tensors: Mapping[str, str]
    options: Sequence[str]
    exact: bool = True
    _axes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _named: dict[str, str] = field(default_factory=dict)
    _sizes: dict[str, str] = field(default_factory=dict)

    def readings(self) -> Iterator[str]:
        """Each way to give the names that are not declared a tensor, and an index one axis or all of them."""
        indices = {index.name for node in _all(self.tree) if node.kind == "over" for index in node.indices}
        named = [node for node in _all(self.tree) if node.kind == "name"]
        places = [each.low for node in named for each in node.indices]
        free = {place.text for place in places if place is not None and place.kind == "name"}
        names = [node.text for node in named if node.text not in indices | free]
        unknown = list(dict.fromkeys(name for name in names if name not in self.tensors and name not in self.options))
        symbols = {_symbol(dim) for text in self.tensors.values() for dim in dims.parse(text)}
        sized = {_ends(i)[0] for node in _all(self.tree) for i in node.indices}
        bare = {name for name in unknown if name.isupper()} - {node.text for node in named if node.indices}
        sizes = [name for name in unknown if name in bare and (name in symbols | sized or len(name) == 1)]
        unknown = [name for name in unknown if name not in sizes]
        left = [name for name in self.tensors if name not in names]
        if len(unknown) > len(left) or len(unknown) > 4:
            raise UnreadableError
        self.exact = not unknown
        ways = [way for way in itertools.permutations(left, len(unknown)) if all(map(_may_be, unknown, way))]
        ways.sort(key=lambda way: [name[0] != tensor[0] for name, tensor in zip(unknown, way, strict=True)])
        for chosen in ways:
            self._named = {name: name for name in (*self.tensors, *self.options)}
            self._named |= dict(zip(unknown, chosen, strict=True))
            for flat in (False, True):
                self._axes = {}
                try:
                    self._bind(self.tree, flat=flat)
                    for found in self._sized(sizes, symbols):
                        self._sizes = found
                        yield self._text(self.tree, frozenset())
                except UnreadableError:
                    continue

    def _dims(self, name: str) -> list[str]:
        return [_symbol(dim) for dim in dims.parse(self.tensors[name])]

    def _bind(self, tree: Node, *, flat: bool) -> None:
        """Which axes every index runs over."""
        for node in _all(tree):
            tensor = self._named.get(node.text, "") if node.kind == "name" else ""
            if tensor not in self.tensors:
                continue
            axes = self._dims(tensor)
            places = [self._runs(each.low) for each in node.indices]
            if flat and len(places) == 1 and len(axes) > 1:
                self._is(places[0], tuple(axes))
                continue
            if len(places) > len(axes):
                raise UnreadableError
            for place, axis in zip(places, axes, strict=False):
                self._is(place, (axis,))
        if flat and not any(len(axes) > 1 for axes in self._axes.values()):
            raise UnreadableError  # that is the other reading

    @staticmethod
    def _runs(place: Node | None) -> str:
        """The index that a place names, alone or with a number added."""
        assert place is not None
        plain = place.parts[0] if place.kind == "two" and place.parts[1].kind == "number" else place
        return plain.text if plain.kind == "name" and not plain.indices else ""

    def _is(self, index: str, axes: tuple[str, ...]) -> None:
        if index and self._axes.setdefault(index, axes) != axes:
            raise UnreadableError

    def _sized(self, names: Sequence[str], symbols: set[str]) -> Iterator[dict[str, str]]:
        """What the names of sizes stand for: the end of an index, a symbol, or the extent of any index."""
        indices = [index for node in _all(self.tree) if node.kind == "over" for index in node.indices]
        known = {name: name for name in names if name in symbols}
        known |= {_ends(i)[0]: self._extent(i.name) for i in reversed(indices) if _ends(i)[0] and i.name in self._axes}
        left = [name for name in names if name not in known]
        extents = dict.fromkeys(self._extent(index.name) for index in indices if index.name in self._axes)
        for chosen in itertools.permutations(extents, len(left)):
            yield {**known, **dict(zip(left, chosen, strict=True))}

    def _extent(self, index: str) -> str:
        axes = self._axes.get(index)
        if axes is None:
            raise UnreadableError
        return axes[0] if len(axes) == 1 else f"({' * '.join(axes)})"

    def _text(self, node: Node, bound: frozenset[str]) -> str:
        if node.kind == "number":
            return node.text
        if node.kind == "name":
            return self._name(node, bound)
        if node.kind == "over":
            return self._over(node, bound)
        parts = [self._text(part, bound) for part in node.parts]
        if node.kind == "neg":
            return f"-({parts[0]})" if node.parts[0].text in ("+", "-") else f"-{parts[0]}"
        if node.kind == "abs":
            only = node.parts[0]
            return parts[0] if only.kind == "name" and only.text in self._sizes else f"abs({parts[0]})"
        if node.kind == "call":
            return f"{node.text}({', '.join(parts)})"
        return self._two(node, parts)

    @staticmethod
    def _two(node: Node, parts: list[str]) -> str:
        strength = {"+": 1, "-": 1, "*": 2, "/": 2, "**": 3}
        own = strength[node.text]
        shown = []
        for place, (part, text) in enumerate(zip(node.parts, parts, strict=True)):
            inner = strength[part.text] if part.kind == "two" else 0 if part.kind == "neg" else 9
            shown.append(f"({text})" if inner < own or (inner == own and (place == 1 or own == 3)) else text)
        return f"{shown[0]}**{shown[1]}" if own == 3 else f"{shown[0]} {node.text} {shown[1]}"

    def _name(self, node: Node, bound: frozenset[str]) -> str:
        if node.text in self._sizes and not node.indices:
            return self._sizes[node.text]
        name = self._named.get(node.text)
        if name is None:
            raise UnreadableError  # an index as a number: it counts from 0 or 1
        if name not in self.tensors:
            return name
        axes = self._dims(name)
        places: list[str] = []
        for each in node.indices:
            assert each.low is not None
            runs = self._runs(each.low)
            if runs and runs not in bound:
                raise UnreadableError
            if len(self._axes.get(runs, ())) > 1:
                places += map(_letter, self._axes[runs])
            elif runs and each.low.kind == "two":
                places.append(f"{runs} {each.low.text} {each.low.parts[1].text}")
            else:
                places.append(runs or self._text(each.low, bound))
        if "*" in bound:
            places += [self._letter(axis) for axis in axes[len(places) :]]
        return f"{name}[{', '.join(places)}]" if places else name

    def _letter(self, axis: str) -> str:
        """The index of an axis that none is written for."""
        return next((index for index, axes in self._axes.items() if axes == (axis,)), _letter(axis))

    def _over(self, node: Node, bound: frozenset[str]) -> str:
        """A reduction over its indices; without any, over every axis of what it is of."""
        (body,) = node.parts
        if not node.indices:
            return self._over_elements(node, body, bound)
        others = {index.name: index.other for index in node.indices if index.other}
        clauses = [f"for {other} in {self._extent(other)}" for other in others.values() if other not in bound]
        clauses += [self._clause(index, bound) for index in node.indices]
        tests = [f"{name} != {other}" for name, other in others.items()]
        inside = bound | {index.name for index in node.indices} | {*others.values()}
        return f"{node.text}({self._text(body, inside)} {' '.join(clauses)}{' if ' + ' and '.join(tests) if tests else ''})"

    def _over_elements(self, node: Node, body: Node, bound: frozenset[str]) -> str:
        used = [part for part in _all(body) if part.kind == "name" and self._named.get(part.text) in self.tensors]
        axes: dict[str, str] = {}
        for part in used:
            own = self._dims(self._named[part.text])
            for place, axis in enumerate(own):
                runs = self._runs(part.indices[place].low) if place < len(part.indices) else ""
                if runs not in bound:
                    axes[runs or self._letter(axis)] = axis
        inside = bound | set(axes) | {"*"}
        loops = " ".join(f"for {letter} in {_ranged(axis)}" for letter, axis in axes.items())
        if not loops:
            raise UnreadableError
        return f"{node.text}({self._text(body, inside)} {loops})"

    def _clause(self, index: Index, bound: frozenset[str]) -> str:
        axes = self._axes.get(index.name)
        if axes is None or index.name in bound:
            raise UnreadableError
        if len(axes) > 1:
            return " ".join(f"for {_letter(axis)} in {_ranged(axis)}" for axis in axes)
        ended, less = _ends(index)
        if (not ended and index.high is not None) or less < 0:
            raise UnreadableError
        return f"for {index.name} in {f'range({axes[0]} - {less})' if less else _ranged(axes[0])}"


def _may_be(name: str, tensor: str) -> bool:
    """Whether a letter, or a word that begins alike, may stand for a tensor."""
    return len(name) <= 2 or name.endswith("hat") or tensor.startswith(name) or name.startswith(tensor)


def _ends(index: Index) -> tuple[str, int]:
    """(the size up to which an index runs, how many positions it leaves out): 1 to N and 0 to N - 1 leave out none."""
    if index.high is None:
        return index.size, 0
    high, less = index.high, 0
    if high.kind == "two" and high.text == "-" and high.parts[1].kind == "number":
        high, less = high.parts[0], int(high.parts[1].text)
    first = {None: 1, Node("number", "1"): 1, Node("number", "0"): 0}.get(index.low)
    return (high.text, less - 1 + first) if high.kind == "name" and first is not None else ("", -1)


def _all(node: Node) -> Iterator[Node]:
    yield node
    for part in node.parts:
        yield from _all(part)
    for index in node.indices:
        for end in (index.low, index.high):
            if end is not None:
                yield from _all(end)


def _symbol(dim: Any) -> str:
    return str(dim.symbol or dim.token)


def _letter(axis: str) -> str:
    return f"k{axis}" if axis.isdigit() else axis.lower() if axis != axis.lower() else f"{axis}_"


def _ranged(axis: str) -> str:
    return f"range({axis})" if axis.isdigit() else axis
