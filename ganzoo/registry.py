"""Entry points to names to objects: three steps (scan, find, load), and only the last imports a plugin."""

from __future__ import annotations

import ast
import configparser
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import site
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import entrypoints

from . import DISTRIBUTION
from .errors import PluginError, did_you_mean
from .options import check_options

__all__ = ["GROUPS", "Problem", "Record", "Registry", "registry"]

GROUPS: Mapping[str, str] = {  # kind -> entry-point group
    "architecture": "ganzoo.architectures",
    "loss": "ganzoo.losses",
    "regularizer": "ganzoo.regularizers",
    "game": "ganzoo.games",
    "dataset": "ganzoo.datasets",
    "reader": "ganzoo.readers",
    "extractor": "ganzoo.extractors",
    "zoo": "ganzoo.zoo",
}
BASES = {kind: kind.capitalize() for kind in ("architecture", "loss", "regularizer", "game", "extractor")}  # of ganzoo.api
PACKAGES = frozenset({"zoo"})  # kinds whose entry points name a package, not an attribute of a module
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,63}")
UNREADABLE = (configparser.Error, OSError, ValueError)  # ValueError: bytes that are not UTF-8


@dataclass(frozen=True)
class Record:
    """One plugin as its package's metadata declares it; nothing of it has been imported."""

    kind: str
    name: str
    module: str
    attribute: str  # empty for a zoo, which is the module itself
    distribution: str
    version: str

    @property
    def qualified(self) -> str:
        """The name that no other package can take."""
        return f"{self.distribution}:{self.name}"

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of package {self.distribution} {self.version}"


@dataclass(frozen=True)
class Problem:
    """An installed package whose entry points cannot be used, and why."""

    distribution: str
    version: str
    message: str


class Registry:
    """The plugins that are installed, under their names."""

    def __init__(self, records: Iterable[Record], problems: Iterable[Problem] = ()) -> None:
        self.records = tuple(sorted(set(records), key=lambda record: (record.kind, record.name, record.distribution)))
        self.problems = tuple(sorted(set(problems), key=lambda one: (one.distribution, one.version, one.message)))

    def of(self, kind: str) -> list[Record]:
        """Return all plugins of a kind, by name and then by package."""
        return [record for record in self.records if record.kind == kind]

    def ambiguous(self, kind: str) -> set[str]:
        """Return the bare names that more than one package offers."""
        return {name for name, count in Counter(record.name for record in self.of(kind)).items() if count > 1}

    def find(self, kind: str, name: str) -> Record:
        """Return the plugin of this name, bare or package:name; PluginError if there is none or more than one."""
        package, colon, bare = name.rpartition(":")
        found = [record for record in self.of(kind) if record.name == bare]
        if colon:
            found = [record for record in found if _canonical(record.distribution) == _canonical(package)]
        if len(found) == 1:
            return found[0]
        if found:
            names = " and ".join(repr(record.qualified) for record in found)
            raise PluginError(f"{kind} {name!r} is offered by more than one package; name one of {names}")
        raise PluginError(self._unknown(kind, name))

    def load(self, kind: str, name: str) -> Any:
        """Import a plugin and return its class, function or package; PluginError for all that is wrong with it."""
        record = self.find(kind, name)
        expected = _expected(kind)  # before the plugin is imported, so that it is not blamed for a broken torch
        plugin = _imported(record)
        problem = expected(plugin) or _too_new(plugin)
        if problem:
            raise PluginError(f"{record} {problem}")
        return plugin

    def build(self, kind: str, name: str, options: Mapping[str, Any]) -> Any:
        """Return a plugin made with these options; PluginError if they are not its own or it refuses them."""
        plugin = self.load(kind, name)
        checked = check_options(f"{kind} {name!r}", plugin, options)
        try:
            return plugin(**checked)
        except (TypeError, ValueError) as error:
            what = f"{kind} {name!r} refuses its options ({_first_line(error)}); change them in the recipe"
            raise PluginError(what) from error

    def provenance(self, record: Record) -> dict[str, str]:
        """Return where a plugin comes from: for checkpoints and scores; `sha256` is empty if there is no source file."""
        path = _defining_file(record)
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path and path.is_file() else ""
        return {**asdict(record), "sha256": digest}

    def summary(self, record: Record) -> str:
        """Return the first line of a plugin's docstring, read as text; an empty string where that cannot be done."""
        path = _source(record.module)
        if path is None:
            return ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # doubtful escapes in a plugin's text are its author's business
                node: ast.AST | None = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            return ""
        for part in filter(None, record.attribute.split(".")):
            node = _definition(node, part)
        text = ast.get_docstring(node) if isinstance(node, _DOCUMENTED) else None
        return "".join(filter(str.isprintable, (text or "").split("\n", 1)[0])).strip()

    def zoo_folder(self, record: Record) -> Path:
        """Return the folder that holds a zoo's recipes, found without importing its package."""
        for base in _bases(record.module):
            if base.is_dir():
                return base
        raise PluginError(f"{record} has no folder; {_reinstall(record)}")

    def _unknown(self, kind: str, name: str) -> str:
        others = [record.kind for record in self.records if name in (record.name, record.qualified)]
        if others and kind in GROUPS:
            return f"{name!r} is {_a(others[0])}, not {_a(kind)}"
        if kind not in GROUPS:
            return f"there is no kind of plugin {kind!r}{did_you_mean(kind, GROUPS)}"
        known = [text for record in self.of(kind) for text in (record.name, record.qualified)]
        hint = did_you_mean(name.casefold(), known) or "; choose another (see: ganzoo list) or install its package"
        return f"there is no {kind} {name!r}{hint}"


