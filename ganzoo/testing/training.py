"""What everything promises that takes part in a training: each function here checks one promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .. import checkpoint
from ..trainer import Trainer
from .contract import require
from .promises import specs, welcome
from .tiny import Factory, Onlooker, tiny_data, tiny_trainer

Build = Callable[[Mapping[str, Any]], Trainer]


def state(trainer: Trainer) -> dict[str, Tensor]:
    """Return a copy of all of a trainer's tensors."""
    return {key: value.clone() for key, value in checkpoint.state_of(trainer)[0].items()}


def only_the_acting_player_moves(build: Build) -> None:
    """In a player's turn exactly its own networks' parameters change, all of them together with no one else's."""
    for player in build({}).players:
        trainer = build({"train": {"turns": [player]}})
        before = {name: [p.detach().clone() for p in net.parameters()] for name, net in trainer.nets.items()}
        trainer.round()
        for name, net in trainer.nets.items():
            changed = [not torch.equal(old, new) for old, new in zip(before[name], net.parameters(), strict=True)]
            if name in trainer.players[player].nets:
                require(any(changed), f"a turn of {player!r} to move network {name!r}", "no change", "A game")
            else:
                require(not any(changed), f"a turn of {player!r} to leave {name!r} alone", "a change", "A game")


def resume_is_bit_exact(build: Build) -> None:
    """Two rounds, a checkpoint, two more rounds give the bits of four rounds."""
    whole, first, second = build({}), build({}), build({})
    for _ in range(4):
        whole.round()
    for _ in range(2):
        first.round()
    checkpoint.restore(second, *checkpoint.state_of(first))
    for _ in range(2):
        second.round()
    one, two = state(whole), state(second)
    differing = [key for key, value in one.items() if not torch.equal(value, two[key])]
    require(not differing, "the same bits after a resume", f"others in {differing[:3]}", "State")


def accumulation_equals_the_batch(build: Build) -> None:
    """Cutting the batch into pieces gives the same step up to rounding."""
    results = []
    for pieces in (1, 2):
        trainer = build({"train": {"accumulate": pieces}, "optimizer": {"name": "sgd", "lr": 0.01}})
        trainer.round()
        results.append({key: value for key, value in state(trainer).items() if key.startswith("net/")})
    for key, value in results[0].items():
        error = (value.float() - results[1][key].float()).abs().max().item()
        require(
            error <= 1e-5 * (1 + value.abs().max().item()), "the whole batch's step", f"{key} off by {error:.2g}", "State"
        )


def trains_in_bf16(build: Build) -> None:
    """Four rounds in bf16 leave every weight and every term finite."""
    trainer = build({"train": {"precision": "bf16"}})
    trainer.fit(Onlooker(rounds=4))
    broken = [key for key, value in state(trainer).items() if value.is_floating_point() and not torch.isfinite(value).all()]
    require(not broken, "finite weights in bf16", f"others in {broken[:3]}", "State")


def as_loss(plugin: Factory) -> Build:
    """Return how to train with this loss."""
    return lambda raw: tiny_trainer(loss=plugin, raw=raw)


def as_regularizer(plugin: Factory) -> Build:
    """Return how to train with this regularizer, on data with classes if it needs them."""
    data = tiny_data(classes=welcome(plugin())[0].classes)
    return lambda raw: tiny_trainer(regularizers={"it": plugin}, raw=raw, data=data)


def as_game(plugin: Factory) -> Build:
    """Return how to train with this game."""
    return lambda raw: tiny_trainer(game=plugin, raw=raw)


def as_architecture(plugin: Factory) -> Build:
    """Return how to train with this architecture, at the first size that it accepts."""
    spec = specs(plugin)[0]
    data = tiny_data(size=spec.shape[-1], channels=spec.shape[0], classes=spec.classes)
    return lambda raw: tiny_trainer(architecture=plugin, data=data, raw=raw)
