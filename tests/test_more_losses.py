"""The later losses, and the penalties that go with them, against plain loops and closed forms."""

import math

import pytest
import torch
from ganzoo_plugins.losses.began import BEGAN
from ganzoo_plugins.losses.cramer import Cramer, partners
from ganzoo_plugins.losses.dual_contrastive import DualContrastive
from ganzoo_plugins.losses.ebgan import EBGAN
from ganzoo_plugins.losses.f_gan import FGAN
from ganzoo_plugins.losses.kl_wgan import KLWGAN
from ganzoo_plugins.losses.mmd import MMD
from ganzoo_plugins.losses.relativistic_average import RelativisticAverage
from ganzoo_plugins.losses.wasserstein import Wasserstein
from ganzoo_plugins.regularizers.cramer_penalty import CramerPenalty
from ganzoo_plugins.regularizers.gradient_penalty import GradientPenalty
from ganzoo_plugins.regularizers.pulling_away import PullingAway
from ganzoo_plugins.regularizers.wgan_div import WGANDiv
from torch import nn

from ganzoo.api import DiscriminatorOutput, PluginError
from ganzoo.game import Duel
from ganzoo.testing import tiny_trainer

REAL = [0.5, -2.0, 3.0, 0.25]
FAKE = [-0.25, 1.5, -4.0, 1.0]
FORMS = ("standard", "least-squares", "hinge")
DIVERGENCES = ("kl", "reverse-kl", "pearson", "neyman", "squared-hellinger", "jensen-shannon")
ENERGIES = (EBGAN(margin=2.0), BEGAN())
SCORES = (
    *(RelativisticAverage(form=form) for form in FORMS),
    DualContrastive(),
    KLWGAN(),
    *(FGAN(divergence=divergence) for divergence in DIVERGENCES),
)
VECTORS = (Cramer(), Cramer(critic="energy"), MMD(), MMD(kernel="gaussian"))


def named(loss):
    return "-".join([type(loss).__name__, *(str(v) for v in vars(loss).values() if isinstance(v, str))])


def number(value):
    return value.detach().item()


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def generator_side(loss, fake, real):
    return loss.generator(fake, real if loss.relativistic else None)


def vectors(count=4, width=3):
    source = torch.Generator().manual_seed(count)
    return torch.randn(count, width, generator=source), torch.randn(count, width, generator=source) + 0.5


# values ---------------------------------------------------------------------------------------------------------------

LEAD = {
    "standard": lambda lead: math.log(1 + math.exp(-lead)),
    "least-squares": lambda lead: (lead - 1) ** 2,
    "hinge": lambda lead: max(0.0, 1 - lead),
}


@pytest.mark.parametrize("form", FORMS)
def test_relativistic_average_is_the_papers_sum(form):
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    loss, cost, r, f = RelativisticAverage(form=form), LEAD[form], mean(REAL), mean(FAKE)
    d = mean(cost(x - f) for x in REAL) + mean(cost(-(x - r)) for x in FAKE)
    g = mean(cost(x - r) for x in FAKE) + mean(cost(-(x - f)) for x in REAL)
    assert number(loss.discriminator(real, fake)) == pytest.approx(d, rel=1e-6)
    assert number(loss.generator(fake, real)) == pytest.approx(g, rel=1e-6)


@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_dual_contrastive_is_two_classifications(shape):
    def found_among(one, others):
        return -math.log(math.exp(one) / (math.exp(one) + sum(math.exp(other) for other in others)))

    d = mean(found_among(x, FAKE) for x in REAL) + mean(found_among(-x, [-r for r in REAL]) for x in FAKE)
    g = mean(found_among(x, REAL) for x in FAKE) + mean(found_among(-x, [-f for f in FAKE]) for x in REAL)
    real, fake, loss = torch.tensor(REAL).view(shape), torch.tensor(FAKE).view(shape), DualContrastive()
    assert number(loss.discriminator(real, fake)) == pytest.approx(d, rel=1e-6)
    assert number(loss.generator(fake, real)) == pytest.approx(g, rel=1e-6)


def test_ebgan_lets_go_of_fakes_beyond_the_margin():
    loss = EBGAN(margin=2.0)
    real, fake = torch.tensor([0.1, 0.3]), torch.tensor([0.5, 3.0], requires_grad=True)
    value = loss.discriminator(real, fake)
    assert number(value) == pytest.approx(0.2 + (1.5 + 0.0) / 2)
    (gradient,) = torch.autograd.grad(value, fake)
    assert gradient.tolist() == [-0.5, 0.0]
    assert number(loss.generator(fake, None)) == pytest.approx(1.75)
    with pytest.raises(PluginError, match="margin above 0"):
        EBGAN(margin=0.0)


