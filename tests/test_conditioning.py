"""Heads that condition on classes, each against its formula in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from ganzoo_plugins.losses.zero_loss import ZeroLoss
from ganzoo_plugins.regularizers.adc import ADC
from ganzoo_plugins.regularizers.auxiliary_classifier import AuxiliaryClassifier
from ganzoo_plugins.regularizers.conditional_contrastive import ConditionalContrastive
from ganzoo_plugins.regularizers.d2d_ce import D2DCE
from ganzoo_plugins.regularizers.multi_hinge import MultiHinge
from ganzoo_plugins.regularizers.twin_classifier import TwinClassifier
from torch import nn

from ganzoo.api import DiscriminatorOutput, PluginError, Spec
from ganzoo.game import Duel
from ganzoo.registry import registry
from ganzoo.testing.tiny import tiny_data, tiny_trainer
from ganzoo.testing.training import resume_is_bit_exact

HEADS = (AuxiliaryClassifier, TwinClassifier, ADC, ConditionalContrastive, D2DCE, MultiHinge)
CLASSES, WIDTH, COUNT = 3, 5, 7
REAL, FAKE = torch.tensor([0, 1, 2, 0, 0, 1, 1]), torch.tensor([2, 2, 1, 0, 2, 2, 2])  # 2 is alone among the real
EDGES = {
    "some": REAL,
    "each alone": torch.tensor([0, 1, 2]),
    "one class only": torch.tensor([1, 1, 1, 1]),
    "one sample": torch.tensor([2]),
}
each_edge = pytest.mark.parametrize("label", EDGES.values(), ids=EDGES)
each_head = pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Identity(nn.Module):
    """Samples are their own features; logits [N] or [N, patches]."""

    feature_width = WIDTH

    def __init__(self, patches: int = 0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(WIDTH, *[patches] * bool(patches)))

    def forward(self, x, label=None):
        return DiscriminatorOutput(x @ self.w, x)


def duel(acting="discriminator", real=REAL, fake=FAKE, discriminator=None):
    labelled = {"real_cond": {"label": real}, "fake_cond": {"label": fake}}
    return Duel(
        discriminator or Identity(), torch.randn(len(real), WIDTH), torch.randn(len(fake), WIDTH), acting=acting, **labelled
    )


def ready(head, classes=CLASSES):
    head.shown(Spec(shape=(WIDTH,), classes=classes))
    head.prepare(Identity())
    head.prepare(nn.Linear(2, 2))  # a generator, which comes after D
    return head


def mean(values):
    return sum(values) / len(values)


def scores(layer, samples):
    weight, bias = layer.weight.tolist(), [0.0] * len(layer.weight) if layer.bias is None else layer.bias.tolist()
    return [
        [sum(w * f for w, f in zip(row, sample, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        for sample in samples.tolist()
    ]


def surprise(layer, samples, label):
    """Mean of log(sum of exp s) - s[y]."""
    found = scores(layer, samples)
    return mean([math.log(sum(map(math.exp, s))) - s[y] for s, y in zip(found, label.tolist(), strict=True)])


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(x * x for x in b))


def margin(found, label):
    """Mean of max(0, 1 + the best wrong score - the right one)."""
    worst = [max([s[k] for k in range(len(s)) if k != y], default=-math.inf) for s, y in zip(found, label, strict=True)]
    return mean([max(0.0, 1 + wrong - s[y]) for wrong, s, y in zip(worst, found, label, strict=True)])


# formulas


def test_auxiliary_classifier():
    met = duel()
    head = ready(AuxiliaryClassifier(generator=0.1))
    C = head.layers
    assert (C.weight.shape, C.bias) == ((CLASSES, WIDTH), None)
    assert head.penalty(met).item() == pytest.approx(surprise(C, met.real, REAL), rel=1e-5)
    head.fakes = True
    both = surprise(C, met.real, REAL) + surprise(C, met.fake, FAKE)
    assert head.penalty(met).item() == pytest.approx(both, rel=1e-5)
    met = duel("generator")
    assert head.penalty(met).item() == pytest.approx(0.1 * surprise(C, met.fake, FAKE), rel=1e-5)


def test_twin_classifier():
    met = duel()
    head = ready(TwinClassifier())
    C, T = head.layers
    expected = surprise(C, met.real, REAL) + surprise(T, met.fake, FAKE)
    assert head.penalty(met).item() == pytest.approx(expected, rel=1e-5)
    met = duel("generator")
    expected = surprise(C, met.fake, FAKE) - surprise(T, met.fake, FAKE)
    assert head.penalty(met).item() == pytest.approx(expected, rel=1e-5)


def test_twins_that_agree_leave_g_alone():
    """Where both classifiers say the same, only the adversarial loss is left: the bias of AC-GAN is gone."""
    head = ready(TwinClassifier())
    head.layers[1].load_state_dict(head.layers[0].state_dict())
    met = duel("generator")
    met.fake.requires_grad_()
    penalty = head.penalty(met)
    (gradient,) = torch.autograd.grad(penalty, met.fake)
    assert penalty.item() == 0
    assert gradient.abs().max() < 1e-7


def test_adc():
    met = duel()
    head = ready(ADC(generator=2.0))
    assert head.layers.weight.shape == (2 * CLASSES, WIDTH)
    expected = surprise(head.layers, met.real, REAL) + surprise(head.layers, met.fake, FAKE + CLASSES)
    assert head.penalty(met).item() == pytest.approx(expected, rel=1e-5)
    met = duel("generator")
    expected = mean([s[y + CLASSES] - s[y] for s, y in zip(scores(head.layers, met.fake), FAKE.tolist(), strict=True)])
    assert head.penalty(met).item() == pytest.approx(2 * expected, rel=1e-5)


def placed(head, samples, label):
    return scores(head.layers.linear, samples), [head.layers.proxies.weight[y].tolist() for y in label]


@each_edge
@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_conditional_contrastive(label, temperature):
    head = ready(ConditionalContrastive(embedding=4, temperature=temperature, generator=0.5))

    def by_hand(samples):
        points, proxies = placed(head, samples, label)
        paid = []
        for i, y in enumerate(label.tolist()):
            own = math.exp(cosine(points[i], proxies[i]) / temperature)
            others = {j: math.exp(cosine(points[i], points[j]) / temperature) for j in range(len(points)) if j != i}
            akin = sum(value for j, value in others.items() if label[j] == y)
            paid.append(-math.log((own + akin) / (own + sum(others.values()))))
        return mean(paid)

    met = duel(real=label, fake=label)
    assert head.penalty(met).item() == pytest.approx(by_hand(met.real), rel=1e-4, abs=1e-6)
    met = duel("generator", real=label, fake=label)
    assert head.penalty(met).item() == pytest.approx(0.5 * by_hand(met.fake), rel=1e-4, abs=1e-6)


@each_edge
@pytest.mark.parametrize(("m", "temperature"), [(0.98, 0.5), (0.3, 1.0)])
def test_d2d_ce(label, m, temperature):
    head = ready(D2DCE(embedding=4, margin=m, temperature=temperature, generator=0.5))

    def by_hand(samples):
        points, proxies = placed(head, samples, label)
        paid = []
        for i, y in enumerate(label.tolist()):
            attraction = min(0.0, cosine(points[i], proxies[i]) - m) / temperature
            others = [cosine(points[i], points[j]) for j in range(len(points)) if label[j] != y]
            repulsion = sum(math.exp(max(0.0, c - (1 - m)) / temperature) for c in others)
            paid.append(-math.log(math.exp(attraction) / (math.exp(attraction) + repulsion)))
        return mean(paid)

    met = duel(real=label, fake=label)
    assert head.penalty(met).item() == pytest.approx(by_hand(met.real), rel=1e-4, abs=1e-6)
    met = duel("generator", real=label, fake=label)
    assert head.penalty(met).item() == pytest.approx(0.5 * by_hand(met.fake), rel=1e-4, abs=1e-6)


def test_d2d_ce_leaves_alone_what_is_easy():
    """A sample beyond its margins of its class and of all others has no gradient."""
    head = ready(D2DCE(embedding=WIDTH, margin=0.9))
    with torch.no_grad():
        head.layers.linear.weight.copy_(torch.eye(WIDTH))
        head.layers.proxies.weight.copy_(torch.eye(WIDTH)[:CLASSES])
    met = duel(real=torch.tensor([0, 1, 2]))
    met.real = torch.eye(WIDTH)[:3].requires_grad_()
    penalty = head.penalty(met)
    (gradient,) = torch.autograd.grad(penalty, met.real)
    assert penalty.item() == pytest.approx(math.log(3))  # exp 0 over three of them
    assert gradient.abs().max() == 0


@pytest.mark.parametrize("patches", [0, 4])
def test_multi_hinge_with_a_fake_class(patches):
    D = Identity(patches)
    met = duel(discriminator=D)
    head = ready(MultiHinge(generator=0.05))

    def found(samples):
        fake = (samples @ D.w).view(len(samples), -1).mean(1).neg().tolist()
        return [[*s, f] for s, f in zip(scores(head.layers, samples), fake, strict=True)]

    expected = margin(found(met.real), REAL.tolist()) + margin(found(met.fake), [CLASSES] * COUNT)
    assert head.penalty(met).item() == pytest.approx(expected, rel=1e-5)
    met = duel("generator", discriminator=D)
    assert head.penalty(met).item() == pytest.approx(0.05 * margin(found(met.fake), FAKE.tolist()), rel=1e-5)


@each_edge
def test_multi_hinge_beside_another_loss(label):
    head = ready(MultiHinge(fake_class=False))
    for acting in ("discriminator", "generator"):
        met = duel(acting, real=label, fake=label)
        samples = met.real if acting == "discriminator" else met.fake
        expected = margin(scores(head.layers, samples), label.tolist())
        assert head.penalty(met).item() == pytest.approx(expected, rel=1e-5)
        assert met._outputs.keys() == {"real" if acting == "discriminator" else "fake"}  # D runs on nothing else for it


@each_head
@pytest.mark.parametrize("acting", ["discriminator", "generator"])
@each_edge
def test_edges_stay_finite_with_their_gradients(head, acting, label):
    met = duel(acting, real=label, fake=label)
    met.real.requires_grad_()
    met.fake.requires_grad_()
    found = ready(head())
    penalty = found.penalty(met)
    gradients = torch.autograd.grad(penalty, [met.real, met.fake, *found.parameters()], allow_unused=True)
    assert all(torch.isfinite(value).all() for value in (penalty, *gradients) if value is not None)


@each_head
def test_a_single_class_is_a_case_too(head):
    label = torch.zeros(4, dtype=torch.long)
    for acting in ("discriminator", "generator"):
        penalty = ready(head(), classes=1).penalty(duel(acting, real=label, fake=label))
        assert torch.isfinite(penalty)


@each_head
def test_half_precision_changes_little(head):
    found = ready(head())
    for acting in ("discriminator", "generator"):
        met = duel(acting)
        exact = found.penalty(met)
        again = Duel(met.discriminator, met.real, met.fake, real_cond=met.real_cond, fake_cond=met.fake_cond, acting=acting)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = found.penalty(again)
        assert rounded.dtype == torch.float32
        assert rounded.item() == pytest.approx(exact.item(), abs=0.03)


# a head as a part of D


@each_head
def test_only_what_g_pays_is_scaled(head):
    one, other = ready(head()), ready(head())
    other.load_state_dict(one.state_dict())
    other.generator = 0.25  # as a schedule would
    for acting, factor in (("discriminator", 1.0), ("generator", 0.25)):
        met = duel(acting)
        assert other.penalty(met).item() == pytest.approx(factor * one.penalty(met).item(), rel=1e-5)


@each_head
def test_the_head_s_parameters_are_ds(head):
    def run(turn):
        trainer = tiny_trainer(regularizers={"it": head}, raw={"train": {"turns": [turn]}}, data=tiny_data(classes=3))
        (rule,) = trainer.rules
        before = [p.detach().clone() for p in rule.regularizer.parameters()]
        trainer.round()
        return [not torch.equal(a, b) for a, b in zip(before, rule.regularizer.parameters(), strict=True)]

    assert any(run("D"))
    assert not any(run("G"))


@each_head
def test_the_layers_may_be_normed(head):
    found = ready(head(spectral_norm=True))
    weights = [p for name, p in found.named_parameters() if name.endswith("original")]
    assert weights
    normed = [layer for layer in found.layers.modules() if hasattr(layer, "parametrizations")]
    assert len(normed) == len(weights)
    assert all(largest(layer) == pytest.approx(1, abs=0.02) for layer in normed)
    with torch.no_grad():
        for weight in weights:
            weight.normal_(0, 3)
    assert any(abs(largest(layer) - 1) > 0.1 for layer in normed)
    for _ in range(100):
        found.after_step([Identity()])
    assert all(largest(layer) == pytest.approx(1, abs=0.05) for layer in normed)


def largest(layer):
    return torch.linalg.matrix_norm(layer.weight.detach(), 2).item()


def test_a_normed_head_resumes_bit_exact():
    def build(raw):
        raw = {**raw, "regularizer": {"it": {"spectral_norm": True}}}
        return tiny_trainer(regularizers={"it": AuxiliaryClassifier}, raw=raw, data=tiny_data(classes=3))

    resume_is_bit_exact(build)


@each_head
def test_training_d_makes_the_real_classes_known(head):
    raw = {"train": {"turns": ["D"], "batch": 20, "samples": 10**6}, "optimizer": {"lr": 3e-2}}
    trainer = tiny_trainer(regularizers={"it": head}, raw=raw, data=tiny_data(classes=2))
    found = []
    for rounds in (1, 30, 1):
        for _ in range(rounds):
            trainer.round()
        found.append(trainer.report().terms["D/it"])
    assert found[-1] < 0.8 * found[0]


# what a head refuses


@each_head
def test_data_without_classes_is_refused(head):
    with pytest.raises(PluginError, match=rf"regularizer '{head.name}' needs data with classes; set data.labels = true"):
        head().shown(Spec(shape=(1, 16, 16)))


@each_head
def test_a_discriminator_without_features_is_refused(head):
    found = head()
    found.shown(Spec(shape=(WIDTH,), classes=3))
    with pytest.raises(PluginError, match=rf"regularizer '{head.name}' needs a discriminator with features, and Linear"):
        found.prepare(nn.Linear(2, 1))


@each_head
def test_a_game_that_passes_no_label_is_told(head):
    met = Duel(Identity(), torch.randn(2, WIDTH), torch.randn(2, WIDTH))
    with pytest.raises(PluginError, match="met samples without label"):
        ready(head()).penalty(met)


@each_head
def test_a_negative_share_of_g_is_refused(head):
    with pytest.raises(PluginError, match=rf"'{head.name}' needs a 'generator' of at least 0, not -1"):
        head(generator=-1.0)


@pytest.mark.parametrize("head", [ConditionalContrastive, D2DCE])
@pytest.mark.parametrize("option", [{"embedding": 0}, {"temperature": 0.0}])
def test_sizes_that_cannot_be_are_refused(head, option):
    with pytest.raises(PluginError, match=f"needs a '{next(iter(option))}' above 0, not 0"):
        head(**option)


# the loss that leaves everything to them


def test_zero_costs_nothing():
    real, fake = torch.randn(6, 2, requires_grad=True), torch.randn(6, 2, requires_grad=True)
    for value in (ZeroLoss().discriminator(real, fake), ZeroLoss().generator(fake, None)):
        assert value.item() == 0
        (gradient,) = torch.autograd.grad(value, fake)
        assert gradient.abs().max() == 0


def test_with_zero_the_multi_hinge_is_the_whole_game():
    trainer = tiny_trainer(loss=ZeroLoss, regularizers={"it": MultiHinge}, data=tiny_data(classes=3))
    before = {name: [p.detach().clone() for p in net.parameters()] for name, net in trainer.nets.items()}
    trainer.round()
    for name, net in trainer.nets.items():
        assert any(not torch.equal(a, b) for a, b in zip(before[name], net.parameters(), strict=True)), name


# the discriminator leaves the label to the head


@pytest.mark.parametrize("architecture", ["resnet", "dcgan", "mlp", "biggan", "biggan-deep", "sndcgan", "sagan"])
def test_a_discriminator_may_leave_the_label_to_the_head(architecture):
    networks = registry().build("architecture", architecture, {"discriminator_label": "none"})
    D = networks.discriminator(Spec(shape=(1, 16, 16), classes=3))
    D.eval()
    x = torch.rand(4, 1, 16, 16) * 2 - 1
    one, other = (D(x, label=torch.tensor(label)) for label in ([0, 1, 2, 0], [2, 2, 1, 0]))
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.features, other.features)
    assert one.features.shape == (4, D.feature_width)
