"""The second lot of regularizers, each against numbers worked out another way."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from ganzoo_plugins.architectures.dcgan import DCGAN
from ganzoo_plugins.losses.hinge import Hinge
from ganzoo_plugins.losses.least_squares import LeastSquares
from ganzoo_plugins.losses.non_saturating import NonSaturating
from ganzoo_plugins.losses.relativistic import Relativistic
from ganzoo_plugins.regularizers.balanced_consistency import BalancedConsistency
from ganzoo_plugins.regularizers.consistency import Consistency, changed, consistency
from ganzoo_plugins.regularizers.drift import Drift
from ganzoo_plugins.regularizers.feature_matching import FeatureMatching
from ganzoo_plugins.regularizers.gradient_normalisation import GradientNormalisation
from ganzoo_plugins.regularizers.gradient_penalty import GradientPenalty
from ganzoo_plugins.regularizers.improved_consistency import ImprovedConsistency
from ganzoo_plugins.regularizers.instance_noise import InstanceNoise
from ganzoo_plugins.regularizers.latent_consistency import LatentConsistency
from ganzoo_plugins.regularizers.lipschitz_penalty import LipschitzPenalty
from ganzoo_plugins.regularizers.mode_seeking import ModeSeeking
from ganzoo_plugins.regularizers.orthogonal import Orthogonal
from ganzoo_plugins.regularizers.spectral_norm import SpectralNorm
from ganzoo_plugins.regularizers.top_k import TopK
from torch import Tensor, nn

from ganzoo.api import DiscriminatorOutput, PluginError, Regularizer, Spec
from ganzoo.game import Duel
from ganzoo.testing import TinyLoss, tiny_trainer

SHAPE = (6, 3, 4, 4)
PIXELS = 48


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Linear(nn.Module):
    """D(x) = w . x; remembers what it was shown. With labels, the label is added."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(PIXELS))
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        self.shown.append(x.detach())
        return x.flatten(1) @ self.w + (0 if label is None else label)


class LinearGenerator(nn.Module):
    """G(z) = A z, as images of SHAPE."""

    def __init__(self, latent: int = 5) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(latent, PIXELS) / 8)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return (z @ self.a).unflatten(1, SHAPE[1:]) + (0 if label is None else label.view(-1, 1, 1, 1))


def duel(discriminator: nn.Module, acting: str = "discriminator", **options: object) -> Duel:
    return Duel(discriminator, torch.randn(SHAPE), torch.randn(SHAPE), acting=acting, **options)  # type: ignore[arg-type]


def play(discriminator: nn.Module, generator: nn.Module, acting: str, cond: dict[str, Tensor] | None = None) -> Duel:
    """A duel whose fakes come from latents."""
    z = torch.randn(SHAPE[0], 5)
    cond = cond or {}

    def generate(latents: Tensor, cond: object) -> Tensor:
        return generator(latents, **cond)  # type: ignore[arg-type]

    fake = generate(z, cond)
    fake = fake.detach() if acting == "discriminator" else fake
    return Duel(
        discriminator,
        torch.randn(SHAPE),
        fake,
        real_cond=cond,
        generate=generate,
        z=z,
        acting=acting,  # type: ignore[arg-type]
    )


def number(value: Tensor | None) -> float:
    assert value is not None
    return float(value.detach())


def again(seed: int, work: object) -> object:
    torch.manual_seed(seed)
    return work()  # type: ignore[operator]


# consistency under changes of images


def test_changed_images_are_mirrored_and_moved_with_reflected_borders() -> None:
    size, most = 9, 2
    x = torch.arange(1.0, 1 + 200 * 2 * size * size).view(200, 2, size, size)  # no two pixels alike
    found = []
    for before, after in zip(x, changed(x, flip=True, shift=most), strict=True):
        made = []
        for mirrored in (False, True):
            padded = F.pad(before.flip(2) if mirrored else before, (most,) * 4, mode="reflect")
            for down in range(-most, most + 1):
                for right in range(-most, most + 1):
                    top, left = most - down, most - right
                    if torch.equal(after, padded[:, top : top + size, left : left + size]):
                        made.append((mirrored, down, right))
        assert len(made) == 1
        found += made
    assert {down for _, down, _ in found} == {right for _, _, right in found} == set(range(-most, most + 1))
    assert 70 < sum(mirrored for mirrored, _, _ in found) < 130
    assert len(set(found)) > 40
    assert torch.equal(changed(x, flip=False, shift=0), x)


