"""The pieces that a sweep is cut into: each can be done by any process that sees the folder, in any order, also twice."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Interface

import torch
from filelock import FileLock, Timeout
from threadpoolctl import threadpool_limits

from ..api import Extractor
from ..device import Device
from ..errors import DataError, GanzooError, Interrupted, PeerFailed, RankLost, RunInUse
from ..jobs import run_recipe
from ..recipe import Recipe
from ..registry import registry
from ..world import World, here
from ..zoo import at_home
from .drawing import draw
from .protocol import Protocol
from .reference import Reference, open_reference
from .scoring import Lens, Wanted, extractors_of, lenses, read_unit, score, unit_key, write_unit
from .sources import Baseline, ModelSource, Source, baselines

UNITS = "units"  # of a board's folder: where results are kept


@dataclass(frozen=True)
class Done:
    """How a task ended: without an error, with one, or not at all because another process has it."""

    label: str
    seconds: float
    error: str = ""
    busy: bool = False


class Task(Interface):
    """A piece of work that pickles."""

    @property
    def label(self) -> str:
        """What a person is told of it."""

    def do(self) -> None:
        """Do it; a GanzooError says in one sentence why it cannot be done, RunInUse that another process does it."""


@dataclass(frozen=True)
class TrainTask:
    """One training from its resolved recipe into its run folder, resuming what is there."""

    recipe: Recipe
    place: str
    device: str

    @property
    def label(self) -> str:
        """What a person is told of it."""
        return f"train {self.recipe.name}"

    def do(self) -> None:
        """Train to the end."""
        run_recipe(self.recipe, registry(), Path(self.place), self.device)


@dataclass(frozen=True)
class Setting:
    """What all scores of one board share; plain values, so that any process can build the same from it."""

    recipe: Recipe  # one with the board's data
    protocol: Protocol
    wanted: tuple[Wanted, ...]
    folder: str
    device: str
    batch: int

    @property
    def units(self) -> Path:
        """Where results are kept."""
        return Path(self.folder) / UNITS

    @functools.cached_property
    def key(self) -> str:
        """A text that equal settings share, to build what they describe once for each process."""
        wanted = [[one.name, dict(one.options), one.optional, one.ranks] for one in self.wanted]
        return json.dumps([self.recipe.raw["data"], self.protocol.sha256, wanted, self.device], sort_keys=True)


@dataclass(frozen=True)
class ScoreTask:
    """All extractors' scores of one source with one seed."""

    setting: Setting
    name: str
    path: str  # of the checkpoint; empty for a baseline
    seed: int

    @property
    def label(self) -> str:
        """What a person is told of it."""
        return f"score {self.name}, seed {self.seed}"

    def do(self) -> None:
        """Compute the units that are missing and write them down; of a launch's processes each draws its part."""
        with one_thread(), contextlib.ExitStack() as stack:
            self._do(here(), stack)

    def _do(self, world: World, stack: contextlib.ExitStack) -> None:
        setting = self.setting
        with world.own_pace():
            bench = bench_of(setting)
            source = _source(self.path, str(bench.device)) if self.path else bench.baselines[self.name]
            facts = (source.key, bench.reference.key, [one.id for one in bench.extractors])
        if any(theirs != facts for theirs in world.everyone(facts)):
            raise DataError("the processes of this launch have other data, plugins or checkpoints; give all the same")
        with world.led() as leads:
            missing = self._claimed(source, bench, stack) if leads else {}
        ids = world.leaders([lens.id for lens in missing.values()])
        if not ids:
            return
        extractors = [one for one in bench.extractors if one.id in ids]
        about = (source, self.seed, bench.reference, setting.protocol)
        drawn = draw(*about, extractors, setting.batch, bench.device, world)
        with world.led() as leads:
            if leads:
                strip = setting.units.parent / "pictures" / f"{source.stem}-neighbours.png"
                made = score(*about, list(missing.values()), drawn, strip)
                for key, unit in zip(missing, made, strict=True):
                    write_unit(setting.units, key, unit)

    def _claimed(self, source: Source, bench: Bench, stack: contextlib.ExitStack) -> dict[str, Lens]:
        """Return the units to be computed, which until the stack's end are this process's alone."""
        missing = self._missing(source, bench)
        if not missing:
            return missing
        lock = FileLock(self.setting.units / f"{source.stem}-{self.seed}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunInUse(f"another process scores {self.name!r} in {self.setting.folder}") from None
        stack.callback(lock.release)
        return self._missing(source, bench)  # it may have been done in between

    def _missing(self, source: Source, bench: Bench) -> dict[str, Lens]:
        keys = {bench.key(source, lens, self.setting.protocol, self.seed): lens for lens in bench.lenses}
        return {key: lens for key, lens in keys.items() if read_unit(self.setting.units, key) is None}


class Bench:
    """A reference with the extractors that know it, built once in a process."""

    def __init__(
        self, setting: Setting, reference: Reference, built: list[tuple[Wanted, Extractor]], device: torch.device
    ) -> None:
        self.reference, self.device = reference, device
        self.extractors = [extractor for _, extractor in built]
        self.baselines: Mapping[str, Baseline] = {one.name: one for one in baselines(reference)}
        self._built, self._protocol = built, setting.protocol

    @functools.cached_property
    def lenses(self) -> list[Lens]:
        """What the extractors know of the reference; who only draws samples does without."""
        with torch.random.fork_rng(devices=[]):
            return lenses(self._built, self.reference, self._protocol, self.device)

    def key(self, source: Source, lens: Lens, protocol: Protocol, seed: int) -> str:
        """Return the name of a unit's file."""
        return unit_key(source, self.reference, protocol, lens.id, seed, self.device.type)


def bench_of(setting: Setting) -> Bench:
    """Return what a setting describes; equal settings give the same object in one process."""
    found = _benches.get(setting.key)
    if found is None:
        _benches.clear()  # one board at a time: references are large
        found = _benches[setting.key] = _bench(setting)
    return found


_benches: dict[str, Bench] = {}


def _bench(setting: Setting) -> Bench:
    device = Device.choose(setting.device, "fp32", here()).device
    with torch.random.fork_rng(devices=[]):
        reference = open_reference(setting.recipe, at_home(setting.recipe, registry()), setting.protocol.reference)
        built = extractors_of(setting.wanted, reference, registry(), device)
    return Bench(setting, reference, built, device)


@functools.lru_cache(maxsize=2)
def _source(path: str, device: str) -> ModelSource:
    return ModelSource(Path(path), device)


def perform(task: Task) -> Done:
    """Do a task and say how it ended; a model that cannot be built, trained or drawn from costs its own row only."""
    started = time.monotonic()
    try:
        with torch.random.fork_rng(devices=[]):  # building networks seeds the process's generator
            task.do()
    except RunInUse:
        return Done(task.label, time.monotonic() - started, busy=True)
    except PeerFailed:
        return Done(task.label, time.monotonic() - started)  # the other one says why
    except (RankLost, Interrupted):
        raise  # without that process nothing more can be done, and who was stopped is not to go on with the next task
    except GanzooError as error:
        return Done(task.label, time.monotonic() - started, error=str(error))
    # a model is anybody's code: whatever it raises must end in its own row
    except Exception as error:
        where = f"{type(error).__name__}: {error}".splitlines()[0]
        return Done(task.label, time.monotonic() - started, error=f"{task.label} failed ({where})")
    return Done(task.label, time.monotonic() - started)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: several would add numbers in an order that depends on the machine.

    So scores are the same bits for any number of cores, and several processes share the work instead.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):  # NumPy's own threads
            yield
    finally:
        torch.set_num_threads(before)


def spoil() -> None:
    """Forget what this process has built; for tests that change the data under it."""
    _benches.clear()
    _source.cache_clear()
