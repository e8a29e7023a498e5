"""`ganzoo leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..console import err, plain, print_json, steps
from ..errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMATS = ("table", "json", "csv", "md", "html")
PROBLEMS = 3


@click.group("leaderboard", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Keep entries of models: add, check, verify, compare and show them.

    \b
    ganzoo leaderboard lint leaderboard                                       are the files whole and consistent?
    ganzoo leaderboard verify x.entry.json --checkpoint x.safetensors         are the numbers true?
    ganzoo leaderboard render leaderboard --format html --out board.html
    """


@command.command("add")
@click.argument("entry", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--to", "folder", type=click.Path(path_type=Path), default=Path("leaderboard"), show_default=True,
              help="The leaderboard's folder.")  # fmt: skip
def add(entry: Path, folder: Path) -> None:
    """Put an entry, with the pictures beside it, into a leaderboard after checking it."""
    from ..benchmark import publish
    from ..benchmark.entry import lint as problems
    from ..benchmark.entry import place, read

    found = read(entry)
    wrong = problems(found, str(entry))
    if wrong:
        raise DataError(f"{wrong[0]}{f' (and {len(wrong) - 1} more)' if len(wrong) > 1 else ''}; it cannot be added")
    target = folder / place(found)
    if target.is_file() and read(target)["entry_sha256"] != found["entry_sha256"]:
        raise DataError(f"{target} holds other scores of this checkpoint; remove it first if these shall replace them")
    pictures = publish.pictures_beside([(entry, found)])[found["entry_sha256"]]
    click.echo(publish.add(found, folder, pictures))


@command.command("lint")
@click.argument("places", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def lint(places: tuple[Path, ...]) -> int:
    """Check entries without opening a checkpoint: form, hashes, means. Exit code 3 where something is wrong."""
    from ..benchmark import publish
    from ..benchmark.entry import lint as problems

    found = publish.collect(places)
    wrong = [problem for path, entry in found for problem in problems(entry, str(path))]
    for problem in wrong:
        click.echo(plain(problem))
    for note in _unknown(entry for _, entry in found):
        err().print(plain(f"note: {note}"))
    err().print(f"{len(found)} entries, {len(wrong)} problems")
    return PROBLEMS if wrong else 0


def _unknown(entries: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what is not installed here: no fault of an entry, but it cannot be verified on this machine."""
    from ..registry import registry

    here = {(record.kind, record.name, record.distribution) for record in registry().records}
    seen = set()
    for entry in entries:
        for plugin in entry["model"]["plugins"] if isinstance(entry.get("model"), dict) else ():
            key = (plugin.get("kind"), plugin.get("name"), plugin.get("distribution"))
            if key not in here and key not in seen:
                seen.add(key)
                yield f"{key[0]} {key[1]!r} of {key[2]} is not installed here"


@command.command("verify")
@click.argument("entry", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--checkpoint", required=True, type=click.Path(exists=True, path_type=Path), help="The model's file.")
@click.option("--device", default="auto", show_default=True, help="Where to compute.")
@click.option("--write", is_flag=True, help="Add what was found to the entry's file.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def verify(entry: Path, checkpoint: Path, device: str, write: bool, as_json: bool) -> int:
    """Score a checkpoint again and compare it with its entry. Exit code 1 where they do not agree."""
    from ..benchmark.entry import read, text
    from ..benchmark.verify import verify as check
    from ..checkpoint import write_atomically

    found = read(entry)
    verdict = check(found, checkpoint, device, steps())
    if as_json:
        print_json({"badge": verdict.badge, "ok": verdict.ok, "lines": verdict.lines, "record": verdict.record})
    else:
        click.echo(plain("\n".join([verdict.badge, *(f"  {line}" for line in verdict.lines)])))
    if write and verdict.record:
        found["verified"] = [*found["verified"], verdict.record]
        write_atomically(entry, text(found).encode())
    return int(not verdict.ok)


@command.command("render")
@click.argument("places", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--format", "kind", type=click.Choice(FORMATS), default="table", show_default=True, help="As what.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="A file; without it, standard output.")
@click.option("--sort", default="", metavar="COLUMN", help="Sort by this column; -COLUMN turns the order.")
def render(places: tuple[Path, ...], kind: str, out: Path | None, sort: str) -> None:
    """Show entries as a board: on the terminal, as JSON, CSV, Markdown, or one HTML page."""
    from ..benchmark import publish
    from ..benchmark.board import boards_of
    from ..checkpoint import write_atomically

    found = publish.collect(places)
    boards = boards_of(entry for _, entry in found)
    if kind == "table":
        publish.show(boards, sort)
        return
    text = publish.made(kind, boards, publish.pictures_beside(found), sort)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_atomically(out, text.encode())
        click.echo(out)


@command.command("diff")
@click.argument("first", type=click.Path(exists=True, path_type=Path))
@click.argument("second", type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def diff(first: Path, second: Path, as_json: bool) -> None:
    """Compare the scores of two entries, or of the models of the same names in two folders."""
    from dataclasses import asdict

    from ..benchmark import publish
    from ..benchmark.compare import changes
    from ..console import print_table

    old, new = (publish.collect([place]) for place in (first, second))
    found = list(changes([entry for _, entry in old], [entry for _, entry in new]))
    if as_json:
        print_json([asdict(change) for change in found])
        return
    rows = [(c.model, c.score, c.before, c.after, c.change, c.verdict) for c in found]
    print_table(("model", "score", "before", "after", "change", "verdict"), rows)
