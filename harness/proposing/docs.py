"""What a docstring says of a tensor: dims as torch, numpy and this project write them, and words that name a domain."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence
from typing import Any

# What the words of one parameter's text say of its values, the most telling first.
_VALUES: tuple[tuple[str, str], ...] = (
    (
        r"\blabels? (?::math:)?`*(?:< ?0|-1)`*[ )]*(?:\w+ )?(?:are|is|will be) (?:ignored|discarded)",
        "index(C, ignore=-1)",
    ),
    (r"\b1 or -1\b|-1 or 1\b|\{-1, ?\+?1\}|\{1, ?-1\}|±1", "sign"),
    (
        r"class ind(?:ices|ex)|in \[0, C\)|between :math:`\[0, C\)|0 *(?:<=|≤|\\leq) *\S+ *(?:<=|≤|<|\\leq) *C",
        "index(C)",
    ),
    (r"padded by -1", "distinct_classes"),
    (r"log[- ]?probabilit|logarithmi[sz]ed probabilit|distribution in the log|log[- ]space", "log_simplex(-1)"),
    (r"unnormali[sz]ed[\w ]*|\blogits\b", "logits"),
    (r"histogram|probability distribution|sums? to (?:one|1)", "simplex(-1)"),
    (r"between 0 and 1|in \[0, 1\]|probabilit|(?:lower|less|smaller) (?:than )?or equal to 1(?:\.0)?\b", "probability"),
    (r"LongTensor|Tensor, ?(?:int|long)\b|torch\.(?:int64|long)\b", "index(C)"),
    (r"strictly (?:increasing|ascending|rising)", "sorted_along(-1, strict=True)"),
    (r"\bsorted\b|\b(?:increasing|ascending) order|\b(?:monotonically|strictly)? ?increasing\b", "sorted_along(-1)"),
    (r"integer (?:class )?(?:labels?|targets?|ind(?:ex|ices))|class (?:labels?|ids?)\b", "index(C)"),
    (r"boolean|Tensor, ?bool\b|torch\.bool\b|BoolTensor", "boolean"),
    (r"\b0 (?:or|and) 1\b|\{0, ?1\}|binary", "binary"),
    (
        r"\bfor padding\b|\blengths? (?:of each|before padding|without (?:the )?padding)|\bunpadded lengths?"
        r"|\bnumber of (?:valid|real|actual|unpadded|non-?padded)\b",
        "lengths(D)",
    ),
    (r"positive definite", "positive_definite"),
    (r"non-?negative|from zero up|>= 0|≥ 0", "nonnegative"),
    (r"variance|above zero|> 0|\bpositive (?:tensor|values|numbers)", "positive"),
)
# Shapes are written in one letter for an axis that this project writes in another.
_AXES = {
    **dict.fromkeys(("*", "..."), "*rest"),
    **dict.fromkeys(("batch", "batch_size", "batchsize", "b_size", "bs", "n_samples", "num_samples", "minibatch"), "B"),
    **dict.fromkeys(("time", "seq_len", "seq_length", "sequence_length", "timesteps", "num_steps", "ts_length"), "T"),
    **dict.fromkeys(("features", "n_features", "num_features"), "D"),
    **dict.fromkeys(("height",), "H"),
    **dict.fromkeys(("width",), "W"),
}
_CLASSES = re.compile(r"(?:n|num|number_of)_?(?:class|classes|tags|labels|categories|ranks)|vocab(?:_?size)?")
_FEATURES = re.compile(
    r"(?:(?:n|num|in|out|input|output|emb|embed|embedding|feat|feature|features|hidden|latent)_?)?dim"
)
_SHAPE = re.compile(
    r":math:`\(([^()`]*)\)`|``([A-Z*][\w*# -]*)``|(?<![\w`])[(\[]((?:[A-Za-z_*.\d]+(?: ?- ?1)? *[,x×] *)*[A-Za-z_*.\d]+(?: ?- ?1)?,?)[)\]]"
)
_AXIS = re.compile(r"[A-Z]\w?(?:-1)?|\*[a-z]+|[1-9]\d?")
# Axes that are words or numbers are one where the text says that a shape follows.
_IN_WORDS = re.compile(
    r"\b(?:shape|size|dimensions?)\b[^\w()\[\]]{0,6}(?:is |of |are )?[`'\"]*((?:[(\[][\w\s,;x×*.-]+[)\]][`'\"]*(?: *or *)?)+)",
    re.IGNORECASE,
)
_BRACKETS = re.compile(r"[(\[]([^()\[\]]+)[)\]]")
_LENGTH = re.compile(r"\bof (?:length|size) `*([A-Za-z]\w*)`*(?!\s*=)")
_WORD_AXIS = re.compile(r"[A-Za-z]\w*(?:-1)?|\*[a-z]+|[1-9]\d?")
_UP_TO = re.compile(r"\[0, ?([A-Za-z]\w*) ?(?:\)|- ?1\])|\b0 (?:to|\.\.+) ([A-Za-z]\w*) ?- ?1\b")
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
        if axes is not None and not all(axis.isdigit() for axis in axes):
            found[" ".join(axes)] = None
    in_words = [written for match in _IN_WORDS.finditer(text) for written in _BRACKETS.findall(match.group(1))]
    for written in [*in_words, *(word for word in _LENGTH.findall(text) if "_" in word or len(word) == 1)]:
        axes = _axes(written, batch="B", in_words=True)
        if axes is not None:
            found[" ".join(axes)] = None
    return sorted(found, key=lambda shape: shape[0] not in "BN*T")  # forms without a batch are exceptions


def _axes(written: str, batch: str, in_words: bool = False) -> list[str] | None:
    """The axes of a shape; torch's documentation writes N for the batch, alone of its kind."""
    written = re.sub(r" ?- ?1\b", "-1", written)
    tokens = [token.strip() for token in re.split(r"[,;×\s]+|(?<![a-z])x(?![a-z])", written) if token.strip()]
    axes = [_letter(token.removesuffix("-1")) + ("-1" if token.endswith("-1") else "") for token in tokens]
    if len(axes) > 1 and tokens[-1].lower() in ("n_samples", "num_samples"):
        axes[-1] = "T"  # the samples of a signal
    axes = [batch if axis == "N" and axes.count("N") == 1 and batch not in axes else axis for axis in axes]
    grammar = _WORD_AXIS if in_words else _AXIS
    if not axes or not all(grammar.fullmatch(axis) for axis in axes) or axes.count("*rest") > 1:
        return None
    return [axis if axis[0] == "*" else axis.upper() for axis in axes]  # no word that names a domain


