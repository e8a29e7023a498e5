"""Networks that grow, meet at every scale, or are modulated by styles, against their formulas worked out by other means."""

import math

import pytest
import torch
import torch.nn.functional as F
from ganzoo_plugins.architectures.msg import MSG
from ganzoo_plugins.architectures.progan import ProGAN
from ganzoo_plugins.architectures.stylegan2 import StyleGAN2
from ganzoo_plugins.games.multi_scale import MultiScale
from ganzoo_plugins.games.progressive import Progressive
from ganzoo_plugins.regularizers.gradient_penalty import GradientPenalty
from ganzoo_plugins.regularizers.path_length import PathLength
from torch import nn

from ganzoo.api import Batch, DiscriminatorOutput, PluginError, Progress, Spec, Staged, Truncatable
from ganzoo.game import Duel
from ganzoo.jobs import run_recipe
from ganzoo.layers.equalized import EqualizedConv2d, EqualizedConvolveHalve, EqualizedDoubleConvolve, EqualizedLinear
from ganzoo.layers.fir import FIR, FilteredHalve
from ganzoo.layers.modulation import ModulatedConv2d
from ganzoo.layers.pixel_norm import PixelNorm
from ganzoo.layers.scales import pack, pyramid, scales, unpack, widths
from ganzoo.players import Plan
from ganzoo.recipe import Stage
from ganzoo.registry import registry
from ganzoo.sampling import load
from ganzoo.testing import check_recipe, tiny_data, tiny_trainer
from ganzoo.zoo import Request, resolve

N = 4
SPEC = Spec((3, 16, 16), latent=6)
LABELLED = Spec((3, 16, 16), classes=5, latent=6)
SMALL = {"channel_base": 64, "channel_max": 8}
PYRAMID = ("pyramid_generator", "pyramid_discriminator")
COUNTS = [  # of the sources, each built there: zoo.md 22, 23, 31
    (ProGAN(channel_base=16384, channel_max=512), 32, 0, (20_727_308, 20_726_785)),
    (ProGAN(channel_base=16384, channel_max=512), 1024, 0, (23_086_795, 23_087_249)),
    (MSG(channel_base=16384, channel_max=512), 32, 0, (20_719_628, 17_184_001)),
    (MSG(channel_base=16384, channel_max=512), 128, 0, (22_933_394, 18_659_329)),
    ("cifar", 32, 0, (19_947_539, 20_720_641)),
    ("cifar", 32, 10, (20_215_315, 23_089_664)),
    (StyleGAN2(channel_base=16384, channel_max=512, style=512), 256, 0, (24_767_458, 24_001_089)),
    (StyleGAN2(channel_base=32768, channel_max=512, style=512), 1024, 0, (30_370_060, 29_012_513)),
]
CIFAR = StyleGAN2(channel_base=32768, channel_max=512, style=512, mapping_layers=2, discriminator_blocks="plain")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def spread_of(x: torch.Tensor) -> float:
    return float(x.detach().std())


def noisy(net: nn.Module) -> nn.Module:
    """Give every bias and strength, which start at zero, a value of its own."""
    for name, parameter in net.named_parameters():
        if name.endswith(("bias", "strength")):
            nn.init.normal_(parameter, parameter.mean().item(), 0.3)
    return net


def progress(size: int | None, share: float = 1.0, *, grew: bool = True) -> Progress:
    return Progress(0, 100, 0, 1, share, size, grew)


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def labels(spec: Spec) -> dict[str, torch.Tensor]:
    return {"label": torch.arange(N) % spec.classes} if spec.classes else {}


# layers ---------------------------------------------------------------------------------------------------------------


def test_equalized_linear_by_hand() -> None:
    layer = EqualizedLinear(8, 3, gain=2.0, multiplier=0.01, start=1.0)
    x = torch.randn(N, 8)
    expected = x @ (layer.weight * 2.0 * 0.01 / math.sqrt(8)).t() + 1.0
    torch.testing.assert_close(layer(x), expected)
    wide = EqualizedLinear(200, 200, multiplier=0.01)
    assert spread_of(wide.weight) == pytest.approx(100, rel=0.03)
    assert spread_of(wide(torch.randn(500, 200))) == pytest.approx(1, rel=0.05)  # the multiplier leaves the start alone


