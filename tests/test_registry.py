"""Fake packages on the import path: what the registry finds, what it refuses, and whom it blames."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from ganzoo import api
from ganzoo.errors import PluginError
from ganzoo.registry import GROUPS, Record, Registry, registry

ROOT = Path(__file__).parent.parent
LOSS = '''"""A module."""
from ganzoo.api import Loss

class Plain(Loss):
    """Wants nothing at all.

    More about that.
    """
    def __init__(self, *, margin: float = 1.0) -> None:
        super().__init__()
        if margin < 0:
            raise ValueError("margin must not be negative")
        self.margin = margin
'''
numbers = itertools.count()


def package(folder: Path, name: str, entry_points: str | bytes, version: str = "1.0", **modules: str) -> None:
    """Install a fake distribution into a folder, as pip would leave it behind."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: not-this\n")
    data = entry_points if isinstance(entry_points, bytes) else entry_points.encode()
    (info / "entry_points.txt").write_bytes(data)
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)


def group(kind: str, **entries: str) -> str:
    """Return one section of an entry_points.txt; underscores of names become dashes."""
    return f"[{GROUPS[kind]}]\n" + "".join(f"{name.replace('_', '-')} = {value}\n" for name, value in entries.items())


@pytest.fixture
def module() -> str:
    """Return a module name that no other test has imported."""
    return f"ganzoo_fake_{next(numbers)}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    monkeypatch.undo()
    registry(refresh=True)


def fresh() -> Registry:
    return registry(refresh=True)


def record_of(kind: str, name: str, dist: str, module: str = "m", attribute: str = "a") -> Record:
    return Record(kind, name, module, attribute, dist, "1.0")


def test_a_third_partys_plugin_is_found_loaded_and_built(place: Path, module: str) -> None:
    package(place, "Some-Package", group("loss", plain=f"{module}:Plain"), "2.1", **{module: LOSS})
    known = fresh()
    assert known.problems == ()
    record = known.find("loss", "plain")
    assert record == Record("loss", "plain", module, "Plain", "Some-Package", "2.1")
    assert record.qualified == "Some-Package:plain"
    assert known.find("loss", "some_package:plain") is record
    assert known.summary(record) == "Wants nothing at all."
    assert issubclass(known.load("loss", "plain"), api.Loss)
    assert known.build("loss", "plain", {"margin": 2}).margin == 2.0
    with pytest.raises(PluginError, match=r"loss 'plain' has no option 'margn'; did you mean 'margin'\?"):
        known.build("loss", "plain", {"margn": 2})
    with pytest.raises(PluginError, match=r"loss 'plain' refuses its options \(ValueError: margin must not be negative\)"):
        known.build("loss", "plain", {"margin": -1})


def test_provenance_names_the_source_before_and_after_import(place: Path, module: str) -> None:
    package(place, "p", group("loss", plain=f"{module}:Plain"), **{module: LOSS})
    known = fresh()
    record = known.find("loss", "plain")
    expected = {
        "kind": "loss",
        "name": "plain",
        "distribution": "p",
        "version": "1.0",
        "module": module,
        "attribute": "Plain",
    }
    expected["sha256"] = hashlib.sha256(LOSS.encode()).hexdigest()
    assert known.provenance(record) == expected
    known.load("loss", "plain")
    assert known.provenance(record) == expected
    assert known.provenance(record_of("loss", "gone", "p", "no_such_module"))["sha256"] == ""


def test_provenance_follows_a_re_export(place: Path, module: str) -> None:
    package(
        place,
        "p",
        group("loss", plain=f"{module}_front:Plain"),
        **{module: LOSS, f"{module}_front": f"from {module} import *"},
    )
    known = fresh()
    known.load("loss", "plain")
    assert known.provenance(known.find("loss", "plain"))["sha256"] == hashlib.sha256(LOSS.encode()).hexdigest()


def test_scan_is_done_once(place: Path, module: str) -> None:
    before = fresh()
    package(place, "p", group("loss", plain=f"{module}:Plain"))
    assert registry() is before
    assert registry(refresh=True).find("loss", "plain")


def test_a_name_offered_twice_is_ambiguous_only_when_used(place: Path, module: str) -> None:
    package(place, "b-b", group("loss", plain=f"{module}:Plain", other=f"{module}:Plain"), **{module: LOSS})
    package(place, "a.a", group("loss", plain=f"{module}:Plain"))
    known = fresh()
    assert known.ambiguous("loss") == {"plain"}
    assert known.ambiguous("game") == set()
    with pytest.raises(
        PluginError, match=r"'plain' is offered by more than one package; name one of 'a\.a:plain' and 'b-b:plain'"
    ):
        known.find("loss", "plain")
    assert known.load("loss", "a.a:plain") is known.load("loss", "B_B:plain")
    assert known.find("loss", "other").distribution == "b-b"


