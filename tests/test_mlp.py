"""The fully connected networks: counts of the published scripts, any shape of samples, and labels at D's end."""

from __future__ import annotations

import pytest
import torch
from ganzoo_plugins.architectures.dcgan import DCGAN
from ganzoo_plugins.architectures.mlp import MLP
from torch import nn

from ganzoo.api import PluginError, Spec
from ganzoo.game import Duel
from ganzoo.layers.conditional import LabelledLogit

TUTORIAL = {
    "generator_hidden": (128, 256, 512, 1024),
    "generator_norm": "inner",
    "discriminator_layers": "linear",
    "discriminator_hidden": (512, 256),
    "discriminator_norm": "none",
}
CONDITIONAL = {**TUTORIAL, "discriminator_hidden": (512, 512, 512), "discriminator_dropout": 0.4, "embedding": 10}
TOY = {
    "generator_hidden": (128, 128, 128),
    "generator_norm": "none",
    "output": "linear",
    "discriminator_layers": "linear",
    "discriminator_hidden": (128, 128, 128),
    "discriminator_norm": "none",
    "activation": "relu",
}
USES = ("concatenation", "projection", "heads", "none")


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("options", "shape", "classes", "generator", "discriminator"),
    [
        (TUTORIAL, (1, 28, 28), 0, 1_510_032, 533_505),
        (TUTORIAL, (3, 32, 32), 0, 3_855_232, 1_704_961),
        (CONDITIONAL, (3, 32, 32), 10, 3_856_612, 2_104_421),
    ],
)
def test_counts_of_the_tutorials(options, shape, classes, generator, discriminator):
    spec = Spec(shape, classes, latent=100)
    with torch.device("meta"):
        assert parameters(MLP(**options).generator(spec)) == generator
        assert parameters(MLP(**options).discriminator(spec)) == discriminator


def test_the_first_hidden_layer_has_no_inner_norm():
    kinds = [type(layer) for layer in MLP(**TUTORIAL).generator(Spec((1, 28, 28), latent=100)).layers]
    hidden = [nn.Linear, nn.BatchNorm1d, nn.LeakyReLU]
    assert kinds == [nn.Linear, nn.LeakyReLU, *hidden * 3, nn.Linear, nn.Tanh]


def test_dropout_starts_at_the_second_hidden_layer():
    kinds = [type(layer) for layer in MLP(**CONDITIONAL).discriminator(Spec((1, 28, 28), 10, latent=100)).layers]
    assert kinds == [nn.Linear, nn.LeakyReLU, *[nn.Linear, nn.Dropout, nn.LeakyReLU] * 2, nn.Flatten]


@pytest.mark.parametrize("classes", [0, 5])
@pytest.mark.parametrize("shape", [(2,), (3, 8, 8), (1, 28, 28), (32,), (2, 3, 4, 5)])
def test_linear_layers_take_any_shape(shape, classes):
    spec = Spec(shape, classes, latent=8)
    G, D = MLP(**TOY).generator(spec), MLP(**TOY).discriminator(spec)
    cond = {"label": torch.arange(6) % classes} if classes else {}
    x = G(torch.randn(6, 8), **cond)
    assert x.shape == (6, *shape)
    output = D(x, **cond)
    assert output.logits.shape == (6,)
    assert output.features.shape == (6, D.feature_width) == (6, 128)
    duel = Duel(D, torch.randn(6, *shape), x, real_cond=cond)
    duel.input_gradient("real").square().sum().backward()
    assert duel.input_gradient("real").shape == (6, x[0].numel())


def test_linear_output_has_no_bounds_and_tanh_has():
    spec = Spec((2,), latent=8)
    for output, bounded in (("linear", False), ("tanh", True)):
        G = MLP(**{**TOY, "output": output}).generator(spec)
        with torch.no_grad():
            G.layers[6].weight.mul_(100)
        assert bool(G(torch.randn(64, 8)).abs().max() <= 1) == bounded


def test_convolutions_still_refuse_what_is_no_image():
    for role in (MLP().generator, MLP().discriminator):
        with pytest.raises(PluginError, match="cannot make samples of shape"):
            role(Spec((2,)))


@pytest.mark.parametrize("spec", [Spec((), latent=8), Spec((2,), latent=0)])
def test_nothing_comes_of_nothing(spec):
    with pytest.raises(PluginError, match="at least one number"):
        MLP(**TOY).generator(spec)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"generator_hidden": ()}, "generator_hidden"),
        ({"discriminator_hidden": (4, 0)}, "discriminator_hidden"),
        ({"discriminator_dropout": 1.0}, "discriminator_dropout"),
    ],
)
def test_options_out_of_range_are_refused(options, culprit):
    with pytest.raises(PluginError, match=culprit):
        MLP(**options)


# labels ---------------------------------------------------------------------------------------------------------------


def test_projection_and_heads_by_hand():
    features, label = torch.randn(4, 3), torch.tensor([1, 0, 1, 1])
    raw = torch.randn(4, 1)
    projection = LabelledLogit(3, 2, "projection")
    expected = [
        raw[n, 0] + sum(projection.embedding.weight[label[n], f] * features[n, f] for f in range(3)) for n in range(4)
    ]
    torch.testing.assert_close(projection(raw, features, label), torch.stack(expected))
    heads = LabelledLogit(3, 2, "heads")
    raw = torch.randn(4, 2)
    assert heads.outputs == 2
    assert torch.equal(heads(raw, features, label), torch.stack([raw[0, 1], raw[1, 0], raw[2, 1], raw[3, 1]]))
    assert torch.equal(LabelledLogit(3, 2, "none")(raw[:, :1], features, label), raw[:, 0])


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    "family",
    [
        lambda use: DCGAN(width=4, discriminator_norm="none", discriminator_label=use),
        lambda use: MLP(discriminator_norm="none", discriminator_label=use),
        lambda use: MLP(**{**TUTORIAL, "discriminator_label": use}),
    ],
    ids=["dcgan", "mlp", "mlp-linear"],
)
def test_every_use_of_the_label_reaches_the_logit_and_trains(family, use):
    spec = Spec((3, 16, 16), 3, latent=8)
    D = family(use).discriminator(spec)
    x = torch.rand(5, 3, 16, 16) * 2 - 1
    one, other = (D(x, label=(torch.arange(5) + first) % 3) for first in (0, 1))
    assert one.logits.shape == (5,)
    assert one.features.shape == (5, D.feature_width)
    assert torch.equal(one.logits, other.logits) == (use == "none")
    assert torch.equal(one.features, other.features) == (use != "concatenation")
    D(x, label=torch.arange(5) % 3).logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in D.parameters())


@pytest.mark.parametrize("use", ["concatenation", "projection", "heads"])
def test_labels_missing_or_unwanted_are_refused(use):
    x = torch.rand(4, 3, 16, 16)
    for family in (DCGAN(width=4, discriminator_label=use), MLP(**{**TUTORIAL, "discriminator_label": use})):
        with pytest.raises(PluginError, match="3 classes was given no labels"):
            family.discriminator(Spec((3, 16, 16), 3))(x)
        with pytest.raises(PluginError, match="0 classes was given labels"):
            family.discriminator(Spec((3, 16, 16)))(x, label=torch.arange(4))


def test_heads_share_all_but_the_last_layer():
    spec = Spec((2,), 7, latent=8)
    one = MLP(**TOY).discriminator(Spec((2,), latent=8))
    heads = MLP(**{**TOY, "discriminator_label": "heads"}).discriminator(spec)
    assert parameters(heads) - parameters(one) == 6 * (128 + 1)
