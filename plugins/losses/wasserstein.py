"""The critic's score as it is."""

from __future__ import annotations

from torch import Tensor

from ganzoo.api import Loss


class Wasserstein(Loss):
    """The dual form of the earth mover's distance (Arjovsky et al. 2017, arXiv:1701.07875).

    D minimises mean(fake) - mean(real), G minimises -mean(fake). It means something only where D is kept Lipschitz: add
    weight-clipping, gradient-penalty, dragan or spectral-norm.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the negated gap between real and fake."""
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return the negated score of the fakes."""
        return -fake.mean()
