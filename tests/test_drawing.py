"""Truncation and standing statistics: closed forms, what they leave as it was, and where they mean nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from ganzoo.api import Spec, Truncatable
from ganzoo.benchmark.latents import latents as philox
from ganzoo.benchmark.protocol import Protocol
from ganzoo.benchmark.sources import ModelSource
from ganzoo.cli.commands import cli
from ganzoo.device import Device
from ganzoo.errors import RecipeError
from ganzoo.game import TwoPlayer
from ganzoo.pictures import to_bytes
from ganzoo.sampling import BATCH, Model
from ganzoo.seed import latents, truncated
from ganzoo.testing.tiny import tiny_recipe

SPEC = Spec(shape=(1, 8, 8), latent=8)


class Normed(nn.Module):
    """A generator with batch norm, and perhaps classes."""

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(8, 16)
        self.norm = nn.BatchNorm1d(16)
        self.last = nn.Linear(16, 64)
        self.embed = nn.Embedding(classes, 8) if classes else None
        self.unused = nn.BatchNorm1d(3)

    def forward(self, z, label=None):
        z = z if self.embed is None else z + self.embed(label)
        return self.last(self.norm(self.first(z))).tanh().view(-1, 1, 8, 8)


class Styled(nn.Module):
    """A generator whose samples are psi times something, in place of StyleGAN's way to the mean style."""

    def __init__(self) -> None:
        super().__init__()
        self.psi = 1.0

    def truncate(self, psi: float) -> None:
        self.psi = psi

    def forward(self, z):
        return (self.psi * z[:, :1]).tanh()[:, :, None, None].expand(-1, 1, 8, 8)


class Chooses(TwoPlayer):
    """A game that keeps one latent for itself."""

    def spec(self, spec):
        return replace(spec, latent=spec.latent - 1)


def model(net=None, game=None, prior="normal", classes=0) -> Model:
    recipe = tiny_recipe({"latent": {"size": 8, "prior": prior}})
    nets = {"G": (net or Normed(classes)).eval(), "D": nn.BatchNorm1d(2)}
    spec = replace(SPEC, prior=prior, classes=classes)
    return Model(recipe, game or TwoPlayer(), nets, spec, Device.choose("cpu", "fp32"), Path("it.safetensors"))


# truncation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [0.04, 0.7, 2.0])
def test_truncated_latents_are_those_of_a_truncated_normal(bound):
    z = latents(2000, 64, "normal", "test")
    cut = truncated(z, bound, "test")
    inside = z.abs() <= bound
    assert torch.equal(cut[inside], z[inside])
    assert cut.abs().max() <= bound
    redrawn = cut[~inside].double()
    density = math.exp(-(bound**2) / 2) / math.sqrt(2 * math.pi)
    variance = 1 - 2 * bound * density / math.erf(bound / math.sqrt(2))  # of a normal number between -bound and bound
    assert redrawn.var().item() == pytest.approx(variance, rel=0.05)
    assert abs(redrawn.mean().item()) < 0.03 * bound
    assert redrawn.unique().numel() > 0.9 * redrawn.numel()


def test_a_truncated_sample_depends_on_the_seed_and_its_number_alone():
    made = model()
    assert torch.equal(made.latents(3, 4, 0.5), made.latents(9, 4, 0.5)[:3])
    assert not torch.equal(made.latents(3, 4, 0.5), made.latents(3, 5, 0.5))
    expected = made.decode(made.latents(5, 4, 0.5), {})
    assert torch.equal(made.sample(5, 4, truncation=0.5), expected)
    assert not torch.equal(made.sample(5, 4), expected)
    assert torch.equal(made.sample(5, 4, truncation=50.0), made.sample(5, 4))


def test_a_generator_with_a_way_of_its_own_takes_it():
    net = Styled()
    assert isinstance(net, Truncatable)
    made = model(net)
    z = made.latents(4, 1)
    assert torch.equal(made.sample(4, 1, truncation=0.5), made.decode(z * 0.5, {}))
    assert net.psi == 1.0
    assert torch.equal(made.sample(4, 1, truncation=0.0), torch.zeros(4, 1, 8, 8))
    assert torch.equal(made.sample(4, 1), made.decode(z, {}))
    assert model(Styled(), prior="uniform").sample(2, truncation=0.3).shape == (2, 1, 8, 8)


