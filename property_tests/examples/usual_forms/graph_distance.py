"""The usual way of writing the graph distance, kept to show that each of its defects is found.

Known defects, with the rule that shows each:

- C01  the adjacency is a plain attribute: it does not follow `.to()` and is not in the state_dict
- G08  a zero row divides 0 by 0: the value and every gradient are NaN
- G06  without edges the loss is the leaf itself: the gradient is None, not zero
- D01  without edges the leaf is returned: float32 on the CPU, whatever the embeddings are
- B03  embeddings [N, D, 1] give a matrix, and an adjacency with one row of N hides all other nodes
- P02  N² reads of a tensor on the host, one for each entry of the adjacency
- E01  at a zero row the loops that carry the contract give similarity 0, these give NaN
"""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from harness import LossSpec, domains, laws
from losses.graph_distance import naive_graph_distance


class GraphDistanceLoss(nn.Module):
    """Minus the cosine similarity of connected nodes."""

    def __init__(self, adjacency: Annotated[Bool[Tensor, "N N"], domains.adjacency()]) -> None:
        super().__init__()
        self.adjacency = adjacency.float()

    def forward(self, embeddings: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
        """The loss, as a scalar."""
        loss = torch.tensor(0.0, requires_grad=True)
        for i in range(len(self.adjacency)):
            for j in range(len(self.adjacency)):
                if self.adjacency[i][j] > 0:
                    x, y = embeddings[i], embeddings[j]
                    loss = loss - x @ y / (torch.norm(x) * torch.norm(y))
        return loss


SPEC = LossSpec(
    name="usual_graph_distance",
    implementations={"usual": GraphDistanceLoss},
    laws=(laws.permutation("N"), laws.scale_invariant("embeddings")),
    bench_sizes=({"N": 16, "D": 16},),
)

SPEC_AGAINST_REFERENCE = SPEC.replace(
    name="usual_graph_distance_against_reference",
    implementations={"naive": naive_graph_distance, "usual": GraphDistanceLoss},
)

SPECS = (SPEC, SPEC_AGAINST_REFERENCE)
