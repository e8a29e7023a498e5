"""Deterministic, resumable feeding of batches: which samples come is a function of seed and position alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .api import Batch, Dataset
from .device import Device
from .seed import generator

HELD = 0.25  # share of a device's free memory that a dataset may take for good


class Feed:
    """Batches of a dataset in shuffled order, each epoch anew, moved to the device and normalised there."""

    def __init__(self, dataset: Dataset, device: Device, seed: int) -> None:
        self.dataset = _held(dataset, device.device)
        self.device = device
        self.seed = seed
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
        batch = self.dataset.batch(self.index(position, count))
        real = self.device.move(batch.real)
        if size is not None and real.shape[-1] != size:
            real = F.interpolate(real, size=(size, size), mode="area")
        return Batch(real, {key: self.device.move(value) for key, value in batch.cond.items()})


def _held(dataset: Dataset, device: torch.device) -> Dataset:
    """Hold a dataset that can move on the device itself, where it fits: then no batch waits for a copy."""
    move = getattr(dataset, "to", None)
    if move is None or device.type != "cuda":
        return dataset
    free, _ = torch.cuda.mem_get_info(device)
    held: Dataset = move(device) if dataset.samples.nbytes < HELD * free else dataset  # type: ignore[attr-defined]
    return held
