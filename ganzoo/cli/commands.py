"""The command group, and what its commands share."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from .. import __version__
from ..errors import did_you_mean

COMMANDS = (
    *("train", "sample", "cluster", "list", "show", "benchmark", "speed", "leaderboard", "new", "check", "doctor"),
    "completion",
)


class LazyGroup(click.Group):
    """A group that imports a command's file only when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which people meet them."""
        return list(COMMANDS)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the closest command where there is none of this name."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            known = f"; there are: {', '.join(COMMANDS)}"
            ctx.fail(f"there is no command {args[0]!r}{did_you_mean(args[0], COMMANDS) or known}")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f".{cmd_name}", __package__).command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ganzoo")
def cli() -> None:
    """Train, sample and compare GANs: one name is one running model.

    \b
    ganzoo list                     what there is
    ganzoo train dcgan-wgangp       watch it learn
    ganzoo sample runs/dcgan-wgangp look at what it learned
    """


def complete_recipes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the names of recipes, reading metadata only."""
    from ..registry import registry
    from ..zoo import entries

    return sorted({entry.name for entry in entries(registry()) if entry.name.startswith(incomplete)})


def completer(kind: str) -> Any:
    """Return the completion of one kind of plugin's names, reading metadata only."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        from ..registry import registry

        return sorted({record.name for record in registry().of(kind) if record.name.startswith(incomplete)})

    return complete


def recipe_options(function: Any) -> Any:
    """Add the options that turn a name into a recipe."""
    options = [
        click.option("--preset", "presets", multiple=True, metavar="NAME", help="A preset of the recipe: reference."),
        click.option("--data", default="", metavar="NAME|PATH", help="A dataset, or a folder or zip of images.",
                     shell_complete=completer("dataset")),
        click.option("--loss", default="", metavar="NAME", help="Another loss.", shell_complete=completer("loss")),
        click.option("--regularizer", "regularizers", multiple=True, metavar="NAME[=NUMBER]",
                     help="Add a regularizer; the number is its weight, or what it calls its strength.",
                     shell_complete=completer("regularizer")),
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Any value, such as train.batch=128."),
        click.option("--seed", type=click.IntRange(min=0), default=None, help="Seed of everything random."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function
