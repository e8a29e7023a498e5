"""A zero-centred gradient penalty on the data."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ganzoo.api import Regularizer
from ganzoo.game import Duel


class R1(Regularizer):
    """Flattens D around real samples, which makes training converge locally (Mescheder et al. 2018, arXiv:1801.04406).

    gamma / 2 times the mean squared length of dD/dx at real x.
    """

    strength: ClassVar[str] = "gamma"

    def __init__(self, *, gamma: float = 10.0) -> None:
        super().__init__()
        self.gamma = gamma

    def penalty(self, duel: Duel) -> Tensor:
        """Return the penalty; the forward pass on the real samples serves the loss too."""
        return self.gamma / 2 * duel.input_gradient("real").square().sum(1).mean()
