"""How plugins behave towards what they share with others: random generators, and the state that a checkpoint carries."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..api import Dataset, Loss, Regularizer
from .contract import require
from .promises import COUNT, SIDES, logits_of, meeting, pair, smallest
from .tiny import Factory
from .training import as_game, state

Run = Callable[[], list[Tensor]]


def generators() -> Mapping[str, Any]:
    """Return the states of the two global generators that nobody seeds."""
    parts: Any = np.random.get_state()
    return {
        "Python's `random`": random.getstate(),
        "numpy's global generator": [str(np.asarray(part).tolist()) for part in parts],
    }


def randomness_is_seeded(run: Run) -> None:
    """Only torch's seeded generator is drawn from, so the same seed gives the same numbers."""
    before = generators()
    torch.manual_seed(0)
    one = run()
    for name, after in generators().items():
        require(after == before[name], f"{name} to be left alone", "draws from it; draw with torch instead", "State")
    torch.manual_seed(0)
    two = run()
    same = len(one) == len(two) and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    require(same, "the same numbers from the same seed of torch's generator", "others", "State")


def of_networks(plugin: Factory) -> Run:
    """Return a forward pass of both networks, built anew."""

    def run() -> list[Tensor]:
        found = []
        for spec in smallest(plugin):
            G, D, z, cond = pair(plugin, spec)
            x = G(z, **cond)
            found += [x, logits_of(D(x, **cond))]
        return found

    return run


def of_loss(plugin: Factory) -> Run:
    """Return both sides of a loss before and after it has observed."""

    def run() -> list[Tensor]:
        loss = plugin()
        found = speak_of_loss(loss)
        live_of_loss(loss)
        return found + speak_of_loss(loss)

    return run


def of_regularizer(plugin: Factory) -> Run:
    """Return views and penalties before and after a regularizer has observed."""

    def run() -> list[Tensor]:
        regularizer = plugin()
        found = speak_of_regularizer(regularizer)
        live_of_regularizer(regularizer)
        return found + speak_of_regularizer(regularizer)

    return run


def of_game(plugin: Factory) -> Run:
    """Return the state after one round of the smallest networks."""

    def run() -> list[Tensor]:
        trainer = as_game(plugin)({})
        trainer.round()
        return list(state(trainer).values())

    return run


def of_dataset(data: Dataset) -> Run:
    """Return some samples."""
    return lambda: [data.batch(torch.arange(min(len(data), COUNT))).real]


# state ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Life:
    """How a plugin is built, how it gathers state, and what it says then."""

    build: Factory
    live: Callable[[Any], None]
    speak: Callable[[Any], list[Tensor]]


def state_lives_in_buffers(life: Life) -> None:
    """A new instance that is given the state_dict of a used one says what that one says."""
    torch.manual_seed(0)
    old: nn.Module = life.build()
    life.live(old)
    torch.manual_seed(1)
    new: nn.Module = life.build()
    new.load_state_dict(old.state_dict())
    same = all(torch.equal(a, b) for a, b in zip(life.speak(old), life.speak(new), strict=True))
    require(same, "the same numbers after a state_dict round trip", "others: some state is in no buffer", "State")


def _scores(number: int) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(number)
    return torch.randn(6, generator=source) + number, torch.randn(6, generator=source)


def live_of_loss(loss: Loss) -> None:
    """Let a loss observe three turns."""
    for number in range(3):
        real, fake = _scores(number)
        loss.discriminator(real, fake)
        loss.observe(real, fake)


def speak_of_loss(loss: Loss) -> list[Tensor]:
    """Return both sides on the same logits."""
    real, fake = _scores(7)
    torch.manual_seed(0)
    return [loss.discriminator(real, fake).detach(), loss.generator(fake, real if loss.relativistic else None).detach()]


def live_of_regularizer(regularizer: Regularizer) -> None:
    """Let a regularizer take part in three turns."""
    for number in range(3):
        for side in SIDES:
            if regularizer.side in (side, "both"):
                D, duel = meeting(regularizer, side)
                regularizer.penalty(duel)
                regularizer.after_step([D])
        regularizer.observe(*_scores(number))


def speak_of_regularizer(regularizer: Regularizer) -> list[Tensor]:
    """Return the view of the same samples, and the penalties of the same duels."""
    found = []
    for side in SIDES:
        if regularizer.side in (side, "both"):
            _, duel = meeting(regularizer, side)
            penalty = regularizer.penalty(duel)
            found += [regularizer.view(duel.real).detach(), *([] if penalty is None else [penalty.detach()])]
    return found


def loss_life(plugin: Factory) -> Life:
    """Return the life of a loss."""
    return Life(plugin, live_of_loss, speak_of_loss)


def regularizer_life(plugin: Factory) -> Life:
    """Return the life of a regularizer, which has whatever it builds on the networks from the start."""

    def build() -> Regularizer:
        regularizer: Regularizer = plugin()
        meeting(regularizer, "discriminator")
        return regularizer

    return Life(build, live_of_regularizer, speak_of_regularizer)
