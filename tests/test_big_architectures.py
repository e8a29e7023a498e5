"""Self-attention and the architectures that build on it: the published counts, and their formulas done by hand."""

import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from ganzoo_plugins.architectures import biggan_deep
from ganzoo_plugins.architectures.biggan import BigGAN
from ganzoo_plugins.architectures.biggan_deep import BigGANDeep
from ganzoo_plugins.architectures.dcgan import DCGAN
from ganzoo_plugins.architectures.resnet import DiscriminatorBlock, ResNet
from ganzoo_plugins.architectures.sagan import SAGAN
from ganzoo_plugins.architectures.sndcgan import SNDCGAN
from ganzoo_plugins.regularizers.spectral_norm import SpectralNorm
from PIL import Image
from torch import nn
from torch.nn.utils import parametrize

from ganzoo.api import Architecture, DiscriminatorOutput, PluginError, Spec
from ganzoo.jobs import run_recipe
from ganzoo.layers.attention import SelfAttention, attention_after, attention_maps
from ganzoo.layers.conditional import ClassTable, ModulatedBatchNorm
from ganzoo.layers.features import feature_width
from ganzoo.layers.resampling import DoubleConvolve
from ganzoo.registry import registry
from ganzoo.zoo import Request, resolve

N, LATENT = 4, 12
AT_8 = {"generator_attention": 8, "discriminator_attention": 8}
WIDTHS = {"generator_width": 16, "discriminator_width": 16}
SMALL: dict[str, Architecture] = {
    "dcgan": DCGAN(width=8, discriminator_norm="none", **AT_8),
    "resnet": ResNet(**WIDTHS, **AT_8),
    "sndcgan": SNDCGAN(width=4, **AT_8),
    "sagan": SAGAN(**WIDTHS),
    "biggan": BigGAN(generator_width=4, discriminator_width=4, embedding=6, **AT_8),
    "biggan-flat-z": BigGAN(generator_width=4, discriminator_width=4, embedding=6, hierarchical=False, **AT_8),
    "biggan-normal": BigGAN(generator_width=2, discriminator_width=2, initialisation="normal"),
    "biggan-deep": BigGANDeep(generator_width=4, discriminator_width=4, embedding=6, **AT_8),
}
each = pytest.mark.parametrize("name", SMALL)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def labels(classes: int) -> dict[str, torch.Tensor]:
    return {"label": torch.arange(N) % classes} if classes else {}


def awake(net: nn.Module) -> nn.Module:
    """Let attention count, which starts at gamma = 0."""
    for layer in net.modules():
        if isinstance(layer, SelfAttention):
            nn.init.constant_(layer.gamma, 0.7)
    return net


# published counts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "shape", "classes", "latent", "counts"),
    [
        # pytorch-gan-collections, SNGAN-CNN
        (SNDCGAN(), (3, 32, 32), 0, 100, (3_584_003, 5_860_865)),
        # PyTorch-StudioGAN, CIFAR10/SAGAN.yaml
        (SAGAN(), (3, 32, 32), 10, 128, (4_386_308, 1_075_586)),
        # PyTorch-StudioGAN, CIFAR10/BigGAN.yaml: d_conv_dim 96 means 192 channels, which are 4 x 48
        (
            BigGAN(generator_width=96, discriminator_width=48, generator_attention=16, discriminator_attention=16),
            *((3, 32, 32), 10, 80, (9_416_196, 2_415_170)),
        ),
        # BigGAN-PyTorch: CIFAR-10 with a shared embedding and undivided latents
        (
            BigGAN(generator_width=64, discriminator_width=64, hierarchical=False),
            *((3, 32, 32), 10, 128, (4_668_163, 4_207_361)),
        ),
        # BigGAN-PyTorch, launch_BigGAN_bs256x8.sh: ImageNet at 128 pixels
        (
            BigGAN(generator_width=96, discriminator_width=96, generator_attention=64, discriminator_attention=64),
            *((3, 128, 128), 1000, 120, (70_433_988, 87_982_370)),
        ),
        # PyTorch-StudioGAN, CIFAR10/BigGAN-Deep.yaml (big_resnet_deep_legacy)
        (
            BigGANDeep(generator_width=128, discriminator_width=128, generator_attention=16, discriminator_attention=16),
            *((3, 32, 32), 10, 128, (7_762_948, 2_908_930)),
        ),
        # BigGAN-PyTorch, launch_BigGAN_deep.sh: ImageNet at 128 pixels
        (
            BigGANDeep(generator_width=128, discriminator_width=128, generator_attention=64, discriminator_attention=64),
            *((3, 128, 128), 1000, 128, (50_244_484, 34_590_210)),
        ),
    ],
    ids=["sndcgan", "sagan", "biggan-studiogan", "biggan-cifar", "biggan-128", "biggan-deep-cifar", "biggan-deep-128"],
)
def test_published_parameter_counts(architecture, shape, classes, latent, counts) -> None:
    spec = Spec(shape, classes, latent=latent)
    with torch.device("meta"):
        assert (parameters(architecture.generator(spec)), parameters(architecture.discriminator(spec))) == counts


