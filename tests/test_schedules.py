"""Options that follow a schedule: of plugins and of optimizers, from the recipe to the attribute that a round reads."""

from __future__ import annotations

import math
import tomllib

import pytest
import torch
from ganzoo_plugins.losses.non_saturating import NonSaturating
from ganzoo_plugins.regularizers.r1 import R1
from torch import nn

from ganzoo import checkpoint, jobs
from ganzoo.api import Loss, Regularizer
from ganzoo.config import Draft, difference
from ganzoo.device import Device
from ganzoo.errors import PluginError, RecipeError
from ganzoo.game import TwoPlayer
from ganzoo.registry import registry
from ganzoo.sampling import load
from ganzoo.testing.tiny import Onlooker, TinyArchitecture, tiny_trainer
from ganzoo.watch import Silent
from ganzoo.zoo import Request, resolve

CPU = torch.device("cpu")
GAMMA = {"from": 8.0, "to": 0.0, "shape": "cosine"}
BETAS = [0.0, {"from": 0.9, "to": 0.99, "shape": "cosine"}]


def scheduled(option="gamma", table=GAMMA, regularizer=R1, **more):
    raw = {"regularizer": {"it": {option: table}}, **more}
    return tiny_trainer(loss=NonSaturating, regularizers={"it": regularizer}, raw=raw)


def test_an_option_of_a_regularizer_has_its_closed_form_in_every_round():
    trainer = scheduled(train={"samples": 32})
    (rule,) = trainer.rules
    seen = []
    for _ in range(4):
        trainer.round()
        seen.append(rule.regularizer.gamma)
    # cosine from 8 to 0 at the shares 0, 1/4, 1/2 and 3/4 of the run: the start of each round
    assert seen == pytest.approx([4 * (1 + math.cos(math.pi * share)) for share in (0, 0.25, 0.5, 0.75)])


def test_the_penalty_that_is_paid_follows():
    """R1 is gamma / 2 times something: where gamma is halved, so is what a first round pays."""
    paid = []
    for gamma in (8.0, {"from": 4.0, "to": 0.0}):
        trainer = scheduled(table=gamma, train={"turns": ["D"]})
        trainer.round()
        paid.append(trainer.report().terms["D/it"])
    assert paid[1] == pytest.approx(paid[0] / 2)


