"""The built-in networks: what they return for every kind of spec, and that they are the published ones."""

import pytest
import torch
import torch.nn.functional as F
from ganzoo_plugins.architectures.dcgan import DCGAN
from ganzoo_plugins.architectures.mlp import MLP
from ganzoo_plugins.architectures.resnet import DiscriminatorBlock, GeneratorBlock, ResNet
from torch import nn

from ganzoo.api import Architecture, DiscriminatorOutput, PluginError, Spec
from ganzoo.layers.conditional import ConditionalBatchNorm, LabelledLatent, LabelledMap

N = 4
SMALL: dict[str, Architecture] = {
    "mlp": MLP(),
    "dcgan": DCGAN(width=4),
    "resnet": ResNet(generator_width=16, discriminator_width=16),
}
PER_SAMPLE: dict[str, Architecture] = {
    "mlp": MLP(discriminator_norm="none"),
    "dcgan-none": DCGAN(width=4, discriminator_norm="none"),
    "dcgan-layer": DCGAN(width=4, discriminator_norm="layer"),
    "resnet-sum": ResNet(discriminator_width=8),
    "resnet-mean": ResNet(discriminator_width=8, pool="mean"),
}
WITH_ALL_SPECS = [
    pytest.param(name, Spec((channels, size, size), classes, latent=12), id=f"{name}-{channels}x{size}-{classes}")
    for name in SMALL
    for size in (16, 32, 64, 128)
    for channels in (1, 3)
    for classes in (0, 10)
]


def conditions(spec: Spec, first: int = 0) -> dict[str, torch.Tensor]:
    return {"label": (torch.arange(N) + first) % spec.classes} if spec.classes else {}


