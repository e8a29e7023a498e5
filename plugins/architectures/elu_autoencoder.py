"""BEGAN's own networks: plain convolutions with exponential linear units, no norm anywhere."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ganzoo.api import Architecture, PluginError, Spec
from ganzoo.layers.autoencoding import AutoEncodingDiscriminator, ErrorKind, Judgement
from ganzoo.layers.conditional import LabelledLatent, LabelledMap
from ganzoo.layers.images import image_format
from ganzoo.layers.resampling import DoubleConvolve

START = 8  # pixels of the smallest map


class ELUAutoencoder(Architecture):
    """A generator and a deep auto-encoding discriminator without norms (BEGAN: Berthelot et al. 2017, arXiv:1703.10717).

    `width` is the paper's n, 128 there (64 for less). Decoder, which G is one of: linear to 8x8, then at each size two
    3x3 convolutions with ELU, nearest-neighbour doubling between sizes, a 3x3 convolution to the image. Encoder: a 3x3
    convolution, at each size two of them with ELU, of n, 2n, 3n ... channels, one of stride 2 between sizes, linear to
    the `code` (the paper's h). `error`, `output` and classes are as in architecture `autoencoder`.
    Deviations: G ends in tanh; no vanishing residuals; weights start from PyTorch's defaults, which the paper leaves
    open.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        code: int = 64,
        error: ErrorKind = "l1",
        output: Judgement = "energy",
        discriminator_label: Literal["concatenation", "none"] = "concatenation",
        embedding: int = 50,
    ) -> None:
        self.width = width
        self.code = code
        self.error: ErrorKind = error
        self.output: Judgement = output
        self.discriminator_label = discriminator_label
        self.embedding = embedding
        for option, value in (("width", width), ("code", code), ("embedding", embedding)):
            if value < 1:
                raise PluginError(f"architecture 'elu-autoencoder' needs a {option!r} of at least 1, not {value}")

    def generator(self, spec: Spec) -> nn.Module:
        """Return the generator, which is a decoder."""
        channels, size = image_format(spec, "elu-autoencoder")
        return Generator(LabelledLatent(spec.latent, spec.classes, self.embedding), self.width, channels, size)

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return the auto-encoder."""
        channels, size = image_format(spec, "elu-autoencoder")
        condition = LabelledMap(channels, size, spec.classes if self.discriminator_label == "concatenation" else 0)
        return AutoEncodingDiscriminator(
            condition,
            encoder(condition.channels, self.width, size, self.code),
            decoder(self.code, self.width, size, channels),
            self.code,
            self.error,
            self.output,
        )


class Generator(nn.Module):
    """Latents [N, latent] to images [N, channels, size, size] in [-1, 1]."""

    def __init__(self, condition: LabelledLatent, width: int, channels: int, size: int) -> None:
        super().__init__()
        self.condition = condition
        self.layers = nn.Sequential(decoder(condition.width, width, size, channels), nn.Tanh())

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the images."""
        return self.layers(self.condition(z, label))


def sizes(size: int) -> list[int]:
    """Return the sizes of the maps, from 8 pixels up to the image's."""
    return [START * 2**index for index in range(size.bit_length() - START.bit_length() + 1)]


def encoder(channels: int, width: int, size: int, code: int) -> nn.Module:
    """Return the network from images to codes."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ELU()]
    last, steps = width, len(sizes(size))
    for step in range(1, steps + 1):
        out = step * width
        layers += [nn.Conv2d(last, out, 3, padding=1), nn.ELU(), nn.Conv2d(out, out, 3, padding=1), nn.ELU()]
        layers += [nn.Conv2d(out, out, 3, 2, 1)] * (step < steps)
        last = out
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(last * START**2, code))


def decoder(code: int, width: int, size: int, channels: int) -> nn.Module:
    """Return the network from codes to images, which no activation bounds."""
    layers: list[nn.Module] = [nn.Linear(code, width * START**2), nn.Unflatten(1, (width, START, START))]
    for pixels in sizes(size):
        first = nn.Conv2d(width, width, 3, padding=1) if pixels == START else DoubleConvolve(width, width)
        layers += [first, nn.ELU(), nn.Conv2d(width, width, 3, padding=1), nn.ELU()]
    return nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))