def test_unknown_names_get_a_suggestion() -> None:
    known = Registry([record_of("loss", "plain-loss", "p"), record_of("architecture", "tower", "p")])
    with pytest.raises(PluginError, match=r"there is no loss 'Plain-los'; did you mean 'plain-loss'\?"):
        known.find("loss", "Plain-los")
    with pytest.raises(PluginError, match=r"^'plain-loss' is a loss, not an architecture$"):
        known.find("architecture", "plain-loss")
    with pytest.raises(PluginError, match=r"there is no loss 'zzzz'; choose another \(see: ganzoo list\)"):
        known.find("loss", "zzzz")
    with pytest.raises(PluginError, match=r"there is no loss 'q:plain-loss'; did you mean 'p:plain-loss'\?"):
        known.find("loss", "q:plain-loss")
    with pytest.raises(PluginError, match=r"there is no kind of plugin 'losses'; did you mean 'loss'\?"):
        known.find("losses", "plain")


BROKEN = {
    "raise RuntimeError('out of order\\nsecond line')": r"\(RuntimeError: out of order\)",
    "import sys; sys.exit(3)": r"\(SystemExit: 3\)",
    "import no_such_dependency_at_all": r"\(ModuleNotFoundError: No module named 'no_such_dependency_at_all'\)",
    "def broken(:": r"\(SyntaxError: ",
    "from ganzoo.errors import PluginError\nraise PluginError('x')": r"\(PluginError: x\)",
    "value = 1": r"\(LookupError: module \w+ has no 'Plain'\)",
    "def __getattr__(name): raise OSError('lazy')": r"\(OSError: lazy\)",
}


@pytest.mark.parametrize(("source", "reason"), BROKEN.items())
def test_a_broken_plugin_is_blamed_alone(place: Path, module: str, source: str, reason: str) -> None:
    package(place, "broken", group("loss", bad=f"{module}:Plain"), "3.2", **{module: source})
    package(place, "fine", group("loss", good=f"{module}_fine:Plain"), **{f"{module}_fine": LOSS})
    known = fresh()
    assert known.problems == ()
    assert known.load("loss", "good")
    known.summary(known.find("loss", "bad"))
    remedy = "repair the package with: pip install --upgrade --force-reinstall broken"
    with pytest.raises(
        PluginError, match=rf"loss 'bad' of package broken 3\.2 cannot be imported {reason}.*; {remedy}$"
    ) as caught:
        known.load("loss", "bad")
    assert "second line" not in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "MemoryError"])
def test_what_is_no_fault_of_the_plugin_is_passed_on(place: Path, module: str, error: str) -> None:
    package(place, "p", group("loss", bad=f"{module}:Plain"), **{module: f"raise {error}"})
    with pytest.raises((KeyboardInterrupt, MemoryError)):
        fresh().load("loss", "bad")


WRONG = [
    ("loss", "Plain = dict", r"is no subclass of ganzoo\.api\.Loss"),
    ("game", "from ganzoo.api import Loss as Plain", r"is no subclass of ganzoo\.api\.Game"),
    ("regularizer", "Plain = 3", r"is no subclass of ganzoo\.api\.Regularizer"),
    ("architecture", "def Plain(): pass", r"is no subclass of ganzoo\.api\.Architecture"),
    ("dataset", "Plain = 3", r"cannot be called"),
    ("reader", "Plain = 'text'", r"cannot be called"),
    (
        "dataset",
        "class Plain: api_version = 10**6",
        r"needs version 1000000 of ganzoo\.api .* pip install --upgrade ganzoo",
    ),
    ("dataset", "class Plain: api_version = 'two'", r"has the api_version 'two'; it must be a whole number"),
]


@pytest.mark.parametrize(("kind", "source", "reason"), WRONG)
def test_what_does_not_fit_its_kind_is_refused(place: Path, module: str, kind: str, source: str, reason: str) -> None:
    package(place, "p", group(kind, bad=f"{module}:Plain"), **{module: source})
    with pytest.raises(PluginError, match=rf"^{kind} 'bad' of package p 1\.0 {reason}"):
        fresh().load(kind, "bad")


def test_an_api_as_old_as_ours_is_fine(place: Path, module: str) -> None:
    package(
        place, "p", group("dataset", good=f"{module}:Plain"), **{module: f"class Plain: api_version = {api.API_VERSION}"}
    )
    assert fresh().load("dataset", "good")


