"""A probability that follows how well D tells reals apart: the controller of adaptive augmentations."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ganzoo.api import PluginError, Regularizer


class Adaptive(Regularizer):
    """Raises a probability while D is too sure of its reals, and lowers it while it is not.

    r = mean sign(D(real)) over `interval` updates of D, and after these p moves by sign(r - target) * samples / ramp, where
    samples is how many real logits these updates saw. Starts from `probability` and stays in [0, 1]; where `target` is 0,
    it stays what `probability` says, which may be a schedule.
    """

    strength: ClassVar[str] = "target"
    adapted: Tensor
    signs: Tensor
    samples: Tensor
    updates: Tensor

    def __init__(self, name: str, probability: float, target: float, interval: int, ramp: int) -> None:
        super().__init__()
        self.probability = probability
        self.target = target
        self.interval = interval
        self.ramp = ramp
        for option, value in (("probability", probability), ("target", target)):
            if not 0 <= value <= 1:
                raise PluginError(f"regularizer {name!r} needs a {option!r} in [0, 1], not {value}")
        for option, count in (("interval", interval), ("ramp", ramp)):
            if count < 1:
                raise PluginError(f"regularizer {name!r} needs {option!r} of at least 1, not {count}")
        self.register_buffer("adapted", torch.zeros(()))
        self.register_buffer("signs", torch.zeros(()))
        self.register_buffer("samples", torch.zeros(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def now(self) -> Tensor:
        """Return the probability as it stands, a scalar."""
        return (self.probability + self.adapted).clamp(0, 1)

    @torch.no_grad()
    def observe(self, real: Tensor, fake: Tensor) -> None:
        """Count the signs, and move the probability where an interval is over."""
        if not self.target:
            return
        self.signs += real.sign().mean() * len(real)
        self.samples += len(real)
        self.updates += 1
        due = self.updates % self.interval == 0
        step = torch.sign(self.signs / self.samples - self.target) * self.samples / self.ramp
        self.adapted.add_(step * due).clamp_(-self.probability, 1 - self.probability)
        self.signs *= ~due
        self.samples *= ~due
