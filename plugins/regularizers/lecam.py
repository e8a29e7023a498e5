"""Anchors of D's predictions, for little data."""

from __future__ import annotations

import torch
from torch import Tensor

from ganzoo.api import PluginError, Regularizer
from ganzoo.game import Duel


class LeCam(Regularizer):
    """Holds D's real and fake predictions near each other's moving average (Tseng et al. 2021, arXiv:2104.03310).

    mean (D(real) - average of D(fake))^2 + mean (D(fake) - average of D(real))^2, from `start` updates of D on. Until then
    the averages are those of the last batch, as in the authors' code; then they keep `decay` of themselves at each update.
    Deviation: the authors' code keeps only the positive parts of the differences, the paper's formula (used here) both.
    """

    real_average: Tensor
    fake_average: Tensor
    updates: Tensor

    def __init__(self, *, decay: float = 0.99, start: int = 1000) -> None:
        super().__init__()
        self.decay = decay
        self.start = start
        if not 0 <= decay < 1:
            raise PluginError(f"regularizer 'lecam' needs a 'decay' in [0, 1), not {decay}")
        self.register_buffer("real_average", torch.zeros(()))
        self.register_buffer("fake_average", torch.zeros(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def penalty(self, duel: Duel) -> Tensor:
        """Return the squared distances, or zero before `start`."""
        real, fake = duel.output("real").logits, duel.output("fake").logits
        distance = (real - self.fake_average).square().mean() + (fake - self.real_average).square().mean()
        return distance * (self.updates >= self.start)

    @torch.no_grad()
    def observe(self, real: Tensor, fake: Tensor) -> None:
        """Move both averages; the first update always sets them."""
        decay = self.decay * (self.updates >= max(self.start, 1))
        self.real_average.lerp_(real.mean().to(self.real_average.dtype), 1 - decay)
        self.fake_average.lerp_(fake.mean().to(self.fake_average.dtype), 1 - decay)
        self.updates += 1
