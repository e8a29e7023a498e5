"""The shallow auto-encoder that small energy-based GANs judge with, and a generator that doubles twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor, nn

from ganzoo.api import Architecture, PluginError, Spec
from ganzoo.layers.autoencoding import AutoEncodingDiscriminator, ErrorKind, Judgement
from ganzoo.layers.conditional import LabelledLatent, LabelledMap
from ganzoo.layers.images import image_format
from ganzoo.layers.resampling import DoubleConvolve

from .dcgan import initialise


class Autoencoder(Architecture):
    """An auto-encoding discriminator, whose logit is its reconstruction error (Zhao et al. 2016, arXiv:1609.03126).

    The networks are those of a popular port of EBGAN and BEGAN (PyTorch-GAN), `width` channels at full resolution, in G
    twice as many inside. D: a 3x3 convolution of stride 2 with ReLU, a linear `code`, a linear layer back, doubling, a
    3x3 convolution; batch norm and ReLU before and after the layer back. G: linear to a quarter of the size, two
    doublings with 3x3 convolutions, batch norm and LeakyReLU(0.2), a last convolution, tanh; `input_norm` norms its
    first map, as the port of BEGAN does. Convolutions start from N(0, 0.02).
    `error` "l2" is EBGAN's, "l1" BEGAN's. A logit is an energy, and lower means more real, as losses `ebgan` and
    `began` have it; for all others set `output` = "score", which negates it. Features are the codes. With classes, G
    sees an embedding of the label beside z, and D's encoder one more input channel or, with `discriminator_label` =
    "none", no label.
    Deviations: the port gives batch norm an epsilon of 0.8, meant as a momentum; here it is 1e-5. Its generator takes
    no gradient through the image that D is to reconstruct; here it does, as in the paper.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "batch norm takes its statistics over each piece of a batch",
        "samples-are-judged-alone": "D's batch norm mixes samples; for gradient penalties set discriminator_norm = none",
    }

    def __init__(
        self,
        *,
        width: int = 64,
        code: int = 32,
        error: ErrorKind = "l2",
        output: Judgement = "energy",
        input_norm: bool = False,
        discriminator_norm: Literal["batch", "none"] = "batch",
        discriminator_label: Literal["concatenation", "none"] = "concatenation",
        embedding: int = 50,
    ) -> None:
        self.width = width
        self.code = code
        self.error: ErrorKind = error
        self.output: Judgement = output
        self.input_norm = input_norm
        self.discriminator_norm = discriminator_norm
        self.discriminator_label = discriminator_label
        self.embedding = embedding
        for option, value in (("width", width), ("code", code), ("embedding", embedding)):
            if value < 1:
                raise PluginError(f"architecture 'autoencoder' needs a {option!r} of at least 1, not {value}")

    def generator(self, spec: Spec) -> nn.Module:
        """Return the generator."""
        channels, size = image_format(spec, "autoencoder")
        condition = LabelledLatent(spec.latent, spec.classes, self.embedding)
        return Generator(condition, self.width, channels, size, self.input_norm)

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return the auto-encoder."""
        channels, size = image_format(spec, "autoencoder")
        condition = LabelledMap(channels, size, spec.classes if self.discriminator_label == "concatenation" else 0)
        shape = (self.width, size // 2, size // 2)
        flat = self.width * (size // 2) ** 2
        norm = self.discriminator_norm == "batch"
        encoder = nn.Sequential(
            nn.Conv2d(condition.channels, self.width, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(flat, self.code)
        )
        decoder = nn.Sequential(
            *[nn.BatchNorm1d(self.code)] * norm,
            nn.ReLU(),
            nn.Linear(self.code, flat),
            *[nn.BatchNorm1d(flat)] * norm,
            nn.ReLU(),
            nn.Unflatten(1, shape),
            DoubleConvolve(self.width, channels),
        )
        net = AutoEncodingDiscriminator(condition, encoder, decoder, self.code, self.error, self.output)
        return net.apply(initialise)


class Generator(nn.Module):
    """Latents [N, latent] to images [N, channels, size, size] in [-1, 1]."""

    def __init__(self, condition: LabelledLatent, width: int, channels: int, size: int, input_norm: bool) -> None:
        super().__init__()
        self.condition = condition
        inner, quarter = 2 * width, size // 4
        self.layers = nn.Sequential(
            nn.Linear(condition.width, inner * quarter**2),
            nn.Unflatten(1, (inner, quarter, quarter)),
            *[nn.BatchNorm2d(inner)] * input_norm,
            *(DoubleConvolve(inner, inner), nn.BatchNorm2d(inner), nn.LeakyReLU(0.2)),
            *(DoubleConvolve(inner, width), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(width, channels, 3, padding=1), nn.Tanh()),
        )
        self.apply(initialise)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the images."""
        return self.layers(self.condition(z, label))
