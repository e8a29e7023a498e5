"""`ganzoo completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .commands import cli


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that completes commands, recipes and plugin names in a shell.

    \b
    eval "$(ganzoo completion bash)"
    """
    completer = get_completion_class(shell)
    if completer is None:
        raise click.UsageError(f"click offers no completion for {shell!r}")
    click.echo(completer(cli, {}, "ganzoo", "_GANZOO_COMPLETE").source())
