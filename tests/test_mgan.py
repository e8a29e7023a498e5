"""MGAN: first layers of one's own, generators that take turns, the classifier between them, and that they part the data."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from ganzoo_plugins.architectures.dcgan import DCGAN
from ganzoo_plugins.architectures.mlp import MLP
from ganzoo_plugins.games.multi_generator import MultiGenerator
from ganzoo_plugins.regularizers.auxiliary_classifier import AuxiliaryClassifier
from torch import nn

from ganzoo.api import PluginError, Spec, TensorDataset
from ganzoo.game import Duel
from ganzoo.layers.conditional import is_told
from ganzoo.layers.first_layers import ClassBatchNorm, ClassLinear, FirstLayers
from ganzoo.testing.tiny import Onlooker, TinyDiscriminator, tiny_data, tiny_trainer

CLASSIFIER = partial(AuxiliaryClassifier, real=False, fakes=True)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# layers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_class_linear_is_so_many_linear_layers(bias):
    layer = ClassLinear(5, 7, 3, bias=bias)
    x, label = torch.randn(8, 5), torch.tensor([2, 0, 1, 1, 2, 2, 0, 2])
    for row, k, made in zip(x, label.tolist(), layer(x, label), strict=True):
        expected = row @ layer.weight[k]
        torch.testing.assert_close(made, expected + layer.bias[k] if bias else expected)
    assert layer.weight.abs().max() <= 1 / math.sqrt(5)


@pytest.mark.parametrize("shape", [(4,), (4, 3, 3)], ids=["vectors", "maps"])
def test_class_batch_norm_is_so_many_batch_norms(shape):
    """Against torch's on each label's samples alone: in training with gradients, running statistics, then at rest."""
    norm = ClassBatchNorm(4, 3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    plain = nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d
    theirs = [plain(4) for _ in range(3)]
    for k, one in enumerate(theirs):
        one.weight.data, one.bias.data = norm.weight[k].detach().clone(), norm.bias[k].detach().clone()
    label = torch.tensor([2, 0, 1, 1, 2, 2, 0, 2, 1])
    for step in range(4):
        if step == 3:
            norm.eval()
        x = torch.randn(9, *shape) * 3 + 1
        mine, yours = x.clone().requires_grad_(), x.clone().requires_grad_()
        made, weights = norm(mine, label), torch.randn(9, *shape)
        expected = torch.zeros_like(made)
        for k, one in enumerate(theirs):
            expected[label == k] = one.train(step < 3)(yours[label == k])
        torch.testing.assert_close(made, expected)
        (made * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(mine.grad, yours.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norm.running_mean, torch.stack([one.running_mean for one in theirs]))
    torch.testing.assert_close(norm.running_var, torch.stack([one.running_var for one in theirs]))
    torch.testing.assert_close(norm.weight.grad, torch.stack([one.weight.grad for one in theirs]), atol=1e-5, rtol=1e-4)


def test_who_is_not_in_the_batch_keeps_its_statistics():
    norm = ClassBatchNorm(2, 3, momentum=0.5)
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0], [8.0, 2.0]], requires_grad=True)
    made = norm(x, torch.tensor([0, 0, 2]))
    torch.testing.assert_close(made, torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), atol=1e-4, rtol=0)
    made.square().sum().backward()
    assert all(torch.isfinite(grad).all() for grad in (x.grad, norm.weight.grad))
    assert norm.running_mean.tolist() == [[1.0, 2.5], [0.0, 0.0], [4.0, 1.0]]
    assert norm.running_var.tolist() == [[1.5, 0.5], [1.0, 1.0], [1.0, 1.0]]  # one number has no variance


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_dcgan_is_as_many_generators_that_share_the_rest(norm):
    """Each class is the unconditional generator whose first layer is that class's own."""
    spec = Spec((3, 16, 16), classes=3, latent=6)
    made = DCGAN(width=4, generator_norm=norm, generator_label="first-layer")
    G = made.generator(spec)
    plain = made.generator(Spec((3, 16, 16), latent=6))
    first, rest = (1, 2)[norm == "batch"], G.layers
    assert [type(layer) for layer in plain.layers[first:]] == [type(layer) for layer in rest]
    nn.Sequential(*plain.layers[first:]).load_state_dict(rest.state_dict())
    z = torch.randn(5, 6)
    for k in range(3):
        weight = G.condition.linear.weight[k].unflatten(1, (4, 4, 8))
        plain.layers[0].weight.data = weight.detach().permute(0, 3, 1, 2).clone()
        if norm == "batch":
            plain.layers[1].weight.data = G.condition.norm.weight[k].detach().clone()
        torch.testing.assert_close(G(z, torch.full((5,), k)), plain(z))
    own = 2 * 8 if norm == "batch" else 16 * 8  # scales and shifts, or biases
    shared = sum(p.numel() for p in rest.parameters())
    assert sum(p.numel() for p in G.parameters()) == shared + 3 * (6 * 16 * 8 + own)
    assert G.condition.linear.weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(("norm", "norms"), [("batch", (1, 1)), ("inner", (0, 1)), ("none", (0, 0))])
