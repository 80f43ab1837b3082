"""Whether a mutant can be told from the original at all, by probes that share nothing with the rules of the harness.

Every probe is a question with an answer of tensors and words: value, gradient, second derivative, dtype, what was
modified, what was raised.  A mutant is *equivalent* if every answer is the original's, up to a few units of rounding; it
is *invalid* if it raises on every legal input, which any call would show.  All that a caller can do within the
declaration counts.  Of calls that it does not allow only this counts: whether they are refused, in whatever words, and
what an original answers that does not refuse them and has a finite number for them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness import LossSpec

from .answers import Answer, Question, alike
from .probes import questions
from .subjects import Subject

LEGAL_CALLS = 8  # a mutant that raises on the first so many legal inputs is taken to raise on all


@dataclass(frozen=True)
class Verdict:
    """What became of the comparison: ``different`` with the question that shows it, ``equivalent``, or ``invalid``."""

    kind: str
    reason: str


class Comparison:
    """Compares mutants with one original, whose answers are kept."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.questions: tuple[Question, ...] = tuple(questions(subject.spec))
        self.original: dict[str, Answer] = {}
        self.spec = subject.declared(loss=subject.original.load())

    def verdict(self, mutant: Any) -> Verdict:
        """Compare a mutant, question by question, up to the first difference."""
        spec = self.subject.declared(loss=mutant)
        first: str | None = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            legal = [question for question in self.questions if question.legal]
            raised = [ask(question, spec).get("raised") for question in legal[:LEGAL_CALLS]]
            if all(raised):
                return Verdict("invalid", f"raises on every legal input: {raised[0]}")
            for question in self.questions:
                if question.name not in self.original:
                    self.original[question.name] = ask(question, self.spec)
                if not _same(question, self.original[question.name], ask(question, spec)):
                    first = question.name
                    break
        if first is not None:
            return Verdict("different", first)
        return Verdict("equivalent", "the same answer to every question")


def _same(question: Question, original: Answer, mutant: Answer) -> bool:
    refused = "raised" in original and "raised" in mutant
    output = original.get("output")
    nowhere = isinstance(output, Tensor) and not bool(output.isfinite().all())
    return (not question.legal and (refused or nowhere)) or alike(original, mutant)


def ask(question: Question, spec: LossSpec) -> Answer:
    """The answer of a loss; what it raises is part of the answer."""
    torch.manual_seed(20_240_301)
    before = torch.get_rng_state()
    try:
        answer = dict(question.put(spec))
    except Exception as error:
        answer = {"raised": type(error).__name__}  # a message may name tensors in another order
    touched = [
        name
        for name, changed in (
            ("generator", not torch.equal(before, torch.get_rng_state())),
            ("grad mode", not torch.is_grad_enabled()),
            ("default dtype", torch.get_default_dtype() != torch.float32),
        )
        if changed
    ]
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    return {**answer, "touched": ", ".join(touched)}
