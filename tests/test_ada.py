"""Adaptive augmentations: each transformation and the controller against a second, independent computation."""

import math

import pytest
import torch
import torch.nn.functional as F
from ganzoo_plugins.regularizers import _transforms
from ganzoo_plugins.regularizers._transforms import LOW_PASS, blit, color, geometric
from ganzoo_plugins.regularizers.ada import ADA
from ganzoo_plugins.regularizers.apa import APA
from ganzoo_plugins.regularizers.diffaugment import DiffAugment
from ganzoo_plugins.regularizers.r1 import R1
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ganzoo.api import PluginError
from ganzoo.costs import Shown
from ganzoo.game import Duel
from ganzoo.testing.tiny import tiny_data, tiny_trainer

ALWAYS, NEVER = torch.ones(()), torch.zeros(())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [4, 9, 16])
def test_at_probability_zero_every_bit_stays(channels: int, size: int) -> None:
    x = torch.randn(5, channels, size, size)
    assert torch.equal(ADA(probability=0.0).view(x), x)
    assert not torch.equal(ADA(probability=1.0).view(x), x)


# pixel blits


def moves(size: int) -> dict[tuple[bool, int, int, int], Tensor]:
    """Every outcome of a blit as where each pixel comes from, by torch's own flips, turns and padding."""
    source, most = torch.arange(float(size * size)).view(1, 1, size, size), size // 8
    found = {}
    for flip in (False, True):
        for turns in range(4):
            turned = torch.rot90(source.flip(-1) if flip else source, turns, (2, 3))
            padded = F.pad(turned, (most,) * 4, mode="reflect")
            for down in range(-most, most + 1):
                for right in range(-most, most + 1):
                    top, left = most - down, most - right
                    found[flip, turns, down, right] = padded[0, 0, top : top + size, left : left + size]
    return found


def drawn(p: float, count: int, size: int = 8) -> list[tuple[bool, int, int, int]]:
    """Which outcome each of so many samples met."""
    source = torch.arange(float(size * size)).view(1, 1, size, size).expand(count, 2, -1, -1)
    shown = blit(source, torch.tensor(p))
    assert torch.equal(shown[:, 0], shown[:, 1])
    known = {tuple(value.flatten().tolist()): key for key, value in moves(size).items()}
    assert len(known) == 8 * 9
    return [known[tuple(each.flatten().tolist())] for each in shown[:, 0]]


def test_blits_are_flips_quarter_turns_and_shifts() -> None:
    assert set(drawn(1.0, 2000)) == set(moves(8))


def test_blits_are_as_frequent_as_published() -> None:
    """A flip is drawn with p / 2, a turn with 3 p / 4, and a row or column leaves its place by one with p / 2."""
    met = drawn(0.6, 4000)
    share = [sum(bool(each[part]) for each in met) / len(met) for part in range(4)]
    # U(-1/8, 1/8) of 8 pixels rounds to a whole one in half of the cases
    assert share == pytest.approx([0.3, 0.45, 0.3, 0.3], abs=0.03)
    both = sum(bool(each[2]) and bool(each[3]) for each in met) / len(met)
    assert both == pytest.approx(0.6 / 4, abs=0.03)  # the two directions are moved together or not at all


# geometric transformations


def test_the_low_pass_is_an_orthonormal_wavelet_with_six_vanishing_moments() -> None:
    taps = torch.tensor(LOW_PASS, dtype=torch.float64)
    assert float(taps.sum()) == pytest.approx(2**0.5, abs=1e-10)
    for shift in range(6):
        product = float((taps[2 * shift :] * taps[: 12 - 2 * shift]).sum())
        assert product == pytest.approx(float(shift == 0), abs=1e-10)
    place = torch.arange(12, dtype=torch.float64)
    for moment in range(6):
        assert abs(float(((-1) ** place * place**moment * taps).sum())) < 1e-6 * 11**moment


