"""What a suite leaves in its folder: a table for people, the same for programs, and pictures of what was drawn."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..checkpoint import write_atomically
from ..pictures import grid, save_png
from ..sampling import load
from .diversity import Entrant, Row
from .suite import Suite

COLUMNS = (
    *("set", "contestant", "seeds", "modes reached", "with a good sample", "well covered", "good samples", "reverse KL"),
    "KL of a perfect sampler",
)
SIDE = 480  # pixels of a picture of points
SHOWN = 64  # images in a picture
POINTS = 2500  # points in a picture


def table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return the cells of each row: mean and deviation over the seeds."""
    return [
        (
            row.arena.name,
            row.contestant,
            str(len(row.seeds)),
            f"{_both(row, 'reached', '.1f')} of {row.modes}",
            _both(row, "modes", ".1f"),
            _both(row, "well", ".1f"),
            _both(row, "good", ".1%"),
            _both(row, "kl", ".4f"),
            f"{row.floor:.4f}",
        )
        for row in rows
    ]


def _both(row: Row, key: str, form: str) -> str:
    mean, deviation = format(row.mean(key), form), format(row.deviation(key), form)
    return f"{mean.rstrip('%')} ± {deviation}" if len(row.seeds) > 1 else mean


def markdown(suite: Suite, rows: Sequence[Row]) -> str:
    """Return the table with what its columns mean."""
    lines = [f"# {suite.name}", "", f"{suite.summary}.", ""]
    lines += [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * 2}{'---:|' * (len(COLUMNS) - 2)}"]
    lines += [f"| {' | '.join(cells)} |" for cells in table(rows)]
    lines += [
        "",
        f"Suite {suite.name}/{suite.version}; means and standard deviations over training seeds. A mode is reached by any "
        "sample that is nearest to it or recognised as it, and well covered from "
        f"{suite.well:.0%} of its fair share of good samples on. Reverse KL is between the shares of all samples by mode "
        "and the true shares, in nats; the last column is what a perfect sampler of that many would have on average.",
        "",
        *(
            f"- {name}: {protocol}; {judged:,} samples judged."
            for name, protocol, judged in dict.fromkeys((r.arena.name, r.arena.protocol, r.arena.samples) for r in rows)
        ),
    ]
    return "\n".join(lines) + "\n"


def comma_separated(rows: Sequence[Row]) -> str:
    """Return the table as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(table(rows))
    return out.getvalue()


def write(suite: Suite, rows: Sequence[Row], out: Path) -> list[Path]:
    """Write the table as Markdown, CSV and JSON, and return the files."""
    content = {
        "md": markdown(suite, rows),
        "csv": comma_separated(rows),
        "json": json.dumps({"suite": suite.name, "version": suite.version, "rows": [r.as_json() for r in rows]}, indent=1),
    }
    written = []
    for suffix, text in content.items():
        path = out / f"{suite.name}.{suffix}"
        write_atomically(path, text.encode())
        written.append(path)
    return written


def draw(everybody: Sequence[Entrant], out: Path) -> list[Path]:
    """Write a picture of what each contestant's first seed draws, and return the files."""
    written = []
    for one in {(e.arena.name, e.contestant.name): e for e in reversed(everybody) if e.trained}.values():
        path = out / "pictures" / f"{one.arena.name}-{one.contestant.name}.png"
        model = load(one.place, "cpu")
        vectors = len(model.spec.shape) == 1
        samples = model.sample(POINTS if vectors else SHOWN, seed=0)
        save_png(scatter(samples) if vectors else grid(samples), path, {"recipe": one.recipe.name})
        written.append(path)
    return written


def scatter(points: Tensor, reach: float = 0.0) -> Image.Image:
    """Return points [N, 2] as dots in a square that reaches from -reach to reach, or by itself as far as 99 % of them."""
    reach = reach or 1.1 * float(points.abs().amax(1).quantile(0.99))
    place = ((points.double() / reach + 1) / 2 * (SIDE - 1)).round().long()
    inside = ((place >= 0) & (place < SIDE)).all(1)
    ink = torch.zeros(SIDE, SIDE)
    x, y = place[inside].unbind(1)
    ink.index_put_((SIDE - 1 - y, x), torch.ones(len(x)), accumulate=True)
    dots = torch.nn.functional.max_pool2d(ink[None, None], 3, 1, 1)[0, 0]
    shade = (255 - 160 * (dots > 0) - 95 * (dots / max(float(dots.max()), 1.0)).sqrt() * (dots > 0)).clamp(0, 255)
    return Image.fromarray(shade.to(torch.uint8).numpy())
