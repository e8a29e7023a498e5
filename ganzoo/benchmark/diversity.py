"""How many modes of a known distribution a model covers, how well, and how far its shares are from the true ones."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import assemble
from ..api import Counted, Dataset
from ..checkpoint import read_header
from ..errors import DataError
from ..recipe import Recipe
from ..registry import Registry, registry
from ..sampling import Model, find_checkpoint, load
from .engines import Engine
from .suite import Arena, Contestant, Suite, fingerprint
from .sweep import Clock, Reporter
from .work import Done, Task, TrainTask, one_thread

RUNS = "runs"  # of a suite's folder


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was counted of N samples; shares are over all of them."""

    reached: float  # modes that any sample is nearest to: what papers on stacked digits count
    modes: float  # those with a good sample
    well: float  # with at least `well` of their fair share of good samples
    good: float  # share of good samples: of high quality, or recognised for sure
    kl: float  # sum over modes of q log(q / p) in nats: q of all samples by nearest mode, p the true shares


def count(data: Counted, samples: Tensor, well: float) -> Figures:
    """Count samples [N, *shape] as a generator makes them against the modes that the data says it has."""
    found = data.recognise(samples)
    size, p = len(samples), data.shares.double()
    q = torch.bincount(found.mode, minlength=len(p)).double() / size
    good = torch.bincount(found.mode[found.good], minlength=len(p)).double() / size
    return Figures(
        reached=float((q > 0).sum()),
        modes=float((good > 0).sum()),
        well=float((good >= well * p).sum()),
        good=float(found.good.double().mean()),
        kl=float(torch.special.xlogy(q, q / p).sum()),
    )


def noise_floor(modes: int, samples: int) -> float:
    """Return what `kl` is on average for a perfect sampler: (modes - 1) / (2 N) nats, to first order in 1 / N."""
    return (modes - 1) / (2 * samples)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A contestant on a set: means and deviations over the training seeds."""

    arena: Arena
    contestant: str
    summary: str
    seeds: tuple[int, ...]
    each: tuple[Figures, ...]
    modes: int  # of the data
    floor: float  # noise of `kl`
    samples: int  # real samples that each training saw

    def mean(self, key: str) -> float:
        """Return the mean of a figure over the seeds."""
        return statistics.fmean(getattr(one, key) for one in self.each)

    def deviation(self, key: str) -> float:
        """Return the standard deviation of a figure over the seeds, 0 for a single one."""
        return statistics.stdev(getattr(one, key) for one in self.each) if len(self.each) > 1 else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        means = {key.name: {"mean": self.mean(key.name), "std": self.deviation(key.name)} for key in fields(Figures)}
        return {
            "set": self.arena.name, "protocol": self.arena.protocol, "judged": self.arena.samples,
            "contestant": self.contestant, "summary": self.summary, "trained": self.samples, "seeds": list(self.seeds),
            "of_modes": self.modes, "kl_floor": self.floor, **means, "each": [asdict(one) for one in self.each],
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SuiteOrder:
    """What is asked for."""

    suite: Suite
    out: Path
    targets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()  # of training; none: the suite's
    budget: int = 0  # samples of each training; 0: the suite's
    device: str = "cpu"
    workers: int = 1
    time_limit: float = 0.0


@dataclass(frozen=True)
class AloneTask(TrainTask):
    """A training with one thread: its networks are too small to share."""

    def do(self) -> None:
        """Train to the end."""
        with one_thread():
            super().do()


@dataclass(frozen=True)
class Entrant:
    """One training of a suite."""

    arena: Arena
    contestant: Contestant
    seed: int
    recipe: Recipe
    place: Path

    @property
    def trained(self) -> bool:
        """Did it come to its end?"""
        if not self.place.is_dir() or not any((self.place / "checkpoints").glob("*.safetensors")):
            return False
        return int(read_header(find_checkpoint(self.place))["counters"]["samples"]) >= self.recipe.train.samples


def entrants(order: SuiteOrder) -> list[Entrant]:
    """Return all trainings that the order means; a folder's name changes with anything that its figures depend on."""
    found = []
    for arena, contestant in order.suite.matches(order.targets):
        for seed in order.seeds or order.suite.seeds:
            recipe = order.suite.recipe(arena, contestant, seed, order.budget)
            place = order.out / RUNS / f"{recipe.name}-{fingerprint(recipe)}"
            found.append(Entrant(arena, contestant, seed, recipe, place))
    return found


def run_suite(order: SuiteOrder, engine: Engine, reporter: Reporter) -> tuple[list[Row], list[str]]:
    """Train what is not trained yet, count everything, and return rows and the errors of what failed."""
    clock, errors = Clock(order.time_limit), []
    everybody = entrants(order)
    tasks: list[Task] = [AloneTask(one.recipe, str(one.place), order.device) for one in everybody if not one.trained]
    for number, (_, done) in enumerate(_run(tasks, engine, order.workers, clock), 1):
        errors += [done.error] if done.error else []
        left = (time.monotonic() - clock.started) / number * (len(tasks) - number)
        reporter.step(done.error or f"{done.label}: {done.seconds:.1f} s", number, len(tasks), left)
    with one_thread():
        return _rows(everybody, order.suite, registry()), errors


def _run(tasks: Sequence[Task], engine: Engine, workers: int, clock: Clock) -> Iterator[tuple[Task, Done]]:
    """Do the tasks, few at a time where the clock must be looked at in between."""
    step = workers if clock.limit else max(len(tasks), 1)
    for start in range(0, len(tasks), step):
        if clock.over:
            return
        yield from engine(tasks[start : start + step], workers)


def _rows(everybody: Sequence[Entrant], suite: Suite, known: Registry) -> list[Row]:
    groups: dict[tuple[str, str], list[Entrant]] = {}
    for one in everybody:
        if one.trained:
            groups.setdefault((one.arena.name, one.contestant.name), []).append(one)
    return [_row(group, suite, _counted(group[0].recipe, known)) for group in groups.values()]


def _counted(recipe: Recipe, known: Registry) -> Counted:
    data: Dataset = assemble.dataset(recipe, known)
    if not isinstance(data, Counted):
        raise DataError(f"dataset {recipe.data.name!r} does not know its modes; a suite needs one that has 'recognise'")
    return data


def _row(group: Sequence[Entrant], suite: Suite, data: Counted) -> Row:
    first = group[0]
    return Row(
        arena=first.arena,
        contestant=first.contestant.name,
        summary=first.contestant.summary,
        seeds=tuple(one.seed for one in group),
        each=tuple(count(data, drawn(load(one.place, "cpu"), first.arena.samples), suite.well) for one in group),
        modes=len(data.shares),
        floor=noise_floor(len(data.shares), first.arena.samples),
        samples=first.recipe.train.samples,
    )


def drawn(model: Model, samples: int) -> Tensor:
    """Return so many samples of a model, always the same ones."""
    return model.sample(samples, seed=0)