def images(spec: Spec) -> torch.Tensor:
    return torch.rand(N, *spec.shape) * 2 - 1


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("name", "spec"), WITH_ALL_SPECS)
def test_networks_fit_the_spec_and_differentiate_twice(name: str, spec: Spec) -> None:
    generator, discriminator = SMALL[name].generator(spec), SMALL[name].discriminator(spec)
    fake = generator(torch.randn(N, spec.latent), **conditions(spec))
    assert fake.shape == (N, *spec.shape)
    assert fake.abs().max() <= 1
    assert fake.std() > 0

    output = discriminator(fake, **conditions(spec))
    assert isinstance(output, DiscriminatorOutput)
    assert output.logits.shape == (N,)
    assert output.features is not None
    assert output.features.shape[0] == N
    assert output.features.dim() == 2
    output.logits.sum().backward()
    for net in (generator, discriminator):
        for key, parameter in net.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
    assert any(parameter.grad.abs().sum() > 0 for parameter in generator.parameters())

    discriminator.zero_grad()
    x = images(spec).requires_grad_()
    logits = discriminator(x, **conditions(spec)).logits
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    (gradient.flatten(1).norm(dim=1) - 1).square().mean().backward()
    grads = [parameter.grad for parameter in discriminator.parameters() if parameter.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)
    assert sum(grad.abs().sum() for grad in grads) > 0


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("classes", [0, 10])
def test_bfloat16_autocast_forward_and_double_backward(name: str, classes: int) -> None:
    spec = Spec((3, 32, 32), classes, latent=12)
    generator, discriminator = SMALL[name].generator(spec), SMALL[name].discriminator(spec)
    z, cond = torch.randn(N, 12), conditions(spec)
    exact = discriminator(generator(z, **cond), **cond).logits.detach()
    with torch.autocast("cpu", torch.bfloat16):
        x = generator(z, **cond).detach().float().requires_grad_()
        assert x.abs().max() <= 1
        logits = discriminator(x, **cond).logits
        (gradient,) = torch.autograd.grad(logits.float().sum(), x, create_graph=True)
        gradient.square().sum().backward()
    torch.testing.assert_close(logits.float(), exact, atol=0.1 * float(exact.abs().max()) + 0.02, rtol=0.1)
    assert all(p.grad.isfinite().all() for p in discriminator.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", PER_SAMPLE)
@pytest.mark.parametrize("classes", [0, 10])
def test_discriminators_without_batch_norm_judge_each_sample_alone(name: str, classes: int) -> None:
    spec = Spec((3, 32, 32), classes)
    discriminator = PER_SAMPLE[name].discriminator(spec)
    x = images(spec)
    changed = x.clone()
    changed[1] = torch.rand(3, 32, 32)
    before, after = (discriminator(each, **conditions(spec)).logits for each in (x, changed))
    others = [0, 2, 3]
    torch.testing.assert_close(before[others], after[others], atol=1e-6, rtol=1e-5)
    assert (before[1] - after[1]).abs() > 1e-5


@pytest.mark.parametrize("architecture", [MLP(), DCGAN(width=4)])
def test_discriminators_with_batch_norm_mix_samples(architecture: Architecture) -> None:
    spec = Spec((3, 32, 32))
    discriminator = architecture.discriminator(spec)
    x = images(spec)
    changed = x.clone()
    changed[1] = 1
    assert (discriminator(x).logits[0] - discriminator(changed).logits[0]).abs() > 1e-5


@pytest.mark.parametrize("name", SMALL)
def test_labels_change_what_both_networks_return(name: str) -> None:
    spec = Spec((1, 32, 32), 10, latent=12)
    generator, discriminator = SMALL[name].generator(spec), SMALL[name].discriminator(spec)
    for embedding in (layer for layer in generator.modules() if isinstance(layer, nn.Embedding)):
        nn.init.normal_(embedding.weight)  # a conditional batch norm starts with all labels alike
    z, x = torch.randn(N, 12), images(spec)
    fakes = [generator(z, **conditions(spec, first)) for first in (0, 1)]
    logits = [discriminator(x, **conditions(spec, first)).logits for first in (0, 1)]
    assert (fakes[0] - fakes[1]).abs().max() > 1e-3
    assert (logits[0] - logits[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", SMALL)
def test_labels_missing_or_unwanted_are_refused(name: str) -> None:
    spec, plain = Spec((1, 16, 16), 10, latent=12), Spec((1, 16, 16), latent=12)
    for make, data in ((SMALL[name].generator, torch.randn(N, 12)), (SMALL[name].discriminator, images(plain))):
        with pytest.raises(PluginError, match="10 classes was given no labels"):
            make(spec)(data)
        with pytest.raises(PluginError, match="0 classes was given labels"):
            make(plain)(data, **conditions(spec))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 32, 64), (0, 32, 32), (3, 8, 8), (3, 256, 256), (3, 4, 32, 32), (64,)])
def test_specs_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...]) -> None:
    for make in (SMALL[name].generator, SMALL[name].discriminator):
        with pytest.raises(PluginError, match=f"architecture '{name}' cannot make samples of shape"):
            make(Spec(shape))


@pytest.mark.parametrize(
    ("build", "culprit"),
    [
        (lambda: MLP(embedding=0), "embedding"),
        (lambda: DCGAN(width=0), "width"),
        (lambda: DCGAN(kernel=1), "kernel"),
        (lambda: ResNet(generator_width=-1), "generator_width"),
        (lambda: ResNet(discriminator_width=20).discriminator(Spec((3, 64, 64))), "discriminator_width"),
    ],
)
def test_options_out_of_range_are_refused(build: object, culprit: str) -> None:
    with pytest.raises(PluginError, match=culprit):
        build()  # type: ignore[operator]


def test_dcgan_has_the_published_parameter_counts() -> None:
    spec = Spec((3, 32, 32), latent=100)
    assert parameters(DCGAN().generator(spec)) == 1_068_931
    assert parameters(DCGAN().discriminator(spec)) == 663_360


