"""The margin loss of geometric GAN, SNGAN and BigGAN."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ganzoo.api import Loss


class Hinge(Loss):
    """A support vector machine's margin for D, the plain score for G (Lim & Ye 2017, arXiv:1705.02894).

    D minimises max(0, 1 - real) + max(0, 1 + fake), G minimises -fake.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the mean violations of both margins."""
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return the negated score of the fakes."""
        return -fake.mean()
