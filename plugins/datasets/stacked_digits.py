"""Digits of three colours on top of each other: a thousand modes that can be counted."""

from __future__ import annotations

import torch
from safetensors.torch import load
from torch import Tensor, nn

from ganzoo.api import Batch, DataError, Recognised, Spec, fingerprint_of

from ._prepare import embedded, embedded_idx

CLASSIFIER = "digits8-classifier.safetensors"
SIDE = 8  # pixels
DARKEST = 16  # the largest integer of the originals


def digits() -> tuple[Tensor, Tensor]:
    """Return the 1,797 digits as uint8 [N, 8, 8], and which digit each is."""
    images = torch.from_numpy(embedded_idx("digits8-images.idx.xz").copy()).float()
    labels = torch.from_numpy(embedded_idx("digits8-labels.idx.xz").copy()).long()
    return (images * (255 / DARKEST)).round().to(torch.uint8), labels


def classifier() -> nn.Sequential:
    """Return the untrained network: digits in [-1, 1], [N, 64], to the logits of ten classes."""
    return nn.Sequential(nn.Linear(SIDE * SIDE, 128), nn.ReLU(), nn.Linear(128, 10))


class StackedDigits:
    """Triples of the digits at random, one in each colour channel; a sample follows from its index."""

    modes = 1000

    def __init__(self, *, samples: int, sure: float) -> None:
        if samples < 1:
            raise DataError(f"dataset 'stacked-digits' cannot have {samples} samples; give 1 or more")
        if not 0 <= sure < 1:
            raise DataError(f"dataset 'stacked-digits' needs 'sure' in [0, 1), not {sure}")
        self.sure = sure
        self.images, self.labels = digits()
        source = torch.Generator().manual_seed(0)
        self.triples = torch.randint(len(self.images), (samples, 3), generator=source)
        self.spec = Spec(shape=(3, SIDE, SIDE))
        self.fingerprint = fingerprint_of(self.images, self.triples)
        share = torch.bincount(self.labels, minlength=10).double() / len(self.labels)
        self.shares = torch.einsum("i,j,k->ijk", share, share, share).flatten()
        self.net = classifier().requires_grad_(False)
        self.net.load_state_dict(load(embedded(CLASSIFIER)))

    def __len__(self) -> int:
        return len(self.triples)

    def batch(self, index: Tensor) -> Batch:
        """Return the samples at these positions, uint8 [N, 3, 8, 8]."""
        return Batch(self.images[self.triples[index]])

    def recognise(self, samples: Tensor) -> Recognised:
        """Return which of the 1,000 triples samples [N, 3, 8, 8] in [-1, 1] are; good is where each digit is sure."""
        best, digit = self.net(samples.float().cpu().flatten(2)).softmax(2).max(2)
        return Recognised(digit @ torch.tensor([100, 10, 1]), (best > self.sure).all(1))


def stacked_digits(*, samples: int = 128_000, sure: float = 0.9) -> StackedDigits:
    """Three 8x8 digits in the three colours of each sample, 1,000 modes (after Metz et al. 2017, arXiv:1611.02163).

    The protocol of Stacked-MNIST with the small digits of the UCI repository (Alpaydin & Kaynak 1998), which are inside the
    package; 128,000 random triples as in Srivastava et al. 2017 (arXiv:1705.07761). A built-in classifier tells the digits
    of generated samples; those of which it is more than `sure` in every channel count as good.
    """
    return StackedDigits(samples=samples, sure=sure)
