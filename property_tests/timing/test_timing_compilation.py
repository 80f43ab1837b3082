import subprocess
import sys

import torch

from harness.timing.compilation import Compilation, compilation


def compiled(function, **options):
    torch.compiler.reset()
    return torch.compile(function, backend="eager", **options)


def test_a_loss_of_one_graph_is_compiled_once():
    loss = compiled(lambda predictions: predictions.square().mean())
    value = torch.ones(4)
    assert compilation([lambda: loss(value), lambda: loss(value)]) == Compilation(1, 0, 0)


def test_a_read_of_a_number_breaks_the_graph_in_two():
    def loss(predictions):
        scale = predictions.sum().item()
        return predictions.square().mean() * scale

    run = compiled(loss)
    assert compilation([lambda: run(torch.ones(4))]) == Compilation(2, 1, 0)


def test_another_size_is_one_compilation_more_and_a_third_none():
    loss = compiled(lambda predictions: predictions.square().mean())
    calls = [lambda size=size: loss(torch.ones(size)) for size in (4, 6, 8)]
    assert compilation(calls[:2]) == Compilation(2, 0, 1)
    assert compilation(calls[2:]) == Compilation(0, 0, 0)


def test_a_loop_over_a_fixed_size_is_compiled_at_every_size():
    loss = compiled(lambda predictions: sum(element.square() for element in predictions), dynamic=False)
    calls = [lambda size=size: loss(torch.ones(size)) for size in (2, 3, 4)]
    assert compilation(calls) == Compilation(3, 0, 2)


def test_what_is_not_compiled_has_no_graphs():
    assert compilation([lambda: torch.ones(4).sum()]) == Compilation(0, 0, 0)


def test_costs_load_no_compiler():
    code = (
        "import sys, torch; from harness.timing import compilation; from harness.timing.costs import counting as costs; costs.count(lambda: torch.ones(2).sum());"
        "assert 'torch._dynamo' not in sys.modules, 'loaded'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
