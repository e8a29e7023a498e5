"""Consistency of D under changes of images and of latents at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from ganzoo.api import PluginError
from ganzoo.game import Duel

from .consistency import consistency
from .latent_consistency import LatentConsistency


class ImprovedConsistency(LatentConsistency):
    """The sum of bCR and zCR under one name: ICR (Zhao et al. 2021, arXiv:2002.04724).

    D pays `real` and `fake` times the two terms of `balanced-consistency`, and both sides what `latent-consistency` asks
    for. The defaults are PyTorch-StudioGAN's for BigGAN on CIFAR-10; the weight of the whole is best left at 1.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "each piece of a batch draws changes of its own"
    }

    def __init__(
        self,
        *,
        real: float = 10.0,
        fake: float = 10.0,
        discriminator: float = 20.0,
        generator: float = 0.5,
        radius: float = 0.05,
        flip: bool = True,
        shift: int = 4,
    ) -> None:
        super().__init__(discriminator=discriminator, generator=generator, radius=radius)
        self.real = real
        self.fake = fake
        self.flip = flip
        self.shift = shift
        if shift < 0:
            raise PluginError(f"regularizer 'improved-consistency' needs a 'shift' of 0 pixels or more, not {shift}")

    def penalty(self, duel: Duel) -> Tensor:
        """Return what the acting side pays."""
        latent = super().penalty(duel)
        if duel.acting == "generator":
            return latent
        real = self.real * consistency(duel, "real", flip=self.flip, shift=self.shift)
        return latent + real + self.fake * consistency(duel, "fake", flip=self.flip, shift=self.shift)
