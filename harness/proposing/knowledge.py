"""What parameters of losses are usually called, and what tensors of that name usually are.

A `Guess` is one reading of a parameter: a tensor's dims and domain, or a constant.  Its cost says how unusual it is.  Dims
are spelled so that tensors which share an axis share its letter: B samples, C classes, D features, N nodes or items, M
items of another set, S positions of a sequence, H and W of an image, T steps of time.
"""

from __future__ import annotations

import itertools
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin

from harness.proposing import docs

Role = Literal["prediction", "label", "weight", "constant"]
Confidence = Literal["declared", "tried", "guessed"]


@dataclass(frozen=True)
class Guess:
    """One reading of a parameter.

    Args:
        cost: how unusual it is; readings of a low sum are tried first.
        dims: of a tensor, ``None`` for a constant.
        domain: in the grammar of `harness.declare.inline`, or the name of a sampler of `harness.proposing.samplers`.
        several: of a list of such tensors: its length, a number or the symbol of a drawn one; ``None`` of a single tensor.
        value: of a constant.
        fixes: the symbol whose size the constant states.
        why: where the reading is from.
        confidence: ``declared`` where the loss says so itself, else ``guessed`` until a trial call has shown it.
    """

    cost: float
    dims: str | None = None
    domain: str = "real"
    several: str | int | None = None
    value: Any = None
    fixes: str | None = None
    why: str = ""
    confidence: Confidence = "guessed"


@dataclass(frozen=True)
class Kind:
    """What parameters of some names usually are.

    Args:
        role: what the tensor is to the loss; predictions are differentiated.
        readings: (dims, domain) of tensors, the most usual first.
    """

    role: Role
    readings: tuple[tuple[str, str], ...]


_CLASSES = (("B C", "logits"), ("B C S", "logits"), ("B C H W", "logits"))
_MANY_AXES = (("B S D", "real"), ("B C H W", "real"), ("B C D H W", "real"))
_LABELS = (
    ("B", "index(C)"),
    ("B D", "real"),
    ("B C", "label"),
    ("B", "real"),
    ("B C", "simplex(-1)"),
    ("B D", "label"),
    ("B", "sign"),
    ("B D", "sign"),
    ("B", "label"),
    ("B D", "probability"),
    ("B D", "nonnegative"),
    ("B D", "simplex(-1)"),
    ("B S", "index(C)"),
    ("B H W", "index(C)"),
    ("B C H W", "label"),
    ("B C", "distinct_classes"),
    ("B M", "simplex(-1)"),
    *_MANY_AXES,
)

