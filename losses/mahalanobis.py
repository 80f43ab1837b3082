"""Half the squared Mahalanobis distance between vectors, with one precision matrix for all of them.

    L = 1/n Σ_b ½ (x_b - μ_b)ᵀ P (x_b - μ_b),     n = number of vectors

Shapes: vectors x and means μ ``*batch D`` with any number of leading axes, precision P ``D D``, positive definite.
Only the symmetric part (P + Pᵀ) / 2 has an effect.  Up to a constant L is the negative log-likelihood of a normal
distribution with means μ and covariance P⁻¹.  The mean of no vectors is 0.

Source: Mahalanobis, On the generalised distance in statistics, Proceedings of the National Institute of Sciences of India 2,
1936; as the exponent of the normal distribution, Bishop, Pattern Recognition and Machine Learning, section 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from harness import domains, laws
from harness.declare.annotations import Context
from harness.declare.declared import ErrorInput
from harness.declare.dims import Size, shape
from harness.declare.spec import LossSpec

from ._checks import check_floating, check_reduction, check_tensor, check_values
from ._half_forms import half_quadratic_forms, half_squares
from ._precision import full_precision
from ._reduction import SAMPLE_REDUCTIONS, SampleReduction, naive_reduce, nothing_of, reduce_samples


def precisions(shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
    """Positive definite matrices with a condition number of some ten."""
    factor = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (torch.eye(shape[-1], dtype=torch.float64) + factor @ factor.mT / (2 * max(shape[-1], 1))).to(dtype)


def identity(shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
    """The Euclidean distance."""
    del generator
    return torch.eye(shape[-1], dtype=dtype).expand(shape).clone()


def mixed_scales(shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
    """Independent features of which every other one is known a million times better."""
    return identity(shape, generator, dtype) * torch.logspace(0, 1, 2, 1e6, dtype=dtype).repeat(shape[-1])[: shape[-1]]


def naive_mahalanobis(
    vectors: Float[Tensor, "*batch D"],
    means: Float[Tensor, "*batch D"],
    precision: Annotated[Float[Tensor, "D D"], Context, domains.custom(precisions, special=(identity, mixed_scales))],
    reduction: SampleReduction = "mean",
) -> Float[Tensor, ""]:
    """The formula of this module as loops, in float64, so that the order of the sum does not show in lower precision."""
    check_reduction(reduction, SAMPLE_REDUCTIONS)
    _check_square("precision", precision)
    _check_call(vectors, means, precision)
    p = precision.detach().double()
    halves = []
    for x, mean in zip(vectors.double().reshape(-1, len(p)), means.double().reshape(-1, len(p)), strict=True):
        difference = x - mean
        half = nothing_of(vectors)
        for i, row in enumerate(p):
            half = half + difference[i] * (row @ difference) / 2
        halves.append(half)
    return naive_reduce(halves, [1.0] * len(halves), vectors[..., 0], reduction)


class MahalanobisLoss(nn.Module):
    """The same number as `naive_mahalanobis`, as half the square of a whitened difference.

    No value is negative, and of an ill-conditioned matrix a value keeps as many digits as the square root of the condition
    number leaves, where ½ dᵀ (P d) keeps as many as the condition number does.

    Args:
        precision: ``D D``, positive definite.
        covariance: its inverse, instead of it; no matrix but a triangular one is then inverted.
        reduction: ``"mean"`` over the vectors, ``"sum"``, or ``"none"`` for one number for each of them.

    Raises:
        TypeError: a matrix that is not a tensor.
        ValueError: an unknown reduction, not exactly one matrix, or one that is not square, not finite or not positive
            definite.  A factor that is loaded or written into the buffer later is not looked at.
    """

    factor: Tensor

    def __init__(
        self, precision: Tensor | None = None, *, covariance: Tensor | None = None, reduction: SampleReduction = "mean"
    ) -> None:
        super().__init__()
        check_reduction(reduction, SAMPLE_REDUCTIONS)
        if (precision is None) == (covariance is None):
            raise ValueError("MahalanobisLoss needs one matrix: either precision or covariance")
        self.reduction = reduction
        if precision is not None:
            factor = _cholesky("precision", precision)
        else:
            assert covariance is not None
            lower = _cholesky("covariance", covariance)
            unit = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
            factor = torch.linalg.solve_triangular(lower, unit, upper=False).mT.contiguous()
        given = precision if precision is not None else covariance
        assert given is not None
        self.register_buffer("factor", factor.to(given.dtype if given.is_floating_point() else torch.float32))

    def forward(self, vectors: Float[Tensor, "*batch D"], means: Float[Tensor, "*batch D"]) -> Float[Tensor, ""]:
        """The loss, in the vectors' dtype.

        Args:
            vectors: ``*batch D``.
            means: ``*batch D``; no axis is broadcast.

        Raises:
            ValueError: shapes that do not belong together; the message names both.
            TypeError: vectors that are not floating, or means that are not a tensor.
        """
        _check_call(vectors, means, self.factor)
        # With P = W Wᵀ, dᵀ P d = |dᵀ W|²: one product for all vectors and a matrix that is never repeated for each.
        with full_precision(vectors.device):
            whitened = (vectors - means.to(vectors.dtype)) @ self.factor.to(vectors.dtype)
            return reduce_samples(half_squares(whitened), self.reduction)

    def extra_repr(self) -> str:
        """Shape and reduction, for printing."""
        return f"precision={list(self.factor.shape)}, reduction={self.reduction!r}"


class MahalanobisProductLoss(nn.Module):
    """The same number as `naive_mahalanobis`, as ½ dᵀ (P d), whose product P d is the gradient too.

    One matrix product for value and gradient, where `MahalanobisLoss` has two; for well-conditioned matrices.  A precision
    that is only semidefinite, with features that count nothing, is allowed.

    Args:
        precision: ``D D``, positive semidefinite, which is not checked.
        reduction: ``"mean"`` over the vectors, ``"sum"``, or ``"none"`` for one number for each of them.

    Raises:
        TypeError: a precision that is not a tensor.
        ValueError: an unknown reduction, or a precision that is not square or not finite.  A precision that is loaded or
            written into the buffer later is not looked at.
    """

    precision: Tensor

    def __init__(self, precision: Tensor, reduction: SampleReduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction, SAMPLE_REDUCTIONS)
        _check_square("precision", precision)
        check_values("precision", precision)
        self.reduction = reduction
        floating = precision.detach() if precision.is_floating_point() else precision.float()
        self.register_buffer("precision", (floating + floating.mT) / 2)

    def forward(self, vectors: Float[Tensor, "*batch D"], means: Float[Tensor, "*batch D"]) -> Float[Tensor, ""]:
        """The loss, in the vectors' dtype; arguments and errors are those of `MahalanobisLoss`."""
        _check_call(vectors, means, self.precision)
        with full_precision(vectors.device):
            difference = vectors - means.to(vectors.dtype)
            return reduce_samples(half_quadratic_forms(difference, self.precision.to(vectors.dtype)), self.reduction)

    def extra_repr(self) -> str:
        """Shape and reduction, for printing."""
        return f"precision={list(self.precision.shape)}, reduction={self.reduction!r}"


