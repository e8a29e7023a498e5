"""WGAN-LP's penalty: only slopes above one."""

from __future__ import annotations

from torch import Tensor

from ganzoo.api import Regularizer
from ganzoo.game import Duel

from .gradient_penalty import between, gradient_norm


class LipschitzPenalty(Regularizer):
    """Punishes D where it is steeper than 1-Lipschitz, and lets it be flatter (Petzka et al. 2018, arXiv:1709.08894).

    mean over samples of max(0, |dD/dx| - 1)^2, at the points of `gradient-penalty`, whose `one_sided` it is. D must judge
    each sample on its own: no batch norm.
    """

    def penalty(self, duel: Duel) -> Tensor:
        """Return the mean squared excess of the gradient's length."""
        return (gradient_norm(duel.input_gradient_at(between(duel))) - 1).relu().square().mean()