def test_began_moves_k_towards_the_equilibrium():
    loss = BEGAN(gamma=0.5, lambda_k=0.1)
    real, fake = torch.tensor([0.6, 1.0]), torch.tensor([0.1, 0.3])
    assert number(loss.discriminator(real, fake)) == pytest.approx(0.8)
    loss.observe(real, fake)
    assert number(loss.k) == pytest.approx(0.1 * (0.5 * 0.8 - 0.2))
    assert number(loss.measure) == pytest.approx(0.8 + 0.2)
    assert number(loss.discriminator(real, fake)) == pytest.approx(0.8 - 0.02 * 0.2)
    assert number(loss.generator(fake, None)) == pytest.approx(0.2)
    loss.observe(torch.tensor([0.4]), torch.tensor([1.0]))  # fakes are too bad: they count less
    assert number(loss.k) == 0.0
    assert number(loss.measure) == pytest.approx(0.4 + 0.8)
    for _ in range(30):
        loss.observe(torch.tensor([10.0]), torch.tensor([0.0]))
    assert number(loss.k) == 1.0


@pytest.mark.parametrize("options", [{"gamma": 0.0}, {"lambda_k": -0.1}])
def test_began_refuses_what_cannot_balance(options):
    with pytest.raises(PluginError, match="above 0"):
        BEGAN(**options)


def test_kl_wgan_weighs_fakes_by_importance():
    total = mean(math.exp(x) for x in FAKE)
    weighed = [math.exp(x) / total * x for x in FAKE]
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    d = mean(max(0.0, 1 - x) for x in REAL) + mean(max(0.0, 1 + x) for x in weighed)
    assert number(KLWGAN().discriminator(real, fake)) == pytest.approx(d, rel=1e-6)
    assert number(KLWGAN().generator(fake, None)) == pytest.approx(-mean(weighed), rel=1e-6)


F = {  # generators f of the divergences, and the output activations of the paper's tables
    "kl": (lambda u: u * u.log(), lambda v: v),
    "reverse-kl": (lambda u: -u.log(), lambda v: -math.exp(-v)),
    "pearson": (lambda u: (u - 1).square(), lambda v: v),
    "neyman": (lambda u: (1 - u).square() / u, lambda v: 1 - math.exp(-v)),
    "squared-hellinger": (lambda u: (u.sqrt() - 1).square(), lambda v: 1 - math.exp(-v)),
    "jensen-shannon": (lambda u: u * u.log() - (u + 1) * ((1 + u) / 2).log(), lambda v: math.log(2 / (1 + math.exp(-v)))),
}


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_f_gan_is_the_variational_bound(divergence):
    """The conjugate is found by search over u, not by its formula."""
    f, activation = F[divergence]
    grid = torch.logspace(-7, 5, 200_000, dtype=torch.float64)
    loss = FGAN(divergence=divergence)
    for v in (-1.0, 0.25, 1.5):
        t = activation(v)
        conjugate = number((grid * t - f(grid)).max())
        bound = number(loss.discriminator(torch.tensor([v]), torch.tensor([v])))
        assert bound == pytest.approx(conjugate - t, abs=1e-4)
        assert number(loss.generator(torch.tensor([v]), None)) == pytest.approx(-t, rel=1e-5)


def test_cramer_is_a_sum_of_distances():
    r, g = vectors()
    other = [1, 0, 3, 2]

    def length(x):
        return math.sqrt(sum(number(v) ** 2 for v in x))

    between = mean(length(r[i] - g[i]) + length(r[i] - g[other[i]]) for i in range(4))
    fakes, reals = mean(length(g[i] - g[other[i]]) for i in range(4)), mean(length(r[i] - r[other[i]]) for i in range(4))
    surrogate = between / 2 - mean(map(length, r)) - fakes + mean(map(length, g))
    assert number(Cramer().generator(g, r)) == pytest.approx(between - fakes, rel=1e-5)
    assert number(Cramer().discriminator(r, g)) == pytest.approx(-surrogate, rel=1e-5)
    assert number(Cramer(critic="energy").discriminator(r, g)) == pytest.approx(-(between - fakes - reals), rel=1e-5)