def test_a_multiplier_scales_what_a_step_of_one_length_does() -> None:
    outputs = []
    for multiplier in (1.0, 0.1):
        torch.manual_seed(1)
        layer = EqualizedLinear(5, 5, multiplier=multiplier)
        x = torch.randn(N, 5)
        before = layer(x)
        with torch.no_grad():
            layer.weight += 1e-2  # Adam's steps have about the length of its rate, whatever the gradient
            layer.bias += 1e-2
        outputs.append(layer(x) - before)
    torch.testing.assert_close(outputs[1], outputs[0] * 0.1, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kernel", [1, 3])
def test_equalized_convolutions_are_plain_ones_with_scaled_weights(kernel: int) -> None:
    x = torch.randn(2, 4, 6, 6)
    for layer, expect in (
        (EqualizedConv2d, lambda weight, bias: F.conv2d(x, weight, bias, padding=kernel // 2)),
        (
            EqualizedDoubleConvolve,
            lambda weight, bias: F.conv2d(F.interpolate(x, scale_factor=2.0), weight, bias, padding=kernel // 2),
        ),
        (EqualizedConvolveHalve, lambda weight, bias: F.avg_pool2d(F.conv2d(x, weight, bias, padding=kernel // 2), 2)),
    ):
        built = noisy(layer(4, 5, kernel, gain=math.sqrt(2)))
        weight = built.weight * math.sqrt(2) / math.sqrt(4 * kernel * kernel)
        torch.testing.assert_close(built(x), expect(weight, built.bias), atol=1e-5, rtol=1e-5)


def test_pixel_norm_gives_each_pixel_a_vector_of_unit_size() -> None:
    normal = PixelNorm()(torch.randn(2, 7, 3, 3) * 5)
    torch.testing.assert_close(normal.square().mean(1), torch.ones(2, 3, 3))
    assert PixelNorm()(torch.zeros(1, 7)).abs().max() == 0


def filtered(x: torch.Tensor, before: int, after: int, gain: float = 1.0) -> torch.Tensor:
    """Sum the sixteen shifts of a padded map, tap by tap: [1, 3, 3, 1] / 8 each way."""
    x = F.pad(x, (before, after, before, after))
    taps, size = [1 / 8, 3 / 8, 3 / 8, 1 / 8], x.shape[-1] - 3
    return gain * sum(
        taps[row] * taps[column] * x[..., row : row + size, column : column + size]
        for row in range(4)
        for column in range(4)
    )


def spread(x: torch.Tensor) -> torch.Tensor:
    """Put zeros between the pixels."""
    made = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3], dtype=x.dtype)
    made[..., ::2, ::2] = x
    return made


def test_filtered_doubling_and_halving_tap_by_tap() -> None:
    x, fir = torch.randn(2, 3, 6, 6), FIR()
    torch.testing.assert_close(fir.doubled(x), filtered(spread(x), 2, 1, gain=4))
    torch.testing.assert_close(fir.halved(x), filtered(x, 1, 1)[..., ::2, ::2])
    torch.testing.assert_close(fir.blurred(x, 2, gain=3.0), filtered(x, 2, 2, gain=3))
    bilinear = F.interpolate(x, scale_factor=2.0, mode="bilinear")
    torch.testing.assert_close(fir.doubled(x)[..., 1:-1, 1:-1], bilinear[..., 1:-1, 1:-1])


def test_filters_differentiate_twice() -> None:
    fir = FIR()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    for function in (fir.doubled, fir.halved, lambda x: fir.blurred(x, 2)):
        assert torch.autograd.gradgradcheck(lambda x, f=function: f(x).square(), x)


@pytest.mark.parametrize("kernel", [1, 3])
def test_filtered_halving_is_a_strided_convolution_of_the_filtered_map(kernel: int) -> None:
    x, layer = torch.randn(2, 4, 8, 8), noisy(FilteredHalve(4, 5, kernel))
    around = kernel // 2 + 1
    expected = F.conv2d(filtered(x, around, around), layer.weight / math.sqrt(4 * kernel**2), layer.bias)[..., ::2, ::2]
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_convolutions_have_the_papers_weights_for_each_sample(double: bool, demodulate: bool) -> None:
    layer = noisy(ModulatedConv2d(4, 5, 3, 7, demodulate=demodulate, double=double))
    x, w = torch.randn(N, 4, 6, 6), torch.randn(N, 7)
    style = w @ (layer.affine.weight / math.sqrt(7)).t() + layer.affine.bias
    for index in range(N):
        weight = layer.weight * style[index][None, :, None, None]  # equation 1 of the paper
        if demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()  # equation 3
        else:
            weight = weight / math.sqrt(4 * 9)
        one = x[index : index + 1]
        if double:
            expected = filtered(F.conv2d(spread(one), weight, padding=1), 2, 1, gain=4)
        else:
            expected = F.conv2d(one, weight, padding=1)
        # at the border the convolution sees zeros before the filter does, here and in the authors' code
        inner = (slice(None), slice(None), slice(2, -2), slice(2, -2)) if double else (slice(None),)
        torch.testing.assert_close(layer(x, w)[index : index + 1][inner], expected[inner], atol=1e-5, rtol=1e-4)


def test_a_style_starts_near_one_and_demodulation_keeps_unit_size() -> None:
    layer = ModulatedConv2d(64, 64, 3, 16)
    assert layer.affine(torch.zeros(1, 16)).unique().tolist() == [1.0]
    assert spread_of(layer(torch.randn(8, 64, 16, 16), torch.randn(8, 16))[..., 1:-1, 1:-1]) == pytest.approx(1, rel=0.05)


def test_pyramids_are_means_and_come_back_from_their_rows() -> None:
    x = torch.randn(2, 3, 16, 16)
    images = pyramid(x)
    assert [image.shape[-1] for image in images] == scales(16) == [4, 8, 16]
    torch.testing.assert_close(images[0], x.unflatten(2, (4, 4)).unflatten(4, (4, 4)).mean((3, 5)))
    for image, again in zip(images, unpack(pack(images), 3, [4, 8, 16]), strict=True):
        assert torch.equal(image, again)
    with pytest.raises(PluginError, match="a game of pyramids"):
        unpack(x, 3, [4, 8, 16])
    with pytest.raises(PluginError, match="do not double from 4"):
        scales(24)
    assert widths(64, 512, 64) == [64, 64, 32, 16, 8]


@pytest.mark.parametrize(("architecture", "size", "classes", "expected"), COUNTS)
def test_published_networks_have_the_sources_parameters(architecture, size, classes, expected) -> None:
    architecture = CIFAR if architecture == "cifar" else architecture
    roles = PYRAMID if isinstance(architecture, MSG) else ("generator", "discriminator")
    with torch.device("meta"):
        spec = Spec((3, size, size), classes, latent=512)
        assert tuple(parameters(getattr(architecture, role)(spec)) for role in roles) == expected


# progan ---------------------------------------------------------------------------------------------------------------


def grown(spec: Spec = SPEC, **options) -> tuple[nn.Module, nn.Module]:
    architecture = ProGAN(**SMALL, **options)
    return noisy(architecture.generator(spec)), noisy(architecture.discriminator(spec))


@pytest.mark.parametrize("spec", [SPEC, LABELLED], ids=["plain", "labelled"])
@pytest.mark.parametrize("size", [8, 16])
def test_a_fade_begins_with_the_image_of_the_size_before_and_ends_with_the_new_one(size: int, spec: Spec) -> None:
    G, _ = grown(spec)
    z, cond = torch.randn(N, spec.latent), labels(spec)
    G.on_progress(progress(size // 2))
    before = F.interpolate(G(z, **cond), scale_factor=2.0, mode="nearest")
    G.on_progress(progress(size, 0.0))
    assert torch.equal(G(z, **cond), before)
    G.on_progress(progress(size, 1.0))
    whole = G(z, **cond)
    x = G.first(torch.nn.functional.normalize(G.condition(z, **cond), dim=1) * math.sqrt(G.condition.width))
    for block in G.blocks[: scales(size).index(size)]:
        x = block(x)
    alone = G.colours[scales(size).index(size)](x)  # the newest layers, with nothing of the older colours
    torch.testing.assert_close(whole, alone, atol=1e-4, rtol=1e-4)
    G.on_progress(progress(size, 0.125))  # a quarter of a fade that takes half of the stage
    torch.testing.assert_close(G(z, **cond), 0.25 * whole + 0.75 * before)


@pytest.mark.parametrize("spec", [SPEC, LABELLED], ids=["plain", "labelled"])
def test_a_discriminator_fades_from_the_means_to_the_new_layers(spec: Spec) -> None:
    _, D = grown(spec)
    x, cond = torch.randn(N, 3, 16, 16), labels(spec)
    D.on_progress(progress(8))
    before = D(F.avg_pool2d(x, 2), **cond)
    D.on_progress(progress(16, 0.0))
    torch.testing.assert_close(D(x, **cond), before)
    D.on_progress(progress(16, 0.7))
    large, small = D.scales
    new = D.judgement(small.block(large.block(large.colours(x))), cond.get("label"))
    assert torch.equal(D(x, **cond).logits, new.logits)
    D.on_progress(progress(16, 0.25))
    half = (large.block(large.colours(x)) + small.colours(F.avg_pool2d(x, 2))) / 2
    torch.testing.assert_close(D(x, **cond).logits, D.judgement(small.block(half), cond.get("label")).logits)


def test_alpha_follows_the_stage() -> None:
    G, D = grown(fade=0.25)
    assert isinstance(G, Staged)
    assert G.depth == D.depth == 2  # whole where nobody tells
    for stage, expected in (
        (progress(8, 0.0), (1, 0.0)),
        (progress(8, 0.125), (1, 0.5)),
        (progress(8, 0.25), (1, 1.0)),
        (progress(8, 0.0, grew=False), (1, 1.0)),  # another stage of the same size
        (progress(4, 0.0), (0, 0.0)),
        (progress(None, 0.0, grew=False), (2, 1.0)),
    ):
        G.on_progress(stage)
        assert (G.depth, float(G.alpha)) == expected
        assert G.fading == (expected[1] < 1 and expected[0] > 0)
    whole, _ = grown(fade=0.0)
    whole.on_progress(progress(8, 0.0))
    assert not whole.fading
    with pytest.raises(PluginError, match="cannot grow to the stage's 32 pixels"):
        G.on_progress(progress(32))
    assert "alpha" not in G.state_dict()


def test_stages_of_another_size_grow() -> None:
    stages = tuple(Stage(samples=10, size=size) for size in (4, 8, 8, 16, None))
    plan = Plan(samples=1, batch=1, turns=("D", "G"), stages=stages)
    assert [plan.at(10 * index, 0)[0].grew for index in range(5)] == [False, True, False, True, True]


def test_real_samples_are_as_coarse_as_the_fade() -> None:
    G, D = grown()
    x, z = torch.randn(N, 3, 8, 8), torch.randn(N, 6)
    coarse = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0, mode="nearest")
    for share, expected in ((0.0, coarse), (0.125, 0.25 * x + 0.75 * coarse), (0.5, x)):
        for net in (G, D):
            net.on_progress(progress(8, share))
        (duel,) = Progressive().play({"G": G, "D": D}, Batch(x), z, "D").duels
        torch.testing.assert_close(duel.real, expected)
        torch.testing.assert_close(duel.fake, G(z))  # which are blended already


def test_training_grows_and_every_layer_learns() -> None:
    stages = [{"samples": 16, "size": size} for size in (4, 8, 16)]
    trainer = tiny_trainer(
        architecture=lambda: ProGAN(**SMALL), game=Progressive, raw={"stages": stages}, data=tiny_data(channels=3)
    )
    start = {key: value.clone() for net in trainer.nets.values() for key, value in net.state_dict().items()}
    sizes = []
    for _ in range(6):
        trainer.round()
        sizes.append(trainer.nets["G"](torch.randn(2, 8)).shape[-1])
    assert sizes == [4, 4, 8, 8, 16, 16]
    for net in trainer.nets.values():
        still = [key for key, value in net.state_dict().items() if torch.equal(value, start[key])]
        assert not still
    assert trainer.averages["G"].net.depth == 2


def test_a_checkpoint_from_the_middle_knows_its_size(tmp_path) -> None:
    values = {
        **{"data.size": 16, "train.batch": 8, "train.precision": "fp32", "train.keep": 9, "train.checkpoint": 16},
        **{"architecture.channel_base": 64, "architecture.channel_max": 8},
        **{f"stages.{number}.samples": 16 for number in range(4)},
        **{f"stages.{number}.size": size for number, size in enumerate((4, 8, 16, 16))},
    }
    recipe = resolve("progan", Request(values=values), registry())
    run_recipe(recipe, registry(), tmp_path, "cpu")
    files = sorted((tmp_path / "checkpoints").glob("*.safetensors"))
    models = [load(file, "cpu") for file in files]
    assert [tuple(model.sample(2).shape) for model in models] == [(2, 1, size, size) for size in (8, 16, 16, 16)]
    assert [float(model.nets["G"].alpha) for model in models] == [0.0, 0.0, 1.0, 1.0]


# msg ------------------------------------------------------------------------------------------------------------------


def test_all_scales_of_a_pyramid_are_the_colours_of_its_maps() -> None:
    G = noisy(MSG(**SMALL).pyramid_generator(SPEC))
    z = torch.randn(N, 6)
    images = unpack(G(z), 3, [4, 8, 16])
    weight = (G.first.weight * math.sqrt(2) / math.sqrt(6)).view(8, 4, 4, 6).permute(3, 0, 1, 2)
    x = G.second(F.conv_transpose2d(z[:, :, None, None], weight, G.bias.flatten()))  # 4x4, of one pixel
    for index, image in enumerate(images):
        x = x if index == 0 else G.blocks[index - 1](x)
        torch.testing.assert_close(image, G.colours[str(image.shape[-1])](x), atol=1e-4, rtol=1e-4)


def test_one_image_is_the_last_of_the_pyramid() -> None:
    architecture = MSG(**SMALL)
    many, one = architecture.pyramid_generator(LABELLED), architecture.generator(LABELLED)
    missing, left = one.load_state_dict(many.state_dict(), strict=False)
    assert not missing
    assert {key.split(".")[1] for key in left} == {"4", "8"}
    z = torch.randn(N, 6)
    assert torch.equal(one(z, **labels(LABELLED)), unpack(many(z, **labels(LABELLED)), 3, [4, 8, 16])[-1])


def test_a_pyramid_is_judged_from_the_largest_image_down() -> None:
    D = noisy(MSG(**SMALL).pyramid_discriminator(SPEC))
    images = [torch.randn(N, 3, size, size) for size in (4, 8, 16)]
    large, small = D.scales
    colours = [layer(image) for layer, image in zip((D.colours, small.colours, large.colours), images, strict=True)]
    assert [colour.shape[1] for colour in colours] == [4, 4, 4]  # half of 8, half of 8, all of 64 / 16
    x = torch.cat([colours[1], large.block(colours[2])], 1)
    expected = D.judgement(torch.cat([colours[0], small.block(x)], 1), None)
    assert torch.equal(D(pack(images)).logits, expected.logits)
    whole = MSG(**SMALL).discriminator(SPEC)
    whole.discriminator.load_state_dict(D.state_dict())
    assert torch.equal(whole(images[2]).logits, D(pack(pyramid(images[2]))).logits)
    assert whole.feature_width == 8


def test_the_deviation_is_that_of_the_whole_batch() -> None:
    D, alone = (MSG(**SMALL, stddev=stddev).pyramid_discriminator(SPEC) for stddev in (True, False))
    x = torch.randn(5, 3 * (16 + 64 + 256))
    changed = torch.cat([x[:4], torch.randn_like(x[:1])])
    assert (D(x).logits[:4] != D(changed).logits[:4]).all()
    torch.testing.assert_close(alone(x).logits[:4], alone(changed).logits[:4])


def test_the_game_of_all_scales() -> None:
    game, architecture = MultiScale(), MSG(**SMALL)
    spec = game.spec(SPEC)
    nets = {network: getattr(architecture, role)(spec) for network, role in game.roles.items()}
    real, z = torch.randn(N, 3, 16, 16), torch.randn(N, 6)
    (duel,) = game.play(nets, Batch(real), z, "D").duels
    assert torch.equal(duel.real, pack(pyramid(real)))
    assert torch.equal(duel.fake, nets["G"](z))
    assert game.sample(nets, z, {}).shape == real.shape
    assert torch.equal(game.sample(nets, z, {}), unpack(duel.fake, 3, [4, 8, 16])[-1])
    duel.output("fake").logits.sum().backward()
    for size, layer in nets["G"].colours.items():
        assert layer.weight.grad is not None, size
        assert layer.weight.grad.abs().sum() > 0, size
    gradients = duel.input_gradient("real")
    assert gradients.shape == duel.real.shape
    assert all(part.abs().sum() > 0 for part in gradients.split([48, 192, 768], 1))
    with pytest.raises(PluginError, match="square images"):
        game.spec(Spec((2,)))


# stylegan2 ------------------------------------------------------------------------------------------------------------


def styled(spec: Spec = SPEC, **options) -> tuple[nn.Module, nn.Module]:
    architecture = StyleGAN2(**SMALL, **{"style": 5, "mapping_layers": 2, "discriminator_mapping_layers": 2, **options})
    return noisy(architecture.generator(spec)), noisy(architecture.discriminator(spec))


def test_the_mapping_by_hand() -> None:
    G, _ = styled(LABELLED, mixing=0.0)
    z, label = torch.randn(N, 6), torch.arange(N)
    parts = [z, F.one_hot(label, 5).float() @ (G.styles.embedding.weight / math.sqrt(5)).t() + G.styles.embedding.bias]
    x = torch.cat([part / part.square().mean(1, keepdim=True).sqrt() for part in parts], 1)
    for layer in (G.styles.layers[0], G.styles.layers[2]):
        x = x @ (layer.weight * 0.01 / math.sqrt(x.shape[1])).t() + layer.bias * 0.01
        x = torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)
    w = G.mapping(z, label=label)
    assert w.shape == (N, 6, 5)  # one for each convolution of 4, 8 and 16 pixels, and one for the last colours
    torch.testing.assert_close(w[:, 0], x, atol=1e-5, rtol=1e-4)
    assert torch.equal(w, w[:, :1].expand_as(w))
    G.eval()
    assert torch.equal(G(z, label=label), G.synthesis(G.mapping(z, label=label)))


def test_each_layer_follows_its_own_style() -> None:
    G, _ = styled(mixing=0.0)
    G.eval()
    w = torch.randn(1, 6, 5)
    x, image = G.constant[None], None
    for index, block in enumerate(G.blocks):  # the colours of a size share their style with the next size's first layer
        for number, layer in enumerate(block.convolutions):
            x = layer.conv(x, w[:, 2 * index - (index > 0) + number]) + layer.noise * layer.strength + layer.bias
            x = torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)
        colours = block.colour(x, w[:, 2 * index + 1]) + block.bias
        image = colours if image is None else filtered(spread(image), 2, 1, gain=4) + colours
    torch.testing.assert_close(G.synthesis(w), image, atol=1e-5, rtol=1e-4)


def test_noise_is_drawn_in_training_and_constant_in_samples() -> None:
    G, _ = styled(mixing=0.0)
    z = torch.randn(N, 6)
    assert not torch.equal(G(z), G(z))
    G.eval()
    assert torch.equal(G(z), G(z))
    for name, parameter in G.named_parameters():
        if name.endswith("strength"):
            nn.init.zeros_(parameter)
    quiet = G(z)
    torch.testing.assert_close(G.train()(z), quiet)  # noise has started without strength


def test_the_mean_style_is_followed_and_truncation_draws_towards_it() -> None:
    G, _ = styled(mixing=0.0, mean_decay=0.9)
    z = torch.randn(32, 6)
    w = G.styles(z)
    G(z)
    torch.testing.assert_close(G.mean, 0.1 * w.mean(0))
    G.eval()
    assert isinstance(G, Truncatable)
    G(z)
    torch.testing.assert_close(G.mean, 0.1 * w.mean(0))  # samples do not move it
    whole = G(z)
    G.truncate(0.25)
    torch.testing.assert_close(G.mapping(z)[:, 3], 0.75 * G.mean + 0.25 * w)
    G.truncate(0.0)
    assert G(z).std(0).abs().max() < 1e-5
    G.truncate(1.0)
    assert torch.equal(G(z), whole)


def test_mixed_images_have_two_styles_from_a_point_on() -> None:
    G, _ = styled(mixing=1.0, mean_decay=1.0)
    z = torch.randn(64, 6)
    first = G.mapping(z)
    mixed = G._mixed(first, z, None)
    own = (mixed == first).all(2)
    assert own[:, 0].all()
    assert not own[:, -1].any()
    assert (own[:, :-1] >= own[:, 1:]).all()  # once another, always another
    points = own.sum(1)
    assert points.unique().tolist() == [1, 2, 3, 4, 5]
    assert (mixed == mixed[:, -1:])[~own].all()  # of one other latent each
    G.mixing = 0.5
    share = (G._mixed(first[:1].expand(2000, -1, -1), z[:1].expand(2000, -1), None)[:, -1] != first[0, 0]).any(1)
    assert float(share.float().mean()) == pytest.approx(0.5, abs=0.05)
    G.eval()
    assert torch.equal(G(z), G.synthesis(first))


def test_residual_blocks_keep_the_size_of_what_comes_in() -> None:
    _, D = styled()
    block, x = D.blocks[2], torch.randn(N, 4, 16, 16)
    hidden = block.body[0](x)
    hidden = block.body[2](torch.where(hidden > 0, hidden, 0.2 * hidden) * math.sqrt(2))
    hidden = torch.where(hidden > 0, hidden, 0.2 * hidden) * math.sqrt(2)
    weight = block.shortcut.weight / math.sqrt(4)
    shortcut = F.conv2d(filtered(x, 1, 1)[..., ::2, ::2], weight)
    torch.testing.assert_close(block(x), (hidden + shortcut) / math.sqrt(2), atol=1e-5, rtol=1e-4)


def test_the_label_is_projected_on_what_its_mapping_says() -> None:
    _, D = styled(LABELLED)
    x, label = torch.randn(N, 3, 16, 16), torch.arange(N)
    output = D(x, label=label)
    told = D.mapping(None, label)
    expected = ((output.features @ (D.logit.weight / math.sqrt(8)).t() + D.logit.bias) * told).sum(1) / math.sqrt(8)
    torch.testing.assert_close(output.logits, expected, atol=1e-5, rtol=1e-4)
    _, deaf = styled(LABELLED, discriminator_label="none")
    assert torch.equal(deaf(x, label=label).logits, deaf(x, label=label.flip(0)).logits)


def test_path_lengths_are_those_of_styles() -> None:
    G, D = styled(mixing=0.0)
    penalty = PathLength(shrink=1)
    penalty.prepare(G)
    z = torch.randn(N, 6)
    duel = Duel(D, torch.randn(N, 3, 16, 16), G(z), generate=lambda z, cond: G(z, **cond), z=z, acting="generator")
    cost = penalty.penalty(duel)
    cost.backward()
    assert float(penalty.average) > 0
    moved = {
        name for name, parameter in G.named_parameters() if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }
    assert {name for name, _ in G.named_parameters() if "affine.weight" in name} <= moved
    assert all(parameter.grad.isfinite().all() for parameter in G.parameters() if parameter.grad is not None)


# all of them ----------------------------------------------------------------------------------------------------------

ALL = {
    "progan": ProGAN(**SMALL),
    "msg": MSG(**SMALL),
    "stylegan2": StyleGAN2(**SMALL, style=5),
    "stylegan2-plain": StyleGAN2(**SMALL, style=5, discriminator_blocks="plain", mixing=0.0),
}


@pytest.mark.parametrize("classes", [0, 5])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
@pytest.mark.parametrize("name", ALL)
def test_networks_fit_the_spec_and_differentiate_twice(name: str, shape: tuple[int, ...], classes: int) -> None:
    spec = Spec(shape, classes, latent=6)
    G, D, cond = ALL[name].generator(spec), ALL[name].discriminator(spec), labels(spec)
    fake = G(torch.randn(N, 6), **cond)
    assert fake.shape == (N, *shape)
    output = D(fake, **cond)
    assert isinstance(output, DiscriminatorOutput)
    assert output.logits.shape == (N,)
    assert output.features is not None
    assert output.features.shape == (N, D.feature_width)
    duel = Duel(D, torch.randn(N, *shape), fake, real_cond=cond)
    GradientPenalty().penalty(duel).backward()
    assert all(p.grad.isfinite().all() for p in D.parameters() if p.grad is not None)
    assert sum(p.grad.abs().sum() for p in D.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize("name", ALL)
def test_bfloat16_stays_near(name: str) -> None:
    G, D = (noisy(net).eval() for net in (ALL[name].generator(LABELLED), ALL[name].discriminator(LABELLED)))
    z, cond = torch.randn(N, 6), labels(LABELLED)
    exact = G(z, **cond)
    judged = D(exact, **cond).logits
    with torch.autocast("cpu", torch.bfloat16):
        half = G(z, **cond).float()
        logits = D(exact, **cond).logits.float()
    for near, true in ((half, exact), (logits, judged)):  # on average: pixel norm enlarges what nearly cancels
        assert (near - true).abs().mean() < 0.06 * true.abs().mean()


@pytest.mark.parametrize("name", ALL)
def test_labels_change_what_both_networks_return(name: str) -> None:
    G, D = (net.eval() for net in (ALL[name].generator(LABELLED), ALL[name].discriminator(LABELLED)))
    z, x = torch.randn(N, 6), torch.randn(N, 3, 16, 16)
    one, two = ({"label": torch.full((N,), label)} for label in (0, 1))
    assert (G(z, **one) - G(z, **two)).abs().max() > 1e-4
    assert (D(x, **one).logits - D(x, **two).logits).abs().max() > 1e-5
    for net, given in ((G, z), (D, x)):
        with pytest.raises(PluginError, match="5 classes was given no labels"):
            net(given)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ProGAN(channel_max=0), "'channel_max' of at least 1"),
        (lambda: ProGAN(fade=1.5), "'fade' from 0 to 1"),
        (lambda: ProGAN().generator(Spec((3, 28, 28))), "cannot make samples of shape"),
        (lambda: MSG(channel_max=7).generator(SPEC), "halves its channels"),
        (lambda: MSG(channel_base=0).generator(SPEC), "'channel_base' of at least 2"),
        (lambda: StyleGAN2(mixing=2.0), "'mixing' from 0 to 1"),
        (lambda: StyleGAN2(style=0), "'style' of at least 1"),
        (lambda: StyleGAN2().discriminator(Spec((3, 4, 4))), "cannot make samples of shape"),
    ],
)
def test_options_that_cannot_work_are_refused(build, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        build()


def test_a_recipe_may_say_which_promise_it_breaks_as_published(tmp_path) -> None:
    values = {"data.size": 16, "architecture.channel_base": 64, "architecture.channel_max": 8}
    promise = "penalised-samples-are-judged-alone"
    excused = resolve("stylegan2", Request(values=values), registry())
    claimed = resolve("stylegan2", Request(values={**values, "architecture.group": 0}), registry())
    for recipe, expected in ((excused, "excused"), (claimed, "broken")):
        file = tmp_path / f"{expected}.toml"
        file.write_text(recipe.toml(), encoding="utf-8")
        assert {one.promise: one.result for one in check_recipe(str(file))}[promise] == expected
