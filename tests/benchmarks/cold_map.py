"""How long a training waits for samples that lie in a memory-mapped file and in no cache, without workers and with one.

    python tests/benchmarks/cold_map.py --gib 2 --rounds 40

writes a file of noise, forgets its pages before each variant, and plays rounds of a DCGAN on it. Each variant runs in a
process of its own, so that none has mapped what the other read.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch
from ganzoo_plugins.datasets._decoded import mapped
from ganzoo_plugins.datasets.images import ImageDataset, _tensor

from ganzoo import assemble
from ganzoo.device import Device
from ganzoo.registry import registry
from ganzoo.zoo import Request, resolve

SHAPE = (3, 64, 64)
WARM = 3  # rounds that start the workers and fill their queues


def write(file: Path, gib: float) -> None:
    """Write a file of noise and put it on the disk."""
    count = int(gib * 2**30) // int(np.prod(SHAPE))
    noise = np.random.default_rng(0)
    with open(file, "wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": (count, *SHAPE)})
        for start in range(0, count, 4096):
            out.write(noise.bytes(min(4096, count - start) * int(np.prod(SHAPE))))
        out.flush()
        os.fsync(out.fileno())


def forget(file: Path) -> None:
    """Let the system forget what it holds of a file."""
    with open(file, "rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(file: Path, workers: int, rounds: int) -> None:
    """Play rounds and print the share of the time that they wait for data."""
    samples = _tensor(mapped(file))
    data = ImageDataset(samples, None, class_names=(), fingerprint="noise", skipped=[], notes=[], file=file)
    settings = {"train.workers": workers, "architecture.width": 16, "train.batch": 64}
    recipe = resolve("dcgan", Request(values=settings), registry())
    trainer = assemble.trainer(recipe, registry(), Device.choose("cpu"), data)
    waited = 0.0

    @contextmanager
    def span(name: str) -> Iterator[None]:
        nonlocal waited
        started = time.perf_counter()
        yield
        waited += (time.perf_counter() - started) * (name == "data")

    with closing(trainer.feed):
        for _ in range(WARM):
            trainer.round()
        trainer.span = span
        started = time.perf_counter()
        for _ in range(rounds):
            trainer.round()
        whole = time.perf_counter() - started
    print(f"workers={workers}: {whole / rounds * 1e3:.1f} ms a round, {waited / rounds * 1e3:.1f} of them waiting for data")


def main() -> None:
    """Measure both, in processes of their own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("FILE", "WORKERS"))
    given = parser.parse_args()
    if given.one:
        measure(Path(given.one[0]), int(given.one[1]), given.rounds)
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "samples.npy"
        write(file, given.gib)
        for _ in range(given.repeat):
            for workers in ("0", "1"):
                forget(file)
                command = [sys.executable, __file__, "--rounds", str(given.rounds), "--one", str(file), workers]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
