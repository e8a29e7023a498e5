"""Averages by half-life in samples: the closed form of StyleGAN2-ADA's and R3GAN's averages, and what a recipe may say."""

from __future__ import annotations

import math

import pytest
import torch
from ganzoo_plugins.losses.non_saturating import NonSaturating

from ganzoo import checkpoint
from ganzoo.api import Progress
from ganzoo.config import Draft
from ganzoo.ema import decay_of
from ganzoo.errors import RecipeError
from ganzoo.recipe import HalfLife, Schedule
from ganzoo.testing.tiny import tiny_trainer


def at(samples: int, rounds: int, total: int = 1000) -> Progress:
    return Progress(samples, total, rounds, 0, samples / total, None)


def test_after_a_half_life_half_of_the_average_is_left():
    ema = HalfLife(half_life=640.0)
    left = math.prod(ema.decay(64, before, before / 1000) for before in range(0, 640, 64))
    assert left == pytest.approx(0.5)


def test_the_half_life_does_not_depend_on_the_batch():
    ema = HalfLife(half_life=500.0)
    once = ema.decay(100, 0, 0.0)
    assert once == pytest.approx(ema.decay(50, 0, 0.0) * ema.decay(50, 50, 0.05)) == pytest.approx(0.5**0.2)


def test_a_ramp_limits_the_half_life_to_a_share_of_the_samples_seen():
    """StyleGAN2-ADA: batch 64, half-life 500,000, ramp 0.05; at 1,000,000 images it is 50,000."""
    ema = HalfLife(half_life=500_000.0, ramp=0.05)
    assert ema.decay(64, 0, 0.0) == 0.0
    assert ema.decay(64, 1_000_000, 0.0) == pytest.approx(math.exp(-math.log(2) * 64 / 50_000))
    assert ema.decay(64, 10_000_000, 0.0) == ema.decay(64, 20_000_000, 0.0) == pytest.approx(0.5 ** (64 / 500_000))


def test_a_half_life_of_zero_is_a_copy_and_a_schedule_lengthens_it():
    """R3GAN: from 0 to 5,000,000 along a cosine."""
    ema = HalfLife(half_life=Schedule(start=0.0, stop=5_000_000.0, shape="cosine"))
    assert ema.decay(512, 0, 0.0) == 0.0
    assert ema.decay(512, 9, 0.5) == pytest.approx(0.5 ** (512 / 2_500_000))
    assert ema.decay(512, 9, 1.0) == pytest.approx(0.5 ** (512 / 5_000_000))


def test_a_decay_is_warmed_up_and_a_half_life_is_not():
    assert decay_of(0.999, at(0, 0), at(64, 1)) == pytest.approx(2 / 11)
    assert decay_of(0.1, at(0, 0), at(64, 1)) == 0.1
    assert decay_of(HalfLife(half_life=64.0), at(0, 0), at(64, 1)) == 0.5


def test_the_average_of_a_training_is_the_one_by_hand():
    """Five samples of D's turns a round count, G's answering turn does not."""
    raw = {"train": {"ema": {"half_life": 100, "ramp": 0.5}, "turns": ["D", "D", "G"], "samples": 96}}
    trainer = tiny_trainer(loss=NonSaturating, raw=raw)
    key = "net/G/body.0.weight"
    expected = checkpoint.state_of(trainer)[0][key].clone()
    for seen in range(0, 80, 16):
        trainer.round()
        half_life = min(100, 0.5 * seen)
        decay = 0.5 ** (16 / half_life) if half_life else 0.0
        expected = decay * expected + (1 - decay) * checkpoint.state_of(trainer)[0][key]
        torch.testing.assert_close(checkpoint.state_of(trainer)[0]["ema/G/body.0.weight"], expected)


def recipe(ema):
    raw = {"data": {"name": "d"}, "architecture": {"name": "a"}, "loss": {"name": "l"}}
    raw |= {"optimizer": {"name": "adam", "lr": 1e-3}, "train": {"ema": 0.9}, "presets": {"it": {"train": {"ema": ema}}}}
    draft = Draft("it", raw, "test")
    draft.preset("it")
    return draft.finish()


def test_a_recipe_gives_a_half_life():
    assert recipe({"half_life": 500_000, "ramp": 0.05}).train.ema == HalfLife(half_life=500_000.0, ramp=0.05)
    rising = recipe({"half_life": {"from": 0, "to": 10}}).train.ema
    assert rising == HalfLife(half_life=Schedule(start=0.0, stop=10.0))


@pytest.mark.parametrize(
    ("ema", "message"),
    [
        ({"half_life": -1}, r"train.ema.half_life must be a number of samples, from 0 on"),
        ({"half_life": {"from": 5, "to": -1}}, r"train.ema.half_life must be a number of samples"),
        ({"half_life": 5, "ramp": -0.1}, r"train.ema.ramp must be a share of the samples seen"),
        ({"half_life": 5, "ramp": {"from": 0, "to": 1}}, r"train.ema.ramp must be a share of the samples seen"),
        ({"half_life": 5, "ram": 0.1}, "train.ema has no 'ram'; did you mean 'ramp'"),
        ({"half_life": 5, "from": 0.1}, "train.ema has no 'from'"),
        ({"ramp": 0.05}, "train.ema has a ramp and lacks the half_life"),
        ({"half_life": "long"}, "'train.ema.half_life' must be a finite number"),
    ],
)
def test_what_is_no_half_life_is_refused(ema, message):
    with pytest.raises(RecipeError, match=message):
        recipe(ema)