def test_mlp_is_as_many_generators_that_share_the_rest(norm, norms):
    made = MLP(generator_hidden=(8, 12), generator_norm=norm, generator_label="first-layer")
    G = made.generator(Spec((1, 16, 16), classes=3, latent=6))
    plain = made.generator(Spec((1, 16, 16), latent=6))
    assert sum(isinstance(layer, ClassBatchNorm) for layer in G.modules()) == norms[0]
    assert sum(isinstance(layer, nn.BatchNorm1d) for layer in G.modules()) == norms[1]
    nn.Sequential(*plain.layers[1 + norms[0] :]).load_state_dict(G.layers.state_dict())
    z = torch.randn(5, 6)
    for k in range(3):
        linear = G.condition.linear
        plain.layers[0].weight.data = linear.weight[k].detach().T.clone()
        if norms[0]:
            plain.layers[0].bias.data.zero_()
        else:
            plain.layers[0].bias.data = linear.bias[k].detach().clone()
        torch.testing.assert_close(G(z, torch.full((5,), k)), plain(z))


@pytest.mark.parametrize("architecture", [DCGAN, MLP])
def test_without_classes_there_is_one_first_layer(architecture):
    spec = Spec((1, 16, 16), latent=6)
    one, other = (architecture(generator_label=use).generator(spec) for use in ("first-layer", "concatenation"))
    assert {key: value.shape for key, value in one.state_dict().items()} == {
        key: value.shape for key, value in other.state_dict().items()
    }


def test_first_layers_want_labels():
    with pytest.raises(PluginError, match="was given no labels"):
        FirstLayers(4, 3, (5,), normed=True)(torch.randn(2, 4))


# the game -------------------------------------------------------------------------------------------------------------


def game(prior="uniform", latent=3, **options):
    made = MultiGenerator(**options)
    return made, made.spec(Spec((1, 16, 16), latent=latent, prior=prior))


def test_the_generators_are_classes_of_the_networks():
    _, spec = game(generators=4)
    assert (spec.classes, spec.latent) == (4, 2)


def test_each_latent_goes_through_the_generators_one_after_the_other():
    made, _ = game(generators=3)
    z = torch.tensor([[0.9, 1, 2], [0, 3, 4], [0, 5, 6], [-0.9, 7, 8], [0, 9, 9], [0, 9, 9], [0.1, 5, 5], [0, 9, 9]])
    dealt, generator = made.dealt(z)
    assert generator.tolist() == [2, 0, 1, 0, 1, 2, 1, 2]  # the first of each group by its first entry
    assert dealt[:, 1:].tolist() == [[1, 2]] * 3 + [[7, 8]] * 3 + [[5, 5]] * 2


@pytest.mark.parametrize("prior", ["normal", "uniform"])
@pytest.mark.parametrize("same_noise", [True, False])
@pytest.mark.parametrize("batch", [5, 23])
def test_all_generators_get_as_many_turns(prior, same_noise, batch):
    """Also where a batch is smaller than their number, or no multiple of it."""
    made, _ = game(prior, generators=8, same_noise=same_noise)
    counts = torch.zeros(8)
    for _ in range(1500):
        z = torch.randn(batch, 3) if prior == "normal" else torch.rand(batch, 3) * 2 - 1
        dealt, generator = made.dealt(z)
        count = generator.bincount(minlength=8)
        assert not same_noise or count.max() - count.min() <= 1
        assert same_noise or torch.equal(dealt, z)
        counts += count
    torch.testing.assert_close(counts / counts.sum(), torch.full((8,), 1 / 8), atol=0.015, rtol=0)


def test_fakes_follow_from_the_duel_s_latents_and_labels():
    trainer = tiny_trainer(game=partial(MultiGenerator, generators=3))
    z = torch.randn(8, 8)
    (duel,) = trainer.game.play(trainer.nets, trainer.feed.batch(0, 8), z, "D").duels
    torch.testing.assert_close(duel.generate(duel.z, duel.fake_cond), duel.fake)
    expected = trainer.nets["G"](duel.z[:, 1:], label=duel.fake_cond["label"])
    torch.testing.assert_close(duel.fake, expected)


