"""Auto-encoding discriminators: energies by hand, counts of the source, and equilibrium in training."""

import pytest
import torch
from ganzoo_plugins.architectures.autoencoder import Autoencoder
from ganzoo_plugins.architectures.dcgan import DCGAN
from ganzoo_plugins.architectures.elu_autoencoder import ELUAutoencoder, sizes
from ganzoo_plugins.losses.began import BEGAN
from ganzoo_plugins.losses.cramer import Cramer
from ganzoo_plugins.losses.ebgan import EBGAN
from ganzoo_plugins.regularizers.cramer_penalty import CramerPenalty
from ganzoo_plugins.regularizers.pulling_away import PullingAway
from torch import nn

from ganzoo import assemble
from ganzoo.api import PluginError, Spec
from ganzoo.layers.autoencoding import AutoEncodingDiscriminator
from ganzoo.layers.conditional import LabelledMap
from ganzoo.layers.features import feature_width
from ganzoo.registry import registry
from ganzoo.testing import tiny_trainer
from ganzoo.zoo import Request, resolve

SPEC = Spec(shape=(3, 32, 32), latent=62)
BOTH = [Autoencoder, ELUAutoencoder]


def small(architecture):
    return lambda **options: architecture(**{"width": 4, "code": 6, **options})


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


def test_counts_of_the_source():
    """PyTorch-GAN's ebgan.py and began.py at 32x32x3."""
    assert count(Autoencoder().generator(SPEC)) == 739_587
    assert count(Autoencoder(input_norm=True).generator(SPEC)) == 739_843
    assert count(Autoencoder().discriminator(SPEC)) == 1_101_347


@pytest.mark.parametrize(("size", "n", "h"), [(16, 8, 5), (32, 16, 10), (64, 6, 4)])
def test_counts_of_the_paper_by_formula(size, n, h):
    """At k sizes: a decoder has 2k convolutions of n, an encoder 2k - 1 of growing width and k - 1 of stride 2."""

    def conv(width, out):
        return width * out * 9 + out

    k = {16: 2, 32: 3, 64: 4}[size]
    assert sizes(size) == [8 * 2**i for i in range(k)]

    def decoder(code):
        return (code + 1) * n * 64 + 2 * k * conv(n, n) + conv(n, 3)

    encoder = conv(3, n) + sum(conv(max(i - 1, 1) * n, i * n) + conv(i * n, i * n) for i in range(1, k + 1))
    encoder += sum(conv(i * n, i * n) for i in range(1, k)) + (k * n * 64 + 1) * h
    spec = Spec(shape=(3, size, size), latent=7)
    assert count(ELUAutoencoder(width=n, code=h).generator(spec)) == decoder(7)
    assert count(ELUAutoencoder(width=n, code=h).discriminator(spec)) == encoder + decoder(h)


@pytest.mark.parametrize(("error", "expected"), [("l1", [0.5, 0.75]), ("l2", [0.25, 0.625])])
def test_the_logit_is_the_mean_error_of_each_sample(error, expected):
    """A network that reconstructs zero, or with a sign that negates it."""

    class Nothing(nn.Module):
        def forward(self, code):
            return torch.zeros(len(code), 1, 16, 16)

    x = torch.full((2, 1, 16, 16), 0.5)
    x[1, :, 8:] = -1.0
    for output, sign in (("energy", 1), ("score", -1)):
        net = AutoEncodingDiscriminator(LabelledMap(1, 16, 0), nn.Flatten(), Nothing(), 256, error, output)
        made = net(x)
        assert made.logits.tolist() == pytest.approx([sign * value for value in expected])
        assert torch.equal(made.features, x.flatten(1))


@pytest.mark.parametrize("architecture", BOTH)
def test_features_are_the_codes(architecture):
    net = small(architecture)().discriminator(SPEC)
    x = torch.rand(3, 3, 32, 32)
    made = net(x)
    assert made.features.shape == (3, 6)
    assert feature_width(net, "somebody") == 6
    assert torch.equal(made.features, net.encode(x))


@pytest.mark.parametrize("architecture", BOTH)
def test_the_gradient_to_an_image_runs_through_both_sides_of_the_difference(architecture):
    """With a decoder of zeros the error is the image's own size, so its gradient is 2 x / numbers."""
    net = small(architecture)(error="l2").discriminator(SPEC)
    with torch.no_grad():
        for parameter in net.decoder[-1].parameters():
            parameter.zero_()
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x).logits.sum(), x)
    torch.testing.assert_close(gradient, 2 * x.detach() / (3 * 32 * 32))


