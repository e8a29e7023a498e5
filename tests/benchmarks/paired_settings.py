"""Train recipes with three seeds in two ways and score every run: is a lever of speed the same training?

    python tests/benchmarks/paired_settings.py OUT --one train.precision=bf16 --other train.precision=fp32
    python tests/benchmarks/paired_settings.py OUT --one train.graphs=on --other train.graphs=off --device cuda

Seeds, data order and latents are the same both times. What is there already in OUT is not done again, so runs may be
trained on one machine (`--train-only`) and scored on another.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from pathlib import Path

from ganzoo import train
from ganzoo.benchmark import api

RECIPES = ("dcgan=60000", "dcgan-wgangp=48000")
SEEDS = (0, 1, 2)


def main() -> None:
    """Train, score and print the scores of both ways with their paired differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--one", required=True, metavar="KEY=VALUE")
    parser.add_argument("--other", required=True, metavar="KEY=VALUE")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, metavar="NAME=SAMPLES")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--train-only", action="store_true")
    asked = parser.parse_args()
    runs = {
        (recipe, way, seed): asked.out / f"{recipe}-{seed}-{way}"
        for recipe, way, seed in itertools.product(asked.recipes, (asked.one, asked.other), SEEDS)
    }
    for (recipe, way, seed), run in runs.items():
        (name, samples), (key, value) = recipe.split("="), way.split("=")
        train(name, run=run, seed=seed, device=asked.device, settings={"train.samples": int(samples), key: value})
    if not asked.train_only:
        compare(asked, runs)


def compare(asked: argparse.Namespace, runs: dict[tuple[str, str, int], Path]) -> None:
    """Score all runs and print each metric's values and paired differences."""
    found: dict[str, dict[str, list[float]]] = {}
    for (recipe, way, _), run in runs.items():
        for metric, value in api.score(run, out=asked.out / "board")["scores"].items():
            if metric.startswith("FD/"):
                found.setdefault(f"{recipe} {metric}", {}).setdefault(way, []).append(value["mean"])
    for what, values in found.items():
        apart = [one - other for one, other in zip(values[asked.one], values[asked.other], strict=True)]
        error = statistics.stdev(apart) / len(apart) ** 0.5
        print(f"{what}: {values}, {asked.one} - {asked.other}: {statistics.mean(apart):.2f} +- {error:.2f}")


if __name__ == "__main__":
    main()
