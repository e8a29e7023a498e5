"""`ganzoo benchmark stats`: the features of real images that were computed once and are kept."""

from __future__ import annotations

from pathlib import Path

import click

from ..console import print_table, size
from ..errors import CheckpointError
from .commands import completer


@click.group("stats", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Look after the kept features of real images, or hand their mean and covariance on."""


@command.command("ls")
def ls() -> None:
    """List what is kept, and where."""
    from ..benchmark.reference import cache_folder
    from ..checkpoint import read_tensors

    rows = []
    for path in sorted(cache_folder().glob("*.safetensors")):
        try:
            tensors, facts = read_tensors(path)
            about = (facts.get("extractor", ""), facts.get("pixels", "")[:8], f"{len(tensors['values']):,}")
        except CheckpointError:
            about = ("damaged: it will be computed anew", "", "")
        rows.append((*about, size(path.stat().st_size), path.name))
    print_table(("extractor", "pixels", "images", "size", "file"), rows, title=str(cache_folder()))


@command.command("verify")
def verify() -> int:
    """Compare every kept file with its own hash. Exit code 1 where one is damaged."""
    from ..benchmark.reference import cache_folder
    from ..checkpoint import read_tensors

    damaged = 0
    for path in sorted(cache_folder().glob("*.safetensors")):
        try:
            read_tensors(path)
        except CheckpointError as error:
            click.echo(str(error))
            damaged += 1
    click.echo(f"{damaged} damaged; such files are computed anew when they are needed")
    return int(damaged > 0)


@command.command("clear")
def clear() -> None:
    """Remove everything that is kept; it is computed anew when it is needed."""
    from ..benchmark.reference import cache_folder

    files = sorted(cache_folder().glob("*.safetensors"))
    total = sum(path.stat().st_size for path in files)
    for path in files:
        path.unlink(missing_ok=True)
    click.echo(f"{len(files)} files removed, {size(total)}")


@command.command("export")
@click.argument("extractor", shell_complete=completer("extractor"))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--data", required=True, metavar="NAME", help="The dataset.", shell_complete=completer("dataset"))
@click.option("--size", "pixels", type=click.IntRange(1), default=32, show_default=True, help="Width of its images.")
@click.option("--split", type=click.Choice(["train", "test"]), default="train", show_default=True, help="Which images.")
@click.option("--weights", default="", metavar="FILE", help="The extractor's file of weights.")
def export(extractor: str, file: Path, data: str, pixels: int, split: str, weights: str) -> None:
    """Write mean `mu` and covariance `sigma` of real images as .npz, as pytorch-fid and EDM read them."""
    from ..benchmark.reference import export_moments
    from ..registry import registry

    options = {"weights": weights} if weights else {}
    name = export_moments(registry(), extractor, options, data, {"size": pixels, "split": split}, file)
    click.echo(f"{file}: mu and sigma of {data} ({split}) in the features of {name}")
