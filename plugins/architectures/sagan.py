"""SAGAN: the residual networks with self-attention."""

from __future__ import annotations

from typing import Literal

from .resnet import Label, ResNet

MOST = 32  # pixels: where the paper puts attention into images of 128


class SAGAN(ResNet):
    """Residual networks that see the whole image at once (Zhang et al. 2019, arXiv:1805.08318).

    `resnet` with self-attention in both networks after the first block of `attention` pixels. 0 means half the image's
    size, but at most 32: 16 in images of 32 pixels as in StudioGAN, 32 in images of 128 as published. With classes, G has
    conditional batch norms and D a projection, or with `discriminator_label = "none"` nothing. The paper norms the weights
    of both networks: regularizer `spectral-norm` with `of = "both"`.
    """

    name = "sagan"

    def __init__(
        self,
        *,
        generator_width: int = 0,
        discriminator_width: int = 0,
        pool: Literal["sum", "mean"] = "sum",
        attention: int = 0,
        discriminator_label: Label = "projection",
    ) -> None:
        super().__init__(
            generator_width=generator_width,
            discriminator_width=discriminator_width,
            pool=pool,
            discriminator_label=discriminator_label,
        )
        self.attention = attention

    def attention_in(self, size: int) -> tuple[int, int]:
        """Return at how many pixels G and D attend in images of this size."""
        resolution = self.attention or min(size // 2, MOST)
        return resolution, resolution
