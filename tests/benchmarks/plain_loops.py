"""The loops that ganzoo is compared with: the same networks, losses and batches, written the way their sources write them.

Nothing here is clever on purpose. `dcgan` follows PyTorch's own DCGAN example, `wgan_gp` the common WGAN-GP script (critic
steps with a penalty of their own forward, a fresh batch of fakes for G), `sngan` a GAN library's training step (spectral
norm iterated in every forward, upsample then convolve, convolve then pool, fresh fakes for G).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

BATCH, LATENT = 64, 128
Step = Callable[[], None]


class Reals:
    """Batches of float images in order, again and again."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.position = 0

    def next(self) -> Tensor:
        index = torch.arange(self.position, self.position + BATCH) % len(self.images)
        self.position += BATCH
        return self.images[index]


def dcgan_networks(width: int, normed: bool = True) -> tuple[nn.Module, nn.Module]:
    """The example's networks at 32 pixels; D without batch norm where a penalty needs it."""
    w = width
    generator = nn.Sequential(
        nn.ConvTranspose2d(LATENT, w * 4, 4, 1, 0, bias=False), nn.BatchNorm2d(w * 4), nn.ReLU(True),
        nn.ConvTranspose2d(w * 4, w * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(w * 2), nn.ReLU(True),
        nn.ConvTranspose2d(w * 2, w, 4, 2, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU(True),
        nn.ConvTranspose2d(w, 3, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip
    norm = nn.BatchNorm2d if normed else lambda channels: nn.Identity()
    discriminator = nn.Sequential(
        nn.Conv2d(3, w, 4, 2, 1, bias=not normed), nn.LeakyReLU(0.2, True),
        nn.Conv2d(w, w * 2, 4, 2, 1, bias=not normed), norm(w * 2), nn.LeakyReLU(0.2, True),
        nn.Conv2d(w * 2, w * 4, 4, 2, 1, bias=not normed), norm(w * 4), nn.LeakyReLU(0.2, True),
        nn.Conv2d(w * 4, 1, 4, 1, 0, bias=False),
    )  # fmt: skip
    return generator, discriminator


def adam(net: nn.Module, betas: tuple[float, float]) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=2e-4, betas=betas)


def dcgan(images: Tensor, width: int) -> Step:
    """Labels, three forwards of D, a sigmoid, `.item()` for the log."""
    generator, discriminator = dcgan_networks(width)
    discriminator.append(nn.Sigmoid())
    criterion = nn.BCELoss()
    optimizer_d, optimizer_g = adam(discriminator, (0.5, 0.999)), adam(generator, (0.5, 0.999))
    reals = Reals(images)

    def step() -> None:
        discriminator.zero_grad()
        label = torch.full((BATCH,), 1.0)
        error_real = criterion(discriminator(reals.next()).view(-1), label)
        error_real.backward()
        fake = generator(torch.randn(BATCH, LATENT, 1, 1))
        label.fill_(0.0)
        error_fake = criterion(discriminator(fake.detach()).view(-1), label)
        error_fake.backward()
        optimizer_d.step()
        generator.zero_grad()
        label.fill_(1.0)
        error_g = criterion(discriminator(fake).view(-1), label)
        error_g.backward()
        optimizer_g.step()
        (error_real + error_fake).item(), error_g.item()

    return step


def wgan_gp(images: Tensor, width: int) -> Step:
    """Five critic steps, each with the exact penalty, then one of G on fresh fakes."""
    generator, critic = dcgan_networks(width, normed=False)
    optimizer_d, optimizer_g = adam(critic, (0.5, 0.9)), adam(generator, (0.5, 0.9))
    reals = Reals(images)

    def step() -> None:
        for _ in range(5):
            real = reals.next()
            optimizer_d.zero_grad()
            fake = generator(torch.randn(BATCH, LATENT, 1, 1)).detach()
            alpha = torch.rand(BATCH, 1, 1, 1)
            between = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
            score = critic(between)
            gradient = torch.autograd.grad(score, between, torch.ones_like(score), create_graph=True, retain_graph=True)[0]
            penalty = 10 * ((gradient.flatten(1).norm(2, dim=1) - 1) ** 2).mean()
            loss = critic(fake).mean() - critic(real).mean() + penalty
            loss.backward()
            optimizer_d.step()
        optimizer_g.zero_grad()
        loss_g = -critic(generator(torch.randn(BATCH, LATENT, 1, 1))).mean()
        loss_g.backward()
        optimizer_g.step()
        loss.item(), loss_g.item()

    return step


class UpBlock(nn.Module):
    """Norm, ReLU, upsample, convolve, norm, ReLU, convolve, beside upsample and a 1x1 convolution."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(out)
        self.conv1, self.conv2 = nn.Conv2d(width, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.interpolate(F.relu(self.norm1(x)), scale_factor=2))
        return self.conv2(F.relu(self.norm2(hidden))) + self.shortcut(F.interpolate(x, scale_factor=2))


class DownBlock(nn.Module):
    """ReLU, convolve, ReLU, convolve, pool, beside a 1x1 convolution and pool; all with spectral norm."""

    def __init__(self, width: int, out: int, *, halve: bool, first: bool = False) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = spectral_norm(nn.Conv2d(width, out, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(out, out, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(width, out, 1)) if halve or width != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        other = self.shortcut(x)
        return F.avg_pool2d(hidden, 2) + F.avg_pool2d(other, 2) if self.halve else hidden + other


class ResGenerator(nn.Module):
    """From 4x4 to 32 pixels in three blocks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(LATENT, width * 16)
        self.blocks = nn.Sequential(*(UpBlock(a, b) for a, b in pairwise([width] * 4)))
        self.end = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 3, 3, padding=1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.end(self.blocks(self.linear(z).unflatten(1, (-1, 4, 4))))


class ResDiscriminator(nn.Module):
    """Four blocks, of which two halve, and a sum over the last map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            DownBlock(3, width, halve=True, first=True), DownBlock(width, width, halve=True),
            DownBlock(width, width, halve=False), DownBlock(width, width, halve=False),
        )  # fmt: skip
        self.linear = spectral_norm(nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.relu(self.blocks(x)).sum((2, 3)))


def sngan(images: Tensor, generator_width: int, discriminator_width: int) -> Step:
    """One step of D and one of G, each on fakes of its own."""
    generator, discriminator = ResGenerator(generator_width), ResDiscriminator(discriminator_width)
    optimizer_d, optimizer_g = adam(discriminator, (0.0, 0.9)), adam(generator, (0.0, 0.9))
    reals = Reals(images)

    def step() -> None:
        discriminator.zero_grad()
        real = discriminator(reals.next())
        fake = discriminator(generator(torch.randn(BATCH, LATENT)).detach())
        loss_d = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        loss_d.backward()
        optimizer_d.step()
        generator.zero_grad()
        loss_g = -discriminator(generator(torch.randn(BATCH, LATENT))).mean()
        loss_g.backward()
        optimizer_g.step()
        loss_d.item(), loss_g.item()

    return step
