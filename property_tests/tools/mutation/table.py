"""The outcome as tables: what each rule catches, what each operator's mutants meet, and which mutants survive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from harness.rules import BATTERY

from .operators import OPERATORS
from .score import Result, share


def show(results: Sequence[Result], console: Console) -> None:
    """Print everything: rules, operators, what was set aside, crashes, survivors, and the score in the last line."""
    scored = [r for r in results if r.kind == "scored"]
    console.print(_rules(scored))
    console.print(_operators(results))
    _print_set_aside(results, console)
    for found in scored:
        if found.crashed:
            console.print(f"crashed: {', '.join(found.crashed)} on {found.mutant.name}", markup=False)
    _print_survivors(scored, console)
    console.print(score_line(results))


def score_line(results: Sequence[Result]) -> str:
    """The two scores and what they rest on, in one line."""
    kinds = Counter(r.kind for r in results)
    return (
        f"caught with the reference {share(results):.1%}, alone {share(results, alone=True):.1%} of {kinds['scored']} mutants"
        f" ({kinds['equivalent']} equivalent, {kinds['invalid']} invalid)"
    )


def _rules(scored: Sequence[Result]) -> Table:
    table = Table("rule", title="Mutants that each rule catches")
    for heading in ("with reference", "of these by it alone", "alone", "of these by it alone "):
        table.add_column(heading, justify="right")
    catches = [[r.with_reference for r in scored], [r.alone for r in scored]]
    for rule in BATTERY:
        cells = []
        for caught in catches:
            cells += [sum(rule.code in codes for codes in caught), sum(codes == (rule.code,) for codes in caught)]
        table.add_row(f"{rule.code} {rule.title}", *(str(n) if n else "·" for n in cells))
    return table


def _operators(results: Sequence[Result]) -> Table:
    table = Table("operator", "mistake", title="Mutants of each operator")
    for heading in ("mutants", "set aside", "with reference", "alone"):
        table.add_column(heading, justify="right")
    for operator in OPERATORS:
        mine = [r for r in results if r.mutant.operator == operator.name]
        scored = [r for r in mine if r.kind == "scored"]
        if mine:
            cells = [f"{share(scored):.0%}", f"{share(scored, alone=True):.0%}"] if scored else ["·", "·"]
            table.add_row(operator.name, operator.sentence, str(len(scored)), str(len(mine) - len(scored)), *cells)
    return table


def _print_set_aside(results: Sequence[Result], console: Console) -> None:
    reasons = Counter((r.kind, r.reason.partition(":")[0]) for r in results if r.kind != "scored")
    for (kind, reason), count in sorted(reasons.items(), key=lambda item: -item[1]):
        console.print(f"{kind}: {count} ({reason})", markup=False)


def _print_survivors(scored: Sequence[Result], console: Console) -> None:
    survivors = [r for r in scored if not r.with_reference]
    console.print(f"\n{len(survivors)} survive with the reference beside them", markup=False)
    for survivor in survivors:
        mutant = survivor.mutant
        noted = f"; noted by {', '.join(survivor.noted)}" if survivor.noted else ""
        shown = f"{mutant.name} in {mutant.function}; another answer to: {survivor.reason}{noted}"
        console.print(shown, markup=False)
        for line in mutant.diff:
            console.print(f"    {line}", markup=False, highlight=False)
