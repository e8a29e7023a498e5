"""FastGAN: light networks for few images, with gates from low to high resolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.api import Architecture, DiscriminatorOutput, PluginError, Spec
from ganzoo.layers.conditional import LabelledLatent, LabelledMap, require_label
from ganzoo.layers.images import image_format
from ganzoo.layers.projections import FromPixel
from ganzoo.layers.resampling import DoubleConvolve

SIZES = (16, 32, 64, 128, 256, 512, 1024)
GENERATOR = {4: 16.0, 8: 8.0, 16: 4.0, 32: 2.0, 64: 2.0}  # channels of a resolution in widths; from 64 on they halve
FULL = 256  # pixels at which D starts; larger images are halved first
SMALL = 128  # pixels of the small copy that D sees at most
LAST = 8  # pixels of D's last maps


class FastGAN(Architecture):
    """Skip-layer excitation in G and a D that can be read back into images (Liu et al. 2021, arXiv:2101.04775).

    G: z to 4x4, then doublings with 3x3 convolutions, batch norm and gated linear units, every other one ("alternating") or
    each ("double": Projected GAN, arXiv:2111.01007) with a second convolution and noise of learned strength; maps of 64
    pixels and more are gated channel by channel from the map a sixteenth their size; tanh at the end.
    D: blocks that halve with two convolutions beside a mean and a 1x1 convolution, down to 8x8, LeakyReLU(0.2) and batch
    norm, gated from the map eight times their size; beside it plain convolutions on a copy of half the size. Both end in a
    grid of logits, and their last maps and the 16x16 one are there for the regularizer `reconstruction`, as D's other half.
    `width` counts channels of 128 pixels in G and of 64 in D; published: 64. With classes, G sees an embedding of the label
    beside z and D one more input channel, unless `discriminator_label` is "none".
    Weights start from N(0, 0.02), norm scales from N(1, 0.02). In eval mode the noise is constant.
    Deviations: the authors' D takes its small copy of fakes from a second output of G, which is left out here, and that of
    reals by leaving pixels out, where a mean is taken here; spectral norm is a regularizer (`of = "both"`); sizes below 256
    pixels follow the same rules; labels are our addition.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "batch norm takes its statistics over each piece of a batch",
        "samples-are-judged-alone": "D's batch norm mixes samples; for gradient penalties set discriminator_norm = none",
    }

    def __init__(
        self,
        *,
        width: int = 16,
        generator_blocks: Literal["alternating", "double"] = "alternating",
        discriminator_norm: Literal["batch", "none"] = "batch",
        discriminator_label: Literal["concatenation", "none"] = "concatenation",
        embedding: int = 50,
    ) -> None:
        self.width = width
        self.generator_blocks = generator_blocks
        self.discriminator_norm = discriminator_norm
        self.discriminator_label = discriminator_label
        self.embedding = embedding
        for option, value in (("width", width), ("embedding", embedding)):
            if value < 1:
                raise PluginError(f"architecture 'fastgan' needs a {option!r} of at least 1, not {value}")

    def generator(self, spec: Spec) -> nn.Module:
        """Return the generator."""
        channels, size = image_format(spec, "fastgan", SIZES)
        condition = LabelledLatent(spec.latent, spec.classes, self.embedding)
        return Generator(condition, self.width, size, channels, double=self.generator_blocks == "double")

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return the discriminator."""
        channels, size = image_format(spec, "fastgan", SIZES)
        told = self.discriminator_label == "concatenation"
        condition = LabelledMap(channels, size, spec.classes if told else 0)
        return Discriminator(condition, self.width, size, deaf=not told, normed=self.discriminator_norm == "batch")


class Generator(nn.Module):
    """Latents [N, latent] to images [N, channels, size, size] in [-1, 1]."""

    def __init__(self, condition: LabelledLatent, width: int, size: int, channels: int, *, double: bool) -> None:
        super().__init__()
        self.condition = condition
        sizes = [2**power for power in range(2, size.bit_length())]
        widths = {each: max(int(width * GENERATOR.get(each, 128 / each)), 1) for each in sizes}
        self.start = nn.Sequential(FromPixel(condition.width, 2 * widths[4], 4, bias=False), *gated(2 * widths[4]))
        self.doublings = nn.ModuleDict()
        self.gates = nn.ModuleDict()
        for index, each in enumerate(sizes[1:]):
            second = double or index % 2 == 0
            self.doublings[str(each)] = doubling(widths[each // 2], widths[each], each, second=second)
            if each // 16 in widths:
                self.gates[str(each)] = Gate(widths[each // 16], widths[each])
        self.pixels = nn.Conv2d(widths[size], channels, 3, padding=1, bias=False)
        self.apply(initialise)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the images."""
        x = self.start(self.condition(z, label)[:, :, None, None])
        maps = {4: x}
        for name, block in self.doublings.items():
            x = block(x)
            if name in self.gates:
                x = x * self.gates[name](maps[int(name) // 16])
            maps[int(name)] = x
        return self.pixels(x).tanh()


class Discriminator(nn.Module):
    """Images [N, channels, size, size] to logits [N, K], pooled features, and maps from which images can be made again."""

    def __init__(self, condition: LabelledMap, width: int, size: int, *, deaf: bool, normed: bool) -> None:
        super().__init__()
        self.condition = condition
        self.deaf = deaf
        start = min(size, FULL)
        sizes = [start // 2**step for step in range((start // LAST).bit_length())]
        widths = {each: max(64 * width // each, 1) for each in (2 * start, *sizes, LAST // 2)}
        self.stem = stem(condition.channels, widths, size, normed=normed)
        self.halvings = nn.ModuleDict({str(each): Halving(widths[2 * each], widths[each], normed) for each in sizes[1:]})
        self.gates = nn.ModuleDict(
            {str(each): Gate(widths[8 * each], widths[each]) for each in sizes[1:] if 8 * each in sizes}
        )
        self.logits = nn.Sequential(
            nn.Conv2d(widths[LAST], widths[LAST // 2], 1, bias=False),
            *rectified(widths[LAST // 2], normed),
            nn.Conv2d(widths[LAST // 2], 1, 4, bias=False),
        )
        self.small = min(size // 2, SMALL)
        lower = [each for each in sizes if each < self.small] or [self.small // 2]
        half = {each: max(32 * width // each, 1) for each in lower}
        copied: list[nn.Module] = [nn.Conv2d(condition.channels, half[lower[0]], 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for each in lower[1:]:
            copied += [nn.Conv2d(half[2 * each], half[each], 4, 2, 1, bias=False), *rectified(half[each], normed)]
        self.copied = nn.Sequential(*copied)
        self.copied_logits = nn.Conv2d(half[lower[-1]], 1, 4, bias=False)
        self.feature_width = widths[LAST]
        middle = ((widths[2 * LAST], 2 * LAST),) if 2 * LAST in sizes[1:] else ()
        self.map_shapes = ((widths[LAST], LAST), (half[lower[-1]], lower[-1]), *middle)
        self.apply(initialise)

    def forward(self, x: Tensor, label: Tensor | None = None) -> DiscriminatorOutput:
        """Return logits, features and maps."""
        label = None if self.deaf else require_label(label, self.condition.classes)
        seen = self.condition(x, label)
        maps = {min(x.shape[-1], FULL): self.stem(seen)}
        for name, halving in self.halvings.items():
            made = halving(maps[2 * int(name)])
            maps[int(name)] = made * self.gates[name](maps[8 * int(name)]) if name in self.gates else made
        small = self.copied(F.avg_pool2d(seen, x.shape[-1] // self.small))
        logits = torch.cat([self.logits(maps[LAST]).flatten(1), self.copied_logits(small).flatten(1)], 1)
        shown = (x, maps[LAST], small) + ((maps[2 * LAST],) if len(self.map_shapes) > 2 else ())
        return DiscriminatorOutput(logits, maps[LAST].mean((2, 3)), maps=shown)


class Noise(nn.Module):
    """One noise map for all channels, of a learned strength that starts at zero."""

    noise: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(1))
        self.register_buffer("noise", torch.randn(size, size))  # of samples in eval mode

    def forward(self, x: Tensor) -> Tensor:
        """Add the noise to [N, C, size, size]."""
        noise = torch.randn(len(x), 1, *x.shape[2:], device=x.device) if self.training else self.noise
        return x + (self.strength * noise).to(x.dtype)


class Gate(nn.Module):
    """Skip-layer excitation: a square map [N, width, H, W] becomes a factor in (0, 1) for each channel, [N, out, 1, 1]."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, out, 4, bias=False)
        self.excite = nn.Conv2d(out, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the factors."""
        pooled = F.avg_pool2d(x, x.shape[-1] // 4)
        return self.excite(F.silu(self.squeeze(pooled))).sigmoid()


class Halving(nn.Module):
    """The mean of a branch of two convolutions and one of a 2x2 mean and a 1x1 convolution, at half the size."""

    def __init__(self, width: int, out: int, normed: bool) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(width, out, 4, 2, 1, bias=False),
            *rectified(out, normed),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            *rectified(out, normed),
        )
        self.direct = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(width, out, 1, bias=False), *rectified(out, normed))

    def forward(self, x: Tensor) -> Tensor:
        """Return the map of half the size."""
        return (self.main(x) + self.direct(x)) / 2


def doubling(width: int, out: int, size: int, *, second: bool) -> nn.Module:
    """Return a block to twice the size, `size`; with a second convolution both have noise."""
    layers: list[nn.Module] = [DoubleConvolve(width, 2 * out, bias=False)]
    if second:
        layers += [Noise(size), *gated(2 * out), nn.Conv2d(out, 2 * out, 3, padding=1, bias=False), Noise(size)]
    return nn.Sequential(*layers, *gated(2 * out))


def gated(channels: int) -> list[nn.Module]:
    """Return batch norm and a gated linear unit, which halves the channels."""
    return [nn.BatchNorm2d(channels), nn.GLU(1)]


def rectified(channels: int, normed: bool) -> list[nn.Module]:
    """Return a rectifier, after batch norm or without."""
    return [*([nn.BatchNorm2d(channels)] if normed else []), nn.LeakyReLU(0.2)]


def stem(channels: int, widths: Mapping[int, int], size: int, *, normed: bool) -> nn.Module:
    """Return what takes pixels to D's first map, and halves images above 256 pixels to that size."""
    start = min(size, FULL)
    if size == start:
        return nn.Sequential(nn.Conv2d(channels, widths[start], 3, padding=1, bias=False), nn.LeakyReLU(0.2))
    first = widths[start if size == 2 * FULL else 2 * FULL]
    layers: list[nn.Module] = [nn.Conv2d(channels, first, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    if size > 2 * FULL:
        layers += [nn.Conv2d(first, widths[start], 4, 2, 1, bias=False), *rectified(widths[start], normed)]
    return nn.Sequential(*layers)


def initialise(layer: nn.Module) -> None:
    """Draw the weights as the authors do."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
        nn.init.zeros_(layer.bias)