@pytest.mark.parametrize(
    ("size", "classes", "generator", "discriminator"),
    [
        (32, 0, 4_276_739, 1_053_825),
        (32, 10, 4_304_387, 1_055_105),
        (64, 0, 12_220_675, 10_141_441),
        (128, 0, 32_150_787, 29_017_857),
    ],
)
def test_resnet_has_the_published_parameter_counts(size: int, classes: int, generator: int, discriminator: int) -> None:
    spec = Spec((3, size, size), classes, latent=128)
    with torch.device("meta"):
        assert parameters(ResNet().generator(spec)) == generator
        assert parameters(ResNet().discriminator(spec)) == discriminator


@pytest.mark.parametrize("kernel", [2, 3, 4, 5, 6, 7])
def test_dcgan_keeps_its_sizes_with_every_kernel(kernel: int) -> None:
    spec = Spec((1, 32, 32), latent=8)
    architecture = DCGAN(width=2, kernel=kernel)
    fake = architecture.generator(spec)(torch.randn(N, 8))
    assert fake.shape == (N, 1, 32, 32)
    output = architecture.discriminator(spec)(fake)
    assert output.logits.shape == (N,)
    assert output.features.shape == (N, 8 * 4 * 4)


@pytest.mark.parametrize(("size", "widths"), [(16, [64, 128]), (32, [64, 128, 256]), (64, [64, 128, 256, 512])])
def test_dcgan_doubles_its_width_inwards(size: int, widths: list[int]) -> None:
    spec = Spec((3, size, size))
    down = [layer.out_channels for layer in DCGAN().discriminator(spec).modules() if isinstance(layer, nn.Conv2d)]
    up = [layer.in_channels for layer in DCGAN().generator(spec).modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert down == [*widths, 1]
    assert up == [128, *widths[::-1]]


def test_dcgan_norms_and_biases() -> None:
    spec = Spec((3, 32, 32))
    kinds = {
        norm: [type(layer) for layer in DCGAN(discriminator_norm=norm).discriminator(spec).layers]
        for norm in ("batch", "layer", "none")
    }
    assert kinds["batch"].count(nn.BatchNorm2d) == 2
    assert kinds["layer"].count(nn.GroupNorm) == 2
    assert set(kinds["none"]) == {nn.Conv2d, nn.LeakyReLU}
    plain = DCGAN(generator_norm="none").generator(spec)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in plain.modules())
    assert all(layer.bias is not None for layer in plain.modules() if isinstance(layer, nn.ConvTranspose2d))


def test_dcgan_draws_its_weights_as_the_paper_does() -> None:
    generator = DCGAN().generator(Spec((3, 32, 32)))
    for layer in generator.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        if isinstance(layer, nn.BatchNorm2d):
            assert float(layer.weight.detach().mean()) == pytest.approx(1, abs=0.02)
            assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.5)


def test_resnet_draws_its_weights_from_xavier_with_the_published_gains() -> None:
    spec = Spec((3, 32, 32))
    block = ResNet().discriminator(spec).blocks[1]
    for layer, gain in ((block.conv1, 2**0.5), (block.conv2, 2**0.5), (block.shortcut, 1.0)):
        pixels = layer.kernel_size[0] ** 2
        bound = gain * (6 / ((layer.in_channels + layer.out_channels) * pixels)) ** 0.5
        assert 0.97 * bound < float(layer.weight.detach().abs().max()) <= bound
        assert not layer.bias.any()