KINDS: Mapping[str, Kind] = {
    "scores": Kind(
        "prediction",
        (
            ("B D", "real"),
            _CLASSES[0],
            ("B", "real"),
            ("B D", "probability"),
            ("B C", "probability"),
            ("B C", "simplex(-1)"),
            ("B D", "positive"),
            ("B C", "log_simplex(-1)"),
            ("B D", "simplex(-1)"),
            ("B N", "simplex(-1)"),
            ("N D", "real"),
            *_CLASSES[1:],
            ("B C H W", "probability"),
            *_MANY_AXES,
            ("N B", "real"),
        ),
    ),
    "logits": Kind(
        "prediction", (*_CLASSES, ("B D", "logits"), ("B", "logits"), ("B S C", "logits"), ("B C-1", "logits"))
    ),
    "log_probabilities": Kind(
        "prediction",
        (
            ("B C", "log_simplex(-1)"),
            ("T B C", "log_simplex(-1)"),
            ("B", "interval(-20, 0)"),
            ("B D", "logits"),
        ),
    ),
    "probabilities": Kind(
        "prediction",
        (
            ("B C", "simplex(-1)"),
            ("B D", "probability"),
            ("B", "probability"),
            ("B C", "probability"),
            ("B C H W", "probability"),
        ),
    ),
    "histograms": Kind(
        "prediction", (("B N", "simplex(-1)"), ("B M", "simplex(-1)"), ("B D", "simplex(-1)"), ("N", "simplex(-1)"))
    ),
    "embeddings": Kind(
        "prediction", (("B D", "real"), ("N D", "real"), ("B", "real"), ("B N D", "real"), ("B D", "unit_norm(-1)"))
    ),
    "others": Kind("prediction", (("B D", "real"), ("M D", "real"), ("B N D", "real"), ("N D", "real"))),
    "positives": Kind("prediction", (("B D", "real"), ("B", "index(N)"), ("B N D", "real"))),
    "positive_scores": Kind("prediction", (("B", "real"), ("B 1", "real"), ("B D", "real"), ("B N", "real"))),
    "negative_scores": Kind("prediction", (("B N", "real"), ("N B", "real"), ("B D", "real"), ("B", "real"))),
    "labels": Kind("label", _LABELS),
    "teachers": Kind("label", (("B C", "logits"), ("N C", "logits"), ("B D", "real"))),
    "images": Kind("prediction", (("B C H W", "probability"), ("B C H W", "real"), ("H W", "probability"))),
    "points": Kind("prediction", (("B N D", "real"), ("N D", "real"))),
    "boxes": Kind("prediction", (("B 4", "boxes"), ("B N 4", "boxes"))),
    "levels": Kind("label", (("D", "probability"), ("C", "probability"), ("B", "probability"), ("B C", "label"))),
    "risks": Kind("prediction", (("B", "real"), ("B D", "real"))),
    "durations": Kind("label", (("B", "positive"), ("B D", "positive"))),
    "events": Kind("label", (("B", "label"), ("B", "label(bool)"), ("B D", "label"))),
    "returns": Kind("label", (("B", "real"), ("B D", "real"), ("B T", "real"))),
    "signs": Kind("label", (("B", "sign"), ("B D", "sign"))),
    "indices": Kind("label", (("B", "index(N)"), ("B", "index(C)"), ("N", "index(M)"))),
    "lengths": Kind("label", tuple(("B", f"{values}({of})") for values in ("lengths", "index") for of in "TSND")),
    "weights": Kind(
        "weight",
        (
            ("B", "nonnegative"),
            ("B D", "nonnegative"),
            ("C", "nonnegative"),
            ("D", "nonnegative"),
            ("N", "nonnegative"),
            ("B C", "nonnegative"),
            ("M", "nonnegative"),
        ),
    ),
    "class_weights": Kind(
        "weight", (("C", "nonnegative"), ("D", "nonnegative"), ("B", "nonnegative"), ("B C", "positive"))
    ),
    "mask": Kind(
        "weight",
        (
            ("B D", "boolean"),
            ("B", "boolean"),
            ("B D", "binary"),
            ("B", "binary"),
            ("B C", "boolean"),
            ("B S", "boolean"),
            ("B H W", "binary"),
            ("N N", "boolean"),
            ("D", "binary"),
            ("B C", "binary"),
            ("H W", "binary"),
            ("H W", "boolean"),
        ),
    ),
    "adjacency": Kind("weight", (("N N", "adjacency"), ("B N N", "adjacency"), ("B B", "adjacency"))),
    "edges": Kind("weight", (("2 M", "index(N)"), ("M 2", "index(N)"))),
    "variances": Kind("prediction", (("B D", "positive"), ("B", "positive"), ("D", "positive"), ("B D 1", "positive"))),
    "matrix": Kind("weight", (("D D", "positive_definite"), ("B D D", "positive_definite"))),
    "costs": Kind(
        "weight", (("C C", "nonnegative"), ("N M", "interval(0, 1)"), ("B B", "nonnegative"), ("N N", "nonnegative"))
    ),
    "prototypes": Kind("weight", (("C D", "real"), ("N D", "real"))),
    "bank": Kind("weight", (("N D", "real"), ("C D", "real"))),
}

