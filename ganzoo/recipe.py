"""What a recipe is: frozen dataclasses, and numbers that may change over the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import tomli_w

SHAPES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "cosine": lambda share: (1 - math.cos(math.pi * share)) / 2,
}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A number that changes over the run: `from` until share `begin` of it, `to` from share `end` on."""

    start: float
    stop: float
    shape: Literal["linear", "cosine"] = "linear"
    begin: float = 0.0  # shares of the run, 0 to 1
    end: float = 1.0

    def at(self, share: float) -> float:
        """Return the value when this share of the run is over."""
        local = (share - self.begin) / (self.end - self.begin)
        return self.start + (self.stop - self.start) * SHAPES[self.shape](min(max(local, 0.0), 1.0))


Number = float | Schedule
HOW = ("workers", "micro_batch", "compile", "graphs", "memory_format")  # keys of [train] that say how, not what


def value_at(number: Number, share: float) -> float:
    """Return a number or, for a schedule, its value when this share of the run is over."""
    return number.at(share) if isinstance(number, Schedule) else number


def values_at(options: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Return options with the values of this share of the run in place of schedules, also of those in lists."""
    return {key: _value_at(value, share) for key, value in options.items()}


def _value_at(value: Any, share: float) -> Any:
    return tuple(value_at(entry, share) for entry in value) if isinstance(value, list | tuple) else value_at(value, share)


@dataclass(frozen=True, kw_only=True)
class HalfLife:
    """An average of weights by half-life: what is so many samples old counts half (StyleGAN2, StyleGAN2-ADA, R3GAN).

    With a ramp the half-life is at most that share of the samples seen (StyleGAN2-ADA, arXiv:2006.06676).
    """

    half_life: Number  # real samples; 0: no averaging
    ramp: float = 0.0  # 0: no limit

    def decay(self, samples: int, before: int, share: float) -> float:
        """Return the share of the average that survives a round of so many samples, after so many before it."""
        half_life = value_at(self.half_life, share)
        if self.ramp:
            half_life = min(half_life, self.ramp * before)
        return 0.5 ** (samples / half_life) if half_life > 0 else 0.0


@dataclass(frozen=True)
class Part:
    """One plugin, or the optimizer, with its options as the recipe gives them."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RegularizerPart(Part):
    """A regularizer with what the engine owns of it: how much it weighs, and every how many turns it acts."""

    weight: Number = 1.0
    every: int = 1


@dataclass(frozen=True)
class DataPart:
    """A dataset by name, or by the path that a reader opens; exactly one of the two is set."""

    name: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Latent:
    """What the generators start from: `size` independent numbers, standard normal or uniform in [-1, 1]."""

    size: int = 128
    prior: Literal["normal", "uniform"] = "normal"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of the run with its own image size, batch or turns; what is not given stays the recipe's."""

    samples: int
    size: int | None = None
    batch: int | None = None
    turns: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Train:
    """How long, how large and how precisely the game is played, and how often the run is written down."""

    samples: int = 300_000  # real samples seen in the whole run
    batch: int = 64  # samples of one turn
    turns: tuple[str, ...] = ()  # one round; empty: each player of the game once, discriminators first
    ema: Number | HalfLife = 0.999  # share of the average that survives a round; 0: no averaging
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"  # auto: bf16 where the hardware has it
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"  # of images; auto: channels_last where it pays
    compile: Literal["auto", "on", "off"] = "auto"  # torch.compile of costs; auto: where that was measured to pay
    graphs: Literal["auto", "on", "off"] = "auto"  # rounds as CUDA graphs; auto: where that was measured to pay
    accumulate: int = 1  # pieces that a batch is cut into where it does not fit into memory
    micro_batch: Literal["auto"] | int = 0  # samples computed at once at most; 0: as accumulate says, auto: what fits
    sync_batch_norm: bool = False  # statistics over the batches of all processes of a launch, not of each by itself
    seed: int = 0
    init: str = ""  # run folder or checkpoint of another training whose weights this one begins with, as far as they fit
    workers: Literal["auto"] | int = "auto"  # processes that read data ahead; auto: 0, or a few for files beyond memory
    log: int = 0  # samples between reports, sample grids and checkpoints; 0: 1/100, 1/10 and 1/20 of the run
    grid: int = 0
    checkpoint: int = 0
    keep: int = 2  # checkpoints that are kept


@dataclass(frozen=True)
class Recipe:
    """Everything that a run needs, under one name."""

    name: str
    summary: str
    data: DataPart
    architecture: Part
    loss: Part
    regularizers: tuple[RegularizerPart, ...]
    game: Part | None  # None: the game of two players
    latent: Latent
    optimizer: Part
    train: Train
    stages: tuple[Stage, ...]
    raw: Mapping[str, Any]  # the resolved tables, as they are written into the run folder
    origin: Mapping[str, str]  # dotted key -> where its value comes from

    def toml(self) -> str:
        """Return the resolved recipe as TOML, itself a valid recipe."""
        return tomli_w.dumps({"name": self.name, **self.raw})
