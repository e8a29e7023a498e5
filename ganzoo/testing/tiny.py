"""The smallest networks, data and trainers that a contract can be checked with: milliseconds a round on one core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .. import assemble
from ..api import Architecture, DiscriminatorOutput, Loss, Progress, Spec, TensorDataset
from ..config import Draft
from ..device import Device
from ..layers.scales import pack, pyramid, scales, unpack
from ..options import check_options
from ..recipe import Recipe
from ..registry import Registry
from ..trainer import Report, Trainer

Factory = Callable[..., Any]


class TinyGenerator(nn.Module):
    """Two linear layers from latents to samples; follows the size of the stage."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.shape = torch.Size(spec.shape)
        self.size: int | None = None
        self.embed = nn.Embedding(spec.classes, spec.latent) if spec.classes else None
        self.body = nn.Sequential(nn.Linear(spec.latent, 32), nn.ReLU(), nn.Linear(32, self.shape.numel()), nn.Tanh())

    def on_progress(self, progress: Progress) -> None:
        """Take the stage's size."""
        self.size = progress.size

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return samples [N, *shape]."""
        x: Tensor = self.body(z if self.embed is None else z + self.embed(label)).unflatten(1, self.shape)
        return x if self.size is None else nn.functional.adaptive_avg_pool2d(x, self.size)


class TinyDiscriminator(nn.Module):
    """One convolution and two linear layers, smooth everywhere, independent of the image size."""

    feature_width = 16

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.embed = nn.Embedding(spec.classes, 16) if spec.classes else None
        self.conv = nn.Conv2d(spec.shape[0], 8, 3, stride=2, padding=1)
        self.body = nn.Sequential(nn.Softplus(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 16), nn.Softplus())
        self.head = nn.Linear(16, 1)

    def forward(self, x: Tensor, label: Tensor | None = None) -> DiscriminatorOutput:
        """Return logits [N] and features."""
        features = self.body(self.conv(x))
        logits: Tensor = self.head(features).squeeze(1)
        return DiscriminatorOutput(
            logits if self.embed is None else logits + (self.embed(label) * features).sum(1), features
        )


class TinyPyramidGenerator(nn.Module):
    """Latents to the means of samples at all sizes, packed in a row."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.body = TinyGenerator(spec)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Return packed pyramids."""
        return pack(pyramid(self.body(z, label)))


class TinyPyramidDiscriminator(nn.Module):
    """Packed pyramids to logits, by the largest images."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.channels, self.sizes = spec.shape[0], scales(spec.shape[1])
        self.body = TinyDiscriminator(spec)
        self.feature_width = self.body.feature_width

    def forward(self, x: Tensor, label: Tensor | None = None) -> DiscriminatorOutput:
        """Return logits [N] and features."""
        judged: DiscriminatorOutput = self.body(unpack(x, self.channels, self.sizes)[-1], label)
        return judged


class TinyTranslator(nn.Module):
    """Images to images: one convolution each way."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        channels = spec.shape[0]
        self.body = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, channels, 3, padding=1), nn.Tanh()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return images [N, *shape]."""
        translated: Tensor = self.body(x)
        return translated


class TinyEncoder(nn.Module):
    """Images to latents."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        width = torch.Size(spec.shape).numel()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, spec.latent))

    def forward(self, x: Tensor) -> Tensor:
        """Return latents [N, latent]."""
        latent: Tensor = self.body(x)
        return latent


class TinyClassifier(nn.Module):
    """Images to the logits of the spec's classes."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        width = torch.Size(spec.shape).numel()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, max(spec.classes, 2)))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, classes]."""
        logits: Tensor = self.body(x)
        return logits


class TinyArchitecture(Architecture):
    """The smallest networks for every role that the games here ask for."""

    def generator(self, spec: Spec) -> nn.Module:
        """Return latents to samples."""
        return TinyGenerator(spec)

    def discriminator(self, spec: Spec) -> nn.Module:
        """Return samples to logits."""
        return TinyDiscriminator(spec)

    def pyramid_generator(self, spec: Spec) -> nn.Module:
        """Return latents to samples at all sizes."""
        return TinyPyramidGenerator(spec)

    def pyramid_discriminator(self, spec: Spec) -> nn.Module:
        """Return samples at all sizes to logits."""
        return TinyPyramidDiscriminator(spec)

    def translator(self, spec: Spec) -> nn.Module:
        """Return samples to samples."""
        return TinyTranslator(spec)

    def encoder(self, spec: Spec) -> nn.Module:
        """Return samples to latents."""
        return TinyEncoder(spec)

    def classifier(self, spec: Spec) -> nn.Module:
        """Return samples to classes."""
        return TinyClassifier(spec)


