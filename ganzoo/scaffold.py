"""A plugin package from nothing: templates, the names that go into them, and what is refused."""

from __future__ import annotations

import ast
import builtins
import datetime
import keyword
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from . import __version__
from .errors import GanzooError, PluginError, ResourceError
from .registry import GROUPS, Registry

PREFIX = "ganzoo-"  # of distributions that extend ganzoo
NAME = re.compile(r"[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*")  # what the registry takes, and what can name a module too
LONGEST = 64  # characters of a plugin's name
FUNCTIONS = frozenset({"dataset"})  # kinds whose plugin is a function, and which are checked when opened
KINDS = ("loss", "regularizer", "architecture", "game", "dataset")
MODULE = "$kind/module.py.in"
FILES = {  # template -> where it goes
    "common/pyproject.toml.in": "pyproject.toml",
    "common/README.md.in": "README.md",
    "common/LICENSE.in": "LICENSE",
    "common/gitignore.in": ".gitignore",
    "common/package.py.in": "$package/__init__.py",
    MODULE: "$package/$module.py",
    "common/recipes.py.in": "$package/recipes/__init__.py",
    "$kind/recipe.toml.in": "$package/recipes/$recipe.toml",
    "common/test.py.in": "tests/test_$module.py",
}


class ScaffoldError(GanzooError):
    """A package that cannot be written as it was asked for."""

    exit_code = 2


@dataclass(frozen=True)
class Scaffold:
    """A package that is about to be written."""

    kind: str
    name: str

    @property
    def distribution(self) -> str:
        """What pip calls the package."""
        return self.name if self.name.startswith(PREFIX) else PREFIX + self.name

    @property
    def package(self) -> str:
        """What Python calls the package."""
        return _underscored(self.distribution)

    @property
    def attribute(self) -> str:
        """What Python calls the plugin: a class, or a function where that is what the kind wants."""
        words = re.split(r"[._-]", self.name)
        return _underscored(self.name) if self.kind in FUNCTIONS else "".join(word.capitalize() for word in words)

    @property
    def recipe(self) -> str:
        """The name of the recipe that uses the plugin."""
        return f"{self.name}-tiny"

    def values(self) -> Mapping[str, str]:
        """Return what the templates may name."""
        return {
            "kind": self.kind,
            "name": self.name,
            "title": f"The {self.kind} {self.name}",
            "group": GROUPS[self.kind],
            "distribution": self.distribution,
            "package": self.package,
            "module": _underscored(self.name),
            "attribute": self.attribute,
            "subject": f"{self.attribute}(labels=True)" if self.kind in FUNCTIONS else self.attribute,
            "recipe": self.recipe,
            "ganzoo": __version__,
            "year": str(datetime.date.today().year),
        }

    def files(self) -> dict[str, str]:
        """Return path in the package -> content."""
        return {self._filled(place): self.rendered(template) for template, place in FILES.items()}

    def rendered(self, template: str) -> str:
        """Return one of the templates, filled in."""
        return self._filled(_template(self._filled(template)))

    def commands(self, folder: Path) -> list[str]:
        """Return what to type next: install, check, train."""
        place = shlex.quote(str(folder))
        return [f"pip install -e {place}", f"ganzoo check {self.distribution}", f"ganzoo train {self.recipe}"]

    def _filled(self, text: str) -> str:
        return Template(text).substitute(self.values())


def plan(kind: str, name: str, known: Registry) -> Scaffold:
    """Return the package for a name that can be used; one sentence says why where it cannot."""
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise ScaffoldError(
            f"{kind} {name!r} is an unusable name; use a letter and then at most {LONGEST - 1} of a-z, 0-9 and '-', "
            "such as my-idea"
        )
    scaffold = Scaffold(kind, name)
    _refuse_taken(scaffold, known)
    _refuse_unspeakable(scaffold)
    return scaffold


def write(scaffold: Scaffold, folder: Path) -> list[Path]:
    """Write all files into a folder that is new or empty, and return their paths."""
    if folder.exists() and not folder.is_dir():
        raise ScaffoldError(f"{folder} is a file; name another folder with --out")
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise ScaffoldError(f"folder {folder} is not empty; name another with --out, or empty it")
        written = []
        for place, text in scaffold.files().items():
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            written.append(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ResourceError(f"folder {folder} cannot be written ({reason}); name another with --out") from None
    return written


def _refuse_taken(scaffold: Scaffold, known: Registry) -> None:
    """Refuse names that installed packages have: of the plugin, the distribution or the Python package."""
    for record in known.records:
        if (record.kind, record.name) == (scaffold.kind, scaffold.name):
            raise PluginError(
                f"{record.kind} {record.name!r} is offered by package {record.distribution} already; choose another name"
            )
    for record in known.records:
        same = _underscored(record.distribution.lower()) == scaffold.package
        if same or record.module.split(".")[0] == scaffold.package:
            raise PluginError(
                f"package {scaffold.distribution!r} would take the place of the installed {record.distribution}; "
                "choose another name"
            )


def _refuse_unspeakable(scaffold: Scaffold) -> None:
    """Refuse names that mean something else to Python in the module that is written."""
    values = scaffold.values()
    module, attribute = values["module"], values["attribute"]
    spoken = keyword.iskeyword(module) or keyword.iskeyword(attribute) or hasattr(builtins, attribute)
    if spoken or module == "recipes" or _bound(scaffold.rendered(MODULE)).count(attribute) > 1:
        raise ScaffoldError(
            f"{scaffold.kind} {scaffold.name!r} would be {attribute!r} in module {module!r}, which means something else in "
            f"Python or in the package; choose another name, such as my-{scaffold.name}"
        )


def _bound(source: str) -> list[str]:
    """Return the names that a module imports or defines, each as often as it does."""
    names = []
    for node in ast.parse(source).body:
        imported = node.names if isinstance(node, ast.Import | ast.ImportFrom) else []
        names += [alias.asname or alias.name for alias in imported]
        names += [node.name] if isinstance(node, ast.ClassDef | ast.FunctionDef) else []
    return names


def _template(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _underscored(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name)
