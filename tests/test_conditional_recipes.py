"""Recipes whose classes come from a head on D's features: G learns to obey, D never sees a label."""

from __future__ import annotations

import pytest
import torch
from ganzoo_plugins.losses.hinge import Hinge
from ganzoo_plugins.losses.zero_loss import ZeroLoss
from ganzoo_plugins.regularizers.adc import ADC
from ganzoo_plugins.regularizers.auxiliary_classifier import AuxiliaryClassifier
from ganzoo_plugins.regularizers.conditional_contrastive import ConditionalContrastive
from ganzoo_plugins.regularizers.d2d_ce import D2DCE
from ganzoo_plugins.regularizers.multi_hinge import MultiHinge
from ganzoo_plugins.regularizers.twin_classifier import TwinClassifier

from ganzoo import assemble
from ganzoo.api import Spec
from ganzoo.device import Device
from ganzoo.registry import registry
from ganzoo.testing.tiny import TinyArchitecture, TinyDiscriminator, tiny_data, tiny_trainer
from ganzoo.zoo import Request, resolve

RECIPES = {  # the head, and its parameters on 192 features and 10 classes
    "acgan": ("auxiliary-classifier", 10 * 128),
    "tacgan": ("twin-classifier", 2 * 10 * 192),
    "adcgan": ("adc", 2 * 10 * 192),
    "contragan": ("conditional-contrastive", (192 + 1) * 512 + 10 * 512),
    "reacgan": ("d2d-ce", (192 + 1) * 512 + 10 * 512),
    "mhgan": ("multi-hinge", 10 * (192 + 1)),
}
TINY = {
    "data.size": 16,
    "train.batch": 8,
    "train.precision": "fp32",
    "train.turns": ["D", "G"],
    "architecture.generator_width": 2,
    "architecture.discriminator_width": 2,
}
each = pytest.mark.parametrize("name", RECIPES)


class Blind(TinyDiscriminator):
    """Takes a label and looks away."""

    def forward(self, x, label=None):
        return super().forward(x)


class LabelsForGOnly(TinyArchitecture):
    """Small networks of which only G sees labels."""

    def discriminator(self, spec):
        return Blind(Spec(shape=spec.shape))


@pytest.mark.parametrize(
    ("loss", "head", "options"),
    [
        (Hinge, AuxiliaryClassifier, {}),
        (Hinge, TwinClassifier, {}),
        (Hinge, ADC, {}),
        (Hinge, ConditionalContrastive, {}),
        (Hinge, D2DCE, {}),
        (ZeroLoss, MultiHinge, {}),
        (Hinge, MultiHinge, {"fake_class": False}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_g_obeys_the_class_that_only_the_head_tells(loss, head, options):
    """The classes of the data are pictures with bright left and bright right halves; 2C may exchange them."""
    raw = {
        "regularizer": {"head": options},
        "train": {"batch": 20, "samples": 10**6, "ema": 0.0},
        "optimizer": {"lr": 5e-3},
    }
    trainer = tiny_trainer(
        loss=loss, architecture=LabelsForGOnly, regularizers={"head": head}, raw=raw, data=tiny_data(classes=2)
    )
    for _ in range(80):
        trainer.round()
    label = torch.arange(40) % 2
    with torch.no_grad():
        x = trainer.nets["G"](torch.randn(40, 8), label=label)
    right = x[..., 8:].mean((1, 2, 3)) > x[..., :8].mean((1, 2, 3))
    obeyed = (right == label.bool()).float().mean().item()
    assert obeyed >= 0.9 or (head is ConditionalContrastive and obeyed <= 0.1)


@each
def test_the_head_alone_tells_d_the_class(name):
    head, _ = RECIPES[name]
    recipe = resolve(name, Request(values=TINY), registry())
    trainer = assemble.trainer(recipe, registry(), Device.choose("cpu", "fp32"))
    trainer.round()
    assert {f"D/{head}", f"G/{head}"} <= trainer.report().terms.keys()
    D, x = trainer.nets["D"].eval(), torch.rand(4, 1, 16, 16) * 2 - 1
    one, other = (D(x, label=torch.tensor(label)) for label in ([0, 1, 2, 3], [9, 8, 7, 7]))
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.features, other.features)


@each
def test_parameters_of_the_reference_by_hand(name):
    """BigGAN's D with 192 channels has 2,413,250 parameters besides its projection, SNGAN's with 128 has 1,053,825."""
    head, count = RECIPES[name]
    recipe = resolve(name, Request(presets=("reference",)), registry())
    spec = Spec(shape=(3, 32, 32), classes=10)
    (options,) = [part.options for part in recipe.regularizers if part.name == head]
    with torch.device("meta"):
        D = registry().build("architecture", recipe.architecture.name, recipe.architecture.options).discriminator(spec)
        regularizer = registry().build("regularizer", head, {**options, "spectral_norm": False})
        regularizer.shown(spec)
        regularizer.prepare(D)
    body = sum(p.numel() for p in D.parameters())
    assert body == (1_053_825 if name == "acgan" else 2_413_250)
    assert sum(p.numel() for p in regularizer.parameters()) == count
    assert recipe.raw["provenance"]["parameters"]["D"] == body + count


@each
def test_heads_are_normed_as_d_is(name):
    recipe = resolve(name, Request(), registry())
    options = {part.name: part.options for part in recipe.regularizers}
    assert "spectral-norm" in options
    assert options[RECIPES[name][0]]["spectral_norm"] is True


@each
def test_siblings_share_their_optimizer(name):
    """StudioGAN's ReACGAN-Info.yaml has another first beta than all the others: a slip."""
    base = "acgan" if resolve(name, Request(), registry()).architecture.name == "resnet" else "biggan"
    for presets in ((), ("reference",)):
        mine, theirs = (
            resolve(one, Request(presets=presets), registry()).optimizer.options["betas"] for one in (name, base)
        )
        assert mine == theirs
    assert mine == [0.5, 0.999]