def test_an_unlabelled_discriminator_lacks_exactly_the_embedding() -> None:
    spec = Spec((3, 32, 32), 10)
    with torch.device("meta"):
        for make, width in ((ResNet, 128), (SAGAN, 128), (BigGAN, 64), (BigGANDeep, 64), (SNDCGAN, 8192)):
            with_label, without = (make(discriminator_label=label).discriminator(spec) for label in ("projection", "none"))
            assert parameters(with_label) - parameters(without) == 10 * width


# every architecture ---------------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 0)])
def test_networks_fit_the_spec_and_differentiate_twice(name: str, size: int, channels: int, classes: int) -> None:
    spec = Spec((channels, size, size), classes, latent=LATENT)
    generator, discriminator = awake(SMALL[name].generator(spec)), awake(SMALL[name].discriminator(spec))
    fake = generator(torch.randn(N, LATENT), **labels(classes))
    assert fake.shape == (N, channels, size, size)
    assert fake.abs().max() <= 1
    assert fake.std() > 0
    output = discriminator(fake, **labels(classes))
    assert isinstance(output, DiscriminatorOutput)
    assert output.logits.shape == (N,)
    assert output.features.shape == (N, feature_width(discriminator, "the test"))
    output.logits.sum().backward()
    for net in (generator, discriminator):
        for key, parameter in net.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key

    discriminator.zero_grad()
    x = (torch.rand(N, *spec.shape) * 2 - 1).requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(x, **labels(classes)).logits.sum(), x, create_graph=True)
    (gradient.flatten(1).norm(dim=1) - 1).square().mean().backward()
    grads = [parameter.grad for parameter in discriminator.parameters() if parameter.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)
    assert sum(grad.abs().sum() for grad in grads) > 0


@each
@pytest.mark.parametrize("classes", [0, 10])
def test_bfloat16_autocast_is_close_to_float32(name: str, classes: int) -> None:
    spec = Spec((3, 32, 32), classes, latent=LATENT)
    generator, discriminator = awake(SMALL[name].generator(spec)), awake(SMALL[name].discriminator(spec))
    z, cond = torch.randn(N, LATENT), labels(classes)
    exact = generator(z, **cond).detach()
    judged = discriminator(exact, **cond).logits.detach()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(generator(z, **cond).float(), exact, atol=0.1, rtol=0.1)
        x = exact.clone().requires_grad_()
        logits = discriminator(x, **cond).logits.float()
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        gradient.square().sum().backward()
    torch.testing.assert_close(logits, judged, atol=0.1 * float(judged.abs().max()) + 0.02, rtol=0.1)
    assert all(p.grad.isfinite().all() for p in discriminator.parameters() if p.grad is not None)


