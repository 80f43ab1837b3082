"""Whether tensors that were made from drawn ones are such as the declaration allows: what it forbids, a loss may hang on."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from harness.declare import dims
from harness.declare.dims import Size
from harness.rules.trial import Trial


def is_allowed(trial: Trial, drawn: Mapping[str, Tensor], made: Mapping[str, Tensor]) -> bool:
    """Whether each tensor is known to be of its domain, in sizes that all of them share; a fixed size may be another.

    Args:
        trial: whose case the drawn tensors are of.
        drawn: the tensors of the case.
        made: what was made of them; a tensor that was left alone is the same object.
    """
    declared = trial.spec.tensors
    shapes = {name: tuple(tensor.shape) for name, tensor in made.items()}
    try:
        sizes = {**trial.case.sizes, **dims.unify({name: declared[name].dims for name in made}, shapes)}
    except ValueError:
        return False
    return all(
        _is_drawn(trial, name, drawn, made, sizes)
        if declared[name].domain.make
        else declared[name].domain.holds(t, sizes)
        for name, t in made.items()
    )


def _is_drawn(
    trial: Trial, name: str, drawn: Mapping[str, Tensor], made: Mapping[str, Tensor], sizes: Mapping[str, Size]
) -> bool:
    """Whether a tensor is one that its own sampler has drawn, beside the sizes and tensors that the sampler looked at."""
    declared = trial.spec.tensors
    own, names = declared[name], list(declared)
    of = next((other for other, tensor in drawn.items() if tensor is made[name]), None)
    if of is None or declared[of].domain.make is not own.domain.make or declared[of].dims != own.dims:
        return False
    if "sizes" in own.domain.reads and sizes != trial.case.sizes:
        return False
    before = [n for n in names[: names.index(name)] if n in drawn]
    return "tensors" not in own.domain.reads or (of == name and all(made[n] is drawn[n] for n in before))
