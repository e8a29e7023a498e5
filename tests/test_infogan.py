"""InfoGAN: codes out of plain latents, how badly they are guessed, and that they come to mean something."""

from __future__ import annotations

import math
from functools import partial
from statistics import NormalDist

import pytest
import torch
from ganzoo_plugins.architectures.mlp import MLP
from ganzoo_plugins.games.infogan import CodedSpec, InfoGAN
from ganzoo_plugins.regularizers.mutual_information import MutualInformation
from torch import nn

from ganzoo.api import PluginError, Spec, TensorDataset
from ganzoo.testing.tiny import Onlooker, TinyDiscriminator, tiny_trainer


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def game(prior: str = "normal", latent: int = 6, **options: object) -> tuple[InfoGAN, Spec]:
    made = InfoGAN(**options)
    return made, made.spec(Spec((1, 16, 16), latent=latent, prior=prior))


def test_codes_by_hand_from_normal_latents():
    made, spec = game(categorical=(4, 2), continuous=1)
    assert isinstance(spec, CodedSpec)
    assert (spec.latent, spec.categorical, spec.continuous) == (6 + 3 + 1, (4, 2), 1)
    z = torch.randn(50, 6)
    coded = made.coded(z)
    assert coded.shape == (50, spec.latent)
    for row, given in zip(coded.tolist(), z.tolist(), strict=True):
        shares = [NormalDist().cdf(value) for value in given[:3]]
        expected = [0.0] * 6
        expected[int(4 * shares[0])] = 1.0
        expected[4 + int(2 * shares[1])] = 1.0
        assert row == pytest.approx([*expected, 2 * shares[2] - 1, *given[3:]], abs=1e-5)


def test_codes_by_hand_from_uniform_latents():
    made, _ = game("uniform", latent=3, categorical=(4,), continuous=1)
    z = torch.tensor([[-1.0, 0.3, 0.5], [-0.4, -1.0, 0.5], [0.1, 1.0, 0.5], [1.0, 0.0, 0.5]])
    coded = made.coded(z)
    assert torch.equal(coded[:, :4], torch.eye(4))
    torch.testing.assert_close(coded[:, 4:], z[:, 1:])


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_codes_are_uniform_and_independent_of_the_noise(prior):
    made, _ = game(prior, categorical=(5,), continuous=1)
    z = torch.randn(20_000, 6) if prior == "normal" else torch.rand(20_000, 6) * 2 - 1
    coded = made.coded(z)
    assert coded[:, :5].mean(0).tolist() == pytest.approx([0.2] * 5, abs=0.01)
    numbers = coded[:, 5]
    assert numbers.abs().max() <= 1
    assert torch.histc(numbers, 4, -1, 1).tolist() == pytest.approx([5000] * 4, rel=0.05)
    assert torch.corrcoef(coded[:, [0, 5, 6, 7]].T).fill_diagonal_(0).abs().max() < 0.03


def test_extreme_latents_stay_codes():
    made, _ = game(categorical=(3,), continuous=1)
    coded = made.coded(torch.tensor([[50.0] * 6, [-50.0] * 6]))
    assert coded[:, :4].tolist() == [[0, 0, 1, 1], [1, 0, 0, -1]]


def test_a_code_held_fixed_leaves_the_rest_to_vary():
    trainer = tiny_trainer(game=partial(InfoGAN, categorical=(3,), continuous=1))
    z = torch.randn(8, 8)
    z[:, 0] = 0.0
    coded = trainer.game.coded(z)
    assert torch.equal(coded[:, :3], torch.tensor([[0.0, 1.0, 0.0]]).expand(8, 3))
    assert len(coded[:, 3].unique()) == 8
    made = trainer.game.sample(trainer.nets, z, {})
    assert all(not torch.allclose(made[0], other) for other in made[1:])
    z[:, 1:] = z[:1, 1:]
    assert torch.equal(*trainer.game.sample(trainer.nets, z, {})[:2])


@pytest.mark.parametrize(
    "options", [{"categorical": (1,)}, {"categorical": (), "continuous": 0}, {"continuous": -1, "categorical": (2,)}]
)
def test_games_without_codes_are_refused(options):
    with pytest.raises(PluginError, match="needs a code at least"):
        InfoGAN(**options)


def test_too_few_latents_are_refused():
    with pytest.raises(PluginError, match="a latent for each of 3 codes, not 2"):
        game(latent=2)


