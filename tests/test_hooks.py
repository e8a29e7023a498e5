"""What regularizers and games may say before a training begins: what D is built for, what a game keeps and looks at."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from ganzoo import checkpoint
from ganzoo.api import PluginError, Regularizer
from ganzoo.game import TwoPlayer
from ganzoo.layers.features import feature_width
from ganzoo.testing.tiny import TinyArchitecture, tiny_data, tiny_trainer


class Twice(Regularizer):
    """Shows D every sample beside itself."""

    def shown(self, spec):
        self.classes = spec.classes
        return replace(spec, shape=(2 * spec.shape[0], *spec.shape[1:]))

    def view(self, x):
        return torch.cat([x, x], 1)


def test_a_regularizer_says_what_d_is_built_for_and_g_is_not():
    trainer = tiny_trainer(regularizers={"twice": Twice}, data=tiny_data(channels=3, classes=5))
    assert trainer.nets["D"].conv.in_channels == 6
    assert trainer.nets["G"].shape == (3, 16, 16)
    assert trainer.rules[0].regularizer.classes == 5
    trainer.round()
    assert all(torch.isfinite(torch.tensor(list(trainer.report().terms.values()))))


class Keeps(TwoPlayer):
    """Has three classes of its own, a copy of D and a look at the data."""

    def spec(self, spec):
        return replace(spec, classes=3, latent=spec.latent - 1)

    def prepare(self, nets, look):
        self.copy = copy.deepcopy(nets["D"]).requires_grad_(False)
        self.register_buffer("drift", torch.zeros(2))
        self.seen = look(12) if look else None
        self.again = look(12) if look else None

    def play(self, nets, batch, z, acting):
        batch.cond["label"] = torch.arange(len(batch)) % 3
        return super().play(nets, batch, z[:, 1:], acting)


class Learning(TinyArchitecture):
    pass


def test_a_game_says_what_networks_are_built_for_and_looks_at_the_same_samples():
    trainer = tiny_trainer(game=Keeps, architecture=Learning)
    game = trainer.game
    assert trainer.nets["G"].embed.num_embeddings == 3
    assert trainer.nets["G"].body[0].in_features == 7
    assert game.seen.real.shape == (12, 1, 16, 16)
    assert game.seen.real.min() >= -1
    assert torch.equal(game.seen.real, game.again.real)
    state = checkpoint.state_of(trainer)[0]
    assert "game/drift" in state
    assert any(key.startswith("game/copy.") for key in state)
    trainer.round()
    kept = dict(game.copy.named_parameters())
    assert any(not torch.equal(p, kept[name]) for name, p in trainer.nets["D"].named_parameters())  # the copy stays


def test_who_builds_a_head_is_told_where_there_are_no_features():
    net = nn.Linear(2, 1)
    with pytest.raises(PluginError, match="'head' needs a discriminator with features, and Linear"):
        feature_width(net, "regularizer 'head'")
    net.feature_width = 7
    assert feature_width(net, "regularizer 'head'") == 7
