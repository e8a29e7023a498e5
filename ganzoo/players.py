"""Who plays and what for: players with their phases, regularizers with their weights, and the plan of a whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate

import torch
from torch import nn

from .api import Progress, Regularizer, Side
from .recipe import HalfLife, Number, Schedule, Stage, value_at, values_at

__all__ = ["Act", "Change", "Phase", "Plan", "Player", "Rule", "largest_divisor", "phases_of"]


@dataclass(frozen=True)
class Rule:
    """A regularizer as one discriminator meets it, with what the engine owns: how much it weighs, and when it acts."""

    name: str
    discriminator: str
    regularizer: Regularizer
    weight: Number = 1.0
    every: int = 1
    leads: bool = True  # of its name's instances, is this the one that changes generators?

    def concerns(self, side: Side) -> bool:
        """Does it act in turns of this side?"""
        return self.regularizer.side in (side, "both")


@dataclass(frozen=True)
class Phase:
    """One backward and one step inside a turn: the main phase, or that of one lazy regularizer."""

    rules: tuple[Rule, ...]
    main: bool = True
    every: int = 1


@dataclass(frozen=True)
class Change:
    """An option of a loss, regularizer or game that follows a schedule: an attribute or a buffer of its own name."""

    owner: nn.Module
    what: str  # as in "option 'gamma' of regularizer 'it'"
    option: str
    schedule: Schedule

    @property
    def in_place(self) -> bool:
        """Does it change in memory, where code that was compiled or recorded finds it?"""
        return isinstance(getattr(self.owner, self.option), torch.Tensor)

    def follow(self, share: float) -> None:
        """Give the option the value of this share of the run."""
        value = self.schedule.at(share)
        if self.in_place:
            getattr(self.owner, self.option).fill_(value)
        else:
            setattr(self.owner, self.option, value)


@dataclass
class Player:
    """The networks that one optimizer trains."""

    name: str
    side: Side
    nets: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    lr: Number
    phases: tuple[Phase, ...]
    paces: Mapping[str, Number | tuple[Number, ...]] = field(default_factory=dict)  # what else of the optimizer changes
    turns: int = 0  # taken so far: lazy phases count them
    parameters: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = [entry for group in self.optimizer.param_groups for entry in group["params"]]

    def due(self, turn: int) -> tuple[Phase, ...]:
        """Return the phases of its turn of this number, from 0 on."""
        return tuple(phase for phase in self.phases if turn % phase.every == 0)

    def pace(self, share: float) -> None:
        """Take the learning rate of this share of the run, and whatever else of the optimizer follows a schedule."""
        rate, others = value_at(self.lr, share), values_at(self.paces, share)
        for group in self.optimizer.param_groups:
            group.update(others)
            if isinstance(group["lr"], torch.Tensor):  # where a recorded step reads it
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


@dataclass(frozen=True)
class Act:
    """One turn of a round: who acts, in which phases, and what it has to do with the turns before and after it."""

    player: Player
    phases: tuple[Phase, ...]
    answers: bool  # is it about the samples and latents of the turn before?
    following: Player | None  # who answers with the very fakes of this turn
    pieces: int = 1  # that the batch is cut into

    @property
    def key(self) -> tuple[object, ...]:
        """What its work is like, whatever the numbers in it."""
        return self.player.name, tuple(self.player.phases.index(phase) for phase in self.phases), self.answers, self.pieces


def phases_of(rules: Sequence[Rule], side: Side) -> tuple[Phase, ...]:
    """Return a turn's phases: the main one with all regularizers of every turn, then one for each lazy regularizer."""
    mine = [rule for rule in rules if rule.concerns(side)]
    lazy = {rule.name: rule.every for rule in mine if rule.every > 1}
    main = Phase(tuple(rule for rule in mine if rule.every == 1))
    return (main, *(Phase(tuple(r for r in mine if r.name == name), False, every) for name, every in lazy.items()))


@cache
def largest_divisor(count: int, most: int) -> int:
    """Return the largest divisor of a count that is not above `most`, from 1 on."""
    return max(divisor for divisor in range(1, min(count, most) + 1) if count % divisor == 0)


@dataclass(frozen=True)
class Plan:
    """The numbers of a recipe that the loop itself needs."""

    samples: int
    batch: int
    turns: tuple[str, ...]
    stages: tuple[Stage, ...] = ()
    latent: int = 128
    prior: str = "normal"
    ema: Number | HalfLife = 0.999
    accumulate: int = 1
    micro_batches: tuple[int, ...] = ()  # samples computed at once at most, in each stage; none: as accumulate says
    seed: int = 0
    log: int = 1000
    grid: int = 10_000
    checkpoint: int = 10_000

    @property
    def total(self) -> int:
        """Real samples of the whole run."""
        return sum(stage.samples for stage in self.stages) or self.samples

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Of each stage the samples seen when it begins, and its own; a run without stages is one."""
        lengths = [stage.samples for stage in self.stages] or [self.samples]
        return tuple(zip(accumulate([0, *lengths]), lengths, strict=False))

    def pieces(self, stage: int, own: int) -> int:
        """Return how many equal pieces a process's part of a batch, `own` samples, is cut into in a stage."""
        return own // largest_divisor(own, self.micro_batches[stage]) if self.micro_batches else self.accumulate

    def at(self, samples: int, rounds: int) -> tuple[Progress, int, tuple[str, ...]]:
        """Return progress, batch and turns of the round that starts after so many samples."""
        start = 0
        for number, stage in enumerate(self.stages):
            if samples < start + stage.samples or number == len(self.stages) - 1:
                share = min((samples - start) / stage.samples, 1.0)
                grew = number > 0 and self.stages[number - 1].size != stage.size
                progress = Progress(samples, self.total, rounds, number, share, stage.size, grew)
                return progress, stage.batch or self.batch, stage.turns or self.turns
            start += stage.samples
        share = min(samples / self.samples, 1.0)
        return Progress(samples, self.total, rounds, 0, share, None), self.batch, self.turns
