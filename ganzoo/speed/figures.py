"""What a number of rounds come to: medians, parts and ratios, as pure functions of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np


@dataclass(frozen=True)
class Round:
    """One round as it was: seconds or operations, in all and for each part in the order in which they came."""

    total: float
    samples: int  # real ones
    parts: tuple[tuple[str, float], ...] = ()
    due: tuple[str, ...] = ()  # lazy phases in it that were not measured by themselves: those of a recorded round


@dataclass(frozen=True)
class Part:
    """One part of a round: a player's main phase, a lazy phase, getting data, or what follows the last turn."""

    name: str
    turns: float  # how often in a round; a lazy phase in the long run
    each: float  # median of all of its turns
    whole: float  # of a round


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles and its range."""

    least: float
    lower: float
    median: float
    upper: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Return median, quartiles and range of at least one value."""
    return Spread(*(float(cut) for cut in np.quantile(values, (0.0, 0.25, 0.5, 0.75, 1.0))))


def parts(rounds: Sequence[Round], lazy: Mapping[str, float]) -> list[Part]:
    """Return the parts of rounds; `lazy` says how often a round has each lazy phase in the long run.

    A part of every round costs the median of the rounds, a lazy phase its median turn times how often it comes.
    """
    found = []
    for name in dict.fromkeys(name for one in rounds for name, _ in one.parts):
        single = [[value for other, value in one.parts if other == name] for one in rounds]
        each = median(value for values in single for value in values)
        if name in lazy:
            found.append(Part(name, lazy[name], each, lazy[name] * each))
        else:
            turns = sum(len(values) for values in single) / len(rounds)
            found.append(Part(name, turns, each, median(sum(values) for values in single)))
    return found


def steady(rounds: Sequence[Round], lazy: Mapping[str, float]) -> list[float]:
    """Return each round's total as if its share of every lazy phase were in it, whichever rounds had one."""
    costs = unmeasured(rounds)
    share = sum(part.whole for part in parts(rounds, lazy) if part.name in lazy)
    share += sum(lazy[name] * cost for name, cost in costs.items())
    return [
        one.total - sum(value for name, value in one.parts if name in lazy) - sum(costs[name] for name in one.due) + share
        for one in rounds
    ]


def unmeasured(rounds: Sequence[Round]) -> dict[str, float]:
    """Return what each lazy phase costs that was never measured by itself: by how much longer the rounds with it are.

    Of rounds with the same phases the median counts, and of these the least squares. Where the rounds cannot tell the
    phases apart, from each other or from the rest, nothing is known of any, and they count as they came.
    """
    names = sorted({name for one in rounds for name in one.due})
    totals: dict[tuple[int, ...], list[float]] = {}
    for one in rounds:
        totals.setdefault(tuple(one.due.count(name) for name in names), []).append(one.total)
    comings = np.array([[1.0, *counts] for counts in totals])
    found, _, rank, _ = np.linalg.lstsq(comings, np.array([median(group) for group in totals.values()]), rcond=None)
    return {name: float(cost) if rank == comings.shape[1] else 0.0 for name, cost in zip(names, found[1:], strict=True)}


def speeds(rounds: Sequence[Round], lazy: Mapping[str, float]) -> list[float]:
    """Return the samples a second of each round."""
    return [one.samples / seconds for one, seconds in zip(rounds, steady(rounds, lazy), strict=True)]


def ratios(first: Sequence[float], other: Sequence[float]) -> Spread:
    """Return how many times as fast the other is, round by round: neighbours share what else the machine does."""
    return spread([theirs / ours for ours, theirs in zip(first, other, strict=True)])
