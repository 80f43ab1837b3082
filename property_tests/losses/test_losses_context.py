"""Contexts: larger than the batch, of any dtype, and as state of the module."""

from __future__ import annotations

import copy
import io
import pickle
import re

import pytest
import torch
from loss_examples import IMPLEMENTATIONS, draw, evaluate, gradient

from losses import (
    SPECS,
    DynamicWeightedLoss,
    GraphDistanceLoss,
    WeightedMSELoss,
    dynamic_weighted,
    graph_distance,
    weighted_mse,
)

each_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
PLAIN = (weighted_mse.SPEC, graph_distance.SPEC, dynamic_weighted.SPEC)
MODULES = {
    "mask": lambda dtype: WeightedMSELoss(torch.tensor([[0.1, 1.0]], dtype=dtype)),
    "adjacency": lambda dtype: GraphDistanceLoss(torch.tensor([[0, 1], [0, 0]], dtype=dtype), format="dense"),
    "weights": lambda dtype: DynamicWeightedLoss(torch.tensor([0.1, 1.0], dtype=dtype)),
}
each_module = pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)


def buffer(module):
    (found,) = module.buffers()
    return found


# ---- larger than the batch ---------------------------------------------------------------------------------------------


@each_implementation
@pytest.mark.parametrize("corner", [(0, 0), (1, 3), (3, 3)])
def test_a_crop_is_the_mask_sliced_by_hand(implementation, corner):
    tensors = draw(weighted_mse.SPEC_CROPPED)
    row, column = corner
    cropped = tensors | {"corner": torch.tensor(corner)}
    sliced = {k: v for k, v in tensors.items() if k != "corner"}
    sliced["mask"] = tensors["mask"][row : row + 3, column : column + 5]
    value = evaluate(weighted_mse.SPEC_CROPPED, implementation, cropped)
    torch.testing.assert_close(value, evaluate(weighted_mse.SPEC, implementation, sliced), rtol=0, atol=0)


@each_implementation
def test_indices_are_the_weights_sliced_by_hand_also_where_they_repeat(implementation):
    tensors = draw(dynamic_weighted.SPEC_INDEXED) | {"indices": torch.tensor([5, 0, 5, 2])}
    sliced = {k: v for k, v in tensors.items() if k != "indices"} | {"weights": tensors["weights"][[5, 0, 5, 2]]}
    value = evaluate(dynamic_weighted.SPEC_INDEXED, implementation, tensors)
    torch.testing.assert_close(value, evaluate(dynamic_weighted.SPEC, implementation, sliced), rtol=0, atol=0)


@each_implementation
@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_coo])
def test_nodes_are_the_graph_sliced_by_hand_also_where_they_repeat(implementation, layout):
    tensors = draw(graph_distance.SPEC_INDEXED) | {"nodes": torch.tensor([5, 0, 5, 2])}
    chosen = tensors["adjacency"][[5, 0, 5, 2]][:, [5, 0, 5, 2]]
    sliced = {"embeddings": tensors["embeddings"], "adjacency": chosen}
    given = tensors if layout == torch.strided else tensors | {"adjacency": tensors["adjacency"].to_sparse()}
    spec = graph_distance.SPEC_INDEXED
    value = evaluate(spec, implementation, given)
    torch.testing.assert_close(value, evaluate(graph_distance.SPEC, implementation, sliced))
    found = gradient(spec, implementation, given)
    torch.testing.assert_close(found, gradient(graph_distance.SPEC, implementation, sliced))


OUTSIDE = [
    (weighted_mse.SPEC_CROPPED, "corner", [-1, 0]),
    (weighted_mse.SPEC_CROPPED, "corner", [0, -1]),
    (weighted_mse.SPEC_CROPPED, "corner", [4, 0]),
    (weighted_mse.SPEC_CROPPED, "corner", [0, 4]),
    (dynamic_weighted.SPEC_INDEXED, "indices", [0, 1, 2, 6]),
    (dynamic_weighted.SPEC_INDEXED, "indices", [0, 1, 2, -1]),
    (graph_distance.SPEC_INDEXED, "nodes", [0, 1, 2, 6]),
    (graph_distance.SPEC_INDEXED, "nodes", [0, 1, 2, -1]),
]
each_outside = pytest.mark.parametrize(
    ("spec", "name", "position"), OUTSIDE, ids=lambda part: getattr(part, "name", str(part))
)


@each_outside
@each_implementation
def test_a_position_outside_the_context_is_refused_and_never_counts_from_the_end(spec, name, position, implementation):
    tensors = draw(spec) | {name: torch.tensor(position)}
    with pytest.raises((IndexError, RuntimeError), match=r"index|INDICES|corner|expected in|should be in"):
        evaluate(spec, implementation, tensors)


@pytest.mark.parametrize("node", [6, -1])
def test_a_node_outside_a_sparse_graph_is_refused(node):
    tensors = draw(graph_distance.SPEC_INDEXED) | {"nodes": torch.tensor([0, 1, 2, node])}
    tensors["adjacency"] = tensors["adjacency"].to_sparse()
    with pytest.raises((IndexError, RuntimeError), match=r"index|INDICES|corner|expected in|should be in"):
        evaluate(graph_distance.SPEC_INDEXED, "vectorized", tensors)


INDEXED = [
    (weighted_mse.SPEC_CROPPED, "corner"),
    (dynamic_weighted.SPEC_INDEXED, "indices"),
    (graph_distance.SPEC_INDEXED, "nodes"),
]
each_indexed = pytest.mark.parametrize(("spec", "name"), INDEXED, ids=[name for _, name in INDEXED])


