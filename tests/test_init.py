"""Fine-tuning: what a training takes of another one's weights, what it says of that, and layers that stay as they are."""

from __future__ import annotations

import re

import pytest
import torch
from ganzoo_plugins.losses.non_saturating import NonSaturating
from ganzoo_plugins.regularizers.freeze_d import FreezeD
from ganzoo_plugins.regularizers.r1 import R1
from ganzoo_plugins.regularizers.spectral_norm import SpectralNorm
from torch import nn

import ganzoo
from ganzoo import checkpoint
from ganzoo.errors import CheckpointError, PluginError
from ganzoo.finetuning import Beginning
from ganzoo.registry import registry
from ganzoo.runs import RunFolder
from ganzoo.testing.tiny import tiny_trainer
from ganzoo.watch import Silent
from ganzoo.zoo import Request, resolve

TINY = """\
[data]
name = "fashion-mnist-10k"
size = {size}
labels = {labels}
[architecture]
name = "{architecture}"
{width} = 4
[loss]
name = "hinge"
[latent]
size = 8
[optimizer]
name = "adam"
lr = 1e-3
betas = [0.5, 0.9]
[train]
batch = 8
samples = 48
ema = 0.5
precision = "fp32"
checkpoint = 24
"""


class Heard(Silent):
    """A reporter that remembers the notes."""

    def __init__(self) -> None:
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def written(folder, *, size=16, labels="false", architecture="dcgan", width="width"):
    folder.mkdir(exist_ok=True)
    path = folder / "tiny.toml"
    path.write_text(TINY.format(size=size, labels=labels, architecture=architecture, width=width), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The run folder of a finished training without classes."""
    folder = tmp_path_factory.mktemp("source")
    ganzoo.train(written(folder), run=folder / "run", device="cpu")
    return folder / "run"


def tuned(folder, source, *, settings=None, **kind):
    heard = Heard()
    ganzoo.train(written(folder, **kind), run=folder / "run", device="cpu", init=source, settings=settings, reporter=heard)
    return RunFolder(folder / "run"), [note for note in heard.notes if "begins with" in note]


FROZEN = {"optimizer.lr": 0.0}  # a training that changes no weight shows what it began with


def test_it_begins_with_the_averaged_generator_and_the_discriminator(tmp_path, source):
    run, notes = tuned(tmp_path, source, settings=FROZEN)
    old, new = (checkpoint.read(folder.checkpoints()[0])[0] for folder in (RunFolder(source), run))
    weights = [key for key in old if key.endswith("weight") and key.startswith(("ema/G", "net/D"))]
    for key in weights:
        assert torch.equal(new[key], old[key]), key
        assert torch.equal(new[key.replace("ema/", "net/")], old[key]), key  # G itself, too
    assert any(not torch.equal(old[key], old[key.replace("ema/", "net/")]) for key in weights)
    path = RunFolder(source).checkpoints()[0]
    found = {note[0]: [int(count) for count in re.findall(r"\b\d+\b", note.split(" tensors")[0])] for note in notes}
    assert found == {name: [len(state(old, f"net/{name}/"))] * 2 for name in ("G", "D")}
    assert all(note.endswith(f"from {path}") for note in notes)


def state(tensors, prefix):
    return [key for key in tensors if key.startswith(prefix)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, source):
    """A folder with the run that began with the source."""
    folder = tmp_path_factory.mktemp("tuned")
    tuned(folder, source)
    return folder


def test_optimizers_start_anew_and_the_checkpoint_says_where_it_began(finished, source):
    run = RunFolder(finished / "run")
    first = checkpoint.read(run.checkpoints()[-1])
    began = checkpoint.read_header(RunFolder(source).checkpoints()[0])
    assert first[1]["samples"] == 24
    steps = {float(value) for key, value in first[0].items() if key.endswith("/step")}
    assert steps == {3.0}
    assert first[2]["init"] == {"sha256": began["sha256"], "samples": 48}
    assert began["provenance"].get("init") is None


def test_the_source_is_not_needed_to_go_on(finished, source, monkeypatch):
    last, half = RunFolder(finished / "run").checkpoints()
    expected = last.read_bytes()
    last.unlink()
    monkeypatch.setattr(Beginning, "read", None)
    _, notes = tuned(finished, source)
    assert notes == []
    assert last.read_bytes() == expected
    assert half.exists()


def test_classes_and_sizes_may_be_others(tmp_path, source):
    run, notes = tuned(tmp_path, source, settings=FROZEN, labels="true")
    new, old = (checkpoint.read(folder.checkpoints()[0])[0] for folder in (run, RunFolder(source)))
    same = [key for key in old if key.startswith("net/D") and key in new and new[key].shape == old[key].shape]
    assert all(torch.equal(new[key], old[key]) for key in same if key.endswith("weight"))
    fitted = {
        note[0]: re.search(r"begins with (\d+) of its (\d+) tensors from .*; anew begin (.*)", note) for note in notes
    }
    for name in ("G", "D"):
        taken, there, told = fitted[name].groups()
        assert 0 < int(taken) < int(there) == len(state(new, f"net/{name}/"))
        assert "embedding" in told
        assert "(not there)" in told
    _, notes = tuned(tmp_path / "larger", source, size=32, settings={"train.samples": 8})
    assert [note[0] for note in notes] == ["D", "G"]


def test_nothing_that_fits_is_refused(tmp_path, source):
    with pytest.raises(
        CheckpointError, match=r"nothing in .* fits networks D, G: .*; set train.init to a training with the"
    ):
        tuned(tmp_path, source, architecture="resnet", width="generator_width")


def test_a_source_that_is_none_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint; give a run folder"):
        tuned(tmp_path, tmp_path / "nowhere")


def test_a_run_that_begins_elsewhere_has_a_folder_of_its_own():
    recipe = resolve("dcgan", Request(init="runs/dcgan-r1"), registry())
    assert recipe.name == "dcgan+init-dcgan-r1"
    assert recipe.train.init.endswith("runs/dcgan-r1")
    assert recipe.train.init.startswith("/")
    assert recipe.origin["train.init"] == "--init"
    assert resolve("dcgan", Request(init="a b/0001.safetensors"), registry()).name == "dcgan+init-0001"


def test_shapes_that_differ_are_named():
    class Net(nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.embed, self.body = nn.Embedding(classes, 3), nn.Linear(2, 2)

    old, new = Net(4), Net(7)
    tensors = {f"net/D/{key}": value for key, value in old.state_dict().items()}
    begins = Beginning("it", {}, tensors)
    fresh = new.embed.weight.clone()
    begins.fill({"D": new})
    assert begins.notes == ["D begins with 2 of its 3 tensors from it; anew begin embed.weight [7, 3] ([4, 3] there)"]
    assert torch.equal(new.body.weight, old.body.weight)
    assert torch.equal(new.embed.weight, fresh)


def test_random_weights_that_are_never_trained_are_a_warning():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    old = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    FreezeD(layers=2).prepare(net)
    begins = Beginning("it", {}, {f"net/D/{key}": value for key, value in old.state_dict().items()})
    begins.fill({"D": net})
    assert begins.notes[1:] == ["warning: D begins anew with 0.weight and never trains it"]


# FreezeD --------------------------------------------------------------------------------------------------------------


def moved(trainer):
    before = {key: value.detach().clone() for key, value in trainer.nets["D"].named_parameters()}
    for _ in range(2):
        trainer.round()
    return {key for key, value in trainer.nets["D"].named_parameters() if not torch.equal(value, before[key])}


@pytest.mark.parametrize(("layers", "left"), [(1, {"body.3", "head"}), (2, {"head"})])
def test_frozen_layers_stay_as_they_are_and_the_others_move(layers, left):
    raw = {"regularizer": {"it": {"layers": layers}}}
    trainer = tiny_trainer(loss=NonSaturating, regularizers={"it": FreezeD, "r1": R1}, raw=raw)
    free = {f"{layer}.{kind}" for layer in left for kind in ("weight", "bias")}
    trained = {id(parameter) for parameter in trainer.players["D"].parameters}
    assert {key for key, value in trainer.nets["D"].named_parameters() if id(value) in trained} == free
    assert moved(trainer) == free


@pytest.mark.parametrize("order", [("it", "sn"), ("sn", "it")])
def test_a_spectrally_normalised_layer_is_one_layer(order):
    parts = {"it": FreezeD, "sn": SpectralNorm}
    raw = {"regularizer": {"it": {"layers": 1}}}
    trainer = tiny_trainer(loss=NonSaturating, regularizers={name: parts[name] for name in order}, raw=raw)
    assert not any(key.startswith("conv") for key in moved(trainer))
    assert trainer.nets["D"].conv.parametrizations.weight.original.requires_grad is False
    trained = {id(parameter) for parameter in trainer.players["D"].parameters}
    assert id(trainer.nets["D"].body[3].parametrizations.weight.original) in trained


def test_a_parameter_of_the_whole_network_does_not_freeze_the_rest():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    net.register_parameter("scale", nn.Parameter(torch.ones(1)))
    FreezeD(layers=2).prepare(net)
    assert [key for key, value in net.named_parameters() if not value.requires_grad] == ["scale", "0.weight", "0.bias"]


def test_tables_of_labels_are_trained():
    net = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    FreezeD(layers=1).prepare(net)
    assert [key for key, value in net.named_parameters() if not value.requires_grad] == ["1.weight", "1.bias"]


def test_something_must_be_left_to_train():
    with pytest.raises(PluginError, match=r"would freeze 3 of the 3 layers of TinyDiscriminator.*; set 'layers' below 3"):
        tiny_trainer(regularizers={"it": FreezeD}, raw={"regularizer": {"it": {"layers": 3}}})
    with pytest.raises(PluginError, match="needs 'layers' of at least 1, not 0"):
        FreezeD(layers=0)


def test_the_two_go_together(tmp_path, source):
    """The frozen layer of the new run is the old run's, the rest has moved on."""
    path = written(tmp_path)
    ganzoo.train(path, run=tmp_path / "run", device="cpu", init=source, regularizers=["freeze-d=1"])
    old, new = (checkpoint.read(RunFolder(run).checkpoints()[0])[0] for run in (source, tmp_path / "run"))
    weights = [key for key in old if key.startswith("net/D") and key.endswith("weight")]
    assert [torch.equal(old[key], new[key]) for key in weights].count(True) == 1