@pytest.mark.parametrize(("regularizer", "sides"), [(Consistency(shift=1), 1), (BalancedConsistency(shift=1), 2)])
def test_consistency_of_a_linear_discriminator(regularizer: Regularizer, sides: int) -> None:
    discriminator = Linear()
    meeting = duel(discriminator)
    meeting.output("real")  # whoever comes first: the plain forward passes are shared
    meeting.output("fake")
    penalty = regularizer.penalty(meeting)
    changed_images = discriminator.shown[2:]
    assert len(changed_images) == sides
    expected, slope = 0.0, torch.zeros(PIXELS)
    for before, after in zip((meeting.real, meeting.fake), changed_images, strict=False):
        assert not torch.equal(before, after)
        for one, other in zip(before.flatten(1), after.flatten(1), strict=True):
            difference = sum(
                w * (b - a) for w, a, b in zip(*(v.tolist() for v in (discriminator.w, one, other)), strict=True)
            )
            expected += difference**2 / SHAPE[0]
            slope += 2 * difference * (other - one) / SHAPE[0]
    assert number(penalty) == pytest.approx(expected, rel=1e-4)
    penalty.backward()
    torch.testing.assert_close(discriminator.w.grad, slope, rtol=1e-4, atol=1e-4)


def test_consistency_costs_nothing_where_the_discriminator_overlooks_the_change() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            return x.mean((1, 2, 3)) + label

    label = torch.arange(6)
    penalty = BalancedConsistency(shift=0).penalty(duel(Mean(), real_cond={"label": label}))
    assert float(penalty) == pytest.approx(0, abs=1e-10)


def test_consistency_refusals() -> None:
    for kind in (Consistency, BalancedConsistency, ImprovedConsistency):
        with pytest.raises(PluginError, match="'shift' of 0 pixels or more, not -1"):
            kind(shift=-1)
    with pytest.raises(PluginError, match="smaller 'shift', or remove them"):
        changed(torch.zeros(2, 3, 4, 4), flip=True, shift=4)
    with pytest.raises(PluginError, match=r"not \[2, 8\]"):
        changed(torch.zeros(2, 8), flip=True, shift=0)


# consistency under changes of latents


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_latent_consistency_of_linear_networks(prior: str) -> None:
    discriminator, G = Linear(), LinearGenerator()
    regularizer = LatentConsistency(discriminator=3.0, generator=0.25, radius=0.1)
    spec = Spec(shape=SHAPE[1:], latent=5, prior=prior)  # type: ignore[arg-type]
    assert regularizer.shown(spec) is spec
    moves = {}
    for acting in ("discriminator", "generator"):
        meeting = play(discriminator, G, acting, {"label": torch.arange(6)})
        penalty = again(7, lambda meeting=meeting: regularizer.penalty(meeting))
        torch.manual_seed(7)
        unit = torch.rand(6, 5) * 2 - 1 if prior == "uniform" else torch.randn(6, 5)
        move = 0.1 * unit @ G.a.detach()  # what the images move by; labels cancel
        moves[acting] = move
        for net in (discriminator, G):
            net.zero_grad()
        penalty.backward()  # type: ignore[attr-defined]
        if acting == "discriminator":
            expected = 3.0 * ((move @ discriminator.w.detach()) ** 2).sum() / 6
            assert G.a.grad is None
            assert discriminator.w.grad is not None
        else:
            expected = -0.25 * (move**2).sum() / (6 * PIXELS)
            assert discriminator.w.grad is None
            torch.testing.assert_close(G.a.grad, -0.5 * 0.01 * unit.T @ unit @ G.a.detach() / (6 * PIXELS))
        torch.testing.assert_close(penalty.detach(), expected)  # type: ignore[attr-defined]


def test_latent_consistency_refusals() -> None:
    with pytest.raises(PluginError, match="positive 'radius', not 0"):
        LatentConsistency(radius=0.0)
    with pytest.raises(PluginError, match="'latent-consistency' needs a game whose fakes come from latents"):
        LatentConsistency().penalty(duel(Linear()))


