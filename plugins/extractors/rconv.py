"""Random convolutions, calibrated on the reference: features for any images, from no training at all."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ganzoo.api import Extractor

from ._images import hash8, resized, with_channels

SEED = 20220818  # of the legacy stream, which NumPy has frozen
WIDTHS = (32, 64, 128)
SIZE = 32  # pixels that images are brought to
FIT = 2_000  # images that the layers are calibrated on
PIECE = 250


class RandomConvolutions(Extractor):
    """Three layers of random 4x4 convolutions with stride 2, each standardised on the reference before its ReLU.

    Random networks compare images much as trained ones do (Lee et al. 2022, arXiv:2208.09218), but only if their
    activations are alive: a stock network without training gives all images the same features. So each channel is
    standardised on up to 2,000 reference images. Features are the means of the last two layers over the whole image and
    over its quarters, 960 numbers, standardised too, and mixed to 128 by a random matrix; on the reference they have mean 0
    and a mean variance of 1.
    """

    DIM = 128

    def __init__(self) -> None:
        super().__init__()
        source = np.random.RandomState(SEED)
        self.layers = len(WIDTHS)
        for number, (inside, outside) in enumerate(zip((3, *WIDTHS), WIDTHS, strict=False)):
            weights = source.standard_normal((outside, inside, 4, 4)) / np.sqrt(inside * 16)
            self.register_buffer(f"weight{number}", torch.from_numpy(weights.astype(np.float32)))
            self.register_buffer(f"mean{number}", torch.zeros(outside))
            self.register_buffer(f"scale{number}", torch.ones(outside))
        pooled = 5 * sum(WIDTHS[1:])
        mixing = source.standard_normal((pooled, self.DIM)) / np.sqrt(pooled)
        self.register_buffer("mixing", torch.from_numpy(mixing.astype(np.float32)))
        self.register_buffer("centre", torch.zeros(pooled))
        self.register_buffer("gain", torch.ones(pooled))
        self.register_buffer("spread", torch.ones(1))
        self._name()
        self.eval()

    def _name(self) -> None:
        self.id = f"rconv@{hash8('rconv/1', *(f'{value:.4g}' for value in self._constants()))}"

    def _constants(self) -> list[float]:
        """Return the calibration in few digits, which do not depend on a machine's last bits."""
        parts = [getattr(self, f"{kind}{number}").mean() for number in range(self.layers) for kind in ("mean", "scale")]
        return [float(part) for part in (*parts, self.centre.mean(), self.gain.mean(), self.spread)]

    def fit(self, images: Tensor) -> None:
        """Standardise each layer on the reference, from the first to the last, and scale the features."""
        images = images[torch.arange(min(FIT, len(images))) * len(images) // min(FIT, len(images))]
        for number in range(self.layers):
            getattr(self, f"mean{number}").zero_()
            getattr(self, f"scale{number}").fill_(1)
        for number in range(self.layers):
            sums, squares, count = 0.0, 0.0, 0
            for piece in torch.split(images, PIECE):
                made = self._activations(piece, number + 1)[number].double()
                sums, squares = sums + made.sum((0, 2, 3)), squares + made.square().sum((0, 2, 3))
                count += made.numel() // made.shape[1]
            mean = torch.as_tensor(sums) / count
            variance = torch.as_tensor(squares) / count - mean.square()
            getattr(self, f"mean{number}").copy_(mean)
            getattr(self, f"scale{number}").copy_(variance.clamp(min=1e-8).rsqrt())
        pooled = torch.cat([self._pooled(piece) for piece in torch.split(images, PIECE)]).double()
        self.centre.copy_(pooled.mean(0))
        self.gain.copy_(pooled.var(0).clamp(min=1e-8).rsqrt())
        self.spread.fill_(1)
        features = torch.cat([self(piece) for piece in torch.split(images, PIECE)]).double()
        self.spread.fill_(float(features.var(0).mean().clamp(min=1e-12).rsqrt()))
        self._name()

    def _activations(self, images: Tensor, layers: int) -> list[Tensor]:
        """Return each layer's standardised output, before its ReLU."""
        x = resized(with_channels(images, 3), SIZE) / 127.5 - 1
        found = []
        for number in range(layers):
            x = F.conv2d(F.relu(x) if number else x, getattr(self, f"weight{number}"), stride=2, padding=1)
            mean, scale = getattr(self, f"mean{number}"), getattr(self, f"scale{number}")
            x = (x - mean[:, None, None]) * scale[:, None, None]
            found.append(x)
        return found

    def _pooled(self, images: Tensor) -> Tensor:
        outputs = [F.relu(x) for x in self._activations(images, self.layers)[1:]]
        return torch.cat([F.adaptive_avg_pool2d(x, size).flatten(1) for x in outputs for size in (1, 2)], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return features [N, 128] of images uint8 [N, C, H, W]."""
        return (self._pooled(images) - self.centre) * self.gain @ self.mixing * self.spread
