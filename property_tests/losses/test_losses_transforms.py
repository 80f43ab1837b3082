"""The vectorized losses under torch.compile, torch.func, autocast and fake tensors."""

from __future__ import annotations

import pytest
import torch
from loss_examples import draw, evaluate, gradient
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from losses import SPECS, DynamicWeightedLoss, GraphDistanceLoss, WeightedMSELoss

each_loss = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


def module_and_inputs(spec, tensors, **options):
    """The loss as a function of its inputs in declared order, which need not be that of its parameters."""
    loss = spec.implementations["vectorized"]
    module = loss(**{k: tensors[k] for k in spec.context}, **{**spec.options, **options})

    def call(*inputs):
        return module(**dict(zip(spec.inputs, inputs, strict=True)))

    return call, [tensors[k] for k in spec.inputs]


# torch's compiler makes an instance of every Function, which torch deprecates.
@pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated:DeprecationWarning")
@each_loss
def test_a_compiled_loss_is_one_graph_with_the_same_value_and_gradient(spec):
    tensors = draw(spec)
    module, (first, *rest) = module_and_inputs(spec, tensors)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    first.requires_grad_()
    value = compiled(first, *rest)
    torch.testing.assert_close(value, module(first, *rest))
    (found,) = torch.autograd.grad(value, first)
    torch.testing.assert_close(found, gradient(spec, "vectorized", tensors))


@each_loss
def test_torch_func_gives_the_gradient_of_autograd(spec):
    tensors = draw(spec)
    module, inputs = module_and_inputs(spec, tensors)
    torch.testing.assert_close(torch.func.grad(module)(*inputs), gradient(spec, "vectorized", tensors))


# torch scripts its own formulas when forward mode is first used, and warns about it.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@each_loss
def test_forward_mode_gives_the_slope_of_reverse_mode(spec):
    tensors = draw(spec)
    module, (first, *rest) = module_and_inputs(spec, tensors)
    direction = draw(spec, 1)[spec.differentiable[0]]
    with forward_ad.dual_level():
        slope = forward_ad.unpack_dual(module(forward_ad.make_dual(first, direction), *rest)).tangent
    torch.testing.assert_close(slope, (gradient(spec, "vectorized", tensors) * direction).sum())


@each_loss
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_vmap_gives_the_loss_of_each_slice(spec, reduction):
    draws = [draw(spec, seed) for seed in range(3)]
    (context,) = spec.context
    stacked = [torch.stack([tensors[name] for tensors in draws]) for name in spec.inputs]
    module, _ = module_and_inputs(spec, draws[0], reduction=reduction)
    expected = [
        evaluate(spec, "vectorized", tensors | {context: draws[0][context]}, reduction=reduction) for tensors in draws
    ]
    torch.testing.assert_close(torch.vmap(module)(*stacked), torch.stack(expected))


@each_loss
def test_fake_tensors_get_a_scalar_of_the_same_dtype_without_reading_a_value(spec):
    tensors = draw(spec, dtype=torch.float32)
    with FakeTensorMode() as mode:
        fake = {name: mode.from_tensor(tensor) for name, tensor in tensors.items()}
        loss = evaluate(spec, "vectorized", fake)
    assert (loss.shape, loss.dtype) == ((), torch.float32)


@each_loss
def test_the_forward_pass_calls_no_operation_that_reads_a_value_back(spec):
    module, inputs = module_and_inputs(spec, draw(spec))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profile:
        module(*inputs)
    called = {event.key for event in profile.key_averages()}
    assert any(name.startswith("aten::") for name in called)
    assert not called & {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"}


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (WeightedMSELoss(torch.ones(2, 3)), (4, 2, 3)),
        (DynamicWeightedLoss(torch.ones(4)), (4, 2)),
    ],
    ids=["weighted_mse", "dynamic_weighted"],
)
def test_autocast_changes_no_elementwise_loss(module, shape):
    predictions, labels = torch.linspace(0, 1, 24)[: torch.Size(shape).numel()].reshape(shape), torch.zeros(shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = module(predictions, labels)
    assert torch.equal(inside, module(predictions, labels))


def test_autocast_does_not_change_the_dtype_of_the_graph_distance():
    module, embeddings = GraphDistanceLoss(torch.ones(3, 3)), torch.eye(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(embeddings).dtype == torch.float32
