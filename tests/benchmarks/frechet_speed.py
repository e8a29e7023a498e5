"""Time of ganzoo's Fréchet distance against torch-fidelity's, from the same moments, alternating: A B A B.

Prints medians, their ratio and the relative difference of the values. Run it on a machine that does nothing else:

    python tests/benchmarks/frechet_speed.py --sizes 64,512,2048 --rounds 3
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch_fidelity import metric_fid

from ganzoo.benchmark.metrics.frechet import distance, moments


def main() -> None:
    """Time both routes at each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="64,512,2048", help="numbers a feature")
    parser.add_argument("--rounds", type=int, default=3, help="times each route is taken")
    asked = parser.parse_args()
    for size in (int(size) for size in asked.sizes.split(",")):
        torch.manual_seed(size)
        scale = torch.linspace(0.1, 2, size, dtype=torch.float64)
        sides = [moments(torch.randn(2 * size, size, dtype=torch.float64) * factor) for factor in (scale, 1.0)]
        statistic = [{"mu": side.mean, "sigma": side.covariance} for side in sides]
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(asked.rounds):
            start = time.perf_counter()
            ours = distance(*sides)
            middle = time.perf_counter()
            theirs = metric_fid.fid_statistics_to_metric(*statistic, verbose=False)[metric_fid.KEY_METRIC_FID]
            times[0].append(middle - start)
            times[1].append(time.perf_counter() - middle)
        own, other = map(statistics.median, times)
        print(
            f"d={size}: ganzoo {own:.3f} s, torch-fidelity {other:.3f} s, ratio {other / own:.1f}, "
            f"relative difference {abs(ours / theirs - 1):.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
