"""`loss-harness rules` and `loss-harness explain`: what rules, domains and laws are, from their words and without torch."""

from __future__ import annotations

import shutil
import sys
import textwrap

import click

from harness.cli import completing, exits, running
from harness.cli.terminal import colors
from harness.errors import nearest


@click.command("rules")
def list_rules() -> None:
    """List the rules."""
    from harness.results.rule_texts import rule_texts

    click.echo(_listed(list(rule_texts())))


@click.command()
@click.argument("code", shell_complete=completing.explained)
def explain(code: str) -> None:
    """Say what a rule checks, why it matters and how to mend what it finds; or what a domain or law is.

    CODE is that of a rule, such as G01, or the beginning of several, such as G.  `domains` and `laws` list what a declaration
    may name, and the name of one, such as index, shows it alone.
    """
    from harness.declare.documented import KINDS, documented
    from harness.results.rule_texts import rule_text, rule_texts

    wanted, word = code.upper(), code.lower().rpartition(".")[2].partition("(")[0]
    known = {kind: documented(kind) for kind in KINDS}
    named = [
        f"{kind}.{call}\n{textwrap.indent(said, '  ')}\n"
        for kind, each in known.items()
        for name, (call, said) in each.items()
        if name.rstrip("_") == word.rstrip("_")
    ]
    found = sorted(each for each in rule_texts() if each.startswith(wanted))
    if wanted in rule_texts():
        _show(rule_text(wanted).explanation)
    elif found:
        click.echo(_listed(found))
        click.echo(f"\n`loss-harness explain {found[0]}` says what that one checks, and how to mend what it finds")
    elif word in known:
        running.emit("".join(f"{call}\n  {said.splitlines()[0]}\n" for call, said in known[word].values()), None)
    elif named:
        running.emit("\n".join(named), None)
    else:
        near = nearest(wanted, rule_texts()) or nearest(word, [*known, *known["domains"], *known["laws"]])
        raise exits.Refused(
            f"no rule {code!r}{near}; `loss-harness rules` lists them all, `loss-harness explain domains` and `laws` the others"
        )


def _listed(codes: list[str]) -> str:
    from harness.results import words
    from harness.results.rule_texts import rule_text

    rules = [rule_text(code) for code in codes]
    return words.table(
        [["code", "severity", "group", "rule"], *([r.code, r.severity, r.group, r.title] for r in rules)]
    )


def _show(markdown: str) -> None:
    if not sys.stdout.isatty():
        click.echo(markdown.rstrip())
        return
    from rich.console import Console
    from rich.markdown import Markdown

    width = min(shutil.get_terminal_size().columns, 100)
    Console(no_color=not colors.wanted(sys.stdout), width=width).print(Markdown(markdown))
