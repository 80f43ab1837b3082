"""Which findings follow from which: one defect is reported once, what it brings about stands below it.

A finding follows from another of the same implementation (and device) where a line of `LINKS` says so, the evidence of
both fits, and the cause is at least as severe: an error's cause is an error.  Lines stand in order of depth: the first
that fits gives the cause, and a cause's own cause is followed to its root.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.results.findings import SEVERITIES, Finding

# What rounding at float32 changes: `tolerance.value_rounding`, as a part of the size that the finding names.
FLOAT32 = 20 * 2.0**-23


When = Callable[[Finding, Finding], bool]


def _kind(finding: Finding) -> str:
    return str(finding.evidence.get("kind", ""))


def _always(cause: Finding, effect: Finding) -> bool:
    return True


def _cause(**evidence: str) -> When:
    """The cause's evidence says this."""
    return lambda cause, effect: _says(cause, evidence)


def _effect(**evidence: str) -> When:
    """The effect's evidence says this."""
    return lambda cause, effect: _says(effect, evidence)


def _both(**evidence: str) -> When:
    """The evidence of both says this."""
    return lambda cause, effect: _says(cause, evidence) and _says(effect, evidence)


def _says(finding: Finding, evidence: Mapping[str, str]) -> bool:
    return all(finding.evidence.get(name) == value for name, value in evidence.items())


def _of_one(name: str) -> When:
    """The evidence of both says the same of this."""
    return lambda cause, effect: bool(cause.evidence.get(name, "") == effect.evidence.get(name, ""))


def _all(*each: When) -> When:
    return lambda cause, effect: all(when(cause, effect) for when in each)


def _no(when: When) -> When:
    return lambda cause, effect: not when(cause, effect)


def _is_number(finding: Finding) -> bool:
    return _kind(finding) in ("value", "gradient")


def _reads_unset_memory(cause: Finding, effect: Finding) -> bool:
    return _kind(cause) == "reads unset memory" and _is_number(effect)


def _is_another_number(cause: Finding, effect: Finding) -> bool:
    return _is_number(effect) and not _not_finite(cause, effect)


def _not_finite(cause: Finding, effect: Finding) -> bool:
    return effect.evidence.get("finite", True) is False


def _both_not_finite(cause: Finding, effect: Finding) -> bool:
    return _not_finite(effect, cause) and _not_finite(cause, effect)


def _in_one_precision(cause: Finding, effect: Finding) -> bool:
    """Of one value; the dtype is the last word of what both are about."""
    lost, less = (str(finding.evidence.get("aspect", "")).rpartition(" ")[2] for finding in (cause, effect))
    return lost == less and _kind(cause) == _kind(effect) == "value"


def _raises_alike(cause: Finding, effect: Finding) -> bool:
    exception = str(cause.evidence.get("exception", ""))
    return exception != "" and exception == effect.evidence.get("exception", "")


def _in_one_mode(cause: Finding, effect: Finding) -> bool:
    """What differs in train() alone makes no difference in eval()."""
    return _says(cause, {"aspect": "train"}) is _says(effect, {"aspect": "train"})


def _of_the_same_attribute(cause: Finding, effect: Finding) -> bool:
    return _kind(cause) == "not moved" and (
        _kind(effect) == "moved" or (_kind(effect) == "not saved" and _of_one("tensor")(cause, effect))
    )


def _in_rounding_at_float32(cause: Finding, effect: Finding) -> bool:
    """Off by no more than what float32 rounds: its eps times the condition number."""
    difference, size = (_number(effect, name) for name in ("difference", "size"))
    narrowed = _kind(cause) == "narrowed"
    return narrowed and difference is not None and difference <= FLOAT32 * (size or 0.0)


def _number(finding: Finding, name: str) -> float | None:
    """A number of the evidence, where those that are not finite are text."""
    value = finding.evidence.get(name)
    return float(value) if isinstance(value, (int, float)) or value in ("inf", "-inf", "nan") else None


@dataclass(frozen=True)
class Link:
    """Findings of ``causes`` bring about those of ``effects``, for this reason; both are codes, or prefixes of codes.

    Args:
        causes: rules that find the cause.
        effects: rules that find what follows.
        reason: one sentence.
        when: whether the evidence of (cause, effect) fits; always, where the codes say enough.
        alone: only where no other implementation has the cause's finding too.
    """

    causes: tuple[str, ...]
    effects: tuple[str, ...]
    reason: str
    when: When = _always
    alone: bool = False


