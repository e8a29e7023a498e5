"""The loop: who moves, what is shared, what a phase is, and that every result is a function of seed and samples seen."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from ganzoo_plugins.losses.non_saturating import NonSaturating
from ganzoo_plugins.losses.relativistic import Relativistic
from ganzoo_plugins.losses.wasserstein import Wasserstein
from ganzoo_plugins.regularizers.r1 import R1

from ganzoo import checkpoint
from ganzoo.api import Loss, Progress, Regularizer
from ganzoo.errors import RecipeError, RunFailed
from ganzoo.testing.tiny import Onlooker
from ganzoo.trainer import Trainer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in checkpoint.state_of(trainer)[0].items()}


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert torch.equal(value, two[key]), key


def test_two_runs_of_one_seed_are_equal_and_of_two_seeds_differ(make):
    runs = []
    for seed in (3, 3, 4):
        trainer = make(loss=NonSaturating, raw={"train": {"seed": seed}})
        trainer.fit(Onlooker())
        runs.append(weights(trainer))
    assert_equal(runs[0], runs[1])
    assert not torch.equal(runs[0]["net/G/body.0.weight"], runs[2]["net/G/body.0.weight"])


@pytest.mark.parametrize("stop", range(1, 8))
def test_resume_at_every_round_is_bit_exact(make, stop):
    raw = {"train": {"turns": ["D", "D", "G"], "samples": 112}, "regularizer": {"r1": {"every": 3}}}
    build = lambda: make(loss=NonSaturating, regularizers={"r1": R1}, raw=raw)  # noqa: E731
    whole, first, second = build(), build(), build()
    whole.fit(Onlooker())
    first.fit(Onlooker(rounds=stop))
    checkpoint.restore(second, *checkpoint.state_of(first))
    second.fit(Onlooker())
    assert second.samples == whole.samples == 112
    assert_equal(weights(whole), weights(second))


def test_samples_seen_count_discriminator_turns(make):
    trainer = make(loss=Wasserstein, raw={"train": {"turns": ["D"] * 5 + ["G"]}})
    trainer.round()
    assert trainer.samples == 5 * 8
    assert trainer.rounds == 1


def test_only_the_acting_player_moves(make):
    trainer = make(loss=NonSaturating, raw={"train": {"turns": ["D"]}})
    before = weights(trainer)
    trainer.round()
    after = weights(trainer)
    moved = {key for key in before if key.startswith("net/") and not torch.equal(before[key], after[key])}
    assert moved == {key for key in before if key.startswith("net/D")}


def test_nothing_else_requires_grad_in_a_turn(make):
    seen = {}

    class Spy(Regularizer):
        side = "both"

        def penalty(self, duel):
            nets = {"D": duel.discriminator, "G": trainer.nets["G"]}
            seen[duel.acting] = {name: any(p.requires_grad for p in net.parameters()) for name, net in nets.items()}
            return None

    trainer = make(loss=NonSaturating, regularizers={"spy": Spy}, raw={"train": {"turns": ["D", "D", "G"]}})
    trainer.round()
    assert seen == {"discriminator": {"D": True, "G": False}, "generator": {"D": False, "G": True}}


def test_the_generator_answers_with_the_fakes_of_the_last_discriminator_turn(make):
    fakes = {"discriminator": [], "generator": []}

    class Spy(Regularizer):
        side = "both"

        def penalty(self, duel):
            fakes[duel.acting].append((duel.fake.detach().clone(), duel.fake.requires_grad))
            return None

    trainer = make(loss=NonSaturating, regularizers={"spy": Spy}, raw={"train": {"turns": ["D", "D", "G"]}})
    calls = count_calls(trainer.nets["G"])
    trainer.round()
    assert torch.equal(fakes["discriminator"][1][0], fakes["generator"][0][0])
    assert not torch.equal(fakes["discriminator"][0][0], fakes["discriminator"][1][0])
    assert [grad for _, grad in fakes["discriminator"]] == [False, False]
    assert fakes["generator"][0][1]
    assert len(calls) == 2  # three turns, two batches of fakes


def count_calls(net: torch.nn.Module) -> list[None]:
    calls: list[None] = []
    net.register_forward_hook(lambda *_: calls.append(None))
    return calls


def test_penalties_on_the_shown_samples_cost_no_forward_of_their_own(make):
    trainer = make(loss=NonSaturating, regularizers={"r1": R1}, raw={"train": {"turns": ["D"]}})
    calls = count_calls(trainer.nets["D"])
    trainer.round()
    assert len(calls) == 2


@pytest.mark.parametrize("regularizers", [{}, {"r1": R1}])
@pytest.mark.parametrize("loss", [NonSaturating, Wasserstein, Relativistic])
def test_accumulation_gives_the_gradients_of_the_whole_batch(make, loss, regularizers):
    results = []
    for pieces in (1, 4):
        raw = {"train": {"accumulate": pieces, "samples": 32}, "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}}
        trainer = make(loss=loss, regularizers=regularizers, raw=raw)
        trainer.fit(Onlooker())
        results.append(weights(trainer))
    for key, value in results[0].items():
        torch.testing.assert_close(value, results[1][key], rtol=1e-4, atol=1e-6, msg=key)


def test_lazy_regularizer_is_a_phase_of_its_own_with_gain(make):
    """With SGD and a frozen loss, the lazy phase's step must equal the analytic one: lr * every * weight * gradient."""

    class Nothing(Loss):
        def discriminator(self, real, fake):
            return 0 * (real.sum() + fake.sum())

        def generator(self, fake, real):
            return 0 * fake.sum()

    class Shrink(Regularizer):
        def penalty(self, duel):
            return duel.discriminator.head.bias.sum()

    raw = {
        "optimizer": {"name": "sgd", "lr": 0.01},
        "train": {"turns": ["D", "D", "D", "D", "G"]},
        "regularizer": {"shrink": {"every": 3, "weight": 0.5}},
    }
    trainer = make(loss=Nothing, regularizers={"shrink": Shrink}, raw=raw)
    before = trainer.nets["D"].head.bias.item()
    trainer.round()  # turns 0 and 3 of the discriminator
    assert trainer.nets["D"].head.bias.item() == pytest.approx(before - 2 * 0.01 * 3 * 0.5, abs=1e-6)


