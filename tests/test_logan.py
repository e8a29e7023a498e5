"""Latent optimisation, and what the trainer does for it: every step by hand, who pays, and whose gradients run through."""

import pytest
import torch
from ganzoo_plugins.games.latent_optimisation import LatentOptimisation
from ganzoo_plugins.regularizers.r2 import R2
from torch import Tensor, nn
from torch.nn.functional import softplus

from ganzoo import train
from ganzoo.api import Batch, Game, PluginError, Regularizer, Spec
from ganzoo.benchmark.report import macs
from ganzoo.flops import FlopCounter
from ganzoo.game import Duel, Scene, TwoPlayer
from ganzoo.testing.tiny import TinyLoss, tiny_data, tiny_trainer

LATENT, PIXELS = 3, 4


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Linear(nn.Module):
    """G(z) = z A."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(LATENT, PIXELS, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.a


class Quadratic(nn.Module):
    """D(x) = v . x + |x|^2 / 2."""

    def __init__(self) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.randn(PIXELS, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.v + x.square().sum(1) / 2


def by_hand(a: Tensor, v: Tensor, z: Tensor, steps: int, alpha: float, beta: float, bound: float | None = None) -> Tensor:
    """z' by the closed form of the gradient: dD(zA)/dz = A (v + A^T z)."""
    for _ in range(steps):
        gradient = (v + z @ a) @ a.T
        z = z + alpha * gradient / (beta + gradient.square().sum(1, keepdim=True))
        z = z if bound is None else z.clamp(-bound, bound)
    return z


def scene_of(game: Game, nets: dict[str, nn.Module], z: Tensor, acting: str = "G") -> Scene:
    return game.play(nets, Batch(torch.randn(len(z), PIXELS, dtype=torch.float64)), z, acting)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_all_steps_are_taken(steps: int) -> None:
    """PyTorch-StudioGAN returns inside its loop, so that the first step is the last (issue 63 there)."""
    game = LatentOptimisation(alpha=0.3, beta=0.5, steps=steps, share=1.0, cost=0.7)
    nets, z = {"G": Linear(), "D": Quadratic()}, torch.randn(5, LATENT, dtype=torch.float64)
    scene = scene_of(game, nets, z)
    expected = by_hand(nets["G"].a.detach(), nets["D"].v.detach(), z, steps, 0.3, 0.5)
    duel = scene.duels[0]
    torch.testing.assert_close(duel.z.detach(), expected)
    torch.testing.assert_close(duel.fake.detach(), expected @ nets["G"].a.detach())
    torch.testing.assert_close(scene.extra_losses["way"].detach(), 0.7 * (expected - z).square().sum(1).mean())


@pytest.mark.parametrize("steps", [0, 1, 10])
def test_sampling_takes_all_of_its_own_steps(steps: int) -> None:
    game = LatentOptimisation(alpha=0.3, beta=0.5, steps=1, share=0.1, sampling_steps=steps)
    nets, z = {"G": Linear(), "D": Quadratic()}, torch.randn(5, LATENT, dtype=torch.float64)
    a, v = nets["G"].a.detach(), nets["D"].v.detach()
    with torch.no_grad():
        made = game.sample(nets, z, {})
    torch.testing.assert_close(made, by_hand(a, v, z, steps, 0.3, 0.5) @ a)
    assert not made.requires_grad
    assert torch.equal(game.sample(nets, z, {}).detach(), made)  # nothing is drawn


def test_gradients_of_both_networks_run_through_the_moves() -> None:
    """Against the same sum differentiated through the closed form, whose derivative is autograd's of other operations."""
    game = LatentOptimisation(alpha=0.3, beta=0.5, steps=2, share=1.0)
    nets, z = {"G": Linear(), "D": Quadratic()}, torch.randn(5, LATENT, dtype=torch.float64)
    scene = scene_of(game, nets, z)
    logits = nets["D"](scene.duels[0].fake)
    found = torch.autograd.grad(softplus(logits).mean(), [nets["G"].a, nets["D"].v])
    a, v = (one.detach().clone().requires_grad_() for one in (nets["G"].a, nets["D"].v))
    x = by_hand(a, v, z, 2, 0.3, 0.5) @ a
    expected = torch.autograd.grad(softplus(x @ v + x.square().sum(1) / 2).mean(), [a, v])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("acting", ["D", "G"])
