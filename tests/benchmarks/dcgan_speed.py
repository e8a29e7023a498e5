"""Images a second of ganzoo's DCGAN step against a plain loop written the way PyTorch's own DCGAN example is.

Same networks, same batch, same data in memory, same process, alternating: A B A B. Prints medians, ratios and their
spread, as JSON with --json. Run it on a machine that does nothing else:

    python tests/benchmarks/dcgan_speed.py --rounds 15
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from ganzoo import assemble
from ganzoo.api import TensorDataset
from ganzoo.device import Device, native_bf16
from ganzoo.registry import registry
from ganzoo.zoo import Request, resolve

BATCH, LATENT, WIDTH = 64, 128, 64


def plain_networks() -> tuple[nn.Module, nn.Module]:
    """The 32-pixel networks in the example's own form: no biases beside batch norm, a sigmoid at D's end."""
    w = WIDTH
    generator = nn.Sequential(
        nn.ConvTranspose2d(LATENT, w * 4, 4, 1, 0, bias=False), nn.BatchNorm2d(w * 4), nn.ReLU(True),
        nn.ConvTranspose2d(w * 4, w * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(w * 2), nn.ReLU(True),
        nn.ConvTranspose2d(w * 2, w, 4, 2, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU(True),
        nn.ConvTranspose2d(w, 3, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Conv2d(3, w, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True),
        nn.Conv2d(w, w * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(w * 2), nn.LeakyReLU(0.2, True),
        nn.Conv2d(w * 2, w * 4, 4, 2, 1, bias=False), nn.BatchNorm2d(w * 4), nn.LeakyReLU(0.2, True),
        nn.Conv2d(w * 4, 1, 4, 1, 0, bias=False), nn.Sigmoid(),
    )  # fmt: skip
    return generator, discriminator


def plain_step(images: torch.Tensor) -> Callable[[], None]:
    """One iteration as the example has it: labels, three forwards of D, `.item()` for the log."""
    generator, discriminator = plain_networks()
    criterion = nn.BCELoss()
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    position = 0

    def step() -> None:
        nonlocal position
        real = images[torch.arange(position, position + BATCH) % len(images)]
        position += BATCH
        discriminator.zero_grad()
        label = torch.full((BATCH,), 1.0)
        error_real = criterion(discriminator(real).view(-1), label)
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


def ganzoo_step(images: torch.Tensor, precision: str) -> Callable[[], None]:
    """One round of the `dcgan` recipe at the same size, through the trainer that `ganzoo train` uses."""
    values = {"train.batch": BATCH, "train.precision": precision, "train.samples": 10**9, "latent.size": LATENT,
              "architecture.width": WIDTH}  # fmt: skip
    recipe = resolve("dcgan", Request(values=values), registry())
    trainer = assemble.trainer(recipe, registry(), Device.choose("cpu", precision), TensorDataset(images))

    def step() -> None:
        trainer.round()
        if trainer.rounds % 20 == 0:
            trainer.report()

    return step


def measure(variants: dict[str, Callable[[], None]], rounds: int, iterations: int) -> dict[str, list[float]]:
    """Return images a second of every variant in every round, variants alternating."""
    speeds: dict[str, list[float]] = {name: [] for name in variants}
    for step in variants.values():
        for _ in range(3):
            step()
    for _ in range(rounds):
        for name, step in variants.items():
            started = time.perf_counter()
            for _ in range(iterations):
                step()
            speeds[name].append(BATCH * iterations / (time.perf_counter() - started))
    return speeds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2000, 3, 32, 32), dtype=torch.uint8)
    floats = images.float() / 127.5 - 1
    variants = {"plain fp32": plain_step(floats), "ganzoo fp32": ganzoo_step(images, "fp32")}
    if native_bf16(torch.device("cpu")):
        variants["ganzoo bf16"] = ganzoo_step(images, "bf16")
    speeds = measure(variants, arguments.rounds, arguments.iterations)
    found = {}
    for name, values in speeds.items():
        ratios = sorted(value / base for value, base in zip(values, speeds["plain fp32"], strict=True))
        found[name] = {
            "images_per_second": round(statistics.median(values), 1),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_range": [round(ratios[0], 3), round(ratios[-1], 3)],
        }
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        for name, row in found.items():
            print(f"{name:12} {row['images_per_second']:8.1f} images/s   ratio {row['ratio']:.3f}  {row['ratio_range']}")


if __name__ == "__main__":
    main()
