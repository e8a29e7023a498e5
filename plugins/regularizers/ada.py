"""Augmentation of everything that D sees, as much as it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from ganzoo.api import PluginError

from ._adaptive import Adaptive
from ._transforms import blit, color, geometric

PIPES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"b": blit, "g": geometric, "c": color}


class ADA(Adaptive):
    """Shows D augmented samples, more of them the more it learns by heart (Karras et al. 2020, arXiv:2006.06676).

    `pipe` names what is done: b blits pixels (flip, turns by 90 degrees, shifts by up to 1/8 of the size), g zooms, turns,
    stretches and shifts, c changes brightness, contrast, luma, hue and saturation; each transformation with probability p
    for each sample. Every `interval` updates of D, p moves by sign(r - target) * samples / ramp, with r the mean of
    sign(D(real)) over these updates; with `target` 0 it stays `probability`. `ramp` is the samples in which p rises from 0
    to 1.
    Deviations: blits move pixels and are not resampled; mirror images at a border repeat its pixels where something is
    resampled; p has 1 for its upper bound, where the authors' code lets it grow on.
    """

    def __init__(
        self,
        *,
        pipe: Literal["b", "g", "c", "bg", "bc", "gc", "bgc"] = "bgc",
        probability: float = 0.0,
        target: float = 0.6,
        interval: int = 4,
        ramp: int = 500_000,
    ) -> None:
        super().__init__("ada", probability, target, interval, ramp)
        self.pipe = pipe

    def view(self, x: Tensor) -> Tensor:
        """Return square images [N, 1 or 3, size, size] augmented."""
        if x.dim() != 4 or x.shape[1] not in (1, 3) or x.shape[2] != x.shape[3]:
            raise PluginError(
                f"regularizer 'ada' augments square images [N, 1 or 3, size, size], not {list(x.shape)}; remove it, "
                "or name it before what packs samples"
            )
        p = self.now()
        with torch.autocast(x.device.type, enabled=False):  # half precision would blur what is only moved
            for letter in self.pipe:
                x = PIPES[letter](x, p)
        return x
