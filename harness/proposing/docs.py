"""What a docstring says of a tensor: dims as torch, numpy and this project write them, and words that name a domain."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence
from typing import Any

# What the words of one parameter's text say of its values, the most telling first.
_VALUES: tuple[tuple[str, str], ...] = (
    (r"\b1 or -1\b|-1 or 1\b|\{-1, ?\+?1\}|\{1, ?-1\}|±1", "sign"),
    (
        r"class ind(?:ices|ex)|in \[0, C\)|between :math:`\[0, C\)|0 *(?:<=|≤|\\leq) *\S+ *(?:<=|≤|<|\\leq) *C",
        "index(C)",
    ),
    (r"padded by -1", "distinct_classes"),
    (r"log[- ]?probabilit|logarithmi[sz]ed probabilit|distribution in the log|log[- ]space", "log_probabilities"),
    (r"unnormali[sz]ed[\w ]*|\blogits\b", "logits"),
    (r"histogram|probability distribution|sums? to (?:one|1)", "simplex(-1)"),
    (r"between 0 and 1|in \[0, 1\]|probabilit", "probability"),
    (r"boolean", "boolean"),
    (r"\b0 (?:or|and) 1\b|\{0, ?1\}|binary", "binary"),
    (r"positive definite", "positive_definite"),
    (r"non-?negative|from zero up|>= 0|≥ 0", "nonnegative"),
    (r"variance|above zero|> 0|\bpositive (?:tensor|values|numbers)", "positive"),
)
# Shapes are written in one letter for an axis that this project writes in another.
_AXES = {"*": "*rest", "...": "*rest", "batch": "B", "batch_size": "B", "bs": "B", "num_classes": "C", "n_classes": "C"}
_SHAPE = re.compile(
    r":math:`\(([^()`]*)\)`|``([A-Z*][\w*# -]*)``|(?<![\w`])[(\[]((?:[A-Za-z_*.\d]+ *[,x×] *)*[A-Za-z_*.\d]+,?)[)\]]"
)
_AXIS = re.compile(r"[A-Z]\w?|\*[a-z]+")
_SEE = re.compile(r"See :(?:class|func):`~?([\w.]+)`")


def text_of(loss: Any) -> str:
    """The docstrings of a loss, its constructor and its call, and of the class that a function refers to."""
    parts = [loss, getattr(loss, "__init__", None), getattr(loss, "forward", None)] if inspect.isclass(loss) else [loss]
    texts = [inspect.getdoc(part) or "" for part in parts if part is not None]
    see = _SEE.search(texts[0])
    if see and not inspect.isclass(loss):
        texts.append(_doc_of(see.group(1)))
    return "\n\n".join(texts)


def _doc_of(dotted: str) -> str:
    module, _, name = dotted.rpartition(".")
    try:
        return inspect.getdoc(getattr(importlib.import_module(module), name)) or ""
    except (ImportError, AttributeError, ValueError):
        return ""  # a reference that leads nowhere says nothing


def part_about(text: str, name: str) -> str:
    """The lines of a docstring that begin with a parameter's name and a colon, with what is indented below them."""
    head = re.compile(rf"^\s*(?:- |\* |:param )?[`*]*{re.escape(name)}[`*]*\s*(?:\([^)]*\))?\s*:", re.IGNORECASE)
    kept: list[str] = []
    depth: int | None = None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if head.match(line):
            kept.append(line.strip())
            depth = indent
        elif depth is not None and line.strip() and indent > depth:
            kept.append(line.strip())
        elif line.strip():
            depth = None
    return "\n".join(kept)


def shapes_in(text: str) -> list[str]:
    """Dims that a text states, such as ``:math:`(N, C)``` or ```` ``B C`` ````, in this project's letters; scalars left out."""
    found: dict[str, None] = {}
    for match in _SHAPE.finditer(text):
        math, own, plain = match.groups()
        axes = _axes(math or own or plain or "", batch="N" if own else "B")
        if axes is not None:
            found[" ".join(axes)] = None
    return sorted(found, key=lambda shape: shape[0] not in "BN*T")  # forms without a batch are exceptions


def _axes(written: str, batch: str) -> list[str] | None:
    """The axes of a shape; torch's documentation writes N for the batch, alone of its kind."""
    tokens = [token.strip() for token in re.split(r"[,x×\s]+", written) if token.strip()]
    axes = [_AXES.get(token.lower(), token) for token in tokens]
    axes = [batch if axis == "N" and axes.count("N") == 1 else axis for axis in axes]
    if not axes or not all(_AXIS.fullmatch(axis) for axis in axes) or axes.count("*rest") > 1:
        return None
    return axes


def values_in(text: str) -> list[str]:
    """Domains that the words of a text name, the most telling first; words that have named one name no other."""
    flat = " ".join(text.split())
    found = []
    for pattern, domain in _VALUES:
        flat, times = re.subn(pattern, " ", flat, flags=re.IGNORECASE)
        if times:
            found.append(domain)
    return found


def sentences_about(text: str, name: str, names: Sequence[str]) -> str:
    """The sentences of a docstring that mark a parameter as code, such as ```` `input` ````, and no other of these names."""
    kept = []
    for sentence in re.split(r"(?<=[.;])\s+|\n\s*\n", text):
        marked = {word for word in re.findall(r"`+(\w+)`+", sentence) if word in names}
        if marked == {name}:
            kept.append(re.sub(r"\([^)]*\)", " ", sentence))  # what stands in brackets says what it is not, too
    return "\n".join(kept)


def same_as(text: str, names: Sequence[str]) -> str | None:
    """The other tensor that a text says to have the same shape."""
    match = re.search(r"same shape (?:as|input)(?: the)? ?`*(\w+)`*|in the shape of the `*(\w+)`*", text, re.IGNORECASE)
    if match is None:
        return None
    word = (match.group(1) or match.group(2) or "").lower()
    plain = {name.lower(): name for name in names}
    return plain.get(word) or plain.get(word.rstrip("s")) or plain.get(word + "1")