def test_a_generator_goes_back_whatever_happens(monkeypatch):
    net = Styled()
    made = model(net)
    monkeypatch.setattr(made, "decode", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made.sample(4, 1, truncation=0.5)
    assert net.psi == 1.0


def scored(made, truncation):
    """Return eight images as a benchmark draws them."""
    protocol = Protocol(
        name="t", version=1, samples=8, seeds=(0,), extractors=("a",), metrics=("frechet",), batch=4, truncation=truncation
    )
    source = object.__new__(ModelSource)  # without a checkpoint's file
    source._model, source.seconds, source.made = {"ema": made}, 0.0, 0
    return source.images(None, protocol, 0)(0, 8)


def test_a_protocol_truncates_as_a_sample_does():
    own, plain = scored(model(Styled()), 0.5), model()
    z = philox(0, 8, 8, "normal", 0)  # as they are: psi alone draws nearer to the mean
    assert torch.equal(own, to_bytes(model(Styled()).decode(z * 0.5, {})))
    assert torch.equal(scored(model(Styled()), 0.0), to_bytes(model(Styled()).decode(z, {})))
    assert torch.equal(scored(plain, 0.5), to_bytes(plain.decode(philox(0, 8, 8, "normal", 0, bound=0.5), {})))
    with pytest.raises(RecipeError, match="draws from uniform latents"):
        scored(model(prior="uniform"), 0.5)


def test_interpolations_are_truncated_too():
    made = model(Styled())
    ends = made.interpolate(2, 3, seed=1, truncation=0.5).unflatten(0, (2, 3))[:, 0]
    torch.testing.assert_close(ends, made.sample(4, 1, truncation=0.5)[::2], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("made", "truncation", "message"),
    [
        (lambda: model(prior="uniform"), 0.5, "draws from uniform latents, which have no tails to leave out; leave trunc"),
        (
            lambda: model(game=Chooses()),
            0.5,
            "chooses by its latents what it draws, some of which would be left out; leave",
        ),
        (model, 0.0, r"truncation must be a number above 0, not 0\.0"),
        (model, -1.0, "truncation must be a number above 0"),
        (model, math.nan, "truncation must be a number above 0"),
        (lambda: model(Styled()), -0.1, "truncation must be a number from 0 on, not -0.1"),
    ],
)
def test_where_truncation_means_nothing(made, truncation, message):
    with pytest.raises(RecipeError, match=message):
        made().sample(2, truncation=truncation)


# standing statistics --------------------------------------------------------------------------------------------------


def shown(net, call):
    """Return what a norm is shown while something is drawn."""
    seen = []
    handle = net.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    call()
    handle.remove()
    return seen


@pytest.mark.parametrize("classes", [0, 100])
def test_standing_statistics_are_the_means_over_batches(classes):
    made = model(classes=classes)
    net = made.nets["G"]
    kept = {}

    def draw():
        kept["x"] = made.sample(3, 1, standing=4)

    *batches, last = shown(net, draw)
    assert [len(batch) for batch in batches] == [BATCH] * 4
    assert len(last) == 3
    mean = torch.stack([batch.mean(0) for batch in batches]).mean(0)
    variance = torch.stack([batch.var(0) for batch in batches]).mean(0)  # with n - 1, as batch norm keeps it
    normal = (last - mean) / (variance + net.norm.eps).sqrt()
    torch.testing.assert_close(kept["x"], net.last(normal).tanh().view(-1, 1, 8, 8).detach())
    if classes:  # more of them than fit into a batch: all are seen
        assert torch.equal(made.labels(4 * BATCH)["label"].unique(), torch.arange(classes))


def test_standing_statistics_leave_the_model_as_it_was():
    made = model()
    net = made.nets["G"]
    before = {key: value.clone() for key, value in net.state_dict().items()}
    plain = made.sample(3, 1)
    one, two = (made.sample(3, 1, standing=2) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, plain)
    assert torch.equal(made.sample(3, 1), plain)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not any(part.training for part in net.modules())
    assert net.norm.momentum == 0.1


def test_standing_statistics_are_of_truncated_samples():
    made = model()
    batches = shown(made.nets["G"], lambda: made.sample(3, 1, truncation=0.1, standing=2))
    wide = shown(made.nets["G"], lambda: made.sample(3, 1, standing=2))
    assert all(narrow.var(0).mean() < 0.02 * plain.var(0).mean() for narrow, plain in zip(batches, wide, strict=True))


def test_without_batch_norm_there_are_no_statistics():
    with pytest.raises(RecipeError, match="'tiny' draws without batch norm, so it has no statistics; leave standing out"):
        model(Styled()).sample(2, standing=4)


# the command ----------------------------------------------------------------------------------------------------------


def test_the_command_truncates_and_names_its_file_by_that(tmp_path, monkeypatch):
    made = model()
    monkeypatch.setattr("ganzoo.sampling.load", lambda *_: made)
    outcome = CliRunner().invoke(cli, ["sample", str(tmp_path), "-n", "4", "--truncation", "0.7", "--standing", "2"])
    assert outcome.exit_code == 0, outcome.output
    place = tmp_path / "samples-seed0-truncation0.7-standing2.png"
    notes = Image.open(place).text
    assert (notes["truncation"], notes["standing"]) == ("0.7", "2")
    outcome = CliRunner().invoke(cli, ["sample", str(tmp_path), "--interpolate", "--truncation", "0.7"])
    assert (tmp_path / "interpolation-seed0-truncation0.7.png").exists()
    assert outcome.output.strip().endswith("interpolation-seed0-truncation0.7.png")