def conv3(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """The plain convolution with a layer's parameters, whatever the layer folds into it."""
    return F.conv2d(x, layer.weight, layer.bias, padding=1)


def test_resnet_shortcuts_equal_the_published_order_of_operations() -> None:
    x = torch.randn(2, 4, 8, 8)
    up = GeneratorBlock(4, 6, 0)
    hidden = conv3(up.conv1, F.interpolate(F.relu(up.norm1(x)), scale_factor=2))
    expected = up.conv2(F.relu(up.norm2(hidden))) + up.shortcut(F.interpolate(x, scale_factor=2))
    torch.testing.assert_close(up(x, None), expected)
    down = DiscriminatorBlock(4, 4, 6, halve=True)
    expected = F.avg_pool2d(conv3(down.conv2, F.relu(down.conv1(F.relu(x)))) + down.shortcut(x), 2)
    torch.testing.assert_close(down(x), expected)
    first = DiscriminatorBlock(4, 6, 6, halve=True, first=True)
    expected = F.avg_pool2d(conv3(first.conv2, F.relu(first.conv1(x))), 2) + first.shortcut(F.avg_pool2d(x, 2))
    torch.testing.assert_close(first(x), expected)
    same = DiscriminatorBlock(4, 4, 4, halve=False)
    torch.testing.assert_close(same(x), same.conv2(F.relu(same.conv1(F.relu(x)))) + x)


@pytest.mark.parametrize(("size", "halved"), [(16, 2), (32, 2), (64, 5), (128, 5)])
def test_resnet_discriminator_halves_as_published(size: int, halved: int) -> None:
    blocks = ResNet(discriminator_width=16).discriminator(Spec((3, size, size))).blocks
    assert [block.halve for block in blocks] == [True] * halved + [False] * (len(blocks) - halved)


def test_resnet_pools_by_sum_or_mean_and_projects_labels() -> None:
    spec = Spec((3, 32, 32), 10)
    discriminator = ResNet(discriminator_width=8).discriminator(spec)
    x, cond = images(spec), conditions(spec)
    output = discriminator(x, **cond)
    pooled = F.relu(discriminator.blocks(x)).sum((2, 3))
    torch.testing.assert_close(output.features, pooled)
    embedded = discriminator.projection.weight[cond["label"]]
    plain = output.features @ discriminator.linear.weight[0] + discriminator.linear.bias
    torch.testing.assert_close(output.logits, plain + (embedded * output.features).sum(1))
    mean = ResNet(discriminator_width=8, pool="mean").discriminator(spec)
    mean.load_state_dict(discriminator.state_dict())
    torch.testing.assert_close(mean(x, **cond).features * 64, output.features)  # the last map is 8x8


def test_conditional_batch_norm_scales_and_shifts_by_label() -> None:
    layer, plain = ConditionalBatchNorm(3, classes=2), nn.BatchNorm2d(3)
    x, label = torch.randn(N, 3, 5, 5), torch.tensor([0, 1, 1, 0])
    torch.testing.assert_close(layer(x, label), plain(x))
    with torch.no_grad():
        layer.embedding.weight[1] = torch.tensor([2.0, 3.0, 4.0, -1.0, 0.0, 1.0])
    expected = plain(x)
    expected[1:3] = expected[1:3] * torch.tensor([2.0, 3.0, 4.0]).view(3, 1, 1) + torch.tensor([-1.0, 0.0, 1.0]).view(
        3, 1, 1
    )
    torch.testing.assert_close(layer(x, label), expected)
    assert parameters(layer) == 2 * 2 * 3
    torch.testing.assert_close(ConditionalBatchNorm(3)(x), plain(x))


def test_labelled_inputs_append_what_is_looked_up() -> None:
    z, x, label = torch.randn(N, 5), torch.randn(N, 3, 4, 4), torch.tensor([0, 1, 2, 1])
    latent, image = LabelledLatent(5, 3, 7), LabelledMap(3, 4, 3)
    assert (latent.width, image.channels) == (12, 4)
    torch.testing.assert_close(latent(z, label), torch.cat([z, latent.embedding.weight[label]], 1))
    torch.testing.assert_close(image(x, label)[:, :3], x)
    torch.testing.assert_close(image(x, label)[:, 3].flatten(1), image.embedding.weight[label])


@pytest.mark.parametrize("name", SMALL)
def test_state_dict_round_trip(name: str) -> None:
    spec = Spec((3, 32, 32), 10, latent=12)
    first, second = SMALL[name].generator(spec), SMALL[name].generator(spec)
    first(torch.randn(N, 12), **conditions(spec))  # moves the running statistics
    second.load_state_dict(first.state_dict())
    z = torch.randn(N, 12)
    assert torch.equal(first.eval()(z, **conditions(spec)), second.eval()(z, **conditions(spec)))
