"""Fakes shown to D as if they were real, as many as it takes."""

from __future__ import annotations

import torch
from torch import Tensor

from ganzoo.game import Duel

from ._adaptive import Adaptive


class APA(Adaptive):
    """Passes fakes off as real, more of them the more D learns its reals by heart (Jiang et al. 2021, arXiv:2111.06849).

    In D's turns each real sample is replaced by a fake with probability p, which moves as that of adaptive augmentation
    does: every `interval` updates of D by sign(r - target) * samples / ramp, with r the mean of sign(D(what was shown as
    real)) over these; with `target` 0 it stays `probability`. `ramp` is the samples in which p rises from 0 to 1.
    Deviations: the fakes are those of the same turn, with their own labels, where the authors' code keeps those of G's last
    turn; p has 1 for its upper bound.
    """

    def __init__(self, *, probability: float = 0.0, target: float = 0.6, interval: int = 4, ramp: int = 500_000) -> None:
        super().__init__("apa", probability, target, interval, ramp)

    def passed_off(self, duel: Duel) -> Tensor:
        """Return which real samples [N] are replaced."""
        return torch.rand(len(duel.real), device=duel.real.device) < self.now()
