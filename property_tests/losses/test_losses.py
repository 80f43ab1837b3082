"""What all reference losses promise: their value, shapes, dtypes, reductions and derivatives, loops and tensors alike."""

from __future__ import annotations

import math

import pytest
import torch
from loss_examples import EVERY_IMPLEMENTATION, IDS, IMPLEMENTATIONS, WORKED, draw, evaluate, gradient
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from losses import SPECS, dynamic_weighted, graph_distance, weighted_mse

PAIRED = [spec for spec in SPECS if "predictions" in spec.inputs]
each_loss = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
each_paired_loss = pytest.mark.parametrize("spec", PAIRED, ids=lambda spec: spec.name)
each_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
every_implementation = pytest.mark.parametrize(("spec", "implementation"), EVERY_IMPLEMENTATION, ids=IDS)
each_example = pytest.mark.parametrize("example", WORKED, ids=lambda example: example.spec.name)
LOW_PRECISION = (torch.float16, torch.bfloat16)


@each_example
@each_implementation
def test_the_worked_example_comes_out_in_float64(example, implementation):
    assert evaluate(example.spec, implementation, example.tensors).item() == pytest.approx(example.value, rel=1e-15)


@each_example
@each_implementation
@pytest.mark.parametrize("dtype", [torch.float32, *LOW_PRECISION])
def test_the_worked_example_comes_out_to_the_precision_of_lower_dtypes(example, implementation, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in example.tensors.items()}
    # Labels and predictions differ by tenths of themselves, so rounding the inputs alone moves the loss by some 30 eps.
    rel = 32 * torch.finfo(dtype).eps
    assert evaluate(example.spec, implementation, tensors).item() == pytest.approx(example.value, rel=rel)


@each_loss
def test_vectorized_gives_the_value_and_gradient_of_the_loops(spec):
    for seed in range(3):
        tensors = draw(spec, seed)
        torch.testing.assert_close(*(evaluate(spec, name, tensors) for name in IMPLEMENTATIONS), rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(*(gradient(spec, name, tensors) for name in IMPLEMENTATIONS), rtol=1e-12, atol=1e-14)


@each_loss
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_vectorized_gives_the_loops_under_every_reduction(spec, reduction):
    tensors = draw(spec, 5)
    torch.testing.assert_close(*(evaluate(spec, name, tensors, reduction=reduction) for name in IMPLEMENTATIONS))
    torch.testing.assert_close(*(gradient(spec, name, tensors, reduction=reduction) for name in IMPLEMENTATIONS))


@every_implementation
def test_none_sums_to_sum_and_averages_to_mean(spec, implementation):
    tensors = draw(spec, 1)
    none, total, mean = (evaluate(spec, implementation, tensors, reduction=r) for r in ("none", "sum", "mean"))
    given = tensors[spec.differentiable[0]]
    assert none.shape == (given.shape if spec.differentiable[0] == "predictions" else given.shape[:-1])
    torch.testing.assert_close(none.sum(), total)
    torch.testing.assert_close(none.mean(), mean)


@every_implementation
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *LOW_PRECISION])
def test_the_loss_and_its_gradient_have_the_dtype_of_the_predictions(spec, implementation, dtype):
    tensors = draw(spec, 2, dtype)
    assert evaluate(spec, implementation, tensors).dtype == dtype
    assert gradient(spec, implementation, tensors).dtype == dtype


@each_paired_loss
@each_implementation
def test_labels_of_another_dtype_do_not_change_the_dtype_of_the_loss(spec, implementation):
    tensors = draw(spec, 2, torch.float32)
    tensors["labels"] = tensors["labels"].double()
    assert evaluate(spec, implementation, tensors).dtype == torch.float32


@every_implementation
def test_integer_predictions_are_refused(spec, implementation):
    name = spec.differentiable[0]
    tensors = draw(spec)
    tensors[name] = tensors[name].long()
    with pytest.raises(TypeError, match=f"{name} has dtype torch.int64, expected floating"):
        evaluate(spec, implementation, tensors)


@each_implementation
@pytest.mark.parametrize("spec", [weighted_mse.SPEC, dynamic_weighted.SPEC], ids=lambda spec: spec.name)
@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_low_precision_sums_of_many_elements_do_not_stall_or_overflow(spec, implementation, dtype):
    sizes = {"batch": (8,), "H": 16, "W": 32, "B": 64, "rest": (64,)}
    tensors = draw(spec, 3, dtype, **sizes)
    tensors["predictions"] = tensors["labels"] + 5
    exact = evaluate(spec, "vectorized", {name: tensor.double() for name, tensor in tensors.items()})
    for reduction in ("mean", "weighted_mean"):
        found = evaluate(spec, implementation, tensors, reduction=reduction).item()
        expected = 25.0 if reduction == "weighted_mean" else exact.item()
        assert found == pytest.approx(expected, rel=8 * torch.finfo(dtype).eps)


