"""Rounds of a trainer, measured part by part: in seconds, or in operations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..device import Device
from ..flops import FlopCounter
from ..trainer import Trainer
from .figures import Round

Read = Callable[[], float]


def clock(device: Device) -> Read:
    """Return a clock in seconds that waits for what the device still has to do; a processor has nothing."""

    def read() -> float:
        device.synchronize()
        return time.perf_counter()

    return read


def measured(trainer: Trainer, read: Read) -> Round:
    """Play one round and return what a meter, read around the round and each of its parts, went on by."""
    found: list[tuple[str, float]] = []

    @contextmanager
    def span(name: str) -> Iterator[None]:
        start = read()
        yield
        found.append((name, read() - start))

    before, trainer.span, samples = trainer.span, span, trainer.samples
    unseen = tuple(due(trainer)) if trainer.replays else ()
    try:
        start = read()
        trainer.round()
        total = read() - start
    finally:
        trainer.span = before
    return Round(total, trainer.samples - samples, tuple(found), unseen)


def timed(trainer: Trainer) -> Round:
    """Play one round and return its seconds."""
    return measured(trainer, clock(trainer.device))


def counted(trainer: Trainer) -> Round:
    """Play one round, in which every lazy phase comes, and return its operations; counting makes it slow."""
    rewind(trainer)
    with FlopCounter() as counter, trainer.played():
        return measured(trainer, lambda: counter.total)


def rewind(trainer: Trainer) -> None:
    """Let every lazy phase come in the next round."""
    for player in trainer.players.values():
        player.turns = 0


def lazy(trainer: Trainer) -> dict[str, float]:
    """Return how often a round has each lazy phase in the long run, under the name of its span."""
    turns = trainer.plan.at(trainer.samples, trainer.rounds)[2]
    return {
        f"{player.name}/{phase.rules[0].name}": turns.count(player.name) / phase.every
        for player in trainer.players.values()
        for phase in player.phases
        if not phase.main and player.name in turns
    }


def due(trainer: Trainer) -> Iterator[str]:
    """Yield the lazy phases of the next round, as often as they come, under the names of their spans."""
    turns = trainer.plan.at(trainer.samples, trainer.rounds)[2]
    for player in trainer.players.values():
        for turn in range(player.turns, player.turns + turns.count(player.name)):
            yield from (f"{player.name}/{phase.rules[0].name}" for phase in player.due(turn) if not phase.main)


def race(trainers: Sequence[Trainer], rounds: int, seconds: float) -> list[list[Round]]:
    """Let trainers play by turns, round by round, and time them; after so many seconds for each no more are begun."""
    found: list[list[Round]] = [[] for _ in trainers]
    end = time.monotonic() + seconds * len(trainers)
    for trainer in trainers:
        rewind(trainer)
    while len(found[-1]) < rounds and (not found[-1] or time.monotonic() < end):
        for trainer, mine in zip(trainers, found, strict=True):
            mine.append(timed(trainer))
    return found
