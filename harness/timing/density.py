"""Tensors with a chosen part of zeros: what a loss costs may depend on how full its mask or graph is."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

from harness.declare.spec import LossSpec
from harness.errors import DeclarationError, nearest, shown


def check_densities(spec: LossSpec, densities: Mapping[str, float]) -> None:
    """Refuse what cannot be thinned.

    Raises:
        DeclarationError: no such tensor, no density, or a domain whose values cannot be set to zero one by one.
    """
    for name, density in densities.items():
        if name not in spec.tensors:
            raise DeclarationError(
                f"loss {shown(spec.name)} has no tensor {shown(name)} to thin; it has {list(spec.tensors)}{nearest(name, spec.tensors)}"
            )
        if not isinstance(density, int | float) or not 0 <= density <= 1:
            raise DeclarationError(f"got density {shown(density)} of {shown(name)}, expected a number in [0, 1]")
        domain = spec.tensors[name].domain
        if domain.low != 0 or domain.kind == "integer" or domain.axis is not None or domain.make is not None:
            raise DeclarationError(
                f"loss {shown(spec.name)}: {shown(name)} is {domain}, whose elements cannot be set to zero one by one; nonnegative(), "
                f"probability(), binary(), boolean() and adjacency() can be thinned"
            )


def thinned(spec: LossSpec, name: str, tensor: Tensor, density: float, seed: int) -> Tensor:
    """The tensor with each element kept with probability ``density``, and zero elsewhere.

    Values of a 0/1 domain are one where they are kept, so that ``density`` is their part of ones; what ties elements
    together (symmetry, no self-loops) is repaired after, which leaves the density of the others.

    Args:
        spec: the declaration.
        name: of the tensor.
        tensor: as it was drawn.
        density: expected part of the elements that is not zero.
        seed: the same seed keeps the same elements, in every process and on every device.
    """
    domain = spec.tensors[name].domain
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name} density".encode()))
    keep = torch.rand(tensor.shape, generator=generator) < density
    if domain.whole:
        return domain.project(keep.double()).to(tensor.dtype).to(tensor.device)
    return tensor * keep.to(tensor.device)
