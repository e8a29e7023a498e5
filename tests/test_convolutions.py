"""Cheaper gradients: the same to the first, second and third derivative, and what they save really is saved."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ganzoo import convolutions
from ganzoo.convolutions import cheap_double_backward, gradients_of_inputs_only, small_map_products
from ganzoo.device import Device
from ganzoo.flops import FlopCounter
from ganzoo.game import Duel, input_gradient

CONVOLUTIONS = {
    "plain": (F.conv2d, (2, 4, 7, 7), (6, 4, 3, 3), {}),
    "stride that leaves a rest": (F.conv2d, (2, 4, 8, 7), (6, 4, 3, 3), {"stride": 2, "padding": 1}),
    "groups and dilation": (F.conv2d, (2, 4, 9, 9), (6, 2, 3, 3), {"groups": 2, "dilation": 2, "padding": (2, 1)}),
    "four by four": (F.conv2d, (3, 4, 8, 8), (6, 4, 4, 4), {"stride": 2, "padding": 1}),
    "one dimension": (F.conv1d, (2, 4, 11), (6, 4, 5), {"stride": 3}),
    "three dimensions": (F.conv3d, (2, 2, 4, 5, 4), (3, 2, 2, 3, 2), {"stride": (1, 2, 1), "padding": 1}),
    "transposed": (F.conv_transpose2d, (2, 4, 4, 4), (4, 3, 4, 4), {"stride": 2, "padding": 1}),
    "transposed, output padding": (
        F.conv_transpose2d, (2, 4, 4, 4), (4, 3, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2},
    ),
    "transposed, one dimension": (F.conv_transpose1d, (2, 4, 5), (4, 3, 4), {"stride": 2, "dilation": 2}),
    "transposed, three dimensions": (F.conv_transpose3d, (2, 2, 3, 3, 2), (2, 3, 2, 2, 3), {"stride": 2}),
}  # fmt: skip
RECTIFIERS = {"relu": F.relu, "torch.relu": torch.relu, "leaky": lambda x: F.leaky_relu(x, 0.2)}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def derivatives(function, inputs, context, third=True):
    """The value, its gradients, the gradients of a penalty on these, and perhaps once more."""
    with context():
        made = function(*inputs)
    first = torch.autograd.grad(made.sin().sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(one.square().sum() for one in first), inputs, create_graph=True)
    if not third:
        return made, *first, *second
    return made, *first, *second, *torch.autograd.grad(sum(one.cos().sum() for one in second), inputs)


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("biased", [False, True])
def test_every_derivative_of_a_convolution_is_the_same(name, biased):
    function, shape, kernel, options = CONVOLUTIONS[name]
    torch.manual_seed(0)
    groups, out = options.get("groups", 1), kernel[0] if "transpose" not in function.__name__ else kernel[1]
    inputs = [draw(*shape), draw(*kernel), *([draw(out * groups if "transpose" in function.__name__ else out)] * biased)]
    call = lambda x, weight, bias=None: function(x, weight, bias, **options)  # noqa: E731
    third = "output_padding" not in options  # PyTorch's own third derivative fails there
    plain = derivatives(call, inputs, contextlib.nullcontext, third)
    for found, expected in zip(derivatives(call, inputs, cheap_double_backward, third), plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", RECTIFIERS)
def test_every_derivative_of_a_rectifier_is_the_same(name):
    torch.manual_seed(0)
    inputs, weight = [draw(5, 7)], draw(7, 7)
    call = lambda x: RECTIFIERS[name](x @ weight) ** 2  # noqa: E731 (curved, so that derivatives do not end)
    plain = derivatives(call, inputs, contextlib.nullcontext)
    for found, expected in zip(derivatives(call, inputs, cheap_double_backward), plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_what_is_not_exchanged_is_called_as_it_is():
    x, weight = torch.randn(1, 4, 6, 6), torch.randn(4, 4, 3, 3)
    with cheap_double_backward():
        same = F.conv2d(x, weight, padding="same")
        single = F.conv2d(x[0], weight)
        steep = F.leaky_relu(x, -0.5)
        changed = x.clone()
        F.relu(changed, inplace=True)
    torch.testing.assert_close(same, F.conv2d(x, weight, padding=1))
    torch.testing.assert_close(single, F.conv2d(x, weight)[0])
    torch.testing.assert_close(steep, F.leaky_relu(x, -0.5))
    assert torch.equal(changed, x.clamp_min(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 1, 4)
    )


def penalty_pass(context) -> tuple[int, list[torch.Tensor]]:
    """Count a penalty's work from its forward pass to the gradients of the weights."""
    net, x = network(), torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with FlopCounter() as counter:
        with context():
            logits = net(x).flatten()
        gradient = input_gradient(logits, x)
        gradient.square().sum().backward()
    return counter.total, [p.grad for p in net.parameters() if p.grad is not None]


