"""Train recipes with three seeds in bf16 and fp32 and score every run: `python tests/benchmarks/paired_precision.py OUT`.

Seeds, data order and latents are the same in both precisions. What is there already in OUT is not done again.
"""

from __future__ import annotations

import itertools
import statistics
import sys
from pathlib import Path

from ganzoo import train
from ganzoo.benchmark import api

RUNS = {"dcgan": 60_000, "dcgan-wgangp": 48_000}  # recipe -> samples of a training
SEEDS = (0, 1, 2)


def main(out: Path) -> None:
    """Train, score and print the scores of both precisions with their paired differences."""
    found: dict[str, dict[str, list[float]]] = {}
    for (name, samples), precision, seed in itertools.product(RUNS.items(), ("bf16", "fp32"), SEEDS):
        run = out / f"{name}-{seed}-{precision}"
        train(name, run=run, seed=seed, device="cpu", settings={"train.samples": samples, "train.precision": precision})
        for metric, value in api.score(run, out=out / "board")["scores"].items():
            if metric.startswith("FD/"):
                found.setdefault(f"{name} {metric}", {}).setdefault(precision, []).append(value["mean"])
    for what, values in found.items():
        apart = [low - full for low, full in zip(values["bf16"], values["fp32"], strict=True)]
        error = statistics.stdev(apart) / len(apart) ** 0.5
        print(f"{what}: {values}, bf16 - fp32 {statistics.mean(apart):.2f} +- {error:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
