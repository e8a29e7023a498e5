"""A classifier of real samples, and a twin of it that knows the fakes only."""

from __future__ import annotations

from torch import Tensor, nn

from ganzoo.game import Duel

from ._heads import Head, cross_entropy, orthogonal


class TwinClassifier(Head):
    """Takes from AC-GAN its bias to samples that are easy to classify (TAC-GAN, Gong et al. 2019, arXiv:1907.02690).

    A classifier C learns the real samples' classes as `auxiliary-classifier` does, a twin T the fakes'. D pays
    CE(C(real)) + CE(T(fake)), G pays `generator` times CE(C(fake)) - CE(T(fake)): the second term is the conditional
    entropy that C alone would shrink. Both are linear on D's features. D itself should not see the label:
    `discriminator_label = "none"`. `spectral_norm` norms both.
    """

    name = "twin-classifier"

    def __init__(self, *, generator: float = 1.0, spectral_norm: bool = False) -> None:
        super().__init__(generator=generator, spectral_norm=spectral_norm)

    def build(self, width: int) -> nn.Module:
        """Return the two classifiers."""
        return nn.ModuleList(orthogonal(nn.Linear(width, self.classes, bias=False)) for _ in range(2))

    def penalty(self, duel: Duel) -> Tensor:
        """Return what the acting side pays."""
        classifier, twin = self.layers
        fake = self.met(duel, "fake")
        if duel.acting == "generator":
            return self.generator * (cross_entropy(classifier, *fake) - cross_entropy(twin, *fake))
        return cross_entropy(classifier, *self.met(duel, "real")) + cross_entropy(twin, *fake)
