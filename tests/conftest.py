"""What many tests share: small data, small networks, and a registry that knows only what a test gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganzoo import assemble
from ganzoo.api import Architecture, Progress, Spec, TensorDataset
from ganzoo.config import Draft, Recipe
from ganzoo.device import Device
from ganzoo.options import check_options
from ganzoo.trainer import Trainer


class TinyGenerator(nn.Module):
    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.shape = spec.shape
        self.embed = nn.Embedding(spec.classes, spec.latent) if spec.classes else None
        self.body = nn.Sequential(nn.Linear(spec.latent, 32), nn.ReLU(), nn.Linear(32, spec.shape.numel()), nn.Tanh())

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = z + self.embed(label)
        return self.body(z).unflatten(1, self.shape)


class TinyTranslator(nn.Module):
    """Images to images: one convolution each way."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(spec.shape[0], 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, spec.shape[0], 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.body(x))


class TinyEncoder(nn.Module):
    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(spec.shape.numel(), 32), nn.ReLU(), nn.Linear(32, spec.latent))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class TinyDiscriminator(nn.Module):
    """Works at any image size, for games that change it."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.embed = nn.Embedding(spec.classes, 16) if spec.classes else None
        self.body = nn.Sequential(
            nn.Conv2d(spec.shape[0], 8, 3, stride=2, padding=1),
            nn.Softplus(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 16),
        )
        self.head = nn.Linear(16, 1)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        features = self.body(x)
        logits = self.head(torch.nn.functional.softplus(features)).squeeze(1)
        return logits if self.embed is None else logits + (self.embed(label) * features).sum(1)


class Tiny(Architecture):
    """The smallest networks for every role that the tests' games ask for."""

    def generator(self, spec: Spec) -> nn.Module:
        return TinyGenerator(_sized(spec))

    def discriminator(self, spec: Spec) -> nn.Module:
        return TinyDiscriminator(spec)

    def translator(self, spec: Spec) -> nn.Module:
        return TinyTranslator(spec)

    def encoder(self, spec: Spec) -> nn.Module:
        return TinyEncoder(_sized(spec))


class GrowingGenerator(TinyGenerator):
    """Follows the size of the stage, as progressive growing does."""

    size: int | None = None

    def on_progress(self, progress: Progress) -> None:
        self.size = progress.size

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        x = super().forward(z, label)
        return x if self.size is None else torch.nn.functional.adaptive_avg_pool2d(x, self.size)


class Growing(Tiny):
    """Tiny networks for stages of different sizes."""

    def generator(self, spec: Spec) -> nn.Module:
        return GrowingGenerator(_sized(spec))


@pytest.fixture
def growing() -> type[Architecture]:
    return Growing


def _sized(spec: Spec) -> Spec:
    return Spec(shape=torch.Size(spec.shape), classes=spec.classes, latent=spec.latent)


class Local:
    """A registry of just these plugins, for what a test makes up itself."""

    def __init__(self, plugins: Mapping[tuple[str, str], Any]) -> None:
        self.plugins = dict(plugins)

    def build(self, kind: str, name: str, options: Mapping[str, Any]) -> Any:
        plugin = self.plugins[kind, name]
        return plugin(**check_options(f"{kind} {name!r}", plugin, options))


@pytest.fixture
def images() -> TensorDataset:
    """Forty grey pictures of 16x16 pixels in two classes: bright left halves and bright right halves, with noise."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 60, (40, 1, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.arange(40) % 2
    pictures[labels == 0, :, :, :8] += 180
    pictures[labels == 1, :, :, 8:] += 180
    return TensorDataset(pictures, labels, classes=2)


@pytest.fixture
def make(images: TensorDataset):
    """Return a function that builds a trainer of made-up plugins: make(game=..., loss=..., raw={...})."""

    def build(
        *,
        loss: Any,
        game: Any = None,
        regularizers: Mapping[str, Any] | None = None,
        raw: Mapping[str, Any] | None = None,
        architecture: Any = Tiny,
        data: TensorDataset | None = None,
        labels: bool = False,
    ) -> Trainer:
        data = data or (images if labels else TensorDataset(images.samples))
        recipe = recipe_of(raw or {}, game is not None, list(regularizers or {}))
        plugins = {("architecture", "tiny"): architecture, ("loss", "it"): loss, ("dataset", "it"): lambda: data}
        plugins |= {("game", "it"): game} if game else {}
        plugins |= {("regularizer", name): plugin for name, plugin in (regularizers or {}).items()}
        return assemble.trainer(recipe, Local(plugins), Device.choose("cpu", recipe.train.precision), data)

    return build


def recipe_of(raw: Mapping[str, Any], game: bool, regularizers: list[str]) -> Recipe:
    base: dict[str, Any] = {
        "data": {"name": "it"},
        "architecture": {"name": "tiny"},
        "loss": {"name": "it"},
        "latent": {"size": 8},
        "optimizer": {"name": "adam", "lr": 1e-3, "betas": [0.5, 0.9]},
        "train": {"batch": 8, "samples": 64, "ema": 0.9, "precision": "fp32"},
        "regularizer": [{"name": name} for name in regularizers],
    }
    if "name" in raw.get("optimizer", {}):
        base["optimizer"] = {}
    if game:
        base["game"] = {"name": "it"}
    draft = Draft("test", base, "test")
    draft.apply({key: value for key, value in raw.items() if key != "regularizer"}, "test")
    for name, options in raw.get("regularizer", {}).items():
        for key, value in options.items():
            draft.set(f"regularizer.{name}.{key}", value, "test")
    return draft.finish()


@pytest.fixture(autouse=True)
def one_thread():
    """Small networks run fastest, and to the same bits everywhere, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
