"""Rules about torch's compiler: T01.

It takes seconds to load, once in a process; the profile ``quick`` leaves it out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness.calls.evaluation import LossRaised
from harness.declare import dims
from harness.declare.spec import LossSpec
from harness.declare.structures import Repeated
from harness.errors import NotApplicable, told_in_a_line
from harness.private_names import mark_dynamic
from harness.rules.rule import Mismatch, Rule
from harness.rules.tools.compare import same_gradients, same_output
from harness.rules.tools.sizes import batch_symbol, repeated_code, resized
from harness.rules.tools.symbols import axes_of
from harness.rules.transforms.compiler import quiet_compiler
from harness.rules.transforms.functional import dense, refuse_sparse
from harness.rules.trial import Trial, contract

STEPS = (3, 6)  # added to the batch's size
Compiled = Callable[[Callable[..., Any], Sequence[Any], Mapping[str, Any]], Any]


def compiled_in_one_graph(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """`torch.compile` makes one graph of the loss, with the same value and gradient, whatever the batch's size.

        compile(L, fullgraph=True)(x) = L(x)        and one graph for three batch sizes

    The backend runs the graph as it was captured, so that what is seen is the capture; the batch's axis is marked as one
    that changes.  A loop over the batch has a graph for every size.
    """
    for trial in trials[:1]:
        refuse_sparse(trial)
        trial.base  # noqa: B018 - a loss that raises is B01's
        with quiet_compiler():
            yield from _captured(trial)


def _captured(trial: Trial) -> Iterator[Mismatch]:
    if trial.candidate.drawn_from or trial.candidate.built_from:
        raise NotApplicable("torch.compile takes no torch.Generator")
    graphs: list[int] = []

    def backend(graph: Any, inputs: Any) -> Callable[..., Any]:
        graphs.append(len(graph.graph.nodes))
        run: Callable[..., Any] = graph.forward
        return run

    symbol, arguments = "", trial.spec.arguments.values()
    if not any(isinstance(node, Repeated) for node in arguments):  # whose parts carry no mark of an axis that changes
        with contextlib.suppress(NotApplicable):
            symbol = batch_symbol(trial.spec)
    compiled = torch.compile(_call, backend=backend, fullgraph=True)
    for case in _of_other_batches(trial, symbol):
        found = _compiled_differs(case, compiled, symbol)
        if found is not None and found.aspect == "graph break" and symbol:
            torch.compiler.reset()  # a size that may not change is no break
            found = _compiled_differs(case, torch.compile(_call, backend=backend, fullgraph=True, dynamic=False), "")
        if found is not None:
            yield found
            return
        if len(graphs) > 1:
            yield _another_graph(case, symbol, graphs)
            return


def _call(built: Callable[..., Any], positional: Sequence[Any], named: Mapping[str, Any]) -> Any:
    return built(*positional, **named)


def _of_other_batches(trial: Trial, symbol: str) -> Iterator[Trial]:
    """The trial, and then the same with larger batches; a module whose context has the batch's size cannot see them."""
    yield trial
    kept = {
        s for n in trial.candidate.constructed for dim in dims.parse(trial.spec.tensors[n].dims) for s in dim.symbols
    }
    for step in STEPS if symbol and symbol not in kept else ():
        size = trial.case.sizes[symbol]
        larger = tuple(n + step for n in size) if isinstance(size, tuple) else size + step
        if larger != size:
            yield trial.at(resized(trial.spec, trial.case, {symbol: larger}))


