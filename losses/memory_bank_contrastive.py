"""Contrastive loss (InfoNCE) of a batch against a memory bank that is much larger than the batch.

    L = mean_b ( log Σ_i exp(s_bi) - s_b+ ),     s_bi = <q_b, k_i> / τ

Shapes: queries q ``B D``, bank k ``N D``.  The positive s_b+ is one of the following:

    positives  ``B``    s_b+ = s_bi at i = positives[b]; the sum is over the bank, which holds the positive
    keys       ``B D``  s_b+ = <q_b, keys_b> / τ; the sum is over the bank, all of it negatives, and the positive

Vectors are compared as they are given; both sources give them length one.  No gradient goes into the bank.

Source: positives in the bank: Wu, Xiong, Yu & Lin, Unsupervised Feature Learning via Non-Parametric Instance
Discrimination, CVPR 2018, equations 2 and 3; keys beside it: He, Fan, Wu, Xie & Girshick, Momentum Contrast for
Unsupervised Visual Representation Learning, CVPR 2020, equation 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness import domains, laws
from harness.declare.declared import ErrorInput
from harness.declare.dims import Size, shape
from harness.declare.spec import LossSpec
from harness.declare.tensor_spec import TensorSpec

from ._checks import check_floating, check_index, check_reduction, check_tensor, positions
from ._precision import full_precision
from ._products import reverse_mode_alone
from ._reduction import SAMPLE_REDUCTIONS, SampleReduction, naive_reduce, reduce_samples

CHUNK_BYTES = 4 * 2**20  # a chunk of similarities that stays in the cache between the products that make and use it


def naive_memory_bank_contrastive(
    queries: Tensor,
    bank: Tensor,
    positives: Tensor | None = None,
    keys: Tensor | None = None,
    temperature: float = 0.07,
    reduction: SampleReduction = "mean",
) -> Tensor:
    """The formula of this module as loops, in float64, so that the order of the sum does not show in lower precision."""
    check_reduction(reduction, SAMPLE_REDUCTIONS)
    _check_bank(bank, temperature)
    _check_call(queries, bank, positives, keys)
    rows = bank.detach().double()
    chosen = None if positives is None else positions("positives", positives, len(rows))
    losses = []
    for b, query in enumerate(queries.double()):
        similarities = [(query @ row) / temperature for row in rows]
        if keys is not None:
            similarities.append((query @ keys[b].double()) / temperature)
        positive = similarities[-1 if chosen is None else chosen[b]]
        largest = max(similarity.item() for similarity in similarities)  # so that no exponential overflows
        total = sum(((similarity - largest).exp() for similarity in similarities), start=torch.zeros(()).to(query))
        losses.append(largest + total.log() - positive)
    return naive_reduce(losses, [1.0] * len(losses), queries[:, 0], reduction)


class MemoryBankContrastiveLoss(nn.Module):
    """The same number as `naive_memory_bank_contrastive`, from products of the queries with parts of the bank.

    Computed in float32 or wider, under autocast too.  Beside the inputs it holds a few chunks of similarities and tensors
    of the queries' size, in the backward pass as in the forward pass; torch.func and forward mode keep all similarities.

    Args:
        bank: ``N D``, N >= 1.  Copied; the module's ``bank`` may be written into after the backward pass.
        temperature: τ, above zero.
        reduction: ``"mean"`` over the queries, ``"sum"``, or ``"none"`` for one loss per query.
        chunk_bytes: similarities that are held at once; a chunk has D rows of the bank at least.

    Raises:
        TypeError: a bank that is not a tensor.
        ValueError: an unknown reduction, a temperature or chunk that is not above zero and finite, or a bank that is not
            [N, D].
    """

    bank: Tensor

    def __init__(
        self,
        bank: Tensor,
        temperature: float = 0.07,
        reduction: SampleReduction = "mean",
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        super().__init__()
        check_reduction(reduction, SAMPLE_REDUCTIONS)
        _check_bank(bank, temperature)
        if chunk_bytes <= 0:
            raise ValueError(f"chunk_bytes={chunk_bytes!r}, expected above zero, such as {CHUNK_BYTES}")
        self.temperature = temperature
        self.reduction = reduction
        self.chunk_bytes = chunk_bytes
        self.register_buffer("bank", bank.detach().clone())  # load_state_dict writes into it

    def forward(self, queries: Tensor, positives: Tensor | None = None, keys: Tensor | None = None) -> Tensor:
        """The loss, in the queries' dtype.

        Args:
            queries: ``B D``.
            positives: int64 ``B``, the row of the bank that belongs to each query.
            keys: ``B D``, the positive of each query where the bank does not hold it; may need a gradient.

        Raises:
            ValueError: shapes that do not belong together, the message names both; or not one of positives and keys.
            TypeError: queries or keys that are not floating, or positives that are not an integer tensor.
            IndexError, RuntimeError: a positive outside the bank, also one below zero; torch chooses which.
        """
        _check_call(queries, self.bank, positives, keys)
        return reduce_samples(self._per_query(queries, positives, keys), self.reduction).to(queries.dtype)

    def _per_query(self, queries: Tensor, positives: Tensor | None, keys: Tensor | None) -> Tensor:
        # The gradient of a log-sum-exp of similarities is the mean key under their softmax, which the forward pass sums
        # beside it: a chunk of similarities is used twice and forgotten, and the B x N ones are never together.
        scaled = queries.to(torch.promote_types(queries.dtype, torch.float32)) / self.temperature
        log_total = log_sum_exp(scaled, self.bank, self.chunk_bytes)
        if positives is not None:
            return log_total - (scaled * self.bank.index_select(0, positives)).sum(-1)
        assert keys is not None
        excess = log_total - (scaled * keys).sum(-1)
        return functional.softplus(excess, threshold=40)  # log(e^excess + e^0); beyond 40 both are equal in float64

    def extra_repr(self) -> str:
        """Shape, temperature and reduction, for printing."""
        return f"bank={list(self.bank.shape)}, temperature={self.temperature:g}, reduction={self.reduction!r}"


class DenseMemoryBankContrastiveLoss(MemoryBankContrastiveLoss):
    """The usual way of writing it: all B x N similarities, with those of the keys in front, and their cross-entropy."""

    def _per_query(self, queries: Tensor, positives: Tensor | None, keys: Tensor | None) -> Tensor:
        logits = queries @ self.bank.to(queries.dtype).T
        if keys is not None:
            logits = torch.cat([(queries * keys).sum(-1, keepdim=True), logits], dim=1)
            positives = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
        assert positives is not None
        return functional.cross_entropy(logits / self.temperature, positives.long(), reduction="none")


def log_sum_exp(queries: Tensor, bank: Tensor, chunk_bytes: int) -> Tensor:
    """Log Σ_i exp(<q_b, k_i>) as ``B``, differentiable in the queries to any order; the bank is a constant."""
    if torch.compiler.is_compiling() or (queries.requires_grad and reverse_mode_alone()):
        log_total: Tensor = _LogSumExp.apply(queries, bank, chunk_bytes)[0]
        return log_total
    parts = [_products(queries, keys).logsumexp(1) for keys in _chunks(queries, bank, chunk_bytes)]
    return torch.stack(parts).logsumexp(0)


class _LogSumExp(torch.autograd.Function):
    """The log-sum-exp, and the mean key under its softmax.

    d log-sum-exp = <mean, dq> and d mean = covariance dq: the derivatives of the outputs are made of the outputs.
    """

    @staticmethod
    def forward(queries: Tensor, bank: Tensor, chunk_bytes: int) -> tuple[Tensor, Tensor]:
        log_total, mean = torch.full_like(queries[:, :1], -math.inf), torch.zeros_like(queries)
        for keys in _chunks(queries, bank, chunk_bytes):
            similarities = _products(queries, keys)
            probabilities = similarities.softmax(1)
            # The largest probability is exp(largest similarity) / Σ exp: this way each exponential is taken once.
            log_part = similarities.amax(1, keepdim=True) - probabilities.amax(1, keepdim=True).log()
            log_sum = torch.logaddexp(log_total, log_part)
            mean = mean * (log_total - log_sum).exp() + _products(probabilities, keys.T) * (log_part - log_sum).exp()
            log_total = log_sum
        return log_total.squeeze(1), mean

    @staticmethod  # apart from forward, as torch.compile wants it
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: tuple[Tensor, Tensor]) -> None:
        queries, bank, ctx.chunk_bytes = inputs
        ctx.save_for_backward(queries, bank, *output)
        ctx.set_materialize_grads(False)  # unless there is a second derivative the mean has no gradient, and no pass

    @staticmethod
    def backward(ctx: Any, of_log_total: Tensor | None, of_mean: Tensor | None) -> tuple[Tensor | None, None, None]:
        mean = ctx.saved_tensors[-1]
        gradient = None if of_log_total is None else of_log_total.unsqueeze(1) * mean
        if of_mean is not None:
            through_mean = _covariance_product(ctx.saved_tensors, of_mean, ctx.chunk_bytes)
            gradient = through_mean if gradient is None else gradient + through_mean
        return gradient, None, None


def _chunks(queries: Tensor, bank: Tensor, chunk_bytes: int) -> Iterator[Tensor]:
    """Rows of the bank in the queries' dtype, as many as make ``chunk_bytes`` with their similarities."""
    batch, features = queries.shape
    # No fewer than D: their similarities are no more numbers than the queries themselves.
    rows = max(features, chunk_bytes // (queries.dtype.itemsize * (batch + features)))
    parts = (bank,) if rows >= bank.shape[0] else bank.split(rows)  # one compiled graph for every batch that needs one
    for part in parts:
        yield part.to(queries.dtype)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right.T``, in their dtype under autocast too: similarities are exponents, and bfloat16 has two digits."""
    with full_precision(left.device):
        return left @ right.T


def _covariance_product(saved: tuple[Tensor, Tensor, Tensor, Tensor], directions: Tensor, chunk_bytes: int) -> Tensor:
    """Σ_i p_bi k_i <k_i - mean_b, direction_b>, from operations that can be differentiated again."""
    queries, bank, log_total, mean = saved
    along_mean = (mean * directions).sum(1, keepdim=True)
    product = torch.zeros_like(mean)
    for keys in _chunks(queries, bank, chunk_bytes):
        probabilities = (_products(queries, keys) - log_total.unsqueeze(1)).exp()
        product = product + _products(probabilities * (_products(directions, keys) - along_mean), keys.T)
    return product


def _check_bank(bank: Tensor, temperature: float) -> None:
    check_tensor("bank", bank)
    if bank.ndim != 2 or 0 in bank.shape:
        raise ValueError(
            f"bank has shape {list(bank.shape)}, expected [N, D] with N and D >= 1: one row for each stored sample"
        )
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature!r}, expected above zero and finite, such as 0.07")


def _check_call(queries: Tensor, bank: Tensor, positives: Tensor | None, keys: Tensor | None) -> None:
    check_floating("queries", queries)
    if queries.ndim != 2 or queries.shape[1] != bank.shape[1]:
        raise ValueError(
            f"queries has shape {list(queries.shape)}, but bank has shape {list(bank.shape)}, and queries should be [B, D] "
            f"with the same D"
        )
    if (positives is None) == (keys is None):
        raise ValueError(
            f"got {'neither' if keys is None else 'both'} of positives and keys, expected one of them: positives are "
            f"rows of the bank, keys are vectors beside it"
        )
    if positives is not None:
        check_index("positives", positives, tuple(queries.shape[:1]), f"one for each query of {list(queries.shape)}")
    if keys is not None:
        check_floating("keys", keys)
        if keys.shape != queries.shape:
            raise ValueError(
                f"keys has shape {list(keys.shape)}, but queries has shape {list(queries.shape)}; one key for each query"
            )


def least_bytes(sizes: Mapping[str, Size], dtype: torch.dtype) -> int:
    """Queries and the bank are read once each."""
    return dtype.itemsize * sum(math.prod(shape(dims, sizes)) for dims in ("B D", "N D"))


_IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "naive": naive_memory_bank_contrastive,
    "vectorized": MemoryBankContrastiveLoss,
    "dense": DenseMemoryBankContrastiveLoss,
}
_LAWS = (
    laws.nonnegative(),
    laws.mean_over("B"),
    laws.permutation("B"),
    laws.permutation("N"),
    laws.permutation("D"),
)
_ERROR_INPUTS = (
    ErrorInput(
        "queries of more features",
        lambda t: {"queries": torch.cat([t["queries"], t["queries"]], dim=1)},
        match="queries has shape .* bank has shape .* same D",
    ),
    ErrorInput(
        "bank with a unit axis",
        lambda t: {"bank": t["bank"].unsqueeze(0)},
        match=r"bank has shape .* expected \[N, D\]",
    ),
)

SPEC = LossSpec(
    name="memory_bank_contrastive",
    implementations=_IMPLEMENTATIONS,
    inputs={"queries": TensorSpec("B D"), "positives": TensorSpec("B", domains.index("N"))},
    context={"bank": TensorSpec("N D")},
    output=TensorSpec(""),
    laws=_LAWS,
    bench_sizes=(
        {"B": 8, "D": 16, "N": 128},
        {"B": 64, "D": 128, "N": 4_096},
        {"B": 256, "D": 128, "N": 65_536},
    ),
    bytes_bound=least_bytes,
    error_inputs=(
        *_ERROR_INPUTS,
        ErrorInput(
            "positives of a larger batch",
            lambda t: {"positives": torch.cat([t["positives"], t["positives"]])},
            match="positives has shape .* expected shape",
        ),
    ),
)

SPEC_KEYS = LossSpec(
    name="memory_bank_contrastive_keys",
    implementations=_IMPLEMENTATIONS,
    inputs={"queries": TensorSpec("B D"), "keys": TensorSpec("B D")},
    context={"bank": TensorSpec("N D")},
    output=TensorSpec(""),
    differentiable=("queries", "keys"),
    laws=_LAWS,
    bench_sizes=({"B": 8, "D": 16, "N": 64}, {"B": 64, "D": 128, "N": 4_096}),
    bytes_bound=least_bytes,
    error_inputs=(
        *_ERROR_INPUTS,
        ErrorInput(
            "keys of a larger batch",
            lambda t: {"keys": torch.cat([t["keys"], t["keys"]])},
            match="keys has shape .* queries has shape",
        ),
    ),
)
