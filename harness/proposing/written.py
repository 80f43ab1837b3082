"""A proposal as a Python file: formatted, ready to run, and with a comment wherever it is not certain."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

from harness.declare import inline
from harness.proposing.proposal import Decision, Place, Proposal
from harness.proposing.samplers import SAMPLERS

WIDTH = 88
_INDENT = "    "


def source(proposals: Sequence[Proposal], *, module: str, folder: str | None, file: str) -> str:
    """The text of a file of specs.

    Args:
        proposals: one for each spec.
        module: the module that has the losses, as it is imported.
        folder: what the import needs in front of its path, relative to the file; ``None`` for nothing.
        file: the name of the file, for the command to run.
    """
    names = sorted({name for p in proposals for name in (p.name, p.reference) if name})
    used = {d.domain for p in proposals for d in (*p.decisions, *p.left_out)} & set(SAMPLERS)
    groups = _groups(proposals)
    tail = module.rpartition(".")[2] if len(groups) == 1 and len(proposals) > 1 else ""
    specs = [variable(group[0].name).upper() if len(groups) > 1 else "SPEC" for group in groups]
    blocks = [
        _docstring(module, file, command(proposals)),
        _imports(module, names, folder, groups, with_samplers=bool(used)),
        *(f"\n{inspect.getsource(SAMPLERS[name][0]).rstrip()}\n" for name in sorted(used)),
        *(("\n" if used else "") + f"{name} = {_spec(group, tail)}" for name, group in zip(specs, groups, strict=True)),
    ]
    if len(groups) > 1:
        blocks.append(f"SPECS = {_listed(specs, 8, '()')}")
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def command(proposals: Sequence[Proposal]) -> str:
    """What to run next: implementations that stand beside each other are compared, a single one is verified."""
    return "report" if any(p.reference for p in proposals) else "verify"


def _groups(proposals: Sequence[Proposal]) -> list[list[Proposal]]:
    """Those that are held to one reference by one declaration are implementations of one loss."""
    groups: dict[object, list[Proposal]] = {}
    for p in proposals:
        tensors = tuple((d.name, d.place, d.text) for d in p.decisions if d.place != "formula")
        declared = (tensors, str(p.fixed_sizes), p.differentiable, p.output, p.select)
        groups.setdefault((p.reference, declared) if p.reference else p.name, []).append(p)
    return list(groups.values())


def variable(name: str) -> str:
    """``FocalLoss`` as ``focal_loss``."""
    return re.sub(r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _docstring(module: str, file: str, command: str) -> str:
    return (
        f'"""What the losses of {module} declare, proposed by `loss-harness init`.\n\n'
        f'Edit it, then run `loss-harness {command} {file}`.\n"""'
    )


def _imports(
    module: str, names: Sequence[str], folder: str | None, specs: Sequence[Sequence[Proposal]], *, with_samplers: bool
) -> str:
    proposals = [p for group in specs for p in group]
    has_domains = any(d.domain != "real" for p in proposals for d in (*p.decisions, *p.left_out) if d.dims is not None)
    has_laws = any(_held(group) for group in specs)
    has_lists = any(isinstance(d.several, str) for p in proposals for d in (*p.decisions, *p.left_out))
    ours = ["LossSpec", "TensorSpec", *(["domains"] if has_domains else []), *(["laws"] if has_laws else [])]
    ours += ["several"] if has_lists else []
    late = "  # noqa: E402" if folder is not None else ""
    standard = ["import importlib"] if not _is_dotted(module) else []
    standard += ["import sys", "from pathlib import Path"] if folder is not None else []
    groups = ["\n".join(standard)]
    groups.append("import torch\nfrom torch import Generator, Tensor" if with_samplers else "")
    groups.append(f"from harness import {', '.join(ours)}")
    if folder is not None:
        groups.append(f'sys.path.insert(0, str(Path(__file__).parent / "{folder}"))')
    if _is_dotted(module):
        line = f"from {module} import {', '.join(names)}"
        if len(line) > WIDTH:
            line = f"from {module} import (\n{_INDENT}" + f",\n{_INDENT}".join(names) + ",\n)"
        groups.append(line.replace("import (", f"import ({late}") if "(" in line else line + late)
    else:
        groups.append(f'_module = importlib.import_module("{module}")')
        groups.append("\n".join(f"{name} = _module.{name}" for name in names))
    return "\n\n".join(group for group in groups if group)


def _is_dotted(module: str) -> bool:
    return all(part.isidentifier() for part in module.split("."))


def _held(group: Sequence[Proposal]) -> list[str]:
    """Laws that held of all implementations."""
    return [text for text in group[0].laws if all(text in p.laws for p in group)]


