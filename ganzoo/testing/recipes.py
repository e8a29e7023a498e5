"""What a recipe promises: its parts fit together, and a penalty on single samples meets a D that judges them singly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from .. import assemble
from ..api import Batch, Dataset
from ..device import Device
from ..errors import RunFailed
from ..game import Duel, View
from ..players import Rule
from ..recipe import Recipe
from ..registry import Registry
from ..trainer import Trainer
from .contract import require
from .promises import COUNT, mixes_samples


def rehearsal(recipe: Recipe, registry: Registry, data: Dataset) -> Trainer:
    """Return the trainer of a recipe at its own options, but with small batches, on one device and in full precision."""
    train = replace(recipe.train, batch=COUNT, accumulate=1, micro_batch=0, precision="fp32")
    stages = tuple(replace(stage, batch=None) for stage in recipe.stages)
    return assemble.trainer(replace(recipe, train=train, stages=stages), registry, Device.choose("cpu", "fp32"), data)


def parts_fit_together(trainer: Trainer) -> None:
    """Its parts can be built with the options that it gives them, and there is a turn to play."""
    require(bool(trainer.plan.turns), "a turn to play", "none", "A recipe")


def penalised_samples_are_judged_alone(trainer: Trainer) -> None:
    """Where a regularizer takes the gradients of single samples, the discriminator does not mix samples in training."""
    for name, duel in _duels(trainer):
        views = [rule.regularizer.view for rule in trainer.rules if rule.discriminator == name]
        takers = [
            rule.name
            for rule in trainer.rules
            if rule.discriminator == name and rule.concerns("discriminator") and _takes_gradients(rule, duel, views)
        ]
        if takers:
            shown = reduce(lambda x, view: view(x), views, duel.real)
            mixed = mixes_samples(duel.discriminator, shown, duel.real_cond)
            found = f"{takers[0]!r} before network {name!r}, which mixes samples (batch norm?)"
            require(not mixed, "input gradients of a discriminator that judges each sample alone", found, "A regularizer")


def rounds_stay_finite(trainer: Trainer) -> None:
    """Two rounds of four samples a turn leave every term finite."""
    for _ in range(2):
        trainer.round()
    try:
        trainer.report()
    except RunFailed as error:
        require(False, "finite terms", str(error).split(";")[0], "A recipe")


class _Spy(Duel):
    """A duel that notes whether somebody takes input gradients of it."""

    taken = False

    def input_gradient(self, side: Literal["real", "fake"]) -> Tensor:
        """Note it."""
        self.taken = True
        return super().input_gradient(side)

    def input_gradient_at(self, x: Tensor) -> Tensor:
        """Note it."""
        self.taken = True
        return super().input_gradient_at(x)


def _duels(trainer: Trainer) -> Iterator[tuple[str, Duel]]:
    """Yield each discriminator with its duel in a turn of its own."""
    torch.manual_seed(0)
    progress = trainer.announce()
    batch: Batch = trainer.feed.batch(0, COUNT, progress.size)
    z = torch.randn(COUNT, trainer.plan.latent)
    for player in trainer.players.values():
        if player.side == "discriminator":
            for duel in trainer.game.play(trainer.nets, batch, z, player.name).duels:
                if trainer.name(duel) in player.nets:
                    yield trainer.name(duel), duel


def _takes_gradients(rule: Rule, duel: Duel, views: Sequence[View]) -> bool:
    spy = _Spy(
        duel.discriminator,
        duel.real,
        duel.fake.detach(),
        real_cond=duel.real_cond,
        fake_cond=duel.fake_cond,
        generate=duel.generate,
        z=duel.z,
        views=views,
    )
    rule.regularizer.penalty(spy)
    return spy.taken
