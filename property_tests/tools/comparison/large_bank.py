"""Peak memory of the contrastive loss against a bank so large that the similarities of a batch with it would take 1 GB."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from harness.timing.constants import AGREEMENT
from harness.timing.costs.counting import peak_bytes
from losses.memory_bank_contrastive import MemoryBankContrastiveLoss

ROWS, FEATURES, BATCH, TEMPERATURE = 1_000_000, 128, 256, 0.07
PART = 4096  # rows of the bank at a time


@dataclass(frozen=True)
class LargeBank:
    """What one forward and backward pass took.

    Args:
        rows: of the bank.
        peak_bytes: allocated at a time above the inputs, as the allocator gave them; ``None`` where unknown.
        seconds: of one call, timed once.
        wrong: how value or gradient differ from two passes over the bank; nothing where they agree.
    """

    rows: int
    peak_bytes: int | None
    seconds: float
    wrong: str


def two_passes(queries: Tensor, bank: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient of the mean loss by the formulas, with one pass over the bank for each.

    log Σ_i exp(s_bi) part by part;     d L_b / d q_b = (Σ_i p_bi k_i - k_b+) / τ
    """
    scaled = queries / TEMPERATURE
    log_total = torch.full((len(queries), 1), -torch.inf, dtype=torch.float64)
    for keys in bank.split(PART):
        log_total = torch.logaddexp(log_total, (scaled @ keys.T).logsumexp(1, keepdim=True).double())
    mean = torch.zeros(queries.shape, dtype=torch.float64)
    for keys in bank.split(PART):
        mean += ((scaled @ keys.T - log_total.float()).exp() @ keys).double()
    chosen = bank[positives]
    value = (log_total.squeeze(1) - (scaled * chosen).sum(1)).mean()
    return value, (mean - chosen) / TEMPERATURE / len(queries)


def measure(rows: int = ROWS, batch: int = BATCH, features: int = FEATURES, seed: int = 0) -> LargeBank:
    """Run the loss once for its time and once for its peak, and hold it to `two_passes`."""
    generator = torch.Generator().manual_seed(seed)
    loss = MemoryBankContrastiveLoss(torch.empty(rows, features), temperature=TEMPERATURE)
    for part in loss.bank.split(PART):
        part.copy_(functional.normalize(torch.randn(part.shape, generator=generator), dim=1))
    queries = functional.normalize(torch.randn(batch, features, generator=generator), dim=1).requires_grad_()
    positives = torch.randint(rows, (batch,), generator=generator)

    def call() -> Tensor:
        queries.grad = None
        value = loss(queries, positives)
        value.backward()
        return value

    begin = time.perf_counter()
    value = call().detach()
    seconds = time.perf_counter() - begin
    assert queries.grad is not None
    wrong = _difference(value, queries.grad, *two_passes(queries.detach(), loss.bank, positives))
    queries.grad = None
    return LargeBank(rows, peak_bytes(call, "cpu"), seconds, wrong)


def _difference(value: Tensor, gradient: Tensor, expected: Tensor, slope: Tensor) -> str:
    allowed = AGREEMENT[torch.float32]
    if not abs(value - expected) <= allowed * abs(expected):
        return f"its value is {float(value):.7g}, expected {float(expected):.7g}"
    off = float((gradient - slope).abs().max() / slope.abs().max())
    return "" if off <= allowed else f"its gradient is off by {off:.2g} of its largest element"
