"""Peaks against torch's own memory tracker and the events of its allocator."""

import gc
import warnings
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from harness.calls.evaluation import Candidate
from harness.results.measured import Cell
from harness.timing.costs import counting
from harness.timing.costs.counting import RECORDED_CALLS, Costs, count, peak_bytes
from harness.timing.workload import checked_sizes, inputs
from losses import SPECS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what it imports may be deprecated, which is torch's to mend
    from torch.distributed._tools.mem_tracker import MemTracker

CPU = torch.device("cpu")
B, C = 48, 70
_GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(B, C, generator=_GENERATOR).requires_grad_()
Y = torch.randn(B, C, generator=_GENERATOR)
P = torch.rand(B, C, generator=_GENERATOR)
LABELS = torch.randint(0, C, (B,), generator=_GENERATOR)
SIGNS = Y.sign()
POSITIVE = torch.ones(B)

LOSSES = {
    "mse": lambda: F.mse_loss(X, Y),
    "l1": lambda: F.l1_loss(X, Y),
    "huber": lambda: F.huber_loss(X, Y),
    "cross_entropy": lambda: F.cross_entropy(X, LABELS),
    "smoothed_cross_entropy": lambda: F.cross_entropy(X, LABELS, label_smoothing=0.1),
    "binary_cross_entropy": lambda: F.binary_cross_entropy(X.sigmoid(), P),
    "binary_cross_entropy_with_logits": lambda: F.binary_cross_entropy_with_logits(X, P),
    "kl_div": lambda: F.kl_div(X.log_softmax(1), P, reduction="batchmean"),
    "gaussian_nll": lambda: F.gaussian_nll_loss(X, Y, P + 0.1),
    "poisson_nll": lambda: F.poisson_nll_loss(X, P),
    "triplet_margin": lambda: F.triplet_margin_loss(X, Y, P),
    "cosine_embedding": lambda: F.cosine_embedding_loss(X, Y, POSITIVE),
    "multi_margin": lambda: F.multi_margin_loss(X, LABELS),
    "multilabel_soft_margin": lambda: F.multilabel_soft_margin_loss(X, SIGNS),
    "soft_margin": lambda: F.soft_margin_loss(X, SIGNS),
    "hinge_embedding": lambda: F.hinge_embedding_loss(X, SIGNS),
    "logsumexp": lambda: X.logsumexp(1).sum(),
    "distances": lambda: torch.cdist(X, Y).sum(),
}
# Kernels that take memory for themselves, so that the allocator gave more than tensors have: at least one number an element.
WITH_TEMPORARIES = {"huber", "binary_cross_entropy_with_logits", "logsumexp", "distances"}
# The leaf is used more than once, and autograd adds its gradients up in place where no dispatch mode sees it.
ADDS_UP_IN_PLACE = {"cosine_embedding"}


class FunctionalLoss:
    """A loss of torch's own, with what it is given."""

    given = (X, Y, P, LABELS, SIGNS, POSITIVE)

    def __init__(self, name):
        self.forward = LOSSES[name]

    def reset(self):
        X.grad = None

    def full(self):
        self.reset()
        loss = self.forward()
        loss.backward()
        return loss


class SpecLoss(FunctionalLoss):
    """A reference loss of this project, with what it is given."""

    def __init__(self, spec, name):
        tensors = inputs(spec, Cell(checked_sizes(spec, None)[0], "cpu", "float32", "full"), seed=0)
        candidate = Candidate(spec, name)
        built = candidate.build(tensors)
        kept = [*built.buffers(), *built.parameters()] if isinstance(built, torch.nn.Module) else []
        self.leaves = [tensors[differentiable] for differentiable in spec.differentiable]
        self.given = [*tensors.values(), *kept]
        self.forward = lambda: candidate.call(built, tensors)

    def reset(self):
        for leaf in self.leaves:
            leaf.grad = None


def spec_losses():
    for spec in SPECS:
        for name in list(spec.implementations)[1:]:
            yield pytest.param(spec, name, id=f"{spec.name}-{name}")


def tracked_peak(call, given):
    """Peak above what was given, by torch's memory tracker."""
    tracker = MemTracker()
    tracker.track_external(*given)
    before = tracker.get_tracker_snapshot()[CPU]["Total"]
    with tracker:
        returned = call()
    del returned
    return tracker.get_tracker_snapshot("peak")[CPU]["Total"] - before