class Margin(Loss):
    """A hinge with a margin that changes."""

    def __init__(self, *, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def discriminator(self, real, fake):
        return (self.margin - real).relu().mean() + (self.margin + fake).relu().mean()

    def generator(self, fake, real):
        return -fake.mean()


class Scaled(TwoPlayer):
    """Two players with a number that changes."""

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale


def test_losses_and_games_change_too():
    raw = {"loss": {"margin": {"from": 2.0, "to": 0.0}}, "game": {"scale": {"from": 0.0, "to": 4.0, "end": 0.5}}}
    trainer = tiny_trainer(loss=Margin, game=Scaled, raw={**raw, "train": {"samples": 32}})
    seen = []
    for _ in range(4):
        trainer.round()
        seen.append((trainer.losses["D"].margin, trainer.game.scale))
    assert seen == [(2.0, 0.0), (1.5, 2.0), (1.0, 4.0), (0.5, 4.0)]


class Probability(Regularizer):
    """Keeps its number in a buffer, as what controls it during the training does."""

    def __init__(self, *, p: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("p", torch.tensor(p))


def test_a_buffer_of_the_option_s_name_changes_in_place():
    trainer = scheduled("p", {"from": 0.0, "to": 0.5}, Probability, train={"samples": 32})
    (rule,) = trainer.rules
    place = rule.regularizer.p.data_ptr()
    trainer.round()
    trainer.round()
    assert rule.regularizer.p.data_ptr() == place
    assert rule.regularizer.p == 0.125


class Elsewhere(Regularizer):
    """Takes a number and keeps only what follows from it."""

    def __init__(self, *, gamma: float = 1.0) -> None:
        super().__init__()
        self.halved = gamma / 2


class Derives(Regularizer):
    """Keeps a number, and what followed from its first value."""

    def __init__(self, *, gamma: float = 1.0) -> None:
        super().__init__()
        self.gamma = gamma
        self.halved = gamma / 2


class DerivesBuffer(Regularizer):
    """The same in a buffer."""

    def __init__(self, *, gamma: float = 1.0) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("halved", torch.tensor(gamma / 2))


class Others(Regularizer):
    """Options of other types."""

    def __init__(self, *, layers: int = 1, mode: str = "a", table: dict[str, float] | None = None) -> None:
        super().__init__()
        self.layers, self.mode, self.table = layers, mode, table


@pytest.mark.parametrize(
    ("regularizer", "option", "table", "message"),
    [
        (Others, "layers", GAMMA, "'layers' of regularizer 'it' must be a whole number, which no schedule gives"),
        (Others, "mode", GAMMA, "option 'mode' of regularizer 'it' must be text, which no schedule gives"),
        (Elsewhere, "gamma", GAMMA, "'gamma' of regularizer 'it' cannot follow a schedule, because Elsewhere"),
        (Derives, "gamma", GAMMA, "because Derives derives 'halved' from it once; give it a single value"),
        (DerivesBuffer, "gamma", GAMMA, "because DerivesBuffer derives 'halved' from it once"),
        (R1, "gamma", {"from": 1.0}, "schedule 'regularizer.it.gamma' needs both a 'from' and a 'to'"),
        (R1, "gamma", {**GAMMA, "shape": "ramp"}, "must be one of 'linear', 'cosine', not 'ramp'"),
    ],
)
def test_what_cannot_change_is_refused(regularizer, option, table, message):
    with pytest.raises(RecipeError, match=message):
        scheduled(option, table, regularizer)


def test_an_unknown_option_is_told_as_ever():
    with pytest.raises(PluginError, match="'it' has no option 'gama'; did you mean 'gamma'"):
        scheduled("gama")


def test_the_last_value_must_do_as_well():
    class Positive(Regularizer):
        """Takes positive numbers only."""

        def __init__(self, *, limit: float = 1.0) -> None:
            super().__init__()
            self.limit = limit
            if limit <= 0:
                raise PluginError(f"'limit' must be positive, not {limit}")

    with pytest.raises(PluginError, match=r"'limit' must be positive, not -1\.0"):
        scheduled("limit", {"from": 1.0, "to": -1.0}, Positive)


def test_a_table_that_an_option_asks_for_stays_a_table():
    trainer = scheduled("table", {"from": 1.0, "to": 2.0}, Others)
    assert trainer.rules[0].regularizer.table == {"from": 1.0, "to": 2.0}
    assert trainer.changes == ()


def test_a_schedule_draws_no_random_number():
    """The plugin is built once more to see whether it takes the last value; nothing else may notice."""

    class Draws(R1):
        def __init__(self, *, gamma: float = 1.0) -> None:
            super().__init__(gamma=gamma)
            self.register_buffer("noise", torch.randn(3))

    plain, moving = (scheduled(table=table, regularizer=Draws) for table in (8.0, {"from": 8.0, "to": 8.0}))
    one, two = (checkpoint.state_of(trainer)[0] for trainer in (plain, moving))
    assert all(torch.equal(value, two[key]) for key, value in one.items())


# optimizers -----------------------------------------------------------------------------------------------------------


def test_one_of_adam_s_betas_has_its_closed_form_in_every_round():
    trainer = scheduled(train={"samples": 32}, optimizer={"betas": BETAS})
    seen = []
    for _ in range(4):
        trainer.round()
        seen.append({player.optimizer.param_groups[0]["betas"] for player in trainer.players.values()})
    expected = [0.9 + 0.09 * (1 - math.cos(math.pi * share)) / 2 for share in (0, 0.25, 0.5, 0.75)]
    assert all(len(both) == 1 for both in seen)
    assert [betas for both in seen for betas in both] == [(0.0, pytest.approx(second)) for second in expected]


def test_adam_steps_with_the_beta_of_the_round():
    """Three steps by hand, with second moments that forget at another rate each time."""
    trainer = tiny_trainer(
        loss=NonSaturating,
        raw={"train": {"turns": ["D"], "samples": 32}, "optimizer": {"lr": 0.01, "betas": [0.0, {"from": 0.5, "to": 0.9}]}},
    )
    weight, second = trainer.nets["D"].head.weight, 0.0
    for step in range(1, 4):
        before = weight.detach().clone()
        trainer.round()
        beta = 0.5 + 0.4 * (step - 1) / 4
        second = beta * second + (1 - beta) * weight.grad.square()
        expected = before - 0.01 * weight.grad / ((second / (1 - beta**step)).sqrt() + 1e-8)
        torch.testing.assert_close(weight.detach(), expected)


def test_one_player_alone_may_have_a_schedule():
    trainer = scheduled(train={"samples": 32}, optimizer={"D": {"weight_decay": {"from": 0.0, "to": 0.4}}})
    for _ in range(2):
        trainer.round()
    decays = {name: player.optimizer.param_groups[0]["weight_decay"] for name, player in trainer.players.items()}
    assert decays == {"D": pytest.approx(0.1), "G": 0.0}


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"betas": [0.0, {"from": 0.9, "to": 1.5}]}, "optimizer 'adam': Invalid beta"),
        ({"lr": {"from": 1e-3, "to": -1e-3}}, "optimizer 'adam': Invalid learning rate"),
        ({"betas": {"from": 0.9, "to": 0.99}}, "'betas' must be a list of 2 numbers"),
        ({"betas": [0.0, {"from": 0.9}]}, r"schedule 'optimizer.betas\[1\]' needs both"),
        ({"beta": [0.0, {"from": 0.9, "to": 0.99}]}, "has no option 'beta'; did you mean 'betas'"),
    ],
)
def test_schedules_that_an_optimizer_would_not_take(optimizer, message):
    with pytest.raises(RecipeError, match=message):
        scheduled(optimizer=optimizer)


