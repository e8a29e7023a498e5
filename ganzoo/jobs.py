"""One training from start to finish: folder, lock, resume, signals, and everything that is written down on the way."""

from __future__ import annotations

import platform
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import __version__, assemble, checkpoint, memory
from .api import Dataset
from .busy import Others
from .device import Device
from .errors import CheckpointError, DataError, GanzooError, Interrupted, ResourceError
from .finetuning import Beginning
from .players import largest_divisor
from .recipe import Recipe
from .registry import Registry, registry
from .runs import RunFolder
from .sampling import Model, changed_plugins, load
from .trainer import Trainer
from .watch import Reporter, RunWatcher, Silent, signals
from .world import World, joined
from .zoo import Request, at_home, resolve


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    folder: Path
    samples: int
    already_finished: bool
    seconds: float
    leads: bool = True  # of a launch's processes, is this the one that speaks?


def train(
    name: str,
    *,
    run: str | Path = "",
    device: str = "auto",
    preset: str = "",
    data: str = "",
    loss: str = "",
    regularizers: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    init: str | Path = "",
    fresh: bool = False,
    reporter: Reporter | None = None,
) -> Model:
    """Train a recipe, a recipe file or a composition, as the command line does, and return the model.

    `settings` maps dotted keys such as "train.batch" to values; the rest is as `ganzoo train --help` says.
    Raises a GanzooError with one sentence for everything that a user can mend.
    """
    known = registry()
    presets = (preset,) if preset else ()
    request = Request(presets, data, loss, tuple(regularizers), (), seed, str(init), dict(settings or {}))
    recipe = resolve(name, request, known)
    outcome = run_recipe(recipe, known, Path(run or Path("runs") / recipe.name), device, fresh, reporter or Silent())
    return load(outcome.folder, device)


def run_recipe(
    recipe: Recipe,
    known: Registry,
    place: Path,
    device: str = "auto",
    fresh: bool = False,
    reporter: Reporter | None = None,
) -> Outcome:
    """Train a resolved recipe in a folder, resuming what is there; the terms of every error are in its one sentence."""
    known = at_home(recipe, known)
    assemble.records(recipe, known)  # every name is known before anything is written
    with joined() as world, ExitStack() as stack:
        folder, reporter = RunFolder(place, writes=world.leads), reporter if reporter and world.leads else Silent()
        chosen = Device.for_training(device, recipe.train, world)
        with world.led() as leads:
            if leads:
                stack.enter_context(_own(folder, recipe, fresh, reporter))
        try:
            with enough_memory(recipe):
                return _train(recipe, known, folder, chosen, reporter)
        except Interrupted as error:
            _ended(folder, "interrupted", exit_code=error.exit_code)
            raise
        except GanzooError as error:
            _ended(folder, "failed", reason=str(error), exit_code=error.exit_code)
            raise
        finally:
            reporter.stop()


@contextmanager
def _own(folder: RunFolder, recipe: Recipe, fresh: bool, reporter: Reporter) -> Iterator[None]:
    """Hold the folder for this process, with the recipe in it."""
    with folder.locked():
        if fresh and (aside := folder.set_aside()):
            reporter.note(f"the earlier run is now {aside}")
    with folder.locked():
        folder.adopt(recipe)
        folder.set_state("starting")  # and whose process it is, for those who find the folder locked
        yield


