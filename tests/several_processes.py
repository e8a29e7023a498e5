"""What the processes of a launch do in tests/test_world.py: train every case, and try what must be refused.

Run by torchrun; each process writes what it found, and the leading one the states that it trained, into a folder.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from ganzoo_plugins.games.adversarial import Adversarial
from ganzoo_plugins.losses.least_squares import LeastSquares
from ganzoo_plugins.losses.non_saturating import NonSaturating
from ganzoo_plugins.losses.relativistic import Relativistic
from ganzoo_plugins.regularizers.gradient_penalty import GradientPenalty
from ganzoo_plugins.regularizers.lecam import LeCam
from ganzoo_plugins.regularizers.r1 import R1
from ganzoo_plugins.regularizers.r2 import R2
from ganzoo_plugins.regularizers.spectral_norm import SpectralNorm
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import l1_loss

from ganzoo import checkpoint
from ganzoo.api import Extractor, Game, Regularizer
from ganzoo.benchmark.drawing import draw
from ganzoo.benchmark.launch import _share
from ganzoo.benchmark.protocol import find
from ganzoo.benchmark.sources import Diverged
from ganzoo.device import Device
from ganzoo.errors import GanzooError
from ganzoo.game import Duel, Scene
from ganzoo.registry import registry
from ganzoo.testing.tiny import TinyArchitecture, TinyDiscriminator, TinyGenerator, tiny_data, tiny_trainer
from ganzoo.trainer import Trainer
from ganzoo.watch import _same_state
from ganzoo.world import World, here, joined

SGD = {"name": "sgd", "lr": 0.05, "momentum": 0.9}
ROUNDS = 6


class Cycle(Game):
    """Two translators and two discriminators; neighbours in the batch are the two domains."""

    roles = {"G_AB": "translator", "G_BA": "translator", "D_A": "discriminator", "D_B": "discriminator"}
    teams = {"D": ("D_A", "D_B"), "G": ("G_AB", "G_BA")}
    discriminators = frozenset({"D_A", "D_B"})

    def play(self, nets, batch, z, acting):
        a, b = batch.real[::2], batch.real[1::2].flip(-1)
        fake_b, fake_a = nets["G_AB"](a), nets["G_BA"](b)
        scene = Scene([Duel(nets["D_A"], a, fake_a), Duel(nets["D_B"], b, fake_b)])
        if acting == "G":
            scene.extra_losses["cycle"] = 10 * (l1_loss(nets["G_BA"](fake_b), a) + l1_loss(nets["G_AB"](fake_a), b))
        return scene


class Normed(TinyArchitecture):
    """Both networks with batch norm."""

    def generator(self, spec):
        net = TinyGenerator(spec)
        net.body.insert(1, nn.BatchNorm1d(32))
        return net

    def discriminator(self, spec):
        net = TinyDiscriminator(spec)
        net.conv = nn.Sequential(net.conv, nn.BatchNorm2d(8))
        return net


def case(*, classes: int = 0, rate: float = 0.05, train: dict | None = None, lazy: dict | None = None, **parts):
    """Return the function that builds a case's trainer on a device."""
    raw = {"optimizer": {**SGD, "lr": rate}, "train": {"samples": 10**6, **(train or {})}, "regularizer": lazy or {}}
    return lambda device: tiny_trainer(data=tiny_data(classes=classes), raw=raw, device=device, **parts)


CASES: dict[str, Callable[[Device], Trainer]] = {
    "lazy R1": case(loss=NonSaturating, regularizers={"r1": R1}, lazy={"r1": {"every": 3}}, rate=0.01),
    "R3GAN": case(loss=Relativistic, regularizers={"r1": R1, "r2": R2}, rate=0.01),
    "cycle": case(game=Cycle, loss=LeastSquares, regularizers={"r1": R1}, lazy={"r1": {"every": 2}}, rate=0.01),
    "classes": case(game=Adversarial, loss=NonSaturating, classes=2),
    "several turns": case(loss=NonSaturating, train={"turns": ["D", "D", "G"]}),
    "accumulation": case(loss=NonSaturating, train={"accumulate": 2}),
    "logits observed": case(loss=NonSaturating, regularizers={"lecam": LeCam}, lazy={"lecam": {"start": 1}}),
    "spectral norm": case(loss=NonSaturating, regularizers={"spectral-norm": SpectralNorm}),
    "batch norm over all": case(loss=NonSaturating, architecture=Normed, train={"sync_batch_norm": True}),
}


def trained(build: Callable[[Device], Trainer], device: Device) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Return state and mean terms after some rounds."""
    trainer = build(device)
    for _ in range(ROUNDS):
        trainer.round()
    return {key: value.clone() for key, value in checkpoint.state_of(trainer)[0].items()}, dict(trainer.report().terms)


def complaint(act: Callable[[], object]) -> str:
    """Return the one sentence that an act ends with, or nothing."""
    try:
        act()
    except GanzooError as error:
        return f"{type(error).__name__}: {error}"
    return ""


class Breaks(Regularizer):
    """A penalty whose gradient is not finite on the second process alone, while its value is."""

    rank = 0

    def penalty(self, duel):
        sum_of_squares = duel.output("real").logits.square().sum() * 0
        return sum_of_squares.sqrt() if self.rank == 1 else sum_of_squares


def a_gradient_that_is_not_finite(device: Device) -> dict[str, object]:
    """Nobody moves, and the report names the player."""
    Breaks.rank = device.world.rank
    trainer = case(loss=NonSaturating, regularizers={"breaks": Breaks}, train={"turns": ["D"]})(device)
    before = [p.detach().clone() for p in trainer.nets["D"].parameters()]
    trainer.round()
    moved = any(not torch.equal(old, new) for old, new in zip(before, trainer.nets["D"].parameters(), strict=True))
    return {"moved": moved, "error": complaint(trainer.report)}


def weights_that_drift_apart(device: Device) -> str:
    """One process changes a weight behind the others' backs."""
    trainer = CASES["classes"](device)
    _same_state(device.world, trainer)
    if device.world.rank == 1:
        with torch.no_grad():
            next(trainer.nets["G"].parameters()).add_(1e-6)
    return complaint(lambda: _same_state(device.world, trainer))


