"""A weighted squared error in few passes over memory, with derivatives of every order.

    S = Σ_k w_k d_k²,    ∂S/∂p = 2 w d = -∂S/∂y,    d = p - y

Weights are broadcast against the predictions by axes of size one, and never expanded.  An element whose weight is zero is
removed: neither the value nor a derivative depends on it, whatever it holds.

Autograd would make and keep a tensor for each step.  Here the total keeps nothing but its inputs, and both passes work in
place in one tensor: forward in the errors, backward in the gradient.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from ._reduction import Reduction, normalize

# Elements.  Below, the Python of a Function, some 20 µs, takes longer than what it spares.
IN_PLACE_FROM = 2**17


def weighted_squared_error(
    predictions: Tensor, labels: Tensor, weights: Tensor, reduction: Reduction, *, zeros: bool = True
) -> Tensor:
    """The reduced weighted squared error, in the predictions' dtype.

    Args:
        predictions: any shape.
        labels: the same shape, any real dtype.
        weights: an axis of size one, or none, where all positions along a predictions' axis share their weight.
        reduction: see `losses._reduction`.
        zeros: whether a weight may be zero in the predictions' dtype.
    """
    labels, weights = labels.to(predictions.dtype), weights.to(predictions.dtype)
    # A compiler fuses the formula by itself, and only the formula has a derivative for weights that are trained.
    plain = torch.compiler.is_compiling() or weights.requires_grad or predictions.numel() < IN_PLACE_FROM
    if reduction == "none":
        total = _errors(predictions, labels, weights, zeros)
    elif plain:
        total = _total(predictions, labels, weights, zeros)
    else:
        total = _Total.apply(predictions, labels, weights, zeros)
    return normalize(total, weights, predictions.numel(), reduction).to(predictions.dtype)


def elementwise(predictions: Tensor, labels: Tensor, weights: Tensor, reduction: Reduction) -> Tensor:
    """The same the usual way: torch's errors of all elements, times the weights, and then reduced; nothing is removed."""
    weights = weights.to(predictions.dtype)
    errors = functional.mse_loss(predictions, labels.to(predictions.dtype), reduction="none") * weights
    if reduction == "none":
        return errors
    if reduction == "mean" and errors.numel():
        return errors.mean()
    return normalize(errors.sum(), weights, errors.numel(), reduction)