UNKNOWN = Kind(
    "prediction",
    (
        ("B D", "real"),
        ("B", "real"),
        ("B", "index(C)"),
        ("B C", "logits"),
        ("N N", "nonnegative"),
        ("D", "real"),
        ("", "real"),
        *_MANY_AXES,
        ("T B C", "real"),
        ("B S", "index(C)"),
        ("B C", "positive"),
        ("N B", "real"),
    ),
)

_NAMES: Mapping[str, str] = {
    "scores": "input inputs x pred preds prediction predictions predicted output outputs yhat score scores est estimate estimates "
    "recon reconstruction src student",
    "logits": "logit logits",
    "log_probabilities": "logprob logprobs logp logprobability logprobabilities",
    "probabilities": "prob probs probability probabilities p q",
    "histograms": "source histogram histograms marginal marginals mass distribution distributions",
    "embeddings": "embedding embeddings emb embs feature features feat feats z h anchor anchors positive negative query queries "
    "vector vectors x1 x2 input1 input2 z1 z2 a b u v representation representations hidden mean means mu view logvar logsigma logstd",
    "others": "negatives key keys",
    "positives": "positives",
    "positive_scores": "posscore posscores positivescore positivescores pospred pospreds positivepredictions",
    "negative_scores": "negscore negscores negativescore negativescores negpred negpreds negativepredictions",
    "labels": "target targets label labels y gt truth groundtruth class classes true expected ref reference annotation",
    "teachers": "teacher teachers teacherlogits",
    "risks": "risk risks hazard hazards",
    "images": "img imgs image images picture frame frames",
    "points": "point points verts vertices coords coordinates xyz cloud",
    "boxes": "box boxes bbox bboxes",
    "levels": "quantile quantiles percentiles levels",
    "durations": "time times duration durations",
    "events": "event events censored observed",
    "returns": "advantage advantages reward rewards returns",
    "signs": "sign signs",
    "indices": "index indices idx ids node nodes position positions",
    "lengths": "length lengths len lens seqlen seqlens numframes nframes numvalid nvalid",
    "weights": "weight weights w importance sampleweight",
    "class_weights": "classweight classweights posweight prior priors alpha counts frequencies samplespercls samplesperclass clsnumlist",
    "mask": "mask masks valid keep padding",
    "adjacency": "adjacency adj graph affinity laplacian",
    "edges": "edges edgeindex",
    "variances": "var variance variances sigma std scale",
    "matrix": "precision covariance cov metric",
    "costs": "cost costs distances costmatrix confusion",
    "prototypes": "prototype prototypes center centers centre centres centroid centroids proxies codebook",
    "bank": "bank memory queue",
}
_KIND_OF = {name: kind for kind, names in _NAMES.items() for name in names.split()}

# Constants that a loss may need; (name, value, the size that it states).
_CONSTANTS: Mapping[str, tuple[Any, str | None]] = {
    **dict.fromkeys(("numclasses", "nclasses", "classes", "classnum", "clsnum", "outfeatures"), (5, "C")),
    **dict.fromkeys(("embeddingsize", "numfeatures", "infeatures"), (4, "D")),
    "reduction": ("mean", None),
    "backend": ("torch", None),
    "device": ("cpu", None),
    **dict.fromkeys(("temperature", "tau", "t", "epsilon"), (0.5, None)),
    **dict.fromkeys(("eps",), (1e-6, None)),
    **dict.fromkeys(
        ("margin", "beta", "delta", "lambda", "lam", "alpha", "gamma", "smoothing", "m", "s", "strength"), (0.5, None)
    ),
    **dict.fromkeys(("p", "k", "power", "order", "iterations", "steps"), (2, None)),
}
_NUMBERS = (1.0, 2, 0.5)
_IS_TRUTH = re.compile(r"(?:with|use|is|has|return|apply|include)_")  # names of parameters that are true or false

