"""One source scored with one seed: samples are drawn once, seen by every extractor, and each gives a unit of results."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import pictures
from ..api import Extractor
from ..checkpoint import write_atomically
from ..errors import DataError, PluginError
from ..fidelity import VERSION, Features
from ..registry import Registry
from .drawing import Drawn
from .measures import Sides, build, heldout, measure
from .metrics import frechet, neighbours
from .protocol import Protocol
from .reference import ADAPTER, Reference, features_of, fitted
from .sources import ModelSource, Source

SCHEMA = "ganzoo.unit/1"
STRIP = 10  # samples that are shown above their nearest training images
COLLAPSED = 0.01  # share of distinct samples below which a generator has collapsed


@dataclass(frozen=True)
class Wanted:
    """An extractor of a protocol with what a recipe would call its options; an optional one may be missing."""

    name: str
    options: Mapping[str, Any]
    optional: bool
    ranks: bool


@dataclass
class Lens:
    """An extractor that knows the reference, with the reference's own features."""

    name: str
    extractor: Extractor
    sides: Sides  # the fake side is the reference itself, to be replaced
    heldout: dict[str, float | None]
    ranks: bool

    @property
    def id(self) -> str:
        """The extractor's name and hash."""
        return self.extractor.id

    @property
    def metric(self) -> str:
        """The Fréchet distance's name: FID for the verified network it was published with, FD for everything else."""
        return str(getattr(self.extractor, "reserved", "")) or "FD"


def choose(protocol: Protocol, dataset: str, registry: Registry, weights: Mapping[str, str]) -> list[Wanted]:
    """Return the extractors of a protocol that suit a dataset; the first one ranks.

    `weights` maps names, or "" for whichever takes one, to files.
    """
    for name in filter(None, weights):
        if name not in protocol.extractors + protocol.optional:
            raise PluginError(
                f"--weights names extractor {name!r}, which the protocol does not use; add --extractor {name}"
            )
    chosen: list[Wanted] = []
    for name in (*protocol.extractors, *protocol.optional):
        optional = name in protocol.optional
        if optional and not any(name in (one.name, one.qualified) for one in registry.of("extractor")):
            continue
        suits = registry.load("extractor", name).datasets
        if suits is None or dataset in suits:
            file = weights.get(name, weights.get("", ""))
            options = {"weights": file} if file and "weights" in _options(registry, name) else {}
            chosen.append(Wanted(name, options, optional, ranks=not chosen))
    if not chosen or chosen[0].optional:
        raise PluginError(f"no extractor of the protocol was made for {dataset!r}; name one with --extractor")
    return chosen


def _options(registry: Registry, name: str) -> Mapping[str, Any]:
    from ..options import options_of

    return options_of(registry.load("extractor", name))


def extractors_of(
    wanted: Sequence[Wanted], reference: Reference, registry: Registry, device: torch.device
) -> list[tuple[Wanted, Extractor]]:
    """Build the extractors and let them know the reference."""
    built: list[tuple[Wanted, Extractor]] = []
    for one in wanted:
        try:
            extractor: Extractor = registry.build("extractor", one.name, one.options)
        except (PluginError, DataError):
            if not one.optional:
                raise
            continue  # a package or a file that is not here
        built.append((one, fitted(extractor, reference.train, device)))
    return built


def lenses(
    built: Sequence[tuple[Wanted, Extractor]],
    reference: Reference,
    protocol: Protocol,
    device: torch.device,
    cache: Path | None = None,
) -> list[Lens]:
    """Compute what the extractors know of the reference, once for all models."""
    measures = build(protocol.metrics, protocol.options)
    extractors = [extractor for _, extractor in built]
    real = features_of(reference.train, extractors, protocol.batch, device, cache)
    test = features_of(reference.test, extractors, protocol.batch, device, cache) if reference.test else [None] * len(real)
    found = []
    for (one, extractor), of_real, of_test in zip(built, real, test, strict=True):
        sides = Sides(of_real, of_real, of_test, frechet.moments(of_real.values))
        found.append(Lens(one.name, extractor, sides, heldout(sides, measures), one.ranks))
    return found


