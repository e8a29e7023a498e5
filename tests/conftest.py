"""What many tests share."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from ganzoo.benchmark.config_hash import config_sha256
from ganzoo.benchmark.entry import seal
from ganzoo.testing.tiny import tiny_data, tiny_trainer
from ganzoo.trainer import Trainer


@pytest.fixture
def make() -> Callable[..., Trainer]:
    """The function that builds a trainer of made-up plugins; labels=True gives it two classes."""

    def build(*, labels: bool = False, **parts) -> Trainer:
        return tiny_trainer(data=tiny_data(classes=2 if labels else 0), **parts)

    return build


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small networks run fastest, and to the same bits everywhere, on one thread: in the fixtures of modules, too."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread_again() -> Iterator[None]:
    """What a test does to the number of threads ends with it."""
    yield
    torch.set_num_threads(1)


def whole_entry(
    name: str = "one", fd: float = 5.0, se: float = 0.1, seed: int = 0, kind: str = "model", **more: Any
) -> dict[str, Any]:
    """Return a whole entry, as `ganzoo benchmark` would write it."""
    recipe = f'name = "{json.dumps(name)[1:-1]}"\n[train]\nseed = {seed}\nsamples = 100\n[loss]\nname = "{len(name)}"\n'
    model = kind == "model"
    recipe = recipe if model else ""
    scores = {
        f"{metric}/rconv@{'a' * 8}": {"mean": mean, "se": error, "per_seed": [mean - error, mean + error],
                                     "per_seed_se": [error, error], "note": "", **beside}
        for metric, mean, error, beside in (
            ("FD", fd, se, {"floor_theory": 1.0, "floor_measured": 1.1}), ("KD", -0.001, 0.002, {}),
            ("Coverage", 0.5, 0.0, {}), ("AuthPct", 60.0, 0.0, {"heldout": 58.0}), ("C_T", 1.0, 0.0, {"heldout": 0.5}),
        )
    }  # fmt: skip
    digest = hashlib.sha256(f"{name} {seed}".encode()).hexdigest()
    found = {
        "schema": "ganzoo.entry/1", "kind": kind, "status": "scored", "reason": "", "flags": [], "verified": [],
        "model": {"name": name, "summary": "a summary", "recipe": recipe,
                  "config_sha256": config_sha256(tomllib.loads(recipe)),
                  "plugins": [], "params_g": 1_068_931, "params_d": 5, "macs_g": 7, "imagenet_pretrained": False},
        "checkpoint": {"sha256": digest, "bytes": 9, "format": "safetensors", "weights": "ema", "samples": 100,
                       "selection": "last", "url": None} if model else None,
        "training": {"seed": seed, "images_seen": 200_000, "rounds": 3, "wall_s": 61.0, "device": "cpu",
                     "precision": "bf16", "threads": 2, "command": "ganzoo train",
                     "tuning_trials": None} if model else None,
        "dataset": {"name": "emoji32", "split": "train", "n": 1387, "shape": [3, 32, 32], "pixels_sha256": "1" * 64,
                    "fingerprint": "2" * 64, "heldout": {"split": "test", "n": 198, "pixels_sha256": "3" * 64}},
        "protocol": {"id": "offline10k/1", "sha256": "4" * 64, "samples": 10_000, "seeds": [0, 1], "latents": "philox/1",
                     "labels": "stratified", "weights": "ema", "norm": "eval", "truncation": None, "batch": 64,
                     "precision": "fp32", "overrides": []},
        "extractors": [{"id": f"rconv@{'a' * 8}", "name": "rconv", "layer": "features", "dim": 128, "ranks": True,
                        "metric": "FD"}],
        "samples": {"n": 10_000, "stream_sha256": {"0": "5" * 64, "1": "6" * 64}, "witness_png": []},
        "scores": scores,
        "env": {"ganzoo": "0.1", "torch": "2", "torchvision": "0", "torch_fidelity": "0.4.0", "numpy": "2",
                "python": "3.11", "os": "Linux", "device": "cpu", "threads": 1, "tf32": False},
        "timing": {"sample_ms_per_img": 0.3, "benchmark_s": 3.0},
        "reported": {"paper_value": None, "source": None},
    }  # fmt: skip
    return seal({**found, **more})


@pytest.fixture
def board_entries() -> Callable[..., dict[str, Any]]:
    """The function that makes whole entries of a leaderboard."""
    return whole_entry
