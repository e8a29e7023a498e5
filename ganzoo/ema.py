"""The exponential moving average of generators: what samples and scores are made with."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from .api import Progress
from .recipe import HalfLife, Number, value_at


def decay_of(ema: Number | HalfLife, before: Progress, after: Progress) -> float:
    """Return the share of an average that survives the round between two points of a training.

    A decay is smaller early on, so that the start is soon forgotten; a half-life has its own ramp for that.
    """
    if isinstance(ema, HalfLife):
        return ema.decay(after.samples - before.samples, before.samples, before.share)
    return min(value_at(ema, after.share), (1 + after.rounds) / (10 + after.rounds))


class Average:
    """A copy of a network that follows it; parameters and floating-point buffers are averaged, the rest is copied."""

    def __init__(self, net: nn.Module) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        source, target = net.state_dict(keep_vars=True), self.net.state_dict(keep_vars=True)
        averaged = [key for key, value in source.items() if value.is_floating_point()]
        self._source = [source[key].detach() for key in averaged]
        self._target = [target[key].detach() for key in averaged]
        self._copied = [(target[key], source[key]) for key in source.keys() - set(averaged)]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Follow the network after a round; this share of the average survives."""
        torch._foreach_lerp_(cast("list[Tensor]", self._target), self._source, 1 - decay)
        for target, source in self._copied:
            target.copy_(source)