def test_state_is_observed_after_main_phases_with_the_whole_batch(make):
    class Counting(Loss):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def discriminator(self, real, fake):
            return fake.mean() - real.mean()

        def generator(self, fake, real):
            return -fake.mean()

        def observe(self, real, fake):
            assert not real.requires_grad
            assert not fake.requires_grad
            self.seen += len(real)

    trainer = make(loss=Counting, raw={"train": {"turns": ["D", "D", "G"], "accumulate": 2}})
    trainer.round()
    assert trainer.losses["D"].seen.item() == 16


def test_parameters_of_a_regularizer_are_trained_with_its_discriminator(make):
    class Learned(Regularizer):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def penalty(self, duel):
            return (self.scale - 3).square()

    trainer = make(loss=NonSaturating, regularizers={"learned": Learned})
    trainer.round()
    assert trainer.rules[0].regularizer.scale.item() != 1.0


def test_views_are_shown_to_the_discriminator_on_both_sides(make):
    class Zero(Regularizer):
        def view(self, x):
            return x * 0

    trainer = make(loss=NonSaturating, regularizers={"zero": Zero})
    shown = []
    trainer.nets["D"].register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0].abs().max().item()))
    trainer.round()
    assert shown == [0.0, 0.0, 0.0]


def test_generator_average_follows_the_network(make):
    trainer = make(loss=NonSaturating, raw={"train": {"ema": 0.5}})
    start = copy.deepcopy(trainer.nets["G"].state_dict())
    trainer.round()
    moved = trainer.nets["G"].state_dict()
    decay = min(0.5, (1 + 1) / (10 + 1))
    for key, value in trainer.averages["G"].net.state_dict().items():
        torch.testing.assert_close(value, start[key] * decay + moved[key] * (1 - decay))
    assert "D" not in trainer.averages


def test_schedules_follow_samples_seen(make):
    raw = {"optimizer": {"lr": {"from": 1e-3, "to": 0.0, "shape": "linear"}}, "train": {"samples": 32}}
    trainer = make(loss=NonSaturating, raw=raw)
    rates = []
    for _ in range(4):
        trainer.round()
        rates.append(trainer.players["D"].optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3 * share for share in (1.0, 0.75, 0.5, 0.25)], rel=1e-6)
    assert rates == sorted(rates, reverse=True)


def test_stages_are_a_function_of_samples_seen(make):
    raw = {"stages": [{"samples": 16, "size": 8, "batch": 4}, {"samples": 32, "turns": ["D", "D", "G"]}]}
    told: list[Progress] = []

    class Told(Regularizer):
        def on_progress(self, progress):
            told.append(progress)

    trainer = make(loss=NonSaturating, regularizers={"told": Told}, raw=raw)
    trainer.fit(Onlooker())
    assert [(p.samples, p.stage, p.size) for p in told] == [
        (0, 0, 8), (4, 0, 8), (8, 0, 8), (12, 0, 8), (16, 1, None), (32, 1, None),
    ]  # fmt: skip
    assert trainer.samples == 48


def test_a_term_that_is_not_finite_stops_the_run_and_is_named(make):
    class Breaks(Regularizer):
        def __init__(self) -> None:
            super().__init__()
            self.turns = 0

        def penalty(self, duel):
            self.turns += 1
            return duel.output("real").logits.sum() * (math.nan if self.turns == 3 else 0.0)

    watcher = Onlooker()
    trainer = make(loss=NonSaturating, regularizers={"breaks": Breaks}, raw={"train": {"log": 8, "checkpoint": 8}})
    with pytest.raises(RunFailed, match="'D/breaks' became nan"):
        trainer.fit(watcher)
    assert watcher.saved == [8, 16]


def test_the_callers_random_numbers_are_left_alone(make):
    trainer = make(loss=NonSaturating)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer.fit(Onlooker())
    assert torch.equal(torch.rand(3), expected)


def test_a_turn_of_nobody_is_refused(make):
    with pytest.raises(RecipeError, match="'E' in turns is no player of the game"):
        make(loss=NonSaturating, raw={"train": {"turns": ["D", "E"]}})


def test_conditional_games_pass_labels_to_both_sides(make):
    trainer = make(loss=NonSaturating, labels=True)
    before = weights(trainer)
    trainer.round()
    after = weights(trainer)
    assert not torch.equal(before["net/G/embed.weight"], after["net/G/embed.weight"])
    assert not torch.equal(before["net/D/embed.weight"], after["net/D/embed.weight"])


def test_bf16_trains_and_keeps_fp32_weights(make):
    trainer = make(loss=NonSaturating, regularizers={"r1": R1}, raw={"train": {"precision": "bf16"}})
    trainer.fit(Onlooker())
    assert {value.dtype for key, value in weights(trainer).items() if key.startswith("net/")} == {torch.float32}
    assert all(math.isfinite(value) for value in trainer.report().terms.values())
