"""R3GAN and FastGAN: the sources' counts, how weights start, and what each block computes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from ganzoo_plugins.architectures.r3gan import R3GAN, Block
from torch import nn

from ganzoo.api import PluginError, Spec

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
