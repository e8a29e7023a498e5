"""The example package of tests/third_party, installed by pip as an outsider's: listed, trained, killed, sampled."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ganzoo.registry import GROUPS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "tests" / "third_party" / "ganzoo-example"
PROJECT = tomllib.loads((SOURCE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RECIPES = sorted(path.stem for path in (SOURCE / "ganzoo_example" / "recipes").glob("*.toml"))
TINY = {
    "discs-recovery": ("architecture.width=8",),
    "garments-calibrated": ("architecture.width=4", "data.size=16"),
}
ONE_PROCESS = str(Path(__file__).with_name("one_process.py"))
BUDGET = ("train.samples=640", "train.batch=8", "train.checkpoint=64", "train.precision=fp32")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder in which pip has installed the example; built from a copy, because pip builds in the source's folder."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(SOURCE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "site")]
    done = subprocess.run([*command, str(folder / "source")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def environment(site: Path | None) -> dict[str, str]:
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    variables.pop("PYTHONPATH", None)
    return variables | ({"PYTHONPATH": str(site)} if site else {})


def python(site: Path | None, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment(site), cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def training(name: str, run: Path) -> list[str]:
    settings = [part for text in (*BUDGET, *TINY[name]) for part in ("--set", text)]
    return ["train", name, "--run", str(run), "--device", "cpu", *settings]


def sampling(name: str, run: Path) -> list[str]:
    return ["sample", str(run), "-n", "4", "--out", f"{name}.png", "--device", "cpu", "--json"]


def last_checkpoint(run: Path) -> Path:
    return max((run / "checkpoints").glob("*.safetensors"))


@pytest.fixture(scope="module")
def whole(site, tmp_path_factory) -> Path:
    """A folder with the uninterrupted run of each recipe, and samples of each, all made by one process."""
    folder = tmp_path_factory.mktemp("whole")
    commands = [make(name, folder / name) for name in RECIPES for make in (training, sampling)]
    done = python(site, folder, ONE_PROCESS, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    for code, _, said in json.loads(done.stdout):
        assert (code, "warning" in said) == (0, False), said
    return folder


def test_the_example_is_written_with_public_names_alone():
    sources = list((SOURCE / "ganzoo_example").glob("*.py"))
    assert len(sources) > len(PROJECT["entry-points"]) - 1
    for path in sources:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "import" in line and "ganzoo" in line]
        assert all(line.startswith(("from ganzoo.api ", "from ganzoo.game ", "from ganzoo.layers.")) for line in lines), (
            path
        )


def test_the_list_says_who_brings_what(site, tmp_path):
    done = python(site, tmp_path, "-m", "ganzoo", "list", "--json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert listed["problems"] == []
    theirs = [row for row in listed["plugins"] if row["distribution"] == "ganzoo-example"]
    kinds = {group: kind for kind, group in GROUPS.items() if kind != "zoo"}
    points = PROJECT["entry-points"].items()
    expected = {(kinds[group], name) for group, names in points if group in kinds for name in names}
    assert {(row["kind"], row["name"]) for row in theirs} == expected | {("recipe", name) for name in RECIPES}
    assert all(row["summary"] and row["version"] == PROJECT["version"] for row in theirs)


def test_its_own_tests_pass(site, tmp_path):
    """They are the contract checks of ganzoo.testing, on every plugin of the package."""
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    done = python(site, tmp_path, "-m", "pytest", *options, str(site.parent / "source" / "tests"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", RECIPES)
def test_a_killed_training_ends_in_the_same_bytes(site, whole, name, tmp_path):
    run = tmp_path / "run"
    command = ["-m", "ganzoo", *training(name, run)]
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, *command], env=environment(site), cwd=tmp_path, stdout=nowhere, stderr=nowhere
    )
    try:
        deadline = time.monotonic() + 120
        while not list(run.glob("checkpoints/0*.safetensors")) and process.poll() is None:
            assert time.monotonic() < deadline, "no checkpoint in two minutes"
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    expected = last_checkpoint(whole / name)
    assert process.returncode == -signal.SIGKILL, "the run was over before it could be killed"
    assert last_checkpoint(run).name < expected.name
    done = python(site, tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert "going on at" in done.stderr
    assert "warning" not in done.stderr
    assert last_checkpoint(run).name == expected.name
    assert last_checkpoint(run).read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("name", RECIPES)
def test_samples_are_drawn_and_the_run_says_which_packages_it_used(whole, name):
    assert (whole / f"{name}.png").stat().st_size > 100
    used = json.loads((whole / name / "run.json").read_text(encoding="utf-8"))["plugins"]
    assert {plugin["version"] for plugin in used if plugin["distribution"] == "ganzoo-example"} == {PROJECT["version"]}
    foreign = {plugin["distribution"] for plugin in used} - {"ganzoo-example"}
    assert foreign == ({"ganzoo-toolkit"} if name == "garments-calibrated" else set())


def test_sampling_without_the_package_says_what_to_install(whole, tmp_path):
    without = python(None, tmp_path, "-m", "ganzoo", "sample", str(whole / RECIPES[0]))
    assert without.returncode == 4
    assert f"run: pip install 'ganzoo-example=={PROJECT['version']}'" in without.stderr


@pytest.mark.parametrize("name", RECIPES)
def test_the_regularizer_s_parameter_and_buffer_have_moved(whole, name):
    state = load_file(last_checkpoint(whole / name))
    assert all(abs(state[f"regularizer/calibration/D/{key}"].item()) > 1e-4 for key in ("log_scale", "centre"))


def test_a_local_build_of_the_documentation_lists_it(site, tmp_path):
    tool = str(ROOT / "tools" / "generate_docs.py")
    done = python(site, tmp_path, tool, "--also", "ganzoo-example", "--to", str(tmp_path / "docs"))
    assert done.returncode == 0, done.stderr
    plugins = (tmp_path / "docs" / "plugins.md").read_text(encoding="utf-8")
    zoo = (tmp_path / "docs" / "zoo.md").read_text(encoding="utf-8")
    for heading in ("architecture: shallow", "loss: huber", "regularizer: calibration", "game: recovery", "dataset: discs"):
        assert f"\n### {heading}\n" in plugins
    assert "`ganzoo-example`" in plugins
    assert all(f"\n## {name}\n" in zoo for name in RECIPES)
    assert str(site) not in plugins + zoo


def test_its_recipes_are_benchmarked_with_the_rest_of_the_zoo(site, whole, tmp_path):
    """Without a target `ganzoo benchmark` scores every recipe of every package that has a checkpoint."""
    protocol = tmp_path / "tiny.toml"
    protocol.write_text(
        'version = 1\nsamples = 100\nseeds = [0]\nextractors = ["pca64"]\nmetrics = ["frechet", "density-coverage"]\n'
        "[options.frechet]\ngroups = 5\n",
        encoding="utf-8",
    )
    command = ("-m", "ganzoo", "benchmark", "--protocol", str(protocol), "--runs", str(whole), "--workers", "1")
    done = python(site, tmp_path, *command, "--no-baselines", "--out", str(tmp_path / "board"), "--json-stdout")
    assert done.returncode == 0, done.stderr
    entries = [entry for board in json.loads(done.stdout) for entry in board["entries"]]
    assert sorted(entry["model"]["name"] for entry in entries) == RECIPES
    for entry in entries:
        assert entry["status"] == "scored", entry["reason"]
        assert "ganzoo-example" in {plugin["distribution"] for plugin in entry["model"]["plugins"]}
    files = sorted((tmp_path / "board").rglob("*.entry.json"))
    assert len(files) == len(RECIPES)
    linted = python(site, tmp_path, "-m", "ganzoo", "leaderboard", "lint", str(tmp_path / "board"))
    assert linted.returncode == 0, linted.stdout
    verified = python(None, tmp_path, "-m", "ganzoo", "leaderboard", "lint", str(tmp_path / "board"))
    assert "is not installed here" in verified.stderr