def test_improved_consistency_is_the_sum_of_its_parts() -> None:
    discriminator, G = Linear(), LinearGenerator()
    whole = ImprovedConsistency(real=2.0, fake=3.0, discriminator=5.0, generator=7.0, radius=0.2, shift=1)
    part = LatentConsistency(discriminator=5.0, generator=7.0, radius=0.2)
    meeting = play(discriminator, G, "discriminator")
    found = again(3, lambda: whole.penalty(meeting))
    torch.manual_seed(3)
    expected = part.penalty(meeting) + sum(
        weight * consistency(meeting, side, flip=True, shift=1) for side, weight in (("real", 2.0), ("fake", 3.0))
    )
    torch.testing.assert_close(found, expected)
    meeting = play(discriminator, G, "generator")
    torch.testing.assert_close(again(3, lambda: whole.penalty(meeting)), again(3, lambda: part.penalty(meeting)))
    assert ImprovedConsistency.side == "both"


# weights


def by_loops(rows: list[list[float]], diagonal: bool) -> float:
    total = 0.0
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            product = sum(a * b for a, b in zip(one, other, strict=True))
            if i == j:
                total += (product - 1) ** 2 if diagonal else 0.0
            else:
                total += product**2
    return total


def rows_of(layer: nn.Module) -> list[list[float]]:
    """One row for each output channel, by indexing."""
    weight = layer.weight.detach()
    if isinstance(layer, nn.ConvTranspose2d):
        return [weight[:, output].flatten().tolist() for output in range(weight.shape[1])]
    return [weight[output].flatten().tolist() for output in range(weight.shape[0])]


@pytest.mark.parametrize("diagonal", [True, False])
def test_orthogonal_against_loops_over_rows(diagonal: bool) -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 3, 2), nn.ConvTranspose2d(3, 4, 2), nn.Linear(5, 2), nn.BatchNorm2d(4), nn.Embedding(3, 2)
    )
    regularizer = Orthogonal(of="discriminator", diagonal=diagonal)
    regularizer.prepare(net)
    assert not list(regularizer.parameters())
    penalty = regularizer.penalty(duel(net))
    assert penalty is not None
    expected = sum(by_loops(rows_of(layer), diagonal) for layer in net[:3])
    assert number(penalty) == pytest.approx(expected, rel=1e-5)
    penalty.backward()
    assert net[3].weight.grad is None
    assert net[4].weight.grad is None
    matrix = net[2].weight.detach()
    gram = matrix @ matrix.T
    wanted = gram - torch.eye(2) if diagonal else gram * (1 - torch.eye(2))
    torch.testing.assert_close(net[2].weight.grad, 4 * wanted @ matrix)  # twice what the code of BigGAN's author adds


def test_orthogonal_is_zero_where_filters_are_orthonormal() -> None:
    net = nn.Sequential(nn.Conv2d(4, 5, 3))
    nn.init.orthogonal_(net[0].weight)
    regularizer = Orthogonal(of="discriminator")
    regularizer.prepare(net)
    assert number(regularizer.penalty(duel(net))) == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        net[0].weight.mul_(3)
    assert number(regularizer.penalty(duel(net))) == pytest.approx(5 * (9 - 1) ** 2, rel=1e-5)
    loose = Orthogonal(of="discriminator", diagonal=False)
    loose.prepare(net)
    assert number(loose.penalty(duel(net))) == pytest.approx(0, abs=1e-6)


def test_orthogonal_counts_the_acting_players_layers() -> None:
    D, G, other = (nn.Sequential(nn.Linear(3, 2)) for _ in range(3))
    regularizer = Orthogonal()
    for net in (D, G, other):
        regularizer.prepare(net)
    of = {net: by_loops(rows_of(net[0]), True) for net in (D, G, other)}
    assert regularizer.side == "both"
    assert number(regularizer.penalty(duel(D))) == pytest.approx(of[D], rel=1e-5)
    assert number(regularizer.penalty(duel(D, "generator"))) == pytest.approx(of[G] + of[other], rel=1e-5)
    other.requires_grad_(False)  # of two generators, the other one acts
    assert number(regularizer.penalty(duel(D, "generator"))) == pytest.approx(of[G], rel=1e-5)
    G.requires_grad_(False)
    assert regularizer.penalty(duel(D, "generator")) is None
    assert [Orthogonal(of=of).side for of in ("generator", "discriminator")] == ["generator", "discriminator"]


