"""The wheel holds everything, and packages installed by pip add plugins without touching anybody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LOSS = '''
"""A loss from elsewhere."""

from ganzoo.api import Loss


class Absolute(Loss):
    """Pulls logits towards one and minus one (an example, 2026)."""

    def discriminator(self, real, fake):
        return (real - 1).abs().mean() + (fake + 1).abs().mean()

    def generator(self, fake, real):
        return (fake - 1).abs().mean()
'''


def package(folder: Path, name: str, entry: str, source: str) -> Path:
    """Write a package with one loss, as its author would."""
    module = name.replace("-", "_")
    (folder / name).mkdir()
    (folder / name / f"{module}.py").write_text(source)
    (folder / name / "pyproject.toml").write_text(
        f'[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "{name}"\nversion = "1.2"\n[tool.setuptools]\npy-modules = ["{module}"]\n'
        f'[project.entry-points."ganzoo.losses"]\n{entry} = "{module}:Absolute"\n'
    )
    return folder / name


def pip(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with two third-party packages, installed by pip: one that works and one that raises at import."""
    folder = tmp_path_factory.mktemp("third-party")
    good = package(folder, "their-losses", "absolute", LOSS)
    bad = package(folder, "broken-losses", "broken", "raise RuntimeError('no licence key')\n")
    pip("install", "--quiet", "--no-deps", "--target", str(folder / "site"), str(good), str(bad))
    return folder / "site"


def ganzoo(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ganzoo", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=site.parent)


TINY = ["--set", "train.samples=32", "--set", "train.batch=8", "--set", "architecture.width=8", "--device", "cpu"]


def test_an_installed_package_adds_a_loss(site, tmp_path):
    listed = json.loads(ganzoo(site, "list", "losses", "--json").stdout)["plugins"]
    assert {"absolute", "broken", "hinge"} <= {row["name"] for row in listed}
    run = tmp_path / "run"
    done = ganzoo(site, "train", "dcgan", "--loss", "absolute", "--run", str(run), *TINY)
    assert done.returncode == 0, done.stderr
    sampled = ganzoo(site, "sample", str(run), "-n", "4", "--json")
    assert json.loads(sampled.stdout)["samples"] == 4


def test_a_checkpoint_says_what_to_install_where_its_plugin_lacks(site, tmp_path):
    run = tmp_path / "run"
    assert ganzoo(site, "train", "dcgan", "--loss", "absolute", "--run", str(run), *TINY).returncode == 0
    without = ganzoo(tmp_path, "sample", str(run))
    assert without.returncode == 4
    assert "pip install 'their-losses==1.2'" in without.stderr


def test_a_package_that_raises_breaks_only_what_uses_it(site, tmp_path):
    fine = ganzoo(site, "train", "dcgan", "--run", str(tmp_path / "fine"), *TINY)
    assert fine.returncode == 0, fine.stderr
    broken = ganzoo(site, "train", "dcgan", "--loss", "broken", "--run", str(tmp_path / "broken"), *TINY)
    assert broken.returncode == 4
    assert "broken-losses" in broken.stderr
    assert "no licence key" in broken.stderr
    assert "Traceback" not in broken.stderr
    assert not (tmp_path / "broken" / "checkpoints").exists()


def test_the_wheel_holds_data_recipes_and_types(tmp_path):
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("ganzoo_toolkit-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = {f"ganzoo_zoo/{path.name}" for path in (ROOT / "zoo_configs").glob("*.toml")}
    embedded = {f"ganzoo_plugins/datasets/embedded/{path.name}" for path in (ROOT / "plugins/datasets/embedded").iterdir()}
    modules = {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, package in {"ganzoo": "ganzoo", "plugins": "ganzoo_plugins", "zoo_configs": "ganzoo_zoo"}.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert (recipes | embedded | modules | {"ganzoo/py.typed"}) - names == set()
    assert wheel.stat().st_size < 12_000_000
