"""A zero-centred gradient penalty on the fakes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ganzoo.api import Regularizer
from ganzoo.game import Duel


class R2(Regularizer):
    """R1's twin: flattens D around generated samples (Mescheder et al. 2018, arXiv:1801.04406).

    gamma / 2 times the mean squared length of dD/dx at fake x.
    """

    strength: ClassVar[str] = "gamma"

    def __init__(self, *, gamma: float = 10.0) -> None:
        super().__init__()
        self.gamma = gamma

    def penalty(self, duel: Duel) -> Tensor:
        """Return the penalty; the forward pass on the fakes serves the loss too."""
        return self.gamma / 2 * duel.input_gradient("fake").square().sum(1).mean()