def test_orthogonal_looks_through_spectral_norm_and_autocast() -> None:
    net = nn.Sequential(nn.Linear(6, 4))
    expected = by_loops(rows_of(net[0]), True)
    regularizer = Orthogonal(of="discriminator")
    regularizer.prepare(net)
    SpectralNorm().prepare(net)
    with torch.autocast("cpu", torch.bfloat16):
        assert number(regularizer.penalty(duel(net))) == pytest.approx(expected, rel=1e-5)


# slopes


@pytest.mark.parametrize(
    ("regularizer", "target"),
    [(LipschitzPenalty(), 1.0), (GradientPenalty(one_sided=True), 1.0), (GradientPenalty(one_sided=True, target=0.5), 0.5)],
)
@pytest.mark.parametrize("length", [0.4, 0.9, 1.1, 3.0])
def test_one_sided_penalties_of_a_linear_discriminator(regularizer: Regularizer, target: float, length: float) -> None:
    discriminator = Linear()
    with torch.no_grad():
        discriminator.w.mul_(length / math.sqrt(sum(entry**2 for entry in discriminator.w.tolist())))
    meeting = duel(discriminator)
    penalty = regularizer.penalty(meeting)
    excess = max(length - target, 0.0)
    assert number(penalty) == pytest.approx(excess**2, rel=1e-4)
    penalty.backward()
    torch.testing.assert_close(discriminator.w.grad, 2 * excess * discriminator.w.detach() / length, rtol=1e-4, atol=1e-5)
    alpha = ((discriminator.shown[0] - meeting.real) / (meeting.fake - meeting.real)).flatten(1).median(1).values
    assert (alpha >= 0).all()
    assert (alpha <= 1).all()


def test_a_two_sided_penalty_is_the_default() -> None:
    discriminator = Linear()
    nn.init.zeros_(discriminator.w)
    assert number(GradientPenalty().penalty(duel(discriminator))) == pytest.approx(1, abs=1e-4)
    assert number(GradientPenalty(one_sided=True).penalty(duel(discriminator))) == 0


def test_drift_is_the_mean_square_of_real_logits() -> None:
    discriminator = Linear()
    meeting = duel(discriminator)
    penalty = Drift().penalty(meeting)
    logits = meeting.output("real").logits.tolist()
    assert number(penalty) == pytest.approx(sum(value**2 for value in logits) / 6, rel=1e-5)
    assert len(discriminator.shown) == 1
    assert torch.equal(discriminator.shown[0], meeting.real)


# gradient normalisation


def test_gradient_normalisation_of_a_linear_discriminator() -> None:
    discriminator = Linear()
    plain = copy.deepcopy(discriminator)
    GradientNormalisation().prepare(discriminator)
    meeting = duel(discriminator, "generator")
    norm = plain.w.detach().norm()
    for side, x in (("real", meeting.real), ("fake", meeting.fake)):
        f = plain(x).detach()
        torch.testing.assert_close(meeting.output(side).logits.detach(), f / (norm + f.abs()))  # type: ignore[arg-type]
        slope = plain.w.detach() * (norm / (norm + f.abs()) ** 2)[:, None]
        torch.testing.assert_close(meeting.input_gradient(side).detach(), slope)  # type: ignore[arg-type]
    meeting.output("fake").logits.sum().backward()
    explicit = copy.deepcopy(plain)
    f = meeting.fake.flatten(1) @ explicit.w
    (f / ((explicit.w.square().sum() + 1e-12).sqrt() + f.abs())).sum().backward()
    torch.testing.assert_close(discriminator.w.grad, explicit.w.grad)


def test_gradient_normalisation_makes_a_piecewise_linear_network_1_lipschitz() -> None:
    D = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    with torch.no_grad():
        for parameter in D.parameters():
            parameter.mul_(10)
    steep = duel(copy.deepcopy(D)).input_gradient("real").norm(dim=1)
    GradientNormalisation().prepare(D)
    meeting = duel(D)
    norms = meeting.input_gradient("real").norm(dim=1)
    assert number(steep.min()) > 10
    assert number(norms.max()) <= 1 + 1e-5
    assert meeting.output("real").logits.shape == (6,)
    assert number(meeting.output("real").logits.abs().max()) < 1
    norms.sum().backward()  # a penalty on top of it differentiates thrice
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in D[1].parameters())


