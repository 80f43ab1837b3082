"""The usual way of writing the sample-weighted mean squared error, kept to show that each of its defects is found.

Known defects, with the rule that shows each:

- C01  the weights are a plain attribute: they do not follow `.to()` and are not in the state_dict
- D05  `weights.float()` rounds float64 weights to float32, so the float64 loss is only right to 1e-7
- D01  the float32 weights make the loss of float16 and bfloat16 predictions float32
- B03  labels [B] broadcast silently against predictions [B, 1], to B x B
- B01  `view(-1, 1)` fits predictions of two axes only: [B, C, D] with C != B raise
- B04  predictions [B, C, D] with C = B are weighted along the wrong axis
- L11  predictions [B] become B x B, so that a sample of weight zero still counts under the weights of all others
- L01  the loss of predictions [B] is the product of two means, not the mean over the samples
- E01  the value of predictions [B] is not that of the loops that carry the contract
"""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from torch import Tensor, nn

from harness import LossSpec, domains, laws
from losses.dynamic_weighted import naive_dynamic_weighted


class DynamicWeightedLoss(nn.Module):
    """mean(weights * (predictions - labels) ** 2), one weight for each sample."""

    def __init__(self, weights: Annotated[Float[Tensor, "B"], domains.nonnegative()]) -> None:
        super().__init__()
        self.weights = weights.float()

    def forward(self, predictions: Float[Tensor, "B *rest"], labels: Float[Tensor, "B *rest"]) -> Float[Tensor, ""]:
        """The loss, as a scalar."""
        return (self.weights.view(-1, 1) * (predictions - labels) ** 2).mean()


SPEC = LossSpec(
    name="usual_dynamic_weighted",
    implementations={"usual": DynamicWeightedLoss},
    laws=(laws.permutation("B"), laws.mean_over("B"), laws.zero_weight_removes("weights")),
)

SPEC_AGAINST_REFERENCE = SPEC.replace(
    name="usual_dynamic_weighted_against_reference",
    implementations={"naive": naive_dynamic_weighted, "usual": DynamicWeightedLoss},
)

SPECS = (SPEC, SPEC_AGAINST_REFERENCE)
