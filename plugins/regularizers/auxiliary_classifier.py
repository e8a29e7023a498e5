"""A classifier beside D that real samples teach and fakes have to please."""

from __future__ import annotations

from torch import Tensor, nn

from ganzoo.api import PluginError
from ganzoo.game import Duel

from ._heads import Head, cross_entropy, orthogonal


class AuxiliaryClassifier(Head):
    """Lets a linear classifier on D's features ask for the right class (AC-GAN, Odena et al. 2017, arXiv:1610.09585).

    D pays the cross-entropy of the real samples' classes and, with `fakes` as in the paper, that of the fakes' too; G pays
    `generator` times that of the fakes' classes. Deviation: by default D learns nothing from the fakes' classes, as in
    PyTorch-StudioGAN's ACGAN-Mod. Without `real` the classifier learns from fakes alone: in the game `multi-generator` it
    tells which generator made them, and `generator` is MGAN's beta (Hoang et al. 2018, arXiv:1708.02556). D itself should
    not see the label (`discriminator_label = "none"`), or features may carry it. `spectral_norm` norms the classifier.
    """

    name = "auxiliary-classifier"

    def __init__(
        self, *, real: bool = True, fakes: bool = False, generator: float = 1.0, spectral_norm: bool = False
    ) -> None:
        super().__init__(generator=generator, spectral_norm=spectral_norm)
        self.real = real
        self.fakes = fakes
        if not (real or fakes):
            raise PluginError("regularizer 'auxiliary-classifier' has nothing to learn from; set 'real' or 'fakes' to true")

    def build(self, width: int) -> nn.Module:
        """Return a logit for each class."""
        return orthogonal(nn.Linear(width, self.classes, bias=False))

    def penalty(self, duel: Duel) -> Tensor:
        """Return the acting side's cross-entropy."""
        if duel.acting == "generator":
            return self.generator * cross_entropy(self.layers, *self.met(duel, "fake"))
        if not self.real:
            return cross_entropy(self.layers, *self.met(duel, "fake"))
        real = cross_entropy(self.layers, *self.met(duel, "real"))
        return real + cross_entropy(self.layers, *self.met(duel, "fake")) if self.fakes else real