# from the recipe and back ---------------------------------------------------------------------------------------------

RAW = {
    "data": {"name": "d"},
    "architecture": {"name": "a"},
    "loss": {"name": "l"},
    "regularizer": [{"name": "r1", "gamma": GAMMA}],
    "optimizer": {"name": "adam", "lr": 1e-3, "betas": BETAS},
    "train": {"ema": {"half_life": {"from": 0, "to": 5000}, "ramp": 0.05}},
    "presets": {"other": {"regularizer": {"r1": {"gamma": 1.0}}, "optimizer": {"betas": [0.5, 0.9]}}},
}


def test_schedules_survive_the_run_folder():
    recipe = Draft("it", RAW, "test").finish()
    again = tomllib.loads(recipe.toml())
    assert again["regularizer"] == [{"name": "r1", "gamma": GAMMA}]
    assert again["optimizer"]["betas"] == BETAS
    assert difference(again, {"name": "it", **recipe.raw}) == []
    other = Draft("it", again, "test").finish()
    assert (other.optimizer, other.regularizers, other.train) == (recipe.optimizer, recipe.regularizers, recipe.train)


def test_schedules_are_set_and_replaced():
    draft = Draft("it", RAW, "test")
    draft.set("regularizer.r1.gamma.to", 2.0, "--set")
    assert draft.finish().regularizers[0].options["gamma"] == {**GAMMA, "to": 2.0}
    draft.set("optimizer.betas", [{"from": 0.5, "to": 0.0}, 0.9], "--set")
    assert draft.finish().raw["optimizer"]["betas"] == [{"from": 0.5, "to": 0.0}, 0.9]
    draft.preset("other")
    assert draft.finish().regularizers[0].options["gamma"] == 1.0
    assert draft.origin["regularizer.r1.gamma"] == "preset other"


