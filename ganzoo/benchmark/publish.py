"""What a sweep leaves in its folder: entries, pictures, and the board in every form that was asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoint import write_atomically
from ..console import err, plain, print_table
from ..errors import DataError
from .board import Board, boards_of
from .entry import place, read, stem, text
from .html import Pictures, to_html
from .render import caption, failures, table, to_csv, to_json, to_markdown
from .sweep import Result

SUFFIX = ".entry.json"
KINDS = ("grid", "neighbours")


def boards(result: Result, out: Path) -> list[Board]:
    """Write the entries of a sweep with their pictures, and return the boards that they make."""
    for entry in result.entries:
        add(entry, out, result.pictures.get(entry["entry_sha256"], {}))
    return boards_of(result.entries)


def add(entry: Mapping[str, Any], out: Path, pictures: Mapping[str, Path]) -> Path:
    """Put an entry into a leaderboard's folder; the verifications that it has there already are kept."""
    path = out / place(entry)
    if path.is_file():
        old = read(path)
        if old["entry_sha256"] == entry["entry_sha256"]:
            entry = {**entry, "verified": old["verified"] or entry["verified"]}
    write_atomically(path, text(entry).encode())
    for kind, picture in pictures.items():
        target = path.with_name(f"{stem(entry)}-{kind}.png")
        if picture.resolve() != target.resolve():
            shutil.copyfile(picture, target)
    return path


def collect(places: Iterable[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """Return all entries of folders and files, with their paths; DataError where there is none."""
    paths: list[Path] = []
    for one in places:
        found = sorted(one.rglob(f"*{SUFFIX}")) if one.is_dir() else [one]
        if not found:
            raise DataError(f"{one} holds no entry (*{SUFFIX}); they are written by `ganzoo benchmark`")
        paths += found
    return [(path, read(path)) for path in paths]


def pictures_beside(found: Iterable[tuple[Path, Mapping[str, Any]]]) -> dict[str, dict[str, Path]]:
    """Return the pictures that lie beside entries."""
    pictures: dict[str, dict[str, Path]] = {}
    for path, entry in found:
        beside = {kind: path.with_name(f"{stem(entry)}-{kind}.png") for kind in KINDS}
        pictures[entry["entry_sha256"]] = {kind: place for kind, place in beside.items() if place.is_file()}
    return pictures


def made(kind: str, found: Sequence[Board], pictures: Pictures, key: str = "") -> str:
    """Return boards in one of the forms json, csv, md and html."""
    makers: Mapping[str, Callable[[], str]] = {
        "json": lambda: json.dumps(as_json(found), indent=1, sort_keys=True) + "\n",
        "csv": lambda: to_csv(found),
        "md": lambda: "\n".join(to_markdown(board, key) for board in found),
        "html": lambda: to_html(found, pictures),
    }
    return makers[kind]()


def pages(found: Sequence[Board], pictures: Pictures, out: Path, formats: Sequence[str], key: str = "") -> list[Path]:
    """Write leaderboard.json, .csv, .md and .html, as asked for; return their paths."""
    written = [out / f"leaderboard.{kind}" for kind in formats if kind != "table"]
    for path in written:
        write_atomically(path, made(path.suffix[1:], found, pictures, key).encode())
    return written


def as_json(found: Sequence[Board]) -> list[dict[str, Any]]:
    """Return boards as plain values."""
    return [to_json(board) for board in found]


def show(found: Sequence[Board], key: str = "") -> None:
    """Print the boards' tables on standard output, and what must be known to read them on standard error."""
    for board in found:
        titles, rows = table(board, key)
        print_table(titles, rows, title=board.title)
        for line in (*caption(board), *failures(board)):
            err().print(plain(f"  {line}"))
