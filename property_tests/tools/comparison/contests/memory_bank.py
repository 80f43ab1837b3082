"""Contrastive loss against a memory bank: all similarities at once, and third-party packages."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness import domains
from harness.declare.tensor_spec import TensorSpec
from losses import memory_bank_contrastive
from losses.memory_bank_contrastive import MemoryBankContrastiveLoss, naive_memory_bank_contrastive
from property_tests.tools.comparison.contest import OURS, Contestant, ahead, contest

TEMPERATURE = 0.07


def dense(queries: Tensor, positives: Tensor, bank: Tensor) -> Tensor:
    return functional.cross_entropy(queries @ bank.T / TEMPERATURE, positives)


def naive_of_directions(queries: Tensor, keys: Tensor, bank: Tensor) -> Tensor:
    q, k = functional.normalize(queries, dim=1), functional.normalize(keys, dim=1)
    return naive_memory_bank_contrastive(q, functional.normalize(bank, dim=1), keys=k, temperature=TEMPERATURE)


class OfDirections(MemoryBankContrastiveLoss):
    """Ours, of vectors of length one: those of the bank are made once."""

    def __init__(self, bank: Tensor) -> None:
        super().__init__(functional.normalize(bank, dim=1), temperature=TEMPERATURE)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(functional.normalize(queries, dim=1), keys=functional.normalize(keys, dim=1))


class InfoNCE(nn.Module):
    def __init__(self, bank: Tensor) -> None:
        super().__init__()
        from info_nce import info_nce

        self.bank, self._info_nce = bank, info_nce

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        return self._info_nce(queries, keys, self.bank, temperature=TEMPERATURE)


class NTXent(nn.Module):
    def __init__(self, bank: Tensor) -> None:
        super().__init__()
        from pytorch_metric_learning.distances import DotProductSimilarity
        from pytorch_metric_learning.losses import NTXentLoss

        self.loss = NTXentLoss(temperature=TEMPERATURE, distance=DotProductSimilarity(normalize_embeddings=False))
        self.bank, self.rows = bank, torch.arange(len(bank))

    def forward(self, queries: Tensor, positives: Tensor) -> Tensor:
        return self.loss(queries, positives, ref_emb=self.bank, ref_labels=self.rows)


_UNIT = {
    "inputs": {
        "queries": TensorSpec("B D", domains.unit_norm(-1)),
        "positives": memory_bank_contrastive.SPEC.inputs["positives"],
    },
    "context": {"bank": TensorSpec("N D", domains.unit_norm(-1))},
}
_SMALL = {"B": 3, "D": 4, "N": 6}

CONTESTS = (
    contest(
        "memory_bank_contrastive, positives in the bank",
        memory_bank_contrastive.SPEC,
        [
            Contestant(OURS, MemoryBankContrastiveLoss, "MemoryBankContrastiveLoss(bank)(q, positives)"),
            Contestant("dense", dense, "F.cross_entropy(q @ bank.T / tau, positives)"),
        ],
        module=__name__,
        name="memory_bank_contrastive",
        small=_SMALL,
        sizes=[{"B": 256, "D": 128, "N": 65_536}],
        claims=ahead("dense"),
        **_UNIT,
    ),
    contest(
        "memory_bank_contrastive, keys beside the bank, all normalized",
        memory_bank_contrastive.SPEC_KEYS,
        [
            Contestant(
                OURS, OfDirections, "MemoryBankContrastiveLoss(F.normalize(bank))(F.normalize(q), keys=F.normalize(k))"
            ),
            Contestant(
                "info-nce-pytorch",
                InfoNCE,
                "info_nce(q, k, bank, temperature=tau)",
                package="info-nce-pytorch",
                convention="it normalizes everything at every call; ours normalizes the bank once, and both queries and keys at every call",
            ),
        ],
        naive=naive_of_directions,
        module=__name__,
        name="memory_bank_contrastive_normalized",
        small=_SMALL,
        sizes=[{"B": 256, "D": 128, "N": 65_536}],
        claims=ahead("info-nce-pytorch"),
    ),
    contest(
        "memory_bank_contrastive, a small bank",
        memory_bank_contrastive.SPEC,
        [
            Contestant(OURS, MemoryBankContrastiveLoss, "MemoryBankContrastiveLoss(bank)(q, positives)"),
            Contestant("dense", dense, "F.cross_entropy(q @ bank.T / tau, positives)"),
            Contestant(
                "pytorch-metric-learning",
                NTXent,
                "NTXentLoss(tau)(q, positives, ref_emb=bank, ref_labels=arange(N))",
                package="pytorch-metric-learning",
                convention="it makes a list of all pairs, B (N - 1) of them, and a table of B times as many: at a bank of 65,536 that is 17 GB",
            ),
        ],
        module=__name__,
        name="memory_bank_contrastive_small",
        small=_SMALL,
        sizes=[{"B": 64, "D": 128, "N": 4_096}],
        claims=[
            *ahead("dense", why_slower="similarities of 1 MiB stay in the cache, and chunks have nothing to spare"),
            *ahead("pytorch-metric-learning"),
        ],
        **_UNIT,
    ),
)
SPECS = [each.spec for each in CONTESTS]
