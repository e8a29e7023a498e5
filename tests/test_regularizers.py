"""Every regularizer against a second, independent computation."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from ganzoo_plugins.regularizers.diffaugment import DiffAugment
from ganzoo_plugins.regularizers.dragan import DRAGAN
from ganzoo_plugins.regularizers.gradient_penalty import GradientPenalty
from ganzoo_plugins.regularizers.lecam import LeCam
from ganzoo_plugins.regularizers.r1 import R1
from ganzoo_plugins.regularizers.r2 import R2
from ganzoo_plugins.regularizers.spectral_norm import SpectralNorm
from ganzoo_plugins.regularizers.weight_clipping import WeightClipping
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ganzoo.api import PluginError, Regularizer
from ganzoo.game import Duel

SHAPE = (6, 3, 4, 4)
PIXELS = 48


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Linear(nn.Module):
    """D(x) = w . x, so dD/dx = w everywhere; remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(PIXELS))
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(x.detach())
        return x.flatten(1) @ self.w


class Quadratic(Linear):
    """D(x) = w . x^2 / 2, so dD/dx = w x."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.square() / 2)


def duel(discriminator: nn.Module, acting: str = "discriminator") -> Duel:
    return Duel(discriminator, torch.randn(SHAPE), torch.randn(SHAPE), acting=acting)  # type: ignore[arg-type]


# penalties on gradients


@pytest.mark.parametrize(
    ("regularizer", "expected", "slope"),
    [
        (GradientPenalty(), lambda norm: (norm - 1) ** 2, lambda norm: 2 * (norm - 1)),
        (GradientPenalty(target=0.5), lambda norm: (norm - 0.5) ** 2, lambda norm: 2 * (norm - 0.5)),
        (DRAGAN(), lambda norm: (norm - 1) ** 2, lambda norm: 2 * (norm - 1)),
        (DRAGAN(target=2.0, perturbation=0.1), lambda norm: (norm - 2) ** 2, lambda norm: 2 * (norm - 2)),
        (R1(gamma=3.0), lambda norm: 1.5 * norm**2, lambda norm: 3 * norm),
        (R2(gamma=3.0), lambda norm: 1.5 * norm**2, lambda norm: 3 * norm),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Regularizer) else "",
)
def test_gradient_penalties_of_a_linear_discriminator(regularizer: Regularizer, expected: object, slope: object) -> None:
    discriminator = Linear()
    penalty = regularizer.penalty(duel(discriminator))
    norm = math.sqrt(sum(entry**2 for entry in discriminator.w.tolist()))
    assert penalty is not None
    assert penalty.shape == ()
    assert float(penalty.detach()) == pytest.approx(expected(norm), rel=1e-5)  # type: ignore[operator]
    penalty.backward()
    direction = discriminator.w.detach() / norm
    torch.testing.assert_close(discriminator.w.grad, slope(norm) * direction, rtol=1e-4, atol=1e-5)  # type: ignore[operator]


def test_r1_and_r2_look_at_their_own_side_of_a_quadratic_discriminator() -> None:
    discriminator = Quadratic()
    meeting = duel(discriminator)
    for regularizer, x in ((R1(gamma=10.0), meeting.real), (R2(gamma=10.0), meeting.fake)):
        discriminator.zero_grad()
        penalty = regularizer.penalty(meeting)
        gradient = discriminator.w.detach() * x.flatten(1)
        torch.testing.assert_close(penalty.detach(), 5 * gradient.square().sum(1).mean())
        penalty.backward()
        expected = 10 * discriminator.w.detach() * x.flatten(1).square().mean(0)
        torch.testing.assert_close(discriminator.w.grad, expected)


def test_r1_shares_its_forward_pass_with_the_loss() -> None:
    discriminator = Linear()
    meeting = duel(discriminator)
    R1().penalty(meeting)
    R2().penalty(meeting)
    meeting.output("real")
    meeting.output("fake")
    assert len(discriminator.shown) == 2


def test_gradient_penalty_looks_between_real_and_fake() -> None:
    discriminator, meeting = Linear(), None
    meeting = Duel(discriminator, torch.randn(SHAPE), torch.randn(SHAPE, requires_grad=True))
    GradientPenalty().penalty(meeting)
    x = discriminator.shown[0]
    alpha = ((x - meeting.real) / (meeting.fake - meeting.real)).detach().flatten(1)
    torch.testing.assert_close(alpha, alpha.median(1, keepdim=True).values.expand_as(alpha), atol=1e-3, rtol=1e-3)
    shares = alpha.median(1).values
    assert (shares >= 0).all()
    assert (shares <= 1).all()
    assert shares.unique().numel() == SHAPE[0]


def test_gradient_penalty_of_a_quadratic_discriminator() -> None:
    class Spy(Quadratic):
        def forward(self, x: Tensor) -> Tensor:
            self.x = x.detach()
            return super().forward(x)

    discriminator = Spy()
    penalty = GradientPenalty().penalty(duel(discriminator))
    norms = (discriminator.w.detach() * discriminator.x.flatten(1)).norm(dim=1)
    torch.testing.assert_close(penalty.detach(), (norms - 1).square().mean())


def test_dragan_looks_around_the_real_samples() -> None:
    discriminator = Linear()
    real = torch.randn(64, 3, 4, 4) * 0.3
    meeting = Duel(discriminator, real, torch.full_like(real, 100.0))
    DRAGAN(perturbation=0.5).penalty(meeting)
    scaled = ((discriminator.shown[0] - real) / (0.5 * real.std())).flatten(1)  # alpha u
    assert (scaled >= -1e-5).all()
    assert (scaled <= 1 + 1e-5).all()
    assert float(scaled.mean()) == pytest.approx(0.25, abs=0.05)
    alpha = scaled.max(1).values  # the largest of 48 uniform draws is nearly 1
    assert float(alpha.mean()) == pytest.approx(0.49, abs=0.12)
    assert float(alpha.std()) == pytest.approx(1 / math.sqrt(12), abs=0.1)
    assert (scaled.std(1) / alpha).min() > 0.15  # u differs within a sample


@pytest.mark.parametrize("regularizer", [GradientPenalty(), DRAGAN(), R1(), R2()])
def test_penalties_have_finite_gradients_where_the_discriminator_is_flat(regularizer: Regularizer) -> None:
    discriminator = Quadratic()
    nn.init.zeros_(discriminator.w)
    penalty = regularizer.penalty(duel(discriminator))
    penalty.backward()
    assert penalty.isfinite()
    assert discriminator.w.grad.isfinite().all()


def test_strength_names_the_option_that_a_bare_number_means() -> None:
    named = {kind: kind.strength for kind in (R1, R2, WeightClipping, GradientPenalty, DRAGAN, LeCam)}
    assert named == {
        R1: "gamma",
        R2: "gamma",
        WeightClipping: "limit",
        GradientPenalty: "weight",
        DRAGAN: "weight",
        LeCam: "weight",
    }


# weights


def test_weight_clipping_clamps_parameters_in_place_and_nothing_else() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    held = net[0].weight
    before = held.detach().clone()
    net[1].running_var.fill_(7.0)
    WeightClipping(limit=0.1).after_step([net])
    assert net[0].weight is held
    torch.testing.assert_close(held.detach(), before.maximum(torch.tensor(-0.1)).minimum(torch.tensor(0.1)))
    assert (before.abs() > 0.1).any()
    assert (net[1].weight == 0.1).all()
    assert (net[1].running_var == 7).all()
    with pytest.raises(PluginError, match="limit"):
        WeightClipping(limit=0.0)


def matrix(layer: nn.Module) -> Tensor:
    """The normalised weight with one row for each output."""
    weight = layer.weight.detach()
    return (weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight).flatten(1)


LAYERS = [
    lambda: nn.Conv2d(3, 8, 3),
    lambda: nn.Conv1d(3, 5, 3),
    lambda: nn.ConvTranspose2d(4, 6, 3),
    lambda: nn.Linear(10, 7),
    lambda: nn.Embedding(5, 9),
]


@pytest.mark.parametrize("make", LAYERS)
def test_spectral_norm_reaches_a_largest_singular_value_of_one(make: object) -> None:
    layer = make()  # type: ignore[operator]
    net = nn.Sequential(layer)
    original = matrix(layer)
    regularizer = SpectralNorm()
    regularizer.prepare(net)
    assert float(torch.linalg.svdvals(matrix(layer))[0]) == pytest.approx(1, abs=0.1)  # warm from the start
    for _ in range(400):
        regularizer.after_step([net])
    assert float(torch.linalg.svdvals(matrix(layer))[0]) == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(matrix(layer) * torch.linalg.svdvals(original)[0], original, atol=1e-3, rtol=1e-3)


def test_spectral_norm_follows_a_weight_that_changes() -> None:
    net = nn.Sequential(nn.Linear(6, 5))
    regularizer = SpectralNorm()
    regularizer.prepare(net)
    weight = net[0].parametrizations.weight.original
    with torch.no_grad():
        weight.copy_(torch.randn(5, 6) * 3)
    stale = float(torch.linalg.svdvals(matrix(net[0]))[0])
    for _ in range(300):
        regularizer.after_step([net])
    assert abs(stale - 1) > 0.05
    assert float(torch.linalg.svdvals(matrix(net[0]))[0]) == pytest.approx(1, abs=1e-3)


def test_spectral_norm_changes_nothing_in_a_forward_pass() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).train()
    regularizer = SpectralNorm()
    regularizer.prepare(net)
    x = torch.randn(2, 3, 8, 8)
    before = copy.deepcopy(net.state_dict())
    first, second = net(x), net(x)
    assert torch.equal(first, second)
    assert torch.equal(first, net.eval()(x))
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    regularizer.after_step([net])
    changed = {key for key, value in net.state_dict().items() if not torch.equal(before[key], value)}
    assert {key.rsplit(".", 1)[1] for key in changed} == {"u", "v"}


def test_spectral_norm_gradient_treats_u_and_v_as_constants() -> None:
    layer = nn.Linear(6, 5, bias=False)
    SpectralNorm().prepare(nn.Sequential(layer))
    normalise = layer.parametrizations.weight[0]
    original = layer.parametrizations.weight.original
    slope = torch.randn(5, 6)
    (layer.weight * slope).sum().backward()
    sigma = normalise.u @ original.detach() @ normalise.v
    outer = torch.outer(normalise.u, normalise.v)
    expected = (slope - (slope * layer.weight.detach()).sum() * outer) / sigma
    torch.testing.assert_close(original.grad, expected)


def test_spectral_norm_differentiates_twice() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    SpectralNorm().prepare(net)
    names = [name for name, _ in net.named_parameters()]
    values = tuple(parameter.detach().clone().requires_grad_() for parameter in net.parameters())
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *values))
    assert torch.autograd.gradgradcheck(run, (x, *values))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_spectral_norm_is_as_exact_under_autocast(device: str) -> None:
    layer = nn.Conv2d(3, 4, 3).to(device)
    SpectralNorm().prepare(nn.Sequential(layer))
    exact = layer.weight
    with torch.autocast(device, torch.bfloat16):  # halves a matrix times a vector on CUDA, though not on the CPU
        assert torch.equal(layer.weight, exact)
        assert layer(torch.randn(1, 3, 8, 8, device=device)).dtype == torch.bfloat16


def test_spectral_norm_survives_copies_and_state_dicts() -> None:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 1))
        SpectralNorm().prepare(net)
        return net

    net, x = build(1), torch.randn(2, 3, 8, 8)
    twin, other = copy.deepcopy(net), build(2)
    assert not torch.equal(net(x), other(x))
    other.load_state_dict(net.state_dict())
    for each in (twin, other):
        assert torch.equal(net(x), each(x))
    before = net(x)
    for each in (twin, other):
        with torch.no_grad():
            for parameter in each.parameters():
                parameter.add_(0.1)
        SpectralNorm().after_step([each])
    assert torch.equal(net(x), before)
    assert torch.equal(twin(x), other(x))
    assert not torch.equal(twin(x), before)


def test_spectral_norm_iterates_as_often_as_asked() -> None:
    nets = [nn.Sequential(nn.Linear(6, 5)) for _ in range(2)]
    SpectralNorm().prepare(nets[0])
    nets[1] = copy.deepcopy(nets[0])
    for net in nets:
        with torch.no_grad():
            net[0].parametrizations.weight.original.mul_(torch.linspace(-1, 2, 6))
    for _ in range(3):
        SpectralNorm().after_step([nets[0]])
    SpectralNorm(iterations=3).after_step([nets[1]])
    torch.testing.assert_close(nets[0][0].weight, nets[1][0].weight)


def test_spectral_norm_options_and_refusals() -> None:
    assert [SpectralNorm(of=of).side for of in ("discriminator", "generator", "both")] == [
        "discriminator",
        "generator",
        "both",
    ]
    assert SpectralNorm().side == "discriminator"
    with pytest.raises(PluginError, match="iterations"):
        SpectralNorm(iterations=0)
    with pytest.raises(PluginError, match="no layer to normalise in Sequential"):
        SpectralNorm().prepare(nn.Sequential(nn.ReLU()))
    nothing = nn.Sequential(nn.Linear(3, 2))
    nn.init.zeros_(nothing[0].weight)
    with pytest.raises(PluginError, match="a Linear of Sequential whose weight starts at zero"):
        SpectralNorm().prepare(nothing)
    net = nn.Sequential(nn.Linear(3, 2))
    SpectralNorm().prepare(net)
    weight = net[0].weight.detach()
    SpectralNorm().prepare(net)  # a second one finds it done
    assert torch.equal(net[0].weight, weight)
    assert {name for name, _ in net.named_parameters()} == {"0.bias", "0.parametrizations.weight.original"}


# what the discriminator is shown


def test_diffaugment_color_against_a_loop_over_samples() -> None:
    x = torch.randn(5, 3, 8, 8)
    torch.manual_seed(3)
    shown = DiffAugment(policy=("color",)).view(x)
    torch.manual_seed(3)
    brightness, saturation, contrast = (torch.rand(5, 1, 1, 1).flatten().tolist() for _ in range(3))
    for index, sample in enumerate(x):
        expected = sample + brightness[index] - 0.5
        grey = (expected[0] + expected[1] + expected[2]) / 3
        expected = torch.stack([grey + (channel - grey) * 2 * saturation[index] for channel in expected])
        mean = expected.sum() / expected.numel()
        expected = mean + (expected - mean) * (0.5 + contrast[index])
        torch.testing.assert_close(shown[index], expected)


def test_diffaugment_color_by_its_properties() -> None:
    view = DiffAugment(policy=("color",)).view
    flat = view(torch.full((200, 3, 4, 4), 0.25)).flatten(1)  # saturation and contrast leave a flat grey alone
    shift = flat.mean(1) - 0.25
    torch.testing.assert_close(flat, flat[:, :1].expand_as(flat))
    assert -0.5 <= float(shift.min()) < -0.4
    assert 0.4 < float(shift.max()) <= 0.5
    grey = torch.randn(200, 1, 8, 8)
    ratio = (view(grey).flatten(1).std(1) / grey.flatten(1).std(1)).sort().values  # contrast alone
    assert 0.5 - 1e-4 <= float(ratio[0]) < 0.55
    assert 1.45 < float(ratio[-1]) <= 1.5 + 1e-4
    colors = torch.randn(200, 3, 8, 8)
    moved = view(colors).mean((1, 2, 3)) - colors.mean((1, 2, 3))  # brightness moves the mean, nothing else does
    assert float(moved.abs().max()) <= 0.5 + 1e-4
    assert float(moved.std()) == pytest.approx(1 / math.sqrt(12), abs=0.05)


def test_diffaugment_translation_against_a_loop_over_shifts() -> None:
    size, most = 16, 2
    x = torch.arange(1.0, 1 + 40 * 2 * size * size).view(40, 2, size, size)  # no two pixels alike
    shown = DiffAugment(policy=("translation",)).view(x)
    padded = F.pad(x, (most, most, most, most))
    found = set()
    for before, after in zip(padded, shown, strict=True):
        moves = [
            (down, right)
            for down in range(-most, most + 1)
            for right in range(-most, most + 1)
            if torch.equal(after, before[:, most - down : most - down + size, most - right : most - right + size])
        ]
        assert len(moves) == 1
        found.add(moves[0])
    assert {down for down, _ in found} == {right for _, right in found} == set(range(-most, most + 1))
    assert len(found) > 10


def test_diffaugment_cutout_zeroes_a_square_of_half_the_size() -> None:
    x = torch.ones(300, 2, 16, 16)
    shown = DiffAugment(policy=("cutout",)).view(x)
    assert torch.equal(shown[:, 0], shown[:, 1])
    hole = shown[:, 0] == 0
    assert torch.equal(shown[:, 0], (~hole).float())
    extents: dict[tuple[int, bool], set[int]] = {(axis, high): set() for axis in (0, 1) for high in (False, True)}
    for each in hole:
        rows, columns = each.any(1), each.any(0)
        assert torch.equal(each, rows[:, None] & columns[None, :])
        for axis, line in enumerate((rows, columns)):
            places = line.nonzero().flatten().tolist()
            assert places == list(range(places[0], places[-1] + 1))
            assert len(places) == 8 or 0 in places or 15 in places  # smaller only where it reaches over the border
            extents[axis, places[0] >= 8].add(len(places))
    assert list(extents.values()) == [{4, 5, 6, 7, 8}] * 4  # on both borders half of the square may lie outside


def test_diffaugment_cutout_against_a_loop_over_pixels() -> None:
    for size in (9, 10):  # the square's side is 5 for both: odd sides have one centre fewer to start from
        x = torch.randn(20, 1, size, size)
        torch.manual_seed(4)
        shown = DiffAugment(policy=("cutout",)).view(x)
        torch.manual_seed(4)
        tops, lefts = (torch.randint(0, size, (20, 1)).flatten().tolist() for _ in range(2))
        for index in range(20):
            for row in range(size):
                for column in range(size):
                    inside = -2 <= row - tops[index] <= 2 and -2 <= column - lefts[index] <= 2
                    assert float(shown[index, 0, row, column]) == (0 if inside else float(x[index, 0, row, column]))


@pytest.mark.parametrize("policy", ["color", "translation", "cutout"])
def test_diffaugment_differentiates_twice(policy: str) -> None:
    regularizer = DiffAugment(policy=(policy,))
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)

    def view(x: Tensor) -> Tensor:
        torch.manual_seed(1)
        return regularizer.view(x)

    assert torch.autograd.gradcheck(view, (x,))
    assert torch.autograd.gradgradcheck(lambda x: view(x).pow(3), (x,))


def test_diffaugment_draws_from_the_global_generator_and_keeps_the_order() -> None:
    x = torch.randn(4, 3, 16, 16)
    regularizer = DiffAugment()
    shown = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        shown.append(regularizer.view(x))
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])
    torch.manual_seed(1)
    step = x
    for name in ("color", "translation", "cutout"):
        step = DiffAugment(policy=(name,)).view(step)
    assert torch.equal(step, shown[0])
    assert torch.equal(DiffAugment(policy=()).view(x), x)


def test_diffaugment_refuses_what_it_cannot_do() -> None:
    with pytest.raises(PluginError, match="no policy 'colour'; did you mean 'color'"):
        DiffAugment(policy=("colour",))
    with pytest.raises(PluginError, match="augments images"):
        DiffAugment().view(torch.zeros(2, 8))


# moving averages


class NoSynchronisation(TorchDispatchMode):
    """Fails where a tensor's value is asked for, which would make an accelerator wait."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        assert func is not torch.ops.aten._local_scalar_dense.default, "a value was read back"
        return func(*args, **(kwargs or {}))


