import pytest
import torch
import torch.nn.functional as F

from harness.timing.costs.counting import count
from harness.timing.costs.traffic import touched_elements

N = 4000  # bytes of a vector of 1000 float32
SCALAR = 4


@pytest.fixture
def vector():
    return torch.ones(1000)


def traffic(call):
    found = count(call)
    return found.read_bytes, found.written_bytes


def test_an_elementwise_call_reads_its_arguments_and_writes_its_result(vector):
    other = torch.zeros(1000)
    assert traffic(lambda: vector + other) == (2 * N, N)
    assert traffic(lambda: vector > other) == (2 * N, 1000)
    assert traffic(lambda: vector.sum()) == (N, SCALAR)


def test_a_tensor_that_comes_twice_is_read_once(vector):
    assert traffic(lambda: vector * vector) == (N, N)
    assert traffic(lambda: vector[:500] * vector[500:]) == (N, N // 2)
    assert traffic(lambda: vector[:600] * vector[400:]) == (N, 2400)


@pytest.mark.parametrize(
    "call",
    [
        lambda v: v.view(10, 100).T.expand(3, 100, 10)[1:].unsqueeze(0),
        lambda v: v.detach(),
        lambda v: v.split(10),
        lambda v: v.reshape(10, 100),
        lambda v: torch.empty(1000),
        lambda v: torch.empty_like(v),
        lambda v: v.unsqueeze_(0).squeeze_(0),
        lambda v: v.contiguous(),
    ],
)
def test_views_and_memory_that_is_left_open_move_nothing(vector, call):
    assert traffic(lambda: call(vector)) == (0, 0)


def test_a_reshape_that_copies_moves_what_it_copies(vector):
    turned = vector.view(10, 100).T
    assert traffic(lambda: turned.reshape(1000)) == (N, N)


def test_in_place_is_read_and_written_but_a_fill_or_a_copy_is_not_read(vector):
    other = torch.zeros(1000)
    assert traffic(lambda: vector.mul_(2)) == (N, N)
    assert traffic(lambda: vector.zero_()) == (0, N)
    assert traffic(lambda: vector.copy_(other)) == (N, N)
    assert traffic(lambda: vector.uniform_(generator=torch.Generator())) == (0, N)
    assert traffic(lambda: torch.add(other, 1, out=vector)) == (N, N)


def test_what_gives_only_its_shape_is_not_read(vector):
    assert traffic(lambda: torch.ones_like(vector)) == (0, N)
    assert traffic(lambda: vector.new_zeros(500)) == (0, 2000)


def test_an_expanded_axis_counts_once(vector):
    expanded = vector.expand(50, 1000)
    assert traffic(lambda: expanded.sum()) == (N, SCALAR)
    assert traffic(lambda: expanded * 2) == (N, 50 * N)


@pytest.mark.parametrize(
    ("tensor", "distinct"),
    [
        (torch.ones(3, 4), 12),
        (torch.ones(3, 4).T, 12),
        (torch.ones(1).expand(7), 1),
        (torch.ones(3, 1).expand(3, 9), 3),
        (torch.ones(10).unfold(0, 4, 1), 10),
        (torch.ones(10)[::3], 4),
        (torch.ones(0, 5), 0),
        (torch.ones(()), 1),
    ],
)
def test_touched_elements_are_the_distinct_ones(tensor, distinct):
    assert touched_elements(tensor) == distinct


def test_a_look_up_in_a_large_context_costs_what_it_looks_up(vector):
    ids = torch.arange(10)
    assert traffic(lambda: vector[ids]) == (10 * 4 + 10 * 8, 10 * 4)
    assert traffic(lambda: vector.gather(0, ids)) == (10 * 4 + 10 * 8, 10 * 4)
    assert traffic(lambda: F.embedding(ids, vector.view(100, 10))) == (100 * 4 + 10 * 8, 100 * 4)
    # more than there is: at most all of it
    many = torch.zeros(5000, dtype=torch.long)
    assert traffic(lambda: vector.index_select(0, many)) == (N + 40000, 20000)


def test_an_index_in_place_touches_what_it_addresses(vector):
    ids, values = torch.arange(10), torch.ones(10)
    assert traffic(lambda: vector.index_add_(0, ids, values)) == (80 + 40 + 40, 40)
    assert traffic(lambda: vector.index_put_((ids,), values)) == (80 + 40, 40)
    assert traffic(lambda: vector.index_put_((ids,), values, accumulate=True)) == (80 + 40 + 40, 40)
    assert traffic(lambda: vector.scatter_(0, ids, values)) == (80 + 40, 40)
    rows, one = vector.view(100, 10), torch.ones(())
    assert traffic(lambda: rows.index_put_((ids,), one)) == (80 + 4, 400)
    assert traffic(lambda: rows.index_fill_(0, ids, 0.0)) == (80, 400)


def test_the_nll_loss_reads_one_element_a_row():
    rows, labels = torch.zeros(50, 30, requires_grad=True), torch.zeros(50, dtype=torch.long)
    forward = 50 * 4 + 50 * 8, 2 * SCALAR
    assert traffic(lambda: F.nll_loss(rows, labels)) == forward
    assert traffic(lambda: rows.detach().sum()) == (50 * 30 * 4, SCALAR)


@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_sparse_tensor_counts_by_its_indices_and_values():
    dense = torch.ones(10, 3)
    eye = torch.eye(10)
    assert traffic(lambda: eye.to_sparse_coo()._values())[1] == 10 * 2 * 8 + 10 * 4
    coo = eye.to_sparse_coo()
    assert traffic(lambda: coo._values()) == (0, 0)
    csr = eye.to_sparse_csr()
    assert traffic(lambda: csr @ dense) == (11 * 8 + 10 * 8 + 10 * 4 + 120, 120)
    parts = coo._indices(), coo._values()
    made = torch.sparse_coo_tensor(*parts, (10, 10), check_invariants=False)
    assert count(lambda: made * 2).written_bytes == 10 * 2 * 8 + 10 * 4


def test_a_loss_moves_the_bytes_that_one_adds_up_by_hand():
    predictions, labels, mask = torch.ones(8, 1000, requires_grad=True), torch.zeros(8, 1000), torch.ones(1000)
    square = 8 * N

    def loss():
        return (mask * (predictions - labels) ** 2).mean()

    # sub 2 -> 1, pow 1 -> 1, mul (1 and the mask) -> 1, mean 1 -> a number
    assert traffic(loss) == (5 * square + N, 3 * square + SCALAR)
    found = count(loss)
    assert found.read_bytes + found.written_bytes == 8 * square + N + SCALAR


def test_the_backward_pass_is_counted(vector):
    leaf = vector.requires_grad_()

    def full():
        leaf.grad = None
        leaf.exp().sum().backward()

    # exp N -> N, sum N -> 1, ones_like -> 1, mul of the gradient, one number that is expanded, with the result N + 1 -> N
    assert traffic(full) == (3 * N + SCALAR, 2 * N + 2 * SCALAR)
