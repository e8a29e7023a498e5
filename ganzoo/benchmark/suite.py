"""Suites: files that pit methods against the same backbone without them, on data whose modes are known, seed by seed."""

from __future__ import annotations

import copy
import fnmatch
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Draft, read_toml
from ..errors import RecipeError, did_you_mean
from ..options import check_options
from ..recipe import Recipe
from ..registry import Registry
from ..zoo import folders

FOLDER = "suites"  # of a zoo package


@dataclass(frozen=True, kw_only=True)
class Arena:
    """One set of data with its backbone, how many samples are judged, and the name of the protocol that says how."""

    name: str
    backbone: str
    protocol: str
    samples: int
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A method: the tables that it lays over a backbone's recipe."""

    name: str
    summary: str
    tables: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Everything that its figures depend on besides code and seeds."""

    name: str
    version: int
    summary: str
    seeds: tuple[int, ...]
    well: float  # share of its fair share of good samples from which a mode counts as well covered
    arenas: tuple[Arena, ...]
    backbones: Mapping[str, Mapping[str, Any]]  # name -> a recipe's tables
    contestants: Mapping[str, tuple[Contestant, ...]]  # backbone -> who meets on it

    def matches(self, targets: Sequence[str] = ()) -> Iterator[tuple[Arena, Contestant]]:
        """Yield who is to be trained where: all, or those whose ARENA or ARENA/CONTESTANT a pattern names."""
        known = {
            f"{arena.name}/{one.name}": (arena, one) for arena in self.arenas for one in self.contestants[arena.backbone]
        }
        chosen: dict[str, tuple[Arena, Contestant]] = {} if targets else known
        for target in targets:
            pattern = target if "/" in target else f"{target}/*"
            found = fnmatch.filter(known, pattern)
            if not found:
                near = did_you_mean(target, [*known, *(arena.name for arena in self.arenas)])
                listed = ", ".join(dict.fromkeys(arena.name for arena in self.arenas))
                raise RecipeError(f"suite {self.name!r} has no {target!r}{near} (its sets: {listed})")
            chosen |= {key: known[key] for key in found}
        yield from chosen.values()

    def recipe(self, arena: Arena, contestant: Contestant, seed: int, samples: int = 0) -> Recipe:
        """Return the recipe of one training; `samples` is another length than the suite's."""
        tables = copy.deepcopy(dict(self.backbones[arena.backbone])) | {"data": dict(arena.data)}
        draft = Draft(f"{arena.name}-{contestant.name}-s{seed}", tables, f"suite {self.name}")
        draft.apply(contestant.tables, f"contestant {contestant.name}")
        draft.set("train.seed", seed, "the suite's seeds")
        if samples:
            draft.set("train.samples", samples, "--budget")
        return draft.finish()


def find_suite(name: str, registry: Registry) -> Suite:
    """Return the suite of this name in an installed zoo package, or that of a TOML file."""
    path = Path(name)
    if path.suffix != ".toml":
        known = {place.stem: place for _, folder in folders(registry) for place in sorted((folder / FOLDER).glob("*.toml"))}
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise RecipeError(f"there is no suite {name!r}{did_you_mean(name, known) or f' (there are: {listed})'}")
        path = known[name]
    raw = read_toml(path)
    what = f"suite {path.stem!r}"
    try:
        suite = _suite(path.stem, raw, what)
    except (AttributeError, KeyError, TypeError) as error:
        raise RecipeError(f"{what} lacks or misuses {error}; see the suites that come with ganzoo") from None
    for arena in suite.arenas:
        if arena.backbone not in suite.backbones:
            raise RecipeError(f"{what}: set {arena.name!r} names no backbone of it, but {arena.backbone!r}")
    return suite


def _suite(name: str, raw: Mapping[str, Any], what: str) -> Suite:
    backbones = {key: {k: v for k, v in one.items() if k != "contestant"} for key, one in raw["backbone"].items()}
    contestants = {
        key: tuple(
            Contestant(
                name=str(entry["name"]),
                summary=str(entry.get("summary", "")),
                tables={k: _tables(k, v) for k, v in entry.items() if k not in ("name", "summary")},
            )
            for entry in one["contestant"]
        )
        for key, one in raw["backbone"].items()
    }
    arenas = tuple(Arena(**check_options(f"{what}: a set", Arena, one)) for one in raw["set"])
    return Suite(
        name=name,
        version=int(raw["version"]),
        summary=str(raw["summary"]),
        seeds=tuple(int(seed) for seed in raw["seeds"]),
        well=float(raw["well"]),
        arenas=arenas,
        backbones=backbones,
        contestants=contestants,
    )


def _tables(key: str, value: Any) -> Any:
    """Return regularizers by name, as changes of a recipe have them."""
    if key != "regularizer":
        return value
    return {entry["name"]: {k: v for k, v in entry.items() if k != "name"} for entry in value}


def fingerprint(recipe: Recipe) -> str:
    """Return eight digits that change with anything that a training depends on."""
    return hashlib.sha256(json.dumps(recipe.raw, sort_keys=True).encode()).hexdigest()[:8]
