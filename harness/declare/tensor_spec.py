"""`TensorSpec`: one tensor of a loss, held to what can be understood; every refusal shows the line to write."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from harness.declare import dims, domains
from harness.declare.domains import Domain
from harness.errors import DeclarationError, nearest, shown

ROLES = ("mask", "weight", "label", "index", "table", "data")


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a loss: its dims, the values it may take and, where it does not follow the case, its dtype.

    Args:
        dims: jaxtyping's grammar, such as ``"B C"``, ``"*batch H W"``, ``"#C"``, ``"N-1"``; ``""`` is a scalar.
        domain: the values, from `harness.domains`.
        dtype: a fixed dtype; ``None`` follows the domain and the case.
        optional: the loss also takes ``None`` instead, which some cases give it.
        number: the loss is given a Python number; `scalar` declares one.
        jagged: the loss is given a nested tensor of layout `torch.jagged`, of so many rows as this size: along the first axis the
            rows stand one after another, none of them empty.  Tensors with the same first axis have rows of the same lengths.
        role: what the values are for: ``mask`` or ``weight``, whose zeros remove; ``label``, ``index`` of positions, ``table``
            that is looked up, or ``data``.  Inferred where it is ``None``.

    Raises:
        DeclarationError: the dims are not in the grammar, or contradict the domain or the dtype.
    """

    dims: str
    domain: Domain = field(default_factory=domains.real)
    dtype: torch.dtype | None = None
    optional: bool = False
    number: bool = False
    role: str | None = None
    jagged: str | None = None

    def __post_init__(self) -> None:
        _check(self)
        if self.role is not None:
            removes = self.role in ("mask", "weight")
            object.__setattr__(self, "domain", replace(self.domain, removes=removes))
        object.__setattr__(self, "dims", " ".join(self.dims.split()))

    @property
    def is_floating(self) -> bool:
        """Whether the values are real numbers, in a dtype that holds them."""
        return self.domain.differentiable and (self.dtype is None or self.dtype.is_floating_point)

    @property
    def differentiable(self) -> bool:
        """Whether a gradient with respect to the tensor has a meaning."""
        return self.is_floating and not self.number

    def __repr__(self) -> str:
        optional = ", optional=True" if self.optional else ""
        if self.number:
            return f"scalar(domains.{self.domain!r}{optional})"
        dtype = f", dtype={self.dtype}" if self.dtype is not None else ""
        role = f", role={self.role!r}" if self.role is not None else ""
        jagged = f", jagged={self.jagged!r}" if self.jagged is not None else ""
        return f"TensorSpec({self.dims!r}, domains.{self.domain!r}{dtype}{optional}{role}{jagged})"


def scalar(domain: Domain, *, optional: bool = False) -> TensorSpec:
    """A Python number that is drawn, such as a margin or a temperature; a constant is an option instead.

    Args:
        domain: its values: an ``int`` of an integer domain, a ``bool`` of a boolean one, else a ``float``.
        optional: the loss also takes ``None``.

    Raises:
        DeclarationError: no domain, or one that ties several numbers together.
    """
    return TensorSpec("", domain, optional=optional, number=True)


