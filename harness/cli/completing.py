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


def explained(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Codes of rules, and what else `explain` knows."""
    from harness.declare.documented import KINDS, documented

    words = [*KINDS, *(name for kind in KINDS for name in documented(kind))]
    return [*codes(ctx, parameter, incomplete), *(CompletionItem(w) for w in words if w.startswith(incomplete.lower()))]


def files(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, which the shell itself completes."""
    return [CompletionItem(incomplete, type="file")]
