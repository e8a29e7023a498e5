"""What of a recipe changes with time: options of plugins and of optimizers that are given as schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .config import parse_number
from .errors import RecipeError
from .options import options_of
from .players import Change
from .recipe import Part, Schedule, values_at
from .registry import Registry

PLAIN = (bool, int, float, str, tuple)


def settings(recipe: str, table: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with schedules in place of the tables that describe them, also in lists: one of Adam's betas."""
    return {key: _setting(recipe, f"{table}.{key}", value) for key, value in options.items()}


def paces(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings that change."""
    return {key: value for key, value in settings.items() if any(isinstance(one, Schedule) for one in _entries(value))}


def _setting(recipe: str, where: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_setting(recipe, f"{where}[{number}]", entry) for number, entry in enumerate(value))
    return parse_number(recipe, value, where) if isinstance(value, Mapping) else value


def _entries(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def build(recipe: str, registry: Registry, kind: str, part: Part) -> tuple[Any, list[Change]]:
    """Build a plugin, some of whose options may be schedules; return it with what is to change of it.

    RecipeError for an option that cannot change: it is no number, or the plugin keeps it elsewhere than under its name.
    """
    tables = {key: value for key, value in part.options.items() if isinstance(value, Mapping) and "from" in value}
    schedules = _schedules(recipe, registry, kind, part, tables) if tables else {}
    if not schedules:
        return registry.build(kind, part.name, part.options), []
    options = {**part.options, **schedules}
    with torch.random.fork_rng(devices=[]):  # it must take the last values too, and is otherwise not used
        last = registry.build(kind, part.name, values_at(options, 1.0))
    plugin = registry.build(kind, part.name, values_at(options, 0.0))
    changes = [
        Change(plugin, f"option {key!r} of {kind} {part.name!r}", key, schedule) for key, schedule in schedules.items()
    ]
    for change in changes:
        if not _kept(plugin, change.option, change.schedule.at(0.0)):
            raise RecipeError(
                f"recipe {recipe!r}: {change.what} cannot follow a schedule, because {type(plugin).__name__} keeps it "
                "elsewhere than under its own name; give it a single value"
            )
    for name in _derived(plugin, last, schedules):
        raise RecipeError(
            f"recipe {recipe!r}: {changes[0].what} cannot follow a schedule, because {type(plugin).__name__} derives "
            f"{name!r} from it once; give it a single value"
        )
    return plugin, changes


def _schedules(recipe: str, registry: Registry, kind: str, part: Part, tables: Mapping[str, Any]) -> dict[str, Schedule]:
    """Return the schedules among tables that look like some; a table may also be what an option asks for."""
    known = options_of(registry.load(kind, part.name))
    found: dict[str, Schedule] = {}
    for key, table in tables.items():
        if key not in known or (not known[key].accepts(0.5) and known[key].accepts(table)):
            continue  # an unknown option is told when the plugin is built
        if not known[key].accepts(0.5):
            raise RecipeError(
                f"recipe {recipe!r}: option {key!r} of {kind} {part.name!r} must be {known[key].type_text}, which no "
                "schedule gives; give it a single value"
            )
        schedule = parse_number(recipe, table, f"{kind}.{part.name}.{key}")
        assert isinstance(schedule, Schedule)
        found[key] = schedule
    return found


def _kept(plugin: nn.Module, option: str, value: float) -> bool:
    """Does a plugin keep a number under the option's name, as an attribute or as a buffer of one element?"""
    kept = vars(plugin).get(option, dict(plugin.named_buffers(recurse=False)).get(option))
    if isinstance(kept, Tensor):
        return kept.is_floating_point() and kept.shape == () and bool(torch.isclose(kept, torch.tensor(value).to(kept)))
    return type(kept) is float and kept == value


def _derived(first: nn.Module, last: nn.Module, schedules: Mapping[str, Schedule]) -> list[str]:
    """Return what differs between a plugin at the first and at the last values besides the options themselves."""
    before, after = (
        {**{key: value for key, value in vars(one).items() if isinstance(value, PLAIN)}, **dict(one.named_buffers())}
        for one in (first, last)
    )
    return [key for key in before if key not in schedules and not _same(before[key], after.get(key))]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)
