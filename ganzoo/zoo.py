"""From what was typed to a recipe: found in a zoo package or a file, or composed of an architecture and a loss."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import DISTRIBUTION
from .config import Draft, read_toml
from .errors import PluginError, RecipeError, did_you_mean
from .options import parse_value
from .recipe import Recipe
from .registry import Record, Registry

COMPOSE = "_compose.toml"  # what a composition without a recipe starts from; a zoo package may bring its own
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
TYPED = ("--", "the command", "the caller")  # origins of what was asked for beside the recipe
KEPT = ("size", "channels", "labels")  # options that every image dataset shares, kept when --data changes the set


@dataclass(frozen=True)
class Entry:
    """A recipe of an installed zoo package, not yet read."""

    name: str
    path: Path
    record: Record

    @property
    def qualified(self) -> str:
        """The name that stays unambiguous whatever else is installed."""
        return f"{self.record.distribution}:{self.name}"


@dataclass(frozen=True)
class Request:
    """What a command line or a call asks for beside a name; empty means as the recipe has it."""

    presets: Sequence[str] = ()
    data: str = ""
    loss: str = ""
    regularizers: Sequence[str] = ()
    sets: Sequence[str] = ()  # KEY=VALUE in TOML's syntax
    seed: int | None = None
    init: str = ""  # a run folder or a checkpoint
    values: Mapping[str, Any] = field(default_factory=dict)  # dotted key -> value, for Python callers


def entries(registry: Registry) -> list[Entry]:
    """Return every recipe of every installed zoo package, sorted by name."""
    found = [
        Entry(path.stem, path, record)
        for record, folder in folders(registry)
        for path in sorted(folder.glob("*.toml"))
        if not path.name.startswith("_")
    ]
    return sorted(found, key=lambda entry: (entry.name, entry.qualified))


def folders(registry: Registry) -> list[tuple[Record, Path]]:
    """Return the folders of all zoo packages; one that is broken only lacks here, and `ganzoo doctor` names it."""
    found = []
    for record in registry.of("zoo"):
        try:
            found.append((record, registry.zoo_folder(record)))
        except PluginError:
            continue
    return found


def resolve(name: str, request: Request, registry: Registry) -> Recipe:
    """Return the frozen recipe for a name, a file or a composition, with everything asked for merged in."""
    draft = _start(name, registry)
    for preset in request.presets:
        draft.preset(preset)
    if request.data:
        _change_data(draft, request.data)
    if request.loss:
        draft.put("loss", {"name": request.loss}, "--loss")
        draft.name += f"+{_in_path(request.loss)}"
    for text in request.regularizers:
        _add_regularizer(draft, text, registry)
    for text in request.sets:
        key, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"--set {text!r} has no value; write --set KEY=VALUE, such as --set train.batch=128")
        draft.set(key.strip(), parse_value(value.strip()), f"--set {key.strip()}")
    for key, value in request.values.items():
        draft.set(key, value, "the caller")
    if request.seed is not None:
        draft.set("train.seed", request.seed, "--seed")
        draft.name += f"+seed{request.seed}"
    if request.init:
        _begin_with(draft, request.init)
    if not NAME.fullmatch(draft.name):
        raise RecipeError(f"recipe name {draft.name!r} cannot name a folder; use letters, digits and . _ + -")
    return draft.finish()


def at_home(recipe: Recipe, registry: Registry) -> Registry:
    """Return the registry as the recipe's own package means it.

    A bare name in a packaged recipe is that package's plugin where it has one, whatever else is installed. A name that was
    typed stays as ambiguous as it is.
    """
    origins = set(recipe.origin.values())
    homes = {origin.removeprefix("recipe ").partition(":")[0] for origin in origins if origin.startswith("recipe ")}
    home = next(iter(homes), DISTRIBUTION if "composition" in origins else "")
    meant = {(kind, name) for kind, name, origin in _names(recipe) if not origin.startswith(TYPED)}
    mine = {(record.kind, record.name) for record in registry.records if record.distribution == home} & meant
    kept = [one for one in registry.records if (one.kind, one.name) not in mine or one.distribution == home]
    return Registry(kept, registry.problems)


def _names(recipe: Recipe) -> list[tuple[str, str, str]]:
    """Return kind, name and origin of each plugin that a recipe names."""
    origin = recipe.origin.get
    named = [("architecture", recipe.architecture.name, origin("architecture.name", ""))]
    named += [("loss", recipe.loss.name, origin("loss.name", "")), ("dataset", recipe.data.name, origin("data.name", ""))]
    named += [("game", recipe.game.name, origin("game.name", ""))] if recipe.game else []
    return named + [("regularizer", part.name, origin(f"regularizer.{part.name}", "")) for part in recipe.regularizers]


def _start(name: str, registry: Registry) -> Draft:
    path = Path(name)
    if path.suffix == ".toml":
        raw = read_toml(path)
        return Draft(str(raw.get("name") or path.stem), raw, str(path))
    if entry := _entry(name, entries(registry)):
        return Draft(entry.name, read_toml(entry.path), f"recipe {entry.qualified}")
    return _compose(name, registry)


def _entry(name: str, known: Iterable[Entry]) -> Entry | None:
    found = [entry for entry in known if name in (entry.name, entry.qualified)]
    if len(found) > 1:
        names = " and ".join(repr(entry.qualified) for entry in found)
        raise RecipeError(f"recipe {name!r} is offered by several packages; say which: {names}")
    return found[0] if found else None


def _compose(name: str, registry: Registry) -> Draft:
    """Compose ARCHITECTURE or ARCHITECTURE-LOSS over the base that the architecture's package, or ganzoo itself, brings."""
    architectures = {record.name for record in registry.of("architecture")}
    losses = {record.name for record in registry.of("loss")}
    splits = [(name, "")] + [(name[:cut], name[cut + 1 :]) for cut, char in enumerate(name) if char == "-"]
    for architecture, loss in splits:
        if architecture.split(":")[-1] in architectures and (not loss or loss in losses):
            record = registry.find("architecture", architecture)
            draft = Draft(_in_path(name), read_toml(_base(record, registry)), "composition")
            draft.put("architecture", {"name": architecture}, "the command")
            if loss:
                draft.put("loss", {"name": loss}, "the command")
            return draft
    known = {entry.name for entry in entries(registry)} | architectures
    raise RecipeError(f"there is no recipe {name!r}{did_you_mean(name, known)} (see: ganzoo list)")


