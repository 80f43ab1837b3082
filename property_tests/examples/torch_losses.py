"""torch's own losses, declared as their documentation says: correct code on which no rule may raise an error."""

from __future__ import annotations

import torch.nn.functional as F

from harness import LossSpec, TensorSpec, domains, laws

SCALAR = TensorSpec("")


def regression(name: str, function: object, **options: object) -> LossSpec:
    return LossSpec(
        name,
        {name: function},
        inputs={"input": TensorSpec("B *rest"), "target": TensorSpec("B *rest")},
        output=SCALAR,
        options=options,
        laws=(laws.nonnegative(), laws.zero_when_equal("input", "target"), laws.permutation("B"), laws.mean_over("B")),
    )


SPECS = (
    regression("mse_loss", F.mse_loss),
    regression("l1_loss", F.l1_loss),
    regression("smooth_l1_loss", F.smooth_l1_loss),
    regression("huber_loss", F.huber_loss, delta=0.7),
    LossSpec(
        "cross_entropy_weighted",
        {"cross_entropy": F.cross_entropy},
        inputs={"input": TensorSpec("B C", domains.logits()), "target": TensorSpec("B", domains.index("C"))},
        context={"weight": TensorSpec("C", domains.positive())},
        output=SCALAR,
        laws=(
            laws.nonnegative(),
            laws.permutation("B"),
            laws.permutation("C"),
            laws.translation_invariant("input"),
            laws.scale_invariant("weight"),
        ),
    ),
    LossSpec(
        "cross_entropy_nonnegative_weights",
        {"cross_entropy": F.cross_entropy},
        inputs={"input": TensorSpec("B C", domains.logits()), "target": TensorSpec("B", domains.index("C"))},
        context={"weight": TensorSpec("C", domains.nonnegative())},
        output=SCALAR,
    ),
    LossSpec(
        "cross_entropy_ignored",
        {"cross_entropy": F.cross_entropy},
        inputs={
            "input": TensorSpec("B C S", domains.logits()),
            "target": TensorSpec("B S", domains.index("C", ignore=-100)),
        },
        output=SCALAR,
    ),
    LossSpec(
        "cross_entropy_probabilities",
        {"cross_entropy": F.cross_entropy},
        inputs={"input": TensorSpec("B C", domains.logits()), "target": TensorSpec("B C", domains.simplex(axis=1))},
        output=SCALAR,
        laws=(laws.linear_in("target"), laws.mean_over("B")),
    ),
    LossSpec(
        "bce_with_logits_pos_weight",
        {"bce": F.binary_cross_entropy_with_logits},
        inputs={"input": TensorSpec("B C", domains.logits()), "target": TensorSpec("B C", domains.binary())},
        context={"pos_weight": TensorSpec("C", domains.positive())},
        output=SCALAR,
        laws=(laws.nonnegative(), laws.mean_over("B"), laws.mean_over("C")),
    ),
    LossSpec(
        "binary_cross_entropy",
        {"bce": F.binary_cross_entropy},
        inputs={"input": TensorSpec("B", domains.probability()), "target": TensorSpec("B", domains.probability())},
        context={"weight": TensorSpec("B", domains.nonnegative())},
        output=SCALAR,
        laws=(laws.linear_in("weight"), laws.zero_weight_removes("weight")),
    ),
    LossSpec(
        "nll_loss",
        {"nll": F.nll_loss},
        inputs={"input": TensorSpec("B C"), "target": TensorSpec("B", domains.index("C"))},
        output=SCALAR,
        laws=(laws.linear_in("input"),),
    ),
    LossSpec(
        "kl_div",
        {"kl": F.kl_div},
        inputs={"input": TensorSpec("B C"), "target": TensorSpec("B C", domains.simplex(axis=1))},
        output=SCALAR,
        options={"reduction": "batchmean"},
        laws=(laws.mean_over("B"),),
    ),
    LossSpec(
        "cosine_embedding_loss",
        {"cosine": F.cosine_embedding_loss},
        inputs={"input1": TensorSpec("B D"), "input2": TensorSpec("B D"), "target": TensorSpec("B", domains.sign())},
        output=SCALAR,
        differentiable=("input1", "input2"),
        laws=(
            laws.symmetric("input1", "input2"),
        ),  # an epsilon beside the squared norms breaks scale invariance near 0
    ),
    LossSpec(
        "triplet_margin_loss",
        {"triplet": F.triplet_margin_loss},
        inputs={"anchor": TensorSpec("B D"), "positive": TensorSpec("B D"), "negative": TensorSpec("B D")},
        output=SCALAR,
        differentiable=("anchor", "positive", "negative"),
        laws=(laws.nonnegative(), laws.permutation("B"), laws.permutation("D")),
    ),
    LossSpec(
        "hinge_embedding_loss",
        {"hinge": F.hinge_embedding_loss},
        inputs={"input": TensorSpec("B"), "target": TensorSpec("B", domains.sign())},
        output=SCALAR,
    ),
    LossSpec(
        "margin_ranking_loss",
        {"ranking": F.margin_ranking_loss},
        inputs={"input1": TensorSpec("B"), "input2": TensorSpec("B"), "target": TensorSpec("B", domains.sign())},
        output=SCALAR,
        differentiable=("input1", "input2"),
        laws=(laws.nonnegative(),),
    ),
    LossSpec(
        "soft_margin_loss",
        {"soft": F.soft_margin_loss},
        inputs={"input": TensorSpec("B D"), "target": TensorSpec("B D", domains.sign())},
        output=SCALAR,
    ),
    LossSpec(
        "poisson_nll_loss",
        {"poisson": F.poisson_nll_loss},
        inputs={"input": TensorSpec("B"), "target": TensorSpec("B", domains.nonnegative())},
        output=SCALAR,
    ),
    LossSpec(
        "gaussian_nll_loss",
        {"gaussian": F.gaussian_nll_loss},
        inputs={"input": TensorSpec("B D"), "target": TensorSpec("B D"), "var": TensorSpec("B D", domains.positive())},
        output=SCALAR,
        differentiable=("input", "var"),
    ),
    LossSpec(
        "multi_margin_loss",
        {"multi": F.multi_margin_loss},
        inputs={"input": TensorSpec("B C"), "target": TensorSpec("B", domains.index("C"))},
        output=SCALAR,
        laws=(laws.nonnegative(),),
    ),
    LossSpec(
        "multilabel_soft_margin_loss",
        {"soft": F.multilabel_soft_margin_loss},
        inputs={"input": TensorSpec("B C", domains.logits()), "target": TensorSpec("B C", domains.binary())},
        output=SCALAR,
    ),
)
