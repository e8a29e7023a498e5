"""One training from start to finish: folder, lock, resume, signals, and everything that is written down on the way."""

from __future__ import annotations

import itertools
import platform
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch

from . import __version__, assemble, checkpoint, pictures
from .api import Dataset
from .device import Device
from .errors import CheckpointError, DataError, GanzooError, Interrupted, ResourceError
from .recipe import Recipe
from .registry import Registry, registry
from .runs import RunFolder
from .sampling import Model, changed_plugins, load
from .seed import latents
from .trainer import Report, Trainer
from .zoo import Request, at_home, resolve

GRID = 64  # samples of a grid


class Reporter(Protocol):
    """Who shows a person what a training does."""

    def start(self, recipe: Recipe, trainer: Trainer, folder: Path) -> None:
        """Tell that a training begins, or goes on."""
        return None

    def report(self, report: Report, speed: float, left: float) -> None:
        """Show the latest terms, with images a second and the seconds that are left."""
        return None

    def note(self, text: str) -> None:
        """Tell something once: a warning, a resume."""
        return None

    def stop(self) -> None:
        """Close what is open, whatever happened."""
        return None


class Silent(Reporter):
    """A reporter that says nothing."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    folder: Path
    samples: int
    already_finished: bool
    seconds: float


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
    fresh: bool = False,
    reporter: Reporter | None = None,
) -> Model:
    """Train a recipe, a recipe file or a composition, as the command line does, and return the model.

    `settings` maps dotted keys such as "train.batch" to values; the rest is as `ganzoo train --help` says.
    Raises a GanzooError with one sentence for everything that a user can mend.
    """
    known = registry()
    presets = (preset,) if preset else ()
    request = Request(presets, data, loss, tuple(regularizers), (), seed, dict(settings or {}))
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
    reporter = reporter or Silent()
    folder = RunFolder(place)
    known = at_home(recipe, known)
    assemble.records(recipe, known)  # every name is known before anything is written
    chosen = Device.choose(device, recipe.train.precision)
    with folder.locked():
        if fresh and (aside := folder.set_aside()):
            reporter.note(f"the earlier run is now {aside}")
    with folder.locked():
        folder.adopt(recipe)
        folder.set_state("starting")  # and whose process it is, for those who find the folder locked
        try:
            with _memory(recipe):
                return _train(recipe, known, folder, chosen, reporter)
        except Interrupted:
            _ended(folder, "interrupted")
            raise
        except GanzooError as error:
            _ended(folder, "failed", reason=str(error), exit_code=error.exit_code)
            raise
        finally:
            reporter.stop()


@contextmanager
def _memory(recipe: Recipe) -> Iterator[None]:
    """Say what to do where memory runs out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # of a processor's memory torch tells in words only
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        batch, pieces = recipe.train.batch, recipe.train.accumulate * 2
        same = f"--set train.accumulate={pieces} (same result) or " if batch % pieces == 0 else ""
        raise ResourceError(f"batch {batch} does not fit into memory; use {same}a smaller --set train.batch") from error


def _train(recipe: Recipe, known: Registry, folder: RunFolder, device: Device, reporter: Reporter) -> Outcome:
    data = assemble.dataset(recipe, known)
    for note in getattr(data, "notes", ()):
        reporter.note(note)
    trainer = assemble.trainer(recipe, known, device, data)
    provenance = provenance_of(recipe, known, trainer, data)
    _resume(folder, trainer, provenance, reporter)
    folder.prune(recipe.train.keep)
    folder.rewind_log(trainer.samples)
    if trainer.samples >= trainer.plan.total:
        folder.set_state("finished", samples=trainer.samples, plugins=provenance["plugins"])
        return Outcome(folder.path, trainer.samples, True, 0.0)
    precision = "bf16" if device.bf16 else "fp32"
    folder.set_state("running", device=str(device.device), precision=precision, plugins=provenance["plugins"])
    reporter.start(recipe, trainer, folder.path)
    started = time.monotonic()
    with signals() as caught:
        watcher = RunWatcher(folder, recipe, trainer, provenance, reporter, caught)
        trainer.fit(watcher)
        if trainer.samples < trainer.plan.total:
            trainer.report()  # a term that is not finite must not reach a checkpoint
            watcher.checkpoint(trainer)
            raise Interrupted(
                f"stopped by {signal.Signals(caught[0]).name} at {trainer.samples:,} of {trainer.plan.total:,} samples, "
                "all saved; the same command goes on",
                128 + caught[0],
            )
    _ended(folder, "finished", samples=trainer.samples)
    return Outcome(folder.path, trainer.samples, False, time.monotonic() - started)


def _ended(folder: RunFolder, state: str, **more: Any) -> None:
    """Write how a run ended; the plugins that it used stay on record."""
    folder.set_state(state, **more, plugins=folder.state().get("plugins", []))


