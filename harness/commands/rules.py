"""`loss-harness rules` and `loss-harness explain`: what the rules are."""

from __future__ import annotations

import sys

import click


@click.command("rules")
def list_rules() -> None:
    """List the rules."""
    from harness.report import text
    from harness.rules import DOCUMENTED

    rows = [["code", "severity", "group", "rule"], *([r.code, r.severity, r.group, r.title] for r in DOCUMENTED)]
    click.echo(text.table(rows))


@click.command()
@click.argument("code")
def explain(code: str) -> None:
    """Say what a rule checks, why it matters and how to mend what it finds."""
    from harness import rules

    explained = rules.find(code).explain()
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(explained))
    else:
        click.echo(explained.rstrip())
