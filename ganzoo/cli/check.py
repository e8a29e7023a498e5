"""`ganzoo check`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..console import print_json, print_table
from ..errors import PluginError, did_you_mean
from ..registry import GROUPS, Registry
from .commands import complete_recipes

if TYPE_CHECKING:
    from ..testing import Result

PROMISE_BROKEN = 4


@click.command("check")
@click.argument("target", metavar="NAME|PACKAGE|PATH", shell_complete=complete_recipes)
@click.option("--seconds", default=60.0, show_default=True, help="How long the import of one module may take.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(target: str, seconds: float, as_json: bool) -> int:
    """Check what a plugin, a recipe or all of an installed package promises. Exit code 4 where a promise is broken.

    NAME is that of a plugin or recipe, also as KIND:NAME or PACKAGE:NAME; PATH is a recipe's TOML file, or the folder of
    an installed package's pyproject.toml.
    """
    from ..registry import registry

    found = list(_results(target, registry(), seconds))
    broken = sum(result.result == "broken" for result in found)
    if as_json:
        print_json({"target": target, "broken": broken, "results": [asdict(result) for result in found]})
    else:
        rows = [(one.kind, one.name, one.promise, one.result, one.found) for one in found]
        print_table(("kind", "name", "promise", "result", "found"), rows)
        count = {kind: sum(one.result == kind for one in found) for kind in ("ok", "broken", "excused", "unchecked")}
        click.echo(", ".join(f"{number} {kind}" for kind, number in count.items() if number or kind != "unchecked"))
    return PROMISE_BROKEN if broken else 0


def _results(target: str, known: Registry, seconds: float) -> Iterator[Result]:
    """Yield the results of everything that the target may mean."""
    from ..testing.packages import check_plugin, check_recipe, check_records
    from ..zoo import entries

    path = Path(target)
    if path.name != "pyproject.toml" and path.suffix == ".toml":
        yield from check_recipe(target, known)
        return
    packages = {record.distribution for record in known.records} | {problem.distribution for problem in known.problems}
    kind, _, bare = target.partition(":")
    kind, bare = (kind, bare) if kind in (*GROUPS, "recipe") else ("", target)
    records = [one for one in known.records if bare in (one.name, one.qualified) and one.kind in (kind or one.kind, "")]
    records = [one for one in records if one.kind != "zoo"]
    recipes = [one.qualified for one in entries(known) if bare in (one.name, one.qualified) and kind in ("", "recipe")]
    if records or recipes:
        yield from check_records(records, known, seconds=seconds)
        for name in recipes:
            yield from check_recipe(name, known)
        return
    package = _package(path) if path.exists() and target not in packages else target
    installed = {_canonical(name): name for name in packages}
    if _canonical(package) not in installed:
        names = {one.name for one in known.records} | {entry.name for entry in entries(known)} | packages
        hint = f"; run: pip install -e {path}" if path.exists() else did_you_mean(target, names) or " (see: ganzoo list)"
        what = f"package {package!r} is not installed, or offers nothing" if path.exists() else f"there is no {target!r}"
        raise PluginError(f"{what}{hint}")
    yield from check_plugin(installed[_canonical(package)], seconds=seconds)


def _canonical(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _package(path: Path) -> str:
    """Return the name of the package whose source lies in a folder."""
    file = path / "pyproject.toml" if path.is_dir() else path
    try:
        name = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        raise PluginError(f"{file} names no project; give a recipe's file or a folder with a pyproject.toml") from None
    return str(name)
