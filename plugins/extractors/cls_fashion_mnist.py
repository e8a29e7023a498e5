"""A small classifier of clothes: features that know what matters in Fashion-MNIST, inside the package."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor, nn

from ganzoo.api import DataError, Extractor

from ._images import resized, with_channels

FILE = "cls_fashion_mnist.safetensors"
SHA256 = "eabc2a5f766c9e2495b1091535ff6697b258ca63da10dd81bef924764632590c"
SIZE = 32  # pixels
PLAN = ((1, 24, 1), (24, 48, 2), (48, 64, 1), (64, 96, 2), (96, 128, 2))  # inputs, outputs and stride of the convolutions
DIM = 128
CLASSES = 10


def network() -> nn.ModuleDict:
    """Return the network as it is used: five convolutions, global mean, two dense layers; 221,186 numbers."""
    return nn.ModuleDict(
        {
            **{f"conv{i}": nn.Conv2d(a, b, 3, stride=s, padding=1) for i, (a, b, s) in enumerate(PLAN)},
            "features": nn.Linear(PLAN[-1][1], DIM),
            "logits": nn.Linear(DIM, CLASSES),
        }
    )


class ClsFashionMNIST(Extractor):
    """128 features and 10 logits of a classifier trained on the training images of Fashion-MNIST, and on nothing else.

    tools/train_cls_fashion_mnist.py made its file, whose accuracy on the test images stands in it. Features are scaled to a
    mean variance of 1 on the training images. Distances in a small classifier's features are what the FID (Heusel et al.
    2017, arXiv:1706.08500) becomes where Inception has nothing to say. `weights` is another file of the same script.
    """

    datasets = frozenset({"fashion-mnist", "fashion-mnist-10k"})
    layer = "features"

    def __init__(self, *, weights: str = "") -> None:
        super().__init__()
        self.weights = weights
        content = _read(weights)
        found = hashlib.sha256(content).hexdigest()
        if not weights and found != SHA256:
            raise DataError(f"the file {FILE} inside the package has SHA-256 {found}, not {SHA256}; reinstall the package")
        self.network = network()
        state = load(content)
        self.register_buffer("scale", state.pop("scale"))
        self.network.load_state_dict(state)
        self.id = f"cls-fashion-mnist@{found[:8]}"
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [N, 128] and logits [N, 10] of images uint8 [N, C, H, W]."""
        x = resized(with_channels(images, 1), SIZE) / 127.5 - 1
        for number in range(len(PLAN)):
            x = F.relu(self.network[f"conv{number}"](x))
        x = F.relu(self.network["features"](x.mean((2, 3))))
        return x * self.scale, self.network["logits"](x)


def _read(weights: str) -> bytes:
    if not weights:
        return resources.files(__package__ or "").joinpath("weights", FILE).read_bytes()
    try:
        return Path(weights).expanduser().read_bytes()
    except OSError as error:
        raise DataError(f"{weights} cannot be read ({error.strerror}); check the path") from None