def provenance_of(recipe: Recipe, known: Registry, trainer: Trainer, data: Dataset) -> dict[str, Any]:
    """Return what a checkpoint says of its origin; no times and no hosts, so that equal runs give equal files."""
    return {
        "recipe": recipe.toml(),
        "plugins": [known.provenance(record) for record in assemble.records(recipe, known)],
        "data": {"fingerprint": data.fingerprint, "samples": len(data)},
        "spec": asdict(data.spec),
        "versions": {"ganzoo": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "engine": {
            "device": trainer.device.device.type,
            "precision": "bf16" if trainer.device.bf16 else "fp32",
            "threads": torch.get_num_threads(),
        },
    }


def _resume(folder: RunFolder, trainer: Trainer, provenance: dict[str, Any], reporter: Reporter) -> None:
    """Go on from the newest checkpoint that is whole; say loudly which ones are not."""
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
        for line in itertools.chain(_changes(old, provenance, "versions"), _changes(old, provenance, "engine")):
            reporter.note(f"warning: going on is not bit-exact: {line}")
        for line in changed_plugins(old["plugins"], provenance["plugins"]):
            reporter.note(f"warning: going on is not bit-exact: {line}")
        checkpoint.restore(trainer, tensors, counters)
        reporter.note(f"going on at {trainer.samples:,} samples from {path}")
        return
    if found:
        raise CheckpointError(f"no checkpoint in {folder.checkpoint_folder} is whole; use --fresh or another --run folder")


def _changes(old: dict[str, Any], new: dict[str, Any], table: str) -> Iterator[str]:
    for key, value in new[table].items():
        if old.get(table, {}).get(key) != value:
            yield f"{key} {old.get(table, {}).get(key)} -> {value}"


class RunWatcher:
    """Writes a run down as the trainer goes."""

    def __init__(
        self,
        folder: RunFolder,
        recipe: Recipe,
        trainer: Trainer,
        provenance: dict[str, Any],
        reporter: Reporter,
        caught: list[int],
    ) -> None:
        self.folder, self.recipe, self.provenance, self.reporter, self.caught = folder, recipe, provenance, reporter, caught
        self.z = latents(GRID, trainer.plan.latent, trainer.plan.prior, trainer.plan.seed, "grid")
        self.started, self.first = time.monotonic(), trainer.samples
        self.last: tuple[float, int] | None = None

    def report(self, report: Report) -> None:
        """Write a line to the log and show it, with the speed since the last one."""
        now, samples = time.monotonic(), report.progress.samples
        then, before = self.last or (self.started, self.first)
        self.last = (now, samples)
        speed = (samples - before) / max(now - then, 1e-9)
        left = (report.progress.total - samples) / speed if speed else float("inf")
        self.folder.log(
            {"samples": samples, "rounds": report.progress.rounds, "images_per_second": round(speed, 1), **report.terms}
        )
        self.reporter.report(report, speed, left)

    def grid(self, trainer: Trainer) -> None:
        """Draw what the averaged networks make of the same latents as ever."""
        if len(self.provenance["spec"]["shape"]) != 3:
            return  # only images have a grid
        nets = {name: trainer.averages[name].net if name in trainer.averages else net for name, net in trainer.nets.items()}
        classes = self.provenance["spec"]["classes"]
        device = trainer.device.device
        cond = {"label": torch.arange(GRID, device=device) % classes} if classes else {}
        with torch.no_grad(), trainer.device.autocast():
            made = trainer.game.sample(nets, self.z.to(device), cond)
        notes = {"recipe": self.recipe.name, "samples": str(trainer.samples), "seed": str(trainer.plan.seed)}
        pictures.save_png(pictures.grid(made), self.folder.samples / f"{trainer.samples:012d}.png", notes)

    def checkpoint(self, trainer: Trainer) -> None:
        """Write a checkpoint and remove the oldest."""
        checkpoint.write(self.folder.checkpoint_path(trainer.samples), trainer, self.provenance)
        self.folder.prune(self.recipe.train.keep)

    def stop(self) -> bool:
        """Has a signal come?"""
        return bool(self.caught)


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM for the end of the round; a second SIGINT stops at once. Only in the main thread."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        if len(caught) > 1 and number == signal.SIGINT:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Estimate:
    """What a dry run measured."""

    parameters: dict[str, int]
    seconds_per_round: float
    samples_per_round: int
    peak_bytes: int
    checkpoint_bytes: int
    seconds_to_finish: float
    disk_bytes: int
    device: str
    precision: str


def estimate(recipe: Recipe, known: Registry, device: str = "auto", rounds: int = 3) -> Estimate:
    """Play a few rounds without writing anything, and say what the whole run will take."""
    chosen = Device.choose(device, recipe.train.precision)
    known = at_home(recipe, known)
    times = []
    with _memory(recipe):
        trainer = assemble.trainer(recipe, known, chosen)
        trainer.round()  # the first one allocates and compiles kernels
        before = trainer.samples
        for _ in range(rounds):
            started = time.perf_counter()
            trainer.round()
            chosen.synchronize()
            times.append(time.perf_counter() - started)
    trainer.report()
    per_round = (trainer.samples - before) // rounds
    seconds = sorted(times)[rounds // 2]
    size = sum(value.nbytes for value in checkpoint.state_of(trainer)[0].values())
    return Estimate(
        parameters={name: sum(p.numel() for p in net.parameters()) for name, net in trainer.nets.items()},
        seconds_per_round=seconds,
        samples_per_round=per_round,
        peak_bytes=chosen.peak_bytes(),
        checkpoint_bytes=size,
        seconds_to_finish=seconds * trainer.plan.total / per_round,
        disk_bytes=size * (recipe.train.keep + 1),
        device=str(chosen.device),
        precision="bf16" if chosen.bf16 else "fp32",
    )
