"""Reading ahead: what a feed expects to be asked for next is read, and copied to the device, while the training computes.

Which samples stand where is the feed's business alone; this changes when they are read, and by which process.
"""

from __future__ import annotations

import atexit
import itertools
import multiprocessing
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import connection, reduction, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data

from .api import Batch, Dataset
from .busy import cores
from .device import Device
from .errors import DataError, GanzooError, ResourceError
from .main_memory import free_memory

SHARE = 0.5  # of the free memory: a file that is smaller stays in memory once it was read, so nobody need read it ahead
MOST = 8  # workers that "auto" starts at most
GRACE = 1.0  # seconds until a process whose pipe broke has an exit code

UNREADABLE = (ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError)
# the core reads no pickles, so it takes the error's class from where processes are started
UNPICKLABLE = (AttributeError, TypeError, reduction.pickle.PicklingError)  # type: ignore[attr-defined]

Item = TypeVar("Item")
Sent = TypeVar("Sent")


@dataclass(frozen=True)
class Course:
    """What a feed expects to be asked for: `count` samples from `position` on, and again every `stride` positions."""

    position: int
    count: int
    stride: int

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((position, self.count) for position in itertools.count(self.position, self.stride))

    def after(self) -> Course:
        """Return the course once its first request was answered."""
        return replace(self, position=self.position + self.stride)

    def turned(self, position: int, count: int) -> Course:
        """Return the course from a request that was not the expected one; of several ranks each strides over the others."""
        last = self.position - self.stride
        stride = position - last if count == self.count and position > last else count
        return Course(position, count, stride)