def unit_key(source: Source, reference: Reference, protocol: Protocol, extractor_id: str, seed: int, device: str) -> str:
    """Return the name of a unit's file: a hash of everything that its numbers depend on."""
    facts = [SCHEMA, source.key, reference.key, protocol.sha256, extractor_id, seed, device]
    facts += [VERSION, torch.__version__, ADAPTER]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def score(
    source: Source,
    seed: int,
    reference: Reference,
    protocol: Protocol,
    found: Sequence[Lens],
    drawn: Drawn,
    strip: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield a unit for each lens: all scores of one source and seed. A source whose samples are not finite gives none.

    `strip` is where a picture of samples above their nearest training images goes, in the ranking lens's features.
    """
    count, witness = source.count(protocol), drawn.witness
    facts = {"schema": SCHEMA, "source": source.name, "seed": seed, "samples": count, "torch_fidelity": VERSION}
    if drawn.reason:
        for lens in found:
            yield {**facts, "extractor": lens.id, "status": "diverged", "reason": drawn.reason, "scores": {}}
        return
    speed = 1000 * source.seconds / source.made if isinstance(source, ModelSource) and source.made else None
    assert witness.first is not None  # at least two samples were drawn
    shown = base64.b64encode(png(witness.first)).decode()
    facts |= {
        "stream_sha256": witness.digest.hexdigest(),
        "collapsed": len(witness.known) < max(2, COLLAPSED * count),
        "witness_png": shown,
        "status": "scored",
        "reason": "",
    }
    measures = build(protocol.metrics, protocol.options)
    for lens, seen in zip(found, drawn.features, strict=True):
        begun = time.perf_counter()
        pairs = source.pairs(reference, protocol, seed) if lens.ranks and isinstance(source, ModelSource) else None
        sides = Sides(seen, lens.sides.real, lens.sides.heldout, lens.sides.moments, pairs)
        scores = {name: asdict(value) for name, value in measure(sides, measures).items()}
        if lens.ranks and strip is not None and seed == protocol.seeds[0]:
            _strip(witness.first[:STRIP], seen, lens, reference, strip)
        seconds = drawn.seconds / len(found) + time.perf_counter() - begun
        times = {"seconds": round(seconds, 3), "sample_ms": speed}
        yield {**facts, "extractor": lens.id, "dim": seen.values.shape[1], "scores": scores, **times}


def png(images: Tensor) -> bytes:
    """Return up to sixteen images as one PNG, four in a row and pixel for pixel."""
    count, channels, height, width = images.shape
    sheet = images.new_zeros(channels, -(-count // 4) * height, 4 * width)
    for number, image in enumerate(images):
        row, column = divmod(number, 4)
        sheet[:, row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    buffer = io.BytesIO()
    pictures.image(sheet.float() / 127.5 - 1).save(buffer, format="PNG")
    return buffer.getvalue()


def _strip(images: Tensor, seen: Features, lens: Lens, reference: Reference, path: Path) -> None:
    """Draw samples above the training images that are nearest to them."""
    _, index = neighbours.nearest(seen.values[: len(images)], lens.sides.real.values)
    both = torch.cat([images, reference.train.at(index)])
    pictures.save_png(pictures.grid(both.float() / 127.5 - 1, columns=len(images)), path, {"lens": lens.id})


def floors(lens: Lens, fakes: int, reals: int, seed: int = 0) -> tuple[float, float | None]:
    """Return what a perfect generator would score at these counts: by theory, and measured on halves of the real data."""
    theory = frechet.floor(lens.sides.moments.covariance, fakes, reals)
    if len(lens.sides.real.values) < 4:
        return theory, None
    return theory, frechet.measured_floor(lens.sides.real.values, fakes, reals, seed)


def write_unit(folder: Path, key: str, unit: Mapping[str, Any]) -> None:
    """Put a unit into the folder, whole or not at all; doing so twice is harmless."""
    body = {"key": key, **unit}
    sealed = {**body, "sha256": _seal(body)}
    write_atomically(folder / f"{key}.json", json.dumps(sealed, indent=1, sort_keys=True, allow_nan=False).encode())


def read_unit(folder: Path, key: str) -> dict[str, Any] | None:
    """Return a unit if its file is there, whole, and the one that its name says; None otherwise."""
    try:
        unit = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(unit, dict) or unit.get("key") != key:
        return None
    body = {name: value for name, value in unit.items() if name != "sha256"}
    return unit if unit.get("sha256") == _seal(body) else None


def _seal(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