def removed(values: Tensor, weights: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The values, and zero where the weight is zero: 0 * NaN and 0 * inf would stay in the loss and the gradient."""
    if torch.compiler.is_compiling():
        return values.masked_fill(weights == 0, 0)
    # The same selection, by the kernel of the derivative of hardshrink: it neither branches nor makes a Boolean tensor.
    # On the CPU where() and masked_fill() branch per element, and take 30 times as long over a mask of no pattern.
    select = torch.ops.aten.hardshrink_backward
    kept: Tensor = select(values, weights, 0) if out is None else select(values, weights, 0, grad_input=out)
    return kept


def _wide(dtype: torch.dtype) -> torch.dtype:
    """A sum in float16 ends at 65504, a mean does not."""
    return torch.promote_types(dtype, torch.float32)


# The formulas, for torch to differentiate, batch and compile.


def _difference(predictions: Tensor, labels: Tensor, weights: Tensor, zeros: bool) -> Tensor:
    difference = predictions - labels
    return removed(difference, weights) if zeros else difference


def _errors(predictions: Tensor, labels: Tensor, weights: Tensor, zeros: bool) -> Tensor:
    wide = _wide(predictions.dtype)
    if not zeros and wide == predictions.dtype:
        return weights * functional.mse_loss(predictions, labels, reduction="none")
    return weights * _difference(predictions, labels, weights, zeros).to(wide).square()


def _total(predictions: Tensor, labels: Tensor, weights: Tensor, zeros: bool) -> Tensor:
    return _errors(predictions, labels, weights, zeros).sum()


def _slope(predictions: Tensor, labels: Tensor, weights: Tensor, zeros: bool, of_total: Tensor) -> Tensor:
    difference = _difference(predictions, labels, weights, zeros)
    return (2 * of_total * weights * difference).to(difference.dtype)


# The same in place, and the difference and its product with the weights in one pass, by a kernel of torch's own mean squared
# error.  The arguments stand in the order of `Function.apply`.

_TWICE_WEIGHTED_DIFFERENCE = torch.ops.aten.mse_loss_backward.grad_input


class _Total(Function):
    """S, at least in float32."""

    @staticmethod
    def forward(predictions: Tensor, labels: Tensor, weights: Tensor, zeros: bool) -> Tensor:
        wide = _wide(predictions.dtype)
        if wide == predictions.dtype:
            squares = functional.mse_loss(predictions, labels, reduction="none")
        else:
            squares = (predictions - labels).to(wide).square_()
        if zeros:
            removed(squares, weights.to(wide), out=squares)
        # Not a dot product: that of a BLAS adds in sequence and is wrong by 1e-3 over 2^26 elements of float32.
        return squares.mul_(weights).sum()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.save_for_forward(*inputs[:3])
        ctx.zeros = inputs[3]

    @staticmethod
    def backward(ctx: Any, of_total: Tensor) -> tuple[Tensor | None, ...]:
        # Only where a graph is built will the slope be differentiated too.
        inputs = *ctx.saved_tensors, ctx.zeros, of_total
        slope = _Slope.apply(*inputs) if torch.is_grad_enabled() else _Slope.forward(*inputs)
        return slope, -slope if ctx.needs_input_grad[1] else None, None, None

    @staticmethod
    def jvp(ctx: Any, of_predictions: Tensor, of_labels: Tensor, of_weights: Tensor, _: None) -> Tensor:
        predictions, labels, weights = ctx.saved_tensors
        difference = removed(predictions - labels, weights).to(_wide(predictions.dtype))
        bent: Tensor = difference * (2 * weights * (of_predictions - of_labels) + of_weights * difference)
        return bent.sum()

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        return torch.vmap(_total, in_dims)(*inputs), 0


# `apply` asks for the signature of `forward` in every call; one that is given spares a quarter of what the call takes.
_Total.forward.__signature__ = inspect.signature(_Total.forward)  # type: ignore[attr-defined]


def _slope_in_place(predictions: Tensor, labels: Tensor, weights: Tensor, zeros: bool, of_total: Tensor) -> Tensor:
    # Weights that many elements share take the factor up before they meet them.  In float16 it may be too small for that.
    early = weights.numel() < predictions.numel() and _wide(weights.dtype) == weights.dtype
    given = weights * of_total.to(weights.dtype) if early else weights
    slope = torch.empty_like(predictions)  # without ``grad_input`` the kernel would fill one with zeros first
    _TWICE_WEIGHTED_DIFFERENCE(given, predictions, labels, 0, grad_input=slope)
    if zeros:
        removed(slope, weights, out=slope)
    return slope if early else slope.mul_(of_total)


class _Slope(Function):
    """2 w d times the derivative that reaches the total."""

    @staticmethod
    def forward(predictions: Tensor, labels: Tensor, weights: Tensor, zeros: bool, of_total: Tensor) -> Tensor:
        try:
            return _slope_in_place(predictions, labels, weights, zeros, of_total)
        except RuntimeError:  # many derivatives at once (is_grads_batched) do not fit where there is place for one
            return _slope(predictions, labels, weights, zeros, of_total)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        tensors = *inputs[:3], inputs[4]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, of_slope: Tensor) -> tuple[Tensor | None, ...]:
        predictions, labels, weights, of_total = ctx.saved_tensors
        bent = (2 * of_total * weights * of_slope).to(of_slope.dtype)
        of_of_total = None
        if ctx.needs_input_grad[4]:
            flat = 2 * weights * removed(predictions - labels, weights)
            of_of_total = (of_slope * flat).to(of_total.dtype).sum()
        return bent, -bent if ctx.needs_input_grad[1] else None, None, None, of_of_total

    @staticmethod
    def jvp(
        ctx: Any, of_predictions: Tensor, of_labels: Tensor, of_weights: Tensor, _: None, of_of_total: Tensor
    ) -> Tensor:
        predictions, labels, weights, of_total = ctx.saved_tensors
        difference = removed(predictions - labels, weights)
        of_difference = weights * (of_predictions - of_labels) + of_weights * difference
        bent: Tensor = 2 * of_total * of_difference + 2 * of_of_total * weights * difference
        return bent.to(difference.dtype)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        return torch.vmap(_slope, in_dims)(*inputs), 0
