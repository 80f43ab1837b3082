"""The correct losses that mutants are made of, each with its declaration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness import LossSpec
from losses import dynamic_weighted, graph_distance, weighted_mse

from . import plain_losses
from .program import Program, program


@dataclass(frozen=True)
class Subject:
    """A declared loss and the implementation of it that is mutated.

    Args:
        spec: the declaration; its first implementation is the reference.
        implementation: which one is mutated.
        only: functions to mutate; all that the implementation reaches where empty.  One class under several declarations
            is mutated whole under the first, and under the others where they reach more of it.
    """

    spec: LossSpec
    implementation: str
    only: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.spec.name

    @cached_property
    def original(self) -> Program:
        """The text of the unmutated implementation."""
        return program(self.spec.implementations[self.implementation])

    def declared(self, **implementations: Callable[..., Any]) -> LossSpec:
        """The declaration with other implementations; what was read off annotations stays as it was read."""
        spec = self.spec
        return spec.replace(
            implementations=implementations,
            inputs=spec.inputs,
            context=spec.context,
            output=spec.output,
            differentiable=spec.differentiable,
        )

    def with_reference(self, mutant: Callable[..., Any]) -> LossSpec:
        """The reference and the mutant, with all laws."""
        return self.declared(reference=self.spec.implementations[self.spec.reference], mutant=mutant)

    def alone(self, mutant: Callable[..., Any]) -> LossSpec:
        """The mutant, with nothing declared but its tensors and options."""
        return self.declared(mutant=mutant).replace(laws=(), error_inputs=(), requires=())


_METHODS = {
    name: (f"{name}.__init__", f"{name}.forward")
    for name in ("WeightedMSELoss", "GraphDistanceLoss", "DynamicWeightedLoss")
}

SUBJECTS: tuple[Subject, ...] = (
    Subject(weighted_mse.SPEC, "vectorized", (*_METHODS["WeightedMSELoss"], "_check_mask", "_check_call")),
    Subject(weighted_mse.SPEC_CROPPED, "vectorized", ("WeightedMSELoss._crop", "_check_call")),
    Subject(
        graph_distance.SPEC,
        "vectorized",
        (*_METHODS["GraphDistanceLoss"], "directions", "_edges", "_check_adjacency", "_check_call"),
    ),
    Subject(graph_distance.SPEC_INDEXED, "vectorized", ("GraphDistanceLoss._neighbour_sum", "_check_call")),
    Subject(dynamic_weighted.SPEC, "vectorized"),
    Subject(dynamic_weighted.SPEC_WEIGHTED_MEAN, "vectorized", ("reduce",)),
    Subject(dynamic_weighted.SPEC_INDEXED, "vectorized", ("DynamicWeightedLoss.forward",)),
    *(Subject(spec, spec.reference) for spec in plain_losses.SPECS),
)


def find(name: str) -> Subject:
    """The subject of a name.

    Raises:
        KeyError: no such subject; the message lists them.
    """
    for subject in SUBJECTS:
        if subject.name == name:
            return subject
    raise KeyError(f"no loss {name!r}; there are {[subject.name for subject in SUBJECTS]}")
