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

# What tensors of every size take.  What large ones take in place the cases of the harness are too small for.
_SQUARES = ("weighted_squared_error", "removed", "_difference", "_errors", "_total", "normalize")

SUBJECTS: tuple[Subject, ...] = (
    Subject(
        weighted_mse.SPEC,
        "vectorized",
        (*_METHODS["WeightedMSELoss"], "WeightedLoss.__init__", "_check_mask", "_check_call"),
    ),
    Subject(weighted_mse.SPEC_CROPPED, "vectorized", ("WeightedMSELoss._crop", "_check_call")),
    Subject(
        graph_distance.SPEC,
        "vectorized",
        (
            *_METHODS["GraphDistanceLoss"],
            "GraphDistanceLoss._loss",
            "_edges",
            "check_square",
            "check_embeddings",
            "_largest",
            "_directions_and_lengths",
            "_Similarity.forward",
            "_Similarity.backward",
            "_change_of_gradient",
        ),
    ),
    Subject(
        graph_distance.SPEC_INDEXED,
        "vectorized",
        ("GraphMatrix.among", "_among_lists", "_listed", "check_embeddings"),
    ),
    Subject(
        dynamic_weighted.SPEC,
        "vectorized",
        (*_METHODS["DynamicWeightedLoss"], "DynamicWeightedLoss._chosen", "_check_weights", "_check_call", *_SQUARES),
    ),
    Subject(dynamic_weighted.SPEC_WEIGHTED_MEAN, "vectorized", ("normalize",)),
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
