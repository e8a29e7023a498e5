"""D's logits as probabilities."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganzoo.api import PluginError, Regularizer
from ganzoo.game import Duel


class Calibration(Regularizer):
    """Keeps D's logits readable as odds of being real, up to a learned scale (Platt scaling; arXiv:1706.04599).

    The penalty is the logistic loss of scale * (logit - centre). D learns the positive scale; the centre is a running mean
    of the midpoint between real and fake logits.
    """

    centre: Tensor

    def __init__(self, *, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        if not 0 <= momentum < 1:
            raise PluginError(f"regularizer 'calibration' needs a 'momentum' in [0, 1), not {momentum}")
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("centre", torch.zeros(()))

    def penalty(self, duel: Duel) -> Tensor:
        """Return the logistic loss of the calibrated logits; the forward pass is the loss's own."""
        real, fake = (self.calibrated(duel.output(side).logits) for side in ("real", "fake"))
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def calibrated(self, logits: Tensor) -> Tensor:
        """Return logits about the running centre, in units of the learned scale."""
        return self.log_scale.exp() * (logits - self.centre)

    @torch.no_grad()
    def observe(self, real: Tensor, fake: Tensor) -> None:
        """Move the centre to where real and fake logits meet."""
        self.centre.lerp_((real.mean() + fake.mean()) / 2, 1 - self.momentum)
