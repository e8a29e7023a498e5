"""A board as a terminal's table, JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .board import BADGES, Board, Row
from .columns import SHORT, chosen, count, sort

SAME = 1.02  # budgets that differ by less are one: a run ends at the end of a round
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would compute a text that begins so


def table(board: Board, key: str = "") -> tuple[list[str], list[list[str]]]:
    """Return titles and rows of a terminal's table: models, then the baselines, which have no rank."""
    columns = chosen(SHORT)
    rows = [*sort(board, board.models, key), *sort(board, board.baselines, key)]
    return [column.title for column in columns], [[column.cell(board, row).text for column in columns] for row in rows]


def caption(board: Board) -> list[str]:
    """Return what must be known to read a board."""
    data, protocol = board.dataset, board.protocol
    lines = [
        f"{protocol['samples']:,} samples for each of {len(protocol['seeds'])} evaluation seed(s), compared with the "
        f"{data['n']:,} images of {data['name']} ({data['split']}); ranked by {board.headline}"
    ]
    if board.judge["metric"] != "FID":
        lines.append(
            f"{board.judge['metric']} is not comparable with a published FID: its features are {board.judge['id']}"
        )
    budgets = {row.first["training"]["images_seen"] for row in board.models if row.first["training"]}
    if budgets and max(budgets) <= SAME * min(budgets):
        lines.append(f"every model was trained on the same budget: {count(min(budgets))} real samples seen")
    elif budgets:
        lines.append("the models were trained on different numbers of samples, so their ranks also show their budgets")
    if any(len(row.entries) == 1 for row in board.models):
        lines.append("single training seeds: the spread between trainings is not known, and ranks do not contain it")
    if board.custom:
        lines.append(f"not ranked: the protocol was changed ({'; '.join(protocol['overrides'])})")
    return lines


def failures(board: Board) -> list[str]:
    """Return a sentence for each model without scores."""
    return [f"{row.name}: {row.first['reason']}" for row in board.models if not row.scored]


def to_json(board: Board) -> dict[str, Any]:
    """Return a board as plain values: the table's, with the entries behind them."""

    def row(one: Row) -> dict[str, Any]:
        cells = {column.key: column.cell(board, one) for column in chosen()}
        return {
            "name": one.name,
            "rank": [one.best, one.worst] if one.best else None,
            "badges": one.badges,
            "values": {key: cell.order for key, cell in cells.items() if cell.order is not None},
            "entries": [entry["entry_sha256"] for entry in one.entries],
        }

    return {
        "schema": "ganzoo.board/1",
        "title": board.title,
        "dataset": dict(board.dataset),
        "protocol": dict(board.protocol),
        "ranked_by": board.headline,
        "models": [row(one) for one in board.models],
        "baselines": [row(one) for one in board.baselines],
        "entries": [entry for one in (*board.models, *board.baselines) for entry in one.entries],
    }


def to_csv(boards: Sequence[Board]) -> str:
    """Return all scores flat, one row for each model and extractor."""
    rows = list(_flat(boards))
    titles = list(dict.fromkeys(title for row in rows for title in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, titles, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _flat(boards: Sequence[Board]) -> Iterator[dict[str, Any]]:
    for board in boards:
        for row in (*board.models, *board.baselines):
            for extractor in board.extractors if row.scored else [{"id": ""}]:
                yield _line(board, row, extractor)


def _line(board: Board, row: Row, extractor: Mapping[str, Any]) -> dict[str, Any]:
    entry = row.first
    training, checkpoint = entry["training"] or {}, entry["checkpoint"] or {}
    line: dict[str, Any] = {
        "dataset": board.dataset["name"], "protocol": board.protocol["id"], "kind": entry["kind"], "model": row.name,
        "status": entry["status"], "reason": entry["reason"], "rank": row.rank, "badges": " ".join(row.badges),
        "extractor": extractor["id"],
    }  # fmt: skip
    for key in entry["scores"]:
        metric, _, name = key.partition("/")
        if name == extractor["id"]:
            value = row.score(key)
            line |= {metric: value.mean, f"{metric} se": value.se}
            for field in ("floor_theory", "floor_measured", "heldout"):
                if field in entry["scores"][key]:
                    line[f"{metric} {field}"] = row.beside(key, field)
    return line | {
        "samples": entry["samples"]["n"], "train seeds": len(row.entries) if training else 0,
        "images seen": training.get("images_seen"), "training s": training.get("wall_s"),
        "params G": entry["model"]["params_g"], "params D": entry["model"]["params_d"], "MACs G": entry["model"]["macs_g"],
        "ms per image": entry["timing"]["sample_ms_per_img"], "checkpoint sha256": checkpoint.get("sha256"),
        "entry sha256": entry["entry_sha256"],
    }  # fmt: skip


def _harmless(value: Any) -> Any:
    """Return a cell that no spreadsheet computes; numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def to_markdown(board: Board, key: str = "", command: str = "ganzoo benchmark") -> str:
    """Return the board for a README."""
    columns = chosen(SHORT)
    right = "|".join("---:" if column.number else ":---" for column in columns)
    lines = [f"### {_escaped(board.title)}", ""]
    lines += [f"{_escaped(line)}. " for line in caption(board)]
    lines += ["", "|" + "|".join(f" {column.title} " for column in columns) + "|", f"|{right}|"]
    for row in (*sort(board, board.models, key), *sort(board, board.baselines, key)):
        cells = [_escaped(column.cell(board, row).text) for column in columns]
        if row.first["kind"] == "baseline":
            cells = [f"*{cell}*" if cell else "" for cell in cells]
        lines.append("|" + "|".join(f" {cell} " for cell in cells) + "|")
    lines += ["", "Rows in italics are no models: they say what the numbers mean.", ""]
    used = sorted({badge for row in board.models for badge in row.badges})
    lines += [f"- [{BADGES[badge][0]}]: {BADGES[badge][1]}" for badge in used]
    lines += [f"- {_escaped(text)}" for text in failures(board)]
    return "\n".join([*lines, "", f"Made by `{command}`.", ""])


def _escaped(text: str) -> str:
    """Return a text in which Markdown and HTML find nothing of their own."""
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", text)