@every_implementation
def test_first_and_second_derivatives_are_those_of_the_value(spec, implementation):
    name = spec.differentiable[0]
    tensors = draw(spec, 4, batch=(2,), H=2, W=3, B=3, C=4, T=5, rest=(2,), N=4, D=3)
    point = tensors[name].requires_grad_()

    def loss(x):
        return evaluate(spec, implementation, {**tensors, name: x})

    assert gradcheck(loss, point)
    assert gradgradcheck(loss, point)


@each_paired_loss
@each_implementation
def test_labels_have_a_gradient_too(spec, implementation):
    tensors = draw(spec, 4)
    tensors["labels"].requires_grad_()
    (found,) = torch.autograd.grad(evaluate(spec, implementation, tensors), tensors["labels"])
    torch.testing.assert_close(found, -gradient(spec, implementation, tensors))


@every_implementation
def test_an_unknown_reduction_is_refused_with_those_that_exist(spec, implementation):
    with pytest.raises(ValueError, match=r"reduction='average', expected one of \['"):
        evaluate(spec, implementation, draw(spec), reduction="average")


@every_implementation
def test_declared_error_inputs_are_refused_with_both_shapes(spec, implementation):
    assert spec.error_inputs
    for bad in spec.error_inputs:
        tensors = draw(spec)
        with pytest.raises(bad.exception, match=bad.match):
            evaluate(spec, implementation, {**tensors, **bad.change(tensors)})


BAD_SHAPES = [
    (weighted_mse.SPEC, {"labels": (2, 3)}, r"labels has shape \[2, 3\], but predictions has shape \[4, 2, 3\]"),
    (weighted_mse.SPEC, {"labels": (4, 3, 2)}, r"labels has shape \[4, 3, 2\], but predictions has shape \[4, 2, 3\]"),
    (weighted_mse.SPEC, {"mask": (3, 2)}, r"mask has shape \[3, 2\], but predictions has shape \[4, 2, 3\]"),
    (weighted_mse.SPEC, {"mask": (1, 3)}, r"mask has shape \[1, 3\], but predictions has shape \[4, 2, 3\]"),
    (weighted_mse.SPEC, {"mask": (3,)}, r"mask has shape \[3\], expected grid_axes=2 axes"),
    (weighted_mse.SPEC, {"predictions": (3,), "labels": (3,)}, r"mask has shape \[2, 3\], but predictions .* \[3\]"),
    (dynamic_weighted.SPEC, {"labels": (4,)}, r"labels has shape \[4\], but predictions has shape \[4, 1\]"),
    (dynamic_weighted.SPEC, {"weights": (1,)}, r"weights has shape \[1\], but predictions has shape \[4, 1\]"),
    (dynamic_weighted.SPEC, {"weights": (4, 1)}, r"weights has shape \[4, 1\], expected one axis, \[B\]"),
    (dynamic_weighted.SPEC, {"predictions": (), "labels": ()}, r"predictions has shape \[\], expected \[B, ...\]"),
    (graph_distance.SPEC, {"embeddings": (3, 2)}, r"embeddings has shape \[3, 2\], but adjacency has shape \[4, 4\]"),
    (graph_distance.SPEC, {"embeddings": (1, 4, 2)}, r"embeddings has shape \[1, 4, 2\], .* shape \[4, 4\]"),
    (graph_distance.SPEC, {"embeddings": (4, 0)}, r"embeddings has shape \[4, 0\], expected \[N, D\] with D >= 1"),
    (graph_distance.SPEC, {"adjacency": (4, 3)}, r"adjacency has shape \[4, 3\], expected square"),
]
GOOD_SHAPES = {
    "weighted_mse": {"predictions": (4, 2, 3), "labels": (4, 2, 3), "mask": (2, 3)},
    "dynamic_weighted": {"predictions": (4, 1), "labels": (4, 1), "weights": (4,)},
    "graph_distance": {"embeddings": (4, 2), "adjacency": (4, 4)},
}


@pytest.mark.parametrize(("spec", "shapes", "message"), BAD_SHAPES, ids=lambda part: str(part) if part else "")
@each_implementation
def test_a_shape_that_is_not_declared_is_refused_with_both_shapes(spec, shapes, message, implementation):
    tensors = {name: torch.ones(shape) for name, shape in {**GOOD_SHAPES[spec.name], **shapes}.items()}
    with pytest.raises(ValueError, match=message):
        evaluate(spec, implementation, tensors)


@pytest.mark.parametrize("spec", [weighted_mse.SPEC, dynamic_weighted.SPEC, graph_distance.SPEC], ids=lambda s: s.name)
def test_the_shapes_that_the_refusals_start_from_are_accepted(spec):
    tensors = {name: torch.ones(shape) for name, shape in GOOD_SHAPES[spec.name].items()}
    for implementation in IMPLEMENTATIONS:
        assert torch.isfinite(evaluate(spec, implementation, tensors))


@every_implementation
def test_a_batch_of_one_is_accepted(spec, implementation):
    tensors = draw(spec, 6, batch=(1,), B=1, N=1)
    assert torch.isfinite(evaluate(spec, implementation, tensors))
    assert torch.isfinite(gradient(spec, implementation, tensors)).all()


