"""The engine carries every kind of game without a branch: cycles, three players, turns without a duel, stages."""

from __future__ import annotations

import pytest
import torch
from ganzoo_plugins.losses.least_squares import LeastSquares
from ganzoo_plugins.losses.non_saturating import NonSaturating
from ganzoo_plugins.regularizers.r1 import R1
from torch.nn.functional import l1_loss, mse_loss

from ganzoo import checkpoint
from ganzoo.api import Game, Regularizer
from ganzoo.errors import PluginError
from ganzoo.game import Duel, Scene
from ganzoo.testing.tiny import Onlooker


class Cycle(Game):
    """Two translators and two discriminators; the batch's halves are the two domains, flipped left to right."""

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


class WithEncoder(Game):
    """Three players: an encoder learns to invert the generator in turns that have no duel."""

    roles = {"G": "generator", "D": "discriminator", "E": "encoder"}
    teams = {"D": ("D",), "G": ("G",), "E": ("E",)}

    def play(self, nets, batch, z, acting):
        fake = nets["G"](z)
        if acting == "E":
            return Scene([], {"inversion": mse_loss(nets["E"](fake.detach()), z)})
        return Scene([Duel(nets["D"], batch.real, fake)])


class Pretrain(Game):
    """A generator turn with extra losses only, before the duel's turns."""

    roles = {"G": "generator", "D": "discriminator"}
    teams = {"D": ("D",), "G": ("G",), "G0": ("G",)}

    def play(self, nets, batch, z, acting):
        fake = nets["G"](z)
        if acting == "G0":
            return Scene([], {"mean": (fake.mean(0) - batch.real.mean(0)).square().mean()})
        return Scene([Duel(nets["D"], batch.real, fake)])


def state(trainer):
    return {key: value.clone() for key, value in checkpoint.state_of(trainer)[0].items()}


def moved(before, after):
    return {key.split("/")[1] for key in before if key.startswith("net/") and not torch.equal(before[key], after[key])}


def resumes_bit_exactly(build):
    whole, first, second = build(), build(), build()
    whole.fit(Onlooker())
    first.fit(Onlooker(rounds=2))
    checkpoint.restore(second, *checkpoint.state_of(first))
    second.fit(Onlooker())
    one, two = state(whole), state(second)
    return all(torch.equal(one[key], two[key]) for key in one)


def test_cycle_game_with_a_penalty_on_both_duels(make):
    def build():
        return make(game=Cycle, loss=LeastSquares, regularizers={"r1": R1})

    trainer = build()
    before = state(trainer)
    trainer.round()
    assert moved(before, state(trainer)) == {"G_AB", "G_BA", "D_A", "D_B"}
    assert {rule.discriminator for rule in trainer.rules} == {"D_A", "D_B"}
    terms = trainer.report().terms
    assert {"D/r1", "D/loss", "G/loss", "G/cycle"} <= terms.keys()
    assert terms["D/r1"] > 0
    assert resumes_bit_exactly(build)


def test_cycle_game_learns_to_reconstruct(make):
    trainer = make(game=Cycle, loss=LeastSquares, raw={"train": {"samples": 8 * 120}, "optimizer": {"lr": 3e-3}})
    trainer.round()
    start = trainer.report().terms["G/cycle"]
    trainer.fit(Onlooker())
    trainer.terms.clear()
    trainer.round()
    assert trainer.report().terms["G/cycle"] < start / 2


def test_three_players_move_in_their_own_turns_only(make):
    for acting in ("D", "G", "E"):
        trainer = make(game=WithEncoder, loss=NonSaturating, raw={"train": {"turns": [acting]}})
        before = state(trainer)
        trainer.round()
        assert moved(before, state(trainer)) == {acting}
    raw = {"train": {"turns": ["D", "G", "E"]}}
    assert resumes_bit_exactly(lambda: make(game=WithEncoder, loss=NonSaturating, raw=raw))


def test_an_encoder_trained_later_in_a_stage_of_its_own(make):
    raw = {"stages": [{"samples": 16, "turns": ["D", "G"]}, {"samples": 16, "turns": ["E"]}]}
    trainer = make(game=WithEncoder, loss=NonSaturating, raw=raw)
    trainer.round()
    trainer.round()
    before = state(trainer)
    trainer.fit(Onlooker())
    assert moved(before, state(trainer)) == {"E"}


def test_turn_with_extra_losses_only(make):
    trainer = make(
        game=Pretrain, loss=NonSaturating, raw={"train": {"turns": ["G0"], "samples": 160}, "optimizer": {"lr": 1e-2}}
    )
    trainer.round()
    start = trainer.report().terms["G0/mean"]
    trainer.fit(Onlooker())
    trainer.terms.clear()
    trainer.round()
    assert trainer.report().terms["G0/mean"] < start / 2
    assert resumes_bit_exactly(lambda: make(game=Pretrain, loss=NonSaturating, raw={"train": {"turns": ["G0", "D", "G"]}}))


def test_one_of_several_instances_changes_the_generators(make):
    prepared, stepped = [], []

    class Both(Regularizer):
        side = "both"

        def prepare(self, net):
            prepared.append(type(net).__name__)

        def after_step(self, nets):
            stepped.append([type(net).__name__ for net in nets])

    make(game=Cycle, loss=LeastSquares, regularizers={"both": Both}).round()
    translators, discriminators = ["TinyTranslator"] * 2, ["TinyDiscriminator"]
    assert sorted(prepared) == sorted([*translators, *discriminators * 2])
    assert stepped == [discriminators, discriminators, translators]


def test_a_player_who_pays_nothing_is_named(make):
    class Idle(Pretrain):
        def play(self, nets, batch, z, acting):
            return Scene([])

    with pytest.raises(PluginError, match="gives player 'G0' nothing to pay"):
        make(game=Idle, loss=NonSaturating, raw={"train": {"turns": ["G0"]}}).round()


def test_two_stages_with_a_change_of_resolution(make):
    raw = {"stages": [{"samples": 16, "size": 8}, {"samples": 16, "size": 16}]}
    sizes = []

    class Spy(R1):
        def penalty(self, duel):
            sizes.append((duel.real.shape[-1], duel.fake.shape[-1]))
            return super().penalty(duel)

    def build():
        return make(loss=NonSaturating, regularizers={"spy": Spy}, raw=raw)

    build().fit(Onlooker())
    assert sizes == [(8, 8), (8, 8), (16, 16), (16, 16)]
    assert resumes_bit_exactly(build)
