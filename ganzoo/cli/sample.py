"""`ganzoo sample`."""

from __future__ import annotations

from pathlib import Path

import click

from ..console import err, print_json


@click.command("sample")
@click.argument("run", metavar="RUN|CHECKPOINT", type=click.Path(exists=True, path_type=Path))
@click.option("-n", "--count", type=click.IntRange(1, 1_000_000), default=64, show_default=True, help="How many samples.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same samples.")
@click.option("--class", "label", type=click.IntRange(min=0), default=None,
              help="One class only: one of the data, or of those that the game found.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=None,
              help="A .png file for a grid, or a folder for one PNG a sample.  [default: a grid in the run]")  # fmt: skip
@click.option("--interpolate", is_flag=True, help="Strips that walk from one sample to another, eight rows of ten.")
@click.option("--truncation", type=click.FloatRange(min=0), default=None, metavar="NUMBER",
              help="Nearer to the mean: StyleGAN's psi, else the standard deviations that latents lie within.")  # fmt: skip
@click.option("--standing", type=click.IntRange(min=0), default=0, metavar="N",
              help="Batch norm by the statistics of N batches of samples, not by those of the training.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="Where to compute.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(
    run: Path,
    count: int,
    seed: int,
    label: int | None,
    out: Path | None,
    interpolate: bool,
    truncation: float | None,
    standing: int,
    device: str,
    as_json: bool,
) -> None:
    """Draw samples of a trained model: a grid, a folder of pictures, or interpolation strips."""
    from .. import pictures
    from ..sampling import load

    model = load(run, device)
    for note in model.notes:
        err().print(f"warning: {note}")
    how = {"class": str(label)} if label is not None else {}
    how |= {"truncation": f"{truncation:g}"} if truncation is not None else {}
    how |= {"standing": str(standing)} if standing else {}
    notes = {"recipe": model.recipe.name, "seed": str(seed), "checkpoint": model.path.name, **how}
    folder = run if run.is_dir() else run.parent
    columns = 10 if interpolate else 0
    name = "-".join(["interpolation" if interpolate else "samples", f"seed{seed}", *(key + how[key] for key in how)])
    place = out or folder / f"{name}.png"
    if interpolate:
        samples = model.interpolate(8, columns, seed, label, truncation=truncation, standing=standing)
    else:
        samples = model.sample(count, seed, label, truncation=truncation, standing=standing)
    if interpolate or place.suffix.lower() == ".png":
        pictures.save_png(pictures.grid(samples, columns), place, notes)
    else:
        for number, sample in enumerate(samples):
            pictures.save_png(pictures.image(sample), place / f"{number:06d}.png", {**notes, "index": str(number)})
    if as_json:
        print_json({"written": str(place), "samples": len(samples), "seed": seed, "checkpoint": str(model.path)})
    else:
        click.echo(place)