@each
def test_labels_change_what_both_networks_return(name: str) -> None:
    spec = Spec((1, 16, 16), 10, latent=LATENT)
    generator, discriminator = SMALL[name].generator(spec), SMALL[name].discriminator(spec)
    for table in (layer for layer in generator.modules() if isinstance(layer, nn.Embedding)):
        nn.init.normal_(table.weight)  # a conditional batch norm starts with all labels alike
    z, x = torch.randn(N, LATENT), torch.rand(N, 1, 16, 16)
    other = {"label": torch.arange(1, N + 1)}
    assert (generator(z, **labels(10)) - generator(z, **other)).abs().max() > 1e-3
    told, otherwise = discriminator(x, **labels(10)).logits, discriminator(x, **other).logits
    assert (told - otherwise).abs().max() > 0.01 * told.abs().max()
    for net, given in ((generator, z), (discriminator, x)):
        with pytest.raises(PluginError, match="10 classes was given no labels"):
            net(given)


@pytest.mark.parametrize("make", [ResNet, SAGAN, SNDCGAN, BigGAN, BigGANDeep])
def test_a_discriminator_with_label_none_accepts_and_ignores_labels(make) -> None:
    options = {"width": 4} if make is SNDCGAN else {"discriminator_width": 8}
    discriminator = make(discriminator_label="none", **options).discriminator(Spec((3, 16, 16), 10))
    assert not any(isinstance(layer, nn.Embedding) for layer in discriminator.modules())
    x = torch.rand(N, 3, 16, 16)
    told, untold = discriminator(x, **labels(10)), discriminator(x)
    assert torch.equal(told.logits, untold.logits)
    assert torch.equal(told.features, untold.features)


@each
def test_attention_begins_as_the_network_without_it(name: str) -> None:
    if not any(isinstance(layer, SelfAttention) for layer in SMALL[name].discriminator(Spec((3, 32, 32))).modules()):
        return
    spec = Spec((3, 32, 32), latent=LATENT)
    for net, x in (
        (SMALL[name].generator(spec).eval(), torch.randn(N, LATENT)),
        (SMALL[name].discriminator(spec), torch.rand(N, 3, 32, 32)),
    ):
        begun = net(x)[0]
        for layer in net.modules():
            if isinstance(layer, SelfAttention):
                layer.forward = lambda x: x
        assert torch.equal(begun, net(x)[0])


@pytest.mark.parametrize("name", ["resnet", "sndcgan", "biggan", "biggan-deep", "dcgan"])
def test_attention_where_there_is_no_such_map_is_refused(name: str) -> None:
    architecture = type(SMALL[name])(generator_attention=24, discriminator_attention=24)
    for role in ("generator", "discriminator"):
        with pytest.raises(PluginError, match=f"the {role}'s attention finds no map of 24 pixels; give one of "):
            getattr(architecture, role)(Spec((3, 32, 32)))


@pytest.mark.parametrize(
    ("build", "culprit"),
    [
        (lambda: SNDCGAN(width=0), "width"),
        (lambda: SAGAN(generator_width=-1), "'sagan' needs a 'generator_width'"),
        (lambda: SAGAN(discriminator_width=20).discriminator(Spec((3, 64, 64))), "'sagan' needs a 'discriminator_width'"),
        (lambda: BigGAN(generator_width=0), "generator_width"),
        (lambda: BigGAN(embedding=0), "embedding"),
        (lambda: BigGAN(generator_width=2).generator(Spec((3, 32, 32), latent=3)), "cannot split 3 latents into 4 pieces"),
        (lambda: BigGANDeep(depth=0), "depth"),
        (lambda: BigGANDeep(discriminator_width=1), "discriminator_width"),
    ],
)
def test_options_out_of_range_are_refused(build, culprit: str) -> None:
    with pytest.raises(PluginError, match=culprit):
        build()