def _in_path(name: str) -> str:
    """Return a name as part of a run's folder: package:name has a colon, which some file systems refuse."""
    return name.replace(":", ".")


def _base(architecture: Record, registry: Registry) -> Path:
    bases = {record.distribution: folder / COMPOSE for record, folder in folders(registry)}
    for distribution in (architecture.distribution, DISTRIBUTION):
        if distribution in bases and bases[distribution].is_file():
            return bases[distribution]
    raise PluginError(f"no zoo package brings a {COMPOSE}, so nothing can be composed; reinstall {DISTRIBUTION}")


def _change_data(draft: Draft, text: str) -> None:
    """Take a path where there is one or where the text looks like one, and a dataset's name otherwise."""
    path = _path("--data", text)
    looks = path.exists() or "/" in text or "\\" in text or text.startswith(("~", "."))
    kept = {key: draft.raw.get("data", {})[key] for key in KEPT if key in draft.raw.get("data", {})}
    draft.put("data", {"path": str(path.absolute()), **kept} if looks else {"name": text, **kept}, "--data")
    draft.name += f"+{_word(path.stem if looks else text)}"


def _begin_with(draft: Draft, text: str) -> None:
    """Take the path as it is meant from here: a run folder may be opened from anywhere."""
    path = _path("--init", text).absolute()
    draft.set("train.init", str(path), "--init")
    draft.name += f"+init-{_word(path.name.removesuffix('.safetensors'))}"


def _path(option: str, text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise RecipeError(f"{option} {text!r} names the home of no user here; write the path out") from None


def _word(text: str) -> str:
    return re.sub("[^A-Za-z0-9._-]", "_", text)


def _add_regularizer(draft: Draft, text: str, registry: Registry) -> None:
    """Add NAME or NAME=NUMBER, the number being the regularizer's weight or what it declares as its strength."""
    name, equals, value = text.partition("=")
    from .api import Regularizer  # imports torch, as loading the plugin does

    regularizer = registry.load("regularizer", name)
    if equals and regularizer.strength == "weight" and regularizer.penalty is Regularizer.penalty:
        raise RecipeError(f"regularizer {name!r} pays no penalty, so {value!r} can weigh nothing; leave the number out")
    draft.add_regularizer(name, "--regularizer")
    draft.name += f"+{_in_path(name)}"
    if equals:
        draft.set(f"regularizer.{name}.{regularizer.strength}", parse_value(value), "--regularizer")
