"""Everything that an installed package brings, looked at promise by promise: what `ganzoo check` prints."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

from .. import assemble
from ..errors import DataError, GanzooError
from ..options import options_of
from ..registry import Record, Registry, registry
from ..zoo import Request, at_home, entries, resolve
from . import imports, recipes
from .checking import ALONE, Result, check_of, checks, function_checks, named, results
from .contract import Blame, ContractError

IMPORTED = named(imports.import_is_quiet_and_quick)
LISTED = named(imports.listing_imports_nothing)


def check_plugin(distribution: str, *, seconds: float = imports.SECONDS) -> Iterator[Result]:
    """Yield what becomes of every promise of every plugin and recipe of an installed package.

    Each of its modules may take so many seconds to be imported.
    """
    known = registry()
    for problem in known.problems:
        if problem.distribution == distribution:
            yield Result("package", distribution, "entry-points-are-valid", "broken", problem.message)
    records = [record for record in known.records if record.distribution == distribution]
    yield _listing(distribution, records)
    yield from check_records(records, known, seconds=seconds)
    for entry in entries(known):
        if entry.record.distribution == distribution:
            yield from check_recipe(entry.qualified, known)


def _listing(distribution: str, records: Sequence[Record]) -> Result:
    try:
        imports.listing_imports_nothing({record.module for record in records})
    except ContractError as error:
        return Result("package", distribution, LISTED, "broken", str(error))
    return Result("package", distribution, LISTED, "ok")


def check_records(records: Sequence[Record], known: Registry, *, seconds: float = imports.SECONDS) -> Iterator[Result]:
    """Yield what becomes of the promises of plugins; those whose import is broken are not imported here."""
    problems = imports.imported([record.module for record in records], seconds)
    for record in records:
        check = check_of(
            record.kind if record.kind != "zoo" else "recipe",
            imports.import_is_quiet_and_quick,
            functools.partial(problems.__getitem__, record.module),
        )
        outcome = list(results(record.name, [check]))
        yield from outcome
        if all(result.result == "ok" for result in outcome):
            yield from _loaded(record, known)


def _loaded(record: Record, known: Registry) -> Iterator[Result]:
    promise = "entry-point-fits-its-kind"
    try:
        plugin = known.load(record.kind, record.qualified)
    except GanzooError as error:
        yield Result(record.kind, record.name, promise, "broken", str(error))
        return
    yield Result(record.kind, record.name, promise, "ok")
    if record.kind != "zoo":
        yield from _kept(record, plugin)


def _kept(record: Record, plugin: Any) -> Iterator[Result]:
    """Yield what becomes of the promises of a plugin that could be loaded."""
    if record.kind not in ALONE or record.kind == "dataset":  # functions, of which only datasets can be opened by name
        yield from results(record.name, function_checks(record.kind, plugin))
        if record.kind == "dataset":
            yield from _opened(record, plugin)
        return
    required = _required(plugin)
    todo = list(checks(record.kind, plugin))
    yield from results(record.name, [check for check in todo if not (required and check.step > 1)])
    if required:
        yield _closed(record, f"needs {required}; test it as functools.partial({record.attribute}, {required}=...)")


def _opened(record: Record, plugin: Any) -> Iterator[Result]:
    required = _required(plugin)
    if required:
        yield _closed(record, f"needs {required}; test an opened one with check_dataset")
        return
    try:
        with Blame("it can be opened", "A dataset"):
            data = plugin()
    except DataError as error:
        yield _closed(record, str(error))
        return
    except ContractError as error:
        yield Result(record.kind, record.name, "it-can-be-opened", "broken", str(error))
        return
    yield from results(record.name, checks("dataset", data))


def _closed(record: Record, reason: str) -> Result:
    return Result(record.kind, record.name, "the-others", "unchecked", reason)


def _required(plugin: Any) -> str:
    """Return the name of an option without which the plugin cannot be built, or an empty text."""
    try:
        return next((option.name for option in options_of(plugin).values() if option.required), "")
    except GanzooError:  # told by the promise about options
        return ""


def check_recipe(name: str, known: Registry | None = None) -> Iterator[Result]:
    """Yield what becomes of the promises of a recipe: a name, a file, or a composition."""
    known, shown = known or registry(), name.rpartition(":")[2]
    fits, *others = (recipes.parts_fit_together, recipes.penalised_samples_are_judged_alone, recipes.rounds_stay_finite)
    try:
        recipe = resolve(name, Request(), known)
        home = at_home(recipe, known)
        with Blame("its data can be opened", "A dataset"):
            data = assemble.dataset(recipe, home)
    except DataError as error:
        yield Result("recipe", shown, named(fits), "unchecked", str(error))
        return
    except (ContractError, GanzooError) as error:
        yield Result("recipe", shown, named(fits), "broken", str(error))
        return
    build = functools.cache(functools.partial(recipes.rehearsal, recipe, home, data))
    excuses = recipe.raw.get("provenance", {}).get("expected_failures", {})
    todo = [check_of("recipe", fits, build, step=1)]
    todo += [check_of("recipe", one, build, excuse=str(excuses.get(named(one), "")), step=2) for one in others]
    yield from results(shown, todo)