def _spec(group: Sequence[Proposal], name: str = "") -> str:
    proposal = group[0]
    implementations = [f'"{name}": {name}' for name in (proposal.reference, *(p.name for p in group)) if name]
    lines = [f'name="{name or proposal.name}",', f"implementations={_listed(implementations, 20, '{}')},"]
    lines += _tensors(proposal, "input", "inputs")
    lines += _tensors(proposal, "context", "context")
    options = [f'"{d.name}": {d.text.replace(chr(39), chr(34))}' for d in proposal.of("option")]
    if options:
        lines += ["# constants that the loss cannot be called without: are these the values?"]
        lines += [f"options={_listed(options, 12, '{}')},"]
    if proposal.fixed_sizes:
        sizes = [f'"{symbol}": {size}' for symbol, size in proposal.fixed_sizes.items()]
        lines.append(f"fixed_sizes={_listed(sizes, 16, '{}')},")
    if proposal.output is not None:
        lines.append(f'output=TensorSpec("{proposal.output}"),')
    if proposal.differentiable:
        names = [f'"{name}"' for name in proposal.differentiable]
        lines.append(f"differentiable={_listed(names, 19, '()')},")
    if proposal.stochastic:
        lines += ["# it draws random numbers: two calls on the same tensors gave two values", "stochastic=True,"]
    for decision in proposal.of("formula"):
        lines += [f"# {_shortened(decision)}"]
        if decision.confidence != "tried":
            lines += ["# if this is what the loss should be, take the comment sign away and it is held to it"]
        lines += [f"{'' if decision.confidence == 'tried' else '# '}formula={decision.text!r},".replace("'", '"')]
    if held := _held(group):
        laws = [f"laws.{inline.law(text).text}".replace("'", '"') for text in held]
        lines += ["# each held on all cases that were drawn; keep those that are meant to hold", "laws=("]
        lines += [f"{_INDENT}{law}," for law in laws] + ["),"]
    if proposal.select:
        lines.append(f"select=lambda returned: returned{proposal.select.replace(chr(39), chr(34))},")
    if not (proposal.reference or proposal.formula):
        lines.append("# a second implementation, first in `implementations`, is what this one is held to")
    return "LossSpec(\n" + "".join(f"{_INDENT}{line}\n" for line in lines) + ")"


def _tensors(proposal: Proposal, place: Place, argument: str) -> list[str]:
    decisions = proposal.of(place)
    optional = [decision for decision in proposal.left_out if decision.place == place]
    if not decisions and not optional:
        return ["context={},"] if place == "context" else []
    lines = [f"{argument}={{"]
    for decision in decisions:
        if decision.confidence != "declared":
            lines.append(f"{_INDENT}# {_shortened(decision)}")
        lines.append(f"{_INDENT}{_entry(decision)}")
    lines += [f"{_INDENT}# optional: {_entry(decision)}" for decision in optional]
    return [*lines, "},"]


def _shortened(decision: Decision) -> str:
    text = f"{decision.confidence}: {decision.why}"
    return text if len(text) <= WIDTH - 12 else text[: WIDTH - 15] + "..."


def _entry(decision: Decision) -> str:
    tensor = tensor_source(decision)
    if isinstance(decision.several, str):
        tensor = f'several("{decision.several}", {tensor})'
    elif decision.several is not None:
        tensor = f"({', '.join([tensor] * decision.several)}{',' if decision.several == 1 else ''})"
    return f'"{decision.name}": {tensor},'


def tensor_source(decision: Decision) -> str:
    """The call that makes a decision's `TensorSpec`."""
    if decision.domain in SAMPLERS:
        dtype = ", dtype=torch.int64" if SAMPLERS[decision.domain][1] is not None else ""
        return f'TensorSpec("{decision.dims}", domains.custom({decision.domain}){dtype})'
    tensor = inline.tensor(f"{decision.dims} {decision.domain}")
    parts = [f'"{tensor.dims}"']
    if decision.domain != "real" or tensor.dtype is not None:
        parts.append(f"domains.{tensor.domain!r}".replace("'", '"'))
    if tensor.dtype is not None:
        parts.append(f"dtype={tensor.dtype}")
    return f"TensorSpec({', '.join(parts)})"


def _listed(items: Sequence[str], before: int, brackets: str) -> str:
    """A tuple or dictionary in one line where it fits, else one item a line."""
    only = "," if len(items) == 1 and brackets == "()" else ""
    line = f"{brackets[0]}{', '.join(items)}{only}{brackets[1]}"
    if before + len(line) + len(_INDENT) <= WIDTH:
        return line
    inner = f",\n{_INDENT * 2}".join(items)
    return f"{brackets[0]}\n{_INDENT * 2}{inner},\n{_INDENT}{brackets[1]}"