_LAWS = ("L", "B04", "C03", "C04", "C05", "C06", "C08")
# B04 learns its laws from the loss: they may be the defect's; L16 asks nobody.
_DECLARED = (*(f"L{n:02}" for n in range(1, 16)), *(code for code in _LAWS if code not in ("L", "B04")))
_SLOPES = ("G01", "G02", "G03", "G04", "G05", "G07")
_BEYOND_REVERSE = ("G03", "G04", "G11", "T02")
_REFERENCE = ("E01", "E02", "E03", "E04", "E05")

_NUMBERS = (*"DEGLT", "B02", "B04", "B06", "B07", *(f"C{n:02}" for n in range(3, 12)), "S03")

LINKS: tuple[Link, ...] = (
    Link(
        ("B01",),
        (*"CDEGLST", "B05", "B06"),
        "the loss raises, or returns no tensor, whatever is asked of it",
        _raises_alike,
    ),
    Link(("X01",), ("X01",), "what ends the process under one rule ends it under others", _of_one("came")),
    Link(("B01",), (*_REFERENCE, *_LAWS), "numbers of another shape are not compared", _both(kind="shape")),
    Link(("C02",), ("B06",), "layouts are compared on tensors that the loss has edited", _no(_effect(kind="raises"))),
    Link(("C02",), ("G11", "T"), "transforms cannot follow an edit in place", _effect(kind="refuses in-place")),
    Link(("C02",), (*_SLOPES, "G06"), "slopes are measured around a point that the loss has moved"),
    Link(
        ("C02",),
        ("S01", "S03", "C10", *_LAWS),
        "the second evaluation starts from what the first has left",
        _no(_effect(kind="leak")),  # C03 puts NaN where the domain may have none
    ),
    Link(("C02",), _REFERENCE, "the loss is that of the edited tensors"),
    Link(("S01",), _NUMBERS, "what is read from memory that nobody has written may be anything", _reads_unset_memory),
    Link(("S01",), _NUMBERS, "a number that changes from call to call equals nothing", _is_another_number),
    Link(("S01",), ("S02",), "the draws that change the number advance the generator", _effect(kind="draws")),
    Link(
        ("S02",),
        (*_SLOPES, "G06", "E02", "E03", "E05"),
        "after the call no graph is recorded any more",
        _cause(aspect="torch.is_grad_enabled()"),
    ),
    Link(
        ("S02",),
        ("D01", "D05"),
        "tensors made after the call have another dtype",
        _cause(aspect="torch.get_default_dtype()"),
    ),
    Link(
        ("S03",),
        tuple(code for code in _NUMBERS if code != "S03"),
        "what is kept for all instances is that of another call, with other values or another dtype",
        _cause(aspect="history of all instances"),
    ),
    Link(("C01",), ("C01",), "a plain attribute neither moves nor is saved", _of_the_same_attribute),
    Link(
        ("C01",),
        ("G09",),
        "a graph that is kept on self is in the copies too, or keeps them from being made",
        _both(kind="keeps a graph"),
    ),
    Link(
        ("G09",),
        ("G09",),
        "a graph that is kept is gone back through by the next step",
        _all(_both(kind="keeps a graph"), _effect(aspect="second step")),
    ),
    Link(
        ("G08",),
        (*"DEL", "C04", "C05", "C06", "C08", *_SLOPES),
        "NaN or inf passes through everything that it meets",
        _not_finite,
    ),
    Link(
        ("G06",),
        (*_SLOPES, "E02", "E03", "E05"),
        "the gradient of what is cut off is zero",
        _all(_cause(kind="cut off"), _of_one("tensor")),
    ),
    Link(("G06",), ("E05",), "what a long axis leaves out is missing in the value too", _of_one("aspect")),
    Link(("G06",), ("C07",), "no gradient is left on which a context could act", _cause(kind="cut off")),
    Link(("D02",), ("D02", "E04"), "what leaves the range of one precision leaves that of others", _both_not_finite),
    Link(("E04",), ("E04",), "what leaves the range of one precision leaves that of others", _both_not_finite),
    Link(("D02",), ("E04",), "digits that are lost are not the reference's either", _in_one_precision),
    Link(("D01",), ("D05",), "a result that is not float64 has not its digits", _cause(kind="narrowed")),
    Link(
        ("D01", "D05"),
        ("E", "L", *_SLOPES),
        "the digits after the seventh are gone",
        _in_rounding_at_float32,
    ),
    Link(
        ("D05",),
        (*_SLOPES, "E", "L"),
        "a part that is rounded to 16 bits moves in steps, whose slopes are no gradient, and is another number",
        _cause(aspect="on the way, in 16 bits"),
    ),
    Link(
        ("G01",),
        ("G02", "G03", "G04", "G05", "G07"),
        "a wrong gradient is wrong at other sizes and in compositions",
        _effect(kind="gradient"),
    ),
    Link(
        ("G05",),
        ("G11",),
        "what does not follow one upstream gradient does not follow several",
        _all(_both(kind="gradient"), _of_one("tensor")),
    ),
    Link(("G01", "G02"), ("E02", "E03", "E05"), "a wrong gradient is not the reference's", _effect(kind="gradient")),
    Link(
        ("G01", "G02"),
        ("B07",),
        "a wrong gradient is wrong by reduction='none' too",
        _all(_both(kind="gradient"), _effect(aspect="none gradient"), _of_one("tensor")),
    ),
    Link(("G01", "G02"), _LAWS, "a wrong gradient keeps no law that the right one keeps", _effect(kind="gradient")),
    Link(
        _DECLARED,
        ("E01", "E02", "E03", "E05"),
        "what breaks a law that the reference keeps is not the reference",
        _no(_cause(kind="gradient")),
        True,
    ),
    Link(_DECLARED, ("E02", "E03", "E05"), "what breaks a law in the gradient has not the reference's", alone=True),
    *(
        Link(
            (code,),
            _BEYOND_REVERSE[k:],
            "a Function of forward and backward has no other mode",
            _both(aspect="custom Function"),
        )
        for k, code in enumerate(_BEYOND_REVERSE[:-1], start=1)
    ),
    Link(("E01",), ("E02", "E03", "E04"), "another function has another gradient", _in_one_mode),
    Link(("E01",), ("L16",), "another function may have another sign"),
    Link(("E02",), ("E03",), "another gradient has another derivative", _in_one_mode),
    Link(("E01", "E02"), ("E05",), "what differs at small sizes differs at large ones", _in_one_mode),
)