@pytest.mark.parametrize("architecture", BOTH)
def test_a_label_reaches_the_encoder_unless_it_is_left_out(architecture):
    spec = Spec(shape=(1, 16, 16), classes=3, latent=5)
    x, one, other = torch.rand(2, 1, 16, 16), torch.tensor([0, 1]), torch.tensor([2, 1])
    net = small(architecture)().discriminator(spec).eval()
    assert (net(x, one).logits != net(x, other).logits).tolist() == [True, False]
    net = small(architecture)(discriminator_label="none").discriminator(spec).eval()
    assert torch.equal(net(x, one).logits, net(x, other).logits)


@pytest.mark.parametrize("architecture", BOTH)
@pytest.mark.parametrize("option", ["width", "code", "embedding"])
def test_options_below_one_are_refused(architecture, option):
    with pytest.raises(PluginError, match=f"'{option}' of at least 1"):
        architecture(**{option: 0})


@pytest.mark.parametrize("architecture", BOTH)
def test_errors_keep_their_digits_in_half_precision(architecture):
    torch.manual_seed(0)
    net = small(architecture)().discriminator(SPEC)
    x = torch.rand(4, 3, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = net(x).logits
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, net(x).logits, rtol=0.02, atol=1e-3)


def test_an_auto_encoder_learns_the_data_and_k_rises_with_it():
    """D learns to reconstruct, so fakes are worse than gamma times that, or k would grow; the resume carries k."""
    raw = {"optimizer": {"name": "adam", "lr": 5e-3}, "train": {"batch": 8}}
    trainer = tiny_trainer(
        loss=lambda: BEGAN(gamma=0.9, lambda_k=0.05), architecture=lambda: small(Autoencoder)(error="l1"), raw=raw
    )
    first = []
    for number in range(40):
        trainer.round()
        if number in (0, 39):
            first.append(trainer.report().terms["D/real"])
    assert first[1] < 0.8 * first[0]
    loss = trainer.losses["D"]
    assert 0 < loss.k.item() <= 1
    assert loss.measure.item() > 0


def test_ebgan_trains_with_the_pulling_away_term():
    trainer = tiny_trainer(
        loss=EBGAN, architecture=lambda: small(Autoencoder)(), regularizers={"pulling-away": PullingAway}
    )
    for _ in range(3):
        trainer.round()
    terms = trainer.report().terms
    assert 0 <= terms["G/pulling-away"] <= 1


def test_the_papers_preset_of_began_has_the_papers_networks():
    recipe = resolve("began", Request(presets=("paper",)), registry())
    parts = assemble.cast(recipe, registry(), Spec(shape=(3, 32, 32)))
    assert parts.spec.prior == "uniform"
    assert count(parts.nets["G"]) == count(ELUAutoencoder(width=128).generator(Spec(shape=(3, 32, 32), latent=64)))
    assert parts.nets["D"].feature_width == 64
    assert parts.nets["D"].error == "l1"


def test_a_dcgan_gives_vectors_where_it_is_asked_to():
    spec = Spec(shape=(1, 16, 16), classes=3, latent=5)
    x, label = torch.rand(4, 1, 16, 16), torch.tensor([0, 1, 2, 0])
    assert DCGAN(width=4, outputs=7).discriminator(spec)(x, label=label).logits.shape == (4, 7)
    assert DCGAN(width=4).discriminator(spec)(x, label=label).logits.shape == (4,)
    for label_use in ("projection", "heads"):
        with pytest.raises(PluginError, match="set outputs = 1"):
            DCGAN(outputs=7, discriminator_label=label_use)
    with pytest.raises(PluginError, match="'outputs' of at least 1"):
        DCGAN(outputs=0)


def test_cramer_trains_on_vectors():
    trainer = tiny_trainer(
        loss=Cramer,
        architecture=lambda: DCGAN(width=4, outputs=8, discriminator_norm="none"),
        regularizers={"cramer-penalty": CramerPenalty},
    )
    for _ in range(3):
        trainer.round()
    assert trainer.report().terms["D/cramer-penalty"] > 0