def test_lecam_against_averages_by_hand() -> None:
    regularizer = LeCam(decay=0.9, start=3)
    discriminator = Linear()
    real_average = fake_average = 0.0
    for update in range(8):
        meeting = duel(discriminator)
        logits = [meeting.output(side).logits.detach() for side in ("real", "fake")]
        with NoSynchronisation():
            penalty = regularizer.penalty(meeting)
        real, fake = (values.tolist() for values in logits)
        expected = sum((r - fake_average) ** 2 for r in real) / 6 + sum((f - real_average) ** 2 for f in fake) / 6
        assert float(penalty.detach()) == pytest.approx(expected if update >= 3 else 0, rel=1e-5)
        with NoSynchronisation():
            regularizer.observe(*logits)
        decay = 0.9 if update >= 3 else 0.0
        real_average = decay * real_average + (1 - decay) * sum(real) / 6
        fake_average = decay * fake_average + (1 - decay) * sum(fake) / 6
        assert float(regularizer.real_average) == pytest.approx(real_average, rel=1e-5)
        assert float(regularizer.fake_average) == pytest.approx(fake_average, rel=1e-5)
    penalty = regularizer.penalty(meeting)
    penalty.backward()
    assert discriminator.w.grad.abs().sum() > 0
    assert len(discriminator.shown) == 16  # its forward passes are the loss's


def test_lecam_state_and_refusals() -> None:
    first, second = LeCam(start=0), LeCam(start=0)
    first.observe(torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -5.0]))
    assert (float(first.real_average), float(first.fake_average)) == (2, -3)  # the first batch sets them
    second.load_state_dict(first.state_dict())
    for each in (first, second):
        each.observe(torch.tensor([4.0]), torch.tensor([1.0]))
    assert float(second.real_average) == float(first.real_average) == pytest.approx(0.99 * 2 + 0.01 * 4)
    assert int(second.updates) == 2
    assert not list(first.parameters())
    with pytest.raises(PluginError, match="decay"):
        LeCam(decay=1.0)
