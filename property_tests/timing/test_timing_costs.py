import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

from harness.calls.aten.storages import components
from harness.timing.costs.counting import TookTooLong, count, observed


@pytest.fixture
def leaf():
    return torch.ones(64, 32, requires_grad=True)


def test_forward_calls_and_saved_bytes_of_a_squared_error_are_exact(leaf):
    labels = torch.zeros(64, 32)
    # sub, pow, mean; pow keeps its base, and the others keep nothing.
    found = count(lambda: (leaf - labels).square().mean())
    assert (found.aten_calls, found.saved_bytes) == (3, 64 * 32 * 4)


def test_backward_calls_are_counted_where_it_runs(leaf):
    def full():
        leaf.grad = None
        leaf.sum().backward()

    assert count(leaf.sum).aten_calls == 1
    # sum; ones_like for the seed; expand to the input's shape; new_empty_strided and copy_ into the leaf's gradient.
    assert count(full).aten_calls == 5


def test_a_storage_that_is_kept_many_times_counts_once(leaf):
    assert count(lambda: leaf * leaf).saved_bytes == 64 * 32 * 4
    assert count(lambda: leaf[:8] * leaf[8:16]).saved_bytes == 64 * 32 * 4


def test_a_tensor_that_the_loss_was_given_counts(leaf):
    weights = torch.ones(64, 32)
    assert count(lambda: leaf * weights).saved_bytes == 64 * 32 * 4


def test_nothing_is_saved_where_nothing_requires_grad():
    plain = torch.ones(8)
    found = count(lambda: (plain * plain).sum())
    assert (found.aten_calls, found.saved_bytes) == (2, 0)


def test_a_loop_costs_calls_in_proportion_to_its_length(leaf):
    def loop(steps):
        total = leaf.sum()
        for _ in range(steps):
            total = total + 1
        return total

    assert count(lambda: loop(7)).aten_calls == 1 + 7
    assert count(lambda: loop(70)).aten_calls == 1 + 70


def test_a_storage_that_is_freed_and_reused_still_counts_twice():
    leaf = torch.ones(1000, requires_grad=True)

    def twice():
        for _ in range(2):
            torch.autograd.grad((leaf * 2).square().sum(), leaf)

    assert count(twice).saved_bytes == 2 * 4000


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_a_sparse_tensor_counts_by_its_components(layout):
    sparse = torch.eye(10).to_sparse(layout=layout)
    dense = torch.ones(10, 3, requires_grad=True)
    expected = {(part.data_ptr(), part.untyped_storage().nbytes()) for part in components(sparse)}
    assert count(lambda: sparse @ dense).saved_bytes == sum(size for _, size in expected)


def test_costs_do_not_drift(leaf):
    def loss():
        return torch.nn.functional.cross_entropy(leaf, torch.zeros(64, dtype=torch.long))

    assert len({count(loss) for _ in range(5)}) == 1


PRINT_COSTS = """
import json
from dataclasses import asdict
import torch
from harness.timing.costs.counting import completed, count
from harness.timing.workload import (Workload, checked_sizes, inputs)
from harness.results.measured import PASSES
from harness.results.measured import Cell
from losses import SPECS
torch.set_num_threads(1)
found = {}
for spec in SPECS:
    cell = Cell(checked_sizes(spec, None)[0], "cpu", "float32", "full")
    for name in list(spec.implementations)[1:]:
        workload = Workload(spec, name, inputs(spec, cell, seed=0))
        for pass_name in PASSES:
            for turn in range(2):
                call = workload.call(pass_name)
                workload.reset()
                counted = count(call)
                workload.reset()
                found[f"{spec.name} {name} {pass_name} {turn}"] = asdict(completed(counted, call, "cpu"))
print(json.dumps(found))
"""


def costs_in_fresh_processes(*hash_seeds):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PRINT_COSTS], env={**os.environ, "PYTHONHASHSEED": seed}, stdout=subprocess.PIPE
        )
        for seed in hash_seeds
    ]
    printed = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(hash_seeds)
    return [json.loads(text) for text in printed]


def test_two_runs_differ_by_nothing_in_one_process_and_in_two():
    first, second = costs_in_fresh_processes("1", "2")
    assert first == second
    assert len(first) > 20
    for place, found in first.items():
        assert found == first[place[:-1] + "0"]
        assert found["aten_calls"] > 0
        assert found["peak_bytes"] > 0


def test_hooks_on_saved_tensors_change_nothing_else_that_is_counted(leaf):
    labels = torch.zeros(64, dtype=torch.long)

    def full():
        leaf.grad = None
        (torch.nn.functional.cross_entropy(leaf.exp() * leaf, labels) + leaf.sigmoid().square().sum()).backward()

    with observed(saved=False) as plain:
        full()
    hooked = asdict(count(full))
    expected = asdict(plain.costs)
    differing = {name for name in hooked if hooked[name] != expected[name]}
    assert differing <= {"saved_bytes", "saved_above_inputs_bytes"}
    assert hooked["saved_bytes"] > 0


def test_second_derivatives_are_right_under_a_counter(leaf):
    def second():
        (slope,) = torch.autograd.grad(leaf.exp().mul(leaf).sum(), leaf, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), leaf)[0]

    with observed():
        counted = second()
    assert torch.equal(counted, second())


def test_what_the_call_made_itself_is_told_from_what_it_was_given(leaf):
    weights = torch.ones(64, 32)
    found = count(lambda: (leaf * weights).exp().sum())
    # mul keeps the weights, for the leaf alone requires grad; exp keeps its result
    assert (found.saved_bytes, found.saved_above_inputs_bytes) == (2 * weights.nbytes, weights.nbytes)


def test_saved_bytes_of_sparse_tensors_are_told_from_dense_ones():
    sparse, dense = torch.eye(10).to_sparse_csr(), torch.ones(10, 3, requires_grad=True)
    found = count(lambda: (sparse @ dense).square().sum())
    assert found.saved_sparse_bytes == sum(part.untyped_storage().nbytes() for part in components(sparse))
    assert found.saved_bytes - found.saved_sparse_bytes == found.saved_above_inputs_bytes == 10 * 3 * 4


def test_taking_a_sparse_tensor_apart_is_no_call_of_the_loss():
    sparse, dense = torch.eye(10).to_sparse_csr(), torch.ones(10, 3, requires_grad=True)
    with observed(saved=False) as plain:
        sparse @ dense
    assert count(lambda: sparse @ dense).aten_calls == plain.costs.aten_calls


def test_host_reads_are_those_of_the_rule_on_hidden_reads(leaf):
    def reads():
        chosen = leaf[leaf > 0]
        return chosen.sum().item() + len(leaf.nonzero())

    assert count(reads).host_reads == 3
    assert count(leaf.sum).host_reads == 0


def test_a_loop_without_end_is_stopped_even_if_it_catches_everything(leaf):
    def endless():
        total = leaf.sum()
        while True:
            with contextlib.suppress(Exception):
                total = total + 1

    with pytest.raises(TookTooLong), observed(0.1):
        endless()


def test_a_backward_pass_without_end_is_stopped(leaf):
    class Endless(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.sum()

        @staticmethod
        def backward(ctx, gradient):
            while True:
                gradient = gradient + 1

    with pytest.raises(TookTooLong), observed(0.1):
        Endless.apply(leaf).backward()