def test_cramers_energy_is_that_of_two_normal_distributions():
    """In one dimension, N(0, 1) and N(m, 1) are 2 E|X - Y| - 2 E|X - X'| apart, with E|N(m, 2)| in closed form."""
    torch.manual_seed(0)
    m, count = 1.5, 400_000

    def folded(mu):  # E|N(mu, 2)|
        return 2 / math.sqrt(math.pi) * math.exp(-(mu**2) / 4) + mu * math.erf(mu / 2)

    found = -number(Cramer(critic="energy").discriminator(torch.randn(count), torch.randn(count) + m))
    assert found == pytest.approx(2 * folded(m) - 2 * folded(0.0), abs=0.02)


@pytest.mark.parametrize("count", [2, 5, 6])
def test_partners_are_others(count):
    index = torch.arange(count)
    assert (partners(index) != index).all()
    if count % 2 == 0:
        assert torch.equal(partners(partners(index)), index)
    with pytest.raises(PluginError, match="too small"):
        partners(index[:1])


@pytest.mark.parametrize("kernel", ["rational-quadratic", "gaussian"])
def test_mmd_is_the_unbiased_estimate(kernel):
    def k(x, y):
        squares = number((x - y).square().sum())
        if kernel == "gaussian":
            return sum(math.exp(-squares / (2 * sigma**2)) for sigma in (1, 2, 4, 8, 16))
        return sum((1 + squares / (2 * a)) ** -a for a in (0.2, 0.5, 1, 2, 5)) + number(x @ y)

    r, g = vectors()
    pairs = [(i, j) for i in range(4) for j in range(4)]
    within = mean(k(r[i], r[j]) + k(g[i], g[j]) for i, j in pairs if i != j)
    expected = within - 2 * mean(k(r[i], g[j]) for i, j in pairs)
    loss = MMD(kernel=kernel)
    assert number(loss.generator(g, r)) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert number(loss.discriminator(r, g)) == pytest.approx(-expected, rel=1e-4, abs=1e-5)
    with pytest.raises(PluginError, match="too small"):
        loss.generator(g[:1], r[:1])


# directions and extremes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", SCORES, ids=named)
def test_scores_are_pulled_apart_in_one_turn_and_up_in_the_other(loss):
    real = torch.tensor([-0.5, 0.0, 0.25], requires_grad=True)
    fake = torch.tensor([0.25, 0.5, 0.75], requires_grad=True)
    up, down = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
    (lift,) = torch.autograd.grad(generator_side(loss, fake, real.detach()), fake)
    assert (up < 0).all()
    assert (down > 0).all()
    assert (lift < 0).all()


@pytest.mark.parametrize("loss", ENERGIES, ids=named)
def test_energies_are_pulled_apart_in_one_turn_and_down_in_the_other(loss):
    real = torch.tensor([0.5, 1.0], requires_grad=True)
    fake = torch.tensor([0.25, 0.75], requires_grad=True)
    loss.observe(real.detach() * 10, fake.detach())  # BEGAN's k leaves zero
    down, up = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
    (sink,) = torch.autograd.grad(loss.generator(fake, None), fake)
    assert (down > 0).all()
    assert (up < 0).all()
    assert (sink > 0).all()


@pytest.mark.parametrize("loss", VECTORS, ids=named)
def test_vectors_of_reals_and_fakes_are_pulled_apart_by_d_and_together_by_g(loss):
    torch.manual_seed(0)
    real, fake = torch.randn(64, 3) + 2, torch.randn(64, 3)
    shift = torch.zeros(3, requires_grad=True)
    (apart,) = torch.autograd.grad(loss.discriminator(real, fake + shift), shift)
    (together,) = torch.autograd.grad(loss.generator(fake + shift, real), shift)
    assert number((-apart).sum()) < 0
    assert number((-together).sum()) > 0


@pytest.mark.parametrize("loss", [loss for loss in (*SCORES, *ENERGIES, *VECTORS) if not isinstance(loss, FGAN)], ids=named)
def test_extreme_logits_stay_finite(loss):
    real, fake = torch.tensor([-1e4, 1e4], requires_grad=True), torch.tensor([1e4, -1e4], requires_grad=True)
    for value in (loss.discriminator(real, fake), generator_side(loss, fake, real)):
        value.backward()
        assert value.isfinite()
    assert real.grad.isfinite().all()
    assert fake.grad.isfinite().all()


@pytest.mark.parametrize("loss", [loss for loss in (*SCORES, *VECTORS) if loss.relativistic], ids=named)
def test_what_compares_sides_says_that_it_lacks_one(loss):
    with pytest.raises(PluginError, match="needs the real logits"):
        loss.generator(torch.zeros(2), None)