def bilinear(vectors: Tensor, means: Tensor, precision: Tensor, reduction: SampleReduction = "mean") -> Tensor:
    """The usual way: the product (x - μ) P, multiplied by x - μ and summed.

    Beside what is usual it refuses shapes that do not belong together, since means of one vector would be broadcast.
    """
    check_reduction(reduction, SAMPLE_REDUCTIONS)
    _check_square("precision", precision)
    _check_call(vectors, means, precision)
    difference = vectors - means
    return reduce_samples((difference @ precision.to(vectors.dtype) * difference).sum(-1) / 2, reduction)


def _cholesky(name: str, matrix: Tensor) -> Tensor:
    """The lower triangular L of matrix = L Lᵀ, in float64.

    Raises:
        ValueError: the matrix is not square, not finite or not positive definite.
    """
    _check_square(name, matrix)
    check_values(name, matrix)
    wide = matrix.detach().double()
    try:
        factor: Tensor = torch.linalg.cholesky((wide + wide.mT) / 2)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise ValueError(
            f"{name} is not positive definite: {error}; add a small multiple of the identity, or shrink it towards its diagonal"
        ) from error
    return factor


def _check_square(name: str, matrix: Tensor) -> None:
    check_tensor(name, matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} has shape {list(matrix.shape)}, expected square, [D, D]")


def _check_call(vectors: Tensor, means: Tensor, precision: Tensor) -> None:
    check_floating("vectors", vectors)
    check_tensor("means", means)
    if means.shape != vectors.shape:
        raise ValueError(
            f"means has shape {list(means.shape)}, but vectors has shape {list(vectors.shape)}; "
            f"nothing is broadcast, so expand means on purpose"
        )
    if vectors.ndim == 0 or vectors.shape[-1] != precision.shape[0]:
        raise ValueError(
            f"vectors has shape {list(vectors.shape)}, but precision has shape {list(precision.shape)}, and the last axis of "
            f"vectors should be its features"
        )


def least_bytes(sizes: Mapping[str, Size], dtype: torch.dtype) -> int:
    """Vectors, means and precision are read once each."""
    read = {"vectors": "*batch D", "means": "*batch D", "precision": "D D"}
    return dtype.itemsize * sum(math.prod(shape(dims, sizes)) for dims in read.values())


SPEC = LossSpec(
    name="mahalanobis",
    implementations={
        "naive": naive_mahalanobis,
        "vectorized": MahalanobisLoss,
        "product": MahalanobisProductLoss,
        "bilinear": bilinear,
    },
    laws=(
        laws.permutation("D"),
        laws.symmetric("vectors", "means"),
        laws.translation_invariant("vectors", "means"),
        laws.nonnegative(),
        laws.zero_when_equal("vectors", "means"),
    ),
    bench_sizes=({"batch": (16,), "D": 4}, {"batch": (16384,), "D": 64}, {"batch": (4096,), "D": 256}),
    bytes_bound=least_bytes,
    error_inputs=(
        ErrorInput(
            "means with a unit axis",
            lambda t: {"means": t["means"].unsqueeze(0)},
            match="means has shape .* vectors has shape",
        ),
        ErrorInput(
            "precision that is not square",
            lambda t: {"precision": torch.cat([t["precision"], t["precision"]])},
            match="precision has shape .* square",
        ),
    ),
)
