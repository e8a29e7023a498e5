"""Where a run's plugins come from is on record; what changed since is said; and a name alone never loads code."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import ganzoo
from ganzoo import checkpoint
from ganzoo.errors import CheckpointError, GanzooError, PluginError, RunFailed
from ganzoo.jobs import Silent, run_recipe
from ganzoo.registry import GROUPS, registry
from ganzoo.runs import RunFolder
from ganzoo.sampling import changed_plugins, load
from ganzoo.zoo import Request, resolve

ROOT = Path(__file__).parents[1]
LOSS = '''"""A loss from elsewhere."""
from ganzoo.api import Loss

class Steady(Loss):
    """Pulls logits apart with a steady force (nobody 2026)."""

    def discriminator(self, real, fake):
        return (fake - real).mean()

    def generator(self, fake, real):
        return -fake.mean()

class Endless(Steady):
    """Is not finite (nobody 2026)."""

    def discriminator(self, real, fake):
        return (fake - real).mean() * float("inf")
'''
LEASH = '''"""A regularizer from elsewhere."""
from ganzoo.api import Regularizer

class Leash(Regularizer):
    """Keeps logits near zero (nobody 2026)."""

    def penalty(self, duel):
        return duel.output("real").logits.square().mean()
'''
RECIPE = """\
[data]
name = "{dataset}"
size = 16
[architecture]
name = "{architecture}"
width = 4
[loss]
name = "{loss}"
[[regularizer]]
name = "{regularizer}"
[game]
name = "{game}"
[latent]
size = 8
[optimizer]
name = "adam"
lr = 1e-3
[train]
batch = 8
samples = 16
precision = "fp32"
"""
PARTS = {
    "dataset": "fashion-mnist-10k",
    "architecture": "dcgan",
    "loss": "steady",
    "regularizer": "leash",
    "game": "adversarial",
}
# what looks like the way to code; the canary writes a file when it is imported
NAMES = [
    *(
        "os:system",
        "canary:Canary",
        "canary",
        "canary.Canary",
        "canary.py",
        "their_parts:canary",
        "their-parts:canary:Canary",
    ),
    *("ganzoo_plugins.losses.hinge:Hinge", "../canary", "./canary.py", "/canary.py", "..", "", "file:canary"),
]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder with an installed package of a loss and a regularizer, and a module that nobody has declared."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "prov_loss.py").write_text(LOSS, encoding="utf-8")
    (folder / "prov_leash.py").write_text(LEASH, encoding="utf-8")
    (folder / "canary.py").write_text(f"open({str(tmp_path / 'sang')!r}, 'w').close()\nCanary = str\n", encoding="utf-8")
    install(folder, "1.2")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)
    registry(refresh=True)
    yield folder
    monkeypatch.undo()
    registry(refresh=True)
    for name in ("prov_loss", "prov_leash", "canary"):
        sys.modules.pop(name, None)


def install(folder: Path, version: str) -> None:
    for old in folder.glob("*.dist-info"):
        old.rename(folder / f"their_parts-{version}.dist-info")
    info = folder / f"their_parts-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Name: their-parts\nVersion: {version}\n", encoding="utf-8")
    losses = "steady = prov_loss:Steady\nendless = prov_loss:Endless\n"
    text = f"[{GROUPS['loss']}]\n{losses}[{GROUPS['regularizer']}]\nleash = prov_leash:Leash\n"
    (info / "entry_points.txt").write_text(text, encoding="utf-8")


def recipe_of(**parts: str):
    Path("it.toml").write_text(RECIPE.format(**{**PARTS, **parts}), encoding="utf-8")
    return resolve("it.toml", Request(), registry())


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def trained(**parts: str) -> list[str]:
    """Train the recipe in the folder `run` and return what was noted."""
    notes = Notes()
    run_recipe(recipe_of(**parts), registry(), Path("run"), "cpu", reporter=notes)
    return notes.said


def newest() -> Path:
    return RunFolder("run").checkpoints()[0]


def plugins_of(path: Path) -> list[dict[str, str]]:
    return checkpoint.read_header(path)["provenance"]["plugins"]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_checkpoint_and_run_say_where_every_plugin_comes_from(site):
    trained()
    found = {(plugin["kind"], plugin["name"]): plugin for plugin in plugins_of(newest())}
    assert set(found) == set(PARTS.items())
    theirs = {"distribution": "their-parts", "version": "1.2"}
    ours = {"distribution": "ganzoo-toolkit", "version": ganzoo.__version__}
    plugins = ROOT / "plugins"
    expected = {
        "loss": {**theirs, "sha256": sha256(site / "prov_loss.py")},
        "regularizer": {**theirs, "sha256": sha256(site / "prov_leash.py")},
        "architecture": {**ours, "sha256": sha256(plugins / "architectures" / "dcgan.py")},
        "game": {**ours, "sha256": sha256(plugins / "games" / "adversarial.py")},
        "dataset": {**ours, "sha256": sha256(plugins / "datasets" / "fashion_mnist_10k.py")},
    }
    for kind, fields in expected.items():
        plugin = found[kind, PARTS[kind]]
        assert {key: plugin[key] for key in fields} == fields
    state = RunFolder("run").state()
    assert state["state"] == "finished"
    assert state["plugins"] == plugins_of(newest())
    trained()  # finished already
    assert RunFolder("run").state()["plugins"] == plugins_of(newest())


def test_a_run_that_fails_keeps_the_record(site):
    with pytest.raises(RunFailed):
        trained(loss="endless")
    state = RunFolder("run").state()
    assert state["state"] == "failed"
    assert {plugin["name"] for plugin in state["plugins"]} == {*PARTS.values(), "endless"} - {"steady"}


def test_nothing_is_said_where_nothing_changed(site):
    trained()
    assert [note for note in trained() if "warning" in note] == []
    assert load("run", "cpu").notes == []


def test_a_changed_source_is_said_at_resume_and_when_sampling(site):
    trained()
    (site / "prov_leash.py").write_text(LEASH + "# mended\n", encoding="utf-8")
    said = "regularizer 'leash': the source in their-parts 1.2 changed since it was trained with"
    assert f"warning: going on is not bit-exact: {said}" in trained()
    assert load("run", "cpu").notes == [said]


def test_a_changed_version_is_said_at_resume_and_when_sampling(site):
    trained()
    install(site, "1.10")
    registry(refresh=True)
    said = [f"{what}: trained with their-parts 1.2, now 1.10" for what in ("loss 'steady'", "regularizer 'leash'")]
    assert [f"warning: going on is not bit-exact: {line}" for line in said] == [n for n in trained() if "warning" in n]
    assert load("run", "cpu").notes == said


def test_plugins_are_compared_by_name_and_not_by_place():
    def plugin(name, distribution="a", version="1", sha="x"):
        return {"kind": "loss", "name": name, "distribution": distribution, "version": version, "sha256": sha}

    one, two = plugin("one"), plugin("two", sha="y")
    assert changed_plugins([one, two], [two, one]) == []
    assert changed_plugins([one], [two, one]) == ["loss 'two' of a 1 was not used before"]
    assert changed_plugins([one, two], [two]) == []
    assert changed_plugins([one], [plugin("one", "b")]) == ["loss 'one' of b 1 was not used before"]


def test_a_missing_package_is_named_with_what_to_install(site, monkeypatch):
    trained()
    monkeypatch.undo()
    registry(refresh=True)
    with pytest.raises(
        PluginError, match=r"needs loss 'steady' of their-parts 1.2; run: pip install 'their-parts==1.2'"
    ) as one:
        load(site.parent / "run", "cpu")
    assert one.value.exit_code == 4


def test_a_rival_does_not_take_a_checkpoint_s_names(site, tmp_path):
    trained()
    other = site / "rival-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Name: rival\nVersion: 1.0\n", encoding="utf-8")
    (other / "entry_points.txt").write_text("[ganzoo.regularizers]\nleash = canary:Canary\n", encoding="utf-8")
    registry(refresh=True)
    assert load("run", "cpu").notes == []
    assert not (tmp_path / "sang").exists()


def test_the_canary_sings(site, tmp_path):
    importlib.import_module("canary")
    assert (tmp_path / "sang").exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", list(PARTS))
def test_a_name_in_a_recipe_never_loads_code(site, tmp_path, kind, name):
    with pytest.raises(GanzooError) as raised:
        run_recipe(recipe_of(**{kind: name}), registry(), Path("run"), "cpu")
    assert raised.value.exit_code in (3, 4)
    assert not name or repr(name) in str(raised.value)
    assert "canary" not in sys.modules
    assert not (tmp_path / "sang").exists()
    assert not Path("run").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_on_the_command_line_never_loads_code(site, tmp_path, name):
    for request in (Request(loss=name), Request(regularizers=(name,)), Request(values={"architecture.name": name})):
        if not name:
            continue  # nothing was asked for
        with pytest.raises(GanzooError):
            run_recipe(resolve("dcgan", request, registry()), registry(), Path("run"), "cpu")
    with pytest.raises(GanzooError):
        resolve(name, Request(), registry())
    assert "canary" not in sys.modules
    assert not (tmp_path / "sang").exists()


@pytest.fixture(scope="module")
def header_and_tensors(tmp_path_factory):
    """A checkpoint of built-in plugins alone."""
    folder = tmp_path_factory.mktemp("checkpoint")
    text = RECIPE.format(**{**PARTS, "loss": "hinge", "regularizer": "r1"})
    (folder / "it.toml").write_text(text, encoding="utf-8")
    run_recipe(resolve(str(folder / "it.toml"), Request(), registry()), registry(), folder / "run", "cpu")
    path = RunFolder(folder / "run").checkpoints()[0]
    return checkpoint.read_header(path), load_file(path)


@pytest.mark.parametrize("both", [False, True], ids=["recipe", "recipe-and-record"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["architecture", "game", "regularizer"])
def test_a_name_in_a_checkpoint_never_loads_code(site, tmp_path, header_and_tensors, kind, name, both):
    header, tensors = header_and_tensors
    provenance = json.loads(json.dumps(header["provenance"]))
    old = {**PARTS, "regularizer": "r1"}[kind]
    provenance["recipe"] = provenance["recipe"].replace(f'name = "{old}"', f'name = "{name}"')
    for plugin in provenance["plugins"]:
        if both and plugin["kind"] == kind:
            plugin.update(name=name, module="canary", attribute="Canary")
    path = tmp_path / "it.safetensors"
    save_file(tensors, path, metadata={checkpoint.KEY: json.dumps({**header, "provenance": provenance})})
    with pytest.raises(GanzooError) as raised:
        load(path, "cpu")
    assert raised.value.exit_code in (3, 4, 5)
    assert "canary" not in sys.modules
    assert not (tmp_path / "sang").exists()


@pytest.mark.parametrize("field", ["distribution", "version"])
def test_a_record_that_is_no_package_is_not_recommended(tmp_path, header_and_tensors, field):
    header, tensors = header_and_tensors
    provenance = json.loads(json.dumps(header["provenance"]))
    provenance["plugins"][0].update({"name": "gone", field: "x'; rm -rf ~; echo '"})
    path = tmp_path / "it.safetensors"
    save_file(tensors, path, metadata={checkpoint.KEY: json.dumps({**header, "provenance": provenance})})
    with pytest.raises(CheckpointError, match="incomplete header"):
        load(path, "cpu")
