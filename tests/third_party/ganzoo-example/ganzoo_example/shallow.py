"""Two convolutions a network, for games of two and of three."""

from torch import Tensor, nn

from ganzoo.api import Architecture, DiscriminatorOutput, PluginError, Spec
from ganzoo.layers.conditional import LabelledLatent, LabelledMap
from ganzoo.layers.images import image_format

EMBEDDING = 8  # numbers a label


class Shallow(Architecture):
    """Convolutions without norms, small enough for a laptop's minutes (after DCGAN, arXiv:1511.06434).

    G: a linear layer to a quarter of the size, two transposed convolutions. D and E: two convolutions of stride 2 and a
    linear layer. With classes, G sees an embedding of the label beside z, D and E one more channel (arXiv:1411.1784).
    """

    def __init__(self, *, width: int = 32) -> None:
        self.width = width
        if width < 1:
            raise PluginError(f"architecture 'shallow' needs a 'width' of at least 1, not {width}")

    def generator(self, spec: Spec) -> nn.Module:
        """Return latents to images."""
        return Generator(spec, self.width)

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return images to logits."""
        return Discriminator(spec, self.width)

    def encoder(self, spec: Spec) -> nn.Module:
        """Return images to latents."""
        return Encoder(spec, self.width)


class Generator(nn.Module):
    """Latents [N, latent] to images [N, channels, size, size] in [-1, 1]."""

    def __init__(self, spec: Spec, width: int) -> None:
        super().__init__()
        channels, size = image_format(spec, "shallow")
        self.condition = LabelledLatent(spec.latent, spec.classes, EMBEDDING)
        self.start = nn.Linear(self.condition.width, width * (size // 4) ** 2)
        self.shape = (width, size // 4, size // 4)
        self.layers = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the images."""
        return self.layers(self.start(self.condition(z, label)).unflatten(1, self.shape))


class Trunk(nn.Module):
    """Images [N, channels, size, size] to features [N, features]."""

    def __init__(self, spec: Spec, width: int) -> None:
        super().__init__()
        channels, size = image_format(spec, "shallow")
        self.condition = LabelledMap(channels, size, spec.classes)
        self.features = width * (size // 4) ** 2
        self.layers = nn.Sequential(
            nn.Conv2d(self.condition.channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the features."""
        return self.layers(self.condition(x, label))


class Discriminator(nn.Module):
    """Images to logits [N] and features."""

    def __init__(self, spec: Spec, width: int) -> None:
        super().__init__()
        self.trunk = Trunk(spec, width)
        self.logit = nn.Linear(self.trunk.features, 1)

    def forward(self, x: Tensor, label: Tensor | None = None) -> DiscriminatorOutput:
        """Return logits and features."""
        features = self.trunk(x, label)
        return DiscriminatorOutput(self.logit(features).squeeze(1), features)


class Encoder(nn.Module):
    """Images to latents [N, latent]."""

    def __init__(self, spec: Spec, width: int) -> None:
        super().__init__()
        self.trunk = Trunk(spec, width)
        self.latent = nn.Linear(self.trunk.features, spec.latent)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the latents."""
        return self.latent(self.trunk(x, label))
