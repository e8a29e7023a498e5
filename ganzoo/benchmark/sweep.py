"""A sweep: find the models, train those that are missing, score what has no result yet, and make a board of it all."""

from __future__ import annotations

import fnmatch
import json
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from typing import Protocol as Interface

import torch

from ..busy import cores
from ..checkpoint import read_header
from ..config import Draft
from ..errors import CheckpointError, RecipeError
from ..pictures import grid, save_png
from ..recipe import Recipe
from ..registry import Registry
from ..sampling import find_checkpoint
from ..zoo import Request, at_home, entries, resolve
from .engines import Engine, engine
from .protocol import Protocol
from .report import baseline_entry, failed_entry, model_entry
from .scoring import choose, read_unit
from .sources import ModelSource, Source
from .work import UNITS, Bench, Done, ScoreTask, Setting, Task, TrainTask, bench_of, one_thread

WAIT = 1.0  # seconds before what another process is doing is looked at again
GRID = 64  # samples of a model's picture
ENOUGH = 6  # tasks that are worth the start of further processes
T = TypeVar("T")


class Reporter(Interface):
    """Who tells a person how far a sweep is."""

    def note(self, text: str) -> None:
        """Tell something once."""

    def step(self, text: str, done: int, total: int, left: float) -> None:
        """Tell that a task ended, how many of all that makes, and how many seconds the rest may take."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for."""

    protocol: Protocol
    out: Path
    targets: tuple[str, ...] = ()  # recipes, patterns of their names, run folders, checkpoints; none: the whole zoo
    data: str = ""  # another dataset than the recipes'
    runs: Path = Path("runs")
    train_missing: bool = False
    budget: int = 0  # samples of each training; 0: the recipe's own
    train_seeds: tuple[int, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)  # extractor -> file
    device: str = "auto"
    batch: int = 256
    baselines: bool = True
    engine: str | Engine = "local"  # by name, or itself
    workers: int = 0  # processes; 0: as many as there are cores, where there is work for them
    shard: tuple[int, int] = (0, 1)  # this one of so many
    time_limit: float = 0.0  # seconds; 0: none
    fresh: bool = False


@dataclass(frozen=True)
class Candidate:
    """A model that is to be scored: where its run is, and its recipe."""

    name: str
    place: Path
    recipe: Recipe

    @property
    def ready(self) -> bool:
        """Is there a checkpoint?"""
        try:
            find_checkpoint(self.place)
        except CheckpointError:
            return False
        return True


@dataclass(frozen=True)
class Result:
    """What a sweep found: entries, pictures by their hash, and what is still to do."""

    entries: list[dict[str, Any]]
    pictures: dict[str, dict[str, Path]]
    left: int  # tasks that were not done: a time limit, another process, another shard


def sweep(order: Order, registry: Registry, reporter: Reporter) -> Result:
    """Do what the order says; a model that fails is an entry that says why."""
    with torch.random.fork_rng(devices=[]):  # opening a model seeds the process's generator
        return _sweep(order, registry, reporter)


def _sweep(order: Order, registry: Registry, reporter: Reporter) -> Result:
    clock = Clock(order.time_limit)
    failures: dict[str, str] = {}
    found = candidates(order, registry)
    if order.train_missing:
        mine = [one for one in _mine(found, order) if _untrained(one)]
        tasks: list[Task] = [TrainTask(one.recipe, str(one.place), order.device) for one in mine]
        for task, done in _run(tasks, replace(order, workers=order.workers or 1), clock, reporter):
            if done.error and isinstance(task, TrainTask):
                failures[task.place] = done.error
    missing = [one for one in found if not one.ready and str(one.place) not in failures]
    if missing and not order.train_missing:
        reporter.note(f"no checkpoint yet: {', '.join(one.name for one in missing)} (train them with --train-missing)")
    scored = [_as_trained(one, failures) for one in found if one.ready or str(one.place) in failures]
    if not scored:
        raise RecipeError(f"there is nothing to score in {order.runs}; train a model, or use --train-missing")
    if order.fresh:
        _forget(order.out / UNITS)
    result = Result([], {}, len(missing) if order.train_missing else 0)
    for group in _by_data(scored):
        with one_thread():
            part = _board(group, failures, order, registry, clock, reporter)
        result = Result(result.entries + part.entries, result.pictures | part.pictures, result.left + part.left)
    return result


