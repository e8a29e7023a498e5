"""Shared layers equal the plain operations that they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from ganzoo.errors import PluginError
from ganzoo.flops import FlopCounter
from ganzoo.layers.projections import FromPixel, ToPixel
from ganzoo.layers.resampling import ConvolveHalve, DoubleConvolve


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("layer", "plain", "shape"),
    [(FromPixel, nn.ConvTranspose2d, (3, 5, 1, 1)), (ToPixel, nn.Conv2d, (3, 5, 4, 4))],
)
def test_matrix_products_equal_the_convolutions(layer, plain, shape, layout, bias):
    torch.manual_seed(0)
    made, expected = (kind(5, 6, 4, bias=bias).double().to(memory_format=layout) for kind in (layer, plain))
    expected.load_state_dict(made.state_dict())
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(made(x), expected(x))
    grads = []
    for module in (made, expected):  # the double backward that gradient penalties take
        (slope,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
        grads.append(torch.autograd.grad(slope.square().sum(), [x, *module.parameters()]))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_other_sizes_are_refused():
    with pytest.raises(PluginError, match=r"1x1 pixels"):
        FromPixel(5, 6, 4)(torch.zeros(2, 5, 2, 2))
    with pytest.raises(PluginError, match=r"use nn\.Conv2d"):
        ToPixel(5, 6, 4)(torch.zeros(2, 5, 8, 8))


def double(conv, x):
    return conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def halve(conv, x):
    return F.avg_pool2d(conv(x), 2)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(("layer", "plain"), [(DoubleConvolve, double), (ConvolveHalve, halve)])
def test_folded_resampling_is_the_same_function_to_the_second_derivative(layer, plain, kernel, bias):
    torch.manual_seed(0)
    folded = layer(5, 6, kernel, bias=bias).double()
    conv = nn.Conv2d(5, 6, kernel, padding=kernel // 2, bias=bias).double()
    conv.load_state_dict(folded.state_dict())  # the same parameters under the same names
    x = torch.randn(2, 5, 8, 6, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(folded(x), plain(conv, x), rtol=1e-12, atol=1e-12)
    grads = []
    for module, call in ((folded, folded), (conv, lambda x: plain(conv, x))):
        (slope,) = torch.autograd.grad(call(x).square().sum(), x, create_graph=True)
        grads.append(torch.autograd.grad(slope.square().sum(), [x, *module.parameters()]))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("layer", "plain"), [(DoubleConvolve, double), (ConvolveHalve, halve)])
def test_folded_resampling_equals_the_textbook_in_float32_and_does_four_ninths_of_its_work(layer, plain):
    torch.manual_seed(0)
    folded, conv = layer(16, 16), nn.Conv2d(16, 16, 3, padding=1)
    conv.load_state_dict(folded.state_dict())
    x = torch.randn(4, 16, 16, 16)
    with FlopCounter() as cheap:
        made = folded(x)
    with FlopCounter() as full:
        expected = plain(conv, x)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)
    assert cheap.total * 9 == full.total * 4


def test_a_parametrized_weight_is_folded_too():
    torch.manual_seed(0)
    folded = weight_norm(DoubleConvolve(3, 4))
    x = torch.randn(2, 3, 4, 4)
    before = folded(x)
    with torch.no_grad():
        folded.parametrizations.weight.original0.mul_(2)
    torch.testing.assert_close(folded(x) - folded.bias[:, None, None], 2 * (before - folded.bias[:, None, None]))


def test_an_even_kernel_cannot_keep_the_size():
    with pytest.raises(PluginError, match="needs an odd kernel"):
        ConvolveHalve(3, 4, 4)
