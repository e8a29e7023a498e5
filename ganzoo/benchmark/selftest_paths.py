"""The selftest's cases of the whole path: determinism, weights, caches (items 11 and 13 of what must hold)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..api import Extractor, TensorDataset
from ..checkpoint import write_tensors
from ..fidelity import exact, extract
from ..pretrained import FidelityExtractor
from .latents import latents, stratified
from .metrics.frechet import distance, moments
from .reference import Split, features_of
from .selftest import Pictures, Sheet, case

COUNT = 700  # no multiple of any of the batches below
CPU = torch.device("cpu")


class _Sums(Extractor):
    """Sixteen sums of pixels by fixed random weights."""

    id = "selftest@00000001"

    def __init__(self) -> None:
        super().__init__()
        weights = np.random.Generator(np.random.Philox(key=7)).standard_normal((64, 16)) / 8
        self.weights = torch.nn.Parameter(torch.from_numpy(weights).float())

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).float() / 255 @ self.weights


def _drawn(start: int, stop: int) -> Tensor:
    """Return images 8x8 that depend on their position and class, as a conditional generator's do."""
    z = latents(start, stop, 64, "normal", 0)
    labels = stratified(1024, [3, 2, 1])[torch.arange(start, stop) % 1024]
    return (127 + 40 * z + 20 * labels[:, None]).clamp(0, 255).to(torch.uint8).reshape(-1, 1, 8, 8)


@case
def determinism(sheet: Sheet, _: Pictures) -> None:
    """Any batch gives the same bits, and nothing of the caller's changes."""
    state, tf32 = torch.get_rng_state(), torch.backends.cuda.matmul.allow_tf32
    found = [extract(_drawn, COUNT, [_Sums()], batch=batch)[0].values for batch in (64, 7, 500, 64)]
    for name, other in zip(("batch 7", "batch 500", "again"), found[1:], strict=True):
        sheet.near(f"{name}: bits that differ", float((found[0] != other).sum()), 0, 0)
    sheet.near("generator untouched", float(torch.equal(state, torch.get_rng_state())), 1, 0)
    sheet.near("settings untouched", float(tf32 == torch.backends.cuda.matmul.allow_tf32), 1, 0)


@case
def broken_samples(sheet: Sheet, _: Pictures) -> None:
    """Neither no sample, nor one, nor features of NaN give a number."""

    class Broken(_Sums):
        id = "selftest@00000002"

        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * torch.nan

    sheet.refuses("no sample", lambda: extract(_drawn, 0, [_Sums()]))
    sheet.refuses("one sample", lambda: moments(extract(_drawn, 1, [_Sums()])[0].values))
    sheet.refuses("NaN", lambda: moments(extract(_drawn, 100, [Broken()])[0].values))


@case
def wrong_weights(sheet: Sheet, _: Pictures) -> None:
    """Weights with another hash, and weights that are not there, give no extractor."""

    def build(file: str) -> None:
        FidelityExtractor("test", "none", "none", file="no-such-file.pth", sha256="0" * 64, source="nowhere", weights=file)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.pth")
        path.write_bytes(b"something else")
        sheet.refuses("wrong hash", lambda: build(str(path)))
        sheet.refuses("missing file", lambda: build(str(path.with_name("other.pth"))))
        sheet.refuses("nothing in the cache", lambda: build(""))


@case
def stale_cache(sheet: Sheet, _: Pictures) -> None:
    """Features are found by the pixels' hash; a file that is damaged, or belongs to other images, is not believed."""
    images = _drawn(0, COUNT)
    changed = images.clone()
    changed[0, 0, 0, 0] += 1
    extractor = _Sums().eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder, exact():
        cache = Path(folder)

        def features(samples: Tensor) -> Tensor:
            return features_of(Split(TensorDataset(samples), "train"), [extractor], 64, CPU, cache)[0].values

        first = features(images)
        (file,) = cache.iterdir()
        sheet.near("from the cache: bits that differ", float((features(images) != first).sum()), 0, 0)
        sheet.near("one pixel changed: rows that differ", float((features(changed) != first).any(1).sum()), 1, 0)
        write_tensors(file, {"values": first + 1}, {"key": "another"})
        sheet.near("a file of another key: bits that differ", float((features(images) != first).sum()), 0, 0)
        file.write_bytes(file.read_bytes()[:-8] + b"\1" * 8)
        sheet.near("a damaged file: bits that differ", float((features(images) != first).sum()), 0, 0)
    sheet.refuses("other extractors", lambda: distance(moments(first), moments(first[:, :8])))