def placed(monkeypatch: pytest.MonkeyPatch, matrix: list[list[float]]) -> None:
    """Let every sample come from these places, in halves of the size."""

    def fixed(x: Tensor, p: Tensor, once: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tensor(matrix, dtype=x.dtype).expand(len(x), 2, 3), torch.ones(len(x), dtype=torch.bool)

    monkeypatch.setattr(_transforms, "_placed", fixed)


def test_geometric_moves_by_whole_pixels_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    size, right, down = 16, 3, -2
    placed(monkeypatch, [[1, 0, -right * 2 / size], [0, 1, -down * 2 / size]])
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    expected = torch.roll(x, (down, right), (2, 3))
    inner = slice(9, 11)  # what the filters reach without the border
    torch.testing.assert_close(geometric(x, ALWAYS)[:, :, inner, inner], expected[:, :, inner, inner])


@pytest.mark.parametrize("angle", [0.0, math.pi / 2, 0.7])
@pytest.mark.parametrize("zoom", [1.0, 1.3])
def test_geometric_of_a_plane_is_the_plane_elsewhere(monkeypatch: pytest.MonkeyPatch, angle: float, zoom: float) -> None:
    size, slope = 32, (0.02, -0.03)
    cos, sin, move = zoom * math.cos(angle), zoom * math.sin(angle), (0.1, -0.2)
    placed(monkeypatch, [[cos, -sin, move[0]], [sin, cos, move[1]]])
    middle = (torch.arange(size, dtype=torch.float64) + 0.5) - size / 2
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    shown = geometric((slope[0] * x + slope[1] * y)[None, None], ALWAYS)[0, 0]
    # a wavelet that is only nearly symmetric moves what it doubles by a fraction of a pixel, and what it halves back
    taps = torch.tensor(LOW_PASS, dtype=torch.float64)
    delay = float((torch.arange(12) * taps).sum() / taps.sum() - 5.5) / 2
    assert abs(delay) < 0.25
    from_x = cos * (x + delay) - sin * (y + delay) + move[0] * size / 2 - delay
    from_y = sin * (x + delay) + cos * (y + delay) + move[1] * size / 2 - delay
    expected = slope[0] * from_x + slope[1] * from_y
    inner = (from_x.abs() < 9) & (from_y.abs() < 9) & (x.abs() < 9) & (y.abs() < 9)
    assert int(inner.sum()) > 50
    torch.testing.assert_close(shown[inner], expected[inner])


def test_geometric_draws_are_those_published() -> None:
    x = torch.zeros(20_000, 1, 4, 4)
    place, moved = _transforms._placed(x, ALWAYS, ALWAYS)
    assert bool(moved.all())
    linear, offset = place[:, :, :2], place[:, :, 2]
    zoom = linear.det().log2() / 2  # rotations and stretchings keep the area
    assert float(zoom.mean()) == pytest.approx(0, abs=0.01)
    assert float(zoom.std()) == pytest.approx(0.2, rel=0.05)
    singular = torch.linalg.svdvals(linear)
    stretch = (singular[:, 0] / singular[:, 1]).log2() / 2
    assert float(stretch.square().mean().sqrt()) == pytest.approx(0.2, rel=0.05)
    moved_by = -torch.linalg.solve(linear, offset) / 2  # shares of the size
    assert float(moved_by.std()) == pytest.approx(1 / 8, rel=0.05)
    heading = torch.atan2(linear[:, 1, 0], linear[:, 0, 0])
    assert float(heading.cos().mean()) == pytest.approx(0, abs=0.03)  # any direction


def test_a_turn_before_or_after_the_stretching_has_probability_p() -> None:
    x = torch.zeros(20_000, 1, 4, 4)
    p = torch.tensor(0.5)
    once = 1 - (1 - p).sqrt()
    _, moved = _transforms._placed(x, p, once)
    assert float((~moved).float().mean()) == pytest.approx(0.5**4, abs=0.01)  # zoom, stretching, shift, a turn at all


# colours


def rodrigues(angle: float) -> Tensor:
    """A rotation around the grey axis, by the formula for any axis."""
    axis = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64) / 3**0.5
    cross = torch.tensor([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]], dtype=torch.float64)
    return torch.eye(3, dtype=torch.float64) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def color_draws(count: int, p: float) -> list[dict[str, float]]:
    """The same draws in the order of the pipeline."""
    share = [(torch.rand(count) < p).tolist() for _ in range(3)]
    bright, contrast = torch.randn(count, dtype=torch.float64).tolist(), torch.randn(count, dtype=torch.float64).tolist()
    flip = (torch.rand(count) < 0.5).tolist()
    share += [(torch.rand(count) < p).tolist() for _ in range(2)]
    hue = ((torch.rand(count, dtype=torch.float64) * 2 - 1) * math.pi).tolist()
    saturation = torch.randn(count, dtype=torch.float64).tolist()
    return [
        {
            "brightness": 0.2 * bright[i] * share[0][i],
            "contrast": 2 ** (0.5 * contrast[i] * share[1][i]),
            "flip": flip[i] and share[2][i],
            "hue": hue[i] * share[3][i],
            "saturation": 2 ** (saturation[i] * share[4][i]),
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("p", [1.0, 0.5])
def test_color_against_matrices_one_after_another(p: float) -> None:
    count = 20
    x = torch.randn(count, 3, 5, 4, dtype=torch.float64)
    torch.manual_seed(3)
    shown = color(x, torch.tensor(p))
    torch.manual_seed(3)
    grey = torch.ones(3, 3, dtype=torch.float64) / 3
    for index, each in enumerate(color_draws(count, p)):
        pixels = x[index].flatten(1) + each["brightness"]
        pixels = pixels * each["contrast"]
        pixels = (torch.eye(3) - 2 * grey * each["flip"]).double() @ pixels
        pixels = rodrigues(each["hue"]) @ pixels
        pixels = (grey + (torch.eye(3) - grey) * each["saturation"]) @ pixels
        torch.testing.assert_close(shown[index].flatten(1), pixels)


def test_color_of_grey_images_is_brightness_contrast_and_luma_flip() -> None:
    count = 20
    x = torch.randn(count, 1, 5, 4, dtype=torch.float64)
    torch.manual_seed(4)
    shown = color(x, ALWAYS)
    torch.manual_seed(4)
    for index, each in enumerate(color_draws(count, 1.0)):
        expected = (x[index] + each["brightness"]) * each["contrast"] * (-1 if each["flip"] else 1)
        torch.testing.assert_close(shown[index], expected)


# the whole pipeline


@pytest.mark.parametrize("pipe", ["b", "g", "c"])
@pytest.mark.parametrize("channels", [1, 3])
def test_ada_differentiates_twice(pipe: str, channels: int) -> None:
    regularizer = ADA(pipe=pipe, probability=1.0)
    x = torch.randn(2, channels, 4, 4, dtype=torch.float64, requires_grad=True)

    def view(x: Tensor) -> Tensor:
        torch.manual_seed(1)
        return regularizer.view(x)

    assert torch.autograd.gradcheck(view, (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: view(x).pow(3), (x,), fast_mode=True)
    slope = torch.func.grad(lambda x: view(x).pow(2).sum())(x)  # as compiled costs take it
    torch.testing.assert_close(slope, torch.autograd.grad(view(x).pow(2).sum(), x)[0])


def test_ada_draws_from_the_global_generator_and_goes_through_its_pipe() -> None:
    x = torch.randn(4, 3, 16, 16)
    shown = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        shown.append(ADA(probability=1.0).view(x))
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])
    torch.manual_seed(1)
    assert torch.equal(color(geometric(blit(x, ALWAYS), ALWAYS), ALWAYS), shown[0])
    torch.manual_seed(1)
    assert torch.equal(ADA(pipe="b", probability=1.0).view(x), shown[0]) is False


class NoSynchronisation(TorchDispatchMode):
    """Fails where a tensor's value is asked for, which would make an accelerator wait."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        assert func is not torch.ops.aten._local_scalar_dense.default, "a value was read back"
        return func(*args, **(kwargs or {}))


def test_nothing_waits_for_a_value() -> None:
    regularizer, x = ADA(probability=0.5, interval=1), torch.randn(4, 3, 16, 16, requires_grad=True)
    with NoSynchronisation():
        slope = torch.autograd.grad(regularizer.view(x).square().sum(), x, create_graph=True)[0]
        slope.square().sum().backward()
        regularizer.observe(torch.randn(4), torch.randn(4))
        APA(probability=0.5).passed_off(Duel(torch.nn.Identity(), x.detach(), x.detach()))


def test_ada_refuses_what_it_cannot_do() -> None:
    for wrong in (torch.zeros(2, 8), torch.zeros(2, 2, 8, 8), torch.zeros(2, 3, 8, 4)):
        with pytest.raises(PluginError, match="augments square images"):
            ADA().view(wrong)
    for options, match in (
        ({"probability": 1.5}, "'probability'"),
        ({"target": -0.1}, "'target'"),
        ({"interval": 0}, "'interval'"),
        ({"ramp": 0}, "'ramp'"),
    ):
        for plugin in (ADA, APA):
            with pytest.raises(PluginError, match=match):
                plugin(**options)


# the controller


def test_the_controller_by_hand() -> None:
    regularizer = ADA(target=0.6, interval=2, ramp=1000)
    sure, unsure = torch.tensor([3.0, 1.0, 0.5, 2.0, -1.0]), torch.tensor([3.0, 1.0, 0.5, -2.0, -1.0])  # r = .6 and .2
    fake = torch.zeros(5)
    regularizer.observe(torch.ones(5), fake)
    assert float(regularizer.now()) == 0  # the interval is not over
    regularizer.observe(sure, fake)  # r = (1 + .6) / 2 = .8
    assert float(regularizer.now()) == pytest.approx(10 / 1000)
    for _ in range(2):
        regularizer.observe(torch.ones(15), fake)
    assert float(regularizer.now()) == pytest.approx(40 / 1000)  # by how many samples were seen
    regularizer.observe(unsure, fake)
    regularizer.observe(torch.ones(5), fake)  # r = (.2 + 1) / 2: on target, nothing moves
    assert float(regularizer.now()) == pytest.approx(40 / 1000)
    for _ in range(2):
        regularizer.observe(-torch.ones(35), fake)
    assert float(regularizer.now()) == 0  # 70 down from 40: not below zero
    for _ in range(2):
        regularizer.observe(torch.ones(5, 4), fake)  # patches: 10 samples, not 40
    assert float(regularizer.now()) == pytest.approx(10 / 1000)


def test_the_controller_starts_where_it_is_told_and_stays_below_one() -> None:
    regularizer = APA(probability=0.5, target=0.6, interval=1, ramp=10)
    regularizer.observe(torch.ones(4), torch.zeros(4))
    assert float(regularizer.now()) == pytest.approx(0.9)
    regularizer.observe(torch.ones(4), torch.zeros(4))
    assert float(regularizer.now()) == 1
    regularizer.observe(-torch.ones(4), torch.zeros(4))
    assert float(regularizer.now()) == pytest.approx(0.6)
    other = APA(probability=0.5, target=0.6, interval=1, ramp=10)
    other.load_state_dict(regularizer.state_dict())
    assert float(other.now()) == pytest.approx(0.6)


def test_without_a_target_the_probability_is_what_the_recipe_says() -> None:
    regularizer = ADA(probability=0.3, target=0.0, interval=1, ramp=1)
    regularizer.observe(torch.ones(4), torch.zeros(4))
    assert float(regularizer.now()) == pytest.approx(0.3)
    regularizer.probability = 0.7  # as a schedule sets it
    assert float(regularizer.now()) == pytest.approx(0.7)


def test_ada_trains_with_r1_in_bf16() -> None:
    trainer = tiny_trainer(
        regularizers={"ada": lambda: ADA(probability=0.8, ramp=100), "r1": R1}, raw={"train": {"precision": "bf16"}}
    )
    for _ in range(3):
        trainer.round()
    assert all(math.isfinite(value) for value in trainer.report().terms.values())


# fakes as reals


def test_apa_replaces_a_share_of_the_reals() -> None:
    meeting = Duel(torch.nn.Identity(), torch.zeros(4000, 1, 1, 1), torch.ones(4000, 1, 1, 1))
    shown = Shown.of("D", meeting, "discriminator", [APA(probability=0.3)])
    assert float(shown.real.mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(shown.fake, meeting.fake)
    for nothing in (
        Shown.of("D", meeting, "generator", [APA(probability=1.0)]),
        Shown.of("D", meeting, "discriminator", [APA(probability=0.0)]),
        Shown.of("D", meeting, "discriminator", [DiffAugment()]),
    ):
        assert torch.equal(nothing.real, meeting.real)


def test_apa_takes_the_fakes_labels_with_them_and_no_gradient() -> None:
    count = 200
    meeting = Duel(
        torch.nn.Identity(),
        torch.zeros(count, 2),
        torch.ones(count, 2, requires_grad=True),
        real_cond={"label": torch.zeros(count, dtype=torch.long)},
        fake_cond={"label": torch.ones(count, dtype=torch.long)},
    )
    shown = Shown.of("D", meeting, "discriminator", [APA(probability=0.5)])
    assert torch.equal(shown.real[:, 0].long(), shown.real_cond["label"])
    assert not shown.real.requires_grad
    assert 0 < int(shown.real_cond["label"].sum()) < count


@pytest.mark.parametrize("classes", [0, 2])
def test_apa_at_probability_one_leaves_d_nothing_to_tell_apart(classes: int) -> None:
    trainer = tiny_trainer(
        regularizers={"apa": lambda: APA(probability=1.0, target=0.0)}, data=tiny_data(classes=classes), raw={}
    )
    trainer.round()
    terms = trainer.report().terms
    assert terms["D/real"] == terms["D/fake"]
