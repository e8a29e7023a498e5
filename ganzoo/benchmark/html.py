"""A leaderboard as one page that needs no network: tables to sort, pictures, plots, and how to check it all."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from .board import BADGES, Board, Row
from .columns import Column, chosen, measured, number
from .plots import costs, intervals
from .render import caption, failures

Pictures = Mapping[str, Mapping[str, Path]]  # entry's hash -> kind -> file
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
TALL = 20  # models from which on the plot of intervals is as high as the other three together
SUMMARIES = {
    "grid": "the first samples of the first evaluation seed, unselected",
    "neighbours": "samples above, below each the training image nearest to it",
}


def to_html(boards: Sequence[Board], pictures: Pictures, note: str = "") -> str:
    """Return the page. Every text that comes from an entry is escaped; the same boards give the same page."""
    title = "ganzoo leaderboard" if len(boards) != 1 else f"{boards[0].title} · ganzoo leaderboard"
    body = "\n".join(_board(board, number, pictures) for number, board in enumerate(boards))
    menu = "".join(f'<a href="#board{number}">{escape(board.title)}</a>' for number, board in enumerate(boards))
    return Template(_file("page.html")).substitute(
        title=escape(title),
        policy=escape(POLICY, quote=True),
        style=_file("page.css"),
        script=_file("page.js"),
        menu=f"<nav>{menu}</nav>" if len(boards) > 1 else "",
        note=f'<p class="lead">{escape(note)}</p>' if note else "",
        boards=body,
        legend="".join(f"<dt>{escape(column.title)}</dt><dd>{escape(column.help)}</dd>" for column in chosen()),
        badges="".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in BADGES.values()),
    )


def _file(name: str) -> str:
    return resources.files(__package__ or "").joinpath("page", name).read_text(encoding="utf-8")


def _board(board: Board, place: int, pictures: Pictures) -> str:
    plots = [("Distance to the training images", intervals(board)), *costs(board)]
    row = "plots tall" if len(board.models) > TALL else "plots"
    figures = "".join(
        f'<figure class="plot"><figcaption>{escape(text)}</figcaption>{plot}</figure>' for text, plot in plots if plot
    )
    notes = "".join(f"<li>{escape(line)}</li>" for line in (*caption(board), *failures(board)))
    gallery = "".join(_card(row, pictures) for row in board.models if row.scored)
    return (
        f'<section class="board" id="board{place}"><h2>{escape(board.title)}</h2><ul class="notes">{notes}</ul>'
        f'{_table(board)}<div class="{row}">{figures}</div><h3>Samples</h3><div class="gallery">{gallery}</div>'
        f"{_details(board)}{_protocol(board)}</section>"
    )


def _table(board: Board) -> str:
    columns = [column for column in chosen() if _used(board, column)]
    heads = "".join(
        f'<th scope="col" class="{"number" if column.number else "text"}" title="{escape(column.help, quote=True)}">'
        f'<button type="button">{escape(column.title)}</button></th>'
        for column in columns
    )
    bodies = "".join(
        f'<tbody class="{kind}">{"".join(_line(board, row, columns) for row in rows)}</tbody>'
        for kind, rows in (("models", board.models), ("baselines", board.baselines))
    )
    label = f'<caption class="hidden">{escape(board.title)}</caption>'
    return f'<div class="scroll"><table>{label}<thead><tr>{heads}</tr></thead>{bodies}</table></div>'


def _used(board: Board, column: Column) -> bool:
    return any(column.cell(board, row).text for row in (*board.models, *board.baselines))


def _line(board: Board, row: Row, columns: Sequence[Column]) -> str:
    return "<tr>" + "".join(_cell(board, row, column) for column in columns) + "</tr>"


def _cell(board: Board, row: Row, column: Column) -> str:
    cell = column.cell(board, row)
    order = "" if cell.order is None else f' data-order="{cell.order!r}"'
    if column.key != "model":
        return f'<td class="{"number" if column.number else "text"}"{order}>{escape(cell.text)}</td>'
    badges = "".join(
        f' <span class="badge {key}" title="{escape(BADGES[key][1], quote=True)}">{escape(BADGES[key][0])}</span>'
        for key in row.badges
    )
    summary = escape(str(row.first["model"]["summary"]), quote=True)
    return f'<th scope="row" class="text" title="{summary}">{escape(row.name)}{badges}</th>'


def _card(row: Row, pictures: Pictures) -> str:
    found = pictures.get(str(row.first["entry_sha256"]), {})
    images = "".join(
        f'<img class="{kind}" src="{_data(found[kind])}" alt="{escape(f"{row.name}: {text}", quote=True)}" '
        f'title="{escape(text, quote=True)}">'
        for kind, text in SUMMARIES.items()
        if kind in found
    )
    name = escape(row.name, quote=True)
    shown = images or "".join(
        f'<img class="grid" src="data:image/png;base64,{escape(str(png), quote=True)}" alt="samples of {name}">'
        for png in row.first["samples"]["witness_png"]
    )
    rank = f"{row.rank}. " if row.rank else ""
    return f"<figure><figcaption>{escape(rank + row.name)}</figcaption>{shown}</figure>"


def _data(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _details(board: Board) -> str:
    """Return all metrics of all extractors, folded away."""
    parts = []
    for extractor in board.extractors:
        keys = sorted({key for row in board.models for key in row.first["scores"] if key.endswith(f"/{extractor['id']}")})
        keys = keys or sorted({key for row in board.baselines for key in row.first["scores"]})
        heads = "".join(f'<th scope="col" class="number">{escape(key.partition("/")[0])}</th>' for key in keys)
        lines = "".join(
            f'<tr><th scope="row" class="text">{escape(row.name)}</th>'
            + "".join(f'<td class="number">{escape(_value(row, key))}</td>' for key in keys)
            + "</tr>"
            for row in (*board.models, *board.baselines)
            if row.scored
        )
        parts.append(
            f"<details><summary>All scores in the features of {escape(str(extractor['id']))}</summary>"
            f'<div class="scroll"><table><thead><tr><th scope="col" class="text">model</th>{heads}</tr></thead>'
            f"<tbody>{lines}</tbody></table></div></details>"
        )
    return "".join(parts)


def _value(row: Row, key: str) -> str:
    found = measured(row.score(key))
    unseen = row.beside(key, "heldout")
    return found + (f" ({number(unseen)})" if found and unseen is not None else "") if found else "–"


def _protocol(board: Board) -> str:
    facts = dict(_facts(board))
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    command = "ganzoo leaderboard verify ENTRY.json --checkpoint FILE"
    return (
        f'<details class="protocol"><summary>Protocol, data, and how to check a row</summary><dl>{lines}</dl>'
        f"<p>Anybody can score a checkpoint again and compare every number: <code>{command}</code></p></details>"
    )


def _facts(board: Board) -> Iterator[tuple[str, str]]:
    data, protocol = board.dataset, board.protocol
    yield "data", f"{data['name']} ({data['split']}), {data['n']:,} images of {'x'.join(map(str, data['shape']))}"
    yield "pixels SHA-256", str(data["pixels_sha256"])
    if data["heldout"]:
        yield (
            "held out",
            f"{data['heldout']['n']:,} images ({data['heldout']['split']}), {data['heldout']['pixels_sha256']}",
        )
    yield "protocol", f"{protocol['id']}, SHA-256 {protocol['sha256']}"
    yield "samples", f"{protocol['samples']:,} for each of the seeds {', '.join(map(str, protocol['seeds']))}"
    names = ("latents", "labels", "weights", "norm", "truncation", "batch", "precision", "overrides")
    yield "settings", json.dumps({name: protocol[name] for name in names})
    yield "extractors", ", ".join(f"{one['id']} ({one['layer']}, {one['dim']} numbers)" for one in board.extractors)
    found = {json.dumps(entry["env"], sort_keys=True) for row in board.models for entry in row.entries}
    yield "scored with", "; ".join(sorted(found))
