"""Tensors that rules make themselves, each on the device of one that the loss is given.

A CUDA tensor meets no CPU tensor of one axis or more, and draws from no CPU generator.  So rules make no tensor but here, and
what a generator, a domain or a special point gives, all of which live on the CPU, is brought to the tensor that it is for.
`property_tests/test_architecture.py` holds this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Generator, Tensor


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies for one call, since a loss may edit what it is given."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def beside(values: Tensor, like: Tensor) -> Tensor:
    """The values on the device of ``like``, in their own dtype."""
    return values.to(like.device)


def counted(count: int, like: Tensor, *, start: int = 0) -> Tensor:
    """``count`` whole numbers from ``start`` on, on the device of ``like``."""
    return torch.arange(start, start + count, device=like.device)


def positions(values: Sequence[int], like: Tensor) -> Tensor:
    """Positions to take or to fill, on the device of ``like``."""
    return torch.tensor(list(values), dtype=torch.int64, device=like.device)


def signs(like: Tensor) -> Tensor:
    """A fixed direction of +-1 without a pattern that a loss may share: the signs of sin(k^2)."""
    # On the CPU: elsewhere the sine of 10^6 may be another.
    places = torch.arange(1, like.numel() + 1, dtype=torch.float64)
    return places.square().sin().sign().reshape(like.shape).to(like.device)


def scattered(like: Tensor) -> Tensor:
    """The positions of all elements in a fixed order without a pattern, flat: the fractions of multiples of the golden ratio."""
    places = torch.arange(like.numel(), dtype=torch.float64).add(1).mul(0.6180339887498949)
    return places.frac().argsort().to(like.device)


def normal(like: Tensor, generator: Generator, dtype: torch.dtype | None = None) -> Tensor:
    """Normal numbers in the shape, dtype and device of ``like``; drawn in ``dtype``, the default one where ``None``."""
    return torch.randn(like.shape, generator=generator, dtype=dtype).to(like)


def directions(like: Tensor, generator: Generator) -> Tensor:
    """A random direction of +-1 in the shape, dtype and device of ``like``."""
    return (2.0 * torch.randint(2, like.shape, generator=generator) - 1).to(like)


def on_the_cpu(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """What a function of a domain, which may make tensors on the CPU, gives for ``values``, with their dtype and device."""
    return function(values.cpu()).to(values)


def received(text: str | None, like: Tensor) -> Tensor:
    """Numbers that another process sent as the bytes of float64, in the shape and on the device of ``like``; zeros for ``None``."""
    if text is None:
        return torch.zeros(like.shape, dtype=torch.float64, device=like.device)
    values = torch.frombuffer(bytearray.fromhex(text), dtype=torch.float64)
    return values.reshape(like.shape).to(like.device)
