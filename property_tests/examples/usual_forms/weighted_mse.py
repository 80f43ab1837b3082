"""The usual way of writing the weighted mean squared error, kept to show that each of its defects is found.

Known defects, with the rule that shows each:

- C01  the mask is a plain attribute: it does not follow `.to()` and is not in the state_dict
- D05  `mask.float()` rounds a float64 mask to float32, so the float64 loss is only right to 1e-7
- D01  the float32 mask makes the loss of float16 and bfloat16 predictions float32
- B03  predictions or labels with a unit axis, [B, H, 1], broadcast silently, and so does a mask [H, W, 1]
- L11  a NaN under weight zero stays NaN in the value and in the gradient
"""

from __future__ import annotations

from typing import Annotated

from jaxtyping import Float
from torch import Tensor, nn

from harness import LossSpec, domains, laws
from losses.weighted_mse import naive_weighted_mse


class WeightedMSELoss(nn.Module):
    """mean(mask * (predictions - labels) ** 2)."""

    def __init__(self, mask: Annotated[Float[Tensor, "H W"], domains.nonnegative()]) -> None:
        super().__init__()
        self.mask = mask.float()

    def forward(
        self, predictions: Float[Tensor, "*batch H W"], labels: Float[Tensor, "*batch H W"]
    ) -> Float[Tensor, ""]:
        """The loss, as a scalar."""
        return (self.mask * (predictions - labels) ** 2).mean()


SPEC = LossSpec(
    name="usual_weighted_mse",
    implementations={"usual": WeightedMSELoss},
    laws=(laws.linear_in("mask"), laws.zero_weight_removes("mask")),
)

SPEC_AGAINST_REFERENCE = SPEC.replace(
    name="usual_weighted_mse_against_reference",
    implementations={"naive": naive_weighted_mse, "usual": WeightedMSELoss},
)

SPECS = (SPEC, SPEC_AGAINST_REFERENCE)