# the regularizer ------------------------------------------------------------------------------------------------------


def head(spec: Spec, **options: object) -> MutualInformation:
    made = MutualInformation(**options)
    assert made.shown(spec) is spec
    made.prepare(TinyDiscriminator(Spec((1, 16, 16))))
    return made


def test_surprise_by_hand():
    spec = CodedSpec((1, 16, 16), latent=9, categorical=(3, 2), continuous=2)
    z = torch.tensor([[0, 1, 0, 1, 0, 0.5, -0.25, 9, 9], [0, 0, 1, 0, 1, -1.0, 0.75, 9, 9]])
    guess = torch.randn(2, 3 + 2 + 2)
    chosen = [(1, 0), (2, 1)]
    expected = []
    for row, (first, second), code in zip(guess.tolist(), chosen, z.tolist(), strict=True):
        one = -math.log(math.exp(row[first]) / sum(math.exp(value) for value in row[:3]))
        two = -math.log(math.exp(row[3 + second]) / sum(math.exp(value) for value in row[3:5]))
        numbers = sum((c - m) ** 2 / 2 for c, m in zip(code[5:7], row[5:7], strict=True))
        expected.append(one + two + numbers)
    assert head(spec).surprise(guess, z).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_learned_deviation_is_that_of_a_gaussian():
    spec = CodedSpec((1, 16, 16), latent=4, continuous=2)
    z, guess = torch.randn(5, 4), torch.randn(5, 4)
    found = head(spec, deviation="learned").surprise(guess, z)
    gaussian = torch.distributions.Normal(guess[:, :2], guess[:, 2:].exp())
    constant = math.log(2 * math.pi) / 2
    torch.testing.assert_close(found, (-gaussian.log_prob(z[:, :2]) - constant).sum(1))


def test_without_the_game_all_latents_are_codes():
    made = head(Spec((1, 16, 16), latent=3), hidden=0)
    assert [layer.out_features for layer in made.head.modules() if isinstance(layer, nn.Linear)] == [3]
    z, guess = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(made.surprise(guess, z), (z - guess).square().sum(1) / 2)


def test_a_negative_width_is_refused():
    with pytest.raises(PluginError, match="'hidden' of 0"):
        MutualInformation(hidden=-1)


def test_information_rises_and_each_code_takes_a_cluster_of_its_own():
    corners = torch.tensor([[x, y] for x in (-0.6, 0.6) for y in (-0.6, 0.6)])
    data = TensorDataset(corners.repeat(64, 1) + 0.05 * torch.randn(256, 2))
    points = partial(
        MLP,
        generator_hidden=(32, 32),
        generator_norm="none",
        output="linear",
        discriminator_layers="linear",
        discriminator_hidden=(32, 32),
        discriminator_norm="none",
    )
    trainer = tiny_trainer(
        architecture=points,
        game=partial(InfoGAN, categorical=(4,), continuous=0),
        regularizers={"mi": MutualInformation},
        data=data,
        raw={"train": {"samples": 64 * 250, "batch": 64}, "optimizer": {"lr": 3e-3}},
    )
    trainer.round()
    first = trainer.report().terms
    assert [first["D/mi"], first["G/mi"]] == pytest.approx([math.log(4)] * 2, abs=0.05)  # nothing can be read off
    trainer.fit(Onlooker())
    (rule,) = trainer.rules
    z = trainer.game.coded(torch.randn(400, 8))
    with torch.no_grad():
        x = trainer.nets["G"](z)
        surprise = rule.regularizer.surprise(rule.regularizer.head(trainer.nets["D"](x).features), z).mean()
    assert math.log(4) - surprise > 1.2  # of at most log 4 = 1.386 nats
    nearest = torch.cdist(x, corners).argmin(1)
    table = torch.stack([torch.bincount(nearest[z[:, code] == 1], minlength=4) for code in range(4)])
    assert sorted(table.argmax(1).tolist()) == [0, 1, 2, 3]
    assert table.amax(1).sum() > 0.9 * len(z)


def test_q_learns_in_turns_of_d_alone():
    for acting in ("D", "G"):
        trainer = tiny_trainer(game=InfoGAN, regularizers={"mi": MutualInformation}, raw={"train": {"turns": [acting]}})
        before = [parameter.detach().clone() for parameter in trainer.rules[0].regularizer.parameters()]
        trainer.round()
        after = list(trainer.rules[0].regularizer.parameters())
        assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True)) == (acting == "G")
