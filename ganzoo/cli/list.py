"""`ganzoo list`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from ..console import err, plain, print_json, print_table
from ..errors import RecipeError, did_you_mean

PLURALS = {"recipes": "zoo", "recipe": "zoo"}


@click.command("list")
@click.argument("kind", required=False, metavar="[KIND]")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(kind: str | None, as_json: bool) -> None:
    """List the zoo's recipes and every plugin, or one kind: losses, regularizers, ... Imports no plugin."""
    from ..doctor import doubtful
    from ..registry import GROUPS, registry

    known = registry()
    kinds = {
        **{f"{group.rpartition('.')[2]}": name for name, group in GROUPS.items()},
        **{name: name for name in GROUPS},
        **PLURALS,
    }
    if kind is not None and kind not in kinds:
        raise click.UsageError(f"there is no kind {kind!r}{did_you_mean(kind, kinds)}; kinds are: {', '.join(GROUPS)}")
    wanted = [kinds[kind]] if kind else ["zoo", *(name for name in GROUPS if name != "zoo")]
    rows = [row for name in wanted for row in _rows(name)]
    problems = [*known.problems, *_taken(known), *doubtful(known)]
    if as_json:
        print_json({"plugins": rows, "problems": [vars_of(problem) for problem in problems]})
        return
    print_table(
        ("kind", "name", "summary", "package"),
        [(row["kind"], row["name"], row["summary"], f"{row['distribution']} {row['version']}") for row in rows],
    )
    for problem in problems:
        err().print(f"warning: {plain(problem.distribution)} {plain(problem.version)}: {plain(problem.message)}")


def vars_of(problem: Any) -> dict[str, str]:
    """Return a problem as JSON would have it."""
    return {"distribution": problem.distribution, "version": problem.version, "message": problem.message}


def _taken(known: Any) -> Iterator[Any]:
    """Yield, for each package, the names that others offer too."""
    from ..registry import GROUPS, Problem

    for kind in GROUPS:
        names = known.ambiguous(kind) if kind != "zoo" else ()  # recipes are named, zoos are not
        for record in known.of(kind):
            if record.name in names:
                text = f"{kind} {record.name!r} is offered by more than one package; write {record.qualified}"
                yield Problem(record.distribution, record.version, text)


def _rows(kind: str) -> list[dict[str, str]]:
    from ..registry import registry

    if kind == "zoo":
        return _recipes()
    known = registry()
    twice = known.ambiguous(kind)
    return [
        {
            "kind": kind,
            "name": record.qualified if record.name in twice else record.name,
            "summary": known.summary(record),
            "distribution": record.distribution,
            "version": record.version,
        }
        for record in known.of(kind)
    ]


def _recipes() -> list[dict[str, str]]:
    from ..config import read_toml
    from ..registry import registry
    from ..zoo import entries

    rows = []
    found = entries(registry())
    count = Counter(entry.name for entry in found)
    for entry in found:
        try:
            summary = str(read_toml(entry.path).get("summary", ""))
        except RecipeError as error:
            summary = f"cannot be used: {error}"
        rows.append(
            {
                "kind": "recipe",
                "name": entry.qualified if count[entry.name] > 1 else entry.name,
                "summary": summary,
                "distribution": entry.record.distribution,
                "version": entry.record.version,
            }
        )
    return rows
