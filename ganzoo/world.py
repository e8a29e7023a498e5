"""Several processes as one training: who is who, and the few things that they say to each other.

The only user of torch.distributed. There is no wrapper around a network: the gradients of a step are averaged in one flat
piece, which is right for any number of forward passes, double backward and penalties that touch some parameters only.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch._C._distributed_c10d import Store

from .errors import PeerFailed, RankLost, UsageError

Made = TypeVar("Made")
BEAT = 2.0  # seconds between two signs of life of a leader that is busy


def patience() -> float:
    """Return the seconds that one process waits for another before it gives up: GANZOO_PATIENCE, or 30."""
    text = os.environ.get("GANZOO_PATIENCE", "30")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds < 1e6:
        raise UsageError(f"GANZOO_PATIENCE={text!r} is no number of seconds; give the time to wait for another process")
    return seconds


@dataclass(frozen=True)
class World:
    """The processes of a launch; alone by default, when everything here does nothing."""

    rank: int = 0
    size: int = 1
    local: int = 0  # rank on this machine: which of its devices is meant

    @property
    def leads(self) -> bool:
        """Is this the process that writes?"""
        return self.rank == 0

    def share(self, x: Tensor) -> Tensor:
        """Return this process's part of a global batch [N, ...]: equal parts in the order of ranks."""
        part = len(x) // self.size
        return x[self.rank * part : (self.rank + 1) * part]

    def average(self, tensors: Sequence[Tensor], *, finite: bool = False) -> Tensor | None:
        """Replace tensors of one type by their means over all processes, in one exchange; return the flat mean.

        With `finite`, zeros take the place of a mean that is not, so that nobody steps into nonsense; the return tells.
        None where this process is alone or there is nothing to average.
        """
        if self.size == 1 or not tensors:
            return None
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self._add(flat)
        flat /= self.size
        safe = torch.where(torch.isfinite(flat).all(), flat, torch.zeros_like(flat)) if finite else flat
        for tensor, mean in zip(tensors, torch.split(safe, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))
        return flat

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes; no gradient."""
        total = x.detach().clone()
        if self.size > 1:
            self._add(total)
        return total

    def _add(self, x: Tensor) -> None:
        """Add what the others have, in place."""
        with _listening():
            torch.distributed.all_reduce(x)

    def gather(self, x: Tensor) -> Tensor:
        """Return the rows [N, ...] of all processes in the order of ranks; no gradient."""
        if self.size == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.size)]
        with _listening():
            torch.distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    def everyone(self, value: Any) -> list[Any]:
        """Return the values of all processes, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _listening():
            torch.distributed.all_gather_object(values, value)
        return values

    def leaders(self, value: Any) -> Any:
        """Return the value of the process that leads."""
        if self.size == 1:
            return value
        box = [value]
        with _listening():
            torch.distributed.broadcast_object_list(box)
        return box[0]

    def leaders_tensors(self, tensors: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Return the leader's tensors by name, on the processor; the others give None."""
        if self.size == 1:
            return tensors or {}
        layout = self.leaders([(key, value.shape, value.dtype) for key, value in (tensors or {}).items()])
        found = {}
        for key, shape, dtype in layout:
            value = tensors[key].contiguous() if tensors else torch.empty(shape, dtype=dtype)
            with _listening():
                torch.distributed.broadcast(value, 0)
            found[key] = value
        return found

    def leader_first(self, act: Callable[[], Made]) -> Made:
        """Return what `act` makes on each process, on the leader before it is begun on the others."""
        with self.led() as leads:
            made = act() if leads else None
        return cast("Made", made) if self.leads else act()

    @contextmanager
    def led(self) -> Iterator[bool]:
        """Let the leader do something that may take long; the others wait after the block while it shows signs of life.

        Yields whether this process leads. PeerFailed where the leader failed, RankLost where it fell silent.
        """
        if self.size == 1:
            yield True
        elif self.leads:
            with _alive(_store(), self._next_task()):
                yield True
        else:
            yield False
            _wait(_store(), self._next_task())

    @contextmanager
    def own_pace(self) -> Iterator[None]:
        """Let every process do its part, which may take some of them long; all wait after the block for all.

        PeerFailed where another process failed, RankLost where one fell silent.
        """
        if self.size == 1:
            yield
            return
        task = self._next_task()
        with _alive(_store(), f"{task}/{self.rank}"):
            yield
        for rank in range(self.size):
            _wait(_store(), f"{task}/{rank}", f"process {rank}")

    def _next_task(self) -> str:
        """Every process counts the tasks that were led, so all mean the same one."""
        global _tasks
        _tasks += 1
        return f"ganzoo/task/{_tasks}"


@dataclass(frozen=True)
class Apart(World):
    """One of several processes that does its part, with all the memory that this takes, without a word to the others."""

    def _add(self, x: Tensor) -> None:
        """Nobody else is heard."""

    def gather(self, x: Tensor) -> Tensor:
        """Return as many rows as all processes have."""
        return torch.cat([x] * self.size)


ALONE = World()
_tasks = 0
_here = ALONE  # the launch that this process has joined


def launched() -> bool:
    """Was this process started by torchrun, as one of several?"""
    return torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()


@contextmanager
def joined(cuda: bool = False) -> Iterator[World]:
    """Join the other processes of a torchrun launch, or be alone; `cuda` says whether tensors will lie on GPUs.

    Who has joined already stays with them; the launch is left at the end of the outermost block.
    """
    global _here
    if _here.size > 1 or not launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield _here
        return
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    with _listening():
        torch.distributed.init_process_group(backend, timeout=timedelta(seconds=patience()))
    try:
        _here = World(*(int(os.environ[key]) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
        yield _here
        with _listening():
            torch.distributed.barrier()  # who leaves while another is still talking takes it down
    finally:
        _here = ALONE
        torch.distributed.destroy_process_group()


def here() -> World:
    """Return the launch that this process has joined, or that it is alone."""
    return _here


def _store() -> Store:
    """Return torchrun's own table of texts, which outlives any of the processes."""
    found: Store = torch.distributed.distributed_c10d._get_default_store()
    return found


@contextmanager
def _listening() -> Iterator[None]:
    """Say in one sentence that another process is gone, of which torch tells with a RuntimeError of many words."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RankLost(
            f"another process of this launch died or fell silent ({reason[:120]}); the same command goes on from the last "
            "checkpoint"
        ) from error


@contextmanager
def _alive(store: Store, task: str) -> Iterator[None]:
    """Give signs of life from a thread while the block runs, and tell how it ended."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT):
            store.add(f"{task}/beat", 1)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    outcome = "failed"
    try:
        yield
        outcome = "done"
    finally:
        over.set()
        thread.join()
        store.set(f"{task}/outcome", outcome)


def _wait(store: Store, task: str, who: str = "the leading process", pause: Callable[[float], None] = time.sleep) -> None:
    """Wait until another process has done a task; as long as it takes, while it shows signs of life."""
    limit, seen, since = patience(), -1, time.monotonic()
    while not store.check([f"{task}/outcome"]):
        beats = store.add(f"{task}/beat", 0)
        if beats != seen:
            seen, since = beats, time.monotonic()
        elif time.monotonic() - since > limit:
            raise RankLost(f"{who} was silent for {limit:.0f} s; the same command goes on from the last checkpoint")
        pause(0.02)
    if store.get(f"{task}/outcome") != b"done":
        raise PeerFailed(f"{who} of this launch failed and says why; mend that, then run the same command again")
