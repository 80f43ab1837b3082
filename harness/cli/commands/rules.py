"""`loss-harness rules` and `loss-harness explain`: what the rules are, from their words and without torch."""

from __future__ import annotations

import shutil
import sys

import click

from harness.cli import completing, exits
from harness.cli.terminal import colors
from harness.errors import nearest


@click.command("rules")
def list_rules() -> None:
    """List the rules."""
    from harness.results.rule_texts import rule_texts

    click.echo(_listed(list(rule_texts())))


@click.command()
@click.argument("code", shell_complete=completing.codes)
def explain(code: str) -> None:
    """Say what a rule checks, why it matters and how to mend what it finds.

    CODE is that of a rule, such as G01, or the beginning of several, such as G.
    """
    from harness.results.rule_texts import rule_text, rule_texts

    wanted = code.upper()
    found = sorted(known for known in rule_texts() if known.startswith(wanted))
    if wanted in rule_texts():
        _show(rule_text(wanted).explanation)
    elif found:
        click.echo(_listed(found))
        click.echo(f"\n`loss-harness explain {found[0]}` says what that one checks, and how to mend what it finds")
    else:
        raise exits.Refused(f"no rule {code!r}{nearest(wanted, rule_texts())}; `loss-harness rules` lists them all")


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