def candidates(order: Order, registry: Registry) -> list[Candidate]:
    """Return the models that the targets mean, in the order in which they were named."""
    names = Counter(entry.name for entry in entries(registry))
    known = {entry.name if names[entry.name] == 1 else entry.qualified for entry in entries(registry)}
    found: list[Candidate] = []
    for target in order.targets or sorted(known):
        if Path(target).exists() and Path(target).suffix != ".toml":
            found.append(_trained(Path(target)))
            continue
        matching = sorted(fnmatch.filter(known, target)) or [target]
        for name in matching:
            for seed in order.train_seeds or (None,):
                recipe = _recipe(name, seed, order, registry)
                place = order.runs / recipe.name
                found.append(Candidate(recipe.name, place, recipe))
    return list({str(one.place.resolve()): one for one in found}.values())


def _recipe(name: str, seed: int | None, order: Order, registry: Registry) -> Recipe:
    values = {"train.samples": order.budget} if order.budget else {}
    plain = resolve(name, Request(values=values, seed=seed), registry)
    same = order.data in ("", plain.data.name)
    return plain if same else resolve(name, Request(data=order.data, values=values, seed=seed), registry)


def _trained(place: Path) -> Candidate:
    """Return the candidate of a run folder or checkpoint, with the recipe that it was trained by."""
    path = find_checkpoint(place)
    text = str(read_header(path)["provenance"]["recipe"])
    raw = tomllib.loads(text)
    return Candidate(
        str(raw.get("name", path.stem)), place, Draft(str(raw.get("name")), raw, f"checkpoint {path}").finish()
    )


def _as_trained(one: Candidate, failures: dict[str, str]) -> Candidate:
    """Return a candidate with the recipe that its checkpoint was trained by, which may differ from the zoo's by now."""
    if not one.ready:
        return one
    try:
        return _trained(one.place)
    except CheckpointError as error:
        failures[str(one.place)] = str(error)
        return one


def _untrained(one: Candidate) -> bool:
    """Is there no run here yet, or one of this very recipe that did not come to its end?"""
    if not one.ready:
        return True
    try:
        header = read_header(find_checkpoint(one.place))
    except CheckpointError:
        return False  # it will be a row that says what is wrong
    then, now = tomllib.loads(str(header["provenance"]["recipe"])), one.recipe.raw
    same = all(then.get(key) == now.get(key) for key in ("train", "stages"))
    return same and int(header["counters"]["samples"]) < one.recipe.train.samples and one.place.is_dir()


def _mine(all_of_them: Sequence[T], order: Order) -> list[T]:
    number, count = order.shard
    return [one for position, one in enumerate(all_of_them) if position % count == number]


class Clock:
    """Time spent, time that is left, and when to stop."""

    def __init__(self, limit: float) -> None:
        self.started, self.limit = time.monotonic(), limit

    @property
    def over(self) -> bool:
        """Is the time limit reached?"""
        return bool(self.limit) and time.monotonic() - self.started >= self.limit


def _run(tasks: Sequence[Task], order: Order, clock: Clock, reporter: Reporter) -> Iterator[tuple[Task, Done]]:
    """Do tasks on the chosen engine and tell of each; those that another process has are looked at again until done."""
    run = engine(order.engine) if isinstance(order.engine, str) else order.engine
    waiting, count, total = list(tasks), 0, len(tasks)
    workers = order.workers or (cores() if total >= ENOUGH else 1)
    started = time.monotonic()
    while waiting and not clock.over:
        busy: list[Task] = []
        for task, done in run(_until(waiting, clock, workers), workers):
            if done.busy:
                busy.append(task)
                continue
            count += 1
            left = (time.monotonic() - started) / count * (total - count)
            reporter.step(done.error or f"{done.label}: {done.seconds:.1f} s", count, total, left)
            yield task, done
        if busy and len(busy) == len(waiting):
            time.sleep(WAIT)
        waiting = [*waiting[len(_until(waiting, clock, workers)) :], *busy]


def _until(tasks: Sequence[Task], clock: Clock, workers: int) -> Sequence[Task]:
    """Hand out all tasks, or few at a time where the clock must be looked at in between."""
    return tasks if not clock.limit else tasks[:workers]


def _by_data(found: Iterable[Candidate]) -> list[list[Candidate]]:
    groups: dict[str, list[Candidate]] = {}
    for one in found:
        groups.setdefault(json.dumps(one.recipe.raw["data"], sort_keys=True), []).append(one)
    return list(groups.values())


