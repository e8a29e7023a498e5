"""The loss that the first GANs, and most since, were in fact trained with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ganzoo.api import Loss


class NonSaturating(Loss):
    """Binary cross-entropy on both sides, so that G learns most where D wins (Goodfellow et al. 2014, arXiv:1406.2661).

    D minimises -log s(real) - log(1 - s(fake)), G minimises -log s(fake), with s the sigmoid.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the binary cross-entropy of real against fake."""
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return the mean of -log s(fake)."""
        return F.softplus(-fake).mean()
