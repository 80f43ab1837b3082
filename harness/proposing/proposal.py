"""`Proposal`: what a loss may declare, with the reason and the confidence of each decision; JSON between processes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from harness.proposing.knowledge import Confidence

Place = Literal["input", "context", "option", "formula"]


@dataclass(frozen=True)
class Decision:
    """What one parameter is proposed to be.

    Args:
        name: of the parameter.
        place: where a declaration has it.
        text: of a tensor dims and domain, of an option its value as Python writes it, of a formula the formula.
        dims: of a tensor.
        domain: of a tensor, in the grammar of `harness.declare.inline` or the name of one of `harness.proposing.samplers`.
        several: of a list of such tensors: its length, a number or the symbol of a drawn one.
        confidence: ``declared`` by the loss, ``tried`` where calls went well with this and not with what is more usual,
            else ``guessed``.
        why: in words.
    """

    name: str
    place: Place
    text: str
    confidence: Confidence
    why: str
    dims: str | None = None
    domain: str = "real"
    several: str | int | None = None

    @property
    def in_a_line(self) -> str:
        """The tensor, or the tensors of a list, as ``--inputs`` takes them."""
        names = [f"{self.name}.{place}" for place in range(self.several)] if isinstance(self.several, int) else []
        symbol = f"[{self.several}]" if isinstance(self.several, str) else ""
        return "; ".join(f"{name}: {self.text}" for name in names or [f"{self.name}{symbol}"])


@dataclass(frozen=True)
class Proposal:
    """What one loss is proposed to declare.

    Args:
        name: of the loss.
        decisions: one for each parameter that a call needs.
        left_out: optional tensors, which the declaration does not give; they may be added where they were tried.
        fixed_sizes: sizes that constants state.
        differentiable: predictions.
        output: dims, ``None`` where the trial calls could not tell.
        select: how the loss is picked out of what is returned; empty where it is all that is returned.
        laws: those that held on all cases, in the grammar of `harness.declare.inline`, each with the number of cases in which
            it could have failed.
        notes: what trial calls have shown beside.
        trials: how many readings were tried.
        reference: the name of another implementation in the same module, to which this one is held.
        stochastic: whether two calls on the same tensors gave two values.
    """

    name: str
    decisions: tuple[Decision, ...]
    left_out: tuple[Decision, ...] = ()
    fixed_sizes: Mapping[str, Any] | None = None
    differentiable: tuple[str, ...] = ()
    output: str | None = None
    select: str = ""
    laws: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    trials: int = 0
    reference: str = ""
    stochastic: bool = False

    def of(self, place: Place) -> tuple[Decision, ...]:
        """The decisions of one place."""
        return tuple(decision for decision in self.decisions if decision.place == place)

    @property
    def formula(self) -> str:
        """The formula of the docstring, where the loss equals it; empty where none is, or where the two differ."""
        return next((d.text for d in self.of("formula") if d.confidence == "tried"), "")

    def to_json(self) -> dict[str, Any]:
        """The proposal as JSON types."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Proposal:
        """The proposal that `to_json` wrote."""
        read: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        for key in ("decisions", "left_out"):
            read[key] = tuple(Decision(**decision) for decision in data[key])
        return Proposal(**read)

    def command(self, command: str, target: str) -> str:
        """The line that runs a command on the loss without a file; empty where a domain can be written only in one."""
        from harness.proposing.samplers import SAMPLERS

        if any(decision.domain in SAMPLERS for decision in self.decisions) or self.fixed_sizes:
            return ""
        parts = ["loss-harness", command, target]
        places: tuple[tuple[str, Place], ...] = (("--inputs", "input"), ("--context", "context"))
        for option, place in places:
            tensors = "; ".join(decision.in_a_line for decision in self.of(place))
            parts += [option, tensors] if tensors else []
        for decision in self.of("option"):
            parts += ["--set", f"{decision.name}={decision.text.strip(chr(39))}"]
        if self.formula:
            parts += ["--formula", self.formula]
        if self.select:
            parts += ["--pick", self.select.strip("[]'")]
        parts += ["--stochastic"] if self.stochastic else []
        return " ".join(_quoted(part) for part in parts)


def _quoted(part: str) -> str:
    """In double quotes, which every shell reads, where nothing in them means more to one."""
    return shlex.quote(part) if set(part) & set('"$`\\!') or " " not in part else f'"{part}"'