@every_implementation
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_an_empty_batch_gives_zero_and_an_empty_gradient(spec, implementation, reduction):
    empty = {"N": 0} if spec.inputs[spec.differentiable[0]].dims.startswith("N") else {"batch": (0,), "B": 0}
    tensors = draw(spec, 6, **empty)
    assert evaluate(spec, implementation, tensors, reduction=reduction).sum() == 0
    found = gradient(spec, implementation, tensors, reduction=reduction)
    assert found.shape == tensors[spec.differentiable[0]].shape


@every_implementation
def test_no_leading_axis_and_many_leading_axes_are_accepted(spec, implementation):
    for batch, rest in (((), ()), ((2, 1, 3), (2, 3, 1))):
        tensors = draw(spec, 7, batch=batch, rest=rest)
        assert evaluate(spec, implementation, tensors).shape == ()


@every_implementation
def test_the_layout_in_memory_does_not_matter(spec, implementation):
    tensors = draw(spec, 8)
    strided = {
        name: torch.stack([tensor, tensor], -1).transpose(0, -2).contiguous().transpose(0, -2)[..., 1]
        for name, tensor in tensors.items()
    }
    assert any(not tensor.is_contiguous() for tensor in strided.values())
    torch.testing.assert_close(evaluate(spec, implementation, strided), evaluate(spec, implementation, tensors))


@every_implementation
def test_nothing_that_is_given_is_modified(spec, implementation):
    tensors = draw(spec, 9)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    gradient(spec, implementation, tensors)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, before[name])


@each_paired_loss
@each_implementation
@pytest.mark.parametrize("missing", [math.nan, math.inf, 1e30])
def test_what_has_weight_zero_is_removed_from_value_and_gradient_whatever_it_holds(spec, implementation, missing):
    (context,) = spec.context
    tensors = draw(spec, 10)
    tensors[context] = torch.ones_like(tensors[context])
    tensors[context].view(-1)[0] = 0
    if "corner" in tensors:
        tensors["corner"] = torch.zeros(2, dtype=torch.int64)
    if "indices" in tensors:
        tensors["indices"] = torch.arange(4)
    at = (0, ...) if context == "weights" else (..., *[0] * tensors[context].ndim)
    dirty = {name: tensor.clone() for name, tensor in tensors.items()}
    dirty["labels"][at] = missing
    torch.testing.assert_close(evaluate(spec, implementation, dirty), evaluate(spec, implementation, tensors))
    found = gradient(spec, implementation, dirty)
    torch.testing.assert_close(found, gradient(spec, implementation, tensors))
    assert (found[at] == 0).all()


@each_paired_loss
@each_implementation
@pytest.mark.parametrize("reduction", ["mean", "sum", "weighted_mean"])
def test_weights_that_are_all_zero_give_zero_with_gradient_zero(spec, implementation, reduction):
    (context,) = spec.context
    tensors = draw(spec, 11)
    tensors[context] = torch.zeros_like(tensors[context])
    assert evaluate(spec, implementation, tensors, reduction=reduction) == 0
    found = gradient(spec, implementation, tensors, reduction=reduction)
    assert torch.equal(found, torch.zeros_like(tensors["predictions"]))


@each_paired_loss
@each_implementation
def test_weighted_mean_is_the_sum_over_the_sum_of_the_weights_of_all_elements(spec, implementation):
    tensors = draw(spec, 12)
    error = (tensors["predictions"] - tensors["labels"]) ** 2
    weighted = evaluate(spec, implementation, tensors, reduction="none")
    expected = weighted.sum() / (weighted / error).sum()
    torch.testing.assert_close(evaluate(spec, implementation, tensors, reduction="weighted_mean"), expected)


@each_implementation
def test_weight_two_counts_as_two_copies_in_a_weighted_mean(implementation):
    spec = dynamic_weighted.SPEC_WEIGHTED_MEAN
    once = draw(spec, 13, B=3)
    once["weights"] = torch.tensor([1.0, 2.0, 1.0])
    copies = {name: tensor[[0, 1, 1, 2]] for name, tensor in once.items()}
    copies["weights"] = torch.ones(4)
    torch.testing.assert_close(evaluate(spec, implementation, once), evaluate(spec, implementation, copies))


def test_weighted_mean_is_refused_where_there_are_no_weights():
    with pytest.raises(ValueError, match=r"reduction='weighted_mean', expected one of \['sum', 'mean', 'none'\]"):
        graph_distance.GraphDistanceLoss(torch.eye(2), reduction="weighted_mean")


@each_paired_loss
@each_implementation
def test_weights_of_one_give_the_mean_squared_error(spec, implementation):
    (context,) = spec.context
    tensors = draw(spec, 14)
    tensors[context] = torch.ones_like(tensors[context])
    expected = functional.mse_loss(tensors["predictions"], tensors["labels"])
    torch.testing.assert_close(evaluate(spec, implementation, tensors), expected)
