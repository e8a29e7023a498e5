"""Pays G for differences between its samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from ganzoo.api import Regularizer, Spec
from ganzoo.game import Duel

from ._latents import draw_like, fakes, latents

TINY = 1e-5  # as in the authors' code


class ModeSeeking(Regularizer):
    """Drives samples of different latents apart, against mode collapse (Mao et al. 2019, arXiv:1903.05628).

    G pays 1 / (ratio + 1e-5), the ratio being mean |G(z') - G(z)| over all samples and pixels by mean |z' - z| over all
    latents, with other latents z' from the prior under the same conditions. The authors weigh it 1.
    """

    side = "generator"
    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "each piece of a batch draws latents of its own"
    }

    def __init__(self) -> None:
        super().__init__()
        self.prior = "normal"

    def shown(self, spec: Spec) -> Spec:
        """Note how latents are drawn."""
        self.prior = spec.prior
        return spec

    def penalty(self, duel: Duel) -> Tensor:
        """Return the inverse ratio; G runs once more for it."""
        z = latents(duel, "mode-seeking")
        other = draw_like(z, self.prior)
        ratio = (fakes(duel, other) - duel.fake).abs().mean() / (other - z).abs().mean()
        return 1 / (ratio + TINY)
