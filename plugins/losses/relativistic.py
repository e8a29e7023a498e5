"""Real against fake in pairs, instead of each against nothing."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ganzoo.api import Loss, PluginError


class Relativistic(Loss):
    """The paired relativistic loss (RpGAN: Jolicoeur-Martineau 2018, arXiv:1807.00734).

    D minimises softplus(-(real - fake)), G minimises softplus(-(fake - real)); sample i of the reals meets sample i of the
    fakes. R3GAN's is the same (Huang et al. 2025, arXiv:2501.05441).
    """

    relativistic: ClassVar[bool] = True

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return how far the reals are from beating their fakes."""
        return F.softplus(fake - real).mean()

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return how far the fakes are from beating their reals."""
        if real is None:
            raise PluginError(
                "loss 'relativistic' needs the real logits in the generator's turn; the engine must pass them"
            )
        return F.softplus(real - fake).mean()
