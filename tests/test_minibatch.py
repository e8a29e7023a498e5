"""Layers and the regularizer through which D sees the samples of a batch beside one another, against loops."""

import copy
import math

import pytest
import torch
from ganzoo_plugins.architectures.dcgan import DCGAN
from ganzoo_plugins.regularizers.minibatch_discrimination import MinibatchDiscrimination
from ganzoo_plugins.regularizers.spectral_norm import SpectralNorm
from torch import Tensor, nn

from ganzoo.api import DiscriminatorOutput, PluginError, Spec
from ganzoo.layers import minibatch

SHAPE = (6, 3, 4, 4)
PIXELS = 48


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class WithFeatures(nn.Module):
    """Features x A and their sum as a logit."""

    feature_width = 4

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(PIXELS, 4))

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        features = x.flatten(1) @ self.a
        return DiscriminatorOutput(features.sum(1), features)


@pytest.mark.parametrize(("count", "group", "used"), [(8, 4, 4), (6, 4, 3), (4, 8, 4), (1, 4, 1), (7, 4, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_minibatch_stddev_against_loops(count: int, group: int, used: int, channels: int) -> None:
    x = torch.randn(count, 6, 2, 3)
    shown = minibatch.MinibatchStddev(group, channels)(x)
    assert shown.shape == (count, 6 + channels, 2, 3)
    assert torch.equal(shown[:, :6], x)
    apart, width = count // used, 6 // channels
    for sample in range(count):
        mates = [index for index in range(count) if index % apart == sample % apart]
        assert len(mates) == used
        for channel in range(channels):
            deviations = []
            for entry in range(channel * width, (channel + 1) * width):
                for row in range(2):
                    for column in range(3):
                        values = [float(x[mate, entry, row, column]) for mate in mates]
                        mean = sum(values) / used
                        deviations.append(math.sqrt(sum((value - mean) ** 2 for value in values) / used + 1e-8))
            expected = sum(deviations) / len(deviations)
            torch.testing.assert_close(shown[sample, 6 + channel], torch.full((2, 3), expected))


def test_minibatch_stddev_bears_a_collapsed_batch_and_half_precision() -> None:
    x = torch.ones(4, 2, 2, 2, requires_grad=True)
    shown = minibatch.MinibatchStddev()(x)
    torch.testing.assert_close(shown[:, 2], torch.full((4, 2, 2), 1e-4))
    shown.sum().backward()
    assert x.grad.isfinite().all()
    assert minibatch.MinibatchStddev()(x.detach().bfloat16()).dtype == torch.bfloat16
    y = torch.randn(4, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(minibatch.MinibatchStddev(), (y,), atol=1e-3, eps=1e-3)
    with pytest.raises(PluginError, match="6 channels into 4 equal parts"):
        minibatch.MinibatchStddev(4, 4)(torch.zeros(2, 6, 1, 1))
    with pytest.raises(PluginError, match="at least 1"):
        minibatch.MinibatchStddev(0)


def test_minibatch_discrimination_layer_against_loops() -> None:
    layer = minibatch.MinibatchDiscrimination(7, kernels=3, dims=2)
    features = torch.randn(5, 7) / 2
    found = layer(features).detach()
    assert found.shape == (5, 3)
    rows = layer.project.weight.detach().view(3, 2, 7)
    for i in range(5):
        for kernel in range(3):
            total = 0.0
            for j in range(5):
                if i != j:
                    gap = sum(abs(float(rows[kernel, dim] @ (features[i] - features[j]))) for dim in range(2))
                    total += math.exp(-gap)
            assert float(found[i, kernel]) == pytest.approx(total, rel=1e-4)
    torch.testing.assert_close(layer(torch.ones(5, 7)), torch.full((5, 3), 4.0))  # all the same: the other four
    wide = minibatch.MinibatchDiscrimination(4000)
    assert float(wide.project.weight.detach().std()) == pytest.approx(4000**-0.5, rel=0.02)
    for options in ({"kernels": 0}, {"dims": 0}):
        with pytest.raises(PluginError, match="at least 1"):
            minibatch.MinibatchDiscrimination(4, **options)
        with pytest.raises(PluginError, match="at least 1"):
            MinibatchDiscrimination(**options)


def test_minibatch_discrimination_adds_a_term_to_the_logits() -> None:
    D, x = WithFeatures(), torch.randn(SHAPE)
    before = D(x)
    MinibatchDiscrimination(kernels=3, dims=2).prepare(D)
    assert {name for name, _ in D.named_parameters()} == {
        "a",
        "minibatch.closeness.project.weight",
        "minibatch.linear.weight",
    }
    after = D(x)
    assert torch.equal(after.features, before.features)
    normal = torch.stack([(row - row.mean()) / (row.var(correction=0) + 1e-5).sqrt() for row in before.features])
    term = D.minibatch.closeness(normal) @ D.minibatch.linear.weight[0]
    torch.testing.assert_close(after.logits, before.logits + term)
    with torch.no_grad():
        D.minibatch.linear.weight.fill_(-1.0)
    same = D(torch.cat([x[:1]] * 6)).logits - before.logits[0]
    torch.testing.assert_close(same, torch.full((6,), -15.0))  # a collapsed batch: 3 kernels, 5 others each
    twin = copy.deepcopy(D)
    with torch.no_grad():
        twin.minibatch.linear.weight.zero_()
    torch.testing.assert_close(twin(x).logits, before.logits)
    assert not torch.allclose(D(x).logits, before.logits)


def test_minibatch_discrimination_refusals() -> None:
    with pytest.raises(PluginError, match="'minibatch-discrimination' needs a discriminator with features"):
        MinibatchDiscrimination().prepare(nn.Flatten())
    D = WithFeatures()
    MinibatchDiscrimination().prepare(D)
    with pytest.raises(PluginError, match="name it once"):
        MinibatchDiscrimination().prepare(D)


def test_minibatch_discrimination_of_a_published_network_under_spectral_norm() -> None:
    D = DCGAN(width=4).discriminator(Spec(shape=(1, 16, 16)))
    MinibatchDiscrimination(kernels=4, dims=2).prepare(D)
    SpectralNorm().prepare(D)
    with torch.autocast("cpu", torch.bfloat16):
        logits = D(torch.rand(4, 1, 16, 16)).logits
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in D.minibatch.parameters())
