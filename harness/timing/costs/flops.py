"""Floating-point operations of ATen calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from harness.calls.aten.calls import Call, addressed
from harness.private_names import indices_and_values

# One for each element of what they are given.  The names are stable; the tag for them is younger than the oldest torch here.
_REDUCTIONS = frozenset({
    "all", "amax", "amin", "aminmax", "any", "argmax", "argmin", "count_nonzero", "linalg_vector_norm", "logsumexp", "max",
    "mean", "min", "nansum", "norm", "prod", "std", "std_mean", "sum", "var", "var_mean",
})  # fmt: skip
# Move data, or fill memory, and compute nothing.
_COPIES = frozenset({
    "_local_scalar_dense", "_to_copy", "_to_dense", "_to_sparse", "arange", "bernoulli_", "cat", "clone", "col2im",
    "constant_pad_nd", "copy_", "diagonal_backward", "diagonal_copy", "embedding", "exponential_", "eye", "fill", "fill_",
    "flip", "full", "gather", "im2col", "index", "index_copy_", "index_fill_", "index_select", "linspace", "masked_select",
    "nonzero", "normal_", "ones", "rand", "randint", "randn", "randperm", "random_", "repeat", "roll", "scalar_tensor",
    "scatter", "scatter_", "select_backward", "slice_backward", "slice_scatter", "stack", "take", "tril", "triu", "unfold_backward",
    "uniform_", "zero_", "zeros",
})  # fmt: skip
_ADD_BY_INDEX = frozenset({"index_add_", "scatter_add_", "index_put_", "_index_put_impl_"})


def flops(call: Call, func: Any) -> tuple[int, int] | None:
    """Operations of one call and, of these, those of products; ``None`` where no formula is known.

        products       2 for each multiplication that is added up: 2 m k n for [m, k] @ [k, n], 2 nnz n for a sparse left side
        elementwise    1 for each element of the result, whatever the function: an exponential counts like a sum
        reductions     1 for each element that goes in
        by index       1 for each element that is added in place
        copies, fills, look-ups: 0

    The formulas of convolutions and attention are those of `torch.utils.flop_counter`.  Comparisons, integers and booleans
    count like floating-point numbers.
    """
    kernel = call.kernel
    product = _PRODUCTS.get(kernel.name)
    if product is not None:
        found = product(*call.positional)
        return found, found
    if kernel.name in _COPIES or kernel.name.startswith(("empty", "new_")) or kernel.name.endswith("_like"):
        return 0, 0
    if kernel.pointwise:
        return max((result.part.numel() for result in call.results), default=0), 0
    if kernel.name in _REDUCTIONS and call.positional:
        return int(call.positional[0].numel()), 0
    if kernel.name in _ADD_BY_INDEX:
        return addressed(kernel.name, call.positional, call.returned) or 0, 0
    from torch.utils.flop_counter import flop_registry  # where triton is installed this loads it, which takes a while

    formula = flop_registry.get(func.overloadpacket)
    if formula is None:
        return None
    found = int(formula(*call.positional, **call.keyword, out_val=call.returned))
    return found, found


def _matrices(left: Tensor, right: Tensor) -> int:
    """[..., m, k] @ [..., k, n] or [k]; a sparse matrix counts by its stored elements."""
    if left.layout != torch.strided:
        return 2 * _stored(left) * _columns(right)
    if right.layout != torch.strided:
        return 2 * _stored(right) * math.prod(left.shape[:-1])
    return 2 * left.numel() * _columns(right)


def _columns(right: Tensor) -> int:
    return right.shape[-1] if right.ndim > 1 else 1


def _stored(sparse: Tensor) -> int:
    return (indices_and_values(sparse)[1] if sparse.layout == torch.sparse_coo else sparse.values()).numel()


_PRODUCTS: Mapping[str, Callable[..., int]] = {
    **dict.fromkeys(("mm", "bmm", "mv", "_sparse_mm"), _matrices),
    **dict.fromkeys(
        ("addmm", "addmm_", "baddbmm", "baddbmm_", "addmv", "addmv_", "_sparse_addmm"),
        lambda _, left, right, *__: _matrices(left, right),
    ),
    **dict.fromkeys(("dot", "vdot"), lambda left, right: 2 * left.numel()),
    "sparse_sampled_addmm": lambda sampling, left, *_: 2 * _stored(sampling) * left.shape[-1],
}
