"""The first, blunt way to keep a critic Lipschitz."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from ganzoo.api import PluginError, Regularizer


class WeightClipping(Regularizer):
    """Clamps every parameter of D to [-limit, limit] after each of its steps (Arjovsky et al. 2017, arXiv:1701.07875).

    Batch norm's scales are parameters too and are clamped with the rest, as in the authors' code. Deviation: theirs clamps
    before a step and so lets the last one of a turn through.
    """

    strength: ClassVar[str] = "limit"

    def __init__(self, *, limit: float = 0.01) -> None:
        super().__init__()
        self.limit = limit
        if limit <= 0:
            raise PluginError(f"regularizer 'weight-clipping' needs a positive 'limit', not {limit}")

    @torch.no_grad()
    def after_step(self, nets: Sequence[nn.Module]) -> None:
        """Clamp in place."""
        for net in nets:
            for parameter in net.parameters():
                parameter.clamp_(-self.limit, self.limit)
