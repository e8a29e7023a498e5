"""The game in which D sees what G makes at every scale."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ganzoo.api import Batch, PluginError, Spec
from ganzoo.game import Scene, TwoPlayer
from ganzoo.layers.scales import pack, pyramid, scales, unpack


class MultiScale(TwoPlayer):
    """G shows D its images of all sizes from 4x4 pixels up, of one sample at a time (MSG-GAN, arXiv:1903.06048).

    A sample is the images [C, s, s] of the sizes s = 4, 8, ... S packed in a row, smallest first; real images are packed
    with their 2x2 means. So D judges all scales together, and each scale of G has gradients of its own. Samples are the
    largest images. Regularizers see the rows: penalties on gradients count all scales, and views that need images refuse
    them.
    """

    roles: Mapping[str, str] = {"G": "pyramid_generator", "D": "pyramid_discriminator"}

    def spec(self, spec: Spec) -> Spec:
        """Note the shape of the images; the networks are built for the data's own."""
        if len(spec.shape) != 3 or spec.shape[1] != spec.shape[2]:
            raise PluginError(
                f"game 'multi-scale' plays with square images, not with samples of shape {spec.shape}; take other data"
            )
        self.channels, self.sizes = spec.shape[0], scales(spec.shape[1])
        return spec

    def sample(self, nets: Mapping[str, nn.Module], z: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """Return the largest images."""
        return unpack(nets["G"](z, **cond), self.channels, self.sizes)[-1]

    def fakes(self, nets: Mapping[str, nn.Module], z: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        """Return packed pyramids."""
        made: Tensor = nets["G"](z, **cond)
        return made

    def play(self, nets: Mapping[str, nn.Module], batch: Batch, z: Tensor, acting: str) -> Scene:
        """Let D face the batch with its means and what G makes of z at all sizes."""
        return super().play(nets, Batch(pack(pyramid(batch.real)), batch.cond), z, acting)
