"""What the losses refuse alike: what is no tensor, and contexts whose values no loss is defined for."""

from __future__ import annotations

import copy
import inspect
import math

import pytest
import torch
from loss_examples import EVERY_IMPLEMENTATION, IDS, draw, evaluate
from torch._subclasses.fake_tensor import FakeTensorMode

import losses
from losses import (
    CostMatrixCrossEntropyLoss,
    DynamicWeightedLoss,
    FocalLoss,
    GraphDistanceLoss,
    LaplacianSmoothnessLoss,
    LogitAdjustmentLoss,
    MahalanobisLoss,
    MahalanobisProductLoss,
    MemoryBankContrastiveLoss,
)

every_implementation = pytest.mark.parametrize(("spec", "implementation"), EVERY_IMPLEMENTATION, ids=IDS)


@every_implementation
def test_inputs_that_are_lists_or_arrays_are_refused_with_what_came_and_what_to_write(spec, implementation):
    tensors = draw(spec)
    for name in spec.inputs:
        for wrong, came in ((tensors[name].tolist(), "list"), (tensors[name].numpy(), "ndarray")):
            with pytest.raises(TypeError, match=rf"{name} has type {came}, expected an? .*; write torch\."):
                evaluate(spec, implementation, tensors | {name: wrong})


@every_implementation
def test_a_context_that_is_a_list_or_an_array_is_refused_with_what_came_and_what_to_write(spec, implementation):
    tensors = draw(spec)
    (name,) = spec.context
    for wrong, came in ((tensors[name].tolist(), "list"), (tensors[name].numpy(), "ndarray")):
        expected = rf"{name} has type {came}, expected a torch.Tensor; write torch.as_tensor\({name}\)"
        with pytest.raises(TypeError, match=expected):
            evaluate(spec, implementation, tensors | {name: wrong})


def test_edges_and_their_weights_that_are_lists_are_refused():
    with pytest.raises(TypeError, match=r"edges has type list, expected a torch.Tensor"):
        GraphDistanceLoss.from_edges([[0], [1]], 2)
    with pytest.raises(TypeError, match=r"weights has type list, expected a torch.Tensor"):
        GraphDistanceLoss.from_edges(torch.tensor([[0], [1]]), 2, [1.0])


FROM_ZERO_UP = {
    "weights": (DynamicWeightedLoss, (4,)),
    "alpha": (FocalLoss, (4,)),
    "priors": (LogitAdjustmentLoss, (4,)),
    "costs": (CostMatrixCrossEntropyLoss, (4, 4)),
    "adjacency": (LaplacianSmoothnessLoss, (4, 4)),
}
each_context_from_zero_up = pytest.mark.parametrize("name", FROM_ZERO_UP)


def spoilt(shape, value):
    """Ones, and the value at the second place of the last row and at the last."""
    context = torch.ones(shape)
    context.view(-1)[[1 - shape[-1], -1]] = value
    return context


@each_context_from_zero_up
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_context_from_zero_up_is_refused_with_the_first_value_that_is_not(name, value):
    module, shape = FROM_ZERO_UP[name]
    place = [1] if len(shape) == 1 else [3, 1]
    expected = f"{name}{place} is {value}, expected finite and from 0 up".replace("[", r"\[")
    with pytest.raises(ValueError, match=expected):
        module(spoilt(shape, value))


@each_context_from_zero_up
def test_a_context_without_values_to_read_is_accepted(name):
    module, shape = FROM_ZERO_UP[name]
    assert all(buffer.is_meta for buffer in module(torch.empty(shape, device="meta")).buffers())
    with FakeTensorMode():
        assert list(module(torch.empty(shape)).buffers())


@each_context_from_zero_up
def test_values_that_are_loaded_or_copied_are_not_looked_at(name):
    module, shape = FROM_ZERO_UP[name]
    loss = module(torch.ones(shape))
    for buffer in loss.buffers():
        buffer.fill_(-1)
    copied = copy.deepcopy(loss)
    loss.load_state_dict(copied.state_dict())
    assert all((buffer == -1).all() for buffer in loss.buffers())


def test_weights_that_are_mapped_over_are_not_read():
    predictions, labels = torch.ones(2), torch.zeros(2)
    weights = torch.tensor([[1.0, 1.0], [2.0, -2.0]])
    losses = torch.func.vmap(lambda w: DynamicWeightedLoss(w)(predictions, labels))(weights)
    assert losses.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_the_weight_of_a_sparse_edge_is_named_by_its_nodes(layout):
    adjacency = torch.zeros(3, 3)
    adjacency[0, 1], adjacency[2, 0] = 1, -0.5
    with pytest.raises(ValueError, match=r"adjacency\[2, 0\] is -0.5, expected finite and from 0 up"):
        LaplacianSmoothnessLoss(adjacency.to_sparse(layout=layout))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weighted_edges_should_be_finite_and_only_those_above_zero_count(value):
    adjacency = torch.tensor([[0.0, value], [0.0, 0.0]])
    with pytest.raises(ValueError, match=rf"adjacency\[0, 1\] is {value}, expected finite$"):
        GraphDistanceLoss(adjacency, weighted=True)
    with pytest.raises(ValueError, match=rf"adjacency\[1, 0\] is {value}, expected finite$"):
        GraphDistanceLoss.from_edges(torch.tensor([[1], [0]]), 2, torch.tensor([value]))
    assert GraphDistanceLoss(torch.tensor([[0.0, -1.0], [2.0, 0.0]]), weighted=True)(torch.ones(2, 1)) == -2


@pytest.mark.parametrize("module", [MahalanobisLoss, MahalanobisProductLoss])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_precision_should_be_finite(module, value):
    with pytest.raises(ValueError, match=rf"precision\[0, 1\] is {value}, expected finite$"):
        module(torch.tensor([[1.0, value], [0.0, 1.0]]))


@pytest.mark.parametrize("temperature", [0.0, math.inf, math.nan])
def test_a_temperature_should_be_above_zero_and_finite(temperature):
    with pytest.raises(ValueError, match=rf"temperature={temperature}, expected above zero and finite"):
        MemoryBankContrastiveLoss(torch.ones(2, 2), temperature=temperature)


def test_every_public_loss_class_and_every_reference_can_be_imported_from_the_package():
    modules = [value for name, value in vars(losses).items() if inspect.ismodule(value) and not name.startswith("_")]
    defined = {
        name
        for module in modules
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__
        and (name.startswith("naive_") or (inspect.isclass(value) and name.endswith("Loss") and name[0] != "_"))
    }
    assert defined == set(losses.__all__) - {"SPECS"}
    assert all(hasattr(losses, name) for name in losses.__all__)
