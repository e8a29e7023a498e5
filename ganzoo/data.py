"""Deterministic, resumable feeding of batches: which samples come is a function of seed and position alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .ahead import Course, Workers, copied_ahead, workers_for
from .api import Batch, Dataset
from .device import Device
from .seed import generator

HELD = 0.25  # share of a device's free memory that a dataset may take for good


class Feed:
    """Batches of a dataset in shuffled order, each epoch anew, moved to the device and normalised there.

    What it is asked for one after the other it reads ahead; close it, so that its workers end.
    """

    def __init__(self, dataset: Dataset, device: Device, seed: int, workers: int | Literal["auto"] = 0) -> None:
        self.dataset = _held(dataset, device.device)
        self.device = device
        self.seed = seed
        held = self.dataset is not dataset  # what is on the device already, nobody need read ahead
        count = 0 if held else workers_for(dataset, workers)
        self._workers = Workers(dataset, count, self.index) if count else None
        self._copies = device.copies_aside and not held
        self._course: Course | None = None  # what it expects to be asked for
        self._batches: Iterator[Batch] = iter(())
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def order(self, epoch: int) -> Tensor:
        """Return the permutation of the whole dataset that this epoch walks through."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = torch.randperm(len(self.dataset), generator=generator(self.seed, "order", epoch))
        return self._order

    def index(self, position: int, count: int) -> Tensor:
        """Return which samples stand at positions `position` to `position + count` of the endless stream."""
        pieces: list[Tensor] = []
        while count > 0:
            epoch, offset = divmod(position, len(self.dataset))
            piece = self.order(epoch)[offset : offset + count]
            pieces.append(piece)
            position, count = position + len(piece), count - len(piece)
        return torch.cat(pieces)

    def batch(self, position: int, count: int, size: int | None = None) -> Batch:
        """Return `count` samples from this position on, on the device, in [-1, 1], images averaged down to `size`."""
        batch = self._read(position, count)
        real = self.device.move(batch.real)
        if size is not None and real.shape[-1] != size:
            real = F.interpolate(real, size=(size, size), mode="area")
        return Batch(real, {key: self.device.move(value) for key, value in batch.cond.items()})

    def close(self) -> None:
        """End the workers, where there are some."""
        self._course, self._batches = None, iter(())
        if self._workers is not None:
            self._workers.close()

    def _read(self, position: int, count: int) -> Batch:
        """Return the samples of a request; where it is not the expected one, the reading starts anew from there."""
        course, self._course = self._course, None  # an error on the way leaves nothing to be expected
        if course is None or (course.position, course.count) != (position, count):
            course = course.turned(position, count) if course else Course(position, count, count)
            self._batches = self._reading(course)
        batch = next(self._batches)
        self._course = course.after()
        return batch

    def _reading(self, course: Course) -> Iterator[Batch]:
        batches = self._workers.read(course) if self._workers else self._here(course)
        return copied_ahead(batches, self.device) if self._copies else batches

    def _here(self, course: Course) -> Iterator[Batch]:
        return (self.dataset.batch(self.index(position, count)) for position, count in course)


def _held(dataset: Dataset, device: torch.device) -> Dataset:
    """Hold a dataset that can move on the device itself, where it fits: then no batch waits for a copy."""
    move = getattr(dataset, "to", None)
    if move is None or device.type != "cuda":
        return dataset
    free, _ = torch.cuda.mem_get_info(device)
    held: Dataset = move(device) if dataset.samples.nbytes < HELD * free else dataset  # type: ignore[attr-defined]
    return held