def a_penalty_through_batch_norm_over_all(device: Device) -> str:
    """It would need a double backward."""
    build = case(
        loss=NonSaturating, architecture=Normed, regularizers={"gp": GradientPenalty}, train={"sync_batch_norm": True}
    )
    return complaint(build(device).round)


def led(world: World) -> dict[str, object]:
    """Return what the others learn of a task that the leader does well, and of one in which it fails."""
    done = world.leader_first(lambda: world.rank)

    def fail() -> None:
        with world.led() as leads:
            if leads:
                raise GanzooError("no")

    tensors = {"a": torch.arange(3), "b": torch.ones(2, 2, dtype=torch.bfloat16)} if world.leads else None
    sent = {key: value.tolist() for key, value in world.leaders_tensors(tensors).items()}
    return {"first": done, "failed": complaint(fail), "sent": sent, "leader": world.leaders(world.rank + 7)}


def own_pace(world: World) -> dict[str, str]:
    """Return what a process learns of another that is slow, and of one that fails."""

    def slow() -> None:
        with world.own_pace():
            time.sleep(0.2 * world.rank)

    def fail() -> None:
        with world.own_pace():
            if world.rank == 1:
                raise GanzooError("no")

    return {"slow": complaint(slow), "failed": complaint(fail)}


@dataclass(frozen=True)
class Drawing:
    """A source of so many images, each made of its number; from one of them on they may not be finite."""

    samples: int
    broken: int = 10**6

    def count(self, protocol) -> int:
        return self.samples

    def images(self, reference, protocol, seed):
        def make(start, stop):
            if stop > self.broken:
                raise Diverged(f"not finite at {self.broken}")
            number = torch.arange(start, stop).view(-1, 1, 1, 1)
            return (number * torch.arange(1, 4 * 4 + 1).view(1, 1, 4, 4) % 251).to(torch.uint8)

        return make


class Product(Extractor):
    """Features by a matrix product, whose rounding depends on what is computed together; logits where it classifies."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.id, self.classes = f"product-{classes}", classes

    def forward(self, images):
        features = (images.flatten(1).float() / 251) @ torch.linspace(-1, 1, 16 * 9).view(16, 9).sin()
        return (features, features[:, : self.classes].exp()) if self.classes else features


DRAWINGS = {"one stretch": Drawing(150), "more processes than chunks": Drawing(30), "several stretches": Drawing(700)}


def drawing(name: str, world: World) -> dict[str, object]:
    """Return what is kept of a source's samples."""
    source = {**DRAWINGS, "diverges": Drawing(150, broken=140)}[name]
    protocol = find("smoke", registry())
    drawn = draw(source, 0, None, protocol, [Product(0), Product(3)], 128, torch.device("cpu"), world)  # type: ignore[arg-type]
    witness = drawn.witness
    return {
        "features": [one.values.tolist() for one in drawn.features],
        "logits": [one.logits.tolist() for one in drawn.features if one.logits is not None],
        "digest": witness.digest.hexdigest(),
        "first": [] if witness.first is None else witness.first.tolist(),
        "different": len(witness.known),
        "reason": drawn.reason,
    }


@dataclass(frozen=True)
class Fails:
    """A task that fails on one process."""

    number: int
    rank: int | None

    @property
    def label(self) -> str:
        return f"task {self.number}"

    def do(self) -> None:
        if here().rank == self.rank:
            raise ZeroDivisionError(f"on process {self.rank}")


def again() -> list[int]:
    """Return rank and number of the processes that are joined once more."""
    with joined() as world:
        return [world.rank, world.size]


def main(folder: Path) -> None:
    """Do everything, and write it down."""
    torch.set_num_threads(1)
    with joined() as world:
        device = Device.choose("cpu", "fp32", world)
        terms = {}
        for name, build in CASES.items():
            state, terms[name] = trained(build, device)
            if world.leads:
                save_file({key: value.contiguous() for key, value in state.items()}, folder / f"{name}.safetensors")
        found = {
            "terms": terms,
            "not finite": a_gradient_that_is_not_finite(device),
            "drift": weights_that_drift_apart(device),
            "double backward": a_penalty_through_batch_norm_over_all(device),
            "led": led(world),
            "own pace": own_pace(world),
            "joined again": again(),
            "drawings": {name: drawing(name, world) for name in (*DRAWINGS, "diverges")},
            "tasks": [_share(task, world).error for task in (Fails(0, 1), Fails(1, None))],
            "uneven": complaint(lambda: case(loss=NonSaturating, train={"batch": 7})(device)),
            "everyone": world.everyone(world.rank),
            "rows": world.gather(torch.full((2, 1), float(world.rank))).flatten().tolist(),
        }
        (folder / f"{world.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
