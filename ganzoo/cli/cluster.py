"""`ganzoo cluster`."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..console import err, print_json, print_table

if TYPE_CHECKING:
    from torch import Tensor

    from ..sampling import Model

SHOWN = 16  # members of a cluster in its row of the picture
BATCH = 500


@click.command("cluster")
@click.argument("run", metavar="RUN|CHECKPOINT", type=click.Path(exists=True, path_type=Path))
@click.option("--split", default="", metavar="NAME", help="Another split of the recipe's data, such as test.")
@click.option("--labels", is_flag=True, help="Compare the clusters with the data's own classes.")
@click.option("--out", type=click.Path(path_type=Path), default=None,
              help="A .csv file; the picture lies beside it.  [default: clusters.csv in the run]")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="Where to compute.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(run: Path, split: str, labels: bool, out: Path | None, device: str, as_json: bool) -> None:
    """Sort the data of a run into the clusters that its training found, as a mixture of generators does."""
    from ..clusters import agreement
    from ..sampling import load

    model = load(run, device)
    for note in model.notes:
        err().print(f"warning: {note}")
    samples, classes = _data(model, split, labels)
    share = model.clusters(samples)
    sure, cluster = share.max(1)
    place = out or (run if run.is_dir() else run.parent) / "clusters.csv"
    written = _write(place, cluster, sure, samples)
    sizes = cluster.bincount(minlength=share.shape[1])
    compared = asdict(agreement(cluster, classes)) if classes is not None else {}
    result: dict[str, Any] = {"samples": len(cluster), "sizes": sizes.tolist(), **compared, "written": written}
    if as_json:
        print_json(result)
        return
    sorted_sure = [sure[cluster == k].mean() for k in range(len(sizes))]
    rows = [
        (str(k), f"{int(n):,}", f"{int(n) / len(cluster):.1%}", f"{mean:.3f}" if n else "")
        for k, (n, mean) in enumerate(zip(sizes, sorted_sure, strict=True))
    ]
    print_table(("cluster", "samples", "share", "mean probability"), rows)
    for name, value in compared.items():
        click.echo(f"{name}: {value:.4f}")
    for text in written:
        err().print(f"written: {text}")


def _data(model: Model, split: str, labels: bool) -> tuple[Tensor, Tensor | None]:
    """Return the samples of the recipe's data as networks meet them, and their classes where they are asked for."""
    import torch

    from .. import assemble
    from ..device import Device
    from ..registry import registry
    from ..zoo import at_home

    options: dict[str, Any] = ({"split": split} if split else {}) | ({"labels": True} if labels else {})
    data = assemble.dataset(model.recipe, at_home(model.recipe, registry()), **options)
    whole = data.batch(torch.arange(len(data)))
    return Device.choose("cpu", "fp32").move(whole.real), whole.cond["label"] if labels else None


def _write(place: Path, cluster: Tensor, sure: Tensor, samples: Tensor) -> list[str]:
    """Write which cluster each sample belongs to and, of images, a picture with a row for each cluster."""
    import torch

    from ..checkpoint import write_atomically
    from ..pictures import grid, save_png

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("index", "cluster", "probability"))
    writer.writerows((n, int(k), f"{float(p):.6f}") for n, (k, p) in enumerate(zip(cluster, sure, strict=True)))
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, text.getvalue().encode())
    if samples.ndim != 4 or samples.shape[1] not in (1, 3):
        return [str(place)]
    rows = []
    for k in sorted(set(cluster.tolist())):
        members = samples[cluster == k][sure[cluster == k].argsort(descending=True, stable=True)[:SHOWN]]
        rows.append(torch.cat([members, torch.ones(SHOWN - len(members), *samples.shape[1:])]))
    picture = place.with_suffix(".png")
    save_png(grid(torch.cat(rows), SHOWN), picture)
    return [str(place), str(picture)]
