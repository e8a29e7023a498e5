"""The original game's value function, played by both sides."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ganzoo.api import Loss


class Minimax(Loss):
    """The zero-sum game of the first GAN (Goodfellow et al. 2014, arXiv:1406.2661).

    D minimises -log s(real) - log(1 - s(fake)), G minimises log(1 - s(fake)), with s the sigmoid. G's gradient vanishes
    where D wins; `non-saturating` is what the paper itself trains with.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the binary cross-entropy of real against fake."""
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return the mean of log(1 - s(fake))."""
        return -F.softplus(fake).mean()
