"""Packing against packs made by hand, and with everything else that looks at logits, gradients or statistics."""

import math

import pytest
import torch
from ganzoo_plugins.architectures.dcgan import DCGAN
from ganzoo_plugins.architectures.mlp import MLP
from ganzoo_plugins.architectures.resnet import ResNet
from ganzoo_plugins.losses.relativistic import Relativistic
from ganzoo_plugins.regularizers.ada import ADA
from ganzoo_plugins.regularizers.gradient_penalty import GradientPenalty
from ganzoo_plugins.regularizers.lecam import LeCam
from ganzoo_plugins.regularizers.pacgan import PacGAN
from ganzoo_plugins.regularizers.r1 import R1
from torch import Tensor, nn

from ganzoo.api import PluginError, Spec, TensorDataset
from ganzoo.game import Duel
from ganzoo.testing import ContractError, TinyArchitecture
from ganzoo.testing.recipes import penalised_samples_are_judged_alone
from ganzoo.testing.tiny import tiny_data, tiny_trainer


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 4), (2,), (3, 2, 4, 4)])
@pytest.mark.parametrize("samples", [2, 3])
def test_neighbours_are_joined_along_their_first_dimension(shape: tuple[int, ...], samples: int) -> None:
    x = torch.randn(6, *shape)
    packed = PacGAN(samples=samples).view(x)
    for number, pack in enumerate(packed):
        assert torch.equal(pack, torch.cat(list(x[number * samples : (number + 1) * samples])))
    assert len(packed) == 6 // samples
    spec = PacGAN(samples=samples).shown(Spec(shape=shape, latent=7))
    assert spec == Spec(shape=tuple(packed.shape[1:]), latent=7)


class Linear(nn.Module):
    """D(pack) = w . pack."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w


def test_logits_and_gradients_of_packs_by_hand() -> None:
    real, fake, discriminator = torch.randn(6, 2), torch.randn(6, 2), Linear(6)
    duel = Duel(discriminator, real, fake, views=[PacGAN(samples=3).view])
    w = discriminator.w.detach().tolist()
    expected = [sum(a * b for a, b in zip(w, real[start : start + 3].flatten().tolist(), strict=True)) for start in (0, 3)]
    assert duel.output("real").logits.tolist() == pytest.approx(expected, rel=1e-5)
    gradient = duel.input_gradient("real")  # of each sample: its part of w
    for index, each in enumerate(gradient.tolist()):
        assert each == pytest.approx(w[index % 3 * 2 : index % 3 * 2 + 2])
    length = sum(entry**2 for entry in w)
    assert float(R1(gamma=2.0).penalty(duel).detach()) == pytest.approx(length / 3, rel=1e-5)


@pytest.mark.parametrize("architecture", [DCGAN(width=4), ResNet(generator_width=4, discriminator_width=4), MLP()])
@pytest.mark.parametrize("channels", [1, 3])
def test_image_discriminators_take_the_channels_of_a_pack(architecture, channels: int) -> None:
    packing, spec = PacGAN(samples=2), Spec(shape=(channels, 16, 16), latent=5)
    discriminator = architecture.discriminator(packing.shown(spec))
    duel = Duel(discriminator, torch.randn(4, *spec.shape), torch.randn(4, *spec.shape), views=[packing.view])
    assert duel.output("real").logits.shape == (2,)
    assert architecture.generator(spec)(torch.randn(4, 5)).shape == (4, *spec.shape)


def test_it_trains_beside_what_looks_at_logits_and_gradients() -> None:
    regularizers = {
        "ada": lambda: ADA(probability=0.5),
        "pacgan": PacGAN,
        "r1": R1,
        "gradient-penalty": GradientPenalty,
        "lecam": lambda: LeCam(start=0),
    }
    for precision in ("fp32", "bf16"):
        trainer = tiny_trainer(
            loss=Relativistic,
            regularizers=regularizers,
            data=tiny_data(channels=3),
            raw={"train": {"precision": precision}},
        )
        for _ in range(3):
            trainer.round()
        terms = trainer.report().terms
        assert {"D/r1", "D/gradient-penalty", "D/lecam"} <= terms.keys()
        assert all(math.isfinite(value) for value in terms.values())


def test_recipes_are_checked_by_what_d_is_shown() -> None:
    class Mixing(TinyArchitecture):
        def discriminator(self, spec: Spec) -> nn.Module:
            return nn.Sequential(nn.BatchNorm2d(spec.shape[0]), super().discriminator(spec))

    for regularizers in ({"pacgan": PacGAN, "r1": R1}, {"r1": R1, "pacgan": PacGAN}):
        penalised_samples_are_judged_alone(tiny_trainer(regularizers=regularizers))
        with pytest.raises(ContractError, match="mixes samples"):
            penalised_samples_are_judged_alone(tiny_trainer(regularizers=regularizers, architecture=Mixing))


def test_packs_of_points_in_the_plane_train() -> None:
    points = TensorDataset(torch.randn(40, 2).clamp(-1, 1))
    networks = lambda: MLP(discriminator_layers="linear", generator_hidden=(8,), discriminator_hidden=(8,))  # noqa: E731
    trainer = tiny_trainer(architecture=networks, regularizers={"pacgan": PacGAN}, data=points)
    trainer.round()
    assert next(iter(trainer.nets["D"].parameters())).shape[1] == 4
    assert math.isfinite(trainer.report().terms["D/loss"])


def test_refusals() -> None:
    with pytest.raises(PluginError, match="at least 2 'samples'"):
        PacGAN(samples=1)
    with pytest.raises(PluginError, match="no label for a pack"):
        PacGAN().shown(Spec(shape=(1, 16, 16), classes=3))
    with pytest.raises(PluginError, match="packs of 2 of 5 samples; set train"):
        PacGAN().view(torch.zeros(5, 2))
    with pytest.raises(PluginError, match="packs of 3 of 4 samples"):
        tiny_trainer(regularizers={"pacgan": lambda: PacGAN(samples=3)}, raw={"train": {"accumulate": 2}}).round()
