"""R3GAN and FastGAN: the sources' counts, how weights start, and what each block computes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from ganzoo_plugins.architectures.fastgan import FastGAN, Gate, Halving, Noise
from ganzoo_plugins.architectures.r3gan import R3GAN, Block
from ganzoo_plugins.regularizers.reconstruction import Decoder, Reconstruction, quarter
from torch import nn

from ganzoo.api import DiscriminatorOutput, PluginError, Spec
from ganzoo.game import Duel
from ganzoo.testing.tiny import TinyDiscriminator

N = 4


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# r3gan ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "size", "classes", "generator", "discriminator"),
    [
        ({"width": 768}, 32, 10, 20_781_952, 21_280_512),
        ({"width": 768}, 32, 0, 20_732_160, 20_683_776),
        ({"width": 1536, "group_width": 32}, 32, 1000, 82_914_304, 86_548_992),
        ({"width": 1536, "group_width": 32, "flat": 64}, 64, 1000, 103_570_432, 107_205_120),
    ],
)
def test_r3gan_has_the_published_counts(options, size, classes, generator, discriminator):
    spec = Spec((3, size, size), classes, latent=64)
    with torch.device("meta"):
        assert parameters(R3GAN(**options).generator(spec)) == generator
        assert parameters(R3GAN(**options).discriminator(spec)) == discriminator


@pytest.mark.parametrize(
    ("size", "widths"), [(16, [64] * 3), (32, [64] * 4), (64, [64] * 4 + [32]), (128, [64] * 4 + [32, 16])]
)
def test_r3gan_halves_its_width_above_32_pixels(size, widths):
    spec = Spec((3, size, size), latent=8)
    with torch.device("meta"):
        G, D = R3GAN().generator(spec), R3GAN().discriminator(spec)
    assert [stage[0].expand.in_channels for stage in G.stages] == widths
    assert [stage[0].expand.in_channels for stage in D.stages] == widths[::-1]
    assert all(block.spread.in_channels // block.spread.groups == 16 for block in G.modules() if isinstance(block, Block))


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("size", "channels"), [(16, 1), (32, 3), (64, 3)])
def test_r3gan_makes_and_judges_images(size, channels, classes):
    spec = Spec((channels, size, size), classes, latent=8)
    G, D = R3GAN(width=32, blocks=1).generator(spec), R3GAN(width=32, blocks=1).discriminator(spec)
    cond = {"label": torch.arange(N) % classes} if classes else {}
    x = G(torch.randn(N, 8), **cond)
    assert x.shape == (N, *spec.shape)
    output = D(x, **cond)
    assert output.logits.shape == (N,)
    assert output.features.shape == (N, D.feature_width) == (N, 32)


def test_r3gan_blocks_start_as_the_identity_with_scaled_weights():
    depth = 2 * 4
    block = Block(128, 16, depth)
    x = torch.randn(2, 128, 4, 4)
    assert torch.equal(block(x), x)
    gain = math.sqrt(2 / 1.04) * depth**-0.25
    assert float(block.expand.weight.detach().std()) == pytest.approx(gain / math.sqrt(128), rel=0.02)
    assert float(block.spread.weight.detach().std()) == pytest.approx(gain / math.sqrt(16 * 9), rel=0.02)
    assert block.contract.bias is None
    assert not block.expand.bias.any()


def test_r3gan_block_by_hand():
    block = Block(4, 4, 1)
    nn.init.normal_(block.contract.weight)
    nn.init.normal_(block.expand.bias)
    x = torch.randn(1, 4, 3, 3)

    def rectified(value: torch.Tensor) -> torch.Tensor:
        return torch.where(value > 0, value, 0.2 * value)

    inner = rectified(
        torch.einsum("oi,nihw->nohw", block.expand.weight[:, :, 0, 0], x) + block.expand.bias.view(1, -1, 1, 1)
    )
    groups = [F.conv2d(inner[:, i : i + 4], block.spread.weight[i : i + 4], padding=1) for i in (0, 4)]
    inner = rectified(torch.cat(groups, 1) + block.spread.bias.view(1, -1, 1, 1))
    expected = x + torch.einsum("oi,nihw->nohw", block.contract.weight[:, :, 0, 0], inner)
    torch.testing.assert_close(block(x), expected)


def test_r3gan_with_blocks_at_their_start_is_linear_maps_and_filters():
    """All blocks are the identity then, so both networks can be written down."""
    spec = Spec((1, 16, 16), latent=8)
    architecture = R3GAN(width=32, flat=8)  # 32, 32 and 16 channels
    G, D = architecture.generator(spec), architecture.discriminator(spec)
    z, x = torch.randn(N, 8), torch.randn(N, 1, 16, 16)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = taps[:, None] * taps

    def each(value: torch.Tensor) -> torch.Tensor:
        return kernel.expand(value.shape[1], 1, 4, 4)

    made = G.basis * F.linear(z, G.linear.weight)[:, :, None, None]
    made = F.conv_transpose2d(made, 4 * each(made), stride=2, padding=1, groups=32)
    made = F.conv2d(made, G.joints[1].weight)
    made = F.conv_transpose2d(made, 4 * each(made), stride=2, padding=1, groups=16)
    torch.testing.assert_close(G(z), F.conv2d(made, G.pixels.weight))

    seen = F.conv2d(x, D.pixels.weight)
    seen = F.conv2d(F.conv2d(seen, each(seen), stride=2, padding=1, groups=16), D.joints[0].weight)
    seen = F.conv2d(seen, each(seen), stride=2, padding=1, groups=32)
    features = (seen * D.basis.weight[:, 0]).sum((2, 3))
    torch.testing.assert_close(D(x).features, features)
    torch.testing.assert_close(D(x).logits, F.linear(features, D.linear.weight)[:, 0])


def test_r3gan_labels_by_hand():
    spec = Spec((1, 16, 16), 3, latent=8)
    architecture = R3GAN(width=32)
    D, label, x = architecture.discriminator(spec), torch.tensor([2, 0, 1, 1]), torch.randn(N, 1, 16, 16)
    output = D(x, label)
    expected = torch.einsum("nf,ef,ne->n", output.features, D.linear.weight, D.embedding.weight[label])
    torch.testing.assert_close(output.logits, expected)
    deaf = R3GAN(width=32, discriminator_label="none").discriminator(spec)
    assert torch.equal(deaf(x, label).logits, deaf(x).logits)
    with torch.device("meta"):
        large = R3GAN(width=768)
        G, D = large.generator(Spec((1, 16, 16), 10, latent=64)), large.discriminator(Spec((1, 16, 16), 10, latent=64))
    assert G.embedding.weight.shape == (10, 64)
    assert D.embedding.weight.shape == (10, 768)


def test_r3gan_starts_with_unit_variance():
    spec = Spec((3, 32, 32), 10, latent=64)
    architecture = R3GAN(width=128)
    G, D = architecture.generator(spec), architecture.discriminator(spec)
    assert float(G.embedding.weight.detach().std()) == pytest.approx(10**-0.5, rel=0.1)
    assert float(D.embedding.weight.detach().std()) == pytest.approx((10 * 128) ** -0.5, rel=0.1)
    assert float(G.linear.weight.detach().std()) == pytest.approx(128**-0.5, rel=0.1)
    assert float(D.basis.weight.detach().std()) == pytest.approx(1 / 4, rel=0.1)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [({"width": 0}, "width"), ({"blocks": 0}, "blocks"), ({"width": 12}, "groups of 16"), ({"flat": 0}, "flat")],
)
def test_r3gan_options_out_of_range_are_refused(options, culprit):
    with pytest.raises(PluginError, match=culprit):
        R3GAN(**options).generator(Spec((3, 32, 32)))


# fastgan --------------------------------------------------------------------------------------------------------------


def test_fastgan_has_the_counts_of_its_sources():
    spec = Spec((3, 256, 256), latent=256)
    rules = Reconstruction(width=32)
    with torch.device("meta"):
        G, D = FastGAN(width=64).generator(spec), FastGAN(width=64).discriminator(spec)
        rules.shown(spec)
        rules.prepare(D)
        projected = FastGAN(width=128, generator_blocks="double").generator(spec)
    assert parameters(G) + 64 * 3 == 29_127_846  # the authors' have a second output, of 128 px
    assert parameters(D) + parameters(rules) == 11_526_160
    assert parameters(projected) + 3 == 105_684_175  # Projected GAN's last convolution has a bias


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("size", [16, 32, 64, 256, 512, 1024])
def test_fastgan_makes_and_judges_images(size, classes):
    spec = Spec((3, size, size), classes, latent=8)
    architecture = FastGAN(width=4)
    G, D = architecture.generator(spec), architecture.discriminator(spec)
    cond = {"label": torch.arange(2) % classes} if classes else {}
    x = G(torch.randn(2, 8), **cond)
    assert x.shape == (2, *spec.shape)
    output = D(x, **cond)
    assert output.logits.shape == (2, 26 if size == 16 else 50)
    assert output.features.shape == (2, D.feature_width)
    assert torch.equal(output.maps[0], x)
    assert tuple((one.shape[1], one.shape[2]) for one in output.maps[1:]) == D.map_shapes
    assert all(one.shape[2] == one.shape[3] for one in output.maps)


@pytest.mark.parametrize(
    ("size", "gates"), [(32, {}), (64, {64: (4, 64)}), (256, {64: (4, 64), 128: (8, 128), 256: (16, 256)})]
)
def test_fastgan_gates_from_a_sixteenth_of_the_size(size, gates):
    widths = {4: 256, 8: 128, 16: 64, 64: 32, 128: 16, 256: 8}
    with torch.device("meta"):
        G = FastGAN(width=16).generator(Spec((3, size, size), latent=8))
    found = {int(name): (gate.squeeze.in_channels, gate.squeeze.out_channels) for name, gate in G.gates.items()}
    assert found == {name: (widths[low], widths[high]) for name, (low, high) in gates.items()}


def test_fastgan_gate_and_halving_by_hand():
    gate, x = Gate(3, 5), torch.randn(2, 3, 8, 8)
    pooled = x.reshape(2, 3, 4, 2, 4, 2).mean((3, 5))
    squeezed = torch.einsum("nchw,ochw->no", pooled, gate.squeeze.weight)
    factor = torch.sigmoid((squeezed * torch.sigmoid(squeezed)) @ gate.excite.weight[:, :, 0, 0].T)
    torch.testing.assert_close(gate(x)[:, :, 0, 0], factor)

    halving = Halving(3, 4, normed=False)
    first, _, second, _ = halving.main
    rectified = [F.leaky_relu(F.conv2d(x, first.weight, stride=2, padding=1), 0.2)]
    rectified.append(F.leaky_relu(F.conv2d(rectified[0], second.weight, padding=1), 0.2))
    direct = F.leaky_relu(F.conv2d(pooled, halving.direct[1].weight), 0.2)
    torch.testing.assert_close(halving(x), (rectified[1] + direct) / 2)


def test_fastgan_noise_is_drawn_anew_in_training_and_constant_afterwards():
    noise, x = Noise(4), torch.randn(2, 3, 4, 4)
    assert torch.equal(noise(x), x)
    with torch.no_grad():
        noise.strength.fill_(0.5)
    made = noise(x) - x
    torch.testing.assert_close(made[:, 0], made[:, 1])
    assert not torch.allclose(made[0], made[1])
    noise.eval()
    torch.testing.assert_close(noise(x), x + 0.5 * noise.noise)


def test_fastgan_ignores_a_label_that_it_is_not_to_use():
    spec, x = Spec((1, 32, 32), 3, latent=8), torch.rand(N, 1, 32, 32)
    D = FastGAN(width=4, discriminator_label="none").discriminator(spec)
    assert torch.equal(D(x, torch.arange(N) % 3).logits, D(x).logits)
    told = FastGAN(width=4).discriminator(spec)
    assert not torch.equal(
        told(x, torch.zeros(N, dtype=torch.long)).logits, told(x, torch.ones(N, dtype=torch.long)).logits
    )


@pytest.mark.parametrize("options", [{"width": 0}, {"embedding": 0}])
def test_fastgan_options_out_of_range_are_refused(options):
    with pytest.raises(PluginError, match=next(iter(options))):
        FastGAN(**options)


# reconstruction -------------------------------------------------------------------------------------------------------


class Kept(nn.Module):
    """A discriminator whose maps are the image itself, whole and at half the size."""

    map_shapes = ((1, 8), (1, 16))

    def forward(self, x):
        return DiscriminatorOutput(x.mean((1, 2, 3)), None, maps=(x, F.avg_pool2d(x, 2), x))


def test_reconstruction_by_hand():
    """With decoders that pass the map on, what is left is the distance of what D saw from its mean and its quarter."""
    rules = Reconstruction(width=1)
    rules.shown(Spec((1, 16, 16)))
    rules.prepare(Kept())
    assert [len(decoder) for decoder in rules.decoders] == [2, 2]  # a convolution and tanh: the target has 8x8 pixels
    for decoder in rules.decoders:
        nn.init.zeros_(decoder[0].weight)
        decoder[0].weight.data[0, 0, 1, 1] = 1.0
    x = torch.rand(N, 1, 16, 16) * 2 - 1
    halved = x.reshape(N, 1, 8, 2, 8, 2).mean((3, 5))
    whole = (halved.tanh() - halved).square().mean()
    quarters = [x[:, :, i : i + 8, j : j + 8] for i in (0, 8) for j in (0, 8)]
    possible = torch.stack([whole + (part.tanh() - part).square().mean() for part in quarters])
    found = torch.stack([rules.penalty(Duel(Kept(), x, x)) for _ in range(40)])
    distances = (found[:, None] - possible).abs()
    assert distances.amin(1).max() < 1e-6
    assert set(distances.argmin(1).tolist()) == {0, 1, 2, 3}


def test_a_quarter_is_the_chosen_one():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    expected = [[[0, 1], [4, 5]], [[2, 3], [6, 7]], [[8, 9], [12, 13]], [[10, 11], [14, 15]]]
    for index, part in enumerate(expected):
        assert quarter(x, torch.eye(4)[index])[0, 0].tolist() == part


@pytest.mark.parametrize(("size", "target", "widths"), [(8, 16, [64]), (8, 128, [64, 32, 32, 16]), (4, 8, [128])])
def test_decoders_double_up_to_their_target(size, target, widths):
    decoder = Decoder(5, size, target, 3, 16)
    assert decoder(torch.randn(2, 5, size, size)).shape == (2, 3, target, target)
    convolutions = [layer for layer in decoder if isinstance(layer, nn.Conv2d)]
    assert [layer.in_channels for layer in convolutions[1:]] == widths


def test_reconstruction_compares_with_what_the_views_made():
    rules, x = Reconstruction(width=1), torch.rand(N, 1, 16, 16)
    rules.shown(Spec((1, 16, 16)))
    rules.prepare(Kept())
    views = [lambda x: -x]
    torch.manual_seed(1)
    turned = rules.penalty(Duel(Kept(), x, x, views=views))
    torch.manual_seed(1)
    torch.testing.assert_close(turned, rules.penalty(Duel(Kept(), -x, x)))


def test_reconstruction_falls_back_on_features():
    rules, spec, x = Reconstruction(width=1), Spec((1, 16, 16)), torch.rand(N, 1, 16, 16)
    D = TinyDiscriminator(spec)
    rules.shown(spec)
    rules.prepare(D)
    (decoder,) = rules.decoders
    made = decoder(D(x).features)
    expected = (made - F.avg_pool2d(x, 2)).square().mean()
    torch.testing.assert_close(rules.penalty(Duel(D, x, x)), expected)
    made = decoder(D(-x).features)
    expected = (made + F.avg_pool2d(x, 2)).square().mean()
    torch.testing.assert_close(rules.penalty(Duel(D, x, x, views=[lambda x: -x])), expected)


def test_reconstruction_refuses_what_is_no_square_image():
    with pytest.raises(PluginError, match="square images again"):
        Reconstruction().shown(Spec((2,)))
    with pytest.raises(PluginError, match="'width'"):
        Reconstruction(width=0)
