"""`loss-harness completion`: the script with which a shell completes commands, options, codes and files."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_LOSS_HARNESS_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes this command in a shell.

    \b
    bash:  loss-harness completion bash >> ~/.bashrc
    zsh:   loss-harness completion zsh >> ~/.zshrc
    fish:  loss-harness completion fish > ~/.config/fish/completions/loss-harness.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click has all three
    click.echo(kind(ctx.find_root().command, {}, "loss-harness", _VARIABLE).source())
