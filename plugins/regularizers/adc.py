"""A classifier that tells a class's real samples from its fakes."""

from __future__ import annotations

from torch import Tensor, nn

from ganzoo.game import Duel

from ._heads import Head, cross_entropy, orthogonal


class ADC(Head):
    """Knows each class twice, real and fake, so that G sees the joint distribution (Hou et al. 2022, arXiv:2107.10060).

    The auxiliary discriminative classifier of ADC-GAN is linear on D's features, with 2 K outputs: the K classes of real
    samples, then those of fakes. D pays the cross-entropy on real and on fake samples; G pays `generator` times
    CE(fake as real y) - CE(fake as fake y), which is the difference of two outputs. D itself should not see the label:
    `discriminator_label = "none"`. `spectral_norm` norms the layer.
    """

    name = "adc"

    def __init__(self, *, generator: float = 1.0, spectral_norm: bool = False) -> None:
        super().__init__(generator=generator, spectral_norm=spectral_norm)

    def build(self, width: int) -> nn.Module:
        """Return a logit for each class, real and fake."""
        return orthogonal(nn.Linear(width, 2 * self.classes, bias=False))

    def penalty(self, duel: Duel) -> Tensor:
        """Return what the acting side pays."""
        fake, label = self.met(duel, "fake")
        as_fake = cross_entropy(self.layers, fake, label + self.classes)
        if duel.acting == "generator":
            return self.generator * (cross_entropy(self.layers, fake, label) - as_fake)
        return cross_entropy(self.layers, *self.met(duel, "real")) + as_fake