def _compiled_differs(trial: Trial, compiled: Compiled, symbol: str) -> Mismatch | None:
    tensors = trial.tensors()
    should = trial.base
    leaves = trial.leaves(tensors)
    _mark(trial, leaves, symbol)
    names = [n for n in trial.spec.differentiable if leaves[n].requires_grad]
    candidate = trial.candidate
    try:
        returned = compiled(candidate.build(leaves), *candidate.arguments(leaves))
        output = dense(returned if candidate.select is None else candidate.select(returned))
        gradients: Sequence[Tensor | None] = [None] * len(names)
        if output.requires_grad:  # what is compiled may first fail in its backward
            gradients = torch.autograd.grad(contract(output), [leaves[n] for n in names], allow_unused=True)
    except LossRaised:
        raise
    except Exception as error:  # what the compiler raises has many types, and each of them says that it cannot
        said = told_in_a_line(error)
        return Mismatch(
            "torch.compile(loss, fullgraph=True)",
            said,
            "one graph",
            error=error,
            aspect="graph break",
            tensors=tensors,
            code=_CODE,
            hint=_A_GRADIENT if "torch.autograd.grad" in str(error) or "backward()" in said else _BREAKS,
        )
    found = same_output(output.detach(), should.output, trial.scale)
    if found is None and should.finite:
        came = dict(zip(names, gradients, strict=True))
        found = same_gradients(came, should.gradients, tensors, trial, trial.scale)
    if found is None:
        return None
    return replace(
        found,
        where=f"{found.where} by torch.compile",
        aspect="value",
        tensors=tensors,
        code=_CODE,
        hint="what Python does on the way (globals, counters, random numbers) is frozen at the first call",
    )


_BREAKS = "no .item(), no `if tensor:`, no boolean indexing and no NumPy on the way: they cut the graph"
_A_GRADIENT = (
    "the loss takes a gradient on its way: write that derivative out, or compile what is differentiated and not the loss; "
    "torch._dynamo.config.trace_autograd_ops = True takes torch.autograd.grad into the graph where it may"
)
_CODE = """
    graph = torch.compile(loss, backend="eager", fullgraph=True)
    print(loss(**tensors), graph(**tensors))
"""


def _mark(trial: Trial, leaves: Mapping[str, Tensor], symbol: str) -> None:
    """Tell the compiler which axes change, so that it makes one graph for all sizes at once where it can."""
    for name in trial.spec.tensors if symbol else ():
        for axis in axes_of(trial.spec, trial.case, name, symbol):
            mark_dynamic(leaves[name], axis)


def _another_graph(trial: Trial, symbol: str, graphs: Sequence[int]) -> Mismatch:
    return Mismatch(
        f"graphs compiled when {symbol} changes",
        f"one for each size, of {' and '.join(map(str, graphs))} operations",
        "one for all sizes",
        aspect="recompiled",
        severity="note",
        tensors=trial.tensors(),
        code=f"""
            graphs = []
            def backend(graph, inputs):
                graphs.append(graph)
                return graph.forward
            compiled = torch.compile(loss, backend=backend)
            for times in (1, 2, 3):
                compiled(**{repeated_code(trial.spec, trial.case, symbol)})
                print("{symbol} x", times, len(graphs), "graphs")
        """,
        hint=f"a loop over {symbol}, or its size as a Python number, makes a new graph for every size of a batch",
    )


def _is_reference(spec: LossSpec, name: str) -> str | None:
    return "it is the reference, which nobody compiles" if spec.role(name) == "reference" else None


RULES = (
    Rule(
        code="T01",
        title="torch.compile makes one graph with the same numbers",
        draws_anew="compiled code may draw by a generator of its own",
        group="compiling",
        severity="warning",
        check_all=compiled_in_one_graph,
        applies=_is_reference,
        regimes={"distinct": 1},
        smooth=True,
        compiles=True,
        not_interpreted="torch.compile would compile Triton's interpreter, not the kernel; ask on a GPU",
        why="Each break in the graph is a return to Python in every step, and a compiled training loses what it was compiled for.",
        example="if labels.max().item() >= classes: raise ValueError      # the compiler cannot look at values",
        mend="torch.where and masks; check values outside the loss, or under `if not torch.compiler.is_compiling()`.",
        source="PyTorch, 'torch.compile troubleshooting'.",
    ),
)
