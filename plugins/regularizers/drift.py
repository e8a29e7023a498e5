"""Keeps a critic's logits near zero."""

from __future__ import annotations

from torch import Tensor

from ganzoo.api import Regularizer
from ganzoo.game import Duel


class Drift(Regularizer):
    """Keeps D's logits of real samples from drifting away, which a Wasserstein loss allows (ProGAN, arXiv:1710.10196).

    mean D(x)^2 at real x. Karras et al. 2018 weigh it 0.001.
    """

    def penalty(self, duel: Duel) -> Tensor:
        """Return the mean square; its forward pass is the loss's."""
        return duel.output("real").logits.square().mean()
