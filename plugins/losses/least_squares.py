"""Squared distances to targets instead of cross-entropy."""

from __future__ import annotations

from torch import Tensor

from ganzoo.api import Loss


class LeastSquares(Loss):
    """LSGAN's quadratic loss, which also pulls in fakes that D already takes for real (Mao et al. 2017, arXiv:1611.04076).

    D minimises (real - b)^2 / 2 + (fake - a)^2 / 2 and G (fake - c)^2 / 2; a, b, c are `fake_target`, `real_target` and
    `generator_target`.
    """

    def __init__(self, *, fake_target: float = 0.0, real_target: float = 1.0, generator_target: float = 1.0) -> None:
        super().__init__()
        self.fake_target = fake_target
        self.real_target = real_target
        self.generator_target = generator_target

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return half the mean squared distances of real and fake to their targets."""
        return 0.5 * ((real - self.real_target).square().mean() + (fake - self.fake_target).square().mean())

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return half the mean squared distance of the fakes to what G wants them to be."""
        return 0.5 * (fake - self.generator_target).square().mean()