def allocated_peak(call):
    """Peak by the allocator's events, of blocks that were allocated inside, by torch's newer profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        returned = call()
    del returned
    alive, now, peak = {}, 0, 0
    for event in sorted(_allocations(seen.profiler.kineto_results.experimental_event_tree()), key=lambda e: e[0]):
        _, address, size = event
        if size > 0:
            alive[address] = size
        now += size if size > 0 else -alive.pop(address, 0)
        peak = max(peak, now)
    return peak


def _allocations(events):
    for event in events:
        if hasattr(event.extra_fields, "alloc_size"):
            yield event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size
        yield from _allocations(event.children)


def peaks(loss, pass_name):
    """(of tensors, by torch's tracker), (of the allocator, by torch's profiler)."""
    call, found = getattr(loss, pass_name), []
    for measure in (
        lambda: count(call).peak_tensor_bytes,
        lambda: tracked_peak(call, loss.given),
        lambda: peak_bytes(call, "cpu"),
        lambda: allocated_peak(call),
    ):
        loss.reset()
        found.append(measure())
    return (found[0], found[1]), (found[2], found[3])


@pytest.mark.parametrize("pass_name", ["forward", "full"])
@pytest.mark.parametrize("name", LOSSES)
def test_peaks_are_those_of_torchs_tracker_and_of_its_allocator_to_the_byte(name, pass_name):
    (tensors, tracked), (allocated, profiled) = peaks(FunctionalLoss(name), pass_name)
    assert tensors == tracked
    assert allocated == profiled
    if name in WITH_TEMPORARIES and pass_name == "forward":
        assert allocated - tensors >= X.nbytes
    elif name in ADDS_UP_IN_PLACE and pass_name == "full":
        assert X.nbytes - 2048 < tensors - allocated < X.nbytes + 2048
    elif pass_name == "forward":
        assert allocated >= tensors


@pytest.mark.parametrize("pass_name", ["forward", "full"])
@pytest.mark.parametrize(("spec", "name"), list(spec_losses()))
def test_peaks_of_the_reference_losses_are_those_of_torch_too(spec, name, pass_name):
    (tensors, tracked), (allocated, profiled) = peaks(SpecLoss(spec, name), pass_name)
    assert tensors == tracked
    assert allocated == profiled


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_the_peak_of_a_sparse_product_is_that_of_the_allocator(layout):
    adjacency = P.round().to_sparse(layout=layout)

    def full():
        X.grad = None
        torch.sparse.mm(adjacency, X.T).sum().backward()

    X.grad = None
    tensors = count(full).peak_tensor_bytes
    X.grad = None
    allocated = peak_bytes(full, "cpu")
    X.grad = None
    assert tensors <= allocated == allocated_peak(full)


def test_one_mebibyte_more_is_seen_to_the_byte():
    def planted():
        loss = F.mse_loss(X, Y, reduction="none")
        spare = torch.empty(2**18)
        total = loss.mean()
        del spare
        return total

    def plain():
        return F.mse_loss(X, Y, reduction="none").mean()

    assert peak_bytes(planted, "cpu") - peak_bytes(plain, "cpu") == 2**20
    assert count(planted).peak_tensor_bytes - count(plain).peak_tensor_bytes == 2**20


def test_the_gradient_that_a_backward_pass_leaves_is_part_of_the_peak():
    leaf = torch.ones(1000, requires_grad=True)

    def full():
        (leaf * 2).sum().backward()

    # in forward the product and its sum; in backward the product's gradient, which the leaf keeps, and two numbers
    assert count(full).peak_tensor_bytes >= leaf.nbytes
    leaf.grad = None
    assert peak_bytes(full, "cpu") >= leaf.nbytes
    assert leaf.grad is not None


def test_what_is_freed_and_made_anew_counts_once():
    def in_turn():
        for _ in range(5):
            torch.empty(1000)

    def together():
        return [torch.empty(1000) for _ in range(5)]

    assert count(in_turn).peak_tensor_bytes == peak_bytes(in_turn, "cpu") == 4000
    assert count(together).peak_tensor_bytes == peak_bytes(together, "cpu") == 20000


def test_tensors_from_numbers_count_and_views_do_not():
    given = torch.zeros(1000)
    assert count(lambda: torch.tensor([1.0, 2.0, 3.0])).peak_tensor_bytes == 12
    assert count(lambda: given.view(10, 100)[2:].T.expand(5, 100, 8)).peak_tensor_bytes == 0
    assert peak_bytes(lambda: given.view(10, 100)[2:].T, "cpu") == 0


def test_counting_keeps_no_tensor_alive():
    kept = []

    def call():
        leaf = torch.ones(8, requires_grad=True)
        kept.append(weakref.ref(leaf.exp().untyped_storage()))

    with counting.observed():
        call()
        assert kept[0]() is None


def test_garbage_is_not_collected_inside_and_the_setting_is_restored():
    seen = []
    count(lambda: seen.append(gc.isenabled()))
    peak_bytes(lambda: seen.append(gc.isenabled()), "cpu")
    assert seen == [False, False]
    assert gc.isenabled()


def test_the_peak_is_unknown_under_another_profiler():
    with profile(activities=[ProfilerActivity.CPU], acc_events=True):
        assert peak_bytes(lambda: torch.ones(8), "cpu") is None
    assert peak_bytes(lambda: torch.ones(8), "cpu") == 32


def test_a_long_loop_is_spared_the_recording_of_its_peak():
    calls = []
    long, short = (Costs(aten_calls=number, saved_bytes=0) for number in (RECORDED_CALLS + 1, RECORDED_CALLS))
    assert counting.completed(long, lambda: calls.append(0), "cpu") == long
    assert calls == []
    assert counting.completed(short, lambda: torch.ones(8), "cpu").peak_bytes == 32


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_peak_on_cuda_is_what_the_allocator_gave():
    value = torch.ones(2**20, device="cuda")
    assert peak_bytes(lambda: value * 2, "cuda") == 4 * 2**20
    assert peak_bytes(lambda: value[:1] * 2, "cuda") == 512


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_launches_and_syncs_on_cuda_are_counted():
    value = torch.ones(1000, device="cuda")

    def call():
        return (value * 2).sum().item()

    found = counting.completed(count(call), call, "cuda")
    assert (found.host_syncs, found.host_reads) == (1, 1)
    assert found.kernel_launches in (2, None)  # unknown where the profiler may not ask the driver


def test_what_only_cuda_has_is_unknown_on_the_cpu():
    found = counting.completed(count(lambda: X.sum()), lambda: X.sum(), "cpu")
    assert (found.kernel_launches, found.host_syncs) == (None, None)
