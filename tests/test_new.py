"""`ganzoo new`: what it writes installs, keeps its promises, trains and samples as it stands; what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from ganzoo import scaffold
from ganzoo.errors import PluginError, ResourceError
from ganzoo.registry import Record, Registry

ROOT = Path(__file__).parents[1]
NAMES = {"loss": "soft-labels", "regularizer": "less-slope", "architecture": "r3size", "game": "far-apart"}
NAMES |= {"dataset": "ganzoo-shapes"}
EMPTY = Registry([])
each_kind = pytest.mark.parametrize("kind", scaffold.KINDS)


def folder_of(kind: str) -> str:
    return scaffold.Scaffold(kind, NAMES[kind]).distribution


def call(*command: str, where: Path, site: Path | None = None, seconds: float = 300) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"PYTHONPATH": str(site)} if site else {})}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=where, timeout=seconds)


def ganzoo(*arguments: str, where: Path, site: Path | None = None) -> str:
    done = call(sys.executable, "-m", "ganzoo", *arguments, where=where, site=site)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def has_setuptools() -> bool:
    """Can packages be built with what is installed? That saves an environment for each of them."""
    try:
        return int(version("setuptools").split(".")[0]) >= 77
    except PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder beside the five packages, into which pip has installed them."""
    folder = tmp_path_factory.mktemp("packages")
    for kind, name in NAMES.items():
        scaffold.write(scaffold.plan(kind, name, EMPTY), folder / folder_of(kind))
    packages = [str(folder / folder_of(kind)) for kind in NAMES]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "site")]
    pip += ["--no-build-isolation"] if has_setuptools() else []
    done = call(*pip, *packages, where=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_their_own_tests_pass(site, tmp_path):
    tests = [str(site.parent / folder_of(kind) / "tests") for kind in NAMES]
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-W", "error"]
    done = call(sys.executable, "-m", "pytest", *options, *tests, where=tmp_path, site=site)
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_are_listed(site, tmp_path):
    listed = json.loads(ganzoo("list", "--json", where=tmp_path, site=site))
    assert listed["problems"] == []
    rows = {(row["kind"], row["name"], row["distribution"]): row["summary"] for row in listed["plugins"]}
    for kind, name in NAMES.items():
        assert len(rows[kind, name, folder_of(kind)]) > 20
        assert len(rows["recipe", f"{name}-tiny", folder_of(kind)]) > 20


@each_kind
def test_its_recipe_trains_and_samples(kind, site, tmp_path):
    trained = json.loads(ganzoo("train", f"{NAMES[kind]}-tiny", "--device", "cpu", "--json", where=tmp_path, site=site))
    assert trained["samples"] == 12_800
    assert trained["seconds"] < 120  # half a minute on an idle machine
    drawn = json.loads(ganzoo("sample", trained["run"], "-n", "4", "--json", where=tmp_path, site=site))
    assert drawn["samples"] == 4


@pytest.mark.slow
@each_kind
def test_ganzoo_check_finds_nothing(kind, site, tmp_path):
    found = json.loads(ganzoo("check", folder_of(kind), "--json", where=tmp_path, site=site))
    assert {result["result"] for result in found["results"]} == {"ok"}


@pytest.mark.slow
@each_kind
def test_the_printed_commands_work(kind, tmp_path):
    """In a fresh environment that sees this one's packages, as they are typed: install, check, train."""
    venv = tmp_path / "venv"
    assert call(sys.executable, "-m", "venv", str(venv), where=tmp_path).returncode == 0
    (purelib,) = venv.glob("lib/python*/site-packages")
    (purelib / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    (venv / "bin" / "ganzoo").write_text(f"#!{venv}/bin/python\nfrom ganzoo.cli.start import main\n\nmain()\n")
    (venv / "bin" / "ganzoo").chmod(0o755)
    path = {"PATH": f"{venv}/bin{os.pathsep}{os.environ['PATH']}"}
    told = json.loads(ganzoo("new", kind, NAMES[kind], "--json", where=tmp_path))
    assert (tmp_path / told["folder"] / "pyproject.toml").is_file()
    for command in told["next"]:
        done = subprocess.run(
            command, shell=True, env={**os.environ, **path}, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, command + done.stdout + done.stderr


@pytest.mark.slow
def test_the_wheel_holds_the_templates(tmp_path):
    done = call(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", ".", str(ROOT), where=tmp_path)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    mine = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ganzoo" / "templates").rglob("*.in")}
    assert mine
    assert mine <= set(zipfile.ZipFile(wheel).namelist())


def test_package_data_takes_every_template():
    templates = ROOT / "ganzoo" / "templates"
    assert set(templates.glob("*/*.in")) == {path for path in templates.rglob("*") if path.is_file()}


# what is written and said ---------------------------------------------------------------------------------------------


@each_kind
def test_every_file_is_filled_in(kind):
    files = scaffold.plan(kind, NAMES[kind], EMPTY).files()
    assert {"pyproject.toml", "README.md", "LICENSE", ".gitignore"} < set(files)
    for place, text in files.items():
        assert text.endswith("\n"), place
        assert "$" not in text.replace("$ ", ""), place
        assert NAMES[kind] in text or place.endswith(("__init__.py", "LICENSE", ".gitignore", ".py")), place
        if place.endswith(".py"):
            compile(text, place, "exec")


@each_kind
def test_only_public_names_are_used(kind):
    module = scaffold.plan(kind, "my-idea", EMPTY).rendered(scaffold.MODULE)
    used = {line.split()[1] for line in module.splitlines() if line.startswith(("import ", "from "))}
    assert {name for name in used if name.startswith("ganzoo")} <= {"ganzoo.api", "ganzoo.game", "ganzoo.layers"}


def test_names_become_python_names():
    loss, data = scaffold.Scaffold("loss", "my-first.loss"), scaffold.Scaffold("dataset", "ganzoo-shapes")
    assert (loss.distribution, loss.package, loss.attribute) == (
        "ganzoo-my-first.loss",
        "ganzoo_my_first_loss",
        "MyFirstLoss",
    )
    assert (data.distribution, data.package, data.attribute) == ("ganzoo-shapes", "ganzoo_shapes", "ganzoo_shapes")


def test_the_command_says_what_it_wrote_and_what_comes_next(tmp_path):
    lines = ganzoo("new", "loss", "my-idea", where=tmp_path).splitlines()
    written, following = lines[: lines.index("")], lines[lines.index("next:") + 1 :]
    assert {tmp_path / line for line in written} == {path for path in tmp_path.rglob("*") if path.is_file()}
    assert "ganzoo-my-idea/ganzoo_my_idea/my_idea.py" in written
    commands = ["pip install -e ganzoo-my-idea", "ganzoo check ganzoo-my-idea", "ganzoo train my-idea-tiny"]
    assert [line.strip() for line in following] == commands


def test_it_does_not_import_torch(tmp_path):
    code = (
        "import sys; from ganzoo.cli.commands import cli;"
        "cli.main(['new', 'game', 'my-idea', '--json'], standalone_mode=False);"
        "sys.exit('torch' in sys.modules)"
    )
    done = call(sys.executable, "-c", code, where=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["recipe"] == "my-idea-tiny"
    assert len(told["files"]) == len(scaffold.FILES)


# what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "My-idea", "1st", "my idea", "../up", "a--b", "-a", "a-", "ä", "a" * 65, "a\n"])
def test_unusable_names_are_refused(name):
    with pytest.raises(scaffold.ScaffoldError, match="is an unusable name"):
        scaffold.plan("loss", name, EMPTY)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("loss", ["class", "none", "loss", "tensor", "recipes"]),
        ("dataset", ["torch", "range"]),
        ("architecture", ["upward"]),
        ("regularizer", ["duel"]),
        ("game", ["scene"]),
    ],
)
def test_names_that_python_needs_are_refused(kind, names):
    for name in names:
        with pytest.raises(scaffold.ScaffoldError, match=f"such as my-{name}$"):
            scaffold.plan(kind, name, EMPTY)
        assert scaffold.plan(kind, f"my-{name}", EMPTY)


def test_names_that_others_have_are_refused():
    known = Registry([Record("loss", "theirs", "their_losses.one", "One", "Their.Losses", "1.0")])
    with pytest.raises(PluginError, match=r"loss 'theirs' is offered by package Their\.Losses already"):
        scaffold.plan("loss", "theirs", known)
    assert scaffold.plan("game", "theirs", known)
    mine = Registry([Record("loss", "one", "ganzoo_one.one", "One", "ganzoo-one", "1.0")])
    with pytest.raises(PluginError, match="would take the place of the installed ganzoo-one"):
        scaffold.plan("game", "one", mine)


@pytest.mark.parametrize("name", ["zoo", "plugins", "toolkit"])
def test_ganzoos_own_packages_are_not_replaced(name):
    own = [
        Record("zoo", "ganzoo", "ganzoo_zoo", "", "ganzoo-toolkit", "1.0"),
        Record("loss", "one", "ganzoo_plugins.one", "One", "ganzoo-toolkit", "1.0"),
    ]
    with pytest.raises(PluginError, match="would take the place of the installed ganzoo-toolkit"):
        scaffold.plan("loss", name, Registry(own))


def test_folders_with_something_in_them_are_refused(tmp_path):
    planned = scaffold.plan("loss", "my-idea", EMPTY)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(scaffold.ScaffoldError, match="is not empty"):
        scaffold.write(planned, tmp_path / "full")
    with pytest.raises(scaffold.ScaffoldError, match="is a file"):
        scaffold.write(planned, tmp_path / "full" / "file")
    with pytest.raises(ResourceError, match="cannot be written"):
        scaffold.write(planned, tmp_path / "full" / "file" / "below")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]
    (tmp_path / "empty").mkdir()
    assert scaffold.write(planned, tmp_path / "empty")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["loss", "hinge"], 4, "error: loss 'hinge' is offered by package ganzoo-toolkit already; choose another name"),
        (["loss", "Hinge"], 2, "error: loss 'Hinge' is an unusable name; use a letter"),
        (["reader", "tape"], 2, "'reader' is not one of 'loss'"),
    ],
)
def test_a_refusal_is_one_sentence_and_a_code(arguments, code, says, tmp_path):
    done = call(sys.executable, "-m", "ganzoo", "new", *arguments, where=tmp_path)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
