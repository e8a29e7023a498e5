"""`ganzoo new`."""

from __future__ import annotations

from pathlib import Path

import click

from ..console import print_json
from ..scaffold import KINDS, plan, write


@click.command("new")
@click.argument("kind", type=click.Choice(KINDS), metavar="|".join(KINDS))
@click.argument("name", metavar="NAME")
@click.option("--out", type=click.Path(path_type=Path), default=None, metavar="DIR",
              help="The package's folder, new or empty.  [default: ./ganzoo-NAME]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(kind: str, name: str, out: Path | None, as_json: bool) -> None:
    """Write a package with a plugin that works, its tests, and a recipe that trains it in seconds.

    \b
    ganzoo new loss my-loss
    ganzoo new dataset my-pictures --out work/pictures
    """
    from ..registry import registry

    scaffold = plan(kind, name, registry())
    folder = out or Path(scaffold.distribution)
    written = [str(path) for path in write(scaffold, folder)]
    commands = scaffold.commands(folder)
    if as_json:
        print_json(
            {"kind": kind, "name": name, "distribution": scaffold.distribution, "recipe": scaffold.recipe,
             "folder": str(folder), "files": written, "next": commands}
        )  # fmt: skip
        return
    click.echo("\n".join([*written, "", "next:", *(f"  {line}" for line in commands)]))
