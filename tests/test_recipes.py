"""Every recipe of the zoo at tiny size: golden losses, who moves, resume, kill -9, and parameter counts of the sources.

`python tests/test_recipes.py [NAME ...]` records the golden losses anew; a commit that does so says what changed and why.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ganzoo import assemble, checkpoint
from ganzoo.api import Spec
from ganzoo.device import Device
from ganzoo.jobs import run_recipe
from ganzoo.registry import registry
from ganzoo.testing.tiny import Onlooker
from ganzoo.zoo import Request, entries, resolve

AT = re.compile(r"reference: (\d+)x\d+x(\d)(?:, (\d+) classes)?$")
GOLDEN = Path(__file__).parent / "golden"
ROUNDS = 6
BIGGAN = {
    **{"architecture.generator_width": 2, "architecture.discriminator_width": 2, "architecture.embedding": 8},
    **{"architecture.generator_attention": 8, "architecture.discriminator_attention": 8},
}
GROWN = (4, 8, 16, 16)  # pixels of progressive stages: two rounds each, and the rest
PYRAMID = {"architecture.channel_base": 128, "architecture.channel_max": 8}
NARROW = {  # options that make an architecture small; the rest of a recipe stays as it is
    "dcgan": {"architecture.width": 8},
    "resnet": {"architecture.generator_width": 8, "architecture.discriminator_width": 8},
    "biggan": BIGGAN,
    "mlp": {},
    "r3gan": {"architecture.width": 16},
    "fastgan": {"architecture.width": 2},
    "autoencoder": {"architecture.width": 4},
    "sagan": {"architecture.generator_width": 8, "architecture.discriminator_width": 8},
    "sndcgan": {"architecture.width": 4},
    "biggan-deep": BIGGAN,
    "msg": PYRAMID,
    "progan": PYRAMID
    | {f"stages.{number}.size": size for number, size in enumerate(GROWN)}
    | {f"stages.{number}.samples": 16 if number < 3 else 192 for number in range(4)},
    "stylegan2": PYRAMID | {"architecture.style": 8},
}
CALM = {  # at their own rates AVX-512, AVX2 and SSE come apart within three rounds, by more than is allowed below
    name: {"optimizer.lr": 2e-4} for name in ("contragan", "fastgan")
}
# one of each kind of state: penalties, weights that are normalised, stages, games with latents or clusters of their own
KILLED = ("dcgan-wgangp", "sngan", "progan", "logan", "infogan", "em-gan", "ada")
NAMES = sorted(entry.name for entry in entries(registry()) if entry.record.distribution == "ganzoo-toolkit")


def tiny(name, **values):
    architecture = resolve(name, Request(), registry()).architecture.name
    settings = {"data.size": 16, "train.batch": 8, "train.precision": "fp32", **NARROW[architecture], **values}
    return resolve(name, Request(values=settings), registry())


def trainer_of(recipe):
    return assemble.trainer(recipe, registry(), Device.choose("cpu", recipe.train.precision))


def state(trainer):
    return {key: value.clone() for key, value in checkpoint.state_of(trainer)[0].items()}


def trace(name):
    """Return the terms of each of the first rounds.

    The first steps of Adam have the size of lr and the sign of the gradient, even of one that is nothing but rounding, and
    processors round in their own ways. A larger eps leaves such weights where they are.
    """
    trainer = trainer_of(tiny(name, **{"optimizer.eps": 1e-5, **CALM.get(name, {})}))
    rounds = []
    for _ in range(ROUNDS):
        trainer.round()
        rounds.append({term: round(value, 6) for term, value in trainer.report().terms.items()})
    return rounds


@pytest.mark.parametrize("name", NAMES)
def test_golden_losses(name):
    """Identical across a refactor; the tolerance is for other processors' rounding only."""
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    for number, (expected, found) in enumerate(zip(golden, trace(name), strict=True)):
        assert found == pytest.approx(expected, rel=2e-3, abs=2e-4), f"round {number}"


