"""A trained generator rebuilt from its checkpoint: the same samples whatever is asked for beside them."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

import ganzoo
from ganzoo import assemble, checkpoint
from ganzoo.cli.commands import cli
from ganzoo.device import Device
from ganzoo.errors import CheckpointError, PluginError, RecipeError
from ganzoo.jobs import Silent, _train
from ganzoo.registry import registry
from ganzoo.runs import RunFolder
from ganzoo.sampling import _walk, load
from ganzoo.zoo import Request, resolve

TINY = """\
[data]
name = "fashion-mnist-10k"
size = 16
labels = {labels}
[architecture]
name = "dcgan"
width = 2
[loss]
name = "hinge"
[latent]
size = 8
prior = "{prior}"
[optimizer]
name = "adam"
lr = 1e-3
[train]
batch = 8
samples = 48
ema = 0.5
precision = "fp32"
"""


def trained(folder, labels="false", prior="normal"):
    (folder / "tiny.toml").write_text(TINY.format(labels=labels, prior=prior), encoding="utf-8")
    return ganzoo.train(str(folder / "tiny.toml"), run=folder / "run", device="cpu")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A model without classes, and its run folder."""
    folder = tmp_path_factory.mktemp("plain")
    return trained(folder), folder / "run"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("labelled"), labels="true", prior="uniform")


def test_a_loaded_model_makes_what_the_averaged_generator_in_memory_made(tmp_path, monkeypatch):
    trainers = []
    monkeypatch.setattr("ganzoo.jobs.assemble.trainer", keeping(trainers))
    (tmp_path / "tiny.toml").write_text(TINY.format(labels="false", prior="normal"), encoding="utf-8")
    recipe = resolve(str(tmp_path / "tiny.toml"), Request(), registry())
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    _train(recipe, registry(), folder, Device.choose("cpu", "fp32"), Silent())
    model = load(folder.path, "cpu")
    z = model.latents(5)
    with torch.no_grad():
        expected = trainers[0].averages["G"].net(z)
        live = trainers[0].nets["G"].eval()(z)
    assert torch.equal(model.decode(z, {}), expected)
    assert not torch.equal(expected, live)


def keeping(kept):
    def trainer(*arguments, build=assemble.trainer):
        kept.append(build(*arguments))
        return kept[-1]

    return trainer


def test_a_sample_depends_on_the_seed_and_its_number_alone(plain):
    model, _ = plain
    assert torch.equal(model.latents(3, seed=4), model.latents(9, seed=4)[:3])
    assert not torch.equal(model.latents(3, seed=4), model.latents(3, seed=5))
    many = model.sample(70, seed=4)
    assert many.shape == (70, 1, 16, 16)
    assert many.abs().max() <= 1
    torch.testing.assert_close(many[:3], model.sample(3, seed=4), rtol=0, atol=1e-6)


def test_uniform_latents_lie_in_their_cube(labelled):
    z = labelled.latents(100)
    assert z.abs().max() <= 1
    assert z.std() == pytest.approx(3**-0.5, abs=0.05)


def test_classes_come_in_turn_or_as_asked_for(labelled):
    assert labelled.labels(12)["label"].tolist() == [*range(10), 0, 1]
    assert labelled.labels(3, 7)["label"].tolist() == [7, 7, 7]
    z = labelled.latents(1).repeat(2, 1)
    one, two = labelled.decode(z, {"label": torch.tensor([0, 1])})
    assert not torch.equal(one, two)
    torch.testing.assert_close(labelled.sample(2, label=1)[1], labelled.sample(2)[1])
    with pytest.raises(RecipeError, match="class 10 does not exist; 'tiny' has classes 0 to 9"):
        labelled.sample(1, label=10)
    with pytest.raises(RecipeError, match="class -1 does not exist"):
        labelled.sample(1, label=-1)


def test_a_picture_of_one_class_is_named_after_it(labelled):
    outcome = CliRunner().invoke(cli, ["sample", str(labelled.path), "-n", "2", "--class", "3", "--device", "cpu"])
    assert outcome.exit_code == 0, outcome.output
    assert (labelled.path.parent / "samples-seed0-class3.png").is_file()


def test_a_model_without_classes_takes_none(plain):
    with pytest.raises(RecipeError, match="was trained without classes; leave the class out"):
        plain[0].sample(1, label=0)