def _board(
    group: Sequence[Candidate],
    failures: Mapping[str, str],
    order: Order,
    registry: Registry,
    clock: Clock,
    reporter: Reporter,
) -> Result:
    """Score all models of one dataset and its baselines."""
    recipe = group[0].recipe
    wanted = tuple(choose(order.protocol, recipe.data.name, at_home(recipe, registry), order.weights))
    setting = Setting(recipe, order.protocol, wanted, str(order.out.resolve()), order.device, order.batch)
    bench = bench_of(setting)
    sources = {one.place: ModelSource(find_checkpoint(one.place), order.device) for one in group if one.ready}
    failed = dict(failures)
    for task, done in _run(_missing(group, sources, bench, setting, order), order, clock, reporter):
        if done.error and isinstance(task, ScoreTask):
            failed[task.path or task.name] = done.error
    return _collect(group, sources, failed, bench, setting, order)


def _missing(
    group: Sequence[Candidate], sources: Mapping[Path, ModelSource], bench: Bench, setting: Setting, order: Order
) -> list[Task]:
    """Return this shard's tasks without those that are done; shares are cut before, so that they do not shift."""
    wanted: list[tuple[Source, str, str, int]] = []
    for one in group:
        source = sources.get(one.place)
        if source:
            path = str(source.path.resolve())
            wanted += [(source, one.name, path, seed) for seed in source.seeds(setting.protocol)]
    for name, baseline in bench.baselines.items() if order.baselines else ():
        wanted += [(baseline, name, "", seed) for seed in baseline.seeds(setting.protocol)]
    return [
        ScoreTask(setting, name, path, seed)
        for source, name, path, seed in _mine(wanted, order)
        if not _units(source, bench, setting, (seed,))
    ]


def _forget(units: Path) -> None:
    """Remove all results of the folder; before any board is made, for all of them keep theirs here."""
    for path in units.glob("*.json"):
        path.unlink(missing_ok=True)


def _units(source: Any, bench: Bench, setting: Setting, seeds: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """Return the units of a source by extractor, all of these seeds; nothing where one is missing."""
    found: dict[str, list[dict[str, Any]]] = {}
    for lens in bench.lenses:
        for seed in seeds:
            unit = read_unit(setting.units, bench.key(source, lens, setting.protocol, seed))
            if unit is None:
                return {}
            found.setdefault(lens.id, []).append(unit)
    return found


def _collect(
    group: Sequence[Candidate],
    sources: Mapping[Path, ModelSource],
    failed: Mapping[str, str],
    bench: Bench,
    setting: Setting,
    order: Order,
) -> Result:
    """Make entries of what is complete; what is not yet is only counted."""
    protocol = setting.protocol
    result: list[dict[str, Any]] = []
    pictures: dict[str, dict[str, Path]] = {}
    left = 0
    about = (bench.lenses, bench.reference, protocol)
    for one in group:
        source = sources.get(one.place)
        reason = failed.get(str(one.place), "") or (failed.get(str(source.path.resolve()), "") if source else "")
        units = _units(source, bench, setting, protocol.seeds) if source else {}
        if source and units:
            entry = model_entry(source, units, *about)
            pictures[entry["entry_sha256"]] = _pictures(source, entry, bench, setting)
        elif reason:
            entry = failed_entry(one.name, reason, one.recipe.toml(), *about)
        else:
            left += 1
            continue
        result.append(entry)
    for baseline in bench.baselines.values() if order.baselines else ():
        units = _units(baseline, bench, setting, baseline.seeds(protocol))
        if units:
            result.append(baseline_entry(baseline, units, *about))
        else:
            left += 1
    return Result(result, pictures, left)


def _pictures(source: ModelSource, entry: Mapping[str, Any], bench: Bench, setting: Setting) -> dict[str, Path]:
    """Return the pictures of a model: a grid of its first samples, and some above their nearest training images."""
    folder = setting.units.parent / "pictures"
    stem = source.stem
    whole = folder / f"{stem}-{setting.protocol.weights}-grid.png"
    if entry["status"] == "scored" and not whole.is_file():
        make = source.images(bench.reference, setting.protocol, setting.protocol.seeds[0])
        save_png(grid(make(0, GRID).float() / 127.5 - 1), whole, {"model": entry["model"]["name"]})
    found = {"grid": whole, "neighbours": folder / f"{stem}-neighbours.png"}
    return {kind: path for kind, path in found.items() if path.is_file()}


class Silent:
    """A reporter that says nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def step(self, text: str, done: int, total: int, left: float) -> None:
        """Say nothing."""
