"""`loss-harness init`: look at a loss and write the declaration to edit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.exits import Refused
from harness.results.words import plural

if TYPE_CHECKING:
    from harness.proposing.process import Proposals
    from harness.proposing.proposal import Decision, Proposal


@click.command()
@click.argument("target")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write; by default specs_NAME.py beside the loss.",
)
@click.option("--stdout", is_flag=True, help="Print the file and write nothing.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A constant that the loss needs; may be given several times.",
)
@click.option(
    "--limit",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds after which no further loss is looked at; any one is ended after half of that.",
)
def init(target: str, output: Path | None, stdout: bool, force: bool, settings: tuple[str, ...], limit: float) -> None:
    """Look at a loss and write the declaration to edit.

    TARGET is path/file.py, package.module, or either with :Name.  Shapes, values, constants and laws are proposed from names,
    annotations, docstrings and trial calls on small tensors, which run in processes of their own.
    """
    from harness.proposing.process import proposals
    from harness.proposing.written import command, source

    stdout |= output == Path("-")
    file = output or _file_for(target)
    if file.exists() and not (force or stdout):
        raise Refused(
            f"{file} is there already; --force overwrites it, --output FILE names another, --stdout writes nothing"
        )
    answer = proposals(target, settings=settings, limit_s=limit)
    if not answer.found:
        raise Refused(_nothing(target, answer))
    made = list(answer.found.values())
    module, folder = _import_of(target, file)
    text = source(made, module=module, folder=folder, file=_shown(file))
    for proposal in made:
        click.echo(_decisions(proposal) + "\n", err=stdout)
    for name, reason in answer.problems.items():
        click.echo(f"left out: {name}: {reason.removeprefix(name + ': ')}\n", err=stdout)
    if stdout:
        click.echo(text, nl=False)
        return
    from harness.report import writer

    writer.write_text(file, text)
    click.echo(f"written: {_shown(file)}\nnext:    loss-harness {command(made)} {_shown(file)}")


def _parts(target: str) -> tuple[str, str]:
    """(module or file, name) of a target; no name where it names all of them."""
    place, _, name = target.rpartition(":")
    return (place, name) if place and name.isidentifier() else (target, "")


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


def _file_for(target: str) -> Path:
    from harness.proposing.written import variable

    place, name = _parts(target)
    if _is_file(place):
        return Path(place).parent / f"specs_{variable(name) if name else Path(place).stem}.py"
    return Path(f"specs_{variable(name or place.rpartition('.')[2])}.py")


def _shown(file: Path) -> str:
    relative = os.path.relpath(file)
    return file.as_posix() if relative.startswith("..") else Path(relative).as_posix()


def _import_of(target: str, file: Path) -> tuple[str, str | None]:
    """The module that the written file imports, and the folder that it adds to the path for that, if any."""
    place, _ = _parts(target)
    if not _is_file(place):
        return place, None
    path = Path(place).resolve()
    root, dotted = path.parent, path.stem
    while (root / "__init__.py").exists():
        dotted, root = f"{root.name}.{dotted}", root.parent
    in_package = (file.parent.resolve() / "__init__.py").exists()
    if file.parent.resolve() == root or (in_package and file.parent.resolve().is_relative_to(root)):
        return dotted, None  # it is loaded with this folder on the path
    return dotted, Path(os.path.relpath(root, file.parent.resolve())).as_posix()


def _decisions(proposal: Proposal) -> str:
    """One line for each decision: what, how certain, and why."""
    rows = [(_label(d), d.text, d.confidence, d.why) for d in proposal.decisions]
    rows += [(f"{_label(d)} (optional)", d.text, d.confidence, d.why) for d in proposal.left_out]
    if proposal.output is not None:
        rows.append(("returns", proposal.output or "one number", "tried", "the shape that came out of every call"))
    if proposal.differentiable:
        rows.append(
            ("differentiable", ", ".join(proposal.differentiable), "tried", "each has a gradient that is not zero")
        )
    rows += [
        ("law", law, "tried", f"it held on all cases that were drawn, {cases} in which it could have failed")
        for law, cases in proposal.laws.items()
    ]
    if proposal.reference:
        rows.append(("reference", proposal.reference, "guessed", "it takes the same tensors, and its name says so"))
    wide = [max(len(row[column]) for row in rows if row[0] != "formula" or column != 1) for column in range(3)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=False)) + f"  {row[3]}" for row in rows
    ]
    head = f"{proposal.name}: tried {plural(proposal.trials, 'way')} to call it"
    return "\n".join([head, *(f"  {line}" for line in lines), *(_note(note) for note in proposal.notes)])


def _note(note: str) -> str:
    return "  note: " + note.strip().replace("\n", "\n    ")


def _label(decision: Decision) -> str:
    return decision.place if decision.place == decision.name else f"{decision.place} {decision.name}"


def _nothing(target: str, answer: Proposals) -> str:
    if not answer.problems:
        return f"target {target!r} holds no loss"
    return "\n\n".join(f"{name}: {reason.removeprefix(name + ': ')}" for name, reason in answer.problems.items())
