"""TOML to recipes, with overrides and the origin of every value; an unknown key is an error with a suggestion."""

from __future__ import annotations

import copy
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w

from .errors import PluginError, RecipeError, did_you_mean
from .options import check_options
from .recipe import DataPart, HalfLife, Latent, Number, Part, Recipe, RegularizerPart, Schedule, Stage, Train, value_at

MAX_BYTES = 1_000_000  # a recipe is a page of text; anything larger is a mistake or an attack
TOO_DEEP = "is nested too deeply; a recipe has tables and values only"
KEYS = {"from": "start", "to": "stop", "shape": "shape", "begin": "begin", "end": "end"}  # of a schedule in a recipe
HALF_LIFE = {"half_life", "ramp"}  # of train.ema, in place of a decay
ENDS = (0.0, 1.0)  # shares of the run; a schedule never leaves the values it has there
PARTS = ("data", "architecture", "loss", "regularizer", "game", "latent", "optimizer", "train")
TABLES = (*PARTS, "stages", "presets", "provenance")
TEXTS = ("name", "summary", "tier")


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file's tables; RecipeError for what cannot be read or is no TOML."""
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise RecipeError(f"recipe {path} has {len(data):,} bytes; a recipe is at most {MAX_BYTES:,}")
        return tomllib.loads(data.decode("utf-8-sig").replace("\r\n", "\n"))
    except OSError as error:
        raise RecipeError(f"recipe {path} cannot be read ({error.strerror}); give a recipe's name or file") from None
    except UnicodeDecodeError:
        raise RecipeError(f"recipe {path} is not text in UTF-8; save it so") from None
    except ValueError as error:  # bad TOML, a number of thousands of digits, a path with a NUL
        raise RecipeError(f"recipe {path} is not valid TOML: {error}") from None
    except RecursionError:
        raise RecipeError(f"recipe {path} {TOO_DEEP}") from None


