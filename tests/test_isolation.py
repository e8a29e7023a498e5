"""Packages that are broken in every way: nobody else notices, and each is shown with its reason, name and version."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ganzoo.cli.commands import COMMANDS
from ganzoo.registry import GROUPS

SECONDS = 10  # that the doctor gives to each package here; importing torch has to fit in
FUNCTION = "def make():\n    pass\n"
LOSS = '''"""A loss."""
from ganzoo.api import Loss

class Hinge(Loss):
    """Another one (nobody 2026)."""
'''

# name -> source of its module; each offers one dataset, which is its function make()
MODULES = {
    "raises": f"raise RuntimeError('no licence key')\n{FUNCTION}",
    "hangs": f"import time\ntime.sleep(3600)\n{FUNCTION}",
    "prints": f"print('look at me')\n{FUNCTION}",
    "exits": f"import sys\nsys.exit(7)\n{FUNCTION}",
    "needs": f"import no_such_dependency\n{FUNCTION}",
    "newer": f"{FUNCTION}make.api_version = 999\n",
    "dies": f"import os\nos.kill(os.getpid(), 9)\n{FUNCTION}",
    "doubled": FUNCTION,
}
# finding of `ganzoo doctor --plugins` -> what its text says
IMPORTS = {
    "raises": "dataset 'raises' of package raises 1.5 cannot be imported (RuntimeError: no licence key)",
    "hangs": f"the import of dataset 'hangs' of package hangs 1.5 did not finish within {SECONDS} s",
    "exits": "dataset 'exits' of package exits 1.5 cannot be imported (SystemExit: 7)",
    "needs": "cannot be imported (ModuleNotFoundError: No module named 'no_such_dependency')",
    "newer": "dataset 'newer' of package newer 1.5 needs version 999 of ganzoo.api",
    "dies": "the import of dataset 'dies' of package dies 1.5 ended (killed by signal 9",
    "empty-zoo": "zoo 'empty' of package empty-zoo 1.5 cannot be imported",
}
# what metadata alone tells: distribution -> message
LISTED = {
    "malformed-value": "entry 'odd' in group 'ganzoo.datasets' has the malformed value 'not a module!'",
    "malformed-name": "entry 'Bad Name' in group 'ganzoo.datasets' has an unusable name",
    "unreadable": "its entry_points.txt is malformed",
    "doubled": "is installed more than once",
    "clash": "loss 'hinge' is offered by more than one package; write clash:hinge",
    "ganzoo-toolkit": "loss 'hinge' is offered by more than one package; write ganzoo-toolkit:hinge",
    "empty-zoo": "has no folder",
}

ONE_PROCESS = str(Path(__file__).with_name("one_process.py"))
TINY = ("generator_width=8", "discriminator_width=8")
TRAIN = [
    *("train", "sngan", "--run", "run", "--device", "cpu"),
    *(part for option in TINY for part in ("--set", f"architecture.{option}")),
    *(part for text in ("data.size=16", "train.batch=8", "train.samples=32") for part in ("--set", text)),
]
QUIET = [  # what nobody's package may change
    ["--help"],
    *([command, "--help"] for command in COMMANDS),
    ["list", "recipes", "--json"],
    ["list", "games", "--json"],
    ["show", "gan", "--json"],
    ["show", "sngan", "--toml"],
    ["show", "sngan", "--json"],
    ["show", "r1", "--json"],
]


def package(folder: Path, name: str, entry_points: str, version: str = "1.5") -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")


def offers(kind: str, name: str, value: str) -> str:
    return f"[{GROUPS[kind]}]\n{name} = {value}\n"


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    """An import path of two folders that are full of wrong packages."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for name, source in MODULES.items():
        package(one, name, offers("dataset", name, f"wrong_{name}:make"))
        (one / f"wrong_{name}.py").write_text(source, encoding="utf-8")
    package(one, "malformed-value", offers("dataset", "odd", "not a module!"))
    package(one, "malformed-name", offers("dataset", "Bad Name", "wrong_doubled:make"))
    package(one, "clash", offers("loss", "hinge", "wrong_clash:Hinge"))
    (one / "wrong_clash.py").write_text(LOSS, encoding="utf-8")
    package(one, "empty-zoo", offers("zoo", "empty", "no_such_zoo"))
    package(two, "doubled", offers("dataset", "doubled", "wrong_doubled:make"), "0.9")
    package(two, "unreadable", "[ganzoo.datasets\nthis is no section\n")
    return os.pathsep.join(map(str, (one, two)))


