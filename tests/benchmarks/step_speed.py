"""How fast ganzoo's rounds are beside plain loops with the same networks, loss and batch.

Everything runs alternately in one process, so that what else the machine does meets all alike; ratios are medians of the
ratios of neighbouring rounds, with their quartiles. The share is of the best convolution or matrix product of the same
process, see `ganzoo speed`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import plain_loops

from ganzoo import assemble
from ganzoo.allocator import keep_memory
from ganzoo.api import TensorDataset
from ganzoo.device import Device, native_bf16
from ganzoo.flops import FlopCounter
from ganzoo.registry import registry
from ganzoo.speed.peak import better, larger, measure
from ganzoo.zoo import Request, resolve

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Contest:
    """A plain loop and the recipe with the same networks; `iterations` of either are one round of the comparison."""

    plain: Callable[[torch.Tensor], plain_loops.Step]
    recipe: str
    settings: dict[str, object]
    iterations: int


CONTESTS = {
    "dcgan": Contest(
        lambda images: plain_loops.dcgan(images, 128), "dcgan", {"architecture.width": 128, "latent.size": 128}, 3
    ),
    "wgan-gp": Contest(
        lambda images: plain_loops.wgan_gp(images, 128), "dcgan-wgangp", {"architecture.width": 128, "latent.size": 128}, 1
    ),
    "sngan": Contest(
        lambda images: plain_loops.sngan(images, 128, 64),
        "sngan",
        {"train.turns": ["D", "G"], "architecture.generator_width": 128, "architecture.discriminator_width": 64},
        1,
    ),
}


def ganzoo_step(contest: Contest, images: torch.Tensor, precision: str) -> plain_loops.Step:
    """One round through the trainer that `ganzoo train` uses."""
    values = {"train.batch": plain_loops.BATCH, "train.precision": precision, "train.samples": 10**9, **contest.settings}
    recipe = resolve(contest.recipe, Request(values=values), registry())
    trainer = assemble.trainer(recipe, registry(), Device.choose("cpu", precision), TensorDataset(images))

    def step() -> None:
        trainer.round()
        if trainer.rounds % 20 == 0:
            trainer.report()

    return step


def race(steps: dict[str, plain_loops.Step], rounds: int, iterations: int) -> dict[str, list[float]]:
    """Return seconds an iteration of every variant in every round, variants alternating."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step(), step()
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            for _ in range(iterations):
                step()
            times[name].append((time.perf_counter() - started) / iterations)
    return times


def counted(step: plain_loops.Step) -> int:
    with FlopCounter() as counter:
        step()
    return counter.total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contests", nargs="*", default=[*CONTESTS], help=", ".join(CONTESTS))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--keep-memory", action="store_true", help="for all, the plain loops too, as ganzoo's command does")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.keep_memory:
        keep_memory()
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2000, 3, 32, 32), dtype=torch.uint8)
    floats = images.float() / 127.5 - 1
    precisions = ("fp32", "bf16") if native_bf16(CPU) else ("fp32",)
    found: dict[str, dict[str, object]] = {}
    for name in arguments.contests:
        contest = CONTESTS[name]
        steps = {"plain": contest.plain(floats)} | {p: ganzoo_step(contest, images, p) for p in precisions}
        flops = {key: counted(step) for key, step in steps.items()}
        peaks = {p: measure(Device.choose("cpu", p), 3.0) for p in precisions}
        times = race(steps, arguments.rounds, contest.iterations)
        peaks = {p: better(peak, measure(Device.choose("cpu", p), 3.0)) for p, peak in peaks.items()}
        for key, values in times.items():
            ratios = [base / value for base, value in zip(times["plain"], values, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            seconds, peak = statistics.median(values), peaks[key if key in peaks else "fp32"]
            best = peak[larger(peak)].flops_per_second
            found[f"{name} {key}"] = {
                "ms": round(seconds * 1000, 1), "images_per_second": round(plain_loops.BATCH / seconds, 1),
                "gflop": round(flops[key] / 1e9, 1),
                "ratio": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)],
                "peak_gflops": round(best / 1e9), "share": round(flops[key] / seconds / best, 3),
            }  # fmt: skip
            if not arguments.json:
                row = found[f"{name} {key}"]
                print(
                    f"{name:8} {key:6} {row['ms']:8.1f} ms  {row['gflop']:6.1f} GFLOP  ratio {row['ratio']:.3f} "
                    f"{row['quartiles']}  {row['share']:.1%} of {row['peak_gflops']} GFLOP/s"
                )
    if arguments.json:
        print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(), "variants": found}, indent=1))


if __name__ == "__main__":
    main()