SETS = (
    "regularizer.r1.gamma={ from = 8.0, to = 0.5, shape = 'cosine' }",
    "optimizer.betas=[0.0, { from = 0.9, to = 0.99 }]",
    "train.ema={ half_life = { from = 0, to = 200 }, ramp = 0.5 }",
    *("architecture.width=2", "data.size=16", "train.batch=8", "train.samples=96", "train.precision=fp32"),
    "train.checkpoint=48",
)


def run(place):
    recipe = resolve("dcgan", Request(regularizers=("r1",), sets=SETS), registry())
    return jobs.run_recipe(recipe, registry(), place, "cpu", reporter=Silent())


def test_a_run_with_schedules_goes_on_to_the_same_bits(tmp_path):
    """From the command's words through the run folder: what a stop at half-time leaves is what one run makes."""
    run(tmp_path / "whole")
    run(tmp_path / "halves")
    folder = jobs.RunFolder(tmp_path / "halves")
    last, half = folder.checkpoints()
    last.unlink()
    assert half == folder.checkpoint_path(48)
    run(tmp_path / "halves")
    assert last.read_bytes() == jobs.RunFolder(tmp_path / "whole").checkpoints()[0].read_bytes()
    assert load(tmp_path / "whole", "cpu").sample(2).shape == (2, 1, 16, 16)


def test_resume_at_every_round_is_bit_exact():
    more = {"train": {"samples": 48, "ema": {"half_life": 40, "ramp": 0.5}}, "optimizer": {"betas": BETAS}}
    whole = scheduled(**more)
    whole.fit(Onlooker())
    for stop in range(1, 6):
        first, second = scheduled(**more), scheduled(**more)
        first.fit(Onlooker(rounds=stop))
        checkpoint.restore(second, *checkpoint.state_of(first))
        second.fit(Onlooker())
        one, two = (checkpoint.state_of(trainer)[0] for trainer in (whole, second))
        assert all(torch.equal(value, two[key]) for key, value in one.items()), stop


# compiled and recorded ------------------------------------------------------------------------------------------------


class Still(nn.Module):
    """A tiny generator that does not change with time."""

    def __init__(self, spec) -> None:
        super().__init__()
        self.body = nn.Linear(spec.latent, 256)

    def forward(self, z):
        return self.body(z).tanh().view(-1, 1, 16, 16)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"regularizer": {"it": {"gamma": GAMMA}}}, "option 'gamma' of regularizer 'it' changes with time"),
        ({"optimizer": {"betas": BETAS}}, "the optimizer's 'betas' of player 'D' changes with time"),
    ],
)
def test_rounds_whose_numbers_change_are_not_recorded(raw, reason, still):
    trainer = tiny_trainer(architecture=still, regularizers={"it": R1}, raw=raw, device=Device(CPU, records=True))
    assert trainer.notes() == [f"rounds are not recorded but played as ever: {reason}"]


@pytest.fixture
def still():
    class Architecture(TinyArchitecture):
        def generator(self, spec):
            return Still(spec)

    return Architecture


@pytest.mark.filterwarnings("default")  # the compiler's own
def test_a_phase_whose_options_change_is_not_compiled(monkeypatch):
    from ganzoo import compilation

    monkeypatch.setattr(compilation.torch, "compile", lambda function, **options: function)
    raw = {"regularizer": {"it": {"gamma": GAMMA}}, "train": {"samples": 32}}
    pair = [
        tiny_trainer(loss=NonSaturating, regularizers={"it": R1}, raw=raw, device=Device(CPU, compiles=compiles))
        for compiles in (False, True)
    ]
    terms = []
    for trainer in pair:
        for _ in range(3):
            trainer.round()
        terms.append(trainer.report().terms)
    told = pair[1].notes()
    assert told[0] == (
        "what D pays is not compiled but computed as ever: option 'gamma' of regularizer 'it' changes with time"
    )
    assert [note.split(" in ")[0] for note in told[1:]] == ["compiled what G pays"]
    assert terms[0] == terms[1]
