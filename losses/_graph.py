"""A constant square matrix M, such as an adjacency or a Laplacian, prepared once for many products M x.

    y_i = Σ_j M_ij x_j          M ``N N``, x ``N D``, y ``N D``

Two formats.  ``dense`` keeps all of M and multiplies by BLAS.  ``csr`` keeps the entries of one row after another and adds
up rows of x with `torch.embedding_bag`: no tensor has one row for each entry, it runs in every floating dtype, and, unlike
torch's sparse tensors, its parts are moved, copied, saved, compiled and traced like those of any module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ._checks import check_floating, check_index, check_tensor
from ._products import Matrix, Rows, multiply

Format = Literal["auto", "dense", "csr"]

# An entry of csr costs as much as 1.7 cells of dense: value and gradient take csr / dense = 0.04, 0.13, 0.4, 0.8 to 1.0 and
# 1.1 to 1.6 of the time at densities of 1, 10, 30, 50 and 70 % (N = 2048 and 4096, D = 16 and 64, float32, one thread).
DENSE_ABOVE = 0.55

# A place in the lists of a batch costs as much as 2.5 entries or rows of the whole graph: lists and spreading the batch over
# all nodes take the same time where B K is 0.35 to 0.9 of E + N (N = 4096 and 65536, 8 and 64 neighbours, likewise).
LISTED_SHARE = 0.4

ENTRIES = ("offsets", "indices", "values")
TRANSPOSED = tuple(f"transposed_{name}" for name in ENTRIES)
BUFFERS = ("matrix", *ENTRIES, *TRANSPOSED)


class GraphMatrix(nn.Module):
    """A constant N x N matrix M that multiplies from the left, differentiable in x to any order and in every mode.

    Args:
        matrix: M as ``N N``, dense or sparse, of any dtype.  As csr, zeros are dropped, and values that are all one too.
        format: ``"dense"``, ``"csr"`` or ``"auto"``, which is csr up to a density of `DENSE_ABOVE`, and dense where values
            cannot be read (meta and fake tensors).

    Attributes:
        format: ``"dense"`` or ``"csr"``, whichever was chosen.
        size: N.
        widest: the most entries in a row or column of a csr matrix.

    Raises:
        ValueError: a matrix that is not square, an unknown format, or csr of a matrix on meta.
    """

    matrix: Tensor | None
    offsets: Tensor | None
    indices: Tensor | None
    values: Tensor | None
    transposed_offsets: Tensor | None
    transposed_indices: Tensor | None
    transposed_values: Tensor | None

    def __init__(self, matrix: Tensor, format: Format = "auto") -> None:
        super().__init__()
        check_format(format)
        check_square("matrix", matrix)
        self.size = matrix.shape[0]
        self.widest = 0
        for name in BUFFERS:
            self.register_buffer(name, None)
        matrix = matrix.detach()
        if format == "csr" and matrix.is_meta:
            raise ValueError(
                "format='csr' needs values, which a matrix on meta has not; write format='auto' or 'dense'"
            )
        dense = format == "dense" or (format == "auto" and not _readable(matrix))
        entries = None if dense else _entries(matrix)
        if entries is None or (format == "auto" and entries.values().numel() > DENSE_ABOVE * self.size**2):
            self.matrix = _floating(matrix if matrix.layout == torch.strided else matrix.to_dense())
        else:
            self._set_rows(entries)

    def _set_rows(self, entries: Tensor) -> None:
        rows, transposed = _compressed(entries), _compressed(entries.t().coalesce())
        given = dict(zip(ENTRIES, rows, strict=True))
        if not _same(rows, transposed):
            given |= dict(zip(TRANSPOSED, transposed, strict=True))
        for name, part in given.items():
            setattr(self, name, part)
        self._measure()

    def _measure(self) -> None:
        offsets = [part for part in (self.offsets, self.transposed_offsets) if part is not None]
        if self.size > 0 and all(_readable(part.detach()) for part in offsets):
            self.widest = max((int(part.diff().max()) for part in offsets), default=0)

    @property
    def format(self) -> Literal["dense", "csr"]:
        """``"dense"`` or ``"csr"``, whichever was chosen."""
        return "csr" if self.matrix is None else "dense"

    @property
    def entries(self) -> int | None:
        """How many entries a csr matrix holds."""
        return None if self.indices is None else self.indices.numel()

    @property
    def data(self) -> Matrix:
        """What the functions of `losses._products` multiply with."""
        if self.matrix is not None:
            return self.matrix
        assert self.offsets is not None
        assert self.indices is not None
        rows = Rows(self.offsets, self.indices, self.values)
        if self.transposed_offsets is None or self.transposed_indices is None:
            return rows, None
        return rows, Rows(self.transposed_offsets, self.transposed_indices, self.transposed_values)

    def forward(self, x: Tensor) -> Tensor:
        """M x as ``N D``, in the dtype of x."""
        return multiply(x, self.data)

    def among(self, x: Tensor, nodes: Tensor) -> Tensor:
        """M[nodes][:, nodes] x as ``B D``, of x ``B D`` and nodes ``B``, which may repeat.

        Raises:
            IndexError, RuntimeError: a node outside [0, N); torch chooses which.
        """
        batch, data = nodes.shape[0], self.data
        if isinstance(data, Tensor):
            if batch <= self.size:
                return multiply(x, data.index_select(0, nodes).index_select(1, nodes))
        elif batch * self.widest <= LISTED_SHARE * (data[0].indices.numel() + self.size):
            return _among_lists(x, nodes, self.size, data, self.widest)
        spread = x.new_zeros(self.size, x.shape[1]).index_add(0, nodes, x)
        return multiply(spread, data).index_select(0, nodes)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        # Another matrix of this size has other entries, so that its buffers have other shapes or none at all.
        given = {name: state_dict[prefix + name] for name in BUFFERS if prefix + name in state_dict}
        sizes = {"matrix": lambda part: part.shape[0], "offsets": lambda part: part.numel() - 1}
        if any(sizes[name](part) == self.size for name, part in given.items() if name in sizes):
            device = next(self.buffers()).device
            dtypes = {part.is_floating_point(): part.dtype for part in self.buffers()}
            for name in BUFFERS:
                self._buffers[name] = None
            for name, part in given.items():
                dtype = dtypes.get(True, part.dtype) if part.is_floating_point() else part.dtype
                self._buffers[name] = torch.empty_like(part, device=device, dtype=dtype)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._measure()

    def row_sums(self, like: Tensor, nodes: Tensor | None = None) -> Tensor:
        """Σ_j M_ij as ``N``, or Σ_j M[nodes][:, nodes]_ij as ``B``, in the dtype of ``like``, which has as many rows."""
        if nodes is None and self.offsets is not None and self.values is None:
            return self.offsets.diff().to(like.dtype)
        ones = like.new_ones(like.shape[0], 1)
        return (self(ones) if nodes is None else self.among(ones, nodes)).squeeze(-1)

    def extra_repr(self) -> str:
        """Shape and format, for printing."""
        entries = "" if self.entries is None else f", entries={self.entries}"
        return f"[{self.size}, {self.size}], format={self.format!r}{entries}"


def half_sum_with_transpose(matrix: Tensor) -> Tensor:
    """(M + Mᵀ) / 2, at least in float32; what came sparse stays sparse, and a symmetric M gives itself.

    Its quadratic form Σ_ij M_ij <x_i, x_j> is that of M, and one product gives its value and its gradient.
    """
    wide = torch.promote_types(matrix.dtype, torch.float32)
    if matrix.layout == torch.strided:
        half = matrix.to(wide) / 2
        return half + half.T
    entries = matrix.to_sparse(layout=torch.sparse_coo).coalesce()
    there, values = entries.indices(), entries.values().to(wide) / 2
    return coo(torch.cat([there, there.flip(0)], 1), torch.cat([values, values]), matrix.shape[0]).coalesce()


def coo(indices: Tensor, values: Tensor, size: int) -> Tensor:
    """A sparse ``N N`` from indices ``2 E`` that are known to be inside."""
    # Said in so many words: torch warns where it is left open whether the indices, taken from a tensor, are checked.
    return torch.sparse_coo_tensor(indices, values, (size, size), check_invariants=False)


def check_format(format: str) -> None:
    """Refuse a format that does not exist.

    Raises:
        ValueError: ``format`` is none of `Format`.
    """
    if format not in get_args(Format):
        raise ValueError(f"format={format!r}, expected one of {list(get_args(Format))}")


def check_square(name: str, matrix: Tensor) -> None:
    """Refuse what is not ``N N``.

    Raises:
        TypeError: not a tensor.
        ValueError: another shape.
    """
    check_tensor(name, matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} has shape {list(matrix.shape)}, expected square, [N, N]")


def check_embeddings(embeddings: Tensor, size: int, nodes: Tensor | None) -> None:
    """Refuse embeddings that are not one row for each of ``size`` nodes of a graph, or for each of ``nodes``.

    Raises:
        TypeError: embeddings that are not floating, or nodes that are not an integer tensor.
        ValueError: shapes that do not belong together; the message names both.
    """
    check_floating("embeddings", embeddings)
    came, graph = f"embeddings has shape {list(embeddings.shape)}", f"adjacency has shape {[size, size]}"
    if embeddings.ndim != 2 or embeddings.shape[1] == 0:
        raise ValueError(f"{came}, expected [N, D] with D >= 1 and N the nodes of adjacency; {graph}")
    if nodes is not None:
        rows = tuple(embeddings.shape[:1])
        check_index("nodes", nodes, rows, f"one for each row of embeddings {list(embeddings.shape)}")
    elif embeddings.shape[0] != size:
        raise ValueError(
            f"{came}, but {graph}, and each node needs one row; for some nodes of a larger graph pass nodes, one for each row"
        )


def _among_lists(x: Tensor, nodes: Tensor, size: int, matrix: tuple[Rows, Rows | None], widest: int) -> Tensor:
    """The product over the rows of the batch alone: each gets a list of as many places as the longest row has entries."""
    batch = nodes.shape[0]
    nodes = nodes.long()
    order = torch.arange(batch, device=nodes.device, dtype=matrix[0].indices.dtype)
    # The place of every node in the batch: the first where it repeats, and where it is missing the last, which is zero.
    places = order.new_full((size,), batch).scatter_reduce(0, nodes, order, "amin")
    place = places.index_select(0, nodes)
    table = x.new_zeros(batch + 1, x.shape[1]).index_add(0, place, x)
    rows = _listed(matrix[0], nodes, places, place == order, widest)
    transposed = None if matrix[1] is None else _listed(matrix[1], nodes, places, place == order, widest)
    return multiply(table, (rows, transposed)).index_select(0, place)


def _listed(rows: Rows, nodes: Tensor, places: Tensor, first: Tensor, widest: int) -> Rows:
    """Rows ``nodes`` of a matrix, each ``widest`` long, over places; rows of repeated nodes are empty, as is a last one."""
    batch = nodes.shape[0]
    begin, end = rows.offsets.index_select(0, nodes), rows.offsets.index_select(0, nodes + 1)
    position = begin.unsqueeze(1) + torch.arange(widest, device=nodes.device, dtype=begin.dtype)
    held = (position < end.unsqueeze(1)) & first.unsqueeze(1)
    position = position.masked_fill(~held, 0).flatten()
    neighbour = places.index_select(0, rows.indices.index_select(0, position))
    ends = torch.arange(batch + 2, device=nodes.device, dtype=begin.dtype).clamp(max=batch) * widest
    values = None if rows.values is None else rows.values.index_select(0, position)
    return Rows(ends, neighbour.masked_fill(~held.flatten(), batch), values)


def _readable(tensor: Tensor) -> bool:
    """Whether the tensor has values; those of a subclass, such as a fake tensor, may exist in name only."""
    return type(tensor) is Tensor and not tensor.is_meta


def _floating(matrix: Tensor) -> Tensor:
    """A copy in a floating dtype, so that `.to()` moves it along and a product needs no cast."""
    return matrix.to(matrix.dtype if matrix.is_floating_point() else torch.float32, copy=True)


def _entries(matrix: Tensor) -> Tensor:
    """The entries that are not zero, coalesced and sorted by row and column."""
    entries = matrix.to_sparse(layout=torch.sparse_coo).coalesce()
    kept = entries.values() != 0
    return coo(entries.indices()[:, kept], entries.values()[kept], matrix.shape[0]).coalesce()


def _compressed(entries: Tensor) -> Rows:
    """The entries by rows; values that are all one need no storage."""
    rows, columns = entries.indices()
    values = entries.values()
    narrow = torch.int32 if values.numel() < torch.iinfo(torch.int32).max else torch.int64
    counts = torch.bincount(rows, minlength=entries.shape[0])
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(narrow)
    return Rows(offsets, columns.to(narrow, copy=True), None if bool((values == 1).all()) else _floating(values))


def _same(rows: Rows, others: Rows) -> bool:
    """Whether two matrices are equal; where the indices are, both have values or neither has."""
    return all(a is None or (b is not None and torch.equal(a, b)) for a, b in zip(rows, others, strict=True))