@pytest.mark.parametrize(("through", "running"), [("both", "DG"), ("discriminator", "D"), ("generator", "G"), ("none", "")])
def test_a_player_may_take_the_moves_as_given(through: str, running: str, acting: str) -> None:
    """Then its gradient is that at latents which are numbers, and it pays nothing for the way."""
    game = LatentOptimisation(alpha=0.3, beta=0.5, steps=2, share=1.0, through=through)  # type: ignore[arg-type]
    nets, z = {"G": Linear(), "D": Quadratic()}, torch.randn(5, LATENT, dtype=torch.float64)
    scene = scene_of(game, nets, z, acting)
    duel = scene.duels[0]
    found = torch.autograd.grad(softplus(nets["D"](duel.fake)).mean(), [nets["G"].a, nets["D"].v])
    a, v = (one.detach().clone().requires_grad_() for one in (nets["G"].a, nets["D"].v))
    better = by_hand(a, v, z, 2, 0.3, 0.5)
    torch.testing.assert_close(duel.z.detach(), better.detach())
    runs = acting in running
    x = (better if runs else better.detach()) @ a
    expected = torch.autograd.grad(softplus(x @ v + x.square().sum(1) / 2).mean(), [a, v])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert duel.attached == runs
    assert ("way" in scene.extra_losses) == runs


def test_a_share_of_the_samples_moves_in_each_step() -> None:
    game = LatentOptimisation(share=0.8)
    nets, z = {"G": Linear(), "D": Quadratic()}, torch.randn(4000, LATENT, dtype=torch.float64)
    moved = (scene_of(game, nets, z).duels[0].z != z).any(1)
    assert float(moved.double().mean()) == pytest.approx(0.8, abs=0.03)
    twice = LatentOptimisation(share=0.8, steps=2)
    moved = (scene_of(twice, nets, z).duels[0].z != z).any(1)
    assert float(moved.double().mean()) == pytest.approx(1 - 0.2**2, abs=0.02)  # drawn anew


def test_uniform_latents_stay_in_their_bounds() -> None:
    nets, z = {"G": Linear(), "D": Quadratic()}, torch.rand(50, LATENT, dtype=torch.float64) * 2 - 1
    for prior, bound in (("uniform", 1.0), ("normal", None)):
        game = LatentOptimisation(alpha=2.0, share=1.0, steps=2)
        spec = Spec(shape=(PIXELS,), prior=prior)
        assert game.spec(spec) == spec
        better = scene_of(game, nets, z).duels[0].z.detach()
        torch.testing.assert_close(better, by_hand(nets["G"].a.detach(), nets["D"].v.detach(), z, 2, 2.0, 0.1, bound))
        assert (float(better.abs().max()) <= 1) == (prior == "uniform")


def test_the_longest_step_is_bounded() -> None:
    """alpha |g| / (beta + |g|^2) is at most alpha / (2 sqrt(beta)), at |g| = sqrt(beta), however steep D is."""
    game = LatentOptimisation(alpha=0.9, beta=0.1, share=1.0)
    nets = {"G": Linear(), "D": Quadratic()}
    z = torch.randn(200, LATENT, dtype=torch.float64) * torch.logspace(-3, 3, 200, dtype=torch.float64)[:, None]
    step = (scene_of(game, nets, z).duels[0].z.detach() - z).norm(dim=1)
    assert float(step.max()) <= 0.9 / (2 * 0.1**0.5) + 1e-9
    assert bool(torch.isfinite(step).all())


def test_refusals() -> None:
    for options, match in (
        ({"beta": 0.0}, "'beta'"),
        ({"steps": 0}, "'steps'"),
        ({"sampling_steps": -1}, "'sampling_steps'"),
        ({"share": 0.0}, "'share'"),
    ):
        with pytest.raises(PluginError, match=match):
            LatentOptimisation(**options)