# penalties ------------------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """Vectors that are linear in the image."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        made = x.flatten(1) @ self.weight
        return DiscriminatorOutput(made.squeeze(1), made)


def duel_of(net, real, fake):
    return Duel(net, real, fake)


def test_wgan_div_is_k_times_a_power_of_a_linear_critics_slope():
    weight = torch.tensor([[0.3], [-0.4], [1.2]])  # of length 1.3
    duel = duel_of(Linear(weight), torch.randn(5, 3), torch.randn(5, 3))
    assert number(WGANDiv().penalty(duel)) == pytest.approx(2 * 1.3**6, rel=1e-5)
    assert number(WGANDiv(k=0.5, p=3.0).penalty(duel)) == pytest.approx(0.5 * 1.3**3, rel=1e-5)
    with pytest.raises(PluginError, match="power p above 1"):
        WGANDiv(p=1.0)


def test_wgan_div_looks_between_real_and_fake():
    """With D = x^2 / 2 the slope is x itself, which lies between 1 and 2, so its sixth power has the mean 127 / 7."""

    class Square(nn.Module):
        def forward(self, x):
            return x.flatten(1).square().sum(1) / 2

    torch.manual_seed(0)
    duel = duel_of(Square(), torch.ones(200_000, 1), torch.full((200_000, 1), 2.0))
    assert number(WGANDiv(k=1.0).penalty(duel)) == pytest.approx(127 / 7, rel=0.01)


def test_cramers_penalty_is_that_of_its_critic():
    """The critic's gradient by hand: W (u / |u| - h / |h|) with h = W x and u = h - h(another fake)."""
    torch.manual_seed(0)
    weight, real = torch.randn(3, 2), torch.randn(4, 3)
    fake = real.clone()[[1, 0, 3, 2]] + 0.5
    torch.manual_seed(1)
    found = number(CramerPenalty(target=0.5).penalty(duel_of(Linear(weight), real, fake)))
    torch.manual_seed(1)
    alpha = torch.rand(4, 1)
    expected = []
    for i, j in enumerate([1, 0, 3, 2]):
        h = (real[i] + alpha[i] * (fake[i] - real[i])) @ weight
        u = h - fake[j] @ weight
        expected.append((number((weight @ (u / u.norm() - h / h.norm())).norm()) - 0.5) ** 2)
    assert found == pytest.approx(mean(expected), rel=1e-4)


def test_cramers_penalty_of_one_number_is_not_wgan_gps():
    """With K = 1 the critic is flat beyond 0 and the fake, and twice as steep between, so it is a penalty of its own."""
    torch.manual_seed(0)
    duel = duel_of(Linear(torch.tensor([[1.0]])), torch.full((4, 1), 3.0), torch.full((4, 1), 2.0))
    assert number(GradientPenalty().penalty(duel)) == pytest.approx(0.0, abs=1e-6)
    assert number(CramerPenalty().penalty(duel)) == pytest.approx(1.0, abs=1e-4)


def test_pulling_away_is_the_mean_squared_cosine():
    features = torch.tensor([[3.0, 4.0], [1.0, 0.0], [-6.0, -8.0]], requires_grad=True)
    net = nn.Module()
    net.forward = lambda x: DiscriminatorOutput(torch.zeros(3), features)
    duel = duel_of(net, torch.zeros(3, 1), torch.zeros(3, 1))
    pairs = (0.6**2, 1.0, 0.6**2)  # opposite codes are as alike as equal ones
    assert number(PullingAway().penalty(duel)) == pytest.approx(sum(pairs) / 3, rel=1e-6)


def test_pulling_away_needs_features_and_bears_a_single_fake():
    net = nn.Module()
    net.forward = lambda x: x.flatten(1).sum(1)
    with pytest.raises(PluginError, match="needs features"):
        PullingAway().penalty(duel_of(net, torch.zeros(3, 1), torch.zeros(3, 1)))
    one = duel_of(Linear(torch.ones(2, 2)), torch.ones(1, 2), torch.ones(1, 2))
    assert number(PullingAway().penalty(one)) == 0.0


def test_pulling_away_is_paid_by_g_alone():
    trainer = tiny_trainer(loss=Wasserstein, regularizers={"pulling-away": PullingAway})
    trainer.round()
    terms = trainer.report().terms
    assert "G/pulling-away" in terms
    assert "D/pulling-away" not in terms
