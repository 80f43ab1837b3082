"""torch's cross-entropy of a linear layer, which the oldest torch that is supported has not.

The formula is that of the documentation of torch.nn.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from harness import LossSpec, TensorSpec, domains, laws
from harness.catalogs.torch_nn._shared import SAMPLEWISE, SCALAR, classes_along_axis_1, in_double
from harness.catalogs.torch_nn.classification import cross_entropy


@in_double
def linear_cross_entropy(input: Tensor, linear_weight: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The cross-entropy of the logits x Wᵀ."""
    classes_along_axis_1(input @ linear_weight.mT, target)
    return cross_entropy(input=input @ linear_weight.mT, target=target, reduction=reduction)


LINEAR_CROSS_ENTROPY = LossSpec(
    "nn.functional.linear_cross_entropy",
    {"formula": linear_cross_entropy, "torch": functional.linear_cross_entropy},
    inputs={
        "input": TensorSpec("B D"),
        "linear_weight": TensorSpec("C D"),
        "target": TensorSpec("B", domains.index("C")),
    },
    output=SCALAR,
    differentiable=("input", "linear_weight"),
    laws=(laws.nonnegative(), laws.permutation("C"), laws.permutation("D"), *SAMPLEWISE),
)
LINEAR_CROSS_ENTROPY_CHUNKED = LINEAR_CROSS_ENTROPY.replace(
    name="nn.functional.linear_cross_entropy-chunked",
    options={"options": nn.LinearCrossEntropyOptions(allow_retain_graph=True)},
)

SPECS = (LINEAR_CROSS_ENTROPY, LINEAR_CROSS_ENTROPY_CHUNKED)