def test_both_players_pay_for_the_way_and_d_through_it() -> None:
    game = lambda: LatentOptimisation(cost=2.0, share=1.0)  # noqa: E731
    trainer = tiny_trainer(game=game)
    trainer.round()
    terms = trainer.report().terms
    assert terms["D/way"] > 0
    assert terms["G/way"] > 0

    class Nothing(TinyLoss):
        """Leaves the way as all that there is to pay."""

        def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
            return super().discriminator(real, fake) * 0

    trainer = tiny_trainer(
        game=game, loss=Nothing, raw={"train": {"turns": ["D"]}, "optimizer": {"name": "sgd", "lr": 1.0}}
    )
    before = [p.detach().clone() for p in trainer.nets["D"].parameters()]
    trainer.round()
    assert any(not torch.equal(old, new) for old, new in zip(before, trainer.nets["D"].parameters(), strict=True))


def test_it_trains_lazily_conditionally_and_with_a_penalty_on_fakes() -> None:
    """A lazy phase needs a graph of its own: the main phase has spent the one that leads through the fakes."""
    raw = {"regularizer": {"r2": {"every": 2}}, "latent": {"size": 8, "prior": "uniform"}}
    trainer = tiny_trainer(game=LatentOptimisation, regularizers={"r2": R2}, data=tiny_data(classes=2), raw=raw)
    for _ in range(4):
        trainer.round()
    assert trainer.report().terms["D/r2"] > 0
    assert trainer.game.bounded


def test_a_discriminator_pays_only_extra_losses_that_are_its_own() -> None:
    class Extra(TwoPlayer):
        """A game with a term for each network and one for nobody."""

        def play(self, nets, batch, z, acting):  # type: ignore[no-untyped-def]
            scene = super().play(nets, batch, z, acting)
            for name, net in nets.items():
                scene.extra_losses[name] = sum(p.square().sum() for p in net.parameters())
            scene.extra_losses["nobody"] = z.square().mean()
            return scene

    trainer = tiny_trainer(game=Extra, raw={"train": {"turns": ["D", "D", "G"], "batch": 4}})
    trainer.round()
    paid = [term for term, _ in trainer.terms if term.split("/")[1] in ("D", "G", "nobody")]
    # D's second turn leaves its scene to G, and so its extra losses; in its first one nothing but its own is its to pay
    assert paid == ["D/D", "G/D", "G/G", "G/nobody"]


def test_fakes_are_detached_in_d_s_turn_unless_they_are_attached() -> None:
    seen = []

    class Spy(Regularizer):
        def penalty(self, duel: Duel) -> None:
            seen.append((duel.acting, duel.fake.requires_grad))

    for game in (TwoPlayer, LatentOptimisation):
        tiny_trainer(game=game, regularizers={"spy": Spy}).round()
    assert seen == [("discriminator", False), ("discriminator", True)]
    tiny_trainer(game=lambda: LatentOptimisation(through="generator"), regularizers={"spy": Spy}).round()
    assert seen[2:] == [("discriminator", False)]


def test_what_a_sample_drawn_along_a_gradient_costs_is_counted(tmp_path, monkeypatch) -> None:
    """G and D forward, both backward to the latents, G again; backward a layer costs the same, spectral norm nothing."""
    monkeypatch.chdir(tmp_path)
    small = {
        "architecture.generator_width": 4,
        "architecture.discriminator_width": 4,
        "latent.size": 8,
        "train.samples": 16,
    }
    plain, moved = (
        train("logan", run=tmp_path / str(steps), settings={**small, "train.batch": 8, "game.sampling_steps": steps})
        for steps in (0, 1)
    )
    with FlopCounter() as of_d:
        moved.nets["D"](torch.zeros(1, 1, 32, 32))
    normed = sum(p.numel() for name, p in moved.nets["D"].named_parameters() if name.endswith(".original"))
    assert normed > 0
    assert macs(moved) == 3 * macs(plain) + of_d.total - normed
