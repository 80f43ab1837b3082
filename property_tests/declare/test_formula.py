"""A formula is the loss that it says: by loops, vectorized, and beside what others have programmed."""

from __future__ import annotations

import functools
import re

import pytest
import torch
from formula_table import OWN, TORCH

import losses
from harness import LossSpec, TensorSpec, domains, verify
from harness.declare import dims, inline
from harness.declare.formulas import Formula
from harness.declare.formulas.loops import Loops
from harness.declare.formulas.vectors import Vectors
from harness.errors import DeclarationError

RULES = ["E01", "E02", "E06"]


def wrong(spec, **chosen):
    found = verify(spec, profile="quick", rules=RULES, **chosen)
    passed = {(o.implementation, o.rule) for o in found.outcomes if o.examples}
    assert ("formula", "E06") in passed, [o.reason for o in found.outcomes]
    return [f.message for f in found.findings if f.severity != "note"]


@pytest.mark.parametrize("name", TORCH)
def test_a_loss_of_torch_is_its_formula(name):
    written = TORCH[name]
    call = functools.wraps(written.loss)(lambda **given: written.loss(**given))
    spec = LossSpec(
        "written",
        {"loss": call},
        inputs=inline.tensors(written.tensors),
        context=inline.tensors(written.context) if written.context else {},
        options=written.options,
        formula=written.formula,
    )
    assert spec.reference == "formula"
    assert wrong(spec) == []


@pytest.mark.parametrize("name", OWN)
def test_a_loss_of_this_repository_is_its_formula(name):
    spec = next(spec for spec in losses.SPECS if spec.name == name).replace(formula=OWN[name])
    assert spec.reference == "naive"
    assert wrong(spec, implementations=["formula"]) == []


PAIR = {
    "inputs": {"p": TensorSpec("B C"), "y": TensorSpec("B C")},
    "context": {"w": TensorSpec("B", domains.positive())},
}
WEIGHTED = "sum(w[b] * (p[b, c] - y[b, c])**2 for b in B for c in C) / (B * C)"


def normalised_by_weights(p, y, w):
    return (w[:, None] * (p - y) ** 2).sum() / (w.sum() * p.shape[1])


def test_a_loss_that_is_wrong_in_value_alone_is_found():
    spec = LossSpec("wrong", {"mine": normalised_by_weights}, formula=WEIGHTED, **PAIR)
    found = verify(spec, profile="quick", rules=["G", "E01"])
    assert {(f.implementation, f.rule) for f in found.findings if f.severity == "error"} == {("mine", "E01")}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sum(w[b] * q[b] for b in B)", "column 12: nothing declares 'q'"),
        ("sum(w[b, c] for b in B for c in C)", "column 5: w has 1 axis, but got 2 indices"),
        ("sum(w[b] for b in D)", "column 19: nothing says what size 'D' is"),
        ("sum(w[b] for b in B", "column 4: it is no Python expression"),
        ("sum(p[b] * w for b in B) + dot(p, w)", "column 28: arrays of 2 axes and 1 axis meet"),
        ("w.sum()", "'w.sum' is no function"),
        ("open('x')", "'open' is no function"),
        ("(lambda: 1)()", "is no function"),
        ("sum(w[b] for b in w)", "nothing says what size 'w' is"),
        ("exp(w, 2)", "exp takes 1 value, but got 2"),
        ("log_softmax(w[0])", "takes an array"),
        ("[w[b] for b in B if w[b] > 0]", "rows of different lengths"),
        ("w[1:]", "a slice has no place"),
        ("'text'", "expected a number"),
        ("", "empty formula"),
        ("1 + " * 1500 + "1", "characters"),
        ("-" * 1500 + "1", "nested too deep|cannot be read"),
    ],
)
def test_what_is_no_formula_is_refused_at_its_column(text, says):
    with pytest.raises(DeclarationError, match=says):
        LossSpec("refused", {"mine": normalised_by_weights}, formula=text, **PAIR)


def test_an_implementation_may_not_take_the_name():
    with pytest.raises(DeclarationError, match="rename it"):
        LossSpec("twice", {"formula": normalised_by_weights}, formula=WEIGHTED, **PAIR)


def values(text, **tensors):
    """(by loops, vectorized)"""
    dims = {name: " ".join("NMK"[: tensor.ndim]) for name, tensor in tensors.items()}
    formula = Formula(text, dims)
    return tuple(formula.evaluated(tensors, how) for how in (Loops, Vectors))


X = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
K = torch.tensor([2, 0, 1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sum(x[i] for i in N)", 1.5),
        ("mean(x[i] for i in N if x[i] > 0)", 1.75),
        ("max(x[i] for i in N if i != 2)", 0.5),
        ("min(x)", -2.0),
        ("sum(1 for i in N for j in N if j > i)", 3.0),
        ("sum(i / N for i in N)", 1.0),
        ("sum(k[i] / 2 for i in N)", 1.5),
        ("sum(x[k[i]] * i for i in N)", -4 + 0.5),
        ("sum(log(x[i]) if x[i] > 0 else 7 for i in N)", 7 + 0.4054651081081644),
        ("sum(x[j] for i in N for j in range(i, N))", 0.5 - 4 + 9),
        ("sum(x[j] for i in N for j in range(k[i]))", 0.5 - 2 + 0.5),
        ("max(3, x[0], N + 1)", 4.0),
        ("2 ** 10 // 3 % 7", 341 % 7),
        ("sum(s for s in [x[0] + 1])", 1.5),
        ("sum(x[i] for i in N if not (x[i] < 0 or i == 0))", 3.0),
        ("sum(x[i] for i in N if 0 < x[i] < 1 and i >= 0)", 0.5),
        ("norm(x) ** 2", 13.25),
        ("dot([i for i in N], x)", 4.0),
        ("sum([x[i] * x[j] for i in N for j in N])", 2.25),
        ("-abs(-x[1]) + +1", -1.0),
        ("logsumexp(x[i] for i in N if x[i] > 100)", -torch.inf),
        ("mean(x[i] for i in N if x[i] > 100)", torch.nan),
        ("1 / 0 - 1 / 0", torch.nan),
        ("10.0 ** 400", torch.inf),
        ("prod(x[i] for i in N if i != 1)", 1.5),
        ("prod(2 for i in N for j in N) + prod(x)", 512 - 3.0),
        ("prod(x[i] for i in N if x[i] > 100)", 1.0),
        ("sum(x[i] for i in N if any(k[j] == i and x[j] > 0 for j in N))", 3.0 - 2.0),
        ("sum(x[i] for i in N if all(x[j] <= x[i] for j in N))", 3.0),
        ("sum(1 for i in N if any(x[j] > 0 for j in range(i, i)) or not all(0 for j in range(i, i)))", 0.0),
        ("any(x[i] > 2 for i in N) + all(x) + any(x < -2)", 2.0),
        ("floor(x[0]) + ceil(x[0]) + round(x[2]) + erf(0) + acos(1) + atan(0) + tan(0) + cosh(0) + lgamma(1)", 5.0),
    ],
)
def test_a_formula_means_what_python_says(text, expected):
    for value in values(text, x=X, k=K):
        assert value.dtype == torch.float64
        torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64), equal_nan=True)


def test_a_value_without_a_sum_is_one_number_for_each_index():
    for value in values("(x[i] * k[j] for i in N for j in N)", x=X, k=K):
        assert torch.equal(value, X[:, None] * K)


def test_what_a_condition_leaves_out_is_harmless_for_a_function_that_is_steep_at_one():
    x = torch.tensor([1.0, 0.5], dtype=torch.float64, requires_grad=True)
    formula = Formula("sum(acos(x[i]) for i in N if x[i] < 1)", {"x": "N"})
    for how in (Loops, Vectors):
        (gradient,) = torch.autograd.grad(formula.evaluated({"x": x}, how), x)
        torch.testing.assert_close(gradient, torch.tensor([0.0, -(0.75**-0.5)], dtype=torch.float64))


@pytest.mark.parametrize("how", [Loops, Vectors])
def test_a_sum_of_nothing_has_a_gradient_of_zero(how):
    x = torch.tensor([1.0, torch.inf], requires_grad=True)
    value = Formula("sum(x[i] for i in N if x[i] < 0)", {"x": "N"}).evaluated({"x": x}, how)
    assert (value.item(), torch.autograd.grad(value, x)[0].tolist()) == (0, [0, 0])


def test_a_tensor_of_a_structure_is_named_as_it_is_declared():
    def detection(outputs, labels):
        return (outputs["boxes"] - labels).square().mean()

    boxes = {"outputs": {"boxes": TensorSpec("B 4")}, "labels": TensorSpec("B 4")}
    text = "mean((outputs.boxes[b, i] - labels[b, i])**2 for b in B for i in range(4))"
    assert wrong(LossSpec("dotted", {"detection": detection}, inputs=boxes, formula=text)) == []
    with pytest.raises(
        DeclarationError, match=r"column 6: nothing declares 'outputs.bxes'; did you mean 'outputs_boxes'"
    ):
        LossSpec("dotted", {"detection": detection}, inputs=boxes, formula="mean(outputs.bxes)")


@pytest.mark.parametrize("text", ["x[N]", "sum(x[i + 1] for i in N)", "x[k[0] - 3]"])
def test_an_index_outside_of_its_axis_raises(text):
    formula = Formula(text, {"x": "N", "k": "N"})
    for how in (Loops, Vectors):
        with pytest.raises(IndexError, match="outside of an axis of 3"):
            formula.evaluated({"x": X, "k": K}, how)


def test_what_a_condition_leaves_out_reaches_no_gradient():
    x = X.clone().requires_grad_()
    for how in (Loops, Vectors):
        formula = Formula("sum(sqrt(x[i]) / x[i] for i in N if x[i] > 0)", {"x": "N"})
        (gradient,) = torch.autograd.grad(formula.evaluated({"x": x}, how), x)
        torch.testing.assert_close(gradient, torch.where(X > 0, -0.5 * X.abs() ** -1.5, 0.0))


def test_large_sizes_are_vectorized_and_small_ones_looped(monkeypatch):
    formula = Formula("sum(x[i] for i in N)", {"x": "N"})
    used = []
    evaluated = Formula.evaluated
    monkeypatch.setattr(Formula, "evaluated", lambda self, given, how: used.append(how) or evaluated(self, given, how))
    formula(x=torch.ones(10))
    formula(x=torch.ones(100_000))
    assert used == [Loops, Vectors]


def test_a_size_is_known_by_an_axis_that_has_one_more_or_less() -> None:
    tensors = {"z": "B", "y": "B", "thresholds": "K-1"}
    formula = Formula("sum(thresholds[k] * z[b] for b in B for k in range(K - 1)) / K", tensors)
    given = {"z": torch.tensor([1.0, 2.0]), "y": torch.tensor([0, 3]), "thresholds": torch.tensor([1.0, 2.0, 3.0])}
    assert float(formula(**given)) == 3 * 6 / 4
    with pytest.raises(DeclarationError, match=re.escape("(B, K)")):
        Formula("sum(z[b] for b in B for m in M)", tensors)
    with pytest.raises(ValueError, match="a has 3 where its dims say K-1 = 1"):
        dims.unify({"a": "K-1", "b": "K"}, {"a": (3,), "b": (2,)})
