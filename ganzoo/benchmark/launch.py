"""A sweep by all processes of a torchrun launch: one leads it, and all do each of its tasks together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from types import TracebackType

from ..device import Device, DeviceError
from ..errors import PeerFailed
from ..world import World, here, joined
from .engines import Engine
from .work import Done, Task, perform


@contextmanager
def together(device: str) -> Iterator[tuple[bool, Engine | None]]:
    """Yield whether this process leads a sweep, and the engine that it must use where it is one of several.

    The others come into the block when the leading one has left its own, and have done their part by then. DeviceError
    where one of them has no device of its own.
    """
    world = here()
    try:
        with joined() as world:
            if unfit := next(filter(None, world.everyone(_unfit(device, world))), ""):
                raise DeviceError(unfit) if world.leads else PeerFailed(unfit)
            if world.leads:
                with Lead(world) if world.size > 1 else nullcontext() as engine:
                    yield True, engine
            else:
                _follow(world)
    except PeerFailed:
        if world.leads:
            raise
        # whoever left with an error here would have torchrun end the leading process before it says why
    if not world.leads:
        yield False, None


def _unfit(device: str, world: World) -> str:
    """Say why this process cannot take part, if it cannot."""
    try:
        Device.choose(device, "fp32", world)
    except DeviceError as error:
        return str(error)
    return ""


class Lead:
    """The engine of a launch's leading process: what it does alone, the others wait for; each task is everyone's."""

    def __init__(self, world: World) -> None:
        self.world, self._alone = world, ExitStack()

    def __enter__(self) -> Lead:
        self._alone.enter_context(self.world.led())
        return self

    def __call__(self, tasks: Sequence[Task], workers: int) -> Iterator[tuple[Task, Done]]:
        """Do the tasks one after the other, each with all processes of the launch."""
        for task in tasks:
            self._alone.close()
            self.world.leaders(task)
            done = _share(task, self.world)
            self._alone.enter_context(self.world.led())
            yield task, done

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._alone.__exit__(kind, error, trace)
        if error is None:
            self.world.leaders(None)


def _follow(world: World) -> None:
    """Do what the leading process hands out until there is no more."""
    while True:
        with world.led():
            pass  # the leading process decides what comes next
        task: Task | None = world.leaders(None)
        if task is None:
            return
        _share(task, world)


def _share(task: Task, world: World) -> Done:
    """Do a task with all others; where it fails on one, that is how it ended for all."""
    with world.own_pace():
        done = perform(task)
    said: list[Done] = world.everyone(done)
    return next((one for one in said if one.busy or one.error), done)