def test_a_zoo_is_a_folder_found_without_import(place: Path, module: str) -> None:
    (place / module / "inner").mkdir(parents=True)
    (place / module / "__init__.py").write_text("raise RuntimeError('imported')")
    (place / module / "inner" / "__init__.py").write_text('"""Recipes of ours."""')
    package(place, "p", group("zoo", ours=f"{module}.inner", file=f"{module}_file"), **{f"{module}_file": ""})
    known = fresh()
    record = known.find("zoo", "ours")
    assert known.zoo_folder(record) == place / module / "inner"
    assert known.summary(record) == "Recipes of ours."
    with pytest.raises(PluginError, match=r"zoo 'file' of package p 1\.0 has no folder"):
        known.zoo_folder(known.find("zoo", "file"))
    with pytest.raises(PluginError, match="it must be a package"):
        known.load("zoo", "file")
    (place / module / "__init__.py").write_text("")
    assert known.load("zoo", "ours").__name__ == f"{module}.inner"


MALFORMED = {
    "section twice": "[x]\na = b:c\n[x]\nd = e:f\n",
    "key twice": "[x]\na = b:c\na = e:f\n",
    "no section": "a = b:c\n",
    "byte order mark": "\ufeff[x]\na = b:c\n",
    "not UTF-8": b"[x]\na = b:\xff\xfe\n",
    "no value": "[x]\na\n",
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_package_hides_no_other(place: Path, module: str, text: str | bytes) -> None:
    package(place, "unrelated", text, "7.0")
    package(place, "fine", group("loss", good=f"{module}:Plain"), **{module: LOSS})
    known = fresh()
    assert known.load("loss", "good")
    assert [(problem.distribution, problem.version) for problem in known.problems] == [("unrelated", "7.0")]
    assert "entry_points.txt is malformed" in known.problems[0].message
    assert known.of("zoo")  # other folders of the path are untouched


def test_interpolation_is_not_ours(place: Path, module: str) -> None:
    package(place, "unrelated", "[console_scripts]\na = %(x)s\n")
    package(place, "bad", group("loss", bad="%(x)s", good=f"{module}:Plain"))
    known = fresh()
    assert known.find("loss", "good")
    assert [problem.distribution for problem in known.problems] == ["bad"]
    assert "has the malformed value '%(x)s'; it must be module:attribute" in known.problems[0].message


def test_default_section_leaks_into_no_group(place: Path, module: str) -> None:
    package(place, "p", f"[DEFAULT]\nleak = {module}:Plain\nplain = x:y\n" + group("loss", plain=f"{module}:Plain"))
    known = fresh()
    assert [record.name for record in known.records if record.distribution == "p"] == ["plain"]
    assert known.find("loss", "plain").module == module


BAD_ENTRIES = {
    "Upper": "m:a",
    "-dash": "m:a",
    "two words": "m:a",
    "../up": "m:a",
    "x" * 65: "m:a",
    "\N{SNOWMAN}": "m:a",
    "spaced": "m : a",
    "comment": "m:a # why",
    "no-attribute": "m",
}


@pytest.mark.parametrize(("name", "value"), BAD_ENTRIES.items())
def test_a_bad_entry_is_a_problem_and_costs_only_itself(place: Path, name: str, value: str) -> None:
    package(place, "p", f"[{GROUPS['loss']}]\n{name} = {value}\nfine = m:a\n")
    known = fresh()
    assert [record.name for record in known.records if record.distribution == "p"] == ["fine"]
    assert [problem.distribution for problem in known.problems] == ["p"]
    assert repr(name) in known.problems[0].message


def test_a_zoo_that_names_an_attribute_is_a_problem(place: Path) -> None:
    package(place, "p", group("zoo", bad="m:a"))
    assert "it must be the name of a package" in fresh().problems[0].message


def test_one_package_in_two_folders_is_one(place: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package(place, "the-package", group("loss", plain=f"{module}:Old"), "1.0")
    first = place.parent / "first"
    package(first, "The.Package", group("loss", plain=f"{module}:New"), "1.5")
    monkeypatch.syspath_prepend(first)
    assert fresh().find("loss", "plain").attribute == "New"


def test_what_an_upgrade_left_behind_does_not_count(place: Path, module: str) -> None:
    for version in ("1.9", "1.10", "1.2"):
        package(place, "p", group("loss", plain=f"{module}:V{version.replace('.', '_')}"), version)
    assert fresh().find("loss", "plain").version == "1.10"


def test_a_package_without_metadata_is_known_by_its_folder(place: Path) -> None:
    (place / "bare-3.0.dist-info").mkdir()
    (place / "bare-3.0.dist-info" / "entry_points.txt").write_text(group("loss", plain="m:a"))
    (place / "older.egg-info").mkdir()
    (place / "older.egg-info" / "entry_points.txt").write_text(group("loss", other="m:a"))
    known = fresh()
    assert known.find("loss", "plain").qualified == "bare:plain"
    assert known.find("loss", "other").qualified == "older:other"


def test_archives_and_odd_things_on_the_path(place: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = place.parent / "good.zip", place.parent / "bad.zip"
    with zipfile.ZipFile(good, "w") as archive:
        archive.writestr("z-1.0.dist-info/METADATA", "Name: z\nVersion: 1.0\n")
        archive.writestr("z-1.0.dist-info/entry_points.txt", group("loss", zipped=f"{module}:Plain"))
        archive.writestr(f"{module}.py", LOSS)
    data = bytearray(good.read_bytes())
    data[data.index(b"PK\x01\x02")] = 0  # the directory, so that it still looks like an archive
    bad.write_bytes(data)
    (place / "a-file.txt").write_text("no archive")
    odd = [str(good), str(bad), str(place / "a-file.txt"), place, b"bytes", str(place / "missing"), 3]
    monkeypatch.setattr(sys, "path", [*odd, *sys.path])
    known = fresh()
    assert known.load("loss", "zipped").__name__ == "Plain"
    assert known.summary(known.find("loss", "zipped")) == ""
    assert {problem.distribution for problem in known.problems} == {"bad.zip", "a-file.txt"}
    assert known.of("zoo")


def test_the_current_folder_is_ignored(tmp_path: Path) -> None:
    package(tmp_path, "evil", group("loss", evil="evil:Evil"), evil="raise SystemExit('imported')")
    code = """
from ganzoo.registry import registry
print([record.name for record in registry().records if record.name == "evil"], len(registry().records))
"""
    for extra in ({}, {"PYTHONPATH": str(tmp_path)}, {"PYTHONPATH": "."}):
        output = run(code, tmp_path, **extra)
        assert output.startswith("[] ")
        assert not output.startswith("[] 0")


def test_listing_imports_neither_torch_nor_a_plugin(tmp_path: Path) -> None:
    package(
        tmp_path / "site",
        "p",
        group("loss", trap="trap:Trap"),
        trap="class Trap:\n    '''Shut.'''\nraise SystemExit('imported')",
    )
    code = """
import sys
from ganzoo.registry import registry
known = registry()
summaries = {record.name: known.summary(record) for record in known.records}
folders = [known.zoo_folder(record) for record in known.of("zoo")]
assert summaries["trap"] == "Shut." and folders
heavy = [name for name in sys.modules if name.partition(".")[0] in ("torch", "trap", "ganzoo_plugins", "ganzoo_zoo")]
print(heavy)
"""
    assert run(code, tmp_path, PYTHONPATH=str(tmp_path / "site")) == "[]"


def run(code: str, folder: Path, **extra: str) -> str:
    environment = {**os.environ, **extra}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_many_packages_in_a_fixed_order(place: Path) -> None:
    for number in range(300):
        package(
            place, f"many-{number}", group("loss", shared="m:a") if number % 100 == 0 else "[console_scripts]\na = b:c\n"
        )
    known = fresh()
    assert [record.distribution for record in known.of("loss") if record.name == "shared"] == [
        "many-0",
        "many-100",
        "many-200",
    ]
    assert list(known.records) == sorted(known.records, key=lambda record: (record.kind, record.name, record.distribution))


def test_summary_of_what_cannot_be_read_is_empty(place: Path, module: str) -> None:
    sources = {
        f"{module}_a": "class Plain(:",
        f"{module}_b": "class Plain: pass",
        f"{module}_c": "Plain = 3",
        f"{module}_d": "\0",
    }
    package(place, "p", "", **sources)
    known = fresh()
    for name in (*sources, "no_such_module", "sys", f"{module}_a.inner"):
        assert known.summary(record_of("loss", "x", "p", name, "Plain")) == ""
    (place / f"{module}_e.py").write_text('class Outer:\n    def make():\n        r"""Says \x1b[31mhello \\d."""\n')
    assert known.summary(record_of("loss", "x", "p", f"{module}_e", "Outer.make")) == "Says [31mhello \\d."


def test_the_built_ins_are_found_as_anybodys() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = fresh()
    assert known.problems == ()
    assert set(GROUPS.values()) == {name for name in declared["entry-points"] if name.startswith("ganzoo.")}
    for kind, name in GROUPS.items():
        found = {record.name: record for record in known.of(kind) if record.distribution == declared["name"]}
        values = {record.name: ":".join(filter(None, (record.module, record.attribute))) for record in found.values()}
        assert values == declared["entry-points"][name]
        assert all(record.version == declared["version"] for record in found.values())


@pytest.mark.parametrize(
    "record", [record for record in registry().records if record.kind != "zoo"], ids=lambda r: f"{r.kind}-{r.name}"
)
def test_every_installed_plugin_loads_and_has_a_summary(record: Record) -> None:
    assert registry().load(record.kind, record.qualified)
    assert registry().summary(record)
    assert len(registry().provenance(record)["sha256"]) == 64