def attributed(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings in their order, each with the code of the rule that found its cause in ``follows``.

    ``follows`` is empty for a finding that follows from no other.
    """
    return tuple(
        replace(finding, follows="" if root is None else findings[root].rule)
        for finding, root in zip(findings, _roots(findings), strict=True)
    )


def grouped(findings: Sequence[Finding]) -> list[tuple[Finding, tuple[Finding, ...]]]:
    """(cause, what follows from it), causes in their order; a finding without either stands alone."""
    roots = _roots(findings)
    return [
        (finding, tuple(f for f, root in zip(findings, roots, strict=True) if root == position))
        for position, finding in enumerate(findings)
        if roots[position] is None
    ]


def _roots(findings: Sequence[Finding]) -> list[int | None]:
    """The position of each finding's first cause, or ``None``."""
    parents = [_parent(findings, position) for position in range(len(findings))]
    roots: list[int | None] = []
    for parent in parents:
        while parent is not None and parents[parent] is not None:
            parent = parents[parent]
        roots.append(parent)
    return roots


def _parent(findings: Sequence[Finding], mine: int) -> int | None:
    effect = findings[mine]
    for link in LINKS:
        if not effect.rule.startswith(link.effects):
            continue
        for position, cause in enumerate(findings):
            if not _is_cause(link, cause, effect):
                continue
            if position > mine and _is_cause(link, effect, cause):
                continue  # of two that could each bring about the other, the first does
            if link.alone and _is_shared(cause, findings):
                continue
            return position
    return None


def _is_cause(link: Link, cause: Finding, effect: Finding) -> bool:
    return (
        cause is not effect
        and cause.rule.startswith(link.causes)
        and effect.rule.startswith(link.effects)
        and _place(cause) == _place(effect)
        and SEVERITIES.index(cause.severity) <= SEVERITIES.index(effect.severity)
        and link.when(cause, effect)
    )


def _is_shared(cause: Finding, findings: Sequence[Finding]) -> bool:
    return any(
        f.rule == cause.rule
        and f.implementation != cause.implementation
        and f.evidence.get("aspect") == cause.evidence.get("aspect")
        for f in findings
    )


def _place(finding: Finding) -> tuple[str, str, bool]:
    """Implementation and device, and whether a baseline accepts it: what is new does not hide below what is accepted."""
    return finding.implementation, finding.device, finding.accepted
