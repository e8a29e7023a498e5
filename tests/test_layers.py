"""Shared layers equal the plain operations that they stand for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ganzoo.errors import PluginError
from ganzoo.layers.projections import FromPixel, ToPixel


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
