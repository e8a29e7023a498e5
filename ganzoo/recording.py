"""Rounds recorded once and replayed: CUDA graphs, which pay where a round is many small kernels.

A round's work on the device depends on its samples and latents, on learning rates, and on which lazy phases are due. The
first two are copied into place, for the third there is one recording each. Nothing else may change between two replays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .api import Batch
from .players import Act, Change, Player, Rule
from .recipe import Schedule

Draw = tuple[Batch, Tensor]
Terms = list[tuple[str, Tensor]]
Play = Callable[[Sequence[Act], Sequence[Draw]], Terms]


class Recorder(Protocol):
    """Who can record work on a device."""

    def warm(self, work: Callable[[], Terms]) -> Terms:
        """Do the work once as it is, so that all that it allocates for good is there."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Take down the work without doing it; return what does it, again and again, on the same memory."""


class GraphRecorder:
    """Records CUDA graphs, all of them in one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._graphs: list[torch.cuda.CUDAGraph] = []

    def warm(self, work: Callable[[], Terms]) -> Terms:
        """Do the work on a stream of its own, as recording will."""
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            terms = work()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        return terms

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record a graph; what earlier ones allocated for themselves is free again when they are not replayed."""
        graph = torch.cuda.CUDAGraph()
        pool = self._graphs[0].pool() if self._graphs else None
        with torch.cuda.device(self.device), torch.cuda.graph(graph, pool=pool):
            work()
        self._graphs.append(graph)
        return graph.replay


@dataclass
class _Take:
    """One recording, with the places where its samples come in and its terms go out."""

    draws: list[Draw]
    terms: Terms
    replay: Callable[[], None]


class RecordedRounds:
    """Plays rounds, each kind of them as it is for the first time, and from a recording after that."""

    def __init__(self, play: Play, recorder: Recorder) -> None:
        self.play, self.recorder = play, recorder
        self._takes: dict[tuple[object, ...], _Take | None] = {}

    def __call__(self, acts: Sequence[Act], draws: Sequence[Draw]) -> Terms:
        """Return the terms of a round."""
        key = *(act.key for act in acts), *(_layout(draw) for draw in draws)
        if key not in self._takes:
            self._takes[key] = None
            return self.recorder.warm(lambda: self.play(acts, draws))
        take = self._takes[key] = self._takes[key] or self._record(acts, draws)
        for kept, (batch, z) in zip(take.draws, draws, strict=True):
            kept[0].real.copy_(batch.real)
            for name, value in batch.cond.items():
                kept[0].cond[name].copy_(value)
            kept[1].copy_(z)
        take.replay()
        return [(name, value.clone()) for name, value in take.terms]

    def _record(self, acts: Sequence[Act], draws: Sequence[Draw]) -> _Take:
        places = [(Batch(b.real.clone(), {k: v.clone() for k, v in b.cond.items()}), z.clone()) for b, z in draws]
        terms: Terms = []

        def work() -> None:
            terms[:] = self.play(acts, places)

        return _Take(places, terms, self.recorder.record(work))


def _layout(draw: Draw) -> tuple[object, ...]:
    batch, z = draw
    return tuple((tuple(x.shape), x.dtype) for x in (batch.real, *batch.cond.values(), z))


def reason_against(
    staged: Sequence[object],
    rules: Sequence[Rule],
    changes: Sequence[Change] = (),
    players: Iterable[Player] = (),
    processes: int = 1,
) -> str:
    """Say what would make a replay differ from a round, or nothing."""
    for one in staged:
        return f"{type(one).__name__} changes with time"
    for rule in rules:
        if isinstance(rule.weight, Schedule):
            return f"the weight of {rule.name!r} changes with time"
    for change in changes:
        if not change.in_place:
            return f"{change.what} changes with time"
    for player in players:
        for option in player.paces:
            return f"the optimizer's {option!r} of player {player.name!r} changes with time"
    return "several processes exchange their gradients" if processes > 1 else ""
