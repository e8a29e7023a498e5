"""No loss on logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from ganzoo.api import Loss


class ZeroLoss(Loss):
    """Costs nothing, for recipes whose regularizers are the whole game (so MHingeGAN, arXiv:1912.04216).

    Both sides are 0 with a gradient of 0; what D and G want then stands in penalties of side "both".
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "both-sides-are-scalars": "nothing is wanted of the logits, so they get no gradient",
        "only-the-acting-player-moves": "without a regularizer nobody has a reason to move",
    }

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return zero."""
        return 0 * (real.mean() + fake.mean())

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return zero."""
        return 0 * fake.mean()
