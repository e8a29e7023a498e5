"""D says the same of an image, real or fake, before and after a small change."""

from __future__ import annotations

from torch import Tensor

from ganzoo.game import Duel

from .consistency import Consistency, consistency


class BalancedConsistency(Consistency):
    """CR on both sides, so that G cannot take to the changes: bCR (Zhao et al. 2021, arXiv:2002.04724).

    mean (D(T(x)) - D(x))^2 over logits at real x, and the same at fake x. The paper weighs both 10. T is that of the
    regularizer `consistency`.
    """

    def penalty(self, duel: Duel) -> Tensor:
        """Return the sum of both sides' mean squared differences."""
        real = consistency(duel, "real", flip=self.flip, shift=self.shift)
        return real + consistency(duel, "fake", flip=self.flip, shift=self.shift)
