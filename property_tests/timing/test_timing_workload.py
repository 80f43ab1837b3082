import pytest
import torch
from timed_losses import SPECS, naive, raises

from harness import DeclarationError, LossSpec, TensorSpec, domains
from harness.results.measured import Cell
from harness.timing.constants import MAX_ELEMENTS
from harness.timing.workload import Workload, checked_sizes, elements, inputs, ladder

CELL = Cell({"B": 4, "C": 5}, "cpu", "float32", "full")


def declared(**tensors):
    return LossSpec("declared", {"any": lambda **given: None}, inputs=tensors, context={}, output=TensorSpec(""))


def test_a_spec_without_sizes_gets_a_growing_ladder():
    assert ladder(declared(p=TensorSpec("B C"))) == ({"B": 8, "C": 8}, {"B": 64, "C": 64}, {"B": 512, "C": 512})


def test_the_ladder_stops_where_the_tensors_grow_too_large():
    spec = declared(p=TensorSpec("A B C"))
    sizes = ladder(spec)
    assert sizes[0] == {"A": 8, "B": 8, "C": 8}
    assert max(elements(spec, one) for one in sizes) <= MAX_ELEMENTS
    assert elements(spec, sizes[-1]) > MAX_ELEMENTS / 8


def test_the_ladder_fills_variadic_indexed_fixed_and_computed_sizes():
    assert ladder(declared(p=TensorSpec("*batch")))[0] == {"batch": (8,)}
    assert ladder(declared(p=TensorSpec("B *rest")))[0] == {"rest": (), "B": 8}
    indexed = declared(p=TensorSpec("B"), i=TensorSpec("B", domains.index("K")))
    assert ladder(indexed)[0] == {"B": 8, "K": 8}
    assert all(elements(declared(p=TensorSpec("N-1")), one) > 0 for one in ladder(declared(p=TensorSpec("N-1"))))
    assert ladder(declared(p=TensorSpec("B C")).replace(fixed_sizes={"C": 3}))[1] == {"B": 64, "C": 3}


def test_declared_sizes_go_before_the_ladder_and_given_ones_before_both():
    assert checked_sizes(SPECS[0], None) == ({"B": 3, "C": 3},)
    assert checked_sizes(SPECS[0], [{"B": 2, "C": 9}]) == ({"B": 2, "C": 9},)


@pytest.mark.parametrize(("sizes", "message"), [({"B": 2}, "one for each of .*'C'"), ({"B": 2, "C": 2, "D": 2}, "D")])
def test_a_missing_or_unknown_size_is_refused(sizes, message):
    with pytest.raises(DeclarationError, match=message):
        checked_sizes(SPECS[0], [sizes])


def test_inputs_follow_the_seed_and_the_differentiable_ones_require_grad():
    first, again, other = (inputs(SPECS[0], CELL, seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["predictions"], other["predictions"])
    assert not torch.equal(first["predictions"], first["labels"])
    assert [name for name in first if first[name].requires_grad] == ["predictions"]
    assert {tensor.dtype for tensor in first.values()} == {torch.float32}


def test_inputs_in_a_higher_dtype_have_the_rounded_values():
    low = Cell({"B": 4, "C": 5}, "cpu", "bfloat16", "full")
    rounded, wide = inputs(SPECS[0], low, 0), inputs(SPECS[0], low, 0, torch.float32)
    assert torch.equal(rounded["predictions"].float(), wide["predictions"])


@pytest.mark.parametrize("name", ["vectorized", "module"])
def test_a_workload_gives_the_loss_and_fresh_gradients_at_every_call(name):
    tensors = inputs(SPECS[0], CELL, 0)
    workload = Workload(SPECS[0], name, tensors)
    expected = torch.autograd.grad(naive(**tensors), tensors["predictions"])[0]
    for _ in range(3):
        assert torch.allclose(workload.full(), naive(**tensors))
        assert torch.allclose(tensors["predictions"].grad, expected)


def test_gradients_of_a_loss_with_parameters_do_not_pile_up():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, p):
            return (self.scale * p).sum()

    spec = LossSpec("scaled", {"scaled": Scaled}, inputs={"p": TensorSpec("B")}, context={}, output=TensorSpec(""))
    workload = Workload(spec, "scaled", inputs(spec, Cell({"B": 4}, "cpu", "float32", "full"), 0))
    workload.full()
    once = workload._all_leaves[-1].grad.clone()
    workload.full()
    assert torch.equal(workload._all_leaves[-1].grad, once)


def test_a_loss_that_is_no_scalar_is_differentiated_in_its_sum():
    spec = LossSpec("rows", {"rows": lambda p: p**2}, inputs={"p": TensorSpec("B")}, context={}, output=TensorSpec("B"))
    tensors = inputs(spec, Cell({"B": 4}, "cpu", "float32", "full"), 0)
    Workload(spec, "rows", tensors).full()
    assert torch.allclose(tensors["p"].grad, 2 * tensors["p"])


def test_what_the_loss_raises_is_not_wrapped():
    spec = SPECS[0].replace(implementations={"raises": raises})
    with pytest.raises(ValueError, match="no such thing"):
        Workload(spec, "raises", inputs(spec, CELL, 0)).forward()


def test_a_cell_says_where_it_is():
    assert str(Cell({"B": 3, "rest": (2, 4)}, "cpu", "float32", "full")) == "B=3, rest=2x4, float32, cpu, full"