def test_interpolations_begin_and_end_at_plain_samples(plain):
    model, _ = plain
    walks = model.interpolate(rows=3, steps=5, seed=2).unflatten(0, (3, 5))
    ends = model.sample(6, seed=2)
    torch.testing.assert_close(walks[:, 0], ends[::2], rtol=0, atol=1e-5)
    torch.testing.assert_close(walks[:, -1], ends[1::2], rtol=0, atol=1e-5)
    middle = walks[:, 2]
    assert not torch.allclose(middle, walks[:, 0])
    assert not torch.allclose(middle, walks[:, -1])


def test_interpolations_of_uniform_latents_are_straight(labelled):
    walks = labelled.interpolate(rows=2, steps=3, seed=2, label=4).unflatten(0, (2, 3))
    z = labelled.latents(4, seed=2)
    expected = labelled.decode((z[::2] + z[1::2]) / 2, labelled.labels(2, 4))
    torch.testing.assert_close(walks[:, 1], expected, rtol=0, atol=1e-5)


def test_great_circles_keep_the_norm_between_those_of_the_ends(plain):
    ends = plain[0].latents(2)
    norms = _walk(ends[0], ends[1], torch.linspace(0, 1, 21), "normal").norm(dim=1)
    assert norms.min() >= 0.9 * min(ends.norm(dim=1))


def test_a_folder_and_its_checkpoint_file_are_the_same_model(plain):
    model, run = plain
    assert model.path == RunFolder(run).checkpoints()[0]
    assert torch.equal(ganzoo.load(model.path, "cpu").sample(2), ganzoo.load(str(run), "cpu").sample(2))


def test_a_folder_without_a_checkpoint_is_said(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no checkpoint; give a run folder or a .safetensors file"):
        load(tmp_path)


def altered(path, target, change):
    """Copy a checkpoint with another provenance; its hash is that of the tensors alone."""
    header = checkpoint.read_header(path)
    change(header["provenance"])
    save_file(load_file(path), target, metadata={checkpoint.KEY: json.dumps(header)})
    return target


def test_a_checkpoint_of_a_missing_plugin_says_what_to_install(plain, tmp_path):
    def change(provenance):
        (loss,) = (plugin for plugin in provenance["plugins"] if plugin["kind"] == "loss")
        loss.update(name="brand-new", distribution="new-gans", version="1.4")

    path = altered(plain[0].path, tmp_path / "it.safetensors", change)
    with pytest.raises(PluginError, match=r"needs loss 'brand-new' of new-gans 1.4; run: pip install 'new-gans==1.4'"):
        load(path, "cpu")


def test_another_version_of_a_plugin_is_noted(plain, tmp_path):
    def change(provenance):
        for plugin in provenance["plugins"]:
            plugin["version"] = "0.0.1"

    model = load(altered(plain[0].path, tmp_path / "it.safetensors", change), "cpu")
    assert f"loss 'hinge': trained with ganzoo-toolkit 0.0.1, now {ganzoo.__version__}" in model.notes


@pytest.mark.parametrize(
    "change",
    [
        lambda provenance: provenance.clear(),
        lambda provenance: provenance.pop("recipe"),
        lambda provenance: provenance.update(recipe="= broken"),
        lambda provenance: provenance.update(recipe=5),
        lambda provenance: provenance.update(spec={"shape": 3}),
        lambda provenance: provenance.update(plugins=["x"]),
        lambda provenance: provenance.update(plugins=[{"kind": "loss"}]),
        lambda provenance: provenance.update(plugins=None),
    ],
)
def test_a_header_that_is_not_whole_is_said(plain, tmp_path, change):
    path = altered(plain[0].path, tmp_path / "it.safetensors", change)
    with pytest.raises(CheckpointError, match=r"has an incomplete header .*it was not written by ganzoo"):
        load(path, "cpu")


def test_a_recipe_of_other_networks_does_not_fit(plain, tmp_path):
    def change(provenance):
        provenance["recipe"] = provenance["recipe"].replace("width = 2", "width = 4")

    with pytest.raises(CheckpointError, match="checkpoint and recipe do not fit"):
        load(altered(plain[0].path, tmp_path / "it.safetensors", change), "cpu")