# Values of labels that belong to another kind of predictions than these.
STRANGERS: frozenset[tuple[str, str]] = frozenset(
    {("log_simplex(-1)", "label"), ("log_simplex(-1)", "probability"), ("log_simplex(-1)", "sign")}
)

# What a docstring says of scores, and not of the weights or the mask beside them.
_OF_SCORES = frozenset({"logits", "log_simplex(-1)", "probability", "simplex(-1)"})
# What it says of labels, and not of the predictions beside them.
_OF_LABELS = frozenset({"binary", "label", "boolean"})

LEAST_STEP = 0.1  # of the cost from one reading of a name to its next
AGAINST_ANNOTATION = 4.0


def kind_of(name: str) -> tuple[str, Kind]:
    """(word, kind) of a parameter's name: the whole name, else its last part that is known."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    parts = [
        re.sub(r"\d+$", "", part)
        for part in re.findall(r"[a-z]+\d*|\d+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())
    ]
    for word in (
        plain,
        plain.rstrip("0123456789"),
        *(f"{a}{b}" for a, b in itertools.pairwise(parts)),
        # target_a is a target, and idx_durations are positions
        *sorted(
            reversed(parts), key=lambda part: (part != parts[0] or _KIND_OF.get(part) != "indices", len(part) == 1)
        ),
    ):
        if word in _KIND_OF:
            return word, KINDS[_KIND_OF[word]]
    return "", UNKNOWN


def readings(name: str) -> list[Guess]:
    """What a tensor of that name may be, the most usual first."""
    word, kind = kind_of(name)
    why = f"usual for the name {word!r}" if word else "a name that tells nothing"
    return [
        Guess(LEAST_STEP * position, dims, domain, why=why) for position, (dims, domain) in enumerate(kind.readings)
    ]


def fitting(name: str, values: Sequence[str]) -> list[str]:
    """The domains that a docstring names which a tensor of that name may have: a label of zeros and ones is no mask."""
    word, kind = kind_of(name)
    role = kind.role
    if role == "weight":
        return [value for value in values if value not in _OF_SCORES]
    if not word:
        return list(values)
    if role == "prediction":
        return [value for value in values if value not in _OF_LABELS]
    return ["label" if value == "binary" else value for value in values]


def constants(name: str, annotation: Any = None) -> list[Guess]:
    """Values for a parameter that is no tensor: what its annotation lists, what is usual for its name, or some of its type."""
    members = [member for member in get_args(annotation) if member is not type(None)]
    if get_origin(annotation) in (Union, types.UnionType) and len(members) == 1:
        return constants(name, members[0])
    if get_origin(annotation) is Literal:
        return _listed(members, "the first that its annotation lists")
    if annotation is bool or (annotation is None and _IS_TRUTH.match(name)):
        return _listed([False, True], "some value of its type")
    if _known_constant(name) != (None, None):
        value, fixes = _known_constant(name)
        return [Guess(0.0, value=value, fixes=fixes, why="usual for a constant of that name")]
    return _listed({int: (2, 4), float: (0.5, 1.0)}.get(annotation, _NUMBERS), "some value, to be able to call it")


def _listed(values: Sequence[Any], why: str) -> list[Guess]:
    return [Guess(LEAST_STEP * position, value=value, why=why) for position, value in enumerate(values)]


def size_stated(name: str) -> str | None:
    """The symbol whose size constants of that name state, where they do."""
    return _known_constant(name)[1]


def is_constant_name(name: str) -> bool:
    """Whether constants are usually called so."""
    return _known_constant(name) != (None, None) or _IS_TRUTH.match(name) is not None


def _known_constant(name: str) -> tuple[Any, str | None]:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    of_its_form = (5, "C") if docs.counts_classes(name) else (4, "D") if docs.counts_features(name) else (None, None)
    return _CONSTANTS.get(plain, of_its_form)


def dearer(guess: Guess, by: float) -> Guess:
    """The same reading, at a higher cost."""
    return replace(guess, cost=guess.cost + by)
