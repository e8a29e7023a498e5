"""The game of two players who grow together."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ganzoo.api import Batch
from ganzoo.game import Scene, TwoPlayer
from ganzoo.layers.growth import Growth


class Progressive(TwoPlayer):
    """One generator against one discriminator, both growing (Karras et al. 2018, arXiv:1710.10196).

    While new layers fade in, real samples are alpha x + (1 - alpha) double(halve(x)): as coarse as what G can make. The
    networks know alpha (`fade` of the architecture) and the recipe's [[stages]] the sizes; the real samples of a
    discriminator that does not grow stay as they are, as in the game `adversarial`.
    """

    def play(self, nets: Mapping[str, nn.Module], batch: Batch, z: Tensor, acting: str) -> Scene:
        """Let D face the batch, as coarse as its fade says, and what G makes of z."""
        D = nets["D"]
        real = D.faded(batch.real) if isinstance(D, Growth) else batch.real
        return super().play(nets, Batch(real, batch.cond), z, acting)