def ranks_in(error: str) -> set[int]:
    """How many axes an error asks for: ``not enough values to unpack (expected 3, got 2)``, ``3D or 4D tensor expected``."""
    asked = re.search(
        r"dimensions to be (\d)|\(expected (\d)(?:, got|\))|[Ee]xpected (\d)[- ]?D|\b(\d)D (?:or (\d)D )?.{0,30}expected",
        error,
    )
    return {int(rank) for rank in asked.groups() if rank} if asked else set()


def asks_for_more(error: str) -> bool:
    """Whether an error says that a size is too small for a window."""
    return re.search(r"[Kk]ernel size can't be greater|\bat least 1\d\b|\btoo small\b", error) is not None


def _letter(word: str) -> str:
    if _CLASSES.fullmatch(word.lower()):
        return "C"
    return "D" if counts_features(word) else _AXES.get(word.lower(), word)


def is_number(about: str) -> bool:
    """Whether the text of a parameter begins with the type of a number or a text."""
    return re.match(r"\W*\w+\W*(?:int|float|bool|str)\b(?! *tensor)", about, re.IGNORECASE) is not None


def counts_classes(name: str) -> bool:
    """Whether a constant of that name says how many classes there are."""
    return _CLASSES.fullmatch(name.lower()) is not None


def counts_features(name: str) -> bool:
    """Whether a constant of that name says how long the vectors are."""
    return _FEATURES.fullmatch(name.lower()) is not None


def values_in(text: str) -> list[str]:
    """Domains that the words of a text name, the most telling first; words that have named one name no other."""
    flat = " ".join(text.split())
    found = []
    if up_to := _UP_TO.search(flat):
        found.append(f"index({_letter(up_to.group(1) or up_to.group(2)).upper()})")
        flat = _UP_TO.sub(" ", flat)
    for pattern, domain in _VALUES:
        flat, times = re.subn(pattern, " ", flat, flags=re.IGNORECASE)
        if times and not (domain.startswith("index") and any(one.startswith("index") for one in found)):
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
