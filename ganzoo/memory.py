"""How many samples are computed at once: the most that fit into memory, found by trying it with the real trainer."""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from . import checkpoint
from .errors import ResourceError
from .recipe import Recipe
from .sync_batch_norm import SyncBatchNorm
from .trainer import Trainer
from .world import Apart

SHARE = 0.9  # of the memory within reach: sample grids, a checkpoint's copies, gaps and other programs need some too
FIRST = 4  # samples of the first try: fewer are seldom all that fits, and take long


@dataclass(frozen=True)
class Found:
    """The samples that are computed at once, and the most memory that a round takes so."""

    size: int
    peak: int  # bytes


def out_of_memory(error: BaseException) -> bool:
    """Does an error say that memory ran out? Of a processor's memory torch tells in words only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def at_once(trainer: Trainer) -> tuple[int, int]:
    """Return how many samples of a batch this process has where the training stands, and how many it computes at once."""
    progress, batch, _ = trainer.plan.at(trainer.samples, trainer.rounds)
    own = batch // trainer.device.world.size
    return own, own // trainer.plan.pieces(progress.stage, own)


def pieces(trainer: Trainer) -> list[int]:
    """Return how many pieces each stage's batch is cut into."""
    batches = [stage.batch or trainer.plan.batch for stage in trainer.plan.stages] or [trainer.plan.batch]
    return [trainer.plan.pieces(stage, batch // trainer.device.world.size) for stage, batch in enumerate(batches)]


def largest(
    sizes: Sequence[int], held: int, fits: Callable[[int], bool], attempt: Callable[[int], int | None]
) -> Found | None:
    """Return the largest of these sizes that fits; None where none does.

    `attempt` tries one and returns its peak, None where memory ran out; `held` are the bytes without any, and `fits` says
    whether so many may be tried. Sizes are doubled while that goes well; what a size needs is predicted by the line through
    the last two peaks, so that none is tried in vain.
    """
    peaks, left = [Found(0, held)], sorted(sizes)
    while left:
        last = peaks[-1]
        size = max((size for size in left if size <= max(2 * last.size, FIRST)), default=left[0])
        slope = (last.peak - peaks[-2].peak) / (last.size - peaks[-2].size) if len(peaks) > 1 else 0.0
        peak = attempt(size) if fits(round(last.peak + slope * (size - last.size))) else None
        if peak is None:
            left = [other for other in left if other < size]
            continue
        left = [other for other in left if other > size]
        if len(peaks) > 1 and peak <= last.peak:
            peaks.pop()  # it was a peak of before, of which nothing follows
        peaks.append(Found(size, peak))
    return peaks[-1] if peaks[-1].size else None


def settle(recipe: Recipe, trainer: Trainer) -> list[str]:
    """Find how many samples a trainer computes at once in each stage where the recipe leaves it open; return what to tell.

    The trainer's state stays as it is. ResourceError where not even the smallest piece fits.
    """
    if recipe.train.micro_batch != "auto":
        return []
    if not trainer.device.tells_memory:
        raise ResourceError(
            f"device '{trainer.device.device}' does not tell how much memory is used; set train.micro_batch to a number"
        )
    found: dict[tuple[object, ...], Found] = {}
    chosen, notes = [], []
    tries = _Tries(trainer)
    for start, _ in trainer.plan.spans:
        progress, batch, turns = trainer.plan.at(start, 0)
        alike = progress.size, batch, turns
        if alike not in found:
            found[alike] = tries.search(start, batch)
            where = f"of stage {progress.stage + 1} " if trainer.plan.stages else ""
            notes.append(_note(trainer, found[alike], batch, where))
        chosen.append(found[alike].size)
    trainer.plan = replace(trainer.plan, micro_batches=tuple(chosen))
    return notes


def _note(trainer: Trainer, found: Found, batch: int, where: str) -> str:
    own = batch // trainer.device.world.size
    text = f"{found.size} of {own} samples {where}are computed at once, with {found.peak / 1e9:.2f} GB of memory at most"
    normed = [name for name, net in trainer.nets.items() if any(isinstance(part, _BatchNorm) for part in net.modules())]
    if normed and found.size < own:
        text += f"; batch norm in {' and '.join(normed)} has statistics of {found.size} samples"
    return text


class _Tries:
    """Rounds that are played for the memory they take, and are then as if they had never been.

    Several processes try the same sizes at the same time, each by itself, and agree after every try: in the middle of a
    round one that runs out of memory would leave the others waiting.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.plan, self.device = trainer, trainer.plan, trainer.device
        world = self.device.world
        self.sharing = world.everyone(platform.node()).count(platform.node())
        self.norms = [part for net in trainer.nets.values() for part in net.modules() if isinstance(part, _BatchNorm)]
        tensors, self.counters = checkpoint.state_of(trainer)
        self.tensors = {key: value.detach().to("cpu", copy=True) for key, value in tensors.items()}
        self.terms = list(trainer.terms)

    def search(self, start: int, batch: int) -> Found:
        """Return what fits in the stage that begins after so many samples."""
        own = batch // self.device.world.size
        # batch norm has no statistics of one sample
        least = 2 if self.norms and own > 1 else 1
        sizes = [size for size in range(least, own + 1) if own % size == 0]
        with self._apart():
            self.device.forget_peak()
            found = largest(sizes, self.device.peak_bytes(), self._fits, lambda size: self._attempt(start, size))
        if found is None:
            raise ResourceError(
                f"not even {sizes[0]} of a batch's {own} samples fit into memory; use narrower networks, smaller samples "
                f"or a device with more than the {self.device.reachable_bytes(self.sharing) / 1e9:.1f} GB within reach"
            )
        return found

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Let the trainer play by itself, with its part of a batch and its own randomness."""
        world = self.device.world
        alone = Apart(*astuple(world)) if world.size > 1 else world
        exchanging = [norm for norm in self.norms if isinstance(norm, SyncBatchNorm)]
        self.trainer.device = replace(self.device, world=alone)
        for norm in exchanging:
            norm.world = alone
        with torch.random.fork_rng(devices=None if self.device.device.type == "cuda" else []):
            yield
        for norm in exchanging:
            norm.world = world
        self.trainer.device, self.trainer.plan = self.device, self.plan
        self.trainer.feed.close()  # it is to expect what comes next, and to hold nothing until then

    def _fits(self, peak: int) -> bool:
        """Is there so much memory for each process?"""
        return all(self.device.world.everyone(peak <= SHARE * self.device.reachable_bytes(self.sharing)))

    def _attempt(self, start: int, size: int) -> int | None:
        """Play one round in pieces of a size, with every phase that it may have; return the peak, the largest of all."""
        self.device.forget_peak()
        self.trainer.plan = replace(self.plan, micro_batches=(size,) * max(len(self.plan.stages), 1))
        peak = self._play(start)
        self._restore()
        peaks = self.device.world.everyone(peak)
        return None if None in peaks else max(peaks)

    def _play(self, start: int) -> int | None:
        self.trainer.samples = start
        for player in self.trainer.players.values():
            player.turns = 0  # when every lazy phase is due
        try:
            self.trainer.round()
            self.device.synchronize()
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            return None
        return self.device.peak_bytes()

    def _restore(self) -> None:
        gc.collect()  # what an error left behind
        for player in self.trainer.players.values():
            player.optimizer.zero_grad(set_to_none=True)
        # copies: an optimizer goes on with some of the very tensors that it is given
        checkpoint.restore(self.trainer, {key: value.clone() for key, value in self.tensors.items()}, self.counters)
        self.trainer.terms = list(self.terms)
        self.trainer.announce()