@pytest.mark.parametrize("name", NAMES)
def test_a_turn_moves_exactly_the_acting_player(name):
    for player in ("D", "G"):
        trainer = trainer_of(tiny(name, **{"train.turns": [player]}))
        before = {key: [p.detach().clone() for p in net.parameters()] for key, net in trainer.nets.items()}
        trainer.round()
        for key, net in trainer.nets.items():
            changed = [not torch.equal(old, new) for old, new in zip(before[key], net.parameters(), strict=True)]
            assert any(changed) == (key == player), (player, key)


@pytest.mark.parametrize("name", NAMES)
def test_resume_is_bit_exact(name):
    whole, first, second = (trainer_of(tiny(name)) for _ in range(3))
    for _ in range(4):
        whole.round()
    for _ in range(2):
        first.round()
    checkpoint.restore(second, *checkpoint.state_of(first))
    for _ in range(2):
        second.round()
    one, two = state(whole), state(second)
    assert [key for key in one if not torch.equal(one[key], two[key])] == []


@pytest.mark.parametrize("name", [name if name in KILLED else pytest.param(name, marks=pytest.mark.slow) for name in NAMES])
def test_killed_at_a_random_moment_it_goes_on_to_the_same_bits(name, tmp_path):
    rounds = 30
    per_round = 8 * max(resolve(name, Request(), registry()).train.turns.count("D"), 1)
    values = {"train.samples": rounds * per_round, "train.checkpoint": 2 * per_round, "train.grid": 10 * per_round}
    recipe = tiny(name, **values)
    file = tmp_path / f"{name}.toml"
    file.write_text(recipe.toml(), encoding="utf-8")
    run_recipe(recipe, registry(), tmp_path / "whole", "cpu")

    command = [sys.executable, "-m", "ganzoo", "train", str(file), "--run", str(tmp_path / "killed"), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)
    folder, deadline = tmp_path / "killed" / "checkpoints", time.monotonic() + 120
    while not list(folder.glob("*.safetensors")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(random.random() * 0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    whole, killed = (sorted((tmp_path / run / "checkpoints").glob("*.safetensors")) for run in ("whole", "killed"))
    assert [path.name for path in whole] == [path.name for path in killed]
    assert whole[-1].read_bytes() == killed[-1].read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_few_rounds_as_shipped_stay_finite(name):
    """At the recipe's own size, in the precision of this machine; only the number of rounds is small."""
    recipe = resolve(name, Request(values={"train.batch": 8}), registry())
    trainer = trainer_of(recipe)
    trainer.fit(Onlooker(rounds=2))
    assert all(torch.isfinite(value).all() for value in state(trainer).values() if value.is_floating_point())


@pytest.mark.parametrize("name", NAMES)
def test_provenance_and_parameter_counts_of_the_reference(name):
    recipe = resolve(name, Request(presets=("reference",)), registry())
    provenance = recipe.raw["provenance"]
    assert {"paper", "source", "published", "deviation"} <= provenance.keys()
    counts = provenance.get("parameters")
    if counts:
        size, channels, classes = AT.search(counts["at"]).groups()
        spec = Spec(shape=(int(channels), int(size), int(size)), classes=int(classes or 0))
        parts = assemble.cast(recipe, registry(), spec)
        found = {key: sum(p.numel() for p in net.parameters()) for key, net in parts.nets.items()}
        found["D"] += sum(p.numel() for rule in parts.rules for p in rule.regularizer.parameters())  # heads on D
        assert found == {"G": counts["G"], "D": counts["D"]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    GOLDEN.mkdir(exist_ok=True)
    for recipe_name in sys.argv[1:] or NAMES:
        (GOLDEN / f"{recipe_name}.json").write_text(json.dumps(trace(recipe_name), indent=1) + "\n")
        print(recipe_name)
