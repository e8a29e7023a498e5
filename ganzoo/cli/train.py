"""`ganzoo train`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..allocator import keep_memory
from ..console import duration, err, plain, print_json, reporter, size
from .commands import complete_recipes, recipe_options

if TYPE_CHECKING:
    from ..recipe import Recipe


def launcher(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    """Split torchrun's options as a shell would; none is what was not asked for."""
    if value is None:
        return None
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} cannot be split as a shell would ({error}); quote it anew") from None
    if any(word.replace("_", "-").startswith("--max") for word in words):  # torchrun takes every short form of a name
        raise click.BadParameter("torchrun's --max-restarts would begin in the middle; leave it out and use --retries N")
    return words


@click.command("train")
@click.argument("name", metavar="NAME|FILE", shell_complete=complete_recipes)
@recipe_options
@click.option("--init", default="", metavar="RUN|CHECKPOINT", type=click.Path(),
              help="Begin with the weights of another training, as far as they fit.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:n]|mps|xpu", help="Where to compute.")
@click.option("--run", "folder", default="", metavar="DIR", help="The run's folder.  [default: runs/<recipe name>]")
@click.option("--fresh", is_flag=True, help="Set an earlier run in this folder aside and start anew.")
@click.option("--retries", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
              help="Where training dies after a new checkpoint, go on from there, N times at most.")  # fmt: skip
@click.option("--torchrun", default=None, callback=launcher, metavar="OPTIONS",
              help="Train in processes that torchrun starts, such as '--nproc-per-node 2'.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show the resolved recipe and what it will take; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def command(
    name: str,
    init: str,
    device: str,
    folder: str,
    fresh: bool,
    retries: int,
    torchrun: list[str] | None,
    dry_run: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Train a recipe, a recipe file, or an architecture with a loss; the same command resumes.

    \b
    ganzoo train dcgan-wgangp
    ganzoo train dcgan --loss hinge --regularizer r1=10
    ganzoo train dcgan --data photos.zip --set data.size=64
    ganzoo train dcgan --data few.zip --init runs/dcgan --regularizer freeze-d=2
    """
    from ..registry import registry
    from ..zoo import Request, resolve

    recipe = resolve(name, Request(init=init, **asked), registry())
    place = Path(folder or Path("runs") / recipe.name)
    if retries or torchrun is not None:
        click.get_current_context().exit(supervised(place, fresh, dry_run, retries, torchrun))
    keep_memory()
    if dry_run:
        measure(recipe, place, device, as_json)
        return
    from ..jobs import run_recipe

    outcome = run_recipe(recipe, registry(), place, device, fresh, reporter())
    if not outcome.leads:
        return
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


def measure(recipe: Recipe, place: Path, device: str, as_json: bool) -> None:
    """Print what a run would take."""
    from ..jobs import estimate
    from ..registry import registry

    found = estimate(recipe, registry(), device)
    if as_json:
        from dataclasses import asdict

        print_json({"recipe": dict(recipe.raw), **asdict(found)})
        return
    sys.stdout.write(recipe.toml())
    counts = ", ".join(f"{network} {count:,}" for network, count in found.parameters.items())
    click.echo(f"\nparameters: {counts}")
    for number, stage in enumerate(found.stages, 1):
        pixels = f" ({stage.size} pixels)" if stage.size else ""
        where = f"stage {number}{pixels}: " if len(found.stages) > 1 else ""
        click.echo(f"{where}{stage.seconds_per_round:.3f} s and {stage.samples_per_round} samples a round")
    click.echo(f"measured on {found.device} ({found.precision}); {size(found.peak_bytes)} of memory at most")
    for note in found.notes:
        click.echo(plain(note))
    click.echo(f"to finish: {duration(found.seconds_to_finish)}, {size(found.disk_bytes)} of disk in {place}")


def supervised(place: Path, fresh: bool, dry_run: bool, retries: int, torchrun: list[str] | None) -> int:
    """Train in other processes; return the exit code."""
    from ..launch import supervise

    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise click.UsageError("torchrun has started this process already; leave --retries and --torchrun out")
    if dry_run:
        raise click.UsageError("--dry-run measures in this process; leave --retries and --torchrun out")

    def say(text: str) -> None:
        console = err()
        console.show_cursor()  # a killed process leaves it hidden
        console.print(plain(text))

    return supervise(place, asked_again(("retries", "torchrun", "fresh")), retries=retries, torchrun=torchrun,
                     fresh=fresh, say=say)  # fmt: skip


def asked_again(left_out: Collection[str]) -> list[str]:
    """Return the arguments of this command as they were typed, without some options."""
    context = click.get_current_context()
    options, names = [], []
    for parameter in context.command.params:
        key, value = str(parameter.name), context.params[str(parameter.name)]
        if key in left_out or context.get_parameter_source(key) is not ParameterSource.COMMANDLINE:
            continue
        if isinstance(parameter, click.Argument):
            names.append(value)
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            options.append(parameter.opts[0])
        else:
            options += [f"{parameter.opts[0]}={one}" for one in (value if parameter.multiple else [value])]
    return [*options, "--", *names]
