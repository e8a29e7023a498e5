"""Every loss against numbers worked out by hand, and the direction in which it pushes logits."""

import math

import pytest
import torch
from ganzoo_plugins.losses.hinge import Hinge
from ganzoo_plugins.losses.least_squares import LeastSquares
from ganzoo_plugins.losses.minimax import Minimax
from ganzoo_plugins.losses.non_saturating import NonSaturating
from ganzoo_plugins.losses.relativistic import Relativistic
from ganzoo_plugins.losses.wasserstein import Wasserstein

from ganzoo.api import Loss, PluginError

REAL = [0.5, -2.0, 3.0]
FAKE = [-0.25, 1.5, -4.0]
ALL = [Minimax(), NonSaturating(), LeastSquares(), Wasserstein(), Hinge(), Relativistic()]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


CROSS_ENTROPY = mean([-math.log(sigmoid(r)) for r in REAL]) + mean([-math.log(1 - sigmoid(f)) for f in FAKE])
EXPECTED = [
    (Minimax(), CROSS_ENTROPY, mean([math.log(1 - sigmoid(f)) for f in FAKE])),
    (NonSaturating(), CROSS_ENTROPY, mean([-math.log(sigmoid(f)) for f in FAKE])),
    (
        LeastSquares(),
        mean([(r - 1) ** 2 / 2 for r in REAL]) + mean([f**2 / 2 for f in FAKE]),
        mean([(f - 1) ** 2 / 2 for f in FAKE]),
    ),
    (
        LeastSquares(fake_target=-1.0, real_target=2.0, generator_target=0.5),
        mean([(r - 2) ** 2 / 2 for r in REAL]) + mean([(f + 1) ** 2 / 2 for f in FAKE]),
        mean([(f - 0.5) ** 2 / 2 for f in FAKE]),
    ),
    (Wasserstein(), (-0.25 + 1.5 - 4.0) / 3 - (0.5 - 2.0 + 3.0) / 3, (0.25 - 1.5 + 4.0) / 3),
    (Hinge(), (0.5 + 3.0 + 0.0) / 3 + (0.75 + 2.5 + 0.0) / 3, (0.25 - 1.5 + 4.0) / 3),
    (
        Relativistic(),
        mean([-math.log(sigmoid(r - f)) for r, f in zip(REAL, FAKE, strict=True)]),
        mean([-math.log(sigmoid(f - r)) for r, f in zip(REAL, FAKE, strict=True)]),
    ),
]


def named(loss: object) -> str:
    return type(loss).__name__


def generator_side(loss: Loss, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    return loss.generator(fake, real if loss.relativistic else None)


@pytest.mark.parametrize(("loss", "discriminator", "generator"), EXPECTED, ids=lambda value: named(value))
def test_values(loss: Loss, discriminator: float, generator: float) -> None:
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    pairs = ((loss.discriminator(real, fake), discriminator), (generator_side(loss, fake, real), generator))
    for value, expected in pairs:
        assert value.shape == ()
        assert float(value) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss", ALL, ids=named)
def test_a_patch_discriminator_weighs_every_logit_alike(loss: Loss) -> None:
    real, fake = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(loss.discriminator(real, fake), loss.discriminator(real.flatten(), fake.flatten()))
    torch.testing.assert_close(generator_side(loss, fake, real), generator_side(loss, fake.flatten(), real.flatten()))


@pytest.mark.parametrize("loss", ALL, ids=named)
def test_gradients_pull_apart_in_one_turn_and_up_in_the_other(loss: Loss) -> None:
    real = torch.tensor([-0.5, 0.0, 0.5], requires_grad=True)
    fake = torch.tensor([0.25, 0.5, 0.75], requires_grad=True)
    down_real, down_fake = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
    (down,) = torch.autograd.grad(generator_side(loss, fake, real.detach()), fake)
    assert (down_real < 0).all()
    assert (down_fake > 0).all()
    assert (down < 0).all()


@pytest.mark.parametrize("loss", ALL, ids=named)
def test_extreme_logits_stay_finite(loss: Loss) -> None:
    real, fake = torch.tensor([-1e4, 1e4], requires_grad=True), torch.tensor([1e4, -1e4], requires_grad=True)
    for value in (loss.discriminator(real, fake), generator_side(loss, fake, real)):
        value.backward()
        assert value.isfinite()
    assert real.grad is not None
    assert fake.grad is not None
    assert real.grad.isfinite().all()
    assert fake.grad.isfinite().all()


def test_minimax_is_a_zero_sum_game() -> None:
    loss, real = Minimax(), torch.tensor(REAL)
    totals = [loss.discriminator(real, fake) + loss.generator(fake, None) for fake in (torch.randn(3), torch.randn(3))]
    torch.testing.assert_close(*totals)


def test_only_the_non_saturating_generator_learns_where_the_discriminator_wins() -> None:
    fake = torch.tensor([-10.0], requires_grad=True)
    (saturated,) = torch.autograd.grad(Minimax().generator(fake, None), fake)
    (strong,) = torch.autograd.grad(NonSaturating().generator(fake, None), fake)
    assert abs(float(saturated)) < 1e-4
    assert float(strong) == pytest.approx(-1, abs=1e-4)


def test_hinge_lets_go_beyond_the_margin() -> None:
    real, fake = torch.tensor([1.5], requires_grad=True), torch.tensor([-1.5], requires_grad=True)
    for gradient in torch.autograd.grad(Hinge().discriminator(real, fake), (real, fake)):
        assert float(gradient) == 0


def test_relativistic_generator_needs_the_reals() -> None:
    assert [type(loss) for loss in ALL if loss.relativistic] == [Relativistic]
    with pytest.raises(PluginError, match="real logits"):
        Relativistic().generator(torch.zeros(2), None)