def python(path: str, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=variables, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def driven(path: str, cwd: Path, commands: list[list[str]]) -> list[tuple[int, str, str]]:
    cwd.mkdir()
    done = python(path, cwd, ONE_PROCESS, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def without_problems(text: str) -> str:
    """Return what a list says of the plugins; a package may only add to the rest."""
    return json.dumps(json.loads(text)["plugins"]) if '"problems"' in text else text


def checkpoints(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("checkpoints/*.safetensors")}


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> tuple[Path, list[tuple[int, str, str]]]:
    """The folder in which everything was run without the wrong packages, and what was said."""
    folder = tmp_path_factory.mktemp("clean") / "here"
    return folder, driven("", folder, [*QUIET, TRAIN])


def test_wrong_packages_change_nothing_for_those_who_do_not_use_them(path, clean, tmp_path):
    folder, said = clean
    wrong = driven(path, tmp_path / "wrong", [*QUIET, TRAIN])
    for arguments, before, after in zip([*QUIET, TRAIN], said, wrong, strict=True):
        assert (before[0], after[0]) == (0, 0), f"{arguments}: {after[2]}"
        assert without_problems(before[1]) == without_problems(after[1]), arguments
    assert checkpoints(folder / "run") == checkpoints(tmp_path / "wrong" / "run") != {}


def test_the_list_shows_what_metadata_tells(path, tmp_path):
    done = python(path, tmp_path, "-m", "ganzoo", "list", "--json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    datasets = {row["name"]: row for row in listed["plugins"] if row["kind"] == "dataset"}
    assert {"emoji32", *MODULES} <= set(datasets)
    assert all((datasets[name]["distribution"], datasets[name]["version"]) == (name, "1.5") for name in MODULES)
    assert {"clash:hinge", "ganzoo-toolkit:hinge"} <= {row["name"] for row in listed["plugins"]}
    problems = {problem["distribution"]: problem for problem in listed["problems"]}
    assert set(problems) == set(LISTED)
    for name, text in LISTED.items():
        assert text in problems[name]["message"]
        assert name == "ganzoo-toolkit" or problems[name]["version"] == "1.5"
    plain = python(path, tmp_path, "-m", "ganzoo", "list")
    assert plain.returncode == 0
    assert all(f"warning: {name} " in plain.stderr for name in LISTED)


def test_the_doctor_shows_each_with_its_reason(path, tmp_path):
    """Each package is imported in a child process, which has so many seconds; the one that hangs costs only these."""
    done = python(path, tmp_path, "-m", "ganzoo", "doctor", "--plugins", "--seconds", str(SECONDS), "--json")
    assert done.returncode == 1, done.stderr
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    for name, text in IMPORTS.items():
        finding = findings[f"imports of {name} 1.5"]
        assert (finding["status"], text in finding["text"]) == ("problem", True), finding
        assert finding["remedy"]
    for name, text in LISTED.items():
        version = "1.5" if name != "ganzoo-toolkit" else ""
        found = [one for key, one in findings.items() if key.startswith(f"package {name} {version}")]
        assert "is offered by" in text or [one for one in found if text in one["text"]], (name, found)
    assert findings["loss 'hinge'"]["remedy"] == "write clash:hinge or ganzoo-toolkit:hinge"
    for name in ("prints", "doubled", "clash"):
        assert findings[f"imports of {name} 1.5"]["status"] == "ok"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--data", "raises"], "of package raises 1.5 cannot be imported (RuntimeError: no licence key)"),
        (["--data", "exits"], "of package exits 1.5 cannot be imported (SystemExit: 7)"),
        (["--data", "newer"], "of package newer 1.5 needs version 999 of ganzoo.api"),
        (["--loss", "hinge"], "name one of 'clash:hinge' and 'ganzoo-toolkit:hinge'"),
    ],
)
def test_only_its_users_meet_a_wrong_package(wrong_uses, arguments, text):
    code, _, said = wrong_uses[" ".join(arguments)]
    assert code == 4
    assert text in said
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def wrong_uses(path, tmp_path_factory):
    uses = [["--data", "raises"], ["--data", "exits"], ["--data", "newer"], ["--loss", "hinge"]]
    folder = tmp_path_factory.mktemp("uses") / "here"
    results = driven(path, folder, [["train", "gan", "--device", "cpu", *use] for use in uses])
    return {" ".join(use): result for use, result in zip(uses, results, strict=True)}


def test_a_later_rival_does_not_stop_a_run(path, clean, tmp_path):
    """A run that began before its loss's name was taken goes on, and its checkpoint is sampled."""
    shutil.copytree(clean[0], tmp_path / "here", dirs_exist_ok=True)
    shown = ["sample", "run", "-n", "2", "--out", "a.png", "--device", "cpu"]
    done = python(path, tmp_path / "here", ONE_PROCESS, json.dumps([TRAIN, shown]))
    assert done.returncode == 0, done.stderr
    for code, _, said in json.loads(done.stdout):
        assert code == 0, said
        assert "warning" not in said


def test_a_thousand_packages_are_listed(tmp_path):
    site = tmp_path / "site"
    for number in range(1000):
        name = f"package-{number}"
        if number % 10 == 0:
            package(site, name, offers("dataset", f"data-{number}", f"module_{number}:make"))
            (site / f"module_{number}.py").write_text(f'def make():\n    """Number {number}."""\n', encoding="utf-8")
        else:
            package(site, name, "[console_scripts]\nrun = somewhere:main\n")
    done = python(str(site), tmp_path, "-m", "ganzoo", "list", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row["summary"] for row in json.loads(done.stdout)["plugins"] if row["kind"] == "dataset"}
    assert all(rows[f"data-{number}"] == f"Number {number}." for number in range(0, 1000, 10))
    assert json.loads(done.stdout)["problems"] == []