class TinyLoss(Loss):
    """The logistic loss on both sides."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return what the discriminator minimises."""
        return nn.functional.softplus(-real).mean() + nn.functional.softplus(fake).mean()

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Return what the generator minimises."""
        return nn.functional.softplus(-fake).mean()


class Smallest:
    """A registry of just these plugins, in place of what is installed."""

    def __init__(self, plugins: Mapping[tuple[str, str], Factory]) -> None:
        self.plugins = dict(plugins)

    def load(self, kind: str, name: str) -> Any:
        """Return one of them."""
        return self.plugins[kind, name]

    def build(self, kind: str, name: str, options: Mapping[str, Any]) -> Any:
        """Construct one of them."""
        plugin = self.load(kind, name)
        return plugin(**check_options(f"{kind} {name!r}", plugin, options))


def tiny_data(*, size: int = 16, channels: int = 1, classes: int = 0, count: int = 40) -> TensorDataset:
    """Return pictures with bright left or right halves, which are the classes where there are some, and noise."""
    source = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 60, (count, channels, size, size), generator=source, dtype=torch.uint8)
    labels = torch.arange(count) % max(classes, 2)
    pictures[labels % 2 == 0, :, :, : size // 2] += 180
    pictures[labels % 2 == 1, :, :, size // 2 :] += 180
    return TensorDataset(pictures, labels, classes=classes)


def tiny_recipe(raw: Mapping[str, Any], *, game: bool = False, regularizers: Mapping[str, Any] | None = None) -> Recipe:
    """Return a recipe whose plugins are all called "it", with other tables merged in."""
    base: dict[str, Any] = {
        "data": {"name": "it"},
        "architecture": {"name": "it"},
        "loss": {"name": "it"},
        "latent": {"size": 8},
        "optimizer": {} if "name" in raw.get("optimizer", {}) else {"name": "adam", "lr": 1e-3, "betas": [0.5, 0.9]},
        "train": {"batch": 8, "samples": 64, "ema": 0.9, "precision": "fp32"},
        "regularizer": [{"name": name} for name in regularizers or {}],
    }
    if game:
        base["game"] = {"name": "it"}
    draft = Draft("tiny", base, "test")
    draft.apply(raw, "test")
    return draft.finish()


def tiny_trainer(
    *,
    loss: Factory = TinyLoss,
    game: Factory | None = None,
    architecture: Factory = TinyArchitecture,
    regularizers: Mapping[str, Factory] | None = None,
    raw: Mapping[str, Any] | None = None,
    data: TensorDataset | None = None,
    device: Device | None = None,
) -> Trainer:
    """Return a trainer of these plugins at the smallest size; `raw` holds further tables of the recipe."""
    data = data or tiny_data()
    recipe = tiny_recipe(raw or {}, game=game is not None, regularizers=regularizers)
    plugins: dict[tuple[str, str], Factory] = {("architecture", "it"): architecture, ("loss", "it"): loss}
    plugins |= {("game", "it"): game} if game else {}
    plugins |= {("regularizer", name): plugin for name, plugin in (regularizers or {}).items()}
    registry: Registry = Smallest(plugins)  # type: ignore[assignment]  # the methods that assembling needs
    return assemble.trainer(recipe, registry, device or Device.choose("cpu", recipe.train.precision), data)


class Onlooker:
    """A watcher that keeps the reports and lets so many rounds be played."""

    def __init__(self, rounds: int = 10**9) -> None:
        self.reports: list[Report] = []
        self.saved: list[int] = []
        self.left = rounds

    def report(self, report: Report) -> None:
        """Keep it."""
        self.reports.append(report)

    def grid(self, trainer: Trainer) -> None:
        """Draw nothing."""

    def checkpoint(self, trainer: Trainer) -> None:
        """Note after how many samples."""
        self.saved.append(trainer.samples)

    def stop(self) -> bool:
        """Stop when the rounds are over."""
        self.left -= 1
        return self.left < 0
