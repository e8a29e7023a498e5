"""Seven defects of the implementations that everybody starts from, each with what keeps it out of here.

Where they stand: PyTorch-StudioGAN's losses.py (1), resnet.py (2), its issue 175 (3), configs/AFHQv2/*LeCam* (4) and
configs/CIFAR10/ReACGAN-Info.yaml (5); BigGAN-PyTorch's launch_BigGAN_deep.sh (6); and what mimicry and StudioGAN call
DCGAN (7).
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
from ganzoo_plugins.architectures.dcgan import DCGAN
from ganzoo_plugins.architectures.resnet import ResNet
from ganzoo_plugins.games.latent_optimisation import LatentOptimisation
from ganzoo_plugins.regularizers.gradient_penalty import GradientPenalty
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganzoo import assemble
from ganzoo.api import Batch, Spec
from ganzoo.device import Device
from ganzoo.errors import PluginError, RecipeError
from ganzoo.game import Duel
from ganzoo.registry import registry
from ganzoo.testing.tiny import TinyDiscriminator, TinyGenerator
from ganzoo.trainer import Trainer
from ganzoo.zoo import Request, resolve

ZOO = Path(__file__).parents[1] / "zoo_configs"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def small(name: str, *, precision: str = "fp32", **values: object) -> Trainer:
    """The trainer of a recipe at 16 pixels with narrow networks."""
    settings = {"data.size": 16, "train.batch": 8, "train.precision": precision, **values}
    recipe = resolve(name, Request(values=settings), registry())
    return assemble.trainer(recipe, registry(), Device.choose("cpu", precision))


# 1: the loop of latent optimisation returned inside its body


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_latent_optimisation_takes_every_step(steps: int) -> None:
    class Counted(TinyGenerator):
        calls = 0

        def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
            self.calls += 1
            return super().forward(z, label)

    spec = Spec(shape=(1, 16, 16), latent=8)
    nets = {"G": Counted(spec), "D": TinyDiscriminator(spec)}
    z, seen = torch.randn(4, 8), []
    for number in (steps, steps - 1):
        game = LatentOptimisation(steps=max(number, 1), sampling_steps=number, share=1.0)
        nets["G"].calls = 0
        game.play(nets, Batch(torch.rand(4, 1, 16, 16)), z, "D")
        assert nets["G"].calls == max(number, 1) + 1
        nets["G"].calls = 0
        seen.append(game.sample(nets, z, {}))
        assert nets["G"].calls == number + 1
    assert not torch.equal(*seen)  # the last step changes something too


# 2: a residual discriminator without spectral norm had batch norm, also under a penalty for each sample


@pytest.mark.parametrize("size", [32, 64])
def test_a_residual_discriminator_has_no_batch_norm_of_its_own(size: int) -> None:
    discriminator = ResNet().discriminator(Spec(shape=(3, size, size)))
    assert not any(isinstance(module, _BatchNorm) for module in discriminator.modules())
    if size == 32:
        assert sum(parameter.numel() for parameter in discriminator.parameters()) == 1_053_825  # 1,055,879 with


# 3: a penalty inside autocast kept the scale of the loss in its gradient


def penalty_and_gradient(discriminator: nn.Module, duel: tuple[Tensor, Tensor], *, low: bool) -> tuple[float, Tensor]:
    discriminator.zero_grad()
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
        penalty = GradientPenalty().penalty(Duel(discriminator, *duel))
    penalty.backward()
    gradients = [p.grad.flatten() for p in discriminator.parameters() if p.grad is not None]
    return float(penalty.detach()), torch.cat(gradients)


def test_a_gradient_penalty_in_bfloat16_is_that_of_float32() -> None:
    discriminator = ResNet(discriminator_width=16).discriminator(Spec(shape=(3, 16, 16)))
    duel = torch.rand(8, 3, 16, 16) * 2 - 1, torch.rand(8, 3, 16, 16) * 2 - 1
    for scale in (0.3, 1.0, 3.0):  # gradients shorter and longer than one
        with torch.no_grad():
            for parameter in discriminator.parameters():
                parameter.mul_(scale)
        whole, expected = penalty_and_gradient(discriminator, duel, low=False)
        low, found = penalty_and_gradient(discriminator, duel, low=True)
        assert low == pytest.approx(whole, rel=0.03)
        assert float(torch.cosine_similarity(expected, found, dim=0)) > 0.995
        assert float(found.norm()) == pytest.approx(float(expected.norm()), rel=0.05)
        with torch.no_grad():
            for parameter in discriminator.parameters():
                parameter.div_(scale)


def test_wgan_gp_stays_finite_in_bfloat16() -> None:
    widths = {"architecture.generator_width": 8, "architecture.discriminator_width": 8}
    trainer = small("wgan-gp", precision="bf16", **widths, **{"train.turns": ["D", "G"]})
    for _ in range(6):
        trainer.round()
    trainer.report()  # raises where a term is not finite
    assert all(bool(torch.isfinite(p).all()) for net in trainer.nets.values() for p in net.parameters())


# 4: recipes named LeCam never ran it, and a strength was text


BIGGAN = {
    **{"architecture.generator_width": 2, "architecture.discriminator_width": 2, "architecture.embedding": 8},
    **{"architecture.generator_attention": 8, "architecture.discriminator_attention": 8},
}


def test_the_recipe_that_names_lecam_runs_it() -> None:
    trainer = small("lecam", **BIGGAN, **{"regularizer.lecam.start": 1})
    for _ in range(3):
        trainer.round()
    terms = [float(value) for term, value in trainer.terms if term == "D/lecam"]
    assert terms[0] == 0  # not before `start`
    assert min(terms[1:]) > 0


def test_every_regularizer_of_every_recipe_takes_part_in_its_training() -> None:
    for path in sorted(ZOO.glob("[a-z]*.toml")):
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        named = [entry["name"] for entry in raw.get("regularizer", [])]
        assert [part.name for part in resolve(path.stem, Request(), registry()).regularizers] == named


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('name = "lecam"\nlecam_lambda = 0.3', "regularizer 'lecam' has no option 'lecam_lambda'"),
        ('name = "lecam"\nwieght = 0.3', "regularizer 'lecam' has no option 'wieght'"),
        ('name = "lecam"\nweight = "3e-7"', "weight.* '3e-7'"),
        ('name = "lecam"\ndecay = "0.99"', "'decay'.*'0.99'"),
        ('name = "lecam"\nweight = true', "weight.*True"),
        ('name = "le-cam"', "'le-cam'.*did you mean 'lecam'"),
    ],
)
def test_a_key_that_nobody_reads_is_refused_and_so_is_a_number_as_text(tmp_path: Path, lines: str, message: str) -> None:
    file = tmp_path / "one.toml"
    recipe = (ZOO / "gan.toml").read_text(encoding="utf-8")
    file.write_text(recipe.replace("[game]", f"[[regularizer]]\n{lines}\n[game]"), encoding="utf-8")
    with pytest.raises((RecipeError, PluginError), match=message):
        small(str(file))


# 5: of a row of siblings, one had another beta


def test_siblings_share_their_optimizer() -> None:
    """Recipes that differ from `biggan` in what classes mean have its betas, at any preset; so has `acgan` as published."""

    def betas(name: str, *presets: str) -> list[float]:
        return list(resolve(name, Request(presets=presets), registry()).optimizer.options["betas"])

    siblings = ("reacgan", "contragan", "adcgan", "tacgan", "mhgan")
    found = {name: betas(name, "reference") for name in (*siblings, "acgan", "biggan")}
    assert all(one == [0.5, 0.999] for one in found.values()), found
    found = {name: betas(name) for name in siblings}
    assert all(one == betas("biggan") for one in found.values()), found
    assert betas("biggan") == [0.0, 0.9]
    assert betas("acgan") == [0.5, 0.999]


# 6: the deep variant was never tried


def test_biggan_deep_trains() -> None:
    trainer = small("biggan-deep", **{**BIGGAN, "architecture.generator_width": 4, "architecture.discriminator_width": 4})
    before = [p.detach().clone() for p in trainer.nets["G"].parameters()]
    for _ in range(2):
        trainer.round()
    trainer.report()
    assert any(not torch.equal(old, new) for old, new in zip(before, trainer.nets["G"].parameters(), strict=True))


# 7: what was called DCGAN had residual blocks, or one size and fixed widths


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("width", [4, 6])
def test_dcgan_is_that_of_the_paper(size: int, width: int) -> None:
    spec = Spec(shape=(3, size, size), latent=10)
    networks = DCGAN(width=width)
    G, D = networks.generator(spec).eval(), networks.discriminator(spec).eval()
    stages = size.bit_length() - 3  # from 4 pixels to half the size
    widths = [width * 2**index for index in range(stages)]

    ups = [layer for layer in G.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.in_channels for layer in ups] == [10, *widths[::-1]]
    assert [layer.stride for layer in ups[1:]] == [(2, 2)] * stages
    downs = [layer for layer in D.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in downs] == [*widths, 1]
    assert [layer.stride for layer in downs[:-1]] == [(2, 2)] * stages
    assert not any(isinstance(layer, nn.Linear | nn.MaxPool2d | nn.AvgPool2d | nn.Upsample) for layer in D.modules())

    # one layer after another and nothing around them: no residual blocks
    leaves = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU, nn.Tanh)
    with torch.no_grad():
        z = torch.randn(2, 10)
        x = chain = G(z)
        straight = z[:, :, None, None]
        for layer in (layer for layer in G.modules() if isinstance(layer, leaves)):
            straight = layer(straight)
        torch.testing.assert_close(straight, x)
        for layer in (layer for layer in D.modules() if isinstance(layer, leaves)):
            chain = layer(chain)
        torch.testing.assert_close(chain.flatten(), D(x).logits)
