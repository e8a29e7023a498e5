"""`ganzoo train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..console import duration, err, print_json, reporter, size
from .commands import complete_recipes, recipe_options


@click.command("train")
@click.argument("name", metavar="NAME|FILE", shell_complete=complete_recipes)
@recipe_options
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:n]|mps|xpu", help="Where to compute.")
@click.option("--run", "folder", default="", metavar="DIR", help="The run's folder.  [default: runs/<recipe name>]")
@click.option("--fresh", is_flag=True, help="Set an earlier run in this folder aside and start anew.")
@click.option("--dry-run", is_flag=True, help="Show the resolved recipe and what it will take; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def command(name: str, device: str, folder: str, fresh: bool, dry_run: bool, as_json: bool, **asked: Any) -> None:
    """Train a recipe, a recipe file, or an architecture with a loss; the same command resumes.

    \b
    ganzoo train dcgan-wgangp
    ganzoo train dcgan --loss hinge --regularizer r1=10
    ganzoo train dcgan --data photos.zip --set data.size=64
    """
    from ..registry import registry
    from ..zoo import Request, resolve

    recipe = resolve(name, Request(**asked), registry())
    place = Path(folder or Path("runs") / recipe.name)
    if dry_run:
        from ..jobs import estimate

        found = estimate(recipe, registry(), device)
        if as_json:
            from dataclasses import asdict

            print_json({"recipe": dict(recipe.raw), **asdict(found)})
            return
        sys.stdout.write(recipe.toml())
        counts = ", ".join(f"{network} {count:,}" for network, count in found.parameters.items())
        click.echo(f"\nparameters: {counts}")
        click.echo(f"measured on {found.device} ({found.precision}): {found.seconds_per_round:.3f} s and "
                   f"{found.samples_per_round} samples a round, {size(found.peak_bytes)} of memory at most")  # fmt: skip
        click.echo(f"to finish: {duration(found.seconds_to_finish)}, {size(found.disk_bytes)} of disk in {place}")
        return
    from ..jobs import run_recipe

    outcome = run_recipe(recipe, registry(), place, device, fresh, reporter())
    last = max((place / "samples").glob("*.png"), default=None)
    if as_json:
        print_json({"run": str(place), "samples": outcome.samples, "already_finished": outcome.already_finished,
                    "seconds": round(outcome.seconds, 1), "grid": str(last) if last else None})  # fmt: skip
    elif outcome.already_finished:
        err().print(
            f"{place} is finished ({outcome.samples:,} samples); use --fresh to train anew, or another --run folder"
        )
    else:
        err().print(f"done in {duration(outcome.seconds)}; samples: {last or 'none'}; more: ganzoo sample {place}")
