"""What is written down and shown while a training runs, and the signals that end it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch

from . import checkpoint, pictures
from .errors import RunFailed
from .recipe import Recipe
from .runs import RunFolder
from .seed import latents
from .trainer import Report, Trainer
from .world import World

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
        self.trainer, self.world = trainer, trainer.device.world
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
        for note in self.trainer.notes():
            self.reporter.note(note)
        self.reporter.report(report, speed, left)

    def grid(self, trainer: Trainer) -> None:
        """Draw what the averaged networks make of the same latents as ever."""
        if len(self.provenance["spec"]["shape"]) != 3:
            return  # only images have a grid
        with trainer.device.world.led() as leads:
            if leads:
                self._grid(trainer)

    def _grid(self, trainer: Trainer) -> None:
        nets = {name: trainer.averages[name].net if name in trainer.averages else net for name, net in trainer.nets.items()}
        classes = self.provenance["spec"]["classes"]
        device = trainer.device.device
        cond = {"label": torch.arange(GRID, device=device) % classes} if classes else {}
        with torch.no_grad(), trainer.device.autocast():
            made = trainer.game.sample(nets, self.z.to(device), cond)
        notes = {"recipe": self.recipe.name, "samples": str(trainer.samples), "seed": str(trainer.plan.seed)}
        pictures.save_png(pictures.grid(made), self.folder.samples / f"{trainer.samples:012d}.png", notes)

    def checkpoint(self, trainer: Trainer) -> None:
        """Write a checkpoint and remove the oldest; RunFailed where the processes of a launch hold different states."""
        world = trainer.device.world
        if world.size > 1:
            _same_state(world, trainer)
        with world.led() as leads:
            if leads:
                checkpoint.write(self.folder.checkpoint_path(trainer.samples), trainer, self.provenance)
                self.folder.prune(self.recipe.train.keep)

    def stop(self) -> bool:
        """Has a signal come, to any process of a launch?"""
        return bool(self.world.sum(torch.tensor(len(self.caught))).item())


def _same_state(world: World, trainer: Trainer) -> None:
    for rank, digest in enumerate(digests := world.everyone(checkpoint.fingerprint(trainer))):
        if digest != digests[0]:
            raise RunFailed(
                f"at {trainer.samples:,} samples process {rank} of this launch holds other weights than process 0; "
                "something in this recipe depends on the process: give every process the same hardware, or train with one"
            )


@contextmanager
def signals(world: World) -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM for the end of the round; a second SIGINT stops at once. Only in the main thread.

    In a launch Ctrl-C may reach a process twice, from the terminal and through torchrun, so there it stops nothing at once.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        if len(caught) > 1 and number == signal.SIGINT and world.size == 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
