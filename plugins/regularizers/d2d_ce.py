"""A classifier whose wrong answers are the samples of other classes."""

from __future__ import annotations

import torch
from torch import Tensor

from ._heads import Contrast


class D2DCE(Contrast):
    """Contrasts a sample's class with samples of others, within margins (ReACGAN, Kang et al. 2021, arXiv:2111.01118).

    The data-to-data cross-entropy: D's features become points of `embedding` numbers on the unit sphere, each class a point
    there. With cosines c, `temperature` t and `margin` m, a = min(0, c(its class) - m) / t and b = max(0, c(another) -
    (1 - m)) / t, a sample pays -a + log(exp a + the sum of exp b over the batch's samples of other classes): what is easy
    already has no gradient. D pays for the real samples, G `generator` times for the fakes.
    Deviations: PyTorch-StudioGAN subtracts the largest similarity from all b but not from a, which weakens the repulsion;
    here is the paper's formula. Pieces of an accumulated batch and processes of one launch contrast their own samples.
    D itself should not see the label: `discriminator_label = "none"`. `spectral_norm` norms the layers.
    """

    name = "d2d-ce"

    def __init__(
        self,
        *,
        embedding: int = 512,
        margin: float = 0.98,
        temperature: float = 0.5,
        generator: float = 1.0,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__(embedding=embedding, temperature=temperature, generator=generator, spectral_norm=spectral_norm)
        self.margin = margin

    def contrast(self, others: Tensor, own: Tensor, label: Tensor) -> Tensor:
        """Return the mean over the samples."""
        attraction = (own - self.margin).clamp(max=0) / self.temperature
        repulsion = (others - (1 - self.margin)).clamp(min=0) / self.temperature
        repulsion = repulsion.masked_fill(label[:, None] == label, -torch.inf)
        return (torch.cat([attraction[:, None], repulsion], 1).logsumexp(1) - attraction).mean()
