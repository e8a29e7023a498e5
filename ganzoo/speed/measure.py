"""How fast recipes train here: rounds, their arithmetic and what the machine can do, measured in one process."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import __version__, assemble
from ..device import Device
from ..jobs import enough_memory
from ..memory import settle
from ..recipe import Recipe
from ..registry import Registry
from ..trainer import Trainer
from ..zoo import at_home
from . import peak
from .figures import Part, Round, Spread, parts, ratios, speeds, spread, steady
from .rounds import counted, lazy, race, timed

DATA = "data"  # the span in which a trainer gets its batches
PEAK_SECONDS = 1.5  # for the machine's peak, before the rounds and again after them


@dataclass(frozen=True)
class PartSpeed:
    """What one part of a round takes."""

    name: str
    turns: float  # in a round; a lazy phase in the long run
    seconds_per_turn: float
    seconds_per_round: float
    flops_per_round: float


@dataclass(frozen=True)
class VariantSpeed:
    """How fast one variant of a recipe trains."""

    name: str  # the recipe's settings that are other than usual
    precision: str
    rounds: int
    samples_per_round: int
    images_per_second: Spread
    ratio: Spread  # to the first variant's images a second, round by round
    seconds_per_round: float
    first_round_seconds: float  # what the first round took beyond the others: all that is paid once
    flops_per_round: float
    flops_per_second: float
    peak_share: float
    data_share: float  # of the time, spent waiting for data
    parts: tuple[PartSpeed, ...]


@dataclass(frozen=True)
class RecipeSpeed:
    """How fast a recipe trains here, with its variants, the first being the recipe as it is."""

    recipe: str
    device: str
    memory_bytes: int  # the most that the device gave or, on a CPU, that this process has had so far
    peaks: Mapping[str, peak.Peak]  # precision -> what the machine reached
    variants: tuple[VariantSpeed, ...]


@dataclass(frozen=True)
class Ready:
    """A trainer after its first rounds."""

    name: str
    recipe: Recipe
    trainer: Trainer
    lazy: Mapping[str, float]
    first: Round
    operations: Round

    @property
    def precision(self) -> str:
        """What its networks run in."""
        return self.trainer.device.precision


def measure(variants: Mapping[str, Recipe], known: Registry, device: str, rounds: int, seconds: float) -> RecipeSpeed:
    """Measure variants of a recipe, which play by turns, for so many rounds or, for each of them, so many seconds.

    Nothing is written. RunFailed where a term becomes infinite, ResourceError where memory runs out.
    """
    first = next(iter(variants.values()))
    with ExitStack() as stack:
        ready = [_start(name, recipe, known, device, stack) for name, recipe in variants.items()]
        devices = {one.precision: one.trainer.device for one in ready}
        before = {precision: peak.measure(place, PEAK_SECONDS) for precision, place in devices.items()}
        with enough_memory(first, ready[0].trainer):
            found = race([one.trainer for one in ready], rounds, seconds)
        after = {precision: peak.measure(place, PEAK_SECONDS) for precision, place in devices.items()}
        memory = ready[0].trainer.device.peak_bytes()
        for one in ready:
            one.trainer.report()
    peaks = {precision: peak.better(before[precision], after[precision]) for precision in devices}
    usual = speeds(found[0], ready[0].lazy)
    speed = tuple(_speed(one, mine, usual, peaks[one.precision]) for one, mine in zip(ready, found, strict=True))
    return RecipeSpeed(first.name, str(ready[0].trainer.device.device), memory, peaks, speed)


def _start(name: str, recipe: Recipe, known: Registry, device: str, stack: ExitStack) -> Ready:
    """Build a trainer and play what is not raced: the first round, which compiles kernels, and the one that is counted.

    Rounds are those of the longest stage.
    """
    with enough_memory(recipe):
        place = Device.for_training(device, recipe.train)
        trainer = assemble.trainer(recipe, at_home(recipe, known), place)
        stack.enter_context(closing(trainer.feed))
    with enough_memory(recipe, trainer):
        settle(recipe, trainer)
        trainer.samples = max(trainer.plan.spans, key=lambda span: span[1])[0]
        return Ready(name, recipe, trainer, lazy(trainer), timed(trainer), counted(trainer))


def _speed(ready: Ready, rounds: Sequence[Round], usual: Sequence[float], reached: peak.Peak) -> VariantSpeed:
    """Put together what was measured of one variant."""
    seconds = spread(steady(rounds, ready.lazy)).median
    flops = steady([ready.operations], ready.lazy)[0]
    speed = speeds(rounds, ready.lazy)
    timed_parts = {part.name: part for part in parts(rounds, ready.lazy)}
    operations = {part.name: part for part in parts([ready.operations], ready.lazy)}
    return VariantSpeed(
        name=ready.name,
        precision=ready.precision,
        rounds=len(rounds),
        samples_per_round=rounds[0].samples,
        images_per_second=spread(speed),
        ratio=ratios(usual, speed),
        seconds_per_round=seconds,
        first_round_seconds=ready.first.total - seconds,
        flops_per_round=flops,
        flops_per_second=flops / seconds,
        peak_share=flops / seconds / reached[peak.larger(reached)].flops_per_second,
        data_share=timed_parts[DATA].whole / seconds,
        parts=tuple(_part(part, operations[name]) for name, part in timed_parts.items()),
    )


def _part(seconds: Part, operations: Part) -> PartSpeed:
    return PartSpeed(seconds.name, seconds.turns, seconds.each, seconds.whole, operations.whole)


def hardware(device: str) -> dict[str, str | int]:
    """Return what a speed depends on beside the recipe."""
    place = Device.choose(device).device
    named = {"accelerator": torch.cuda.get_device_name(place)} if place.type == "cuda" else {}
    return {
        "device": str(place),
        **named,
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "ganzoo": __version__,
    }


def processor(table: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name as Linux tells it in its table, and as Python does elsewhere."""
    lines = table.read_text(encoding="utf-8", errors="replace").splitlines() if table.is_file() else []
    names = [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name"]
    return names[0] if names else platform.processor() or platform.machine()
