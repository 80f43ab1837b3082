"""Plain-PyTorch code that shows a finding without the harness; it runs as printed."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.calls.evaluation import RNG_SEED, Candidate
from harness.calls.tolerance import FLOAT64_DIGITS
from harness.declare import annotations as signatures
from harness.declare import structures
from harness.declare.spec import LossSpec, Selected
from harness.declare.structures import Leaf, Node
from harness.rules.rule import Mismatch

ELEMENT_LIMIT = 5000
VALUES_SHOWN = 24
DIGITS_SHOWN = 4


def shown(sizes: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """An input in one line: its sizes, and the values of the tensors that are small enough, of others the shape.

    Values have four digits, or as many as it takes to tell apart all that differ; the code of a finding has all of them.
    """
    small = {name: t.detach().cpu() for name, t in tensors.items() if 0 < t.numel() <= VALUES_SHOWN}
    values = {v for t in small.values() if t.is_floating_point() for v in t.double().reshape(-1).tolist() if v == v}
    digits = next(
        (d for d in range(DIGITS_SHOWN, FLOAT64_DIGITS) if len({f"{v:.{d}g}" for v in values}) == len(values)),
        FLOAT64_DIGITS,
    )
    parts = [f"{name}={size}" for name, size in sizes.items()]
    parts += [
        f"{n}={_values(t, digits)}" if n in small else f"{n} of shape {list(t.shape)}" for n, t in tensors.items()
    ]
    return ", ".join(parts)


def script(spec: LossSpec, implementation: str, mismatch: Mismatch) -> str:
    """Code that builds the tensors and the loss, and prints what came and what should have come."""
    if mismatch.tensors is None:
        return ""
    begun = [f"\ntorch.manual_seed({RNG_SEED})"] if spec.stochastic else []
    parts = ["\n".join(["import math\n\nimport torch", *(f"import {name}" for name in _modules(spec)), *begun])]
    parts.append(_importing(spec, implementation, "implementation"))
    parts.append(_tensors(spec, mismatch.tensors))
    parts.append(_functions(spec, implementation, "loss", "implementation"))
    code = textwrap.dedent(mismatch.code).strip() or f"# {mismatch.sentence}\nprint(loss(**tensors))"
    if "reference" in code:
        parts.append(_importing(spec, spec.reference, "reference_implementation"))
        parts.append(_functions(spec, spec.reference, "reference", "reference_implementation"))
    if "total(" in code:
        parts.append(_TOTAL)
    return "\n\n".join([*parts, code]) + "\n"


_TOTAL = '''def total(output):
    """One number: the output, or its sum with fixed weights in [1, 2)."""
    weights = 1 + (torch.arange(output.numel(), dtype=torch.float64) * 0.6180339887498949).frac()
    return (output.reshape(-1) * weights.to(output)).sum() if output.ndim else output'''


def _importing(spec: LossSpec, implementation: str, alias: str) -> str:
    """Lines that bind ``alias`` to the implementation."""
    target = spec.implementations[implementation]
    module = sys.modules.get(getattr(target, "__module__", ""), None)
    name = getattr(target, "__qualname__", "")
    importable = module is not None and name.isidentifier() and getattr(module, name, None) is target
    if importable and module is not None and module.__name__ != "__main__":
        return _import_from(module.__name__, getattr(module, "__file__", None), name, alias)
    home = sys.modules.get(spec.source.module)
    variable = next((k for k, v in vars(home).items() if v is spec), None) if home is not None else None
    if home is not None and variable is not None and home.__name__ != "__main__":
        line = _import_from(home.__name__, home.__file__, variable, "spec")
        return f"{line}\n\n{alias} = spec.implementations[{implementation!r}]"
    return f"{alias} = ...  # the callable declared as implementations[{implementation!r}] of {spec.name!r}"


def _import_from(module: str, file: str | None, name: str, alias: str) -> str:
    package = sys.modules.get(module.partition(".")[0])
    found = getattr(package, "__spec__", None)
    if file is None or (found is not None and found.name == module.partition(".")[0] and _on_path(file, module)):
        return f"from {module} import {name} as {alias}"
    return (
        f"import importlib.util\nimport sys\n\nfound = importlib.util.spec_from_file_location('loss_under_test', {_short(file)!r})\n"
        f"module = importlib.util.module_from_spec(found)\nsys.modules[found.name] = module  # pickle looks classes up there\n"
        f"found.loader.exec_module(module)\n{alias} = module.{name}"
    )


def _on_path(file: str, module: str) -> bool:
    """Whether ``import module`` finds the file from where the user stands."""
    tail = Path(*module.split("."))
    roots = [Path.cwd(), *(Path(p) for p in sys.path if "site-packages" in p or "dist-packages" in p)]
    wanted = Path(file).resolve()
    standard = Path(torch.__file__).parent in wanted.parents
    return standard or any(
        wanted in ((r / tail).with_suffix(".py").resolve(), (r / tail / "__init__.py").resolve()) for r in roots
    )


def _short(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _tensors(spec: LossSpec, tensors: Mapping[str, Tensor]) -> str:
    lines = ["tensors = {"]
    for name, tensor in tensors.items():
        grad = ", requires_grad=True" if name in spec.differentiable and tensor.is_floating_point() else ""
        lines.append(f"    {name!r}: {literal(tensor)[:-1]}{grad}),")
    return "\n".join([*lines, "}"])


def literal(tensor: Tensor) -> str:
    """A tensor as a `torch.tensor(...)` call."""
    dtype = str(tensor.dtype)
    if tensor.numel() > ELEMENT_LIMIT:
        return f"torch.zeros({list(tensor.shape)}, dtype={dtype})"
    if not tensor.numel():
        return f"torch.empty({list(tensor.shape)}, dtype={dtype})"
    return f"torch.tensor({_values(tensor.detach().cpu())}, dtype={dtype})"


def _values(tensor: Tensor, digits: int = FLOAT64_DIGITS) -> str:
    """Nested lists of Python; floats with so many digits, if they have more."""
    if tensor.ndim:
        return f"[{', '.join(_values(row, digits) for row in tensor)}]"
    value = tensor.item()
    if isinstance(value, float):
        if math.isnan(value):
            return "math.nan"
        if math.isinf(value):
            return "math.inf" if value > 0 else "-math.inf"
        if value == 0:
            return "-0." if math.copysign(1, value) < 0 else "0."
        if value == int(value) and abs(value) < 1e15:
            return f"{int(value)}."
        exact = _shortest(value, tensor.dtype)
        return min(exact, f"{value:.{digits}g}", key=len)
    return repr(value)


def _shortest(value: float, dtype: torch.dtype) -> str:
    """The fewest digits that give the same number in ``dtype``."""
    if dtype == torch.float64:
        return repr(value)
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if torch.tensor(float(text), dtype=dtype).item() == value:
            return text
    return repr(value)


def _functions(spec: LossSpec, implementation: str, alias: str, target: str) -> str:
    candidate = Candidate(spec, implementation)
    is_built = candidate.is_class or candidate.is_module
    suffix = "" if alias == "loss" else f"_{alias}"
    picked = _picked(candidate.select, f"{'built' if is_built else target}({call(candidate)})")
    begun = "    torch.manual_seed(torch.initial_seed())\n" if spec.stochastic else ""
    if not is_built:
        return f"def {alias}(**tensors):\n{begun}    return {picked}"
    construct = f"{target}({construction(candidate)})" if candidate.is_class else target
    construct += ".eval()" if candidate.is_module else ""
    return (
        f"def build{suffix}(**tensors):\n    return {construct}\n\n\n"
        f"def call{suffix}(built, **tensors):\n{begun}    return {picked}\n\n\n"
        f"def {alias}(**tensors):\n    return call{suffix}(build{suffix}(**tensors), **tensors)"
    )


def construction(candidate: Candidate, **text: str) -> str:
    """The arguments that build the loss, made of ``tensors``; ``text`` writes some options in another way."""
    if not candidate.is_class:
        return ""
    return _arguments(
        candidate.implementation,
        candidate.spec,
        candidate.constructor_arguments,
        candidate.constructor_options,
        _drawn(candidate.built_from) | text,
    )


def call(candidate: Candidate, **text: str) -> str:
    """The arguments of a call, likewise."""
    function = signatures.call_function(candidate.implementation)
    given = _drawn(candidate.drawn_from) | text
    return _arguments(function, candidate.spec, candidate.call_arguments, candidate.call_options, given)


def _drawn(generators: tuple[str, ...]) -> dict[str, str]:
    return dict.fromkeys(generators, "torch.Generator().manual_seed(torch.initial_seed())")


def _arguments(
    function: Callable[..., Any],
    spec: LossSpec,
    nodes: Mapping[str, Node],
    options: Mapping[str, Any],
    text: Mapping[str, str],
) -> str:
    def tensor(leaf: Leaf) -> str:
        copied = ".clone()" if leaf.name == spec.writes_gradient_into else ""
        return f"tensors[{leaf.name!r}]{copied}" if leaf.name in spec.tensors else "None"

    made = {name: structures.code(node, tensor) for name, node in nodes.items()}
    given = {**made, **{name: _constant(value) for name, value in options.items()}, **text}
    positional, named = signatures.bind(function, given) if signatures.takes_positions(function) else ((), given)
    return ", ".join([*positional, *(f"{name}={value}" for name, value in named.items())])


def _constant(value: Any) -> str:
    """An option as Python: a literal, a tensor, or a function by the module that has it."""
    if isinstance(value, Tensor):
        return literal(value)
    name = getattr(value, "__qualname__", "") if callable(value) else ""
    return f"{value.__module__}.{name}" if name.replace(".", "").isidentifier() else repr(value)


def _picked(select: Any, returned: str) -> str:
    if not isinstance(select, Selected):
        return returned if select is None else f"spec.select({returned})"
    if isinstance(select.keys, tuple):
        return f"torch.cat([part.reshape(-1) for part in (lambda all: [{', '.join(_part(k, 'all') for k in select.keys)}])({returned})])"
    return (
        _part(select.keys, returned)
        if isinstance(select.keys, int)
        else f"(lambda all: {_part(select.keys, 'all')})({returned})"
    )


def _part(key: str | int, returned: str) -> str:
    found = f"{returned}[{key!r}]"
    return found if isinstance(key, int) else f"({found} if isinstance({returned}, dict) else {returned}.{key})"


def _modules(spec: LossSpec) -> list[str]:
    """What is imported for the classes and functions that arguments name."""
    named = {module for node in spec.arguments.values() for module in structures.modules(node)}
    named |= {str(v.__module__) for v in spec.options.values() if callable(v) and hasattr(v, "__qualname__")}
    return sorted(named - {"torch", "builtins", "None"})
