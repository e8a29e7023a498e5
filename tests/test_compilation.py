"""Compiled costs: the same training to rounding, one compilation for a schedule, and a word about what is not compiled."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from ganzoo_plugins.losses.non_saturating import NonSaturating
from ganzoo_plugins.losses.relativistic import Relativistic
from ganzoo_plugins.regularizers.gradient_penalty import GradientPenalty
from ganzoo_plugins.regularizers.r1 import R1
from ganzoo_plugins.regularizers.spectral_norm import SpectralNorm
from torch import nn

from ganzoo.api import Regularizer
from ganzoo.device import Device
from ganzoo.testing.tiny import TinyArchitecture, TinyDiscriminator, tiny_trainer

EAGER, COMPILED = (Device(torch.device("cpu"), compiles=compiles) for compiles in (False, True))
pytestmark = pytest.mark.filterwarnings("default")  # the compiler's own


def traces(rounds, **parts):
    """Return the terms of each round, eager and compiled, and what the compiled trainer had to tell."""
    pair = [tiny_trainer(device=device, **parts) for device in (EAGER, COMPILED)]
    found = [[], []]
    for _ in range(rounds):
        for trainer, terms in zip(pair, found, strict=True):
            trainer.round()
            terms.append(trainer.report().terms)
    return *found, pair[1].notes()


def test_compiled_costs_train_alike_with_penalties_lazy_or_not():
    """Double backward, a weight that changes in every round, spectral norm, and a loss that pairs reals with fakes."""
    weight = {"from": 1.0, "to": 0.0, "shape": "linear"}
    raw = {"regularizer": {"r1": {"every": 2, "weight": weight}}, "train": {"samples": 80}}
    eager, compiled, notes = traces(4, loss=Relativistic, regularizers={"r1": R1, "sn": SpectralNorm}, raw=raw)
    for expected, seen in zip(eager, compiled, strict=True):
        assert seen == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert sorted(note.split(" in ")[0] for note in notes) == ["compiled what D pays"] * 2 + ["compiled what G pays"]


class Normed(TinyArchitecture):
    """A discriminator whose batch norm mixes samples."""

    def discriminator(self, spec):
        net = TinyDiscriminator(spec)
        net.conv = nn.Sequential(net.conv, nn.BatchNorm2d(8))
        return net


class Peeks(Regularizer):
    """A penalty that looks at a number on the way, which compiled code cannot."""

    def penalty(self, duel):
        value = duel.output("real").logits.square().mean()
        return value * (1.0 if value.item() > 0 else 2.0)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"architecture": Normed, "regularizers": {"gp": GradientPenalty}}, "the batch norm of D mixes samples"),
        ({"regularizers": {"peeks": Peeks}}, "what D pays is not compiled but computed as ever: "),
    ],
)
def test_what_cannot_be_compiled_is_computed_as_ever_and_told_once(parts, reason):
    eager, compiled, notes = traces(2, loss=NonSaturating, raw={"train": {"turns": ["D"]}}, **parts)
    for expected, seen in zip(eager, compiled, strict=True):
        assert seen == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert len(notes) == 1
    assert reason in notes[0]


def test_the_compiler_is_imported_only_where_it_is_asked_for():
    code = "import sys; import ganzoo.jobs; sys.exit('torch._dynamo' in sys.modules or 'torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
