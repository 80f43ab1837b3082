"""Reference losses: each file holds a naive implementation that carries the contract, a fast one, and their declaration.

Every public loss class of these files can be imported from here.  Those to adopt are named after their file; beside them,
`LogDomainSinkhornLoss` takes costs of any span, `MahalanobisProductLoss` a precision that is only semidefinite, and the others
are usual ways of writing the same loss, to compare time and memory with.

Those to adopt are made for large tensors and for values that cancel or overflow.  On a CPU, where a call takes less than a
tenth of a millisecond, their checks and custom gradients are a part of it, and a usual form takes less time, in a forward pass
above all.  Beyond 1.25 times in forward and backward together, by the report in `reports/cpu`:

    laplacian smoothness of 16 to 128 nodes     `trace`, 1.8 to 2.3 times; of 16 nodes of a larger graph `sliced_trace`, 2.4
    memory bank of 64 to 128 keys               `dense`, 2.2 to 2.9
    focal of 32 x 10 logits                     `cross_entropy`, 1.6
    distillation of 16 to 32 x 10 logits        `kl_div`, 1.4
    logit adjustment of 16 x 5 logits           `added`, 1.4 to 1.5
    mahalanobis of 16 vectors of 4              `bilinear`, 1.6; of 16,384 of 64 `product`, 1.5
"""

from . import (
    cost_matrix_cross_entropy,
    distillation,
    dynamic_weighted,
    focal,
    graph_distance,
    laplacian_smoothness,
    logit_adjustment,
    mahalanobis,
    memory_bank_contrastive,
    sinkhorn,
    weighted_mse,
)
from .cost_matrix_cross_entropy import CostMatrixCrossEntropyLoss, naive_cost_matrix_cross_entropy
from .distillation import DistillationLoss, KLDivDistillationLoss, naive_distillation
from .dynamic_weighted import DynamicWeightedLoss, ElementwiseDynamicWeightedLoss, naive_dynamic_weighted
from .focal import CrossEntropyFocalLoss, FocalLoss, OneHotFocalLoss, naive_focal
from .graph_distance import GraphDistanceLoss, naive_graph_distance
from .laplacian_smoothness import LaplacianSmoothnessLoss, naive_laplacian_smoothness
from .logit_adjustment import LogitAdjustmentLoss, naive_logit_adjustment
from .mahalanobis import MahalanobisLoss, MahalanobisProductLoss, naive_mahalanobis
from .memory_bank_contrastive import (
    DenseMemoryBankContrastiveLoss,
    MemoryBankContrastiveLoss,
    naive_memory_bank_contrastive,
)
from .sinkhorn import LogDomainSinkhornLoss, SinkhornLoss, naive_sinkhorn
from .weighted_mse import ElementwiseWeightedMSELoss, LibraryWeightedMSELoss, WeightedMSELoss, naive_weighted_mse

SPECS = (
    weighted_mse.SPEC,
    weighted_mse.SPEC_CROPPED,
    weighted_mse.SPEC_WEIGHTED_MEAN,
    weighted_mse.SPEC_SERIES,
    weighted_mse.SPEC_VOLUME,
    weighted_mse.SPEC_BROADCAST,
    graph_distance.SPEC,
    graph_distance.SPEC_INDEXED,
    graph_distance.SPEC_WEIGHTED,
    graph_distance.SPEC_DISTANCE,
    dynamic_weighted.SPEC,
    dynamic_weighted.SPEC_WEIGHTED_MEAN,
    dynamic_weighted.SPEC_INDEXED,
    laplacian_smoothness.SPEC,
    laplacian_smoothness.SPEC_NORMALIZED,
    laplacian_smoothness.SPEC_INDEXED,
    cost_matrix_cross_entropy.SPEC,
    logit_adjustment.SPEC,
    logit_adjustment.SPEC_INDEXED,
    mahalanobis.SPEC,
    memory_bank_contrastive.SPEC,
    memory_bank_contrastive.SPEC_KEYS,
    distillation.SPEC,
    distillation.SPEC_WITH_LABELS,
    sinkhorn.SPEC,
    focal.SPEC,
    focal.SPEC_GAMMA_ZERO,
)

__all__ = [
    "SPECS",
    "CostMatrixCrossEntropyLoss",
    "CrossEntropyFocalLoss",
    "DenseMemoryBankContrastiveLoss",
    "DistillationLoss",
    "DynamicWeightedLoss",
    "ElementwiseDynamicWeightedLoss",
    "ElementwiseWeightedMSELoss",
    "FocalLoss",
    "GraphDistanceLoss",
    "KLDivDistillationLoss",
    "LaplacianSmoothnessLoss",
    "LibraryWeightedMSELoss",
    "LogDomainSinkhornLoss",
    "LogitAdjustmentLoss",
    "MahalanobisLoss",
    "MahalanobisProductLoss",
    "MemoryBankContrastiveLoss",
    "OneHotFocalLoss",
    "SinkhornLoss",
    "WeightedMSELoss",
    "naive_cost_matrix_cross_entropy",
    "naive_distillation",
    "naive_dynamic_weighted",
    "naive_focal",
    "naive_graph_distance",
    "naive_laplacian_smoothness",
    "naive_logit_adjustment",
    "naive_mahalanobis",
    "naive_memory_bank_contrastive",
    "naive_sinkhorn",
    "naive_weighted_mse",
]