def test_gradient_normalisation_serves_the_generator_and_evaluation() -> None:
    D, G = Linear(), LinearGenerator()
    GradientNormalisation().prepare(D)
    GradientNormalisation().prepare(D)  # a second one finds it done
    assert isinstance(D, Linear)
    assert set(D.state_dict()) == {"w"}
    meeting = play(D, G, "generator")
    meeting.output("fake").logits.sum().backward()
    f, norm = (meeting.fake.flatten(1) @ D.w).detach(), D.w.detach().norm()
    chain = meeting.z.T @ ((norm / (norm + f.abs()) ** 2)[:, None] * D.w.detach())
    torch.testing.assert_close(G.a.grad, chain)
    with torch.no_grad():
        found = D(meeting.real, label=torch.zeros(6))
    assert not found.logits.requires_grad
    torch.testing.assert_close(found.logits, meeting.output("real").logits.detach())
    twin = copy.deepcopy(D)
    with torch.no_grad():
        twin.w.mul_(0.5)
        twin.w[0] += 3
    assert not torch.equal(twin(meeting.real).logits, D(meeting.real).logits)
    torch.testing.assert_close(D(meeting.real).logits.detach(), found.logits)


def test_gradient_normalisation_refuses_patches_and_batch_norm() -> None:
    with pytest.raises(PluginError, match=r"Discriminator has batch norm; switch that off"):
        GradientNormalisation().prepare(DCGAN(width=4).discriminator(Spec(shape=(1, 16, 16))))
    D = nn.Sequential(nn.Conv2d(3, 1, 2), nn.Flatten())
    GradientNormalisation().prepare(D)
    with pytest.raises(PluginError, match=r"one logit a sample, not \[6, 9\]"):
        duel(D).output("real")


def test_gradient_normalisation_passes_features_on() -> None:
    D = DCGAN(width=4, discriminator_norm="none").discriminator(Spec(shape=(1, 16, 16)))
    GradientNormalisation().prepare(D)
    output = D(torch.rand(2, 1, 16, 16))
    assert output.features is not None
    assert output.logits.shape == (2,)


# what the discriminator is shown


def test_instance_noise_adds_its_sigma() -> None:
    regularizer = InstanceNoise(sigma=0.3)
    x = torch.randn(50, 3, 8, 8)
    noise = again(5, lambda: regularizer.view(x)) - x
    torch.manual_seed(5)
    torch.testing.assert_close(noise, 0.3 * torch.randn(x.shape))
    assert float(noise.std()) == pytest.approx(0.3, abs=0.01)
    regularizer.sigma = 0.0  # the end of a schedule
    assert torch.equal(regularizer.view(x), x)
    with pytest.raises(PluginError, match="'sigma' of 0 or more"):
        InstanceNoise(sigma=-0.1)


# what the generator learns from


@pytest.mark.parametrize("loss", [NonSaturating(), Hinge(), LeastSquares()])
@pytest.mark.parametrize(("share", "k"), [(0.5, 3), (0.34, 2), (0.01, 1), (1.0, 6)])
def test_top_k_gives_the_gradient_of_the_mean_over_the_best(loss: object, share: float, k: int) -> None:
    discriminator = Linear()
    fake = torch.randn(SHAPE, requires_grad=True)
    meeting = Duel(discriminator, torch.randn(SHAPE), fake, acting="generator")
    assert TopK(share=share).penalty(meeting) is None
    loss.generator(meeting.output("fake").logits, None).backward()  # type: ignore[attr-defined]
    best = sorted(range(6), key=lambda index: -number(discriminator(fake)[index]))[:k]
    other = fake.detach().clone().requires_grad_()
    loss.generator(discriminator(other[best]), None).backward()  # type: ignore[attr-defined]
    torch.testing.assert_close(fake.grad, other.grad)
    assert (fake.grad.flatten(1).abs().sum(1) > 0).sum() == k


def test_top_k_of_patches_and_of_relativistic_losses() -> None:
    fake = torch.randn(4, 3, requires_grad=True)
    meeting = Duel(nn.Identity(), torch.randn(4, 3), fake, acting="generator")
    TopK(share=0.5).penalty(meeting)
    Relativistic().generator(meeting.output("fake").logits, meeting.output("real").logits).backward()
    means = [sum(row) / 3 for row in fake.tolist()]
    best = sorted(range(4), key=lambda index: -means[index])[:2]
    other = fake.detach().clone().requires_grad_()
    Relativistic().generator(other[best], meeting.real[best]).backward()
    torch.testing.assert_close(fake.grad, other.grad)
    for share in (0.0, 1.5):
        with pytest.raises(PluginError, match="'share' above 0 and up to 1"):
            TopK(share=share)


