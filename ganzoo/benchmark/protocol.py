"""Protocols: versioned files that fix everything a score depends on besides the model, so that scores can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..config import read_toml
from ..errors import DataError, RecipeError, did_you_mean
from ..options import check_options
from ..registry import Registry
from ..zoo import folders

FOLDER = "protocols"  # of a zoo package
ANCHORS = "_anchors.toml"  # beside them


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How models are scored: samples, seeds, networks' state, extractors and metrics with their settings."""

    name: str
    version: int
    samples: int  # generated for each seed
    seeds: tuple[int, ...]
    extractors: tuple[str, ...]  # of those that suit the data, the first ranks
    metrics: tuple[str, ...]
    optional: tuple[str, ...] = ()  # extractors that are added where their packages and weights are there
    summary: str = ""
    batch: int = 64  # samples that a network sees at a time
    reference: Literal["train", "test"] = "train"  # the split that samples are compared with
    latents: Literal["philox/1"] = "philox/1"
    labels: Literal["stratified"] = "stratified"  # in the proportions of the reference
    weights: Literal["ema", "raw"] = "ema"
    norm: Literal["eval", "batch"] = "eval"  # what batch norm uses: its averages, or each batch
    truncation: float = 0.0  # psi of a generator that is Truncatable, else the deviations that latents lie within; 0: none
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of the metrics
    overrides: tuple[str, ...] = ()  # what was changed by hand: not comparable with the file's own scores

    @property
    def id(self) -> str:
        """Name and version, with a mark where something was changed."""
        return f"{self.name}/{self.version}" + ("+custom" if self.overrides else "")

    @property
    def sha256(self) -> str:
        """Hash of everything that scores depend on; the summary is not among it."""
        facts = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("summary", "overrides")}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def changed(self, **changes: Any) -> Protocol:
        """Return the protocol with other values, marked as custom where one of them is new; None leaves a value alone."""
        new = {key: value for key, value in changes.items() if value is not None and value != getattr(self, key)}
        marks = tuple(f"{key} = {json.dumps(value)}" for key, value in sorted(new.items()))
        protocol = replace(self, **new, overrides=(*self.overrides, *marks))
        return _checked(protocol, protocol.name)


def find(name: str, registry: Registry) -> Protocol:
    """Return the protocol of this name in an installed zoo package, or that of a TOML file."""
    path = Path(name)
    if path.suffix != ".toml":
        known = {place.stem: place for place in _files(registry)}
        if name not in known:
            listed = f" (there are: {', '.join(sorted(known))})"
            raise RecipeError(f"there is no protocol {name!r}{did_you_mean(name, known) or listed}")
        path = known[name]
    raw = read_toml(path)
    what = f"protocol {path.stem!r}"
    checked = check_options(what, Protocol, {"name": path.stem, **{key: _frozen(value) for key, value in raw.items()}})
    if checked.get("overrides"):
        raise RecipeError(f"{what} has 'overrides', which only the command line may set; remove it")
    return _checked(Protocol(**checked), what)


def names(registry: Registry) -> list[str]:
    """Return the names of the protocols that are installed."""
    return sorted({place.stem for place in _files(registry)})


def anchors(registry: Registry) -> tuple[Tensor, Tensor]:
    """Return real training and test images, uint8 [N, 1, H, W], whose distances the selftest knows.

    DataError where they are not on this machine; nothing is downloaded.
    """
    for _, folder in folders(registry):
        file = folder / FOLDER / ANCHORS
        if file.is_file():
            said = read_toml(file)
            splits = [
                registry.build("dataset", said["name"], {**said["options"], "split": one}) for one in ("train", "test")
            ]
            first, second = (data.batch(torch.arange(len(data))).real for data in splits)
            return first, second
    raise DataError("no zoo package names images for the selftest; reinstall ganzoo-toolkit")


def _files(registry: Registry) -> Iterator[Path]:
    for _, folder in folders(registry):
        yield from (path for path in sorted((folder / FOLDER).glob("*.toml")) if not path.name.startswith("_"))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _checked(protocol: Protocol, what: str) -> Protocol:
    """Return a protocol that can be carried out; RecipeError says what of it cannot."""
    wrong = {
        "samples must be at least 2": protocol.samples < 2,
        "batch must be at least 1": protocol.batch < 1,
        "seeds must name at least one seed, and each once": not protocol.seeds
        or len(set(protocol.seeds)) < len(protocol.seeds),
        "extractors must name at least one": not protocol.extractors,
        "metrics must name at least one": not protocol.metrics,
        "truncation must not be negative": protocol.truncation < 0,
        "options must belong to metrics of the protocol": bool(protocol.options.keys() - set(protocol.metrics)),
    }
    for text, is_wrong in wrong.items():
        if is_wrong:
            raise RecipeError(f"{what}: {text}; change it in the file or on the command line")
    return protocol
