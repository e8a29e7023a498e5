"""Principal components of pixels: the plainest features that there are, and exactly reproducible."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ganzoo.api import Extractor

from ._images import hash8, resized, with_channels

COMPONENTS = 64
FIT = 10_000  # images that the components are taken from


class PCA64(Extractor):
    """The first 64 principal components of pixels / 255: an anchor for tests (Hotelling 1933).

    Blind to most of what people see. Fitted in float64 on up to 10,000 images of the reference; one constant, `scale`,
    gives the features a mean variance of 1 there, so an unscaled distance is the distance over its square. Before it has
    seen a reference: grey pixels at 8x8.
    """

    mean: Tensor
    components: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        self.register_buffer("mean", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("components", torch.zeros(0, COMPONENTS, dtype=torch.float64))
        self.id = f"pca64@{hash8('unfitted/1')}"
        self.eval()

    def fit(self, images: Tensor) -> None:
        """Take mean, components and scale from the reference."""
        rows = images[:FIT].flatten(1).double().numpy() / 255
        mean = rows.mean(0)
        _, spreads, vectors = _components(rows - mean)
        kept = np.zeros((rows.shape[1], COMPONENTS))
        count = min(COMPONENTS, int((spreads > 1e-9 * max(spreads.max(initial=0.0), 1e-300)).sum()))
        signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])])
        kept[:, :count] = (vectors * signs)[:, :count]
        variance = float((spreads[:COMPONENTS] ** 2).sum() / max(len(rows) - 1, 1) / COMPONENTS)
        self.scale = float(np.float32(1 / np.sqrt(variance))) if variance > 0 else 1.0
        self.mean, self.components = torch.from_numpy(mean), torch.from_numpy(kept)
        # rounded, so that the last bits of another machine's linear algebra give the same name
        self.id = f"pca64@{hash8('pca/1', torch.from_numpy(np.round(mean, 6)), f'{self.scale:.6g}')}"

    def forward(self, images: Tensor) -> Tensor:
        """Return features [N, 64] of images uint8 [N, C, H, W]."""
        if not len(self.mean):
            return resized(with_channels(images, 1), 8).flatten(1) / 255
        rows = images.flatten(1).double() / 255
        if rows.shape[1] != len(self.mean):
            raise ValueError(f"images of {rows.shape[1]} numbers, but the reference's have {len(self.mean)}")
        return ((rows - self.mean) @ self.components * self.scale).float()


def _components(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (unused, singular values, right vectors as columns), largest first, by the smaller of the two products."""
    if rows.shape[0] < rows.shape[1]:
        values, left = np.linalg.eigh(rows @ rows.T)
        spreads = np.sqrt(np.clip(values[::-1], 0, None))
        right = rows.T @ left[:, ::-1] / np.where(spreads > 0, spreads, 1)
        return left, spreads, right
    values, right = np.linalg.eigh(rows.T @ rows)
    return right, np.sqrt(np.clip(values[::-1], 0, None)), right[:, ::-1]