def registry(refresh: bool = False) -> Registry:
    """Return the plugins of this environment; it is scanned once per process unless a refresh is asked for."""
    if refresh:
        _scan.cache_clear()
    return _scan()


@functools.cache
def _scan() -> Registry:
    """Read the entry points of every package on the import path, importing none of them."""
    records: list[Record] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for folder in _folders():
        found, unreadable = _declared(folder)
        problems += unreadable
        for distribution, version, entries in found:
            # the first folder shadows later ones, as it does for import
            if _canonical(distribution) not in seen:
                seen.add(_canonical(distribution))
                for entry in entries:
                    try:
                        records.append(_record(distribution, version, *entry))
                    except ValueError as error:
                        problems.append(Problem(distribution, version, str(error)))
    return Registry(records, problems)


Entries = list[tuple[str, str, str]]  # kind, name, value
Found = tuple[str, str, Entries]  # distribution, version, entries


def _folders() -> Iterator[str]:
    """Yield the import path without the current folder, whose plugins nobody has installed."""
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:
        here = ""
    installed = {os.path.realpath(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())}
    seen = set()
    for entry in sys.path:
        if not isinstance(entry, str) or not entry:  # import ignores what is not text
            continue
        folder = os.path.realpath(entry)
        if folder not in seen and (folder != here or folder in installed) and os.path.exists(folder):
            seen.add(folder)
            yield folder


def _declared(folder: str) -> tuple[list[Found], list[Problem]]:
    """Return what the packages in a folder declare, newest version first; and the packages that cannot be read."""
    problems: list[Problem] = []
    plain = os.path.isdir(folder) and not folder.endswith(".egg")
    try:
        found = list(_fast(folder) if plain else _slow(folder, problems))
    except UNREADABLE:  # one malformed file hides all of its folder from the entrypoints package
        found = list(_slow(folder, problems))
    return sorted(found, key=lambda one: (_canonical(one[0]), _newest_first(one[1]), one[1])), problems


def _fast(folder: str) -> Iterator[Found]:
    for parser, distro in entrypoints.iter_files_distros(path=[folder], repeated_distro="all"):
        entries = _ours(parser)
        if entries:
            stem = "-".join(filter(None, (distro.name, distro.version)))
            infos = [os.path.join(folder, stem + end) for end in (".dist-info", ".egg-info")]
            info = next(filter(os.path.isdir, infos), None)
            if info is None:
                raise ValueError(f"{stem} has an unusual folder name")
            yield *_identity(importlib.metadata.Distribution.at(info)), entries


def _slow(folder: str, problems: list[Problem]) -> Iterator[Found]:
    """Read each package on its own, so that one which is malformed costs only itself."""
    try:
        if os.path.isfile(folder):
            zipfile.ZipFile(folder).close()
        distributions = list(importlib.metadata.distributions(path=[folder]))
    except (OSError, zipfile.BadZipFile) as error:
        problems.append(Problem(os.path.basename(folder), "unknown", f"{folder} cannot be read ({_first_line(error)})"))
        return
    for distribution in distributions:
        try:
            text = distribution.read_text("entry_points.txt")
            if text is None:
                continue
            parser = entrypoints.CaseSensitiveConfigParser(delimiters=("=",))
            parser.read_string(text, "entry_points.txt")
            entries = _ours(parser)
        except UNREADABLE as error:
            message = f"its entry_points.txt is malformed ({_first_line(error)}), so its plugins are unknown"
            problems.append(Problem(*_identity(distribution), message))
            continue
        if entries:
            yield *_identity(distribution), entries


def _ours(parser: configparser.ConfigParser) -> Entries:
    """Return the entries in our groups, raw: without interpolation, and without the leaking [DEFAULT] section."""
    leaking: Any = parser.defaults()
    leaking.clear()
    groups = {group: kind for kind, group in GROUPS.items() if parser.has_section(group)}
    return [(kind, name, value) for group, kind in groups.items() for name, value in parser.items(group, raw=True)]