def _check(tensor: TensorSpec) -> None:
    if not isinstance(tensor.dims, str):
        raise DeclarationError(f"TensorSpec(dims={shown(tensor.dims)}): dims is a string such as 'B C'")
    if not isinstance(tensor.domain, Domain):
        raise DeclarationError(
            f"TensorSpec({tensor.dims!r}, domain={shown(tensor.domain)}): needs a harness.domains value, e.g. domains.real()"
        )
    parsed = dims.parse(tensor.dims)
    domain, dtype = tensor.domain, tensor.dtype
    here = f"TensorSpec({tensor.dims!r}, domains.{domain!r}"
    if domain.form in ("csr", "bsr") and len(parsed) != 2:
        raise DeclarationError(
            f'{here}): got {len(parsed)} axes, expected a matrix, such as TensorSpec("N M", domains.{domain!r})'
        )
    if tensor.role is not None and tensor.role not in ROLES:
        raise DeclarationError(
            f"TensorSpec({tensor.dims!r}, role={shown(tensor.role)}): expected one of {list(ROLES)}{nearest(tensor.role, ROLES)}"
        )
    if tensor.role in ("mask", "weight") and (domain.low < 0 or domain.kind == "integer"):
        raise DeclarationError(
            f"{here}, role={tensor.role!r}): got values that no {tensor.role} has, expected such as "
            f'TensorSpec({tensor.dims!r}, domains.nonnegative(), role="{tensor.role}")'
        )
    if tensor.number and (domain.structured or domain.axis is not None):
        raise DeclarationError(
            f"scalar(domains.{domain!r}): got values that are tied together, expected single numbers, "
            f"such as scalar(domains.positive())"
        )
    fixed_rank = not any(dim.variadic for dim in parsed)
    if domain.axis is not None and fixed_rank and not -len(parsed) <= domain.axis < len(parsed):
        raise DeclarationError(f"{here}): dims {tensor.dims!r} have no axis {domain.axis}; the last axis is axis=-1")
    if domain.extent is not None and [dim.size for dim in parsed[-1:]] != [domain.extent]:
        raise DeclarationError(
            f"{here}): got the last axis {tensor.dims.split()[-1:]}, expected {domain.extent}, such as "
            f'TensorSpec("N {domain.extent}", domains.{domain!r})'
        )
    if domain.is_distinct and (not parsed or parsed[-1].variadic):
        raise DeclarationError(
            f"{here}): expected a last axis along which no value comes twice, such as "
            f'TensorSpec("K", domains.{domain!r})'
        )
    if domain.square and [dim.token for dim in parsed[-2:-1]] != [dim.token for dim in parsed[-1:]]:
        raise DeclarationError(
            f'{here}): its last two axes should be one size; write\n    TensorSpec("N N", domains.{domain!r})'
        )
    if tensor.jagged is not None:
        _check_jagged(tensor, parsed)
    if dtype is not None:
        _check_dtype(tensor.dims, domain, dtype)


def _check_jagged(tensor: TensorSpec, parsed: tuple[dims.Dim, ...]) -> None:
    here = f"TensorSpec({tensor.dims!r}, domains.{tensor.domain!r}, jagged={shown(tensor.jagged)})"
    if not isinstance(tensor.jagged, str) or not tensor.jagged.isidentifier():
        raise DeclarationError(f"{here}: expected the size that counts the rows, such as TensorSpec('N D', jagged='B')")
    if not parsed or parsed[0].symbol is None or parsed[0].variadic or parsed[0].symbol == tensor.jagged:
        raise DeclarationError(
            f"{here}: expected a first axis of a size of its own, along which the rows stand one after another, such as "
            f"TensorSpec('N D', jagged={tensor.jagged!r})"
        )
    if tensor.domain.form or tensor.optional or tensor.number:
        raise DeclarationError(
            f"{here}: expected a dense real tensor that is always given, such as TensorSpec('N D', jagged='B')"
        )


def _check_dtype(dims_text: str, domain: Domain, dtype: Any) -> None:
    here = f"TensorSpec({dims_text!r}, domains.{domain!r}, dtype={shown(dtype)})"
    if isinstance(dtype, torch.dtype) and dtype.is_complex:
        raise DeclarationError(
            f"{here}: expected no dtype; complex numbers are TensorSpec({dims_text!r}, domains.complex_())"
        )
    if not isinstance(dtype, torch.dtype):
        raise DeclarationError(f"{here}: needs a real torch dtype, such as dtype=torch.float32, or None")
    if dtype.is_floating_point or domain.make is not None:
        return
    if not domain.whole:
        raise DeclarationError(
            f"{here}: {dtype} cannot hold fractions; write domains.index('C'), domains.boolean() or domains.binary(), "
            f"or a floating dtype"
        )
    unsigned = dtype == torch.bool or not dtype.is_signed
    least = min(domain.low, domain.ignore or 0) if domain.low != float("-inf") else domain.ignore or 0
    if (unsigned and least < 0) or (dtype == torch.bool and domain.symbol is not None):
        raise DeclarationError(f"{here}: {dtype} cannot hold every value of the domain; write dtype=torch.int64")
