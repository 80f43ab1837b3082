"""The sizes that the losses are timed at: the first lets the loops be measured, and a variant has few."""

from __future__ import annotations

import pytest
from loss_examples import draw, gradient
from torch.utils._python_dispatch import TorchDispatchMode

from losses import SPECS

# The grid losses are left to their own module: their loops cost three operations an element, at any size.
MOST_OPERATIONS = 20_000  # at some 3 µs each, what a repeated measurement can still wait for


class Counted(TorchDispatchMode):
    """Counts the operations that reach a backend, those of the backward pass too."""

    def __init__(self):
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_the_loops_can_be_timed_at_the_first_size(spec):
    tensors = draw(spec, **spec.bench_sizes[0])
    with Counted() as counted:
        gradient(spec, "naive", tensors)
    assert 0 < counted.operations <= MOST_OPERATIONS


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_variant_of_a_loss_is_timed_at_two_sizes_at_most(spec):
    is_variant = any(spec.name.startswith(f"{other.name}_") for other in SPECS)
    assert len(spec.bench_sizes) <= (2 if is_variant else 3)
