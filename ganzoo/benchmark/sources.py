"""What can be scored: a trained model, and the baselines that every table needs to be believed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol as Interface

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoint import read_header
from ..errors import CheckpointError, PluginError, RunFailed
from ..fidelity import Images, exact
from ..pictures import to_bytes
from ..pretrained import sha256_of
from ..registry import registry
from ..sampling import Model, find_checkpoint, load
from ..seed import seed_of
from .latents import latents, stratified
from .measures import Pairs
from .protocol import Protocol
from .reference import FIT, Reference, Split

SAMPLING = ("architecture", "game", "regularizer")  # kinds of plugins that a model's samples depend on
BLOCK = 64  # samples of a matrix product: always as many, so that each is rounded alike


class Source(Interface):
    """Something that gives images."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def stem(self) -> str:
        """What its files are called."""

    @property
    def key(self) -> str:
        """Hash of everything that its images depend on besides seed and protocol."""

    def count(self, protocol: Protocol) -> int:
        """Return how many images it gives for one seed."""

    def seeds(self, protocol: Protocol) -> tuple[int, ...]:
        """Return the seeds that make a difference."""

    def images(self, reference: Reference, protocol: Protocol, seed: int) -> Images:
        """Return its images, by position."""


class Diverged(RunFailed):
    """A model whose samples are not finite: a row without scores."""


@dataclass
class ModelSource:
    """A trained model, opened when its first image is asked for; what it draws depends on seed and position alone."""

    path: Path
    device: str = "auto"
    seconds: float = 0.0  # spent in generators
    made: int = 0  # images made in that time
    _model: dict[str, Model] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path = find_checkpoint(self.path)
        self.sha256 = sha256_of(self.path)
        self.name, self.stem = self.path.stem, f"model-{self.sha256}"

    @cached_property
    def key(self) -> str:
        """Hash of the checkpoint, and of the code that its networks are built by: either may change the samples."""
        try:
            plugins = read_header(self.path)["provenance"]["plugins"]
        except CheckpointError:
            return self.stem  # it cannot be opened, which its row will say
        code = hashlib.sha256("\n".join(map(_source_of, plugins)).encode()).hexdigest()
        return f"{self.stem}-{code[:16]}"

    def model(self, protocol: Protocol) -> Model:
        """Return the model with the weights and in the mode that the protocol asks for; in float32."""
        if protocol.weights not in self._model:
            model = load(self.path, self.device, precision="fp32", average=protocol.weights == "ema")
            self._model = {protocol.weights: model}
        model = self._model[protocol.weights]
        for net in model.nets.values():
            net.eval()
            for module in net.modules() if protocol.norm == "batch" else ():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.train().momentum = 0.0  # its averages stay as they are
        return model

    def count(self, protocol: Protocol) -> int:
        """As many as the protocol says."""
        return protocol.samples

    def seeds(self, protocol: Protocol) -> tuple[int, ...]:
        """Every seed gives other latents."""
        return protocol.seeds

    def images(self, reference: Reference, protocol: Protocol, seed: int) -> Images:
        """Return the model's images; Diverged where they are not finite."""
        model, size = self.model(protocol), protocol.batch
        labels = _labels(model, reference, protocol)

        def make(start: int, stop: int) -> Tensor:
            with model.truncated(protocol.truncation or None) as bound:
                pieces = [self._chunk(model, protocol, labels, seed, first, bound) for first in range(start, stop, size)]
            return torch.cat(pieces)[: stop - start]

        return make

    def pairs(self, reference: Reference, protocol: Protocol, seed: int) -> Pairs:
        """Return what makes pairs of images, in colour, whose latents lie a small step apart."""
        model, size = self.model(protocol), protocol.batch
        labels = _labels(model, reference, protocol)

        def make(count: int, step: float) -> Iterator[tuple[Tensor, Tensor]]:
            for first in range(0, count, size):
                with model.truncated(protocol.truncation or None) as bound:
                    start, goal = (self._latents(model, protocol, seed, first + shift, bound) for shift in (0, count))
                    ends = (start, torch.lerp(start, goal, step))
                    both = [self._decoded(model, protocol, z, labels, seed, first) for z in ends]
                near, far = (images[: count - first].expand(-1, 3, -1, -1) for images in both)
                yield near, far

        return make

    def _chunk(
        self, model: Model, protocol: Protocol, labels: Tensor | None, seed: int, first: int, bound: float
    ) -> Tensor:
        """Return images `first` to `first + batch`: networks always see a whole batch, so that each is computed alike."""
        z = self._latents(model, protocol, seed, first, bound)
        started = time.perf_counter()
        images = self._decoded(model, protocol, z, labels, seed, first)
        self.seconds, self.made = self.seconds + time.perf_counter() - started, self.made + len(z)
        return images

    def _latents(self, model: Model, protocol: Protocol, seed: int, first: int, bound: float) -> Tensor:
        latent = model.recipe.latent
        return latents(first, first + protocol.batch, latent.size, latent.prior, seed, bound)

    def _decoded(self, model: Model, protocol: Protocol, z: Tensor, labels: Tensor | None, seed: int, first: int) -> Tensor:
        index = torch.arange(first, first + len(z))
        cond = {} if labels is None else {"label": labels[index % len(labels)]}
        # a network that draws numbers of its own draws the same ones for the same samples, and nobody else's
        with exact(), torch.random.fork_rng(_accelerators(model)):
            torch.manual_seed(seed_of(seed, "benchmark", first))
            made = model.decode(z, cond, protocol.batch)
        if not bool(torch.isfinite(made).all()):
            raise Diverged(f"{model.recipe.name!r} draws samples that are not finite; it has diverged")
        return to_bytes(made)


