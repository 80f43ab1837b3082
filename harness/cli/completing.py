"""What a shell is told when it completes a word; nothing here imports torch."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def codes(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Codes of rules with their titles; of several with commas, the last."""
    from harness.results.rule_texts import rule_texts

    before, comma, last = incomplete.rpartition(",")
    return [
        CompletionItem(f"{before}{comma}{text.code}", help=text.title)
        for text in rule_texts().values()
        if text.code.startswith(last.upper())
    ]


def files(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, which the shell itself completes."""
    return [CompletionItem(incomplete, type="file")]