def workers_for(dataset: Dataset, asked: int | Literal["auto"]) -> int:
    """Return how many processes read ahead; "auto": none, unless the samples lie in a file that memory will not hold."""
    if isinstance(asked, int):
        return asked
    if getattr(dataset, "stored", 0) <= SHARE * free_memory():
        return 0
    return min(max(cores() // 2, 1), MOST)


class Workers:
    """Processes that read a course's batches ahead and hand them over through shared memory, from the first request on."""

    def __init__(self, dataset: Dataset, count: int, index: Callable[[int, int], Tensor]) -> None:
        self._dataset, self._count = dataset, count
        self._order = _Order(index)
        self._loader: data.DataLoader[Batch | str] | None = None
        self._batches: Iterator[Batch | str] = iter(())
        self._processes: list[BaseProcess] = []

    def read(self, course: Course) -> Iterator[Batch]:
        """Yield the batches of a course; DataError and ResourceError say why a worker failed or is gone."""
        self._order.course = course
        with self._explained():
            self._begin()
        while True:
            with self._explained():
                batch = next(self._batches)
            if isinstance(batch, str):
                raise DataError(batch)
            yield batch

    def close(self) -> None:
        """End the processes; who asks again starts new ones."""
        self._batches, self._loader = iter(()), None  # torch ends its workers with the last reference to them
        _end(self._processes)  # which a traceback may hold
        self._processes = []

    def _begin(self) -> None:
        """Start the workers, or let those that are there begin anew."""
        if self._loader is not None:
            self._batches = iter(self._loader)
            return
        before = multiprocessing.active_children()
        try:
            with _out_of_reach(), warnings.catch_warnings():
                # of more processes than cores, which were asked for, and of what is a DataError here
                warnings.filterwarnings("ignore", "This DataLoader will create|Got pickle error", UserWarning)
                self._loader = data.DataLoader(
                    _Reader(self._dataset),
                    batch_size=None,
                    sampler=self._order,
                    num_workers=self._count,
                    multiprocessing_context="spawn",
                    persistent_workers=True,
                    generator=torch.Generator(),  # the global one is the training's
                )
                self._batches = iter(self._loader)
        except UNPICKLABLE as error:
            raise DataError(
                f"dataset {type(self._dataset).__name__} cannot be handed to another process ({error}); "
                "use --set train.workers=0, or give its class a __reduce__ that opens its files again"
            ) from error
        finally:
            self._processes = [process for process in multiprocessing.active_children() if process not in before]
            atexit.register(_end, self._processes)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what became of a worker where its end is the reason of an error."""
        try:
            yield
        except (RuntimeError, OSError, EOFError) as error:
            ended = connection.wait([process.sentinel for process in self._processes], GRACE)
            for process in self._processes:
                if process.sentinel in ended:
                    process.join(GRACE)  # its files are closed some moments before it has an exit code
                if process.exitcode is not None:
                    raise _obituary(process.pid, process.exitcode) from error
            raise


class _Order:
    """Yields which samples each batch of a course has; torch asks for it in the training process, some batches ahead.

    As arrays: of a tensor only a descriptor is sent, which a thread here would serve, and a killed worker break off.
    """

    def __init__(self, index: Callable[[int, int], Tensor]) -> None:
        self.index = index
        self.course = Course(0, 1, 1)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return (self.index(position, count).numpy() for position, count in self.course)


class _Reader(data.Dataset[Batch | str]):
    """A dataset as a worker reads it: a batch in shared memory, or the sentence that says why there is none."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: NDArray[np.int64]) -> Batch | str:
        try:
            batch = self.dataset.batch(torch.from_numpy(index))
            for tensor in (batch.real, *batch.cond.values()):
                tensor.share_memory_()  # type: ignore[no-untyped-call]  # in a queue its failure would lose the batch
        except GanzooError as error:
            return str(error)
        except UNREADABLE as error:
            what = f"{type(error).__name__}: {error}"
            return f"the samples cannot be read ({what}); mend the data, or see where it fails with --set train.workers=0"
        return batch


@contextmanager
def _out_of_reach() -> Iterator[None]:
    """Start processes that do not hear what ends the training: it reads on until its last checkpoint is written.

    Ctrl-C goes to all processes of a terminal, and a batch system ends all of a job. torch would raise the death of a
    worker in the middle of a turn; the next batch is early enough.
    """
    resource_tracker.ensure_running()  # starting it later would lift the mask
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _end(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.kill()  # they hold nothing that lasts
    for process in processes:
        process.join()


def _obituary(pid: int | None, code: int) -> GanzooError:
    """Return the error that says how a worker ended."""
    if code < 0:
        return ResourceError(
            f"worker {pid}, which read data ahead, was ended by {signal.Signals(-code).name}, perhaps for want of memory; "
            "the same command goes on, with fewer or no workers by --set train.workers=0"
        )
    return DataError(
        f"worker {pid}, which reads data ahead, ended with exit code {code}; let a script train under "
        '`if __name__ == "__main__":`, or use --set train.workers=0'
    )


def one_ahead(items: Iterable[Item], send: Callable[[Item], Sent]) -> Iterator[Sent]:
    """Yield what `send` makes of each item; the next one is sent before one is handed out."""
    source = iter(items)
    under_way = send(next(source))
    for item in source:
        following = send(item)
        yield under_way
        under_way = following


def copied_ahead(batches: Iterable[Batch], device: Device) -> Iterator[Batch]:
    """Yield batches on the device: the next one is copied, from pinned memory, while the device computes with one."""
    aside = torch.Stream(device.device)

    def away(tensor: Tensor) -> Tensor:
        return device.move(tensor.pin_memory()) if tensor.device.type == "cpu" else tensor

    def send(batch: Batch) -> tuple[Batch, torch.Event]:
        with aside:
            moved = Batch(away(batch.real), {key: away(value) for key, value in batch.cond.items()})
        return moved, aside.record_event()

    for batch, arrived in one_ahead(batches, send):
        computing = torch.accelerator.current_stream(device.device)
        computing.wait_event(arrived)
        for tensor in (batch.real, *batch.cond.values()):
            tensor.record_stream(computing)
        yield batch