@pytest.mark.parametrize(("name", "said"), [("sagan", "sagan"), ("sndcgan", "sndcgan"), ("biggan", "biggan")])
def test_specs_that_do_not_fit_are_refused(name: str, said: str) -> None:
    for make in (SMALL[name].generator, SMALL[name].discriminator):
        with pytest.raises(PluginError, match=f"architecture '{said}' cannot make samples of shape"):
            make(Spec((3, 28, 28)))


# attention ------------------------------------------------------------------------------------------------------------


def test_attention_is_the_papers_formula() -> None:
    """Pixel by pixel: softmax of query times pooled keys, weighing pooled values."""
    layer = SelfAttention(16).double()
    nn.init.constant_(layer.gamma, 0.3)
    x = torch.randn(2, 16, 4, 4, dtype=torch.float64)
    query, key, value, out = (each.weight.detach()[:, :, 0, 0] for each in (layer.query, layer.key, layer.value, layer.out))
    expected = x.clone()
    for n in range(2):
        keys, values = [], []
        for row in (0, 2):
            for column in (0, 2):
                window = [x[n, :, row + i, column + j] for i in (0, 1) for j in (0, 1)]
                keys.append(torch.stack([key @ pixel for pixel in window]).amax(0))
                values.append(torch.stack([value @ pixel for pixel in window]).amax(0))
        for row in range(4):
            for column in range(4):
                scores = [float((query @ x[n, :, row, column]) @ each) for each in keys]
                total = sum(math.exp(score) for score in scores)
                shares = [math.exp(score) / total for score in scores]
                seen = sum(share * each for share, each in zip(shares, values, strict=True))
                expected[n, :, row, column] += 0.3 * (out @ seen)
                map_ = layer.attention(x)[n, row * 4 + column]
                torch.testing.assert_close(map_, torch.tensor(shares, dtype=torch.float64))
    torch.testing.assert_close(layer(x), expected)
    assert parameters(layer) == 2 * 16 * 2 + 2 * 16 * 8 + 1


def test_attention_starts_as_the_identity_and_learns() -> None:
    layer, x = SelfAttention(8), torch.randn(2, 8, 4, 4)
    assert torch.equal(layer(x), x)
    layer(x).square().sum().backward()
    assert layer.gamma.grad.abs() > 0


@pytest.mark.parametrize("name", ["sagan", "biggan", "biggan-deep", "sndcgan", "dcgan", "resnet"])
def test_attention_maps_can_be_drawn_and_sum_to_one(name: str) -> None:
    spec = Spec((3, 16, 16), 10, latent=LATENT)
    for net, x in (
        (SMALL[name].generator(spec), torch.randn(N, LATENT)),
        (SMALL[name].discriminator(spec), torch.rand(N, 3, 16, 16)),
    ):
        (found,) = attention_maps(net, x, **labels(10))
        assert found.shape == (N, 8, 8, 4, 4)
        assert found.min() >= 0
        torch.testing.assert_close(found.sum((3, 4)), torch.ones(N, 8, 8))
        assert not found.requires_grad
        assert not any(layer._forward_pre_hooks for layer in net.modules())
    picture = F.interpolate(found[:, 2, 5][:, None], size=16, mode="bilinear")
    assert picture.shape == (N, 1, 16, 16)


