"""`ganzoo show`."""

from __future__ import annotations

import inspect
from typing import Any

import click

from ..console import print_json, print_table
from ..errors import PluginError
from .commands import complete_recipes, recipe_options


@click.command("show")
@click.argument("name", shell_complete=complete_recipes)
@recipe_options
@click.option("--kind", default=None, help="Show the plugin of this kind: architecture, loss, regularizer, ...")
@click.option("--toml", is_flag=True, help="Print the resolved recipe as TOML.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(name: str, kind: str | None, toml: bool, as_json: bool, **asked: Any) -> None:
    """Show a recipe with the origin of every value, or a plugin with its options and its paper."""
    from ..registry import registry
    from ..zoo import Request, entries, resolve

    known = registry()
    recipes = {entry.name for entry in entries(known)} | {entry.qualified for entry in entries(known)}
    kinds = [record.kind for record in known.records if name in (record.name, record.qualified) and record.kind != "zoo"]
    if kind or (kinds and name not in recipes and not name.endswith(".toml") and "architecture" not in kinds):
        _show_plugin(kind or kinds[0], name, as_json)
        return
    recipe = resolve(name, Request(**asked), known)
    if toml:
        click.echo(recipe.toml(), nl=False)
        return
    rows = _values(recipe)
    if as_json:
        print_json({"name": recipe.name, "values": [{"key": k, "value": v, "origin": o} for k, v, o in rows]})
    else:
        print_table(("key", "value", "origin"), rows, title=f"{recipe.name}: {recipe.summary}")


def _values(recipe: Any) -> list[tuple[str, str, str]]:
    """Return key, value and origin of everything that a run would use, the plugins' own defaults included."""
    from .. import assemble
    from ..config import TABLES, TEXTS
    from ..options import MISSING, options_of
    from ..recipe import Latent, Train
    from ..registry import registry
    from ..zoo import at_home

    rows = {
        key: (key, str(_at(recipe.raw, key)), origin)
        for key, origin in recipe.origin.items()
        if key not in ("name", "summary")
    }
    defaults: list[tuple[str, Any, str]] = [("train", Train, "ganzoo"), ("latent", Latent, "ganzoo")]
    for record in assemble.records(recipe, at_home(recipe, registry())):
        table = {"regularizer": f"regularizer.{record.name}", "dataset": "data", "reader": "data"}.get(
            record.kind, record.kind
        )
        defaults.append((table, registry().load(record.kind, record.qualified), f"{record.distribution}, {record.kind}"))
    for table, thing, owner in defaults:
        for option in options_of(thing).values():
            key = f"{table}.{option.name}"
            if key not in rows and option.default is not MISSING:
                rows[key] = (key, str(option.default), f"default of {owner}")
    if recipe.stages:
        origin = recipe.origin.get("train.samples", "all stages together")
        rows["train.samples"] = ("train.samples", str(recipe.train.samples), origin)
    tables = [*TEXTS, *TABLES]
    return sorted(rows.values(), key=lambda row: tables.index(row[0].split(".")[0]))


def _at(table: Any, key: str) -> Any:
    """Return the value at a dotted key of the resolved tables, in which regularizers are a list."""
    for part in key.split("."):
        if isinstance(table, list):
            found = [entry for entry in table if entry.get("name") == part]
            table = found[0] if found else table[int(part)]
        else:
            table = table.get(part, "")
    return table


def _show_plugin(kind: str, name: str, as_json: bool) -> None:
    from ..options import MISSING, options_of
    from ..registry import GROUPS, registry

    if kind not in GROUPS:
        raise PluginError(f"there is no kind {kind!r}; kinds are: {', '.join(GROUPS)}")
    record = registry().find(kind, name)
    thing = registry().load(kind, record.qualified)
    options = [
        (o.name, inspect.formatannotation(o.annotation), "required" if o.default is MISSING else repr(o.default))
        for o in options_of(thing).values()
    ]
    text = inspect.getdoc(thing) or ""
    if as_json:
        listed = [{"name": n, "type": t, "default": d} for n, t, d in options]
        print_json({**registry().provenance(record), "documentation": text, "options": listed})
        return
    click.echo(f"{kind} {record.name} of {record.distribution} {record.version}\n\n{text}\n")
    print_table(("option", "type", "default"), options)
