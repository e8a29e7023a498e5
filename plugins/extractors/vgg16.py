"""VGG16, in whose features precision and recall were published, through torch-fidelity."""

from __future__ import annotations

from ganzoo.pretrained import FidelityExtractor


class VGG16(FidelityExtractor):
    """4096 numbers of VGG16's second dense layer (Simonyan and Zisserman 2015, arXiv:1409.1556), for images of 224 pixels.

    Precision and recall of Kynkäänniemi et al. 2019 (arXiv:1904.06991) are those of this layer. The weights (528 MB) are
    torchvision's file.
    """

    def __init__(self, *, weights: str = "", unverified: bool = False) -> None:
        super().__init__(
            "vgg16",
            "vgg16",
            "fc2_relu",
            file="vgg16-397923af.pth",
            sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            source="torchvision's VGG16_Weights.IMAGENET1K_FEATURES",
            weights=weights,
            unverified=unverified,
        )
