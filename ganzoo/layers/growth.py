"""Networks that grow with the stages of a training, new layers fading in (Karras et al. 2018, arXiv:1710.10196)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.api import PluginError, Progress

from .scales import scales

__all__ = ["Growth"]


class Growth(nn.Module):
    """A network for images of 4x4 pixels up to the data's size, as large at a time as the training's stage says.

    While the first share `fade` of a stage of a new size lasts, what the newest layers make counts alpha, from 0 to 1, and
    what would be made without them 1 - alpha. Where no stage says a size, it is fully grown.
    """

    alpha: Tensor

    def __init__(self, size: int, fade: float) -> None:
        super().__init__()
        self.sizes = scales(size)
        self.fade = fade
        self.depth = len(self.sizes) - 1  # index of the size that it has grown to
        self.fading = False
        # a buffer, so that the moving number costs neither a wait for the device nor a new compilation; it follows from
        # progress, so no checkpoint needs it
        self.register_buffer("alpha", torch.ones(()), persistent=False)

    def on_progress(self, progress: Progress) -> None:
        """Take the stage's size and how far the fade is."""
        size = progress.size or self.sizes[-1]
        if size not in self.sizes:
            raise PluginError(
                f"{type(self).__name__} cannot grow to the stage's {size} pixels; "
                f"give stages of {', '.join(map(str, self.sizes))} pixels, or larger data (data.size)"
            )
        self.depth = self.sizes.index(size)
        share = progress.stage_share / self.fade if progress.grew and self.fade else 1.0
        self.fading = self.depth > 0 and share < 1
        self.alpha.fill_(min(share, 1.0))

    def blend(self, new: Tensor, old: Tensor) -> Tensor:
        """Return alpha new + (1 - alpha) old while fading, else what is new."""
        return self.alpha * new + (1 - self.alpha) * old if self.fading else new

    def faded(self, x: Tensor) -> Tensor:
        """Return what images look like now in the middle of a fade: as much coarser as those of G are."""
        return self.blend(x, F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0, mode="nearest")) if self.fading else x
