"""Each sample against the average of the other side, instead of against nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from ganzoo.api import Loss, PluginError

SHORTFALLS: Mapping[str, Callable[[Tensor], Tensor]] = {  # what it costs to lead by so much
    "standard": lambda lead: F.softplus(-lead),
    "least-squares": lambda lead: (lead - 1).square(),
    "hinge": lambda lead: F.relu(1 - lead),
}


class RelativisticAverage(Loss):
    """The relativistic average losses RaSGAN, RaLSGAN and RaHingeGAN (Jolicoeur-Martineau 2018, arXiv:1807.00734).

    D minimises mean c(real - mean fake) + mean c(mean real - fake), G the same with real and fake exchanged; c(lead) is
    softplus(-lead), (lead - 1)^2 or max(0, 1 - lead) for `form` "standard", "least-squares" or "hinge". The inner means
    are over all logits of the batch, or of the piece of it under accumulation, and gradients pass through them.
    Deviation: the author's code halves both sums.
    """

    relativistic: ClassVar[bool] = True

    def __init__(self, *, form: Literal["standard", "least-squares", "hinge"] = "standard") -> None:
        super().__init__()
        self.form = form

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return how far the reals are from leading the average fake, and the average real from leading the fakes."""
        shortfall = SHORTFALLS[self.form]
        return shortfall(real - fake.mean()).mean() + shortfall(real.mean() - fake).mean()

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return the same with the sides exchanged."""
        if real is None:
            raise PluginError(
                "loss 'relativistic-average' needs the real logits in the generator's turn; the engine must pass them"
            )
        return self.discriminator(fake, real)
