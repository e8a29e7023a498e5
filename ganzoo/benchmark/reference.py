"""The real side of a score: pixels, their hash, labels, and the features that are computed once and kept."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import assemble
from ..api import Dataset, Extractor
from ..checkpoint import read_tensors, write_atomically, write_tensors
from ..errors import CheckpointError, DataError, PluginError, ResourceError
from ..fidelity import VERSION, Features, extract
from ..options import options_of
from ..pictures import to_bytes
from ..recipe import Recipe
from ..registry import Registry
from .metrics.frechet import moments

ADAPTER = 1  # raised whenever the same images would get other features than before
FIT = 10_000  # images that an extractor adapts to, at even distances
PIECE = 4096  # images handled at a time
CHUNK = 64  # images that an extractor sees at a time where no protocol says so


class Split:
    """One split of a dataset as the benchmark sees it: uint8 images by position, their hash and their classes."""

    def __init__(self, data: Dataset, name: str) -> None:
        if len(data.spec.shape) != 3 or data.spec.shape[0] not in (1, 3):
            raise DataError(f"samples of shape {data.spec.shape} are no grey or colour images, and only images are scored")
        self.data, self.name = data, name
        self.shape: tuple[int, ...] = data.spec.shape

    def __len__(self) -> int:
        return len(self.data)

    def at(self, index: Tensor) -> Tensor:
        """Return the images at these positions, uint8 [N, C, H, W]."""
        images = self.data.batch(index).real.cpu()
        return images if images.dtype == torch.uint8 else to_bytes(images)

    def images(self, start: int, stop: int) -> Tensor:
        """Return images `start` to `stop`, uint8 [N, C, H, W]."""
        return self.at(torch.arange(start, stop))

    def spread(self, count: int) -> Tensor:
        """Return positions of `count` images at even distances, as data may be sorted by class; or all."""
        count = min(count, len(self))
        return torch.arange(count) * len(self) // count

    @cached_property
    def pixels_sha256(self) -> str:
        """Hash of all pixels in order, as bytes [N, C, H, W] without a header."""
        digest = hashlib.sha256()
        for start in range(0, len(self), PIECE):
            digest.update(self.images(start, min(start + PIECE, len(self))).contiguous().numpy().data)
        return digest.hexdigest()

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """How many samples each class has; empty where the data has no classes."""
        if self.data.spec.classes == 0:
            return ()
        counts = torch.zeros(self.data.spec.classes, dtype=torch.int64)
        for start in range(0, len(self), PIECE):
            index = torch.arange(start, min(start + PIECE, len(self)))
            label = self.data.batch(index).cond["label"].cpu()
            counts += torch.bincount(label, minlength=len(counts))
        return tuple(int(count) for count in counts)


@dataclass
class Reference:
    """The data of a board: the split that samples are compared with, and the one that nobody trained on."""

    name: str  # of the dataset, or the last part of a path
    train: Split
    test: Split | None

    @property
    def key(self) -> str:
        """Hash of everything that scores take from here."""
        return "-".join(split.pixels_sha256 for split in (self.train, self.test) if split)


def open_reference(recipe: Recipe, registry: Registry, split: str = "train") -> Reference:
    """Open the data of a recipe, of which `split` is the reference; the held-out one too, where the dataset has one."""
    part = recipe.data
    name = part.name or Path(part.path).name
    splits = part.name != "" and "split" in options_of(registry.load("dataset", part.name))
    if not splits:
        if split != "train":
            raise DataError(f"data {name!r} has no {split!r} split to compare with; leave --reference-split out")
        return Reference(name, Split(assemble.dataset(recipe, registry), "train"), None)
    if split == "test":
        return Reference(name, Split(assemble.dataset(recipe, registry, split="test"), "test"), None)
    train, test = (Split(assemble.dataset(recipe, registry, split=one), one) for one in ("train", "test"))
    return Reference(name, train, test)


def cache_folder() -> Path:
    """Return where features are kept: $XDG_CACHE_HOME/ganzoo/features, or ~/.cache/ganzoo/features."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()) / "ganzoo" / "features"


def fitted(extractor: Extractor, split: Split, device: torch.device) -> Extractor:
    """Return an extractor that knows the reference and is where it will be used."""
    with torch.no_grad():
        extractor.fit(split.at(split.spread(FIT)))
    return extractor.eval().requires_grad_(False).to(device)


def features_of(
    split: Split, extractors: Sequence[Extractor], chunk: int, device: torch.device, cache: Path | None = None
) -> list[Features]:
    """Return the features of all images of a split: from the cache where it has them, else computed in one pass and kept.

    A cached file is named after its content's key: pixels, extractor, chunk, device, versions. One that is damaged, or says
    another key than its name, is computed anew.
    """
    cache = cache or cache_folder()
    keys = [_key(split, extractor, chunk, device) for extractor in extractors]
    found = {key: read for key in keys if (read := _read(cache / f"{key}.safetensors", key)) is not None}
    missing = [(key, one) for key, one in zip(keys, extractors, strict=True) if key not in found]
    if missing:
        made = extract(split.images, len(split), [one for _, one in missing], chunk=chunk, batch=chunk, device=device)
        for (key, one), features in zip(missing, made, strict=True):
            if not bool(torch.isfinite(features.values).all()):
                raise PluginError(f"extractor {one.id} gives features that are not finite on the reference; use another")
            _write(cache / f"{key}.safetensors", {"key": key, "extractor": one.id, "pixels": split.pixels_sha256}, features)
            found[key] = features
    return [found[key] for key in keys]


def export_moments(
    registry: Registry, extractor: str, options: Mapping[str, Any], data: str, data_options: Mapping[str, Any], file: Path
) -> str:
    """Write mean `mu` and covariance `sigma` of a dataset's features as .npz; return the extractor's id."""
    import numpy as np

    split = Split(registry.build("dataset", data, data_options), str(data_options.get("split", "train")))
    cpu = torch.device("cpu")
    network = fitted(registry.build("extractor", extractor, options), split, cpu)
    found = moments(features_of(split, [network], CHUNK, cpu)[0].values)
    buffer = io.BytesIO()
    np.savez(buffer, mu=found.mean, sigma=found.covariance)
    write_atomically(file, buffer.getvalue())
    return network.id


def _key(split: Split, extractor: Extractor, chunk: int, device: torch.device) -> str:
    facts = [split.pixels_sha256, list(split.shape), len(split), extractor.id, chunk, device.type]
    facts += [VERSION, torch.__version__, platform.machine(), ADAPTER]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _write(path: Path, facts: dict[str, str], features: Features) -> None:
    tensors = {"values": features.values}
    tensors |= {} if features.logits is None else {"logits": features.logits}
    try:
        write_tensors(path, tensors, facts)
    except ResourceError as error:
        raise ResourceError(f"{error} (features can be kept elsewhere: set XDG_CACHE_HOME)") from error


def _read(path: Path, key: str) -> Features | None:
    """Return what a cached file holds if it is whole and holds what its name says."""
    if not path.is_file():
        return None
    try:
        tensors, facts = read_tensors(path)
    except CheckpointError:
        return None
    return Features(tensors["values"], tensors.get("logits")) if facts.get("key") == key else None