def test_a_penalty_does_four_passes_a_layer_and_none_for_zeros():
    """Forward, its gradient for the input, and two for the double backward: the weight's gradient and the next gradient."""
    net, x = network(), torch.randn(4, 3, 16, 16)
    with FlopCounter() as counter:
        net(x)
    forward = counter.total
    with FlopCounter() as counter:
        net[0](x)
    first_layer = counter.total
    with FlopCounter() as counter:
        net[4](torch.randn(4, 16, 4, 4))
    last_layer = counter.total
    cheap, gradients = penalty_pass(cheap_double_backward)
    native, expected = penalty_pass(contextlib.nullcontext)
    assert cheap <= 4 * forward
    assert cheap >= 4 * forward - first_layer - last_layer  # at the ends of the chain one pass may be missing
    assert native > 1.3 * cheap
    weights = [one for one in expected if one.ndim > 1]
    for found, wanted in zip([one for one in gradients if one.ndim > 1], weights, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_gradients_of_weights_are_left_out_only_where_they_are_not_asked_for():
    x, weight = draw(2, 3, 8, 8), draw(4, 3, 3, 3)
    with cheap_double_backward():
        made = F.conv2d(x, weight)
    with gradients_of_inputs_only():
        (for_x,) = torch.autograd.grad(made.sum(), x, retain_graph=True)
    found = torch.autograd.grad(made.sum(), (x, weight))
    torch.testing.assert_close(found[0], for_x)
    assert found[1].abs().sum() > 0


def test_the_exception_of_a_failed_penalty_does_not_leave_weights_without_gradients():
    with pytest.raises(RuntimeError), gradients_of_inputs_only():
        torch.autograd.grad(torch.ones(()), torch.ones((), requires_grad=True))
    assert convolutions._inputs_only == 0


@pytest.mark.parametrize("bf16", [False, True])
def test_a_duel_gives_the_same_penalty_under_autocast(bf16):
    device = Device(torch.device("cpu"), bf16)
    x = torch.randn(4, 3, 16, 16)
    results = []
    for exchange in (True, False):
        net = network()
        duel = Duel(net, x, x.flip(0))
        with device.autocast():
            if exchange:
                gradient = duel.input_gradient("real")
            else:
                shown = x.clone().requires_grad_()
                (gradient,) = torch.autograd.grad(net(shown).float().sum(), shown, create_graph=True)
            gradient.flatten(1).square().sum().backward()
        results.append([gradient.detach().flatten(1), *(p.grad for p in net.parameters() if p.ndim > 1)])
    assert results[0][0].dtype == torch.float32
    tolerance = {"rtol": 0.05, "atol": 0.05} if bf16 else {"rtol": 1e-5, "atol": 1e-6}
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, **tolerance)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding"),
    [((3, 8, 8), 4, 2, 1), ((8, 8, 8), 4, 2, 1), ((4, 4, 4), 3, 1, 1), ((4, 9, 7), 3, 2, 0), ((5, 4, 4), 4, 1, 0)],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_weights_of_small_maps_as_products(shape, kernel, stride, padding, transposed, monkeypatch):
    """In float64 the product equals the library's gradient; bfloat16 is what it is for."""
    torch.manual_seed(0)
    large = torch.randn(3, *shape, dtype=torch.float64)
    weight = torch.randn(6, shape[0], kernel, kernel, dtype=torch.float64)
    small = torch.randn_like(F.conv2d(large, weight, None, stride, padding))
    both = [stride] * 2, [padding] * 2, [1, 1]
    rest = [large.shape[i + 2] - ((small.shape[i + 2] - 1) * stride - 2 * padding + kernel) for i in (0, 1)]
    geometry = convolutions._Geometry(*both, transposed, rest if transposed else [0, 0], 1)
    pair = (large, small) if transposed else (small, large)
    expected = geometry.weight_gradient(*pair, weight)
    monkeypatch.setattr(convolutions._Geometry, "_suits_product", lambda self, small: True)
    torch.testing.assert_close(geometry.weight_gradient(*pair, weight), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("vectors", "expected"), [("AVX512", [4]), ("AVX2", [4, 4])])
def test_products_are_used_for_small_maps_where_they_pay(vectors, expected, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)
    used = []
    net = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.Conv2d(8, 8, 4, 2, 1)).to(memory_format=torch.channels_last)
    original = convolutions._Geometry._product
    record = lambda self, small, *rest: used.append(small.shape[-1]) or original(self, small, *rest)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolutions._Geometry, "_product", record)
        for bf16 in (False, True):
            with Device(torch.device("cpu"), bf16).training():
                made = net(torch.randn(2, 3, 16, 16))
            made.float().sum().backward()
    assert used == expected


def test_products_change_nothing_beyond_bfloat16s_rounding():
    gradients = []
    for context in (contextlib.nullcontext, small_map_products):
        net, x = network(), torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        with torch.autocast("cpu", torch.bfloat16), context():
            made = net(x)
        made.float().square().sum().backward()
        gradients.append([p.grad for p in net.parameters()])
    for found, expected in zip(*gradients, strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * scale)
