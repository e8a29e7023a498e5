"""G learns from its best samples only."""

from __future__ import annotations

from typing import ClassVar

import torch

from ganzoo.api import PluginError, Regularizer
from ganzoo.game import Duel


class TopK(Regularizer):
    """Drops what G would learn from the fakes that D finds least real (Sinha et al. 2020, arXiv:2002.06224).

    Of N fakes, the k = `share` N with the largest logits keep their gradient, times N / k, as if a mean were over them
    alone; the others' is zero on its way back through D's logits, whatever the loss. The loss is reported over all fakes.
    Nothing else is paid, so its weight means nothing, and it must act in every turn. The paper starts from all samples and
    multiplies k by 0.99 at each epoch, down to a half or three quarters: `share = { from = 1.0, to = 0.5, shape = "linear"
    }` is near to that.
    """

    side = "generator"
    strength: ClassVar[str] = "share"

    def __init__(self, *, share: float = 0.5) -> None:
        super().__init__()
        self.share = share
        if not 0 < share <= 1:
            raise PluginError(f"regularizer 'top-k' needs a 'share' above 0 and up to 1, not {share}")

    def penalty(self, duel: Duel) -> None:
        """Let gradients of the loss pass through the logits of the best alone."""
        logits = duel.output("fake").logits
        scores = logits.detach().flatten(1).mean(1) if logits.dim() > 1 else logits.detach()
        k = max(round(self.share * len(scores)), 1)
        kept = torch.zeros_like(scores).scatter_(0, scores.topk(k).indices, len(scores) / k)
        kept = kept.view(-1, *[1] * (logits.dim() - 1))
        if logits.requires_grad:
            logits.register_hook(lambda gradient: gradient * kept)  # type: ignore[no-untyped-call]