def test_samples_are_of_the_generator_that_the_latent_or_the_label_names():
    trainer = tiny_trainer(game=partial(MultiGenerator, generators=3), raw={"latent": {"prior": "uniform"}})
    G, sample = trainer.nets["G"], trainer.game.sample
    z = torch.rand(6, 8) * 2 - 1
    chosen = ((z[:, 0] + 1) / 2 * 3).floor().long()
    torch.testing.assert_close(sample(trainer.nets, z, {}), G(z[:, 1:], label=chosen))
    label = torch.full((6,), 2)
    torch.testing.assert_close(sample(trainer.nets, z, {"label": label}), G(z[:, 1:], label=label))
    assert trainer.game.chosen(torch.tensor([[1.0], [-1.0], [40.0], [-40.0]])).tolist() == [2, 0, 2, 0]


@pytest.mark.parametrize("use", ["concatenation", "projection", "heads", "none"])
@pytest.mark.parametrize("architecture", [partial(DCGAN, width=2), MLP], ids=["dcgan", "mlp"])
def test_a_discriminator_that_knows_the_generator_is_refused(architecture, use):
    D = architecture(discriminator_label=use).discriminator(Spec((1, 16, 16), classes=3))
    assert is_told(D) == (use != "none")
    build = partial(tiny_trainer, game=MultiGenerator, architecture=partial(architecture, discriminator_label=use))
    if use == "none":
        build().round()
    else:
        with pytest.raises(PluginError, match="needs a discriminator that is told no label"):
            build()


def test_nonsense_is_refused():
    with pytest.raises(PluginError, match="takes labels for generators"):
        tiny_trainer(game=MultiGenerator, data=tiny_data(classes=2))
    with pytest.raises(PluginError, match="2 latents or more"):
        game(latent=1)
    with pytest.raises(PluginError, match="'generators' at least, not 0"):
        MultiGenerator(generators=0)
    with pytest.raises(PluginError, match="nothing to learn from"):
        AuxiliaryClassifier(real=False)


# the classifier -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("acting", "beta"), [("discriminator", 1.0), ("generator", 0.01)])
def test_both_sides_pay_for_fakes_alone(acting, beta):
    rule = CLASSIFIER(generator=0.01)
    spec = rule.shown(Spec((1, 16, 16), classes=4))
    D = TinyDiscriminator(spec)
    rule.prepare(D)
    real, fake, label = torch.randn(3, 1, 16, 16), torch.randn(3, 1, 16, 16), torch.tensor([3, 0, 1])
    duel = Duel(D, real, fake, real_cond={"label": label}, acting=acting)
    expected = 0.0
    for row, k in zip(rule.layers(D(fake, label).features).tolist(), label.tolist(), strict=True):
        expected += (math.log(sum(math.exp(logit) for logit in row)) - row[k]) / 3
    assert rule.penalty(duel).item() == pytest.approx(beta * expected, rel=1e-5)
    assert "real" not in duel._outputs  # real samples are not even shown


def test_the_generators_part_the_data_among_them():
    corners = torch.tensor([[x, y] for x in (-0.6, 0.6) for y in (-0.6, 0.6)])
    data = TensorDataset(corners.repeat(64, 1) + 0.05 * torch.randn(256, 2))
    points = partial(
        MLP,
        generator_hidden=(32, 32),
        generator_norm="none",
        generator_label="first-layer",
        output="linear",
        discriminator_layers="linear",
        discriminator_hidden=(32, 32),
        discriminator_norm="none",
        discriminator_label="none",
    )
    trainer = tiny_trainer(
        architecture=points,
        game=partial(MultiGenerator, generators=4),
        regularizers={"classifier": partial(CLASSIFIER, generator=1.0)},
        data=data,
        raw={"train": {"samples": 64 * 300, "batch": 64}, "optimizer": {"lr": 3e-3}},
    )
    trainer.round()
    assert trainer.report().terms["D/classifier"] == pytest.approx(math.log(4), abs=0.1)  # nothing can be told yet
    trainer.fit(Onlooker())
    label = torch.arange(400) % 4
    with torch.no_grad():
        x = trainer.game.sample(trainer.nets, torch.randn(400, 8), {"label": label})
    nearest = torch.cdist(x, corners).argmin(1)
    table = torch.stack([nearest[label == k].bincount(minlength=4) for k in range(4)])
    assert sorted(table.argmax(1).tolist()) == [0, 1, 2, 3]
    assert table.amax(1).sum() > 0.9 * 400