def test_top_k_in_a_training_is_a_loss_on_the_best() -> None:
    class Best(TinyLoss):
        """The same by another way."""

        def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
            return F.softplus(-fake.topk(2).values).mean()

    raw = {"optimizer": {"name": "sgd", "lr": 0.5}}
    with_hook = tiny_trainer(regularizers={"top-k": lambda: TopK(share=0.25)}, raw=raw)
    with_loss, plain = tiny_trainer(loss=Best, raw=raw), tiny_trainer(raw=raw)
    for trainer in (with_hook, with_loss, plain):
        for _ in range(2):
            trainer.round()
    states = [{key: value for net in t.nets.values() for key, value in net.state_dict().items()} for t in (
        with_hook, with_loss, plain
    )]  # fmt: skip
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key])
    assert any(not torch.allclose(value, states[2][key]) for key, value in states[0].items())


class Scale(nn.Module):
    """G(z) = a z."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.a * z + (0 if label is None else label[:, None])


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_mode_seeking_of_a_scaling_generator(prior: str) -> None:
    G, label = Scale(0.25), torch.arange(6)
    drawn = []

    def generate(latents: Tensor, cond: dict[str, Tensor]) -> Tensor:
        drawn.append(latents)
        return G(latents, **cond)

    z = torch.rand(6, 400)
    meeting = Duel(
        nn.Identity(), torch.randn(6, 400), G(z, label), real_cond={"label": label}, generate=generate, z=z,  # type: ignore[arg-type]
        acting="generator",
    )  # fmt: skip
    regularizer = ModeSeeking()
    regularizer.shown(Spec(shape=(400,), latent=400, prior=prior))  # type: ignore[arg-type]
    penalty = regularizer.penalty(meeting)
    assert number(penalty) == pytest.approx(1 / (0.25 + 1e-5), rel=1e-4)  # whatever is drawn
    penalty.backward()
    assert float(G.a.grad) == pytest.approx(-1 / 0.25001**2, rel=1e-3)  # down the gradient, samples move apart
    spread = 1.0 if prior == "normal" else 1 / math.sqrt(3)
    assert float(drawn[0].std()) == pytest.approx(spread, rel=0.05)
    assert (prior == "uniform") == bool(drawn[0].abs().max() <= 1)
    with pytest.raises(PluginError, match="'mode-seeking' needs a game whose fakes come from latents"):
        regularizer.penalty(duel(Linear()))


class WithFeatures(nn.Module):
    """Features x A and their sum as a logit."""

    feature_width = 4

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(PIXELS, 4))

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        features = x.flatten(1) @ self.a
        return DiscriminatorOutput(features.sum(1), features)


@pytest.mark.parametrize("distance", ["squared", "absolute"])
def test_feature_matching_against_loops(distance: str) -> None:
    D, fake = WithFeatures(), torch.randn(SHAPE, requires_grad=True)
    real = torch.randn(SHAPE, requires_grad=True)
    penalty = FeatureMatching(distance=distance).penalty(Duel(D, real, fake, acting="generator"))  # type: ignore[arg-type]
    gaps = []
    for feature in range(4):
        means = [
            sum(float(sample.flatten() @ D.a.detach()[:, feature]) for sample in samples) / 6
            for samples in (real.detach(), fake.detach())
        ]
        gaps.append(means[0] - means[1])
    expected = sum(gap**2 for gap in gaps) if distance == "squared" else sum(abs(gap) for gap in gaps) / 4
    assert number(penalty) == pytest.approx(expected, rel=1e-4)
    penalty.backward()
    assert fake.grad.abs().sum() > 0
    assert real.grad is None
    with pytest.raises(PluginError, match="features, and Linear gives none"):
        FeatureMatching().penalty(duel(Linear(), "generator"))


def test_strength_names_the_option_that_a_bare_number_means() -> None:
    named = {kind: kind.strength for kind in (InstanceNoise, TopK, Consistency, LipschitzPenalty, Orthogonal, Drift)}
    assert named == {
        InstanceNoise: "sigma",
        TopK: "share",
        Consistency: "weight",
        LipschitzPenalty: "weight",
        Orthogonal: "weight",
        Drift: "weight",
    }