def _source_of(plugin: Mapping[str, str]) -> str:
    """Return the hash of a plugin's source as it is installed now; empty where it is missing or has no part in samples."""
    if plugin["kind"] not in SAMPLING:
        return ""
    try:
        record = registry().find(plugin["kind"], f"{plugin['distribution']}:{plugin['name']}")
        registry().load(record.kind, record.qualified)  # only a loaded plugin can tell its file for certain
    except PluginError:
        return ""
    return registry().provenance(record)["sha256"]


def _accelerators(model: Model) -> list[torch.device]:
    return [model.device.device] if model.device.device.type == "cuda" else []


def _labels(model: Model, reference: Reference, protocol: Protocol) -> Tensor | None:
    if model.spec.classes == 0:
        return None
    counts = reference.train.classes
    return stratified(protocol.samples, counts if len(counts) == model.spec.classes else [1] * model.spec.classes)


@dataclass(frozen=True)
class Baseline:
    """Images that no network made: their scores say what a score means."""

    name: str
    summary: str
    make: Callable[[Reference, int, int], Images]  # reference, seed, count
    random: bool = True  # does the seed make a difference?
    limit: int = 0  # images that there are; 0: as many as are asked for

    @property
    def stem(self) -> str:
        """What its files are called."""
        return f"baseline-{self.name}"

    @property
    def key(self) -> str:
        """Name and version; what it shows depends on the reference, the seed and the count besides."""
        return f"{self.stem}-1"

    def count(self, protocol: Protocol) -> int:
        """As many as the protocol says, or all there are."""
        return min(self.limit or protocol.samples, protocol.samples)

    def seeds(self, protocol: Protocol) -> tuple[int, ...]:
        """Only those that make a difference."""
        return protocol.seeds if self.random else protocol.seeds[:1]

    def images(self, reference: Reference, protocol: Protocol, seed: int) -> Images:
        """Return its images."""
        return self.make(reference, seed, self.count(protocol))


def baselines(reference: Reference) -> list[Baseline]:
    """Return the rows that every board has: real images, copies of the training set, noise, the mean, a Gaussian."""
    rows = [
        Baseline("train-copies", "copies of training images: a fine distance, and worthless; see AuthPct and C_T", _copies),
        Baseline("pixel-gaussian", "a Gaussian with the pixels' mean and covariance", _gaussian),
        Baseline("mean-image", "the mean training image, again and again: a collapsed generator", _mean, random=False),
        Baseline("noise", "pixels of pure chance", _noise),
    ]
    if reference.test is None:
        return rows
    summary = "held-out real images: as good as it gets"
    return [Baseline("real-test", summary, _test, random=False, limit=len(reference.test)), *rows]


def _stream(seed: int, purpose: int, number: int) -> np.random.Generator:
    """Return numbers for one purpose and sample, the same whatever is asked for beside it."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, number, purpose, 0]))


def _test(reference: Reference, seed: int, count: int) -> Images:
    split = reference.test or reference.train
    index = split.spread(count)
    return lambda start, stop: split.at(index[start:stop])


def _copies(reference: Reference, seed: int, count: int) -> Images:
    size = len(reference.train)
    index = torch.from_numpy(_stream(seed, 1, 0).permutation(size)[np.arange(count) % size])
    return lambda start, stop: reference.train.at(index[start:stop])


def _noise(reference: Reference, seed: int, count: int) -> Images:
    shape = reference.train.shape
    return lambda start, stop: torch.from_numpy(
        np.stack([_stream(seed, 2, number).integers(0, 256, shape, np.uint8) for number in range(start, stop)])
    )


def _mean(reference: Reference, seed: int, count: int) -> Images:
    pixels = reference.train.at(reference.train.spread(FIT))
    mean = pixels.double().mean(0).round().to(torch.uint8)
    return lambda start, stop: mean.expand(stop - start, *mean.shape)


def _gaussian(reference: Reference, seed: int, count: int) -> Images:
    mean, covariance = _moments(reference.train)
    # a thousandth of a grey level squared, which rounding removes, makes constant pixels factorable
    root = np.linalg.cholesky(covariance + 1e-3 * np.eye(len(mean)))

    def block(start: int, stop: int) -> np.ndarray:
        normal = np.stack([_stream(seed, 3, number).standard_normal(len(mean)) for number in range(start, stop)])
        levels: np.ndarray = np.clip(np.rint(mean + normal @ root.T), 0, 255).astype(np.uint8)
        return levels

    def draw(start: int, stop: int) -> Tensor:
        blocks = [block(first, min(first + BLOCK, stop)) for first in range(start, stop, BLOCK)]
        return torch.from_numpy(np.concatenate(blocks)).reshape(stop - start, *reference.train.shape)

    return draw


def _moments(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of the pixels, of at most 10,000 images at even distances."""
    pixels = split.at(split.spread(FIT)).flatten(1).double().numpy()
    return pixels.mean(0), np.atleast_2d(np.cov(pixels, rowvar=False))