def test_the_documented_picture_of_attention_can_be_drawn(tmp_path, monkeypatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "start-to-finish.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S) if "attention_maps" in block]
    monkeypatch.chdir(tmp_path)
    small = {"architecture.generator_width": 8, "architecture.discriminator_width": 8, "data.size": 16, "train.batch": 8}
    recipe = resolve("sagan", Request(values={**small, "train.samples": 16}), registry())
    run_recipe(recipe, registry(), Path("runs/sagan"), "cpu")
    exec(compile(code, "start-to-finish.md", "exec"), {})
    with Image.open("attention.png") as picture:
        assert picture.size == (8 * 18 + 2, 2 * 18 + 2)


def test_maps_of_a_network_without_attention_are_refused() -> None:
    with pytest.raises(PluginError, match="no self-attention to look at"):
        attention_maps(nn.Conv2d(3, 3, 1), torch.rand(1, 3, 4, 4))


def test_attention_comes_after_the_first_map_of_its_size() -> None:
    assert attention_after(0, [8, 16], "generator") == -1
    assert attention_after(16, [8, 16, 32], "generator") == 1
    assert attention_after(8, [16, 8, 8, 8], "discriminator") == 1
    with pytest.raises(PluginError, match="give one of 16, 8"):
        attention_after(32, [16, 8, 8, 8], "discriminator")


@pytest.mark.parametrize(("size", "expected"), [(16, 8), (32, 16), (64, 32), (128, 32)])
def test_sagan_attends_at_half_the_size_but_at_most_32_pixels(size: int, expected: int) -> None:
    architecture, spec = SAGAN(**WIDTHS), Spec((1, size, size), latent=4)
    assert attention_maps(architecture.generator(spec), torch.randn(1, 4))[0].shape[1] == expected
    assert attention_maps(architecture.discriminator(spec), torch.rand(1, 1, size, size))[0].shape[1] == expected


def test_sagan_attends_where_it_is_told_to() -> None:
    discriminator = SAGAN(**WIDTHS, attention=4).discriminator(Spec((1, 16, 16)))
    assert attention_maps(discriminator, torch.rand(1, 1, 16, 16))[0].shape == (1, 4, 4, 2, 2)


def test_spectral_norm_reaches_attention_and_leaves_tables_by_class_alone() -> None:
    spec = Spec((3, 16, 16), 10, latent=LATENT)
    for name in ("sagan", "biggan", "biggan-deep"):
        regularizer = SpectralNorm(of="both")
        generator, discriminator = SMALL[name].generator(spec), SMALL[name].discriminator(spec)
        for net in (generator, discriminator):
            regularizer.prepare(net)
            for key, layer in net.named_modules():
                if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
                    normed = parametrize.is_parametrized(layer, "weight")
                    assert normed != isinstance(layer, ClassTable), key
                    if normed:
                        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
                        assert 0.98 < float(largest) < 1.2, key
        assert any(isinstance(layer, ClassTable) for layer in generator.modules())
        assert generator(torch.randn(N, LATENT), **labels(10)).isfinite().all()


# BigGAN ---------------------------------------------------------------------------------------------------------------


def test_modulated_batch_norm_is_linear_in_its_vector() -> None:
    layer, plain = ModulatedBatchNorm(3, 5).requires_grad_(False), nn.BatchNorm2d(3, affine=False)
    x, vector = torch.randn(N, 3, 4, 4), torch.randn(N, 5)
    normal, expected = plain(x), torch.empty_like(x)
    for n in range(N):
        for channel in range(3):
            gain = 1 + sum(float(layer.gain.weight[channel, i] * vector[n, i]) for i in range(5))
            bias = sum(float(layer.bias.weight[channel, i] * vector[n, i]) for i in range(5))
            expected[n, channel] = gain * normal[n, channel] + bias
    torch.testing.assert_close(layer(x, vector), expected)
    torch.testing.assert_close(layer(x, torch.zeros(N, 5)), normal)
    assert parameters(layer) == 2 * 3 * 5
    torch.testing.assert_close(ModulatedBatchNorm(3)(x), nn.BatchNorm2d(3)(x))
    assert parameters(ModulatedBatchNorm(3)) == 6


def conv3(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """The plain convolution with a layer's parameters, whatever the layer folds into it."""
    return F.conv2d(x, layer.weight, layer.bias, padding=1)


def test_biggan_generator_is_the_published_order_of_operations() -> None:
    spec = Spec((3, 16, 16), 10, latent=11)  # pieces of 3 for the two blocks, 5 for the first map
    net = awake(BigGAN(generator_width=4, embedding=6, generator_attention=8).generator(spec))
    z, label = torch.randn(N, 11), torch.tensor([3, 1, 4, 1])
    shared = net.embedding.weight[label]
    x = (z[:, :5] @ net.linear.weight.T + net.linear.bias).view(N, 16, 4, 4)
    for number, block in enumerate(net.blocks):
        start = 5 + 3 * number
        condition = torch.cat([shared, z[:, start : start + 3]], 1)
        hidden = conv3(block.conv1, F.interpolate(F.relu(block.norm1(x, condition)), scale_factor=2))
        hidden = conv3(block.conv2, F.relu(block.norm2(hidden, condition)))
        x = hidden + block.shortcut(F.interpolate(x, scale_factor=2))
        x = net.attention(x) if number == 0 else x
    expected = torch.tanh(conv3(net.conv, F.relu(net.norm(x))))
    torch.testing.assert_close(net(z, label), expected)


def test_biggan_latents_enter_at_their_own_block_and_flat_ones_only_at_the_first_map() -> None:
    spec = Spec((3, 32, 32), latent=LATENT)
    z = torch.randn(N, LATENT)
    moved = z.clone()
    moved[:, -3:] += 1  # the last block's piece
    entered = {}
    for hierarchical in (True, False):
        net = BigGAN(generator_width=2, hierarchical=hierarchical).generator(spec).eval()
        seen = []
        net.blocks[-1].register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        first, second = net(z), net(moved)
        assert (first - second).abs().max() > 1e-4
        entered[hierarchical] = not torch.equal(*seen)  # did what lies before the last block change?
    assert entered == {True: False, False: True}


def test_biggan_discriminator_blocks_widen_in_their_first_convolution() -> None:
    net = BigGAN(discriminator_width=2).discriminator(Spec((3, 64, 64)))
    shapes = [(block.conv1.in_channels, block.conv1.out_channels, block.conv2.out_channels) for block in net.blocks]
    assert shapes == [(3, 2, 2), (2, 4, 4), (4, 8, 8), (8, 16, 16), (16, 32, 32)]
    assert [block.halve for block in net.blocks] == [True, True, True, True, False]
    assert all(isinstance(block, DiscriminatorBlock) for block in net.blocks)
    x = torch.rand(N, 3, 64, 64)
    output = net(x)
    torch.testing.assert_close(output.features, F.relu(net.blocks(x)).sum((2, 3)))
    torch.testing.assert_close(output.logits, output.features @ net.linear.weight[0] + net.linear.bias)


@pytest.mark.parametrize("make", [BigGAN, BigGANDeep])
def test_biggan_weights_start_orthogonal_or_normal(make) -> None:
    spec = Spec((3, 32, 32), 10)
    for net in (make().generator(spec), make().discriminator(spec)):
        for key, layer in net.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
                matrix = layer.weight.detach().flatten(1)
                short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
                torch.testing.assert_close(short @ short.T, torch.eye(len(short)), atol=1e-4, rtol=0, msg=key)
                assert getattr(layer, "bias", None) is None or not layer.bias.any(), key
    normal = make(initialisation="normal").discriminator(spec)
    weights = torch.cat([layer.weight.detach().flatten() for layer in normal.modules() if isinstance(layer, nn.Conv2d)])
    assert float(weights.std()) == pytest.approx(0.02, rel=0.02)


# BigGAN-deep ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("double", [False, True])
def test_deep_generator_block_is_the_published_order_of_operations(double: bool) -> None:
    block = biggan_deep.GeneratorBlock(16, 8, 5, double=double)
    x, condition = torch.randn(N, 16, 4, 4), torch.randn(N, 5)
    hidden = block.convolutions[0](F.relu(block.norms[0](x, condition)))
    hidden = F.relu(block.norms[1](hidden, condition))
    hidden = F.interpolate(hidden, scale_factor=2) if double else hidden
    hidden = conv3(block.convolutions[1], hidden)
    hidden = conv3(block.convolutions[2], F.relu(block.norms[2](hidden, condition)))
    hidden = block.convolutions[3](F.relu(block.norms[3](hidden, condition)))
    kept = torch.stack([x[:, channel] for channel in range(8)], 1)
    kept = F.interpolate(kept, scale_factor=2) if double else kept
    torch.testing.assert_close(block(x, condition), hidden + kept)
    assert [layer.out_channels for layer in block.convolutions] == [4, 4, 4, 8]
    assert isinstance(block.convolutions[1], DoubleConvolve) == double


@pytest.mark.parametrize(("width", "out", "halve"), [(8, 16, True), (16, 16, False)])
def test_deep_discriminator_block_is_the_published_order_of_operations(width: int, out: int, halve: bool) -> None:
    block = biggan_deep.DiscriminatorBlock(width, out, halve=halve)
    x = torch.randn(N, width, 4, 4)
    hidden = block.convolutions[0](F.relu(x))
    hidden = conv3(block.convolutions[1], F.relu(hidden))
    hidden = F.relu(conv3(block.convolutions[2], F.relu(hidden)))
    hidden = block.last(F.avg_pool2d(hidden, 2) if halve else hidden)
    kept = F.avg_pool2d(x, 2) if halve else x
    if width != out:
        kept = torch.cat([kept, F.conv2d(kept, block.shortcut.weight, block.shortcut.bias)], 1)
    torch.testing.assert_close(block(x), hidden + kept)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_deep_networks_have_depth_blocks_at_each_resolution(depth: int) -> None:
    architecture, spec = BigGANDeep(generator_width=4, discriminator_width=4, depth=depth), Spec((3, 32, 32), latent=5)
    doubles = [block.double for block in architecture.generator(spec).blocks]
    assert doubles == ([False] * (depth - 1) + [True]) * 3
    halves = [block.halve for block in architecture.discriminator(spec).blocks[1:]]
    assert halves == ([True] + [False] * (depth - 1)) * 2 + [False] * depth


def test_deep_latents_and_label_modulate_every_norm() -> None:
    net = BigGANDeep(generator_width=2, embedding=3).generator(Spec((3, 16, 16), 10, latent=5))
    widths = {layer.gain.in_features for layer in net.modules() if isinstance(layer, ModulatedBatchNorm)}
    assert widths == {8}
    assert net.linear.in_features == 8


# SN-DCGAN -------------------------------------------------------------------------------------------------------------


def test_sndcgan_is_table_3_of_the_paper() -> None:
    spec = Spec((3, 32, 32), latent=100)
    generator, discriminator = SNDCGAN().generator(spec), SNDCGAN().discriminator(spec)
    down = [
        (layer.out_channels, layer.kernel_size[0], layer.stride[0])
        for layer in discriminator.layers
        if isinstance(layer, nn.Conv2d)
    ]
    assert down == [(64, 3, 1), (128, 4, 2), (128, 3, 1), (256, 4, 2), (256, 3, 1), (512, 4, 2), (512, 3, 1)]
    assert {layer.negative_slope for layer in discriminator.layers if isinstance(layer, nn.LeakyReLU)} == {0.1}
    up = [(layer.out_channels, layer.kernel_size[0], layer.stride[0]) for layer in generator.layers]
    assert up == [(256, 4, 2), (128, 4, 2), (64, 4, 2), (3, 3, 1)]
    for layer in (*generator.layers, *discriminator.layers, generator.linear, discriminator.linear):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
            assert not layer.bias.any()


def test_sndcgan_heads_give_the_label_its_own_logit() -> None:
    discriminator = SNDCGAN(width=2, discriminator_label="heads").discriminator(Spec((1, 16, 16), 3))
    x, label = torch.rand(N, 1, 16, 16), torch.tensor([2, 0, 1, 2])
    output = discriminator(x, label)
    every = output.features @ discriminator.linear.weight.T + discriminator.linear.bias
    torch.testing.assert_close(output.logits, torch.stack([every[n, label[n]] for n in range(N)]))
