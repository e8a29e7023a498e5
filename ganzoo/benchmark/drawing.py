"""Samples drawn and looked at by all processes of a launch, or by one alone: the same bits, however many share them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..api import Extractor
from ..fidelity import Features, Images, extract
from ..world import World
from .protocol import Protocol
from .reference import Reference
from .sources import Diverged, Source

WITNESSES = 16  # samples that an entry shows, four by four


@dataclass
class Witness:
    """What is kept of the samples as they pass: a hash of all, the first few, and how many differ."""

    digest: Any = field(default_factory=hashlib.sha256)
    first: Tensor | None = None
    known: set[bytes] = field(default_factory=set)

    def see(self, made: Tensor) -> None:
        """Keep what is wanted of the next images."""
        self.digest.update(made.contiguous().numpy().data)
        self.known |= {hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in made}
        if self.first is None or len(self.first) < WITNESSES:
            self.first = made if self.first is None else torch.cat([self.first, made])
            self.first = self.first[:WITNESSES].clone()


@dataclass
class Drawn:
    """What is known of a source's samples: on the process that leads, features by extractor and the witness."""

    features: list[Features] = field(default_factory=list)
    witness: Witness = field(default_factory=Witness)
    seconds: float = 0.0
    reason: str = ""  # why there are none: they are not finite


def draw(
    source: Source,
    seed: int,
    reference: Reference,
    protocol: Protocol,
    extractors: Sequence[Extractor],
    batch: int,
    device: torch.device,
    world: World,
) -> Drawn:
    """Draw all samples of a source and let every extractor see them; all processes of a launch call this at once."""
    started, drawn = time.perf_counter(), Drawn()
    count = source.count(protocol)
    columns: list[list[Tensor]] = []
    try:
        with world.own_pace():
            images = source.images(reference, protocol, seed)
        for made, *found in _stretches(images, count, extractors, protocol.batch, batch, device, world):
            if world.leads:
                drawn.witness.see(made)
                columns.append(found)
    except Diverged as error:
        return Drawn(reason=str(error))
    whole = [torch.cat(column) for column in zip(*columns, strict=True)]
    for values, logits in zip(whole[::2], whole[1::2], strict=True):
        drawn.features.append(Features(values, logits if logits.shape[1] else None))
    drawn.seconds = time.perf_counter() - started
    return drawn


def _stretches(
    images: Images,
    count: int,
    extractors: Sequence[Extractor],
    chunk: int,
    batch: int,
    device: torch.device,
    world: World,
) -> Iterator[list[Tensor]]:
    """Yield images, then features and logits of each extractor, one stretch of samples after the other.

    Of a stretch each process does one piece of whole chunks, at the places where one process alone would have them, so
    networks see the same. Diverged on all processes where a piece of any is not finite.
    """
    piece = _piece(count, world.size, chunk, batch)
    for start in range(0, count, piece * world.size):
        first = start + piece * world.rank
        # who has nothing left looks at the first sample once more, for tensors that are exchanged must have one shape
        first, stop = (first, min(first + piece, count)) if first < count else (0, 1)
        parts: list[Tensor] = []
        failure = ""
        with world.own_pace():
            try:
                parts = _looked_at(images, first, stop, extractors, chunk, device)
            except Diverged as error:
                failure = str(error)
        if reason := next(filter(None, world.everyone(failure)), ""):
            raise Diverged(reason)
        yield [world.gather(_filled(part, piece))[: count - start] for part in parts]


def _piece(count: int, processes: int, chunk: int, batch: int) -> int:
    """Return how many samples a process takes at a time: whole chunks, about `batch`, and as even as can be."""
    held = -(-batch // chunk) * chunk
    stretches = -(-count // (processes * held))
    return -(-count // (processes * stretches * chunk)) * chunk


def _looked_at(
    images: Images, first: int, stop: int, extractors: Sequence[Extractor], chunk: int, device: torch.device
) -> list[Tensor]:
    kept: list[Tensor] = []

    def make(start: int, end: int) -> Tensor:
        kept.append(images(first + start, first + end))
        return kept[-1]

    found = extract(make, stop - first, extractors, chunk=chunk, batch=stop - first, device=device)
    columns = [
        (one.values, one.values.new_zeros(len(one.values), 0) if one.logits is None else one.logits) for one in found
    ]
    return [torch.cat(kept), *(part for pair in columns for part in pair)]


def _filled(x: Tensor, count: int) -> Tensor:
    """Return a tensor of `count` rows, the last ones zeros; of all processes only the last pieces are short."""
    return torch.cat([x, x.new_zeros(count - len(x), *x.shape[1:])])
