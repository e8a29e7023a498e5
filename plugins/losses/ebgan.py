"""Energies instead of probabilities: low on the data, at least a margin on the fakes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ganzoo.api import Loss, PluginError


class EBGAN(Loss):
    """The margin loss of the energy-based GAN (Zhao et al. 2016, arXiv:1609.03126).

    D minimises real + max(0, margin - fake), G minimises fake. D's logits are energies, and lower means more real: an
    auto-encoder's reconstruction errors, as architecture `autoencoder` gives them. `margin` is in their unit.
    """

    def __init__(self, *, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin
        if margin <= 0:
            raise PluginError(f"loss 'ebgan' needs a margin above 0, which energies of fakes are to reach, not {margin}")

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the energy of the reals, and how far each fake's is below the margin."""
        return real.mean() + F.relu(self.margin - fake).mean()

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return the energy of the fakes."""
        return fake.mean()