@contextmanager
def enough_memory(recipe: Recipe, trainer: Trainer | None = None) -> Iterator[None]:
    """Say what to do where memory runs out, as the trainer stands or, where there is none yet, as the recipe has it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not memory.out_of_memory(error):
            raise
        train = recipe.train
        most = train.micro_batch if isinstance(train.micro_batch, int) else 0
        asked = largest_divisor(train.batch, most or train.batch // train.accumulate)
        batch, size = memory.at_once(trainer) if trainer else (train.batch, asked)
        cut = f" in pieces of {size}" if size < batch else ""
        whole = "--set train.accumulate=1 with " if train.accumulate > 1 else ""
        found = "" if train.micro_batch == "auto" else "--set train.micro_batch=auto, "
        half = f"{whole}--set train.micro_batch={largest_divisor(batch, size // 2)}, {found}or " if size > 1 else ""
        advice = f"use {half}a smaller --set train.batch"
        raise ResourceError(f"batch {batch} does not fit into memory{cut}; {advice}") from error


def _train(recipe: Recipe, known: Registry, folder: RunFolder, device: Device, reporter: Reporter) -> Outcome:
    alone = device.device.type == "cpu" and device.world.size == 1
    others = Others() if alone and not isinstance(reporter, Silent) else None
    data = device.world.leader_first(lambda: assemble.dataset(recipe, known))  # it may fill a cache for all
    for note in getattr(data, "notes", ()):
        reporter.note(note)
    resumes = device.world.leaders(bool(folder.checkpoints()))
    begins = Beginning.read(recipe.train.init, device.world) if recipe.train.init and not resumes else None
    trainer = assemble.trainer(recipe, known, device, data, begins.fill if begins else None)
    provenance = provenance_of(recipe, known, trainer, data)
    _same_parts(device.world, provenance)
    for note in begins.notes if begins else ():
        reporter.note(note)
    before = _resume(folder, trainer, provenance, reporter)
    folder.prune(recipe.train.keep)
    folder.rewind_log(trainer.samples)
    if trainer.samples >= trainer.plan.total:
        folder.set_state("finished", samples=trainer.samples, plugins=provenance["plugins"])
        return Outcome(folder.path, trainer.samples, True, 0.0, device.world.leads)
    for note in memory.settle(recipe, trainer):
        reporter.note(note)
    init = begins.about if begins else (before or {}).get("init")
    provenance = provenance_of(recipe, known, trainer, data, init)  # with the pieces that were found
    for line in _changes(before, provenance, "engine") if before else ():
        reporter.note(f"warning: going on is not bit-exact: {line}")
    folder.set_state("running", device=str(device.device), precision=device.precision, plugins=provenance["plugins"])
    if others and (advice := others.advice(torch.get_num_threads())):
        reporter.note(advice)
    reporter.start(recipe, trainer, folder.path)
    started = time.monotonic()
    with signals(device.world) as caught, closing(trainer.feed), enough_memory(recipe, trainer):
        watcher = RunWatcher(folder, recipe, trainer, provenance, reporter, caught)
        trainer.fit(watcher)
        if trainer.samples < trainer.plan.total:
            trainer.report()  # a term that is not finite must not reach a checkpoint
            watcher.checkpoint(trainer)
            first = next(number for numbers in device.world.everyone(caught) for number in numbers)
            raise Interrupted(
                f"stopped by {signal.Signals(first).name} at {trainer.samples:,} of {trainer.plan.total:,} samples, "
                "all saved; the same command goes on",
                128 + first,
            )
    _ended(folder, "finished", samples=trainer.samples)
    return Outcome(folder.path, trainer.samples, False, time.monotonic() - started, device.world.leads)


def _same_parts(world: World, provenance: Mapping[str, Any]) -> None:
    """Refuse a launch whose processes have different data, plugins or versions."""
    mine = {key: provenance[key] for key in ("data", "plugins", "versions", "recipe")}
    for rank, theirs in enumerate(everyone := world.everyone(mine)):
        for key, value in theirs.items():
            if value != everyone[0][key]:
                raise DataError(
                    f"process {rank} of this launch has other {key} than process 0; give all the same and launch again"
                )


def _ended(folder: RunFolder, state: str, **more: Any) -> None:
    """Write how a run ended; the plugins that it used stay on record."""
    folder.set_state(state, **more, plugins=folder.state().get("plugins", []))


def provenance_of(
    recipe: Recipe, known: Registry, trainer: Trainer, data: Dataset, init: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what a checkpoint says of its origin; no times and no hosts, so that equal runs give equal files."""
    return {
        **({"init": dict(init)} if init else {}),
        "recipe": recipe.toml(),
        "plugins": [known.provenance(record) for record in assemble.records(recipe, known)],
        "data": {"fingerprint": data.fingerprint, "samples": len(data)},
        "spec": asdict(data.spec),
        "versions": {"ganzoo": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "engine": {
            "device": trainer.device.device.type,
            "precision": trainer.device.precision,
            "threads": torch.get_num_threads(),
            **({"processes": trainer.device.world.size} if trainer.device.world.size > 1 else {}),
            **({"pieces": cut} if trainer.plan.micro_batches and max(cut := memory.pieces(trainer)) > 1 else {}),
        },
    }


def _resume(folder: RunFolder, trainer: Trainer, provenance: dict[str, Any], reporter: Reporter) -> dict[str, Any] | None:
    """Go on from the newest checkpoint that is whole, which only the leading process of a launch has to see.

    Returns there what that checkpoint says of its origin.
    """
    world = trainer.device.world
    with world.led() as leads:
        found = _newest(folder, provenance, reporter) if leads else None
    about = world.leaders(found and found[::2])
    if about is not None:
        checkpoint.restore(trainer, world.leaders_tensors(found and found[1]), about[1])
        reporter.note(f"going on at {trainer.samples:,} samples from {about[0]}")
    return found[3] if found else None


def _newest(
    folder: RunFolder, provenance: dict[str, Any], reporter: Reporter
) -> tuple[Path, dict[str, Tensor], dict[str, Any], dict[str, Any]] | None:
    """Return path, tensors, counters and provenance of the newest whole checkpoint; say loudly which ones are not."""
    found = folder.checkpoints()
    for path in found:
        try:
            tensors, counters, old = checkpoint.read(path)
        except CheckpointError as error:
            reporter.note(f"warning: {error}")
            continue
        if old["data"]["fingerprint"] != provenance["data"]["fingerprint"]:
            raise DataError(
                f"the data changed since {path.name} ({old['data']['samples']:,} samples then, "
                f"{provenance['data']['samples']:,} now); restore it, or use --fresh or another --run folder"
            )
        for line in _changes(old, provenance, "versions"):
            reporter.note(f"warning: going on is not bit-exact: {line}")
        for line in changed_plugins(old["plugins"], provenance["plugins"]):
            reporter.note(f"warning: going on is not bit-exact: {line}")
        return path, tensors, counters, old
    if found:
        raise CheckpointError(f"no checkpoint in {folder.checkpoint_folder} is whole; use --fresh or another --run folder")
    return None


def _changes(old: dict[str, Any], new: dict[str, Any], table: str) -> Iterator[str]:
    then, now = old.get(table, {}), new[table]
    for key in dict.fromkeys([*now, *then]):  # what is in one of them only was otherwise too
        if then.get(key) != now.get(key):
            yield f"{key} {then.get(key)} -> {now.get(key)}"


@dataclass(frozen=True)
class Pace:
    """How fast one stage goes; a run without stages is one."""

    samples: int  # of the whole stage
    size: int | None  # pixels; none: the data's own
    seconds_per_round: float
    samples_per_round: int

    @property
    def seconds(self) -> float:
        """What the whole stage takes."""
        return self.seconds_per_round * self.samples / self.samples_per_round


@dataclass(frozen=True)
class Estimate:
    """What a dry run measured."""

    parameters: dict[str, int]
    stages: tuple[Pace, ...]
    peak_bytes: int
    checkpoint_bytes: int
    seconds_to_finish: float
    disk_bytes: int
    device: str
    precision: str
    notes: tuple[str, ...] = ()


def estimate(recipe: Recipe, known: Registry, device: str = "auto", rounds: int = 3) -> Estimate:
    """Play a few rounds without writing anything, and say what the whole run will take."""
    chosen = Device.for_training(device, recipe.train)
    known = at_home(recipe, known)
    with enough_memory(recipe):
        trainer = assemble.trainer(recipe, known, chosen)
        with closing(trainer.feed), enough_memory(recipe, trainer):
            notes = memory.settle(recipe, trainer)
            stages = tuple(_pace(trainer, start, samples, rounds) for start, samples in trainer.plan.spans)
    trainer.report()
    size = sum(value.nbytes for value in checkpoint.state_of(trainer)[0].values())
    return Estimate(
        parameters={name: sum(p.numel() for p in net.parameters()) for name, net in trainer.nets.items()},
        stages=stages,
        peak_bytes=chosen.peak_bytes(),
        checkpoint_bytes=size,
        seconds_to_finish=sum(stage.seconds for stage in stages),
        disk_bytes=size * (recipe.train.keep + 1),
        device=str(chosen.device),
        precision=chosen.precision,
        notes=tuple(notes),
    )


def _pace(trainer: Trainer, start: int, samples: int, rounds: int) -> Pace:
    """Play a few rounds from where a stage begins; in it, the first one allocates and compiles kernels."""
    trainer.samples, times = start, []
    trainer.round()
    before = trainer.samples
    for _ in range(rounds):
        started = time.perf_counter()
        trainer.round()
        trainer.device.synchronize()
        times.append(time.perf_counter() - started)
    size = trainer.plan.at(start, 0)[0].size
    return Pace(samples, size, sorted(times)[rounds // 2], (trainer.samples - before) // rounds)
