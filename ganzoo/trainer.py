"""The loop: rounds of turns, turns of phases, one backward and one step each. It knows players and duels, and no task.

`Trainer.fit` and `Trainer.round` are the whole of it, from top to bottom.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from .api import Batch, Game, Loss, Progress, Staged
from .costs import Shown, bill, total
from .data import Feed
from .device import Device
from .ema import Average, decay_of
from .errors import PluginError, RunFailed
from .game import Duel, Scene
from .players import Act, Change, Phase, Plan, Player, Rule
from .recipe import value_at
from .recording import GraphRecorder, Play, RecordedRounds, reason_against
from .seed import latents, seed_of

if TYPE_CHECKING:
    from .compilation import CompiledBill


@dataclass(frozen=True)
class Report:
    """What a stretch of rounds looked like: the mean of every term."""

    progress: Progress
    terms: Mapping[str, float]


class Watcher(Protocol):
    """Who the trainer tells what happens; a run writes it down, a test may ignore it."""

    def report(self, report: Report) -> None:
        """Take the means of a stretch of rounds."""

    def grid(self, trainer: Trainer) -> None:
        """Draw samples."""

    def checkpoint(self, trainer: Trainer) -> None:
        """Save the state, which is finite as far as the losses tell."""

    def stop(self) -> bool:
        """Should the training end after this round?"""
        return False


class Trainer:
    """Players, what they want, and the loop that lets them play."""

    def __init__(
        self,
        *,
        game: Game,
        nets: Mapping[str, nn.Module],
        players: Mapping[str, Player],
        losses: Mapping[str, Loss],
        rules: Sequence[Rule],
        feed: Feed,
        device: Device,
        plan: Plan,
        changes: Sequence[Change] = (),
    ) -> None:
        self.game, self.nets, self.players, self.losses, self.rules = game, nets, players, losses, tuple(rules)
        self.feed, self.device, self.plan, self.changes = feed, device, plan, tuple(changes)
        self.averages = {name: Average(net) for name, net in nets.items() if name not in game.discriminators}
        self.samples = 0
        self._share = 0.0  # of the run, at the start of the round: what schedules follow
        self.rounds = 0
        self._names = {id(net): name for name, net in nets.items()}
        self.terms: list[tuple[str, Tensor]] = []  # since the last report
        modules = [module for root in self.modules().values() for module in root.modules()]
        self._staged = [module for module in modules if isinstance(module, Staged)]
        self._met = {name: [r.regularizer for r in self.rules if r.discriminator == name] for name in losses}
        self._notes: list[str] = []
        self._rounds = self._recorded() if device.records else self.play
        self._compiled = _compiled(self.changes) if device.compiles else None
        self._bill = self._compiled or bill
        self._buffers = [b for module in (*nets.values(), game) for b in module.buffers() if b.is_floating_point()]
        self.span: Callable[[str], AbstractContextManager[None]] = _unobserved  # another for who wants to time the parts

    def modules(self) -> dict[str, nn.Module]:
        """Return everything that has state besides the optimizers, under the names that checkpoints use."""
        return {
            **{f"net/{name}": net for name, net in self.nets.items()},
            **{f"ema/{name}": average.net for name, average in self.averages.items()},
            **{f"loss/{name}": loss for name, loss in self.losses.items()},
            **{f"regularizer/{rule.name}/{rule.discriminator}": rule.regularizer for rule in self.rules},
            "game": self.game,
        }

    def notes(self) -> list[str]:
        """Return what there is to tell since the last time: what was compiled, and what could not be."""
        sources = [self._notes, *([self._compiled.notes] if self._compiled else [])]
        told = [note for source in sources for note in source]
        for source in sources:
            source.clear()
        return told

    def _recorded(self) -> Play:
        """Return what plays rounds from recordings, or as ever where a replay would not be the round."""
        reason = reason_against(self._staged, self.rules, self.changes, self.players.values(), self.device.world.size)
        if reason:
            self._notes.append(f"rounds are not recorded but played as ever: {reason}")
            return self.play
        return RecordedRounds(self._untimed, GraphRecorder(self.device.device))

    def _untimed(self, acts: Sequence[Act], draws: Sequence[tuple[Batch, Tensor]]) -> list[tuple[str, Tensor]]:
        """Play without a word of the parts: who times them waits for the device, which a recording cannot."""
        before, self.span = self.span, _unobserved
        try:
            return self.play(acts, draws)
        finally:
            self.span = before

    @property
    def replays(self) -> bool:
        """Are rounds replayed from recordings, whose phases nobody can time one by one?"""
        return isinstance(self._rounds, RecordedRounds)

    @contextmanager
    def played(self) -> Iterator[None]:
        """Play what is a recorded round otherwise, with a word of its parts."""
        before, self._rounds = self._rounds, self.play
        try:
            yield
        finally:
            self._rounds = before

    @property
    def progress(self) -> Progress:
        """Where the training stands."""
        return self.plan.at(self.samples, self.rounds)[0]

    def announce(self) -> Progress:
        """Tell everything that changes with time where the training stands."""
        progress = self.progress
        for change in self.changes:
            change.follow(progress.share)
        for module in self._staged:
            module.on_progress(progress)
        return progress

    def fit(self, watcher: Watcher) -> None:
        """Play until all samples are seen or the watcher says stop; RunFailed at the first term that is not finite."""
        plan, first = self.plan, True
        with torch.random.fork_rng(devices=None if self.device.device.type == "cuda" else []):
            while self.samples < plan.total and not watcher.stop():
                before = self.samples
                self.round()
                over = self.samples >= plan.total
                saving = over or _due(plan.checkpoint, before, self.samples)
                if first or saving or _due(plan.log, before, self.samples):
                    watcher.report(self.report())
                if over or _due(plan.grid, before, self.samples):
                    watcher.grid(self)
                if saving:
                    watcher.checkpoint(self)
                first = False

    def round(self) -> None:
        """Let every turn of one round be played; all of its randomness follows from the seed and the round's number."""
        world = self.device.world
        torch.manual_seed(seed_of(self.plan.seed, "round", self.rounds, *([] if world.leads else [world.rank])))
        start, size, turns = self.plan.at(self.samples, self.rounds)
        self._share = start.share
        self.announce()
        acts = self._acts(turns, self.plan.pieces(start.stage, size // world.size))
        for player in {act.player.name: act.player for act in acts}.values():
            player.pace(start.share)
        with self.span("data"):
            draws = [self._draw(number, size, start.size) for number, act in enumerate(acts) if not act.answers]
        self.terms += self._rounds(acts, draws)
        self.rounds += 1
        progress = self.progress
        with self.span("after"):
            world.average(self._buffers)
            self.game.after_round(self.nets, progress)
            decay = decay_of(self.plan.ema, start, progress)
            for average in self.averages.values():
                average.update(decay)

    def _acts(self, turns: Sequence[str], pieces: int) -> list[Act]:
        """Return what the turns of a round amount to, and count them: who answers whom, and which lazy phases are due."""
        acts: list[Act] = []
        players = [self.players[name] for name in turns]
        for number, player in enumerate(players):
            # a generator's turn after a discriminator's is about the same samples and latents
            answers = number > 0 and player.side == "generator" and players[number - 1].side == "discriminator"
            after = players[number + 1] if number + 1 < len(players) else None
            answered = after is not None and after.side == "generator" and player.side == "discriminator"
            keep = self.game.shared and answered and pieces == 1
            acts.append(Act(player, player.due(player.turns), answers, after if keep else None, pieces))
            player.turns += 1
        return acts

    def _draw(self, turn: int, size: int, pixels: int | None) -> tuple[Batch, Tensor]:
        """Return real samples and latents of one turn, this process's part of them."""
        world, own = self.device.world, size // self.device.world.size
        batch = self.feed.batch(self.samples + world.rank * own, own, pixels)
        self.samples += size
        plan = self.plan
        z = latents(size, plan.latent, plan.prior, plan.seed, "z", self.rounds, turn)
        return batch, world.share(z).to(self.device.device)

    def play(self, acts: Sequence[Act], draws: Sequence[tuple[Batch, Tensor]]) -> list[tuple[str, Tensor]]:
        """Do a round's work on the device and return its terms; nothing here waits, or depends on what was computed."""
        self._played: list[tuple[str, Tensor]] = []
        kept: list[Scene] = []
        ahead = iter(draws)
        for act in acts:
            if not act.answers:
                batch, z = next(ahead)
            kept = self._turn(act, batch, z, kept if act.answers else [])
        return self._played

    def _turn(self, act: Act, batch: Batch, z: Tensor, kept: list[Scene]) -> list[Scene]:
        """Play a player's phases; return the scenes that the following player may answer, with their graphs."""
        player, scenes = act.player, kept
        for phase in act.phases:
            if not phase.main and (player.side == "generator" or _attached(scenes)):
                scenes = []  # the graph is spent and the networks have moved
            with self.span(player.name if phase.main else f"{player.name}/{phase.rules[0].name}"):
                scenes = self._phase(act, phase, batch, z, scenes)
        return scenes if act.following is not None else []

    def _phase(self, act: Act, phase: Phase, batch: Batch, z: Tensor, scenes: list[Scene]) -> list[Scene]:
        """Accumulate the gradients of one phase over the batch's pieces, and step."""
        player, following, played, logits = act.player, act.following, [], []
        player.optimizer.zero_grad(set_to_none=True)
        for number, (part, part_z) in enumerate(_pieces(batch, z, act.pieces)):
            with self.device.training():
                if number < len(scenes):
                    scene = scenes[number]
                else:
                    self._unfreeze(player, following)
                    scene = self.game.play(self.nets, part, part_z, (following or player).name)
                self._unfreeze(player)
                cost, seen = self._cost(player, phase, scene, own=following is None)
            if cost is not None:
                torch.autograd.backward(cost / act.pieces)
            elif phase.main:
                raise PluginError(f"the game gives player {player.name!r} nothing to pay in its turn; give it a duel")
            played.append(scene)
            logits.append(seen)
        self._agree(player)
        player.optimizer.step()
        self._after_step(player)
        if phase.main and player.side == "discriminator":
            self._observe(player, played[0], logits)
        return played if player.side == "discriminator" else []

    def _agree(self, player: Player) -> None:
        """Average the gradients over the processes of a launch; one that is not finite moves nobody, and a term tells."""
        gradients = [entry.grad for entry in player.parameters if entry.grad is not None]
        mean = self.device.world.average(gradients, finite=True)
        if mean is not None:
            self._log(f"{player.name}/gradient", mean.norm())

    def name(self, duel: Duel) -> str:
        """Return which network a duel's discriminator is."""
        return self._names[id(duel.discriminator)]

    def _cost(
        self, player: Player, phase: Phase, scene: Scene, *, own: bool
    ) -> tuple[Tensor | None, list[tuple[Tensor, Tensor]]]:
        """Return what the acting player pays in this phase, and the logits of a discriminator's main phase.

        `own`: was the scene played for this player? Else its extra losses are those of who answers.
        """
        mine = [duel for duel in scene.duels if player.side == "generator" or self.name(duel) in player.nets]
        shown = [Shown.of(name := self.name(duel), duel, player.side, self._met[name]) for duel in mine]
        weights = [value_at(rule.weight, self._share) * phase.every for rule in phase.rules]
        found = self._bill(player, phase, self.losses, weights, shown)
        self._played += found.terms
        paid = [*found.paid]
        for term, extra in scene.extra_losses.items() if phase.main and own else ():
            if player.side == "generator" or extra.requires_grad:  # what leads to no parameter of D's is not D's to pay
                self._log(f"{player.name}/{term}", extra)
                paid.append(extra)
        return total(paid), found.logits

    def _observe(self, player: Player, scene: Scene, logits: list[list[tuple[Tensor, Tensor]]]) -> None:
        """Show the whole batch's logits to what keeps statistics of them."""
        names = [self.name(duel) for duel in scene.duels if self.name(duel) in player.nets]
        for position, name in enumerate(names):
            real, fake = (
                self.device.world.gather(torch.cat([piece[position][side] for piece in logits])) for side in (0, 1)
            )
            self._log(f"{player.name}/real", real.mean())
            self._log(f"{player.name}/fake", fake.mean())
            self.losses[name].observe(real, fake)
            for rule in self.rules:
                if rule.discriminator == name:
                    rule.regularizer.observe(real, fake)

    def _after_step(self, player: Player) -> None:
        for rule in self.rules:
            if rule.concerns(player.side):
                owned = [rule.discriminator] if player.side == "discriminator" else list(player.nets) * rule.leads
                nets = [player.nets[name] for name in owned if name in player.nets]
                if nets:
                    rule.regularizer.after_step(nets)

    def _unfreeze(self, *players: Player | None) -> None:
        """Only the acting player's parameters require grad, and while a scene is played also the following player's."""
        acting = {id(parameter) for player in players if player is not None for parameter in player.parameters}
        for player in self.players.values():
            for parameter in player.parameters:
                parameter.requires_grad_(id(parameter) in acting)

    def _log(self, term: str, value: Tensor) -> None:
        self._played.append((term, value.detach()))

    def _read(self, terms: Sequence[Tensor]) -> list[float]:
        """Wait for the terms; each is the mean over the processes of a launch."""
        if not terms:
            return []
        world = self.device.world
        read: list[float] = (world.sum(torch.stack([term.float() for term in terms])) / world.size).tolist()
        return read

    def report(self) -> Report:
        """Return the means since the last report; RunFailed names the first term that was not finite."""
        terms, self.terms = self.terms, []
        values = self._read([value for _, value in terms])
        sums: dict[str, list[float]] = {}
        for (term, _), value in zip(terms, values, strict=True):
            if not math.isfinite(value):
                raise RunFailed(
                    f"term {term!r} became {value} at about {self.samples:,} samples, before any other; "
                    "lower the learning rate, raise the penalty or use --set train.precision=fp32"
                )
            sums.setdefault(term, []).append(value)
        return Report(self.progress, {term: sum(entries) / len(entries) for term, entries in sums.items()})


def _unobserved(name: str) -> AbstractContextManager[None]:
    """The context of a round's part that nobody times."""
    return nullcontext()


def _compiled(changes: Sequence[Change]) -> CompiledBill:
    """Import the compiler only where it is asked for: it takes as long as torch itself."""
    from .compilation import CompiledBill

    return CompiledBill(changes)


def _attached(scenes: Sequence[Scene]) -> bool:
    return any(duel.attached for scene in scenes for duel in scene.duels)


def _due(every: int, before: int, now: int) -> bool:
    return before // every != now // every


def _pieces(batch: Batch, z: Tensor, count: int) -> Iterator[tuple[Batch, Tensor]]:
    size = len(batch) // count
    for start in range(0, size * count, size):
        yield batch.part(start, start + size), z[start : start + size]
