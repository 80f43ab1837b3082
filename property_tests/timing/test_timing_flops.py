import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from harness.timing.costs.counting import count


def counted(call):
    found = count(call)
    return found.flops, found.product_flops, found.flops_left_out_calls


def test_products_count_two_for_each_multiplication_that_is_added_up():
    a, b = torch.ones(5, 7), torch.ones(7, 11)
    assert counted(lambda: a @ b) == (2 * 5 * 7 * 11,) * 2 + (0,)
    assert counted(lambda: a @ b[:, 0]) == (2 * 5 * 7,) * 2 + (0,)
    assert counted(lambda: a[0] @ b[:, 0]) == (2 * 7,) * 2 + (0,)
    assert counted(lambda: torch.bmm(a.expand(3, 5, 7), b.expand(3, 7, 11))) == (3 * 2 * 5 * 7 * 11,) * 2 + (0,)
    assert counted(lambda: torch.addmm(torch.ones(11), a, b)) == (2 * 5 * 7 * 11,) * 2 + (0,)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, w: (x @ w).square().mean(),
        lambda x, w: F.cross_entropy(F.linear(x, w.T), torch.zeros(6, dtype=torch.long)),
        lambda x, w: torch.einsum("bi,ij,cj->bc", x, w, x[:, :4] @ torch.ones(4, 5)).sum(),
        lambda x, w: F.conv1d(x[None], torch.ones(2, 6, 3)).sum() + (x @ w).sum(),
    ],
)
def test_products_and_convolutions_count_as_torchs_counter_counts_them_backward_too(loss):
    x, w = torch.ones(6, 8, requires_grad=True), torch.ones(8, 5, requires_grad=True)

    def full():
        loss(x, w).backward()

    with FlopCounterMode(display=False) as theirs:
        full()
    assert theirs.get_total_flops() > 0
    assert count(full).product_flops == theirs.get_total_flops()


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_a_sparse_product_counts_its_stored_elements_where_torchs_counter_counts_all(layout):
    adjacency, dense = torch.eye(20).to_sparse(layout=layout), torch.ones(20, 3)
    assert count(lambda: adjacency @ dense).product_flops == 2 * 20 * 3
    assert count(lambda: adjacency @ dense[:, 0]).product_flops == 2 * 20


def test_an_elementwise_call_counts_one_for_each_element_of_its_result():
    rows, row = torch.ones(6, 8), torch.ones(8)
    assert counted(lambda: (rows + row).exp()) == (2 * 48, 0, 0)
    assert counted(lambda: torch.where(rows > 0, rows, 0.0)) == (2 * 48, 0, 0)
    assert counted(lambda: rows.mul_(2)) == (48, 0, 0)


def test_a_reduction_counts_one_for_each_element_that_goes_in():
    rows = torch.ones(6, 8)
    assert counted(lambda: rows.sum()) == (48, 0, 0)
    assert counted(lambda: rows.mean(1).amax()) == (48 + 6, 0, 0)


def test_copies_look_ups_and_fills_count_nothing():
    rows, ids = torch.ones(6, 8), torch.arange(3)
    assert counted(lambda: torch.cat([rows.clone(), rows[ids], torch.zeros_like(rows)]).T.contiguous()) == (0, 0, 0)
    assert counted(lambda: rows.index_add_(0, ids, torch.ones(3, 8))) == (3 * 8, 0, 0)


def test_a_kernel_without_a_formula_is_counted_as_left_out():
    rows, labels = torch.ones(6, 8), torch.zeros(6, dtype=torch.long)
    # softmax and the choice of one element a row each have several steps
    assert counted(lambda: F.cross_entropy(rows, labels)) == (0, 0, 2)
    assert counted(lambda: rows.sort()) == (0, 0, 1)