def _identity(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    """Return true name and version from METADATA; the folder's name is only an approximation of both."""
    fields = {"name": "", "version": ""}
    try:
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    except UNREADABLE:
        text = ""
    for line in text.partition("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        if key.lower() in fields:
            fields[key.lower()] = value.strip()
    if not PACKAGE.fullmatch(fields["name"]):
        folder = os.path.basename(str(getattr(distribution, "_path", "unknown")))
        fields["name"] = re.split(r"-\d|\.(?:dist|egg)-info", folder)[0]
    return fields["name"], fields["version"] if VERSION.fullmatch(fields["version"]) else "unknown"


def _record(distribution: str, version: str, kind: str, name: str, value: str) -> Record:
    """Return the record that an entry declares; ValueError says what is wrong with it."""
    where = f"entry {name!r} in group {GROUPS[kind]!r}"
    if not NAME.fullmatch(name):
        raise ValueError(f"{where} has an unusable name; use at most 64 of a-z, 0-9, '.', '_' and '-'")
    form = "the name of a package" if kind in PACKAGES else "module:attribute"
    try:
        entry = entrypoints.EntryPoint.from_string(value.strip(), name)
    except entrypoints.BadEntryPoint:
        raise ValueError(f"{where} has the malformed value {value!r}; it must be {form}") from None
    if bool(entry.object_name) == (kind in PACKAGES):
        raise ValueError(f"{where} has the value {value!r}; it must be {form}")
    return Record(kind, name, entry.module_name, entry.object_name or "", distribution, version)


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _newest_first(version: str) -> list[int]:
    """Sort a version that an upgrade left behind after the one that replaced it."""
    return [-int(number) for number in re.findall(r"\d+", version)] + [1]


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _first_line(error: BaseException) -> str:
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _reinstall(record: Record) -> str:
    return f"repair the package with: pip install --upgrade --force-reinstall {record.distribution}"


def _imported(record: Record) -> Any:
    try:
        plugin: Any = importlib.import_module(record.module)
        for part in filter(None, record.attribute.split(".")):
            if not hasattr(plugin, part):
                raise LookupError(f"module {record.module} has no {record.attribute!r}")
            plugin = getattr(plugin, part)
    except MemoryError:
        raise
    # a plugin is anybody's code: whatever it raises (SystemExit too) must end in one sentence that names its package
    except (Exception, SystemExit) as error:
        raise PluginError(f"{record} cannot be imported ({_first_line(error)}); {_reinstall(record)}") from error
    return plugin


def _expected(kind: str) -> Callable[[Any], str]:
    """Return the check of what a plugin of this kind must be; it says what is wrong, or nothing."""
    if kind in PACKAGES:
        return lambda plugin: "" if hasattr(plugin, "__path__") else "is a single module; it must be a package with recipes"
    if kind not in BASES:
        return lambda plugin: "" if callable(plugin) else "cannot be called; it must be a function or class"
    base: type = getattr(importlib.import_module("ganzoo.api"), BASES[kind])
    wrong = f"is no subclass of ganzoo.api.{BASES[kind]}; derive it from that"
    return lambda plugin: "" if isinstance(plugin, type) and issubclass(plugin, base) else wrong


def _too_new(plugin: Any) -> str:
    needed = getattr(plugin, "api_version", None)
    if needed is None:
        return ""
    offered: int = importlib.import_module("ganzoo.api").API_VERSION
    if not isinstance(needed, int):
        return f"has the api_version {needed!r}; it must be a whole number, at most {offered}"
    remedy = f"upgrade ganzoo with: pip install --upgrade {DISTRIBUTION}"
    return f"needs version {needed} of ganzoo.api and this one is {offered}; {remedy}" if needed > offered else ""


def _defining_file(record: Record) -> Path | None:
    """Return the file that a plugin stands in: a loaded one may come from elsewhere than the module that offers it."""
    module = plugin = sys.modules.get(record.module)
    for part in filter(None, record.attribute.split(".")):
        plugin = getattr(plugin, part, None)
    if hasattr(plugin, "__qualname__"):  # a class or function; other objects know only where their class is defined
        module = sys.modules.get(plugin.__module__, module)
    file = getattr(module, "__file__", None)
    return Path(file) if file else _source(record.module)


def _bases(module: str) -> list[Path]:
    """Return where a module may lie, without a suffix; finding a top-level name imports nothing."""
    top, *parts = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is None:
        return [Path(spec.origin).with_suffix("")] if spec.origin and not parts else []
    return [Path(folder, *parts) for folder in spec.submodule_search_locations]


def _source(module: str) -> Path | None:
    candidates = [path for base in _bases(module) for path in (base / "__init__.py", base.parent / f"{base.name}.py")]
    return next((path for path in candidates if path.is_file()), None)


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _definition(node: ast.AST | None, name: str) -> ast.AST | None:
    body = node.body if isinstance(node, ast.Module | ast.ClassDef) else []
    return next((child for child in body if isinstance(child, _DOCUMENTED[1:]) and child.name == name), None)
