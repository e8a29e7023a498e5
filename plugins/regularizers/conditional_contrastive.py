"""Relations between the samples of a batch, and between samples and their classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ._heads import Contrast


class ConditionalContrastive(Contrast):
    """Draws samples to their class and to each other (2C loss of ContraGAN, Kang & Park 2020, arXiv:2006.12681).

    D's features become points of `embedding` numbers on the unit sphere, each class a point there. With s = cosine / t of
    `temperature` t, a sample pays -log of exp s(its class) + the sum of exp s(others of its class), over exp s(its class) +
    the sum of exp s(all others). D pays for the real samples, G `generator` times for the fakes, each batch on its own.
    A batch's samples of one class outvote their class's own point, so G may settle on a permutation of the classes, as the
    published model did (FID 6.01 and intra-class FID 119.63 on CIFAR-10 in PyTorch-StudioGAN's table); `d2d-ce` mends it.
    Deviation: pieces of an accumulated batch and processes of one launch contrast their own samples. D itself should not
    see the label: `discriminator_label = "none"`. `spectral_norm` norms the layers.
    """

    name = "conditional-contrastive"

    def __init__(
        self, *, embedding: int = 512, temperature: float = 1.0, generator: float = 1.0, spectral_norm: bool = False
    ) -> None:
        super().__init__(embedding=embedding, temperature=temperature, generator=generator, spectral_norm=spectral_norm)

    def contrast(self, others: Tensor, own: Tensor, label: Tensor) -> Tensor:
        """Return the mean over the samples."""
        itself = torch.eye(len(label), dtype=torch.bool, device=label.device)
        every = torch.cat([own[:, None], others.masked_fill(itself, -torch.inf)], 1) / self.temperature
        strange = F.pad(label[:, None] != label, (1, 0))  # the own class in front is none
        return (every.logsumexp(1) - every.masked_fill(strange, -torch.inf).logsumexp(1)).mean()
