"""A phase's cost through torch.compile, where it can be: the gradients of penalties are functions inside of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.nn.modules.batchnorm import _BatchNorm

from .api import Loss, Regularizer
from .costs import Bill, Shown, bill
from .players import Change, Phase, Player


class CompiledBill:
    """Computes bills by compiled code, one compilation for each player and phase; `notes` tells what became of each."""

    def __init__(self, changes: Sequence[Change] = ()) -> None:
        self.notes: list[str] = []
        # a number would be part of the code, which would be compiled anew in every round
        self._changing = {id(change.owner): change.what for change in changes if not change.in_place}
        self._compiled = torch.compile(bill, fullgraph=True, dynamic=False)
        self._known: dict[tuple[str, int], bool] = {}  # does this player's phase run compiled?

    def __call__(
        self,
        player: Player,
        phase: Phase,
        losses: Mapping[str, Loss],
        weights: Sequence[float | Tensor],
        shown: Sequence[Shown],
    ) -> Bill:
        """Return what `bill` does; where that cannot be compiled it is computed as ever, and a note says so once."""
        key = player.name, player.phases.index(phase)
        if key not in self._known and (reason := _mixing(phase, shown) or self._moving(phase, losses, shown)):
            self._refuse(key, reason)
        if not self._known.get(key, True):
            return bill(player, phase, losses, weights, shown)
        fresh, started = key not in self._known, time.perf_counter()
        # as tensors: a number would be part of the code, and a schedule would compile it anew in every round
        scales = [torch.as_tensor(weight, dtype=torch.float32, device=shown[0].real.device) for weight in weights]
        try:
            made = self._compiled(player, phase, losses, scales, shown)
        except TorchDynamoException as error:
            self._refuse(key, str(error).strip().splitlines()[0])
            return bill(player, phase, losses, weights, shown)
        if fresh:
            self._known[key] = True
            self.notes.append(f"compiled what {player.name} pays in {time.perf_counter() - started:.0f} s")
        return made

    def _moving(self, phase: Phase, losses: Mapping[str, Loss], shown: Sequence[Shown]) -> str:
        """Say which option of what takes part changes with time."""
        parts: list[object] = [rule.regularizer for rule in phase.rules]
        parts += [losses[one.name] for one in shown]
        views = [getattr(view, "__self__", None) for one in shown for view in one.views]
        parts += [part for part in views if getattr(type(part), "view", None) is not Regularizer.view]
        return next((f"{self._changing[id(part)]} changes with time" for part in parts if id(part) in self._changing), "")

    def _refuse(self, key: tuple[str, int], reason: str) -> None:
        self._known[key] = False
        self.notes.append(f"what {key[0]} pays is not compiled but computed as ever: {reason}")


def _mixing(phase: Phase, shown: Sequence[Shown]) -> str:
    """Say which discriminator has no gradient as a function, since its batch norm changes with every forward pass."""
    punished = {rule.discriminator for rule in phase.rules if type(rule.regularizer).penalty is not Regularizer.penalty}
    for one in shown:
        if one.name in punished and any(isinstance(module, _BatchNorm) for module in one.discriminator.modules()):
            return f"the batch norm of {one.name} mixes samples under a penalty"
    return ""
