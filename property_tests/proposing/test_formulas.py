"""A formula in a docstring is proposed where it can be read for certain or the loss equals it, and says how sure it is."""

from __future__ import annotations

import pytest

from harness.proposing.formulas import formulas_in
from harness.proposing.propose import propose
from harness.proposing.written import source
from property_tests.tools.proposals import specified

ONE = {"x": "B", "y": "B", "w": "B"}
TWO = {"x": "B D", "y": "B D"}
SQUARES = "1 / B * sum(w[i] * (x[i] - y[i])**2 for i in B)"


@pytest.mark.parametrize(
    ("text", "tensors", "formula"),
    [
        ("sum(w[b] * x[b] for b in B) / B", ONE, "sum(w[b] * x[b] for b in B) / B"),
        (
            "Loss: sum(x[n, k] * y[n, k] for n in N for k in K) / N.",
            TWO,
            "sum(x[n, k] * y[n, k] for n in B for k in D) / B",
        ),
        ("L = 1/N * sum_i w_i (x_i - y_i)^2, where N is the size of the batch", ONE, SQUARES),
        (r"Computes :math:`\mathcal{L} = \frac{1}{N}\sum_{i=1}^N w_i (x_i - y_i)^2`.", ONE, SQUARES),
        (
            r"""Contrast.

            .. math::
                L = \frac{1}{N} \sum_{i=1}^{N} \left[ \log \sum_{c=1}^{C} e^{z_{i,c}} - z_{i, y_i} \right]

            Args:
            """,
            {"z": "B C", "y": "B"},
            "1 / B * sum(log(sum(exp(z[i, c]) for c in C)) - z[i, y[i]] for i in B)",
        ),
        (
            r"$\sum_{i=1}^{N} \sum_{j \ne i}^{N} \max(0, 1 - x_i + x_j)$",
            {"x": "B"},
            "sum(sum(max(0, 1 - x[i] + x[j]) for j in B if j != i) for i in B)",
        ),
        (r"$\sum_{i=1}^{N-1} |x_{i+1} - x_i|$", {"x": "T"}, "sum(abs(x[i + 1] - x[i]) for i in range(T - 1))"),
        (
            r"\\[\sum_{i, j} a_{ij} \lVert e_i - e_j \rVert^2\\]".replace("\\\\", "\\"),
            {"e": "N D", "a": "N N"},
            "sum(a[i, j] * norm(e[i] - e[j])**2 for i in N for j in N)",
        ),
        ("mean((x - y)^2)", TWO, "mean((x[b, d] - y[b, d])**2 for b in B for d in D)"),
        ("the mean of |x - y|", TWO, "mean(abs(x[b, d] - y[b, d]) for b in B for d in D)"),
        ("sum_t m_t * n_t / sum_t m_t", {"n": "T", "m": "T"}, "sum(m[t] * n[t] for t in T) / sum(m[t] for t in T)"),
        (r"$\sum_i -(x_i + y_i)$", ONE, "sum(-(x[i] + y[i]) for i in B)"),
        ("sum_i w_i x_i + y_i", ONE, "sum(w[i] * x[i] + y[i] for i in B)"),
    ],
)
def test_a_formula_is_read_in_the_sizes_of_its_tensors(text, tensors, formula):
    said, readings, exact = next(formulas_in(text, tensors))
    assert (readings, exact) == ([formula], True), said


@pytest.mark.parametrize(
    "text",
    [
        "1/2N sum_i (x_i - y_i)^2",
        "sum_i i x_i",
        r":math:`\mathbb{E}[x]`",
        r":math:`\sum_{i=2}^{N} x_i`",
        "sum_i x_i + z_k",
        "Computes the mean of everything (see paper).",
        r":math:`\ell(x, y) = L = \{l_1,\dots,l_N\}^\top`",
        "a^2 + " * 3000,
        "(" * 3000,
    ],
)
def test_what_may_mean_something_else_is_no_formula(text):
    assert list(formulas_in(text, ONE)) == []


def test_letters_may_stand_for_any_tensor_and_words_only_for_one_that_begins_alike():
    tensors = {"scores": "B", "target": "B"}
    assert [found[1:] for found in formulas_in("mean of p - q", tensors)] == [
        (["mean(scores[b] - target[b] for b in B)", "mean(target[b] - scores[b] for b in B)"], False)
    ]
    assert [found[1:] for found in formulas_in("mean of score - targets", tensors)] == [
        (["mean(scores[b] - target[b] for b in B)"], False)
    ]


def squared_hinge(scores, target, margin=1.0):
    """mean over elements of max(0, margin - t * s)^2, target is -1 or 1"""
    return (margin - target * scores).clamp(min=0).square().mean()


def normalised(x, y, w):
    """L = 1/N * sum_i w_i (x_i - y_i)^2

    Args:
        x: shape [B]
        y: shape [B]
        w: weights, shape [B]
    """
    return (w * (x - y) ** 2).sum() / w.sum()


def test_a_formula_that_the_loss_equals_is_declared_with_the_constants_that_it_names():
    proposal = propose("squared_hinge", squared_hinge, with_laws=False)
    assert proposal.formula == "mean(max(0, margin - target[b, c] * scores[b, c])**2 for b in B for c in C)"
    spec = specified(squared_hinge, proposal)
    assert (spec.reference, spec.options) == ("formula", {"margin": 1.0})
    text = source([proposal], module="hinge", folder=None, file="specs.py")
    assert "    # tried: the loss equals its docstring on " in text
    assert f'    formula="{proposal.formula}",' in text
    assert proposal.command("verify", "hinge.py").count("--formula") == 1


def test_a_formula_that_the_loss_differs_from_is_a_comment_that_shows_how():
    proposal = propose("normalised", normalised, with_laws=False)
    (decision,) = proposal.of("formula")
    assert (decision.text, decision.confidence, proposal.formula) == (SQUARES, "guessed", "")
    assert "the docstring says otherwise, loss" in decision.why
    assert specified(normalised, proposal).reference == "normalised"
    text = source([proposal], module="normalised", folder=None, file="specs.py")
    assert f'    # formula="{SQUARES}",' in text
