"""Path length regularization against Jacobians written out, and in the engine's lazy phases."""

import math

import pytest
import torch
from ganzoo_plugins.architectures.stylegan2 import StyleGAN2
from ganzoo_plugins.regularizers.path_length import PathLength
from torch import Tensor, nn

from ganzoo.api import PluginError, Spec
from ganzoo.game import Duel
from ganzoo.testing.tiny import tiny_trainer

COUNT, LATENT, SHAPE = 6, 5, (2, 3, 4)
PIXELS = 24


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Linear(nn.Module):
    """G(z) = z A, as an image."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(LATENT, PIXELS))

    def forward(self, z: Tensor) -> Tensor:
        return (z @ self.a).unflatten(1, SHAPE)


class Styled(nn.Module):
    """A mapping to two styles of three numbers, and a synthesis that is linear in each."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(LATENT, 3)
        self.a = nn.Parameter(torch.randn(2, 3, PIXELS))

    def mapping(self, z: Tensor) -> Tensor:
        return self.inner(z).tanh()[:, None].expand(-1, 2, -1)

    def synthesis(self, w: Tensor) -> Tensor:
        return torch.einsum("nlw,lwp->np", w, self.a).unflatten(1, SHAPE)

    def forward(self, z: Tensor) -> Tensor:
        return self.synthesis(self.mapping(z))


def duel(generator: nn.Module) -> Duel:
    z = torch.randn(COUNT, LATENT)
    return Duel(
        nn.Identity(),
        torch.zeros(COUNT, *SHAPE),
        generator(z),
        generate=lambda latents, cond: generator(latents, **cond),
        z=z,
        acting="generator",
    )


def lengths(jacobians: list[Tensor], noise: Tensor) -> list[float]:
    """The root of the mean over styles of |J^T y|^2, for each sample, in plain sums."""
    found = []
    for y in noise.flatten(1).tolist():
        squares = [sum(sum(j * e for j, e in zip(row, y, strict=True)) ** 2 for row in rows.tolist()) for rows in jacobians]
        found.append(math.sqrt(sum(squares) / len(squares)))
    return found


@pytest.mark.parametrize(("generator", "shrink"), [(Linear, 2), (Linear, 1), (Styled, 2), (Linear, 100)])
def test_against_jacobians_written_out(generator: type[nn.Module], shrink: int) -> None:
    net, count = generator(), max(COUNT // shrink, 1)
    regularizer = PathLength(decay=0.1, shrink=shrink)
    regularizer.prepare(net)
    meeting, average = duel(net), 0.0
    jacobians = [net.a.detach()] if isinstance(net, Linear) else list(net.a.detach())
    for step in range(3):
        torch.manual_seed(step)
        penalty = regularizer.penalty(meeting)
        torch.manual_seed(step)
        noise = torch.randn(count, *SHAPE) / math.sqrt(3 * 4)
        found = lengths(jacobians, noise)
        average = 0.9 * average + 0.1 * sum(found) / count
        assert float(penalty.detach()) == pytest.approx(sum((each - average) ** 2 for each in found) / count, rel=1e-4)
        assert float(regularizer.average) == pytest.approx(average, rel=1e-5)


def test_the_noise_makes_lengths_independent_of_the_resolution() -> None:
    """E |J^T y|^2 = |A|^2 / (H W) for a linear G."""
    net, regularizer = Linear(), PathLength(decay=1.0, shrink=1)
    z = torch.randn(4000, LATENT)
    meeting = Duel(nn.Identity(), torch.zeros(1), net(z), generate=lambda z, cond: net(z), z=z, acting="generator")
    penalty = float(regularizer.penalty(meeting).detach())
    squared = penalty + float(regularizer.average) ** 2  # variance and squared mean
    assert squared == pytest.approx(float(net.a.detach().square().sum()) / 12, rel=0.05)


def test_its_gradient_reaches_the_generator_and_nothing_is_registered_twice() -> None:
    net, regularizer = Styled(), PathLength()
    regularizer.prepare(net)
    regularizer.penalty(duel(net)).backward()
    assert net.a.grad.abs().sum() > 0
    assert not list(regularizer.parameters())
    assert regularizer.state_dict().keys() == {"average"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_lazily_on_a_style_based_generator(precision: str) -> None:
    networks = lambda: StyleGAN2(channel_base=128, channel_max=8, style=8, mapping_layers=2)  # noqa: E731
    raw = {"regularizer": {"path-length": {"weight": 2.0, "every": 2}}, "train": {"precision": precision}}
    trainer = tiny_trainer(architecture=networks, regularizers={"path-length": PathLength}, raw=raw)
    for _ in range(3):
        trainer.round()
    terms = [value for term, value in trainer.terms if term == "G/path-length"]
    assert len(terms) == 2  # of three turns
    assert all(bool(torch.isfinite(value)) for value in terms)
    assert networks().generator(Spec((1, 16, 16), latent=8)).mapping(torch.randn(2, 8)).dim() == 3


def test_refusals() -> None:
    for options, match in (({"decay": 0.0}, "'decay'"), ({"decay": 1.5}, "'decay'"), ({"shrink": 0}, "'shrink'")):
        with pytest.raises(PluginError, match=match):
            PathLength(**options)
    with pytest.raises(PluginError, match="made of latents"):
        PathLength().penalty(Duel(nn.Identity(), torch.zeros(1), torch.zeros(1)))