class Draft:
    """A recipe in the making: raw tables, and the origin of every value, until `finish` checks all of it."""

    def __init__(self, name: str, raw: Mapping[str, Any], origin: str) -> None:
        self.name = name
        try:
            self.raw: dict[str, Any] = copy.deepcopy(dict(raw))
        except RecursionError:
            raise RecipeError(f"recipe {name!r} {TOO_DEEP}") from None
        self.presets = self._table("presets", self.raw.pop("presets", {}))
        self.raw["regularizer"] = self._by_name(self.raw.get("regularizer", []))
        self.origin: dict[str, str] = {}
        self._mark(self.raw, "", origin)

    def apply(self, changes: Mapping[str, Any], origin: str) -> None:
        """Merge nested tables over the draft: a preset."""
        for key in changes:
            if key not in TABLES:
                raise RecipeError(f"{origin} has an unknown key {key!r}{did_you_mean(key, TABLES)}")
        length = changes.get("train", {}).get("samples") if isinstance(changes.get("train"), Mapping) else None
        if "stages" in changes and length is None and isinstance(self.raw.get("train"), dict):
            self.raw["train"].pop("samples", None)  # the stages say anew how long the run is
            self.origin.pop("train.samples", None)
        _merge(self.raw, changes)
        self._mark(changes, "", origin)
        if length is not None and "stages" not in changes and self.raw.get("stages"):
            del self.raw["train"]["samples"]
            self.set("train.samples", length, origin)

    def preset(self, name: str) -> None:
        """Apply one of the recipe's own presets."""
        if name not in self.presets:
            known = ", ".join(sorted(self.presets)) or "none"
            close = did_you_mean(name, self.presets)
            raise RecipeError(f"recipe {self.name!r} has no preset {name!r}{close} (it has: {known})")
        self.apply(self._table(f"presets.{name}", self.presets[name]), f"preset {name}")
        self.name = f"{self.name}+{name}"

    def set(self, key: str, value: Any, origin: str) -> None:
        """Set one dotted key, such as train.batch or regularizer.NAME.weight."""
        table: dict[str, Any] | list[Any] = self.raw
        parts = key.split(".")
        if key == "train.samples" and isinstance(self.raw.get("stages"), list) and self.raw["stages"]:
            self._stretch(value, origin)
            return
        if parts[0] not in TABLES or len(parts) < 2:
            close = did_you_mean(parts[0], TABLES)
            raise RecipeError(f"{origin}: {key!r} is no key of a recipe{close}; write TABLE.KEY=VALUE")
        if parts[0] == "regularizer" and parts[1] not in self.raw["regularizer"]:
            close = did_you_mean(parts[1], self.raw["regularizer"])
            lacks = f"the recipe has no regularizer {parts[1]!r}{close}"
            raise RecipeError(f"{origin}: {lacks}; add it with --regularizer {parts[1]}")
        for part in parts[:-1]:
            table = self._step(table, part, key, origin)
        if isinstance(table, list):
            raise RecipeError(f"{origin}: {key!r} is a whole stage; name one of its keys")
        table[parts[-1]] = value
        self.origin[key] = origin

    def put(self, table: str, value: Mapping[str, Any], origin: str) -> None:
        """Replace a whole table."""
        self.raw[table] = dict(value)
        for key in [key for key in self.origin if key.startswith(f"{table}.")]:
            del self.origin[key]
        self._mark({table: value}, "", origin)

    def add_regularizer(self, name: str, origin: str) -> None:
        """Add a regularizer with its defaults unless the recipe has it already."""
        if name not in self.raw["regularizer"]:
            self.raw["regularizer"][name] = {}
            self.origin[f"regularizer.{name}"] = origin

    def finish(self) -> Recipe:
        """Check every table, key and type, and freeze the result; RecipeError names the culprit."""
        for key in self.raw:
            if key not in TABLES and key not in TEXTS:
                raise RecipeError(f"recipe {self.name!r} has an unknown key {key!r}{did_you_mean(key, TABLES + TEXTS)}")
        table = {key: self._table(key, self.raw.get(key, {})) for key in TABLES if key not in ("stages", "presets")}
        if not isinstance(self.raw.get("stages", []), list):
            raise RecipeError(f"recipe {self.name!r}: write each stage as [[stages]]")
        raw = {key: self.raw[key] for key in (*TEXTS, *TABLES) if self.raw.get(key) not in (None, {}, [])}
        raw.pop("name", None)
        if table["regularizer"]:
            named = {name: self._table(f"regularizer.{name}", values) for name, values in table["regularizer"].items()}
            raw["regularizer"] = [{"name": name, **values} for name, values in named.items()]
        train = self._train(table["train"])
        stages = tuple(self._stage(number, stage, train) for number, stage in enumerate(self.raw.get("stages", [])))
        if stages:
            train = replace(train, samples=self._length(stages, table["train"].get("samples")))
        return Recipe(
            name=self.name,
            summary=str(self.raw.get("summary", "")),
            data=self._data(table["data"]),
            architecture=self._part("architecture", table["architecture"]),
            loss=self._part("loss", table["loss"]),
            regularizers=tuple(self._regularizer(name, values) for name, values in table["regularizer"].items()),
            game=self._part("game", table["game"]) if table["game"] else None,
            latent=self._latent(table["latent"]),
            optimizer=self._part("optimizer", table["optimizer"]),
            train=train,
            stages=stages,
            raw=self._written(raw),
            origin=dict(self.origin),
        )

    def _table(self, key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise RecipeError(f"recipe {self.name!r}: {key!r} must be a table, not {value!r}; write [{key}]")
        return dict(value)

    def _by_name(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
            raise RecipeError(f"recipe {self.name!r}: write each regularizer as [[regularizer]]")
        named: dict[str, Any] = {}
        for entry in value:
            name = entry.get("name")
            if not isinstance(name, str):
                raise RecipeError(f"recipe {self.name!r}: a [[regularizer]] has no name; give it one")
            if name in named:
                raise RecipeError(f"recipe {self.name!r} has regularizer {name!r} twice; keep one")
            named[name] = {key: option for key, option in entry.items() if key != "name"}
        return named

    def _mark(self, table: Any, prefix: str, origin: str) -> None:
        if isinstance(table, Mapping) and "from" not in table:
            for key, value in table.items():
                self._mark(value, f"{prefix}{key}.", origin)
        else:
            self.origin[prefix.rstrip(".")] = origin

    def _step(self, table: Any, part: str, key: str, origin: str) -> dict[str, Any] | list[Any]:
        if isinstance(table, list):
            if not part.isdigit() or int(part) >= len(table):
                raise RecipeError(
                    f"{origin}: the recipe has {len(table)} stages, so {key!r} names none of them; count from 0"
                )
            return table[int(part)]  # type: ignore[no-any-return]
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict | list):
            raise RecipeError(f"{origin}: {key!r} goes through {part!r}, which is a value and not a table")
        return inner

    def _written(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tables as a run folder will give them back: lists for tuples, and nothing that TOML cannot hold."""
        try:
            text = tomli_w.dumps(raw)
            text.encode()  # a path that is not UTF-8
            return tomllib.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise RecipeError(f"recipe {self.name!r} cannot be written as TOML: {error}; change that value") from None

    def _latent(self, table: Mapping[str, Any]) -> Latent:
        latent: Latent = _checked(self.name, "latent", Latent, table)
        self._positive("latent", size=latent.size)
        return latent

    def _part(self, where: str, table: Mapping[str, Any]) -> Part:
        name = table.get("name")
        if not isinstance(name, str) or not name:
            raise RecipeError(f'recipe {self.name!r}: [{where}] has no name; write name = "..." (see: ganzoo list)')
        return Part(name, {key: value for key, value in table.items() if key != "name"})

    def _data(self, table: Mapping[str, Any]) -> DataPart:
        name, path = table.get("name", ""), table.get("path", "")
        if not isinstance(name, str) or not isinstance(path, str) or bool(name) == bool(path):
            raise RecipeError(f"recipe {self.name!r}: [data] needs either a name or a path, as text; or use --data")
        return DataPart(name, path, {key: value for key, value in table.items() if key not in ("name", "path")})

    def _regularizer(self, name: str, values: Any) -> RegularizerPart:
        table = self._table(f"regularizer.{name}", values)
        owned = {key: table.pop(key) for key in ("weight", "every") if key in table}
        if not isinstance(owned.get("every", 1), int) or isinstance(owned.get("every"), bool) or owned.get("every", 1) < 1:
            raise RecipeError(
                f"recipe {self.name!r}: regularizer {name!r} needs 'every' as a whole number of turns from 1 on"
            )
        weight = parse_number(self.name, owned.get("weight", 1.0), f"regularizer.{name}.weight")
        return RegularizerPart(name, table, weight, owned.get("every", 1))

    def _train(self, table: dict[str, Any]) -> Train:
        ema = self._ema(table.pop("ema", 0.999))
        train: Train = _checked(self.name, "train", Train, table)
        self._positive("train", samples=train.samples, batch=train.batch, accumulate=train.accumulate, keep=train.keep)
        for key in ("log", "grid", "checkpoint"):
            if getattr(train, key) < 0:
                raise RecipeError(f"recipe {self.name!r}: train.{key} must be 0 (automatic) or a number of samples")
        if isinstance(train.workers, int) and train.workers < 0:
            raise RecipeError(f"recipe {self.name!r}: train.workers must be 'auto', 0 (none) or a number of processes")
        if isinstance(train.micro_batch, int) and train.micro_batch < 0:
            raise RecipeError(
                f"recipe {self.name!r}: train.micro_batch must be 'auto', 0 (see train.accumulate) or a number of samples"
            )
        if train.micro_batch and train.accumulate > 1:
            raise RecipeError(
                f"recipe {self.name!r}: train.micro_batch={train.micro_batch} and train.accumulate={train.accumulate} both "
                "cut the batch; set train.micro_batch=0 or train.accumulate=1"
            )
        self._divides(train.accumulate, "train.batch", train.batch)
        return replace(train, ema=ema)

    def _ema(self, value: Any) -> Number | HalfLife:
        """Return the decay of the averages, or the half-life that a table { half_life, ramp } gives."""
        if not isinstance(value, Mapping) or not HALF_LIFE & value.keys():
            decay = parse_number(self.name, value, "train.ema")
            if not all(0 <= value_at(decay, share) < 1 for share in ENDS):
                raise RecipeError(f"recipe {self.name!r}: train.ema must lie in [0, 1)")
            return decay
        for key in value.keys() - HALF_LIFE:
            raise RecipeError(f"recipe {self.name!r}: train.ema has no {key!r}{did_you_mean(str(key), HALF_LIFE)}")
        if "half_life" not in value:
            raise RecipeError(f"recipe {self.name!r}: train.ema has a ramp and lacks the half_life; give it in samples")
        half_life = parse_number(self.name, value["half_life"], "train.ema.half_life")
        ramp = parse_number(self.name, value.get("ramp", 0.0), "train.ema.ramp")
        if isinstance(ramp, Schedule) or ramp < 0:
            raise RecipeError(f"recipe {self.name!r}: train.ema.ramp must be a share of the samples seen, from 0 on")
        if min(value_at(half_life, share) for share in ENDS) < 0:
            raise RecipeError(f"recipe {self.name!r}: train.ema.half_life must be a number of samples, from 0 on")
        return HalfLife(half_life=half_life, ramp=ramp)

    def _stage(self, number: int, table: Any, train: Train) -> Stage:
        stage: Stage = _checked(self.name, f"stages.{number}", Stage, self._table(f"stages.{number}", table))
        self._positive(f"stages.{number}", samples=stage.samples, size=stage.size, batch=stage.batch)
        self._divides(train.accumulate, f"stages.{number}.batch", stage.batch or train.batch)
        return stage

    def _stretch(self, total: Any, origin: str) -> None:
        """Let the stages share a run of so many samples as they shared theirs."""
        stages = [self._stage(number, stage, Train()) for number, stage in enumerate(self.raw["stages"])]
        usual, reached, seen = sum(stage.samples for stage in stages), 0, 0
        if not isinstance(total, int) or isinstance(total, bool):
            raise RecipeError(f"{origin}: the samples that stages share must be a whole number, not {total!r}")
        for number, stage in enumerate(stages):
            reached += stage.samples
            samples, seen = total * reached // usual - seen, total * reached // usual
            if samples < 1:
                raise RecipeError(f"{origin}: {total} samples are too few for the {len(stages)} stages of {self.name!r}")
            self.raw["stages"][number]["samples"] = samples
        self.origin["train.samples"] = origin

    def _length(self, stages: Sequence[Stage], said: int | None) -> int:
        """Return the samples of all stages; RecipeError where train.samples says another number."""
        total = sum(stage.samples for stage in stages)
        if said not in (None, total):
            raise RecipeError(
                f"recipe {self.name!r}: its stages have {total:,} samples and train.samples says {said:,}; "
                "leave train.samples out"
            )
        return total

    def _divides(self, pieces: int, key: str, batch: int) -> None:
        if batch % pieces:
            raise RecipeError(f"recipe {self.name!r}: train.accumulate={pieces} must divide {key}={batch}")

    def _positive(self, table: str, **numbers: int | None) -> None:
        for key, value in numbers.items():
            if value is not None and value < 1:
                raise RecipeError(f"recipe {self.name!r}: {table}.{key} must be at least 1, not {value}")


def parse_number(recipe: str, value: Any, where: str) -> Number:
    """Return a finite number, or the schedule that a table { from, to, shape, begin, end } describes."""
    if isinstance(value, Mapping):
        for key in value:
            if key not in KEYS:
                raise RecipeError(f"recipe {recipe!r}: schedule {where!r} has no {key!r}{did_you_mean(str(key), KEYS)}")
        if not value.keys() >= {"from", "to"}:
            raise RecipeError(f"recipe {recipe!r}: schedule {where!r} needs both a 'from' and a 'to'")
        schedule: Schedule = _checked(recipe, where, Schedule, {KEYS[key]: entry for key, entry in value.items()})
        if not 0 <= schedule.begin < schedule.end <= 1:
            raise RecipeError(f"recipe {recipe!r}: schedule {where!r} needs 0 <= begin < end <= 1")
        return schedule
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        shown = str(number) if isinstance(value, int) and math.isinf(number) else repr(value)[:80]
        raise RecipeError(f"recipe {recipe!r}: {where!r} must be a finite number or {{ from, to, shape }}, not {shown}")
    return number


def _checked(recipe: str, where: str, kind: Any, given: Mapping[str, Any]) -> Any:
    try:
        return kind(**check_options(f"recipe {recipe!r}: [{where}]", kind, given))
    except PluginError as error:
        raise RecipeError(str(error)) from None


def _merge(table: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(table.get(key), dict) and "from" not in value:
            _merge(table[key], value)
        else:
            table[key] = copy.deepcopy(dict(value) if isinstance(value, Mapping) else value)


def difference(old: Mapping[str, Any], new: Mapping[str, Any], ignore: Iterable[str] = ()) -> list[str]:
    """Return the dotted keys in which two resolved recipes differ, each with both values."""
    flat_old, flat_new = _flat(old), _flat(new)
    keys = [key for key in (*flat_old, *(key for key in flat_new if key not in flat_old)) if key not in set(ignore)]
    return [
        f"{key}: {flat_old.get(key)!r} -> {flat_new.get(key)!r}" for key in keys if flat_old.get(key) != flat_new.get(key)
    ]


def _flat(table: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(table, list) and table and all(isinstance(entry, Mapping) for entry in table):
        table = {str(entry.get("name", number)): entry for number, entry in enumerate(table)}
    if not isinstance(table, Mapping):
        return {prefix.rstrip("."): table}
    return {key: value for name, entry in table.items() for key, value in _flat(entry, f"{prefix}{name}.").items()}