@each_indexed
@each_implementation
def test_positions_that_are_no_integer_tensor_are_refused_with_what_to_write(spec, name, implementation):
    tensors = draw(spec)
    for wrong, came in ((tensors[name].double(), "dtype torch.float64"), ([0, 1], "type list")):
        with pytest.raises(TypeError, match=rf"{name} has {came}, expected an int64 tensor; write torch.tensor"):
            evaluate(spec, implementation, tensors | {name: wrong})


@each_indexed
@each_implementation
def test_positions_of_another_shape_are_refused_with_both_shapes(spec, name, implementation):
    tensors = draw(spec)
    wrong = tensors[name].unsqueeze(-1)
    came, should = list(wrong.shape), list(tensors[name].shape)
    with pytest.raises(ValueError, match=re.escape(f"{name} has shape {came}, expected shape {should}")):
        evaluate(spec, implementation, tensors | {name: wrong})


@each_indexed
def test_positions_may_be_int32(spec, name):
    tensors = draw(spec)
    narrow = tensors | {name: tensors[name].int()}
    assert evaluate(spec, "vectorized", narrow) == evaluate(spec, "vectorized", tensors)


@each_implementation
def test_a_crop_larger_than_the_mask_is_refused_with_both_shapes(implementation):
    tensors = draw(weighted_mse.SPEC_CROPPED) | {"mask": torch.ones(2, 9)}
    with pytest.raises(ValueError, match=r"mask has shape \[2, 9\], but predictions has shape \[2, 3, 5\]"):
        evaluate(weighted_mse.SPEC_CROPPED, implementation, tensors)


# ---- dtypes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@each_implementation
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32])
def test_a_context_of_zeros_and_ones_gives_the_same_loss_in_every_dtype(spec, implementation, kind):
    (context,) = spec.context
    tensors = draw(spec)
    tensors[context] = (tensors[context] > 0.9).double()
    other = tensors | {context: tensors[context].to(kind)}
    assert evaluate(spec, implementation, other) == evaluate(spec, implementation, tensors)
    assert torch.equal(gradient(spec, implementation, other), gradient(spec, implementation, tensors))


@each_implementation
@pytest.mark.parametrize("spec", [weighted_mse.SPEC, dynamic_weighted.SPEC], ids=lambda spec: spec.name)
def test_a_float64_context_is_not_rounded_to_float32(spec, implementation):
    (context,) = spec.context
    tensors = draw(spec)
    tensors[context] = torch.full_like(tensors[context], 1 / 3)
    ones = tensors | {context: torch.ones_like(tensors[context])}
    third = evaluate(spec, implementation, tensors).item()
    assert third == pytest.approx(evaluate(spec, implementation, ones).item() / 3, rel=1e-15)


@each_implementation
@pytest.mark.parametrize("spec", PLAIN, ids=lambda spec: spec.name)
def test_a_float64_context_does_not_widen_the_loss_of_float32_predictions(spec, implementation):
    (context,) = spec.context
    tensors = draw(spec, dtype=torch.float32)
    tensors[context] = tensors[context].double()
    assert evaluate(spec, implementation, tensors).dtype == torch.float32


@each_implementation
@pytest.mark.parametrize("spec", PLAIN, ids=lambda spec: spec.name)
def test_no_gradient_flows_into_a_context_that_requires_one(spec, implementation):
    (context,) = spec.context
    tensors = draw(spec)
    trained = tensors[context].double().requires_grad_()
    assert torch.equal(
        gradient(spec, implementation, tensors | {context: trained}), gradient(spec, implementation, tensors)
    )
    assert trained.grad is None
    assert not evaluate(spec, implementation, tensors | {context: trained}).requires_grad


# ---- state -------------------------------------------------------------------------------------------------------------


@each_module
def test_the_context_is_a_buffer_and_keeps_float64(make):
    module = make(torch.float64)
    assert buffer(module).dtype == torch.float64
    assert list(module.state_dict()) == [name for name, _ in module.named_buffers()]


@each_module
def test_the_context_follows_to(make):
    module = make(torch.float32)
    assert buffer(module.to(torch.float64)).dtype == torch.float64
    assert buffer(module.half()).dtype == torch.float16
    assert buffer(module.to("meta")).device.type == "meta"


@each_module
def test_the_context_survives_state_dict_pickle_and_deepcopy(make):
    module = make(torch.float64)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    loaded = make(torch.float64)
    loaded.load_state_dict(torch.load(file))
    for other in (loaded, pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert torch.equal(buffer(other), buffer(module))
        assert other.reduction == module.reduction


def test_loading_a_mask_does_not_write_into_the_tensor_that_was_given():
    given = torch.ones(2, 2)
    module = WeightedMSELoss(given)
    module.load_state_dict(WeightedMSELoss(torch.zeros(2, 2)).state_dict())
    assert buffer(module).sum() == 0
    assert given.sum() == 4


def test_loading_weights_does_not_write_into_the_tensor_that_was_given():
    given = torch.ones(2)
    DynamicWeightedLoss(given).load_state_dict(DynamicWeightedLoss(torch.zeros(2)).state_dict())
    assert given.sum() == 2


@each_module
def test_a_module_prints_its_context_and_reduction(make):
    module = make(torch.float32)
    shown = repr(module)
    assert str(list(buffer(module).shape)) in shown
    assert repr(module.reduction) in shown
