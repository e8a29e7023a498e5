"""The fully connected generator of the first tutorials, with a small convolutional discriminator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor, nn

from ganzoo.api import Architecture, DiscriminatorOutput, PluginError, Spec
from ganzoo.layers.conditional import LabelledLatent, LabelledMap
from ganzoo.layers.images import image_format

HIDDEN = (256, 512, 1024)  # generator
CHANNELS = (32, 64, 128)  # discriminator


class MLP(Architecture):
    """The smallest networks that make recognisable digits and garments (Goodfellow et al. 2014, arXiv:1406.2661).

    G: linear layers latent-256-512-1024-pixels, batch norm and LeakyReLU(0.2) after each hidden one, tanh at the end.
    D: 5x5 convolutions of stride 2 with 32-64-128 channels, LeakyReLU(0.2), batch norm from the second on, a linear logit.
    With classes, G sees an embedding of the label beside z and D one more input channel (arXiv:1411.1784).
    Deviation: the paper's maxout and sigmoid layers are the rectifiers of later tutorials.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "accumulation-equals-the-batch": "batch norm takes its statistics over each piece of a batch",
        "samples-are-judged-alone": "D's batch norm mixes samples; for gradient penalties set discriminator_norm = none",
    }

    def __init__(self, *, discriminator_norm: Literal["batch", "none"] = "batch", embedding: int = 50) -> None:
        self.discriminator_norm = discriminator_norm
        self.embedding = embedding
        if embedding < 1:
            raise PluginError(f"architecture 'mlp' needs an embedding of at least 1 number per label, not {embedding}")

    def generator(self, spec: Spec) -> nn.Module:
        """Return the fully connected generator."""
        channels, size = image_format(spec, "mlp")
        return Generator(spec.latent, channels, size, spec.classes, self.embedding)

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return the convolutional discriminator."""
        channels, size = image_format(spec, "mlp")
        return Discriminator(channels, size, spec.classes, normed=self.discriminator_norm == "batch")


class Generator(nn.Module):
    """Latents [N, latent] to images [N, channels, size, size] in [-1, 1]."""

    def __init__(self, latent: int, channels: int, size: int, classes: int, embedding: int) -> None:
        super().__init__()
        self.shape = (channels, size, size)
        self.condition = LabelledLatent(latent, classes, embedding)
        layers: list[nn.Module] = []
        width = self.condition.width
        for hidden in HIDDEN:
            layers += [nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.LeakyReLU(0.2)]
            width = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, channels * size * size), nn.Tanh())

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the images."""
        return self.layers(self.condition(z, label)).unflatten(1, self.shape)


class Discriminator(nn.Module):
    """Images [N, channels, size, size] to logits [N] and the flat last feature map."""

    def __init__(self, channels: int, size: int, classes: int, *, normed: bool) -> None:
        super().__init__()
        self.condition = LabelledMap(channels, size, classes)
        layers: list[nn.Module] = []
        width = self.condition.channels
        for index, out in enumerate(CHANNELS):
            layers.append(nn.Conv2d(width, out, 5, stride=2, padding=2))
            if normed and index > 0:
                layers.append(nn.BatchNorm2d(out))
            layers.append(nn.LeakyReLU(0.2))
            width = out
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.logit = nn.Linear(width * (size // 2 ** len(CHANNELS)) ** 2, 1)

    def forward(self, x: Tensor, label: Tensor | None = None) -> DiscriminatorOutput:
        """Return logits and features."""
        features = self.layers(self.condition(x, label))
        return DiscriminatorOutput(self.logit(features).squeeze(1), features)
